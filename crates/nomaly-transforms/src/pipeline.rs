//! From a decoded image to a network's input.
//!
//! # What it computes
//! Resize, then an optional centre crop, then `(v / 255 − mean) / std` for each channel, as the planes `[3, H, W]` that
//! the backbones take. Each step equals torchvision's `Resize`, `CenterCrop`, `ToTensor`, `Normalize` on PIL images; the
//! normalisation equals it bit for bit.
//!
//! # When to use
//! For every image a model sees, when it is fitted and when it scores. The pipeline is stored in the model file, so that
//! both are the same.
//!
//! # Parameters
//! [`Resize`], [`CenterCrop`], [`Normalize`]; all are checked when a pipeline is made or read.
//!
//! # Reference
//! torchvision, `transforms/functional.py`: the short-side rule `int(size · long / short)`, crop offsets rounded half to
//! even, zero padding where the image is smaller than the crop.

use std::borrow::Cow;

use image::{GrayImage, RgbImage};
use serde::{Deserialize, Serialize};

use crate::error::TransformError;
use crate::resize::{Filter, resize, resize_mask, short_side_size};

/// The longest side of a pipeline's resize and crop, in pixels.
pub const MAX_SIDE: u32 = 8192;

/// The size that an image is resized to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ResizeMode {
    /// Exactly this size; the aspect ratio may change.
    Exact {
        /// Height in pixels.
        height: u32,
        /// Width in pixels.
        width: u32,
    },
    /// The shorter side to this many pixels, keeping the aspect ratio; the longer side is rounded down.
    ShortSide(u32),
}

/// How an image is resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resize {
    /// To which size.
    pub mode: ResizeMode,
    /// With which kernel.
    pub filter: Filter,
}

impl Resize {
    /// Resizes an image.
    ///
    /// # Errors
    /// [`TransformError::EmptyImage`], [`TransformError::ResizedTooLarge`].
    pub fn apply(&self, image: &RgbImage) -> Result<RgbImage, TransformError> {
        let (width, height) = self.target(image.dimensions())?;
        resize(image, width, height, self.filter)
    }

    fn target(&self, source: (u32, u32)) -> Result<(u32, u32), TransformError> {
        match self.mode {
            ResizeMode::Exact { height, width } => Ok((width, height)),
            ResizeMode::ShortSide(size) => short_side_size(source, size),
        }
    }
}

/// The middle of an image; black where the image is smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CenterCrop {
    /// Height in pixels.
    pub height: u32,
    /// Width in pixels.
    pub width: u32,
}

/// Values in \[0, 1\] to `(v − mean) / std`, for red, green and blue.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalize {
    /// Subtracted.
    pub mean: [f32; 3],
    /// Divided by; above zero.
    pub std: [f32; 3],
}

impl Normalize {
    /// Mean and standard deviation of ImageNet, which torchvision's networks were trained with.
    pub const IMAGENET: Self = Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
    /// `(x − 127) / 128` on 0..=255, which the EfficientNet-Lite networks were trained with.
    pub const EFFICIENTNET_LITE: Self = Self { mean: [127.0 / 255.0; 3], std: [128.0 / 255.0; 3] };

    /// The normalised value of every sample value, channel by channel.
    ///
    /// A table is both exact (torchvision's order of operations, in `f32`) and quicker than two divisions a sample.
    fn tables(&self) -> [[f32; 256]; 3] {
        let mut tables = [[0.0; 256]; 3];
        for (channel, table) in tables.iter_mut().enumerate() {
            for (value, entry) in table.iter_mut().enumerate() {
                *entry = (value as f32 / 255.0 - self.mean[channel]) / self.std[channel];
            }
        }
        tables
    }
}

/// Resize, centre crop and normalisation: everything between a decoded image and a network.
///
/// ```
/// use image::RgbImage;
/// use nomaly_transforms::{CenterCrop, Filter, Normalize, Pipeline, Resize, ResizeMode};
///
/// let resize = Resize { mode: ResizeMode::ShortSide(256), filter: Filter::Bilinear };
/// let crop = CenterCrop { height: 224, width: 224 };
/// let pipeline = Pipeline::new(resize, Some(crop), Normalize::IMAGENET)?;
/// assert_eq!(pipeline.output_size(), [224, 224]);
///
/// let input = pipeline.apply(&RgbImage::new(640, 480))?;
/// assert_eq!(input.len(), 3 * 224 * 224);
/// assert_eq!(input[0], -0.485 / 0.229);
/// # Ok::<(), nomaly_transforms::TransformError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Fields")]
pub struct Pipeline {
    /// The first step.
    pub resize: Resize,
    /// The second step, if any.
    pub crop: Option<CenterCrop>,
    /// The last step.
    pub normalize: Normalize,
}

