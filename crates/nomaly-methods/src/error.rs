//! What can go wrong, by whose fault it is.

use std::path::PathBuf;

use nomaly_backbones::BackboneError;
use nomaly_backbones::trainable::TrainableError;
use nomaly_data::DataError;
use nomaly_registry::UnknownName;
use nomaly_scorers::ScorerError;
use nomaly_settings::SettingError;
use nomaly_store::StoreError;
use nomaly_transforms::TransformError;

use crate::kind::ErrorKind;
use nomaly_wire::Skipped;

/// Why a method could not be made, fitted or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MethodError {
    /// A name that nothing of its kind has.
    #[error(transparent)]
    Unknown(#[from] UnknownName),
    /// A setting that cannot be used.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// Settings, or names, that do not go together.
    #[error("{reason}")]
    Conflict {
        /// What does not go with what.
        reason: String,
    },
    /// Fewer usable items than a fit needs.
    #[error("{of} needs at least {needed} usable {items}, and there {} {found}", if *found == 1 { "is" } else { "are" })]
    TooFew {
        /// The method or the scorer.
        of: String,
        /// What it needs: `training images` or `rows`.
        items: &'static str,
        /// How many it needs.
        needed: usize,
        /// How many could be used.
        found: usize,
    },
    /// A class that cannot be learned.
    #[error("class `{class}`: {reason}")]
    Class {
        /// Its name.
        class: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A bad image or row where bad images end the run.
    #[error("{}", skipped.message)]
    BadImage {
        /// The image, and what is wrong with it.
        skipped: Skipped,
    },
    /// The user asked to stop.
    #[error("interrupted; nothing was written")]
    Cancelled,
    /// Features whose shape is not the one that was fitted.
    #[error("features of `{tap}` have {found} values an image, and the method was fitted on {expected}")]
    FeatureShape {
        /// The tap.
        tap: String,
        /// What was fitted.
        expected: usize,
        /// What came.
        found: usize,
    },
    /// A model that cannot be written down.
    #[error("the model cannot be encoded: {reason}")]
    Encode {
        /// Why not.
        reason: String,
    },
    /// A part of a model that is missing, or does not fit its settings.
    #[error("the state of `{state}` is {}", missing_or_damaged(reason.as_deref()))]
    State {
        /// The part.
        state: String,
        /// What is wrong with it; `None` where it is missing.
        reason: Option<String>,
    },
    /// A model whose method cannot take in more images.
    #[error("a model of {method} cannot be updated: a fit has to see all images at once")]
    NotExtendable {
        /// The method.
        method: String,
    },
    /// A model that does not keep what an update needs.
    #[error("this model of {method} does not keep what an update needs")]
    NotUpdatable {
        /// The method.
        method: String,
    },
    /// A method whose fit cannot be divided over processes.
    #[error("a fit of {method} cannot be split: it trains a network, and every step of that needs the one before")]
    NotSplittable {
        /// The method.
        method: String,
    },
    /// More memory or more time than the settings allow.
    #[error("{reason}")]
    Limit {
        /// What is needed, what is allowed, and what would help.
        reason: String,
    },
    /// A file beside images and models that cannot be used: a checkpoint, a region of interest, a log.
    #[error("{what} {}: {reason}", path.display())]
    File {
        /// What it is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An instruction set that was forced and is not there.
    #[error(transparent)]
    Isa(#[from] nomaly_kernels::IsaError),
    /// A search for neighbours was refused.
    #[error(transparent)]
    Neighbors(#[from] nomaly_kernels::neighbours::NeighboursError),
    /// A numeric kernel refused what it was given.
    #[error(transparent)]
    Kernel(Box<dyn std::error::Error + Send + Sync>),
    /// A loss that is no finite number.
    #[error(
        "the loss is not a finite number in epoch {epoch} (step {step}): the training diverged; try a smaller `rate`"
    )]
    Diverged {
        /// The epoch, from 1.
        epoch: usize,
        /// The step of the training, from 0.
        step: u64,
    },
    /// A network in training failed.
    #[error(transparent)]
    Training(#[from] TrainableError),
    /// The backbone failed.
    #[error(transparent)]
    Backbone(Box<BackboneError>),
    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A scorer failed.
    #[error(transparent)]
    Scorer(ScorerError),
    /// A file could not be written or fetched.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The preprocessing is not valid.
    #[error(transparent)]
    Transform(#[from] TransformError),
}

/// What is wrong with a part of a model.
fn missing_or_damaged(reason: Option<&str>) -> String {
    reason.map_or_else(|| "missing".to_owned(), |reason| format!("damaged: {reason}"))
}

impl From<ScorerError> for MethodError {
    fn from(error: ScorerError) -> Self {
        match error {
            ScorerError::Cancelled => Self::Cancelled,
            error => Self::Scorer(error),
        }
    }
}

/// Errors of numeric kernels that nobody tells apart.
macro_rules! errors_of_kernels {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for MethodError {
            fn from(error: $error) -> Self {
                Self::Kernel(Box::new(error))
            }
        })*
    };
}

errors_of_kernels!(
    nomaly_kernels::coreset::CoresetError,
    nomaly_kernels::filter::FilterError,
    nomaly_kernels::linalg::LinalgError,
    nomaly_kernels::resample::ResampleError,
);

impl MethodError {
    /// Whose fault it is, whichever layer it comes from.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown(_)
            | Self::Setting(_)
            | Self::Conflict { .. }
            | Self::NotSplittable { .. }
            | Self::Isa(_)
            | Self::Transform(_) => ErrorKind::Setting,
            Self::Class { .. } | Self::BadImage { .. } | Self::File { .. } => ErrorKind::Data,
            Self::TooFew { .. } => ErrorKind::TooFew,
            Self::FeatureShape { .. }
            | Self::Encode { .. }
            | Self::State { .. }
            | Self::NotExtendable { .. }
            | Self::NotUpdatable { .. } => ErrorKind::Model,
            Self::Limit { .. } => ErrorKind::Limit,
            Self::Neighbors(_) | Self::Kernel(_) | Self::Diverged { .. } => ErrorKind::Numeric,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Training(error) => error.into(),
            Self::Backbone(error) => (&**error).into(),
            Self::Data(error) => error.into(),
            Self::Scorer(error) => error.into(),
            Self::Store(error) => error.into(),
        }
    }

    /// A setting whose value is not allowed; `allowed` says in words what would be.
    pub fn setting(name: &str, given: &str, allowed: &str) -> Self {
        SettingError::value(name, given, allowed).into()
    }

    /// More memory than the settings allow; amounts have a unit.
    pub fn memory(method: &str, needed: &str, allowed: &str, hint: &str) -> Self {
        let reason = format!("{method} needs {needed} of memory here, and max_memory is {allowed}; {hint}");
        Self::Limit { reason }
    }
}

