//! Errors of evaluations.

use nomaly_data::DataError;
use nomaly_detectors::DetectorError;
use nomaly_methods::{ErrorKind, MethodError};
use nomaly_metrics::MetricError;
use nomaly_registry::UnknownName;
use nomaly_scorers::ScorerError;
use nomaly_store::StoreError;
use nomaly_transforms::TransformError;

/// Why an evaluation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluationError {
    /// The detector failed.
    #[error(transparent)]
    Detector(#[from] DetectorError),
    /// Too few usable test items of a label or of known classes.
    #[error("{reason}")]
    TooFew {
        /// What is missing.
        reason: String,
    },
    /// A test set that cannot be evaluated.
    #[error("data set {dataset} cannot be evaluated: {reason}")]
    CannotEvaluate {
        /// The data set.
        dataset: String,
        /// Why not.
        reason: String,
    },
    /// A metric could not be computed.
    #[error(transparent)]
    Metric(#[from] MetricError),
}

impl EvaluationError {
    /// The kind of the error, across all layers.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Detector(error) => error.kind(),
            Self::TooFew { .. } => ErrorKind::TooFew,
            Self::CannotEvaluate { .. } => ErrorKind::Data,
            Self::Metric(_) => ErrorKind::Numeric,
        }
    }
}

/// Converts errors of a detector's dependencies to detector errors.
macro_rules! errors_of_detectors {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for EvaluationError {
            fn from(error: $error) -> Self {
                Self::Detector(error.into())
            }
        })*
    };
}

errors_of_detectors!(DataError, MethodError, ScorerError, StoreError, TransformError, UnknownName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_found_whatever_layer_it_comes_from() {
        let check = |error: EvaluationError| assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
        check(DetectorError::from(MethodError::Cancelled).into());
        check(ScorerError::Cancelled.into());
        check(DataError::from(StoreError::Cancelled { what: "x".to_owned() }).into());
    }
}
