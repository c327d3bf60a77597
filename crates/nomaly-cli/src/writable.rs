//! Checks of output paths before the work starts.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nomaly::store::{self, canonical_place};
use nomaly::transforms::image_format;

use crate::failure::Failure;

/// The number of bytes that [`image_format`] needs.
const HEAD: u64 = 256;

/// Rejects results that would overwrite an input or another result of the same command, whatever their spelling.
///
/// Inputs that do not exist are ignored, and so are results in devices and pipes, which overwrite nothing.
///
/// # Errors
/// If two of the paths are the same file.
pub(crate) fn check_apart(results: &[&Path], inputs: &[&Path]) -> anyhow::Result<()> {
    let mut taken: HashMap<PathBuf, &Path> =
        inputs.iter().filter(|input| input.is_file()).map(|input| (canonical_place(input), *input)).collect();
    for result in results {
        if fs::metadata(result).is_ok_and(|metadata| !metadata.is_file()) {
            continue;
        }
        if let Some(other) = taken.insert(canonical_place(result), result) {
            let message = format!("{} would be overwritten by a result of the same command", other.display());
            return Err(Failure::new(message, "name another file or folder for the result").into());
        }
    }
    Ok(())
}

/// The files that are named by settings.
pub(crate) fn files_in_settings(settings: &[String]) -> Vec<&Path> {
    let pairs = settings.iter().filter_map(|pair| pair.split_once('='));
    pairs.filter(|(name, _)| matches!(name.trim(), "weights" | "roi")).map(|(_, file)| Path::new(file.trim())).collect()
}

/// Checks that a model or report can be written to `path`, before long work.
///
/// Leaves no trace.
///
/// # Errors
/// `-`, a path that cannot be written, and an image: `-o` before the name of an image is a mistake that would destroy
/// it.
pub(crate) fn check_writable(path: &Path) -> anyhow::Result<()> {
    if path == Path::new("-") {
        let hint = "name a file; ./- is one of that name, and /dev/stdout is a pipe";
        return Err(Failure::new("results are not written to `-`", hint).into());
    }
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
