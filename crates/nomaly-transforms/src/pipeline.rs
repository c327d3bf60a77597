//! The pipeline from a decoded image to a network's input.
//!
//! # What it computes
//! Resize, then an optional centre crop, then `(v / 255 − mean) / std` for each channel. The result is the *frame*;
//! its [`Views`] (by default the frame itself) are the planes `[views, 3, H, W]` that the backbones take. Each step up
//! to the frame equals torchvision's `Resize`, `CenterCrop`, `ToTensor`, `Normalize` on PIL images; the normalisation
//! equals it bit for bit.
//!
//! # When to use
//! For every image of a model, in fitting and in scoring. The pipeline is stored in the model file, so that both are
//! the same.
//!
//! # Parameters
//! [`Resize`], [`CenterCrop`], [`Normalize`], [`Views`]; all are checked when a pipeline is created or read.
//!
//! # Reference
//! torchvision, `transforms/functional.py`: the short-side rule `int(size · long / short)`, crop offsets rounded half
//! to even, zero padding if the image is smaller than the crop.

use std::borrow::Cow;

use image::{GrayImage, RgbImage};
use serde::{Deserialize, Serialize};

use crate::error::TransformError;
use crate::resample::Filter;
use crate::resize::{resize, resize_mask, short_side_size};
use crate::views::{Views, check_side};

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
    /// Exactly this size if the image is larger along either axis; a smaller image is not resized, and a crop of this
    /// size pads it with black.
    AtMost {
        /// Height in pixels.
        height: u32,
        /// Width in pixels.
        width: u32,
    },
}

/// How an image is resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resize {
    /// The target size.
    pub mode: ResizeMode,
    /// The interpolation kernel.
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
            ResizeMode::AtMost { height, width } if source.0 <= width && source.1 <= height => Ok(source),
            ResizeMode::AtMost { height, width } => Ok((width, height)),
        }
    }
}

/// The centre of an image, padded with black if the image is smaller.
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
    /// A table is exact (torchvision's order of operations, in `f32`) and faster than two divisions per sample.
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

/// Resize, centre crop, normalisation and views: all steps between a decoded image and a network.
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
///
/// // The same frame as four tiles that overlap by half, each a separate input of the network.
/// use nomaly_transforms::{Flips, Tiling, Views};
/// let tiling = Tiling { rows: 2, columns: 2, height: 150, width: 150 };
/// let tiled = pipeline.with_views(Views { tiling: Some(tiling), flips: Flips::None })?;
/// assert_eq!((tiled.frame_size(), tiled.output_size(), tiled.view_count()), ([224, 224], [150, 150], 4));
/// let map = tiled.assemble(&vec![0.25; 4 * 150 * 150])?;
/// assert_eq!(map, [0.25; 224 * 224]);
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
    /// The views of the result; stored unless it is a single view of the whole frame.
    #[serde(skip_serializing_if = "Views::is_default")]
    pub views: Views,
}

/// The stored form of a pipeline, before validation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    resize: Resize,
    crop: Option<CenterCrop>,
    normalize: Normalize,
    #[serde(default)]
    views: Views,
}

impl TryFrom<Fields> for Pipeline {
    type Error = TransformError;

    fn try_from(fields: Fields) -> Result<Self, TransformError> {
        Self::new(fields.resize, fields.crop, fields.normalize)?.with_views(fields.views)
    }
}

/// The rectangle of an image that a frame shows, in pixels of the image; pixel `i` reaches from `i` to `i + 1`.
///
/// It reaches beyond the image where the crop pads.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Footprint {
    /// The left border; below 0 where the crop pads.
    pub x: f64,
    /// The upper border; below 0 where the crop pads.
    pub y: f64,
    /// From the left border to the right one.
    pub width: f64,
    /// From the upper border to the lower one.
    pub height: f64,
}

/// The position of the frame on the resized image, along one axis.
struct Span {
    /// First pixel taken from the image.
    from: usize,
    /// First pixel written in the frame; those before are padding.
    to: usize,
    /// The number of pixels taken.
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
    /// Makes a pipeline with a single view, the whole frame.
    ///
    /// # Errors
    /// As [`Pipeline::validate`].
    pub fn new(resize: Resize, crop: Option<CenterCrop>, normalize: Normalize) -> Result<Self, TransformError> {
        let pipeline = Self { resize, crop, normalize, views: Views::default() };
        pipeline.validate()?;
        Ok(pipeline)
    }

    /// The same pipeline with other views.
    ///
    /// # Errors
    /// As [`Pipeline::validate`].
    pub fn with_views(self, views: Views) -> Result<Self, TransformError> {
        let pipeline = Self { views, ..self };
        pipeline.validate()?;
        Ok(pipeline)
    }

