//! Errors: those of image files, and those of transforms.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use nomaly_registry::UnknownName;
use thiserror::Error;

use crate::limits::{MAX_SIDE, MAX_TILES};

/// An image that could not be decoded: the file and its fault.
#[derive(Debug)]
pub struct DecodeError {
    /// The file, if the bytes came from one.
    pub path: Option<PathBuf>,
    /// What is wrong.
    pub fault: Fault,
}

impl DecodeError {
    pub(crate) fn at(path: &Path, fault: Fault) -> Self {
        Self { path: Some(path.to_owned()), fault }
    }

    /// A short stable name of the kind of fault, for machine-readable output; see [`Fault::kind`].
    pub fn kind(&self) -> &'static str {
        self.fault.kind()
    }
}

impl From<Fault> for DecodeError {
    fn from(fault: Fault) -> Self {
        Self { path: None, fault }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}: {}", path.display(), self.fault),
            None => self.fault.fmt(f),
        }
    }
}

impl std::error::Error for DecodeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.fault)
    }
}

/// Why an image could not be decoded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Fault {
    /// There is no such file.
    #[error("file not found")]
    NotFound,
    /// The file exists but cannot be read (permission, input/output error).
    #[error("cannot read the file")]
    Unreadable {
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The path names a directory, a device or a pipe.
    #[error("not a regular file")]
    NotAFile,
    /// There are no bytes.
    #[error("the file is empty")]
    Empty,
    /// The bytes are not an image.
    #[error("not an image: it seems to be {seems}")]
    NotAnImage {
        /// What they look like, with an article: "a text file".
        seems: &'static str,
    },
    /// An image in a format that is not decoded.
    #[error("{format} images are not supported; use JPEG, PNG, BMP, TIFF or WebP")]
    UnsupportedFormat {
        /// The format.
        format: &'static str,
    },
    /// An image in a known format that uses a feature which is not decoded.
    #[error("unsupported kind of {format}: {feature}")]
    Unsupported {
        /// The format.
        format: &'static str,
        /// What the decoder said about the feature.
        feature: String,
    },
    /// The data end before the image does.
    #[error("truncated {format}: the file ends before the image does")]
    Truncated {
        /// The format.
        format: &'static str,
    },
    /// The data contradict the format.
    #[error("corrupt {format}: {reason}")]
    Corrupt {
        /// The format.
        format: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// The image has no pixels.
    #[error("the image has no pixels ({width}×{height})")]
    ZeroSize {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The header announces more pixels than [`Limits::max_pixels`](crate::Limits::max_pixels).
    #[error("too large: {width}×{height} is {} pixels, the limit is {limit}", u64::from(*width) * u64::from(*height))]
    TooManyPixels {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The limit, in pixels.
        limit: u64,
    },
    /// The file or its decoding takes more memory than [`Limits::max_bytes`](crate::Limits::max_bytes).
    #[error("too large: {what} takes {needed} bytes, the limit is {limit}")]
    TooManyBytes {
        /// What takes so much: "the file", "decoding".
        what: &'static str,
        /// The bytes it takes, at least.
        needed: u64,
        /// The limit, in bytes.
        limit: u64,
    },
}

impl Fault {
    /// A short stable name of the kind of fault, for machine-readable output: `not-found`, `unreadable`, `not-a-file`,
    /// `empty`, `not-an-image`, `unsupported`, `truncated`, `corrupt`, `zero-size` or `too-large`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::Unreadable { .. } => "unreadable",
            Self::NotAFile => "not-a-file",
            Self::Empty => "empty",
            Self::NotAnImage { .. } => "not-an-image",
            Self::UnsupportedFormat { .. } | Self::Unsupported { .. } => "unsupported",
            Self::Truncated { .. } => "truncated",
            Self::Corrupt { .. } => "corrupt",
            Self::ZeroSize { .. } => "zero-size",
            Self::TooManyPixels { .. } | Self::TooManyBytes { .. } => "too-large",
        }
    }
}

