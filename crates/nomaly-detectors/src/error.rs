//! Errors of detectors, by cause.

use std::path::PathBuf;

use nomaly_backbones::BackboneError;
use nomaly_backbones::explain::ExplainError;
use nomaly_data::DataError;
use nomaly_kernels::IsaError;
use nomaly_kernels::coreset::CoresetError;
use nomaly_kernels::neighbours::NeighboursError;
use nomaly_methods::{ErrorKind, MethodError};
use nomaly_nn::runtime::{DeviceError, RuntimeError};
use nomaly_registry::UnknownName;
use nomaly_scorers::ScorerError;
use nomaly_settings::SettingError;
use nomaly_store::StoreError;
use nomaly_transforms::TransformError;

/// Why a detector could not be built, fitted, used, saved or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetectorError {
    /// An error of the method, or one common to methods and detectors.
    #[error(transparent)]
    Method(#[from] MethodError),
    /// A model file that is damaged, malicious or of another version.
    #[error("{}: {reason}", path.display())]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A partial that is damaged, malicious, of another version, or of another fit than the others.
    #[error("{}: {reason}", path.display())]
    Partial {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A model without the requested feature.
    #[error("{reason}")]
    Unsuited {
        /// The missing feature.
        reason: String,
    },
    /// A table that cannot be fitted on, or whose columns differ from the fitted ones.
    #[error("{reason}")]
    Table {
        /// The contradiction.
        reason: String,
    },
    /// An invalid anomaly map, or an invalid threshold for it.
    #[error("{reason}")]
    Map {
        /// The reason.
        reason: String,
    },
    /// An error of the explanation of a network.
    #[error(transparent)]
    Explain(Box<ExplainError>),
}

impl From<ExplainError> for DetectorError {
    fn from(error: ExplainError) -> Self {
        Self::Explain(Box::new(error))
    }
}

/// Errors that methods share become [`DetectorError::Method`].
macro_rules! errors_of_methods {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for DetectorError {
            fn from(error: $error) -> Self {
                Self::Method(error.into())
            }
        })*
    };
}

errors_of_methods!(
    BackboneError,
    CoresetError,
    DataError,
    DeviceError,
    IsaError,
    NeighboursError,
    RuntimeError,
    ScorerError,
    StoreError,
    TransformError,
    UnknownName,
    SettingError,
);

impl DetectorError {
    /// The kind of the error, whichever layer it comes from.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Method(error) => error.kind(),
            Self::ModelFile { .. } | Self::Partial { .. } | Self::Unsuited { .. } => ErrorKind::Model,
            Self::Table { .. } => ErrorKind::Data,
            Self::Map { .. } => ErrorKind::Numeric,
            Self::Explain(error) => match &**error {
                ExplainError::Backbone(error) => error.into(),
                _ => ErrorKind::Setting,
            },
        }
    }

    pub(crate) fn setting(name: &str, given: &str, allowed: &str) -> Self {
        Self::Method(MethodError::setting(name, given, allowed))
    }

    /// Classes were requested of a model without classes.
    pub fn no_classes() -> Self {
        Self::Unsuited { reason: "the model knows no classes".to_owned() }
    }

    /// An explanation was requested of a method without a network.
    pub(crate) fn no_network(method: &str) -> Self {
        Self::Unsuited { reason: format!("method {method} looks at pixels, and there is no network to explain") }
    }

    /// An anomaly map with a wrong number of values, or more than 2³² − 1.
    pub(crate) fn map_shape([width, height]: [usize; 2], values: usize) -> Self {
        Self::Map { reason: format!("{values} values are not a map of {width}×{height} pixels") }
    }

    /// A value of an anomaly map that is not finite, at this column and row.
    pub(crate) fn map_value([x, y]: [usize; 2], value: f32) -> Self {
        Self::Map { reason: format!("the anomaly map is {value} at column {x} of row {y}, expected a finite number") }
    }

    /// A threshold for anomaly maps that is NaN.
    pub(crate) fn map_threshold(value: f64) -> Self {
        Self::Map { reason: format!("the threshold of the anomaly map is {value}, expected a number") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_methods_are_handed_through() {
        let check = |error: DetectorError, kind| assert_eq!(error.kind(), kind, "{error}");
        check(MethodError::Cancelled.into(), ErrorKind::Cancelled);
        check(ScorerError::Cancelled.into(), ErrorKind::Cancelled);
        check(StoreError::Cancelled { what: "x".to_owned() }.into(), ErrorKind::Cancelled);
        check(DetectorError::no_classes(), ErrorKind::Model);
        check(DetectorError::map_threshold(f64::NAN), ErrorKind::Numeric);
        let backbone = BackboneError::from(UnknownName::new("backbone", "x", ["y"]));
        check(ExplainError::from(backbone).into(), ErrorKind::Setting);
    }
}
