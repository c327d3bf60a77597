//! The cache folder.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::StoreError;

/// The folder of cached weights and data sets. It may not exist yet.
///
/// `NOMALY_HOME` if set; otherwise `nomaly` in the platform's cache folder: `$XDG_CACHE_HOME` or `~/.cache` on Linux
/// and other Unix systems, `~/Library/Caches` on macOS, `%LOCALAPPDATA%` on Windows.
///
/// # Errors
/// [`StoreError::NoHome`] if none of these variables is set.
pub fn home() -> Result<PathBuf, StoreError> {
    resolve(Platform::CURRENT, |name| std::env::var_os(name))
}

#[derive(Clone, Copy, Debug)]
enum Platform {
    Unix,
    MacOs,
    Windows,
}

impl Platform {
    const CURRENT: Self = if cfg!(windows) {
        Self::Windows
    } else if cfg!(target_os = "macos") {
        Self::MacOs
    } else {
        Self::Unix
    };
}

fn resolve(platform: Platform, variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, StoreError> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(home) = set("NOMALY_HOME") {
        return Ok(home);
    }
    let (cache, needed) = match platform {
        Platform::Windows => (set("LOCALAPPDATA"), "LOCALAPPDATA"),
        Platform::MacOs => (set("HOME").map(|home| home.join("Library/Caches")), "HOME"),
        // The XDG specification says to ignore relative paths.
        Platform::Unix => (
            set("XDG_CACHE_HOME")
                .filter(|path| path.is_absolute())
                .or_else(|| set("HOME").map(|home| home.join(".cache"))),
            "HOME",
        ),
    };
    cache.map(|folder| folder.join("nomaly")).ok_or(StoreError::NoHome { variable: needed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(platform: Platform, variables: &[(&str, &str)], expected: Option<&str>) {
        let found = resolve(platform, |name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        });
        assert_eq!(found.ok(), expected.map(PathBuf::from));
    }

    #[test]
    fn the_first_variable_that_is_set_decides() {
        check(Platform::Unix, &[("NOMALY_HOME", "/x"), ("HOME", "/h")], Some("/x"));
        check(Platform::Unix, &[("NOMALY_HOME", ""), ("HOME", "/h")], Some("/h/.cache/nomaly"));
        check(Platform::Unix, &[("XDG_CACHE_HOME", "/c"), ("HOME", "/h")], Some("/c/nomaly"));
        check(Platform::Unix, &[("XDG_CACHE_HOME", "relative"), ("HOME", "/h")], Some("/h/.cache/nomaly"));
        check(Platform::MacOs, &[("HOME", "/h")], Some("/h/Library/Caches/nomaly"));
        check(Platform::Windows, &[("LOCALAPPDATA", "/l")], Some("/l/nomaly"));
        check(Platform::Unix, &[], None);
        check(Platform::Windows, &[("HOME", "/h")], None);
    }
}
