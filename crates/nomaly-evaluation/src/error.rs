//! What can go wrong with an evaluation.

use std::path::PathBuf;

use nomaly_data::DataError;
use nomaly_detectors::DetectorError;
use nomaly_metrics::MetricError;
use nomaly_registry::UnknownName;
use nomaly_scorers::ScorerError;
use nomaly_store::StoreError;
use nomaly_transforms::TransformError;

/// Why figures could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluationError {
    /// The detector failed.
    #[error(transparent)]
    Detector(#[from] DetectorError),
    /// Too few labelled test items for the supervised reference.
    #[error(
        "the supervised reference learns from two or more test items of each label, and {normal} normal and {anomalous} \
         anomalous ones are usable"
    )]
    NoReference {
        /// Labelled normal.
        normal: usize,
        /// Labelled anomalous.
        anomalous: usize,
    },
    /// Test items of which none is of a class that the model knows.
    #[error("no usable test item is of a class that the model knows: {classes}")]
    NoKnownItem {
        /// The names of the classes.
        classes: String,
    },
    /// A test set that cannot be evaluated.
    #[error("data set {dataset} cannot be evaluated: {reason}")]
    CannotEvaluate {
        /// The data set.
        dataset: String,
        /// Why not.
        reason: String,
    },
    /// A log of a protocol that cannot be used.
    #[error("log {}: {reason}", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A metric could not be computed.
    #[error(transparent)]
    Metric(#[from] MetricError),
}

/// Errors of what a detector uses are those of a detector.
macro_rules! errors_of_detectors {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for EvaluationError {
            fn from(error: $error) -> Self {
                Self::Detector(error.into())
            }
        })*
    };
}

errors_of_detectors!(DataError, ScorerError, StoreError, TransformError, UnknownName);
