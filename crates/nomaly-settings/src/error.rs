//! Errors of settings.

use nomaly_registry::UnknownName;

/// An invalid setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingError {
    /// Text that is not of the form `NAME=VALUE`.
    #[error("setting `{given}` is not of the form KEY=VALUE")]
    Syntax {
        /// The text.
        given: String,
    },
    /// A duplicate setting.
    #[error("setting `{name}` is given twice")]
    Twice {
        /// Its name.
        name: String,
    },
    /// An unknown name.
    #[error(transparent)]
    Unknown(#[from] UnknownName),
    /// A setting for something without settings.
    #[error("setting `{name}` was given, but there are none here")]
    NoSettings {
        /// The given name.
        name: String,
    },
    /// A former name of a setting.
    #[error("setting `{name}` is now called `{now}`")]
    Renamed {
        /// The given name.
        name: String,
        /// The present name.
        now: String,
    },
    /// An invalid value.
    #[error("setting `{name}` is `{given}`; it takes {expected}")]
    Value {
        /// The name of the setting.
        name: String,
        /// The value as text.
        given: String,
        /// The valid values, in words.
        expected: String,
    },
}

impl SettingError {
    /// An invalid value of the setting `name`; `expected` describes the valid ones.
    pub fn value(name: &str, given: impl std::fmt::Display, expected: &str) -> Self {
        Self::Value { name: name.to_owned(), given: given.to_string(), expected: expected.to_owned() }
    }

    /// The name of the setting.
    pub fn name(&self) -> &str {
        match self {
            Self::Syntax { given } => given,
            Self::Unknown(unknown) => &unknown.name,
            Self::Twice { name }
            | Self::NoSettings { name }
            | Self::Renamed { name, .. }
            | Self::Value { name, .. } => name,
        }
    }
}
