//! What can be wrong with a setting.

use nomaly_registry::UnknownName;

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingError {
    /// Text that is not of the form `NAME=VALUE`.
    #[error("setting `{given}` is not of the form KEY=VALUE")]
    Syntax {
        /// The text.
        given: String,
    },
    /// A setting that is given more than once.
    #[error("setting `{name}` is given twice")]
    Twice {
        /// Its name.
        name: String,
    },
    /// A name that no setting has.
    #[error(transparent)]
    Unknown(#[from] UnknownName),
    /// A setting where there are none.
    #[error("setting `{name}` was given, but there are none here")]
    NoSettings {
        /// The name that was given.
        name: String,
    },
    /// A name that a setting once had.
    #[error("setting `{name}` is now called `{now}`")]
    Renamed {
        /// The name that was given.
        name: String,
        /// Its name today.
        now: String,
    },
    /// A value that a setting does not take.
    #[error("setting `{name}` is `{given}`; it takes {expected}")]
    Value {
        /// The name of the setting.
        name: String,
        /// The value as text.
        given: String,
        /// What it takes, in words.
        expected: String,
    },
}

impl SettingError {
    /// A value that the setting `name` does not take; `expected` says in words what it takes.
    pub fn value(name: &str, given: impl std::fmt::Display, expected: &str) -> Self {
        Self::Value { name: name.to_owned(), given: given.to_string(), expected: expected.to_owned() }
    }

    /// The name of the setting that it is about.
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
