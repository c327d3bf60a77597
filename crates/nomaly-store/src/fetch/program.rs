//! Finds programs, and runs Python without code from the working folder.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folders that are searched for programs.
///
/// Relative and empty entries of `PATH`, and the working folder under any name, are skipped: a file next to the user's
/// images must never be run.
pub(super) struct SearchPath(Vec<PathBuf>);

impl SearchPath {
    /// The search path of the environment.
    pub(super) fn of_environment() -> Self {
        Self::new(&env::var_os("PATH").unwrap_or_default(), env::current_dir().ok().as_deref())
    }

    fn new(folders: &OsStr, working_folder: Option<&Path>) -> Self {
        let working_folder = working_folder.and_then(|folder| fs::canonicalize(folder).ok());
        let folders = env::split_paths(folders)
            .filter(|folder| folder.is_absolute())
            .filter(|folder| fs::canonicalize(folder).is_ok_and(|folder| Some(&folder) != working_folder.as_ref()));
        Self(folders.collect())
    }

    /// The absolute path of a program, or `None`.
    pub(super) fn find(&self, name: &str) -> Option<PathBuf> {
        let file = format!("{name}{}", env::consts::EXE_SUFFIX);
        self.0.iter().map(|folder| folder.join(&file)).find(|path| is_executable(path))
    }

    /// A command that searches only these folders for further programs, run in the folder `scratch`.
    pub(super) fn command(&self, program: &Path, scratch: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(scratch);
        // The entries come from one variable, so they can be joined again.
        match env::join_paths(&self.0) {
            Ok(folders) => command.env("PATH", folders),
            Err(_) => command.env_remove("PATH"),
        };
        command
    }

    /// `python -m MODULE`, see [`SearchPath::command`].
    ///
    /// Isolated mode (`-I`, since Python 3.4) excludes the working folder from the module search path; `-P` does too,
    /// but only since 3.11. It also ignores `PYTHONPATH` and the user's site-packages, so that only modules of the
    /// installation run; those variables are removed for programs that the module may start.
    pub(super) fn python_module(&self, python: &Path, module: &str, scratch: &Path) -> Command {
        let mut command = self.command(python, scratch);
        command.args(["-I", "-m", module]);
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().to_ascii_uppercase().starts_with("PYTHON") {
                command.env_remove(name);
            }
        }
        command
    }
}

fn is_executable(path: &Path) -> bool {
    let Ok(metadata) = fs::metadata(path) else { return false };
    #[cfg(unix)]
    let may_run = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0;
    #[cfg(not(unix))]
    let may_run = true;
    metadata.is_file() && may_run
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn program(folder: &Path, name: &str, mode: u32) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn the_working_folder_and_relative_entries_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let [working, bin] = ["working", "bin"].map(|name| folder.path().join(name));
        fs::create_dir_all(&working).unwrap();
        fs::create_dir_all(bin.join("folder")).unwrap();
        symlink(&working, folder.path().join("alias")).unwrap();
        program(&working, "tool", 0o755);
        let good = program(&bin, "tool", 0o755);
        program(&bin, "document", 0o644);
        let find = |folders: &str, name: &str| SearchPath::new(OsStr::new(folders), Some(&working)).find(name);

        let (root, trap) = (folder.path().display(), working.display());
        let found =
            find(&format!(":.:working:../working:{trap}:{trap}/.:{root}/alias:{root}/absent:{root}/bin"), "tool");
        assert_eq!(found, Some(good));
        assert_eq!(find(&format!("::.:{trap}:{root}/alias"), "tool"), None);
        assert_eq!(find(&format!("{root}/bin"), "document"), None);
        assert_eq!(find(&format!("{root}/bin"), "folder"), None);
    }
}
