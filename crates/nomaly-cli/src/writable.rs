//! Checks of output paths before the work starts.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::Context;
use nomaly::store;
use nomaly::transforms::image_format;

use crate::failure::Failure;

/// The number of bytes that [`image_format`] needs.
const HEAD: u64 = 256;

/// Rejects a result that would overwrite another file of the same command.
///
/// # Errors
/// If both paths are the same file.
pub(crate) fn check_distinct(result: &Path, other: &Path) -> anyhow::Result<()> {
    let same = result == other || matches!((result.canonicalize(), other.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if same {
        let message = format!("{} would be overwritten by a result of the same command", other.display());
        return Err(Failure::new(message, "name another file for the result").into());
    }
    Ok(())
}

/// Checks that a model or report can be written to `path`, before long work.
///
/// Leaves no trace.
///
/// # Errors
/// A path that cannot be written, and an image: `-o` before the name of an image is a mistake that would destroy it.
pub(crate) fn check_writable(path: &Path) -> anyhow::Result<()> {
    store::check_writable(path)?;
    if !fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        return Ok(());
    }
    let mut head = Vec::new();
    match File::open(path) {
        Ok(file) => {
            file.take(HEAD).read_to_end(&mut head).with_context(|| format!("cannot read {}", path.display()))?
        }
        // An unreadable file may still be replaced.
        Err(_) => return Ok(()),
    };
    // A model begins with the length of its header, which may look like any signature, and the header's brace.
    let is_model = head.get(4..9) == Some(b"\0\0\0\0{");
    match image_format(&head).filter(|_| !is_model) {
        Some(format) => {
            let message = format!("{} is an image ({format}) and would be overwritten", path.display());
            Err(Failure::new(message, "name another file for the result, or remove the image first").into())
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_never_taken_for_an_image() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        // 65536 in little-endian order is the signature of icons.
        let icon = b"\0\0\x01\0\x01\0\x10\x10\0\0";
        fs::write(&path, icon).unwrap();
        let error = check_writable(&path).unwrap_err();
        assert!(
            error.downcast_ref::<Failure>().is_some_and(|failure| failure.to_string().contains("(ICO)")),
            "{error}"
        );
        fs::write(&path, b"\0\0\x01\0\0\0\0\0{\"__metadata__\":{}}").unwrap();
        check_writable(&path).unwrap();
        check_writable(&folder.path().join("absent")).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
