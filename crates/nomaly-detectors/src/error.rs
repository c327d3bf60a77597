//! What can go wrong, by whose fault it is.

use std::path::PathBuf;

use nomaly_backbones::BackboneError;
use nomaly_backbones::explain::ExplainError;
use nomaly_backbones::trainable::TrainableError;
use nomaly_data::DataError;
use nomaly_registry::UnknownName;
use nomaly_scorers::ScorerError;
use nomaly_store::StoreError;
use nomaly_transforms::TransformError;

use crate::Skipped;

/// Why a detector could not be made, fitted, used, saved or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetectorError {
    /// A name that nothing of its kind has.
    #[error(transparent)]
    Unknown(#[from] UnknownName),
    /// A setting without the form `KEY=VALUE`.
    #[error("setting `{given}` is not of the form KEY=VALUE")]
    SettingSyntax {
        /// What was given.
        given: String,
    },
    /// Settings, or names, that do not go together.
    #[error("{reason}")]
    Conflict {
        /// What does not go with what.
        reason: String,
    },
    /// A setting whose value is not allowed.
    #[error("setting `{name}` is `{given}`; it takes {allowed}")]
    SettingValue {
        /// Its name.
        name: String,
        /// The value that was given.
        given: String,
        /// What is allowed, in words.
        allowed: String,
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
    /// A model that cannot do what is asked of it.
    #[error("{reason}")]
    Unsuited {
        /// What it lacks.
        reason: String,
    },
    /// A table that cannot be learned from, or whose columns are not those that were fitted.
    #[error("{reason}")]
    Table {
        /// What disagrees.
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
    /// A model file that is damaged, hostile or from another version.
    #[error("{}: {reason}", path.display())]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
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
    /// An anomaly map, or a threshold for it, that cannot be used.
    #[error("{reason}")]
    Map {
        /// What is wrong with it.
        reason: String,
    },
    /// A part of a model that is missing, or does not fit its settings.
    #[error("the state of `{state}` is {}", reason.as_ref().map_or_else(|| "missing".to_owned(), |reason| format!("damaged: {reason}")))]
    State {
        /// The part.
        state: String,
        /// What is wrong with it; `None` where it is missing.
        reason: Option<String>,
    },
    /// A model whose method cannot take in more images.
    #[error("a model of {method} cannot be extended: fit again on all images")]
    NotExtendable {
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
    Neighbours(#[from] nomaly_kernels::neighbours::NeighboursError),
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
    /// The network cannot be explained.
    #[error(transparent)]
    Explain(Box<ExplainError>),
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

impl From<ScorerError> for DetectorError {
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
        $(impl From<$error> for DetectorError {
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

impl DetectorError {
    pub(crate) fn setting(name: &str, given: &str, allowed: &str) -> Self {
        Self::SettingValue { name: name.to_owned(), given: given.to_owned(), allowed: allowed.to_owned() }
    }

    /// More memory than the settings allow; amounts have a unit.
    pub(crate) fn memory(method: &str, needed: &str, allowed: &str, hint: &str) -> Self {
        let reason = format!("{method} needs {needed} of memory here, and max_memory is {allowed}; {hint}");
        Self::Limit { reason }
    }

    /// A model that knows no classes, where they are asked for.
    pub fn no_classes() -> Self {
        Self::Unsuited { reason: "the model knows no classes".to_owned() }
    }

    /// A method without a network, where a network is to be explained.
    pub(crate) fn no_network(method: &str) -> Self {
        Self::Unsuited { reason: format!("method {method} looks at pixels, and there is no network to explain") }
    }

    /// An anomaly map that has not a value for every pixel, or more than 2³² − 1.
    pub(crate) fn map_shape([width, height]: [usize; 2], values: usize) -> Self {
        Self::Map { reason: format!("{values} values are not a map of {width}×{height} pixels") }
    }

    /// A value of an anomaly map, at this column and row, that is not finite.
    pub(crate) fn map_value([x, y]: [usize; 2], value: f32) -> Self {
        Self::Map { reason: format!("the anomaly map is {value} at column {x} of row {y}, expected a finite number") }
    }

    /// A threshold for anomaly maps that is no number.
    pub(crate) fn map_threshold(value: f64) -> Self {
        Self::Map { reason: format!("the threshold of the anomaly map is {value}, expected a number") }
    }
}

impl From<ExplainError> for DetectorError {
    fn from(error: ExplainError) -> Self {
        Self::Explain(Box::new(error))
    }
}

impl From<BackboneError> for DetectorError {
    fn from(error: BackboneError) -> Self {
        Self::Backbone(Box::new(error))
    }
}