/// A pipeline as it is stored, before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    resize: Resize,
    crop: Option<CenterCrop>,
    normalize: Normalize,
}

impl TryFrom<Fields> for Pipeline {
    type Error = TransformError;

    fn try_from(fields: Fields) -> Result<Self, TransformError> {
        Self::new(fields.resize, fields.crop, fields.normalize)
    }
}

/// Where the output lies on the resized image, along one axis.
struct Span {
    /// First pixel taken from the image.
    from: usize,
    /// First pixel written in the output; those before are padding.
    to: usize,
    /// How many are taken.
    len: usize,
}

impl Span {
    fn new(image: u32, crop: u32) -> Self {
        if crop > image {
            // torchvision pads (crop − image) / 2 before, rounded down, and the rest after.
            Self { from: 0, to: ((crop - image) / 2) as usize, len: image as usize }
        } else {
            // Half of the margin, rounded half to even as Python does.
            let margin = image - crop;
            let half = margin / 2;
            let from = if margin % 2 == 1 && half % 2 == 1 { half + 1 } else { half };
            Self { from: from as usize, to: 0, len: crop as usize }
        }
    }
}

impl Pipeline {
    /// Makes a pipeline.
    ///
    /// # Errors
    /// As [`Pipeline::validate`].
    pub fn new(resize: Resize, crop: Option<CenterCrop>, normalize: Normalize) -> Result<Self, TransformError> {
        let pipeline = Self { resize, crop, normalize };
        pipeline.validate()?;
        Ok(pipeline)
    }

    /// Checks the parameters: sides 1..=[`MAX_SIDE`], means finite, deviations finite and above zero, and a crop where
    /// the resize leaves the output size open.
    ///
    /// # Errors
    /// [`TransformError::Side`], [`TransformError::Normalization`], [`TransformError::OpenSize`].
    pub fn validate(&self) -> Result<(), TransformError> {
        let side = |what, value| {
            if (1..=MAX_SIDE).contains(&value) { Ok(()) } else { Err(TransformError::Side { what, value }) }
        };
        match self.resize.mode {
            ResizeMode::Exact { height, width } => {
                side("resize height", height)?;
                side("resize width", width)?;
            }
            ResizeMode::ShortSide(size) => {
                side("resize short side", size)?;
                if self.crop.is_none() {
                    return Err(TransformError::OpenSize { size });
                }
            }
        }
        if let Some(crop) = self.crop {
            side("crop height", crop.height)?;
            side("crop width", crop.width)?;
        }
        for channel in 0..3 {
            let (mean, std) = (self.normalize.mean[channel], self.normalize.std[channel]);
            if !mean.is_finite() {
                return Err(TransformError::Normalization { what: "mean", channel, value: mean });
            }
            if !(std.is_finite() && std > 0.0) {
                return Err(TransformError::Normalization { what: "std", channel, value: std });
            }
        }
        Ok(())
    }

    /// Height and width of the output, in pixels.
    pub fn output_size(&self) -> [usize; 2] {
        let (height, width) = match (self.crop, self.resize.mode) {
            (Some(crop), _) => (crop.height, crop.width),
            (None, ResizeMode::Exact { height, width }) => (height, width),
            // Refused by `validate`.
            (None, ResizeMode::ShortSide(size)) => (size, size),
        };
        [height as usize, width as usize]
    }

    /// Number of values in the output, `3 · H · W`.
    pub fn output_len(&self) -> usize {
        let [height, width] = self.output_size();
        3 * height * width
    }

    /// Transforms an image to `[3, H, W]`, channels red, green, blue.
    ///
    /// # Errors
    /// As [`Pipeline::apply_into`].
    pub fn apply(&self, image: &RgbImage) -> Result<Vec<f32>, TransformError> {
        self.validate()?;
        let mut out = vec![0.0; self.output_len()];
        self.apply_into(image, &mut out)?;
        Ok(out)
    }

