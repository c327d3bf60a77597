//! Samples (images with labels and masks) and data sets of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::{GrayImage, Luma, RgbImage};
use nomaly_transforms::augment::{Change, Changes};
use nomaly_transforms::decode::Announced;
use nomaly_transforms::{FileFacts, Limits};

use crate::DataError;
use crate::subset::{Choice, choose};

/// The label of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Label {
    /// A good item.
    Normal,
    /// An item with a defect, or of another class than the normal one.
    Anomalous,
    /// Unlabelled: an image to be scored.
    Unknown,
}

/// One image of a data set.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The image's name, unique in its part of the data set: its path below the data set's folder with `/` between the
    /// parts, or `train/00042`. For images to be scored it is the path as given.
    pub id: String,
    /// The source of the pixels.
    pub source: ImageSource,
    /// Whether the item is good.
    pub label: Label,
    /// The kind of item or defect: `good`, `scratch`, `dress`.
    pub kind: String,
    /// The defective pixels, if known.
    pub mask: Option<MaskSource>,
}

/// The source of an image's pixels.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ImageSource {
    /// An image file, decoded whenever it is loaded.
    File(PathBuf),
    /// One of many small images of one size that are held in memory together.
    Packed {
        /// All images.
        images: Arc<PackedImages>,
        /// The index of this image.
        index: usize,
    },
    /// An image in memory.
    Memory(Arc<RgbImage>),
    /// Another image, changed.
    Changed {
        /// The image.
        of: Box<ImageSource>,
        /// The change.
        change: Change,
    },
}

impl ImageSource {
    /// Whether it is a changed copy of another image.
    pub fn is_changed(&self) -> bool {
        matches!(self, Self::Changed { .. })
    }

    /// Decodes or copies the image.
    ///
    /// # Errors
    /// [`DataError::Decode`] if the file cannot be read, is not an image, or exceeds `limits`.
    pub fn load(&self, limits: &Limits) -> Result<RgbImage, DataError> {
        self.load_with_facts(limits).map(|(image, _)| image)
    }

    /// As [`load`](Self::load), with how the image was stored, for image files.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with_facts(&self, limits: &Limits) -> Result<(RgbImage, Option<FileFacts>), DataError> {
        match self {
            Self::File(path) => Ok(nomaly_transforms::decode_file_with_facts(path, limits)?),
            Self::Packed { images, index } => Ok((images.get(*index), None)),
            Self::Memory(image) => Ok((RgbImage::clone(image), None)),
            Self::Changed { of, change } => {
                let (image, file) = of.load_with_facts(limits)?;
                // A recompressed copy says nothing about the encoding of files.
                let file = file.filter(|_| !matches!(change, Change::Jpeg(_)));
                Ok((change.of(&image)?, file))
            }
        }
    }

    /// The size of the image and the memory for loading it, known in advance. `None` for a file with an unreadable
    /// header.
    pub fn announced(&self) -> Option<Announced> {
        let rgb = |width: u32, height: u32| Announced {
            bytes: 3 * u64::from(width) * u64::from(height),
            size: (width, height),
        };
        match self {
            Self::File(path) => nomaly_transforms::decode::announced(path),
            Self::Packed { images, .. } => Some(rgb(images.width, images.height)),
            Self::Memory(image) => Some(rgb(image.width(), image.height())),
            Self::Changed { of, .. } => {
                of.announced().map(|Announced { bytes, size }| Announced { bytes: bytes.saturating_mul(2), size })
            }
        }
    }

    /// The file of an image file.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Packed { .. } | Self::Memory(_) => None,
            Self::Changed { of, .. } => of.path(),
        }
    }
}

/// The samples, each followed by its changed copies.
pub fn with_changes(samples: &[Sample], changes: &Changes) -> Vec<Sample> {
    let copies = |sample: &Sample| {
        let copy = |change: &Change| Sample {
            id: format!("{} ({change})", sample.id),
            source: ImageSource::Changed { of: Box::new(sample.source.clone()), change: *change },
            ..sample.clone()
        };
        std::iter::once(sample.clone()).chain(changes.0.iter().map(copy)).collect::<Vec<_>>()
    };
    samples.iter().flat_map(copies).collect()
}

/// The source of an image's mask.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum MaskSource {
    /// An image file in which pixels brighter than `above` are defective.
    File {
        /// The file.
        path: PathBuf,
        /// Grey values above this one (0 … 255) mark defects: 127 for black-and-white masks, 0 for masks that number
        /// the kinds of defect.
        above: u8,
    },
    /// A mask in memory; pixels that are not 0 are defective.
    Memory(Arc<GrayImage>),
}

impl MaskSource {
    /// Decodes the mask: 255 where the item is defective, 0 elsewhere.
    ///
    /// # Errors
    /// [`DataError::Decode`] if the file cannot be read, is not an image, or exceeds `limits`.
    pub fn load(&self, limits: &Limits) -> Result<GrayImage, DataError> {
        match self {
            Self::File { path, above } => {
                let image = nomaly_transforms::decode_file(path, limits)?;
                let mut mask = GrayImage::new(image.width(), image.height());
                for (to, from) in mask.pixels_mut().zip(image.pixels()) {
                    let brightest = from.0.iter().copied().max().unwrap_or(0);
                    *to = Luma([if brightest > *above { 255 } else { 0 }]);
                }
                Ok(mask)
            }
            Self::Memory(mask) => {
                let mut mask = GrayImage::clone(mask);
                mask.iter_mut().for_each(|value| *value = if *value == 0 { 0 } else { 255 });
                Ok(mask)
            }
        }
    }
}