    /// Checks the parameters: sides 1..=[`MAX_SIDE`](crate::MAX_SIDE), means finite, deviations finite and above zero,
    /// a crop where the resize leaves the size of the frame open, tiles that fit the frame and cover it, and views of
    /// at most [`MAX_VIEW_PIXELS`](crate::MAX_VIEW_PIXELS) together.
    ///
    /// # Errors
    /// [`TransformError::Side`], [`TransformError::Normalization`], [`TransformError::OpenSize`],
    /// [`TransformError::PaddedSize`], [`TransformError::Tiles`], [`TransformError::TileTooLarge`],
    /// [`TransformError::TilesTooFew`], [`TransformError::ViewsTooLarge`].
    pub fn validate(&self) -> Result<(), TransformError> {
        match self.resize.mode {
            ResizeMode::Exact { height, width } => {
                check_side("resize height", height)?;
                check_side("resize width", width)?;
            }
            ResizeMode::ShortSide(size) => {
                check_side("resize short side", size)?;
                if self.crop.is_none() {
                    return Err(TransformError::OpenSize { size });
                }
            }
            ResizeMode::AtMost { height, width } => {
                check_side("resize height", height)?;
                check_side("resize width", width)?;
                if self.crop != Some(CenterCrop { height, width }) {
                    return Err(TransformError::PaddedSize { height, width });
                }
            }
        }
        if let Some(crop) = self.crop {
            check_side("crop height", crop.height)?;
            check_side("crop width", crop.width)?;
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
        self.views.validate(self.frame_size())
    }

    /// Height and width of the frame, the image after resize and crop, in pixels.
    pub fn frame_size(&self) -> [usize; 2] {
        let (height, width) = match (self.crop, self.resize.mode) {
            (Some(crop), _) => (crop.height, crop.width),
            (None, ResizeMode::Exact { height, width }) => (height, width),
            // Rejected by `validate`.
            (None, ResizeMode::AtMost { height, width }) => (height, width),
            (None, ResizeMode::ShortSide(size)) => (size, size),
        };
        [height as usize, width as usize]
    }

    /// Height and width of one view, which is the network's input, in pixels: of a tile, or of the frame.
    pub fn output_size(&self) -> [usize; 2] {
        self.views.size(self.frame_size())
    }

    /// The number of views of an image, at least 1.
    pub fn view_count(&self) -> usize {
        self.views.count()
    }

    /// Number of values in the output, `views · 3 · H · W`.
    pub fn output_len(&self) -> usize {
        let [height, width] = self.output_size();
        self.view_count() * 3 * height * width
    }

    /// Transforms an image to `[views, 3, H, W]`, channels red, green, blue; the views in the order of [`Views`].
    ///
    /// # Errors
    /// As [`Pipeline::apply_into`].
    pub fn apply(&self, image: &RgbImage) -> Result<Vec<f32>, TransformError> {
        self.validate()?;
        let mut out = vec![0.0; self.output_len()];
        self.apply_into(image, &mut out)?;
        Ok(out)
    }

    /// Transforms an image into a buffer of `[views, 3, H, W]` values, channels red, green, blue.
    ///
    /// # Errors
    /// Those of [`Pipeline::validate`], [`TransformError::OutputLength`], [`TransformError::EmptyImage`],
    /// [`TransformError::ResizedTooLarge`].
    pub fn apply_into(&self, image: &RgbImage, out: &mut [f32]) -> Result<(), TransformError> {
        self.validate()?;
        // Check the length before the costly resize.
        if out.len() != self.output_len() {
            return Err(TransformError::OutputLength { expected: self.output_len(), actual: out.len() });
        }
        self.cut_resized(&*self.resized(image)?, out)
    }

    /// As [`Pipeline::apply_into`], from a frame that [`Pipeline::view`] made earlier: the same values.
    ///
    /// # Errors
    /// Those of [`Pipeline::validate`], [`TransformError::OutputLength`], [`TransformError::FrameSize`].
    pub fn apply_frame_into(&self, frame: &RgbImage, out: &mut [f32]) -> Result<(), TransformError> {
        self.validate()?;
        let [height, width] = self.frame_size();
        if (frame.width() as usize, frame.height() as usize) != (width, height) {
            let (frame_width, frame_height) = (width, height);
            let (width, height) = frame.dimensions();
            return Err(TransformError::FrameSize { width, height, frame_width, frame_height });
        }
        self.cut_resized(frame, out)
    }

    /// Everything after the resize.
    fn cut_resized(&self, resized: &RgbImage, out: &mut [f32]) -> Result<(), TransformError> {
        if out.len() != self.output_len() {
            return Err(TransformError::OutputLength { expected: self.output_len(), actual: out.len() });
        }
        let [height, width] = self.frame_size();
        if self.views.tiling.is_some() {
            let mut frame = vec![0.0; 3 * height * width];
            self.normalize_into(resized, &mut frame);
            self.views.cut(&frame, [height, width], 0, out);
        } else {
            // The first view is the frame itself.
            let (frame, flipped) = out.split_at_mut(3 * height * width);
            self.normalize_into(resized, frame);
            self.views.cut(frame, [height, width], 1, flipped);
        }
        Ok(())
    }

    /// Crops and normalises a resized image to the frame, `[3, H, W]`.
    fn normalize_into(&self, resized: &RgbImage, frame: &mut [f32]) {
        let [height, width] = self.frame_size();
        let (rows, columns) = (Span::new(resized.height(), height as u32), Span::new(resized.width(), width as u32));
        let tables = self.normalize.tables();
        let (red, rest) = frame.split_at_mut(height * width);
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
    }

    /// One map of the frame, `[frame height, frame width]`, from the maps of all views of an image, `[views, H, W]`.
    ///
    /// Flipped maps are flipped back and averaged; overlapping tiles are blended. The map of a single view is returned
    /// as it is, and equal values of all views are preserved.
    ///
    /// # Errors
    /// Those of [`Pipeline::validate`], [`TransformError::MapsLength`].
    pub fn assemble(&self, maps: &[f32]) -> Result<Vec<f32>, TransformError> {
        self.validate()?;
        let ([height, width], views) = (self.output_size(), self.view_count());
        if maps.len() != views * height * width {
            return Err(TransformError::MapsLength { views, height, width, actual: maps.len() });
        }
        Ok(self.views.assemble(maps, self.frame_size()))
    }

    /// The part of a frame's mask (see [`Pipeline::apply_mask`]) in each view, in the order of the views.
    ///
    /// # Errors
    /// Those of [`Pipeline::validate`], [`TransformError::MaskSize`].
    pub fn split_mask(&self, mask: &GrayImage) -> Result<Vec<GrayImage>, TransformError> {
        self.validate()?;
        let [frame_height, frame_width] = self.frame_size();
        let (width, height) = mask.dimensions();
        if (width as usize, height as usize) != (frame_width, frame_height) {
            return Err(TransformError::MaskSize { width, height, frame_width, frame_height });
        }
        let [height, width] = self.output_size();
        let mut views = vec![0; self.view_count() * height * width];
        self.views.cut(mask.as_raw(), [frame_height, frame_width], 0, &mut views);
        let image = |view: &[u8]| {
            GrayImage::from_raw(width as u32, height as u32, view.to_vec()).expect("the chunk has the view's size")
        };
        Ok(views.chunks_exact(height * width).map(image).collect())
    }

    /// The rectangle that the frame shows of an image of `(width, height)` pixels.
    ///
    /// # Errors
    /// Those of [`Pipeline::validate`], [`TransformError::EmptyImage`], [`TransformError::ResizedTooLarge`].
    pub fn footprint(&self, (width, height): (u32, u32)) -> Result<Footprint, TransformError> {
        self.validate()?;
        if width == 0 || height == 0 {
            return Err(TransformError::EmptyImage { width, height });
        }
        let (resized_width, resized_height) = self.resize.target((width, height))?;
        let [frame_height, frame_width] = self.frame_size();
        let along = |image: u32, resized: u32, frame: usize| {
            let (span, scale) = (Span::new(resized, frame as u32), f64::from(image) / f64::from(resized));
            ((span.from as f64 - span.to as f64) * scale, frame as f64 * scale)
        };
        let (x, width) = along(width, resized_width, frame_width);
        let (y, height) = along(height, resized_height, frame_height);
        Ok(Footprint { x, y, width, height })
    }

    /// The frame of an image before normalisation: the part that the network sees and that an anomaly map covers.
    ///
    /// # Errors
    /// As [`Pipeline::apply_into`].
    pub fn view(&self, image: &RgbImage) -> Result<RgbImage, TransformError> {
        self.validate()?;
        let resized = self.resized(image)?;
        let [height, width] = self.frame_size();
        if (resized.width() as usize, resized.height() as usize) == (width, height) {
            return Ok(resized.into_owned());
        }
        let data = self.cropped(resized.as_raw(), resized.dimensions(), 3);
        Ok(RgbImage::from_raw(width as u32, height as u32, data).expect("the crop has the frame's size"))
    }

    /// Maps a mask to the frame by the same geometry and nearest neighbours, for comparison with an anomaly map pixel
    /// by pixel. Padding is 0, which is normal.
    ///
    /// # Errors
    /// As [`Pipeline::apply_into`].
    pub fn apply_mask(&self, mask: &GrayImage) -> Result<GrayImage, TransformError> {
        self.validate()?;
        let (width, height) = self.resize.target(mask.dimensions())?;
        let resized = resize_mask(mask, width, height)?;
        let [height, width] = self.frame_size();
        let data = self.cropped(resized.as_raw(), resized.dimensions(), 1);
        Ok(GrayImage::from_raw(width as u32, height as u32, data).expect("the crop has the frame's size"))
    }

    fn resized<'a>(&self, image: &'a RgbImage) -> Result<Cow<'a, RgbImage>, TransformError> {
        // An image of the right size, such as one of a prepared data set, is not copied.
        if image.width() > 0 && image.height() > 0 && self.resize.target(image.dimensions())? == image.dimensions() {
            return Ok(Cow::Borrowed(image));
        }
        self.resize.apply(image).map(Cow::Owned)
    }

    /// Cuts the frame out of interleaved samples, with zeros outside the image.
    fn cropped(&self, data: &[u8], (image_width, image_height): (u32, u32), channels: usize) -> Vec<u8> {
        let [height, width] = self.frame_size();
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
