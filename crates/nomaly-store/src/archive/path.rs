//! Sanitization of entry names.

use std::path::PathBuf;

/// The relative path of an entry: without `.` components, with the platform's separators; empty for the root itself.
///
/// The error says, after "which", why the name is refused.
pub(super) fn safe(name: &[u8]) -> Result<PathBuf, &'static str> {
    let name = std::str::from_utf8(name).map_err(|_| "has a name that is not UTF-8")?;
    if name.starts_with('/') {
        return Err("has an absolute path");
    }
    if name.contains(['\\', ':', '\0']) {
        return Err("has a backslash, a colon or a NUL in its name");
    }
    let mut path = PathBuf::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err("leads out of the target folder"),
            part => path.push(part),
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_below_are_safe() {
        for (name, expected) in [("a/b", "a/b"), ("./a//b/", "a/b"), ("./", ""), ("...", "..."), ("a..b", "a..b")] {
            assert_eq!(safe(name.as_bytes()), Ok(PathBuf::from(expected)));
        }
        for name in ["/a", "//a", "..", "a/../b", "a/..", "..\\a", "C:a", "a\0"] {
            assert!(safe(name.as_bytes()).is_err(), "{name:?}");
        }
        assert!(safe(b"\xff").is_err());
    }
}
