//! Errors of data sets.

use std::path::PathBuf;

/// An error of this crate. Every message names the file, option or data set at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder could not be read.
    #[error("cannot read {}: {cause}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause; part of the message, and therefore not the error's source.
        cause: std::io::Error,
    },
    /// A requested path does not exist.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// A folder has no usable files.
    #[error("{} holds no {wanted}", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
        /// The expected files.
        wanted: String,
    },
    /// An image or mask could not be decoded.
    #[error(transparent)]
    Decode(#[from] nomaly_transforms::DecodeError),
    /// The pipeline could not process a decoded image.
    #[error("cannot transform {id}: {cause}")]
    Transform {
        /// The sample.
        id: String,
        /// The cause; part of the message, and therefore not the error's source.
        cause: nomaly_transforms::TransformError,
    },
    /// A file of a data set violates its format.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What disagrees.
        reason: String,
    },
    /// A table that cannot be used.
    #[error("{}: {reason}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Text in a column of numbers.
    #[error(
        "{}, line {line}, column `{column}`: `{text}` is not a number; `--ignore {column}` leaves the column out, \
         `--label {column}` and `--id {column}` take it for a label or a name",
        path.display()
    )]
    Cell {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The column's name, or its number from 1.
        column: String,
        /// The text.
        text: String,
    },
    /// A directory matches several layouts; an option must choose one.
    #[error("{} {reason}", path.display())]
    Ambiguous {
        /// The directory.
        path: PathBuf,
        /// The layouts, and the option that decides.
        reason: String,
    },
    /// Text that is neither a directory nor the name of a data set.
    #[error("`{spec}` is neither a directory nor a data set; {hint}")]
    UnknownDataset {
        /// The text.
        spec: String,
        /// The nearest names, or all.
        hint: String,
    },
    /// An option, class, category or cell type that the data set does not have.
    #[error("unknown {kind} `{name}` of {dataset}; {hint}")]
    Unknown {
        /// The kind of name, as a singular noun.
        kind: &'static str,
        /// The requested name.
        name: String,
        /// The data set or layout.
        dataset: String,
        /// The nearest name, or all.
        hint: String,
    },
    /// An option that cannot be used.
    #[error("{dataset}: {cause}")]
    Setting {
        /// The data set or layout.
        dataset: String,
        /// The problem; part of the message, and therefore not the error's source.
        cause: Box<nomaly_settings::SettingError>,
    },
    /// A required option is missing.
    #[error("{dataset} needs the setting `{option}`, as in `{example}`")]
    OptionMissing {
        /// The data set or layout.
        dataset: String,
        /// The option.
        option: String,
        /// A valid example.
        example: String,
    },
    /// A named data set has not been fetched.
    #[error("the data set {name} is not on this machine; `nomaly data get {name}` fetches it")]
    NotFetched {
        /// The data set.
        name: String,
    },
    /// A named data set could not be fetched from anywhere.
    #[error("cannot fetch the data set {name}: {}", attempts.join("; "))]
    FetchFailed {
        /// The data set.
        name: String,
        /// The attempts and their errors.
        attempts: Vec<String>,
    },
    /// Fetching, unpacking or finding the cache folder failed.
    #[error(transparent)]
    Store(#[from] nomaly_store::StoreError),
}

impl DataError {
    /// A short stable name of the kind of fault of an image, for machine-readable output: those of
    /// [`nomaly_transforms::DecodeError::kind`], `transform`, or `data` for anything else.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Decode(error) => error.kind(),
            Self::Transform { .. } => "transform",
            _ => "data",
        }
    }

    /// Wraps an input/output error with its path.
    pub(crate) fn io(path: impl Into<PathBuf>, cause: std::io::Error) -> Self {
        let path = path.into();
        if cause.kind() == std::io::ErrorKind::NotFound { Self::Missing { path } } else { Self::Io { path, cause } }
    }

    /// A table that cannot be used.
    pub(crate) fn table(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Table { path: path.into(), reason: reason.into() }
    }

    /// A file that violates its format.
    pub(crate) fn damaged(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.into(), reason: reason.into() }
    }
}

/// A hint with the `known` names closest to `name`.
pub(crate) fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    const LISTED: usize = 20; // more than that is a wall of text
    let known: Vec<&str> = known.into_iter().collect();
    match nomaly_registry::suggest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.len() > LISTED => {
            format!("known: {} and {} more", known[..LISTED].join(", "), known.len() - LISTED)
        }
        None => format!("known: {}", known.join(", ")),
    }
}