/// Many small images of one size in contiguous memory.
pub struct PackedImages {
    bytes: Vec<u8>,
    width: u32,
    height: u32,
    channels: Channels,
    /// Bytes from one image to the next.
    stride: usize,
    /// Bytes before the pixels of an image.
    offset: usize,
}

/// The pixel format of a [`PackedImages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channels {
    /// One byte per pixel.
    Grey,
    /// All red values, then all green ones, then all blue ones.
    PlanarRgb,
}

impl Channels {
    const fn count(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::PlanarRgb => 3,
        }
    }
}

impl PackedImages {
    /// Images of `width` × `height` pixels, each preceded by `offset` bytes of something else.
    ///
    /// The caller has checked that `bytes` is a whole number of images.
    pub(crate) fn new(bytes: Vec<u8>, width: u32, height: u32, channels: Channels, offset: usize) -> Self {
        let stride = offset + width as usize * height as usize * channels.count();
        Self { bytes, width, height, channels, stride, offset }
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.stride
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The size in pixels, width first.
    pub fn dimensions(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Image number `index`.
    ///
    /// # Panics
    /// If `index` is not below [`PackedImages::len`].
    pub fn get(&self, index: usize) -> RgbImage {
        let pixels = &self.bytes[index * self.stride + self.offset..][..self.stride - self.offset];
        let plane = self.width as usize * self.height as usize;
        RgbImage::from_fn(self.width, self.height, |x, y| {
            let at = y as usize * self.width as usize + x as usize;
            match self.channels {
                Channels::Grey => image::Rgb([pixels[at]; 3]),
                Channels::PlanarRgb => image::Rgb([pixels[at], pixels[plane + at], pixels[2 * plane + at]]),
            }
        })
    }
}

impl std::fmt::Debug for PackedImages {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "PackedImages({} of {}x{}, {:?})", self.len(), self.width, self.height, self.channels)
    }
}

/// Training and test images.
#[derive(Clone, Debug, Default)]
pub struct Dataset {
    /// The name of the data set in results: `magnetic_tile`, `elpv:cells=mono`.
    pub name: String,
    /// Normal images to learn from.
    pub train: Vec<Sample>,
    /// Images to test with, normal and anomalous ones.
    pub test: Vec<Sample>,
    /// The licence of the images, if known.
    pub licence: Option<String>,
    /// The classes from which the normal one was chosen, in the order of their numbers; may be empty.
    pub classes: Vec<String>,
}

impl Dataset {
    /// The kinds of test images, sorted, each once.
    pub fn kinds(&self) -> Vec<&str> {
        let kinds: std::collections::BTreeSet<&str> = self.test.iter().map(|sample| sample.kind.as_str()).collect();
        kinds.into_iter().collect()
    }

    /// The number of test images with `label`.
    pub fn count(&self, label: Label) -> usize {
        self.test.iter().filter(|sample| sample.label == label).count()
    }

    /// Whether any test image has a mask.
    pub fn has_masks(&self) -> bool {
        self.test.iter().any(|sample| sample.mask.is_some())
    }

    /// The number of anomalous test images without a mask in a data set with masks. Pixel figures skip these images.
    pub fn missing_masks(&self) -> usize {
        if !self.has_masks() {
            return 0;
        }
        self.test.iter().filter(|sample| sample.label == Label::Anomalous && sample.mask.is_none()).count()
    }

    /// Keeps at most `max` training images, in order.
    pub fn limit_train(&mut self, max: usize, choice: Choice) {
        keep(&mut self.train, |_| true, max, choice);
    }

    /// Keeps at most `max` test images, in order: half normal and half anomalous if there are enough of both.
    ///
    /// A figure such as AUROC, which does not depend on the share of anomalies, varies least with equal halves. A
    /// random selection of one class against nine would leave a few normal images at best.
    pub fn limit_test(&mut self, max: usize, choice: Choice) {
        let is_normal = |sample: &Sample| sample.label == Label::Normal;
        let normal = self.test.iter().filter(|sample| is_normal(sample)).count();
        let others = self.test.len() - normal;
        let most_normal = max.div_ceil(2).max(max.saturating_sub(others)).min(normal);
        keep(&mut self.test, is_normal, most_normal, choice);
        keep(&mut self.test, |sample| !is_normal(sample), max - most_normal, choice);
    }
}

/// Keeps at most `max` of the samples for which `of` holds, and all others, in order.
fn keep(samples: &mut Vec<Sample>, of: impl Fn(&Sample) -> bool, max: usize, choice: Choice) {
    let count = samples.iter().filter(|sample| of(sample)).count();
    let mut kept = choose(count, max, choice).into_iter().peekable();
    let mut index = 0;
    samples.retain(|sample| {
        if !of(sample) {
            return true;
        }
        let keep = kept.next_if_eq(&index).is_some();
        index += 1;
        keep
    });
}
