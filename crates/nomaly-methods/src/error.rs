//! Errors of methods, by cause.

use std::path::PathBuf;

use nomaly_backbones::BackboneError;
use nomaly_data::DataError;
use nomaly_nn::runtime::{DeviceError, RuntimeError};
use nomaly_nn::trainable::TrainableError;
use nomaly_registry::UnknownName;
use nomaly_scorers::ScorerError;
use nomaly_settings::SettingError;
use nomaly_store::StoreError;
use nomaly_transforms::TransformError;

use crate::kind::ErrorKind;
use nomaly_wire::Skipped;

/// Why a method could not be built, fitted or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MethodError {
    /// An unknown name.
    #[error(transparent)]
    Unknown(#[from] UnknownName),
    /// An invalid setting.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// Settings or names that contradict each other.
    #[error("{reason}")]
    Conflict {
        /// The contradiction.
        reason: String,
    },
    /// Fewer usable items than a fit needs.
    #[error("{of} needs at least {}, and {}", usable(*needed, items), found_in_words(*found))]
    TooFew {
        /// The method or scorer that needs them.
        of: String,
        /// What it needs: `training images` or `rows`.
        items: &'static str,
        /// The least number.
        needed: usize,
        /// How many were usable.
        found: usize,
    },
    /// A class that cannot be learned.
    #[error("class `{class}`: {reason}")]
    Class {
        /// Its name.
        class: String,
        /// The reason.
        reason: String,
    },
    /// An unusable image or row in strict mode.
    #[error("{}", skipped.message)]
    BadImage {
        /// The image and the reason.
        skipped: Skipped,
    },
    /// The user asked to stop.
    #[error("interrupted; nothing was written")]
    Cancelled,
    /// Features whose shape differs from the fitted one.
    #[error("features of `{tap}` have {found} values an image, and the method was fitted on {expected}")]
    FeatureShape {
        /// The tap.
        tap: String,
        /// The fitted number of values.
        expected: usize,
        /// The number of values that came.
        found: usize,
    },
    /// A model that cannot be serialized.
    #[error("the model cannot be encoded: {reason}")]
    Encode {
        /// The reason.
        reason: String,
    },
    /// A state of a model that is missing or contradicts the settings.
    #[error("the state of `{state}` is {}", missing_or_damaged(reason.as_deref()))]
    State {
        /// The name of the state.
        state: String,
        /// The damage; `None` if the state is missing.
        reason: Option<String>,
    },
    /// A model whose method does not support updates.
    #[error("a model of {method} cannot be updated: a fit has to see all images at once")]
    NotExtendable {
        /// The method.
        method: String,
    },
    /// A model that was not fitted to be updatable.
    #[error("this model of {method} does not keep what an update needs")]
    NotUpdatable {
        /// The method.
        method: String,
    },
    /// A method whose fit cannot be split over processes.
    #[error("a fit of {method} cannot be split: it trains a network, and every step of that needs the one before")]
    NotSplittable {
        /// The method.
        method: String,
    },
    /// More memory or more time than the settings allow.
    #[error("{reason}")]
    Limit {
        /// The amount needed, the limit, and a remedy.
        reason: String,
    },
    /// An unusable file other than an image or a model: a checkpoint, a region of interest, a log.
    #[error("{what} {}: {reason}", path.display())]
    File {
        /// The kind of file.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A forced instruction set that this CPU lacks.
    #[error(transparent)]
    Isa(#[from] nomaly_kernels::IsaError),
    /// A device that cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A nearest-neighbor search failed.
    #[error(transparent)]
    Neighbors(#[from] nomaly_kernels::neighbours::NeighboursError),
    /// A numeric kernel rejected its input.
    #[error(transparent)]
    Kernel(Box<dyn std::error::Error + Send + Sync>),
    /// A loss that is not finite.
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
    /// A network failed on its device.
    #[error(transparent)]
    Runtime(Box<RuntimeError>),
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
    /// Invalid preprocessing.
    #[error(transparent)]
    Transform(#[from] TransformError),
}

/// The reason of a damaged state, for the message.
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

/// Errors of numeric kernels that need no variant of their own.
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
    nomaly_kernels::training::TrainingError,
    nomaly_nn::inference::InferenceError,
);

impl MethodError {
    /// The kind of the error, whichever layer it comes from.
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
            Self::Runtime(error) => (&**error).into(),
            Self::Device(error) => error.into(),
            Self::Backbone(error) => (&**error).into(),
            Self::Data(error) => error.into(),
            Self::Scorer(error) => error.into(),
            Self::Store(error) => error.into(),
        }
    }

    /// An invalid value of a setting; `allowed` describes the valid ones.
    pub fn setting(name: &str, given: &str, allowed: &str) -> Self {
        SettingError::value(name, given, allowed).into()
    }

    /// More memory than the settings allow; amounts are written with their unit.
    pub fn memory(method: &str, needed: &str, allowed: &str, hint: &str) -> Self {
        let reason = format!("{method} needs {needed} of memory here, and max_memory is {allowed}; {hint}");
        Self::Limit { reason }
    }
}

/// A number of usable items, given in the plural.
fn usable(count: usize, items: &str) -> String {
    let items = if count == 1 { items.strip_suffix('s').unwrap_or(items) } else { items };
    format!("{count} usable {items}")
}

fn found_in_words(count: usize) -> String {
    match count {
        0 => "there are none".to_owned(),
        1 => "there is 1".to_owned(),
        _ => format!("there are {count}"),
    }
}

impl From<RuntimeError> for MethodError {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::Network(error) => Self::Training(error),
            error => Self::Runtime(Box::new(error)),
        }
    }
}

impl From<BackboneError> for MethodError {
    fn from(error: BackboneError) -> Self {
        Self::Backbone(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use nomaly_nn::weights::WeightsError;

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
        assert_eq!(few(0).to_string(), "padim needs at least 2 usable training images, and there are none");
        let one = MethodError::TooFew { of: "padim".to_owned(), items: "training images", needed: 1, found: 0 };
        assert_eq!(one.to_string(), "padim needs at least 1 usable training image, and there are none");
    }
}
