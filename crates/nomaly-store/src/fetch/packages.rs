//! Files from package registries, through the registries' own clients.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::command::{self, Outcome};
use super::program::SearchPath;
use crate::destination::parent;
use crate::{Progress, Sha256Digest, Source, StoreError, sha256_file, write_atomic};

/// A package file and its target.
pub(super) struct PackageRequest<'a> {
    pub(super) source: &'a Source,
    pub(super) target: &'a Path,
    pub(super) sha256: &'a Sha256Digest,
}

impl PackageRequest<'_> {
    /// A folder for the client's output, next to the target so that the result can be renamed.
    fn scratch(&self) -> Result<TempDir, StoreError> {
        let folder = parent(self.target);
        tempfile::Builder::new()
            .prefix(".nomaly-")
            .tempdir_in(folder)
            .map_err(StoreError::io("create a folder in", folder))
    }

    fn failed(&self, program: &str, status: String, tail: String) -> StoreError {
        StoreError::ProgramFailed { what: self.source.to_string(), program: program.to_owned(), status, tail }
    }

    /// Verifies a file and moves it to the target.
    fn keep(&self, file: &Path) -> Result<(), StoreError> {
        let found = sha256_file(file)?;
        if found != self.sha256.to_string() {
            let (what, expected) = (self.source.to_string(), self.sha256.to_string());
            return Err(StoreError::HashMismatch { what, expected, found });
        }
        fs::rename(file, self.target).map_err(StoreError::io("write", self.target))
    }
}

/// Shows work of unknown size until dropped.
struct ProgressGuard<'a>(&'a dyn Progress);

impl<'a> ProgressGuard<'a> {
    fn new(progress: &'a dyn Progress, what: &str) -> Self {
        progress.start(what, None);
        Self(progress)
    }
}

impl Drop for ProgressGuard<'_> {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// `pip download` of a wheel, with the SHA-256 in a requirements file.
///
/// No code of the package runs: `pip` builds no wheel ([`Source::validate`] and `--only-binary` reject source
/// archives), and it compares the hash before it opens the file.
pub(super) fn pypi(
    request: &PackageRequest<'_>,
    package: &str,
    version: &str,
    file: &str,
    progress: &dyn Progress,
) -> Result<(), StoreError> {
    let programs = SearchPath::of_environment();
    let Some(python) = ["python3", "python"].into_iter().find_map(|name| programs.find(name)) else {
        return Err(StoreError::ProgramMissing {
            what: request.source.to_string(),
            program: "python3".to_owned(),
            hint: "install Python 3 with pip, or fetch the file by hand",
        });
    };
    let _guard = ProgressGuard::new(progress, file);
    let scratch = request.scratch()?;
    // The client runs in the scratch folder, so its own paths must not depend on the working folder.
    let folder = std::path::absolute(scratch.path()).map_err(StoreError::io("find", scratch.path()))?;
    let requirements = folder.join("requirements.txt");
    write_atomic(&requirements, format!("{package}=={version} --hash=sha256:{}\n", request.sha256).as_bytes())?;
    let mut command = programs.python_module(&python, "pip", &folder);
    command
        .args(["download", "--no-deps", "--only-binary=:all:", "--require-hashes", "--no-input"])
        .args(["--disable-pip-version-check", "--progress-bar", "off", "--dest"])
        .arg(&folder)
        .arg("--requirement")
        .arg(&requirements);
    match command::run(&mut command, &request.source.to_string(), &folder, progress)? {
        Outcome::Done => {
            let found = folder.join(file);
            if found.is_file() {
                return request.keep(&found);
            }
            let tail = format!("pip fetched another file than {file}");
            Err(request.failed("pip", "no such file".to_owned(), tail))
        }
        Outcome::Failed { status, tail } => {
            Err(request.failed(&format!("{} -m pip download", python.display()), status, tail))
        }
    }
}

/// `apt-get download`, which checks the archive's signatures and needs no privileges.
pub(super) fn debian(
    request: &PackageRequest<'_>,
    package: &str,
    version: Option<&str>,
    progress: &dyn Progress,
) -> Result<(), StoreError> {
    let programs = SearchPath::of_environment();
    let Some(apt_get) = programs.find("apt-get") else {
        return Err(StoreError::ProgramMissing {
            what: request.source.to_string(),
            program: "apt-get".to_owned(),
            hint: "Debian packages can be fetched on Debian and its relatives only",
        });
    };
    let _guard = ProgressGuard::new(progress, request.source.file_name());
    let scratch = request.scratch()?;
    let mut command = programs.command(&apt_get, scratch.path());
    command.args(["--quiet", "--quiet", "download"]);
    command.arg(version.map_or_else(|| package.to_owned(), |version| format!("{package}={version}")));
    match command::run(&mut command, &request.source.to_string(), scratch.path(), progress)? {
        Outcome::Done => match packages_in(scratch.path())?.as_slice() {
            [file] => request.keep(file),
            files => {
                let tail = format!("it left {} package files instead of one", files.len());
                Err(request.failed("apt-get download", "nothing to use".to_owned(), tail))
            }
        },
        Outcome::Failed { status, tail } => Err(request.failed("apt-get download", status, tail)),
    }
}

/// The `.deb` files of a folder.
fn packages_in(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = fs::read_dir(folder).map_err(StoreError::io("read", folder))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(StoreError::io("read", folder))?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            files.push(path);
        }
    }
    Ok(files)
}