    /// Transforms an image into a buffer of `[3, H, W]` values, channels red, green, blue.
    ///
    /// # Errors
    /// What [`Pipeline::validate`] finds, [`TransformError::OutputLength`], [`TransformError::EmptyImage`],
    /// [`TransformError::ResizedTooLarge`].
    pub fn apply_into(&self, image: &RgbImage, out: &mut [f32]) -> Result<(), TransformError> {
        self.validate()?;
        if out.len() != self.output_len() {
            return Err(TransformError::OutputLength { expected: self.output_len(), actual: out.len() });
        }
        let resized = self.resized(image)?;
        let [height, width] = self.output_size();
        let (rows, columns) = (Span::new(resized.height(), height as u32), Span::new(resized.width(), width as u32));
        let tables = self.normalize.tables();
        let (red, rest) = out.split_at_mut(height * width);
        let (green, blue) = rest.split_at_mut(height * width);
        if rows.len < height || columns.len < width {
            for (plane, table) in [(&mut *red, &tables[0]), (&mut *green, &tables[1]), (&mut *blue, &tables[2])] {
                plane.fill(table[0]);
            }
        }
        let stride = 3 * resized.width() as usize;
        for row in 0..rows.len {
            let start = (rows.from + row) * stride + 3 * columns.from;
            let source = &resized.as_raw()[start..start + 3 * columns.len];
            let at = (rows.to + row) * width + columns.to;
            let target = at..at + columns.len;
            let planes = red[target.clone()].iter_mut().zip(&mut green[target.clone()]).zip(&mut blue[target]);
            for (pixel, ((r, g), b)) in source.chunks_exact(3).zip(planes) {
                *r = tables[0][usize::from(pixel[0])];
                *g = tables[1][usize::from(pixel[1])];
                *b = tables[2][usize::from(pixel[2])];
            }
        }
        Ok(())
    }

    /// The part of an image that the network sees, as it sees it, before normalisation: what an anomaly map lies over.
    ///
    /// # Errors
    /// As [`Pipeline::apply_into`].
    pub fn view(&self, image: &RgbImage) -> Result<RgbImage, TransformError> {
        self.validate()?;
        let resized = self.resized(image)?;
        let [height, width] = self.output_size();
        if (resized.width() as usize, resized.height() as usize) == (width, height) {
            return Ok(resized.into_owned());
        }
        let data = self.cropped(resized.as_raw(), resized.dimensions(), 3);
        Ok(RgbImage::from_raw(width as u32, height as u32, data).expect("the crop has the output's size"))
    }

    /// Takes a mask through the same geometry, by nearest neighbours, to compare it with an anomaly map pixel by pixel.
    /// Padding is 0, which is normal.
    ///
    /// # Errors
    /// As [`Pipeline::apply_into`].
    pub fn apply_mask(&self, mask: &GrayImage) -> Result<GrayImage, TransformError> {
        self.validate()?;
        let (width, height) = self.resize.target(mask.dimensions())?;
        let resized = resize_mask(mask, width, height)?;
        let [height, width] = self.output_size();
        let data = self.cropped(resized.as_raw(), resized.dimensions(), 1);
        Ok(GrayImage::from_raw(width as u32, height as u32, data).expect("the crop has the output's size"))
    }

    fn resized<'a>(&self, image: &'a RgbImage) -> Result<Cow<'a, RgbImage>, TransformError> {
        // An image of the right size, such as one of a prepared data set, is not copied.
        if image.width() > 0 && image.height() > 0 && self.resize.target(image.dimensions())? == image.dimensions() {
            return Ok(Cow::Borrowed(image));
        }
        self.resize.apply(image).map(Cow::Owned)
    }

    /// Cuts the output's rectangle out of interleaved samples, with zeros where the image does not reach.
    fn cropped(&self, data: &[u8], (image_width, image_height): (u32, u32), channels: usize) -> Vec<u8> {
        let [height, width] = self.output_size();
        let (rows, columns) = (Span::new(image_height, height as u32), Span::new(image_width, width as u32));
        let mut out = vec![0; height * width * channels];
        for row in 0..rows.len {
            let from = ((rows.from + row) * image_width as usize + columns.from) * channels;
            let to = ((rows.to + row) * width + columns.to) * channels;
            out[to..to + columns.len * channels].copy_from_slice(&data[from..from + columns.len * channels]);
        }
        out
    }
}
