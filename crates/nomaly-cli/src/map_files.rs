//! The files of each image in a scoring run: heat maps, masks, maps.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use anyhow::Context;
use nomaly::Outcome;
use nomaly::store::{canonical_place, create_folder, write_atomic};
use nomaly_report::files::{mask_png, npy, png, png16, tiff_f32};
use nomaly_report::overlay::{DEFAULT_OPACITY, OUTLINE, draw_outline, draw_overlay};

use crate::args::{MapArgs, MapFile, MapFormat};
use crate::failure::Failure;
use crate::locate::{Located, Scales};

/// Files in up to three folders, named after the images.
#[derive(Debug)]
pub(crate) struct MapFiles<'a> {
    args: &'a MapArgs,
    scales: Scales,
    /// For each image, the path of its files within each folder, without extension.
    stems: Vec<PathBuf>,
}

impl<'a> MapFiles<'a> {
    /// Creates the folders in `args` and a unique name for each image.
    ///
    /// `images` are the files of each given path, in order; `others` are further files of the same command.
    ///
    /// # Errors
    /// A folder that cannot be created, that is given twice, or in which one of those files would be overwritten.
    pub(crate) fn new(
        args: &'a MapArgs,
        scales: Scales,
        images: &[(&Path, Vec<&Path>)],
        others: &[&Path],
    ) -> anyhow::Result<Self> {
        let files = Self { args, scales, stems: stems(images) };
        let places = |files: &[&Path]| files.iter().map(|file| canonical_place(file)).collect::<HashSet<PathBuf>>();
        let inputs: HashSet<PathBuf> = images.iter().flat_map(|(_, files)| places(files)).collect();
        let others = places(others);
        let mut folders: Vec<(PathBuf, &str)> = Vec::new();
        for (file, folder) in args.folders() {
            let flag = file.flag();
            create_folder(folder)?;
            let place = folder.canonicalize().with_context(|| format!("cannot find {}", folder.display()))?;
            if let Some((_, other)) = folders.iter().find(|(known, _)| *known == place) {
                let message = format!("{other} and {flag} name the same folder, {}", folder.display());
                return Err(Failure::new(message, "give each a folder of its own").into());
            }
            folders.push((place, flag));
            for stem in &files.stems {
                let path = path(folder, stem, file);
                let place = canonical_place(&path);
                if inputs.contains(&place) {
                    let message = format!("{flag} would overwrite the image {}", path.display());
                    return Err(Failure::new(message, "choose a folder without images to score").into());
                }
                if others.contains(&place) {
                    let message = format!("{flag} would overwrite {}, a file of the same command", path.display());
                    return Err(Failure::new(message, "choose another folder").into());
                }
            }
        }
        Ok(files)
    }

    /// Writes the files of image number `place`. A heat map is drawn on the preview itself, because a copy might not
    /// fit into memory.
    pub(crate) fn write(&self, place: usize, outcome: &mut Outcome<'_>, located: &Located) -> anyhow::Result<()> {
        let (width, height) = located.size();
        let Located { map, found } = located;
        for (file, folder) in self.args.folders() {
            let bytes = match (file, &mut outcome.preview) {
                (MapFile::Heatmap, Some(image)) => {
                    draw_overlay(image, &map.values, width, height, self.scales.colors, DEFAULT_OPACITY)?;
                    draw_outline(image, &found.mask, OUTLINE)?;
                    png(image)?
                }
                // Nothing to draw on.
                (MapFile::Heatmap, None) => continue,
                (MapFile::Mask, _) => mask_png(&found.mask)?,
                (MapFile::Map(MapFormat::Npy), _) => npy(&map.values, width, height)?,
                (MapFile::Map(MapFormat::Tiff), _) => tiff_f32(&map.values, width, height)?,
                (MapFile::Map(MapFormat::Png16), _) => png16(&map.values, width, height, self.scales.grays)?,
            };
            let path = path(folder, &self.stems[place], file);
            create_folder(path.parent().unwrap_or(folder))?;
            write_atomic(&path, &bytes)?;
        }
        Ok(())
    }
}

