//! The error type of this crate.

use std::io;
use std::path::{Path, PathBuf};

/// Why a file could not be stored, fetched or unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system refused an operation on a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation, as a verb: "create", "write", "rename".
        action: &'static str,
        /// The file or folder concerned.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The environment does not define a folder for the cache.
    #[error("no folder for cached files: set NOMALY_HOME, or {variable}")]
    NoHome {
        /// The platform's own variable.
        variable: &'static str,
    },
    /// The caller's [`Progress`](crate::Progress) asked to stop.
    #[error("{what} was cancelled")]
    Cancelled {
        /// The work that was stopped.
        what: String,
    },
    /// A manifest has an invalid source.
    #[error("{what} cannot be fetched: {reason}")]
    InvalidSource {
        /// The source in the form of [`Source::to_string`](crate::Source).
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The received bytes do not match the manifest. The file has been removed.
    #[error("{what} has SHA-256 {found}, but the manifest says {expected}; the file was removed")]
    HashMismatch {
        /// The source of the bytes.
        what: String,
        /// The hash in the manifest.
        expected: String,
        /// The hash of the received bytes.
        found: String,
    },
    /// The size of a file differs from the manifest's.
    #[error("{what} has {found} bytes, but the manifest says {expected}")]
    SizeMismatch {
        /// The source of the bytes.
        what: String,
        /// The size in the manifest.
        expected: u64,
        /// The size announced or sent by the server.
        found: u64,
    },
    /// A server answered with an error.
    #[error("{url} answered with HTTP status {status}")]
    Http {
        /// The address.
        url: String,
        /// The status code.
        status: u16,
    },
    /// A connection could not be made or broke too often.
    #[error("cannot download {url}: {reason}")]
    Transfer {
        /// The address.
        url: String,
        /// What happened.
        reason: String,
    },
    /// A program that fetches packages is not installed.
    #[error("cannot fetch {what}: {program} was not found; {hint}")]
    ProgramMissing {
        /// The source.
        what: String,
        /// The missing program.
        program: String,
        /// What the user can do.
        hint: &'static str,
    },
    /// A program that fetches packages failed.
    #[error("cannot fetch {what}: {program} failed ({status}):\n{tail}")]
    ProgramFailed {
        /// The source.
        what: String,
        /// The program.
        program: String,
        /// Its exit status.
        status: String,
        /// The last lines that it printed.
        tail: String,
    },
    /// Every source of a file failed.
    #[error("no source of {what} worked{}", list(attempts))]
    AllSourcesFailed {
        /// The file.
        what: String,
        /// The error of each source, in the order of the attempts.
        attempts: Vec<Attempt>,
    },
    /// A file is not a supported archive.
    #[error("{} cannot be unpacked: {reason}", path.display())]
    UnsupportedArchive {
        /// The archive.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// An archive is damaged.
    #[error("{} is damaged: {reason}", path.display())]
    DamagedArchive {
        /// The archive.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// An archive holds an entry that must not be written to disk.
    #[error("{} holds the entry {entry:?}, which {reason}", path.display())]
    UnsafeEntry {
        /// The archive.
        path: PathBuf,
        /// The entry's name.
        entry: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// An archive is larger than the limits allow.
    #[error("{} holds more than {limit} {unit}", path.display())]
    LimitExceeded {
        /// The archive.
        path: PathBuf,
        /// The limit.
        limit: u64,
        /// What is limited: "entries" or "bytes".
        unit: &'static str,
    },
    /// An archive lacks a requested file.
    #[error("{} has no entry {member:?}", path.display())]
    MemberMissing {
        /// The archive.
        path: PathBuf,
        /// The requested entry.
        member: String,
    },
}

/// One failed source of [`StoreError::AllSourcesFailed`].
#[derive(Debug)]
pub struct Attempt {
    /// The source, for people.
    pub source: String,
    /// Why it failed.
    pub error: StoreError,
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Whether the caller stopped the work.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled { .. })
    }
}

fn list(attempts: &[Attempt]) -> String {
    attempts.iter().map(|attempt| format!("\n  {}: {}", attempt.source, attempt.error)).collect()
}
