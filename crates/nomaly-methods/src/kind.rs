//! Whose fault an error is, and what can be done about it.

use nomaly_backbones::BackboneError;
use nomaly_backbones::trainable::TrainableError;
use nomaly_backbones::weights::WeightsError;
use nomaly_data::DataError;
use nomaly_scorers::ScorerError;
use nomaly_store::StoreError;

/// What kind of error something is, whichever layer it comes from.
///
/// Messages name the setting, the file or the numbers; the kind says who can do something about it. A program that
/// answers requests tells by it what to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorKind {
    /// A name, a setting or a combination of them that cannot be. The caller's fault: ask for something else.
    Setting,
    /// Images, tables or other files that cannot be used as they are. The data's fault: repair them, or leave them out.
    Data,
    /// Sound data, but less of it than is needed. Bring more, or choose what needs less.
    TooFew,
    /// A model or a weight file that is damaged, of another version, or cannot do what is asked of it. Copy it anew, or
    /// fit again.
    Model,
    /// More memory, time or space than is allowed. Allow more, or ask for less.
    Limit,
    /// A file that cannot be read or written, or a download that failed. The machine's fault, or the network's: look
    /// there, and try again.
    Io,
    /// Numbers that went out of hand: a training that diverged, values that are not finite. Look at the data, then at
    /// the settings.
    Numeric,
    /// The user asked to stop. Nobody's fault; the same call starts again.
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
            WeightsError::UnknownWeights(_) | WeightsError::NotFetched { .. } => Self::Setting,
            _ => Self::Model,
        }
    }
}

impl From<&BackboneError> for ErrorKind {
    fn from(error: &BackboneError) -> Self {
        match error {
            BackboneError::Weights(error) => error.into(),
            BackboneError::UnknownBackbone(_)
            | BackboneError::NotJoinable { .. }
            | BackboneError::OneNetwork { .. }
            | BackboneError::UnknownTap { .. }
            | BackboneError::NoTaps { .. }
            | BackboneError::NoWeights { .. }
            | BackboneError::Untrained { .. }
            | BackboneError::TakesNoWeights { .. }
            | BackboneError::Network(_) => Self::Setting,
            _ => Self::Model,
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
