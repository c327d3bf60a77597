//! Searches folders for image files.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::DataError;
use crate::sample::{ImageSource, Label, Sample};

/// The extensions of image files, in lower case.
pub const EXTENSIONS: [&str; 7] = ["bmp", "jpeg", "jpg", "png", "tif", "tiff", "webp"];

/// Whether a file has the extension of an image.
pub(crate) fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

/// The kind of the unlabelled samples of [`images_under`].
pub const UNLABELLED: &str = "unlabelled";

/// The images in `paths`: each file, and all image files below each folder, sorted.
///
/// Image files in folders are recognized by their extension ([`EXTENSIONS`]); an explicitly named file is taken with
/// any extension. Hidden files and folders are skipped, links are followed, and a link to a parent folder is not
/// followed again. A dangling link stays in the list, so that loading reports it. The samples' `id` is the path, their
/// label [`Label::Unknown`].
///
/// # Errors
/// [`DataError::Missing`] for a path that does not exist, [`DataError::Empty`] for a folder without images,
/// [`DataError::Io`] for a folder that cannot be read.
pub fn images_under(paths: &[PathBuf]) -> Result<Vec<Sample>, DataError> {
    let mut samples = Vec::new();
    let mut push = |path: PathBuf| {
        samples.push(Sample {
            id: path.display().to_string(),
            source: ImageSource::File(path),
            label: Label::Unknown,
            kind: UNLABELLED.to_owned(),
            mask: None,
        });
    };
    for path in paths {
        let metadata = std::fs::metadata(path).map_err(|error| DataError::io(path, error))?;
        if metadata.is_dir() {
            image_files(path)?.into_iter().for_each(&mut push);
        } else {
            push(path.clone());
        }
    }
    Ok(samples)
}

/// The image files below a folder, sorted; at least one.
pub(crate) fn image_files(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let files = image_files_if_any(folder)?;
    if files.is_empty() {
        let wanted = format!("images ({})", EXTENSIONS.map(|extension| format!("*.{extension}")).join(", "));
        return Err(DataError::Empty { path: folder.to_owned(), wanted });
    }
    Ok(files)
}

/// The image files below a folder, sorted; may be empty.
pub(crate) fn image_files_if_any(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    let visible = |entry: &walkdir::DirEntry| entry.depth() == 0 || !is_hidden(entry.file_name());
    for entry in WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter().filter_entry(visible) {
        match entry {
            Ok(entry) if entry.file_type().is_file() && is_image(entry.path()) => files.push(entry.into_path()),
            Ok(_) => {}
            // The target of a loop has been listed already.
            Err(error) if error.loop_ancestor().is_some() => {}
            Err(error) => match error.path().map(Path::to_owned) {
                Some(path) if path.is_symlink() => {
                    if is_image(&path) && !path.file_name().is_some_and(is_hidden) {
                        files.push(path);
                    }
                }
                path => return Err(DataError::io(path.unwrap_or_else(|| folder.to_owned()), error.into())),
            },
        }
    }
    files.sort();
    Ok(files)
}

/// The visible folders directly in a folder, sorted by name.
pub(crate) fn subfolders(folder: &Path) -> Result<Vec<(String, PathBuf)>, DataError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| DataError::io(folder, error))? {
        let entry = entry.map_err(|error| DataError::io(folder, error))?;
        let path = entry.path();
        if !is_hidden(&entry.file_name()) && path.is_dir() {
            found.push((entry.file_name().to_string_lossy().into_owned(), path));
        }
    }
    found.sort();
    Ok(found)
}

/// A path relative to `root`, with `/` as the separator.
pub(crate) fn relative(root: &Path, path: &Path) -> String {
    let below = path.strip_prefix(root).unwrap_or(path);
    below.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// A sample of a file below `root`.
pub(crate) fn file_sample(root: &Path, path: PathBuf, label: Label, kind: &str) -> Sample {
    Sample { id: relative(root, &path), source: ImageSource::File(path), label, kind: kind.to_owned(), mask: None }
}

pub(crate) fn is_hidden(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with('.')
}