/// The path of an image's file. The extension is appended, because a dot in a stem may be part of the name.
fn path(folder: &Path, stem: &Path, file: MapFile) -> PathBuf {
    let mut path = OsString::from(folder.join(stem));
    path.push(".");
    path.push(file.extension());
    path.into()
}

/// A unique relative path for each image, without `..`.
///
/// An image in a given folder is named by its path below that folder, a given file by its file name, both without
/// extension unless another image differs only in the extension. If that name is taken, the given path is used, and if
/// that is taken too, a number is appended.
pub(crate) fn stems(images: &[(&Path, Vec<&Path>)]) -> Vec<PathBuf> {
    let mut siblings: HashMap<PathBuf, HashSet<&Path>> = HashMap::new();
    for &file in images.iter().flat_map(|(_, files)| files) {
        siblings.entry(file.with_extension("")).or_default().insert(file);
    }
    let mut taken = HashSet::new();
    let mut stem_of = |given: &Path, file: &Path| {
        let alone = siblings[&file.with_extension("")].len() == 1;
        let stem = |path: &Path| {
            let path: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
            if alone { path.with_extension("") } else { path }
        };
        let below = file.strip_prefix(given).ok().filter(|path| path.components().next().is_some());
        let short = stem(below.or(file.file_name().map(Path::new)).unwrap_or(file));
        let whole = stem(file);
        let numbered = (2..).map(|number| {
            let mut path = OsString::from(&whole);
            path.push(format!("-{number}"));
            path.into()
        });
        // File systems may be case-insensitive.
        let mut free = |path: &PathBuf| taken.insert(path.to_string_lossy().to_lowercase());
        [short, whole.clone()].into_iter().chain(numbered).find(|path| free(path)).expect("there are numbers enough")
    };
    images
        .iter()
        .flat_map(|(given, files)| files.iter().map(move |file| (*given, *file)))
        .map(|(given, file)| stem_of(given, file))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(images: &[(&str, &[&str])]) -> Vec<String> {
        let images: Vec<(&Path, Vec<&Path>)> =
            images.iter().map(|(given, files)| (Path::new(*given), files.iter().map(Path::new).collect())).collect();
        stems(&images).iter().map(|stem| stem.to_str().unwrap().replace('\\', "/")).collect()
    }

    #[test]
    fn images_are_named_by_their_path_below_what_was_given() {
        let images = [("camera", &["camera/a.png", "camera/night/a.b.jpg"][..]), ("x/one.png", &["x/one.png"])];
        assert_eq!(named(&images), ["a", "night/a.b", "one"]);
        assert_eq!(named(&[(".", &["./a.png"]), ("../up", &["../up/b/c.png"])]), ["a", "b/c"]);
    }

    #[test]
    fn names_never_leave_their_folder() {
        let images =
            [("../a.png", &["../a.png"][..]), ("/etc/a.png", &["/etc/a.png"]), ("./b/../a.png", &["./b/../a.png"])];
        assert_eq!(named(&images), ["a", "etc/a", "b/a"]);
    }

    #[test]
    fn no_two_images_share_a_name() {
        let twice = [("one/a.png", &["one/a.png"][..]), ("two/a.png", &["two/a.png"]), ("one/a.png", &["one/a.png"])];
        assert_eq!(named(&twice), ["a", "two/a", "one/a"]);
        let often = [("a.png", &["a.png"][..]), ("a.png", &["a.png"]), ("a.png", &["a.png"])];
        assert_eq!(named(&often), ["a", "a-2", "a-3"]);
        // The extension is kept if only it differs; case alone does not count as a difference.
        assert_eq!(named(&[("c", &["c/a.jpg", "c/a.png", "c/B.png", "c/b.png"])]), ["a.jpg", "a.png", "B", "c/b"]);
    }
}
