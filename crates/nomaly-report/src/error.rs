//! Errors of reports, pictures and files.

/// Why a report, a picture, an overlay or a file could not be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The score of an item is NaN, which cannot be ranked.
    #[error("the score of {id} is not a number")]
    NanScore {
        /// Identifier of the item.
        id: String,
    },
    /// The threshold is NaN.
    #[error("the threshold is not a number")]
    NanThreshold,
    /// A curve has different numbers of abscissae and ordinates.
    #[error("the {curve} has {fpr} false-positive rates for {rate} rates")]
    CurveLength {
        /// Name of the curve.
        curve: &'static str,
        /// Number of false-positive rates.
        fpr: usize,
        /// Number of rates that should belong to them.
        rate: usize,
    },
    /// A rate or an area of a curve is not in [0, 1].
    #[error("the {curve} has a {what} of {value}, which is not between 0 and 1")]
    CurveValue {
        /// Name of the curve.
        curve: &'static str,
        /// The quantity.
        what: &'static str,
        /// The value.
        value: f64,
    },
    /// The false-positive rates of a curve do not ascend.
    #[error("the {curve} goes back from the false-positive rate {before} to {after}")]
    CurveOrder {
        /// Name of the curve.
        curve: &'static str,
        /// The higher rate.
        before: f64,
        /// The lower rate that follows it.
        after: f64,
    },
    /// A picture has no pixels.
    #[error("a {width}×{height} picture has no pixels")]
    EmptyPicture {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// A picture could not be encoded.
    #[error("cannot encode a picture")]
    Encode(#[from] image::ImageError),
    /// An anomaly map is too large for a TIFF file with 32-bit offsets.
    #[error("an anomaly map of {width}×{height} passes the 4 GiB of a TIFF file")]
    TiffSize {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// An anomaly map does not have the stated size.
    #[error("an anomaly map has {found} values, but {width}×{height} needs {expected}")]
    MapSize {
        /// Stated width in pixels.
        width: usize,
        /// Stated height in pixels.
        height: usize,
        /// `width * height`.
        expected: usize,
        /// Number of values given.
        found: usize,
    },
    /// A value of an anomaly map is NaN.
    #[error("an anomaly map is not a number at x = {x}, y = {y}")]
    NanPixel {
        /// Column of the first such value.
        x: usize,
        /// Row of the first such value.
        y: usize,
    },
    /// The ends of a value range are not two finite numbers in ascending order.
    #[error("the value range {low} to {high} is not ascending and finite")]
    ValueRange {
        /// Lower end.
        low: f32,
        /// Upper end.
        high: f32,
    },
}