impl From<BackboneError> for MethodError {
    fn from(error: BackboneError) -> Self {
        Self::Backbone(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use nomaly_backbones::weights::WeightsError;

    use super::*;

    fn cancelled() -> StoreError {
        StoreError::Cancelled { what: "a download".to_owned() }
    }

    #[test]
    fn a_stop_is_found_whatever_layer_it_comes_from() {
        let check = |error: MethodError| assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
        check(MethodError::Cancelled);
        check(cancelled().into());
        check(DataError::from(cancelled()).into());
        check(BackboneError::from(WeightsError::from(cancelled())).into());
        check(TrainableError::from(WeightsError::from(cancelled())).into());
        check(ScorerError::Cancelled.into());
    }

    #[test]
    fn kinds_say_whose_fault_it_is() {
        let check = |error: MethodError, kind| assert_eq!(error.kind(), kind, "{error}");
        check(UnknownName::new("method", "mgv", ["mvg"]).into(), ErrorKind::Setting);
        check(MethodError::setting("k", "0", "a count"), ErrorKind::Setting);
        check(BackboneError::from(UnknownName::new("backbone", "x", ["y"])).into(), ErrorKind::Setting);
        check(MethodError::memory("spade", "2 GiB", "1 GiB", "allow more"), ErrorKind::Limit);
        check(MethodError::State { state: "bank".to_owned(), reason: None }, ErrorKind::Model);
        check(ScorerError::NoColumns.into(), ErrorKind::Numeric);
        let missing = DataError::Missing { path: "parts".into() };
        check(missing.into(), ErrorKind::Io);
    }

    #[test]
    fn a_state_is_missing_or_damaged() {
        let message = |reason: Option<&str>| {
            MethodError::State { state: "bank".to_owned(), reason: reason.map(str::to_owned) }.to_string()
        };
        assert_eq!(message(None), "the state of `bank` is missing");
        assert_eq!(message(Some("no rows")), "the state of `bank` is damaged: no rows");
        let few = |found| MethodError::TooFew { of: "padim".to_owned(), items: "training images", needed: 2, found };
        assert_eq!(few(1).to_string(), "padim needs at least 2 usable training images, and there is 1");
        assert_eq!(few(0).to_string(), "padim needs at least 2 usable training images, and there are 0");
    }
}