/// A transform that is invalid or cannot be applied to an image.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum TransformError {
    /// A side length outside 1..=[`MAX_SIDE`](crate::MAX_SIDE).
    #[error("{what} is {value}, expected 1 to {}", MAX_SIDE)]
    Side {
        /// Which side: "resize height".
        what: &'static str,
        /// The value given, in pixels.
        value: u32,
    },
    /// A mean that is not finite, or a standard deviation that is not finite and positive.
    #[error("normalisation {what} of channel {channel} is {value}, expected a finite number{}", if *what == "std" { " above zero" } else { "" })]
    Normalization {
        /// `mean` or `std`.
        what: &'static str,
        /// The channel: 0 red, 1 green, 2 blue.
        channel: usize,
        /// The value given.
        value: f32,
    },
    /// A short-side resize leaves the other side open, so that a crop has to fix the output size.
    #[error(
        "resizing the short side to {size} needs a centre crop, or images of different shapes would not fit a batch"
    )]
    OpenSize {
        /// The short side, in pixels.
        size: u32,
    },
    /// Images that may stay smaller than the frame, without a crop that pads them to its size.
    #[error(
        "images of at most {width}×{height} need a centre crop of that size, or smaller ones would not fit a batch"
    )]
    PaddedSize {
        /// Height, in pixels.
        height: u32,
        /// Width, in pixels.
        width: u32,
    },
    /// An image without pixels.
    #[error("the image has no pixels ({width}×{height})")]
    EmptyImage {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// A very long and thin image, which a short-side resize would enlarge too much.
    #[error("resizing {width}×{height} would make an image of {new_width}×{new_height}; the limit is {limit} pixels")]
    ResizedTooLarge {
        /// Width before, in pixels.
        width: u32,
        /// Height before, in pixels.
        height: u32,
        /// Width after, in pixels.
        new_width: u64,
        /// Height after, in pixels.
        new_height: u64,
        /// The limit, in pixels.
        limit: u64,
    },
    /// An output buffer of the wrong length.
    #[error("the output buffer holds {actual} values, the transform makes {expected}")]
    OutputLength {
        /// `views · 3 · height · width` of a pipeline's output, or the length of a transformation's input.
        expected: usize,
        /// The length of the buffer.
        actual: usize,
    },
    /// Rows or columns of tiles outside 1..=[`MAX_TILES`](crate::MAX_TILES).
    #[error("{value} {what} of tiles, expected 1 to {}", MAX_TILES)]
    Tiles {
        /// `rows` or `columns`.
        what: &'static str,
        /// The number given.
        value: u32,
    },
    /// Tiles that are larger than the frame.
    #[error("the tile's {what} of {tile} is larger than the frame's, which is {frame}")]
    TileTooLarge {
        /// `height` or `width`.
        what: &'static str,
        /// The tile's, in pixels.
        tile: u32,
        /// The frame's, in pixels.
        frame: usize,
    },
    /// Tiles that do not cover the frame.
    #[error("{count} tile{} of {what} {tile} do{} not cover the frame's {what} of {frame}", if *count == 1 { "" } else { "s" }, if *count == 1 { "es" } else { "" })]
    TilesTooFew {
        /// `height` or `width`.
        what: &'static str,
        /// The number of tiles along this axis.
        count: u32,
        /// The tile's side, in pixels.
        tile: u32,
        /// The frame's side, in pixels.
        frame: usize,
    },
    /// Views that have more pixels together than [`MAX_VIEW_PIXELS`](crate::MAX_VIEW_PIXELS).
    #[error(
        "{views} views of {height}×{width} pixels are more than the {limit} pixels that the views of one image may have"
    )]
    ViewsTooLarge {
        /// The number of views.
        views: usize,
        /// Height of each, in pixels.
        height: usize,
        /// Width of each, in pixels.
        width: usize,
        /// The limit, in pixels.
        limit: u64,
    },
    /// An invalid overlap of tiles.
    #[error("tiles cannot overlap by {value} of their side, expected 0 or more and less than 0.9")]
    Overlap {
        /// The value given.
        value: f64,
    },
    /// Maps that do not match the views of one image.
    #[error("{actual} values are not the maps of {views} view{} of {height}×{width} pixels", if *views == 1 { "" } else { "s" })]
    MapsLength {
        /// The number of views per image.
        views: usize,
        /// Height of each, in pixels.
        height: usize,
        /// Width of each, in pixels.
        width: usize,
        /// The number of values.
        actual: usize,
    },
    /// A mask whose size differs from the frame's.
    #[error("the mask has {width}×{height} pixels and the frame {frame_width}×{frame_height}")]
    MaskSize {
        /// Width of the mask, in pixels.
        width: u32,
        /// Height of the mask, in pixels.
        height: u32,
        /// Width of the frame, in pixels.
        frame_width: usize,
        /// Height of the frame, in pixels.
        frame_height: usize,
    },
    /// An image whose size differs from the pipeline's frame.
    #[error("the image has {width}×{height} pixels and the frame {frame_width}×{frame_height}")]
    FrameSize {
        /// Width of the image, in pixels.
        width: u32,
        /// Height of the image, in pixels.
        height: u32,
        /// Width of the frame, in pixels.
        frame_width: usize,
        /// Height of the frame, in pixels.
        frame_height: usize,
    },
    /// A name that no transformation, step or extra has.
    #[error(transparent)]
    UnknownName(#[from] UnknownName),
    /// A setting of a transformation that is missing, out of range or not a number.
    #[error("`{name}{}{value}`: expected {expected}", if value.is_empty() { "" } else { "=" })]
    Setting {
        /// The step or set.
        name: &'static str,
        /// The value as written; empty if missing.
        value: String,
        /// The allowed values.
        expected: &'static str,
    },
    /// The identity or a whole set in place of a step of a transformation.
    #[error("`{name}` cannot be a step of a transformation; sets stand before their extras, and the identity alone")]
    NotAStep {
        /// The name as written.
        name: String,
    },
    /// A transformation of too many steps.
    #[error("a transformation has at most {limit} steps")]
    TooManySteps {
        /// The limit.
        limit: usize,
    },
    /// A set of too many transformations.
    #[error("a set has at most {limit} transformations")]
    TooManyTransformations {
        /// The limit.
        limit: usize,
    },
    /// A duplicate transformation or extra in a set.
    #[error("`{name}` is given twice")]
    Twice {
        /// Its name.
        name: String,
    },
    /// Both kinds of histogram equalisation as extras of one set.
    #[error("`equalise` and `quantile` cannot both be extras: an equalised image does not change when it is equalised")]
    EqualizedTwice,
    /// A rotation that would swap height and width.
    #[error("`{step}` needs square images, not {width}×{height}")]
    NotSquare {
        /// The step.
        step: String,
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
    },
    /// An image so small that a step would not change it, or not by a whole pixel.
    #[error("images of {width}×{height} pixels are too small for `{step}`")]
    TooSmall {
        /// The step.
        step: String,
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
    },
    /// Planes of neither a grey nor a coloured image.
    #[error("{actual} planes are not an image, expected 1 or 3")]
    Channels {
        /// The number of planes.
        actual: usize,
    },
    /// Values that are not whole planes of an image.
    #[error("{actual} values are not planes of {width}×{height} pixels")]
    PlanesLength {
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
        /// The number of values.
        actual: usize,
    },
}
