//! Kinds of errors, by who can fix them.

use nomaly_backbones::BackboneError;
use nomaly_backbones::weights::CacheError;
use nomaly_data::DataError;
use nomaly_nn::runtime::{DeviceError, RuntimeError};
use nomaly_nn::trainable::TrainableError;
use nomaly_nn::weights::WeightsError;
use nomaly_scorers::ScorerError;
use nomaly_store::StoreError;

/// The kind of an error, whichever layer it comes from.
///
/// Messages name the setting, the file or the numbers; the kind says who can fix them. A service maps kinds to status
/// codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorKind {
    /// An unknown name, an invalid setting or an invalid combination. The caller's fault: change the request.
    Setting,
    /// Unusable images, tables or other files. The data's fault: repair them or leave them out.
    Data,
    /// Too little data. Provide more, or choose a method that needs less.
    TooFew,
    /// A model or weight file that is damaged, of another version, or lacks the requested feature. Copy it again or
    /// refit.
    Model,
    /// A limit of memory, time or space was exceeded. Raise the limit or reduce the work.
    Limit,
    /// A file that cannot be read or written, or a failed download. The fault of the machine or network: fix it and
    /// retry.
    Io,
    /// Numeric failure: a diverged training, values that are not finite. Check the data, then the settings.
    Numeric,
    /// The user cancelled. Not a fault.
    Cancelled,
}

impl From<&StoreError> for ErrorKind {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Cancelled { .. } => Self::Cancelled,
            StoreError::LimitExceeded { .. } => Self::Limit,
            _ => Self::Io,
        }
    }
}

impl From<&DataError> for ErrorKind {
    fn from(error: &DataError) -> Self {
        match error {
            DataError::Store(error) => error.into(),
            DataError::Io { .. } | DataError::Missing { .. } | DataError::FetchFailed { .. } => Self::Io,
            DataError::UnknownDataset { .. }
            | DataError::Unknown { .. }
            | DataError::OptionMissing { .. }
            | DataError::Setting { .. }
            | DataError::Ambiguous { .. }
            | DataError::NotFetched { .. } => Self::Setting,
            _ => Self::Data,
        }
    }
}

impl From<&WeightsError> for ErrorKind {
    fn from(error: &WeightsError) -> Self {
        match error {
            WeightsError::Store(error) => error.into(),
            WeightsError::Read { .. } | WeightsError::Write { .. } => Self::Io,
            _ => Self::Model,
        }
    }
}

impl From<&CacheError> for ErrorKind {
    fn from(error: &CacheError) -> Self {
        match error {
            CacheError::Weights(error) => error.into(),
            CacheError::Store(error) => error.into(),
            CacheError::InFile { source, .. } => (&**source).into(),
            CacheError::UnknownWeights(_) | CacheError::NotFetched { .. } => Self::Setting,
            _ => Self::Model,
        }
    }
}

impl From<&BackboneError> for ErrorKind {
    fn from(error: &BackboneError) -> Self {
        match error {
            BackboneError::Weights(error) => error.into(),
            BackboneError::Cache(error) => error.into(),
            BackboneError::OnDevice { source, .. } => (&**source).into(),
            BackboneError::UnknownBackbone(_)
            | BackboneError::NotJoinable { .. }
            | BackboneError::OneNetwork { .. }
            | BackboneError::UnknownTap { .. }
            | BackboneError::NoTaps { .. }
            | BackboneError::NoWeights { .. }
            | BackboneError::Untrained { .. }
            | BackboneError::NoBackbone { .. }
            | BackboneError::NoNetwork { .. }
            | BackboneError::NotImported { .. }
            | BackboneError::InputSize { .. }
            | BackboneError::NotOnDevice { .. }
            | BackboneError::Network(_) => Self::Setting,
            _ => Self::Model,
        }
    }
}

impl From<&RuntimeError> for ErrorKind {
    fn from(error: &RuntimeError) -> Self {
        match error {
            RuntimeError::Network(error) => error.into(),
            RuntimeError::Compile(_) | RuntimeError::Inference(_) | RuntimeError::Rule { .. } => Self::Model,
            _ => Self::Io,
        }
    }
}

impl From<&DeviceError> for ErrorKind {
    fn from(error: &DeviceError) -> Self {
        match error {
            DeviceError::Unavailable { .. } => Self::Io,
            _ => Self::Setting,
        }
    }
}

impl From<&TrainableError> for ErrorKind {
    fn from(error: &TrainableError) -> Self {
        match error {
            TrainableError::Weights(error) => error.into(),
            _ => Self::Model,
        }
    }
}

impl From<&ScorerError> for ErrorKind {
    fn from(error: &ScorerError) -> Self {
        match error {
            ScorerError::Cancelled => Self::Cancelled,
            ScorerError::Setting(_) | ScorerError::UnknownName(_) | ScorerError::InstructionSet(_) => Self::Setting,
            ScorerError::TooFewRows { .. } | ScorerError::TooFewScores { .. } => Self::TooFew,
            ScorerError::Stored { .. } => Self::Model,
            _ => Self::Numeric,
        }
    }
}
