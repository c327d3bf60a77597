//! Small data sets written by the tests.

use std::io::Write;
use std::path::{Path, PathBuf};

use image::{GrayImage, Luma, Rgb, RgbImage};
use tempfile::TempDir;

/// A folder that is removed after the test.
pub(crate) struct Fixture(TempDir);

impl Fixture {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The folder, or a subfolder, as the spec of a data set.
    pub(crate) fn spec(&self, options: &str) -> String {
        format!("{}{options}", self.path().display())
    }

    pub(crate) fn file(&self, name: &str, contents: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a path below the folder")).expect("the folder can be made");
        std::fs::write(&path, contents).expect("the file can be written");
        path
    }

    /// Images of one grey value each.
    pub(crate) fn images(&self, names: &[&str]) {
        for (number, name) in names.iter().enumerate() {
            let path = self.file(name, b"");
            RgbImage::from_pixel(6, 4, Rgb([number as u8 + 1; 3])).save(path).expect("the image can be written");
        }
    }

    /// A mask whose left half has one grey value, the right half another.
    pub(crate) fn mask(&self, name: &str, left: u8, right: u8) {
        let path = self.file(name, b"");
        GrayImage::from_fn(6, 4, |x, _| Luma([if x < 3 { left } else { right }])).save(path).expect("a mask");
    }

    pub(crate) fn gzip(&self, name: &str, contents: &[u8]) -> PathBuf {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(contents).expect("memory can be written");
        self.file(name, &encoder.finish().expect("memory can be written"))
    }

    /// A pair of IDX files: image `i` is filled with `i` and of class `classes[i]`.
    pub(crate) fn idx(&self, part: &str, classes: &[u8]) {
        let pixels: Vec<u8> = (0..classes.len()).flat_map(|image| [image as u8; 6]).collect();
        self.gzip(&format!("{part}-images-idx3-ubyte.gz"), &idx(&[classes.len() as u32, 2, 3], &pixels));
        self.file(&format!("{part}-labels-idx1-ubyte"), &idx(&[classes.len() as u32], classes));
    }
}

/// The bytes of an IDX file.
pub(crate) fn idx(dimensions: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
    dimensions.iter().for_each(|dimension| bytes.extend(dimension.to_be_bytes()));
    bytes.extend(values);
    bytes
}

/// CIFAR records: the class bytes, then a red plane of `1`, a green one of `2`, a blue one of `3`.
pub(crate) fn cifar(records: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for classes in records {
        bytes.extend_from_slice(classes);
        (1..=3).for_each(|plane| bytes.extend([plane; 1024]));
    }
    bytes
}
