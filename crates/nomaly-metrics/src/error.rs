//! Errors of metrics.

/// Why a metric could not be computed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// Scores and labels do not pair up.
    #[error("{scores} scores but {labels} labels")]
    LengthMismatch {
        /// Number of scores.
        scores: usize,
        /// Number of labels.
        labels: usize,
    },
    /// There are no items.
    #[error("no scores")]
    Empty,
    /// A score is NaN.
    #[error("score {index} is not a number")]
    NanScore {
        /// Position of the first such score.
        index: usize,
    },
    /// The threshold is NaN.
    #[error("the threshold is not a number")]
    NanThreshold,
    /// All items (or pixels) belong to one class, so the figure is undefined.
    #[error("all {count} labels are {present}; the metric needs normal and anomalous ones")]
    OneClass {
        /// The only class: "normal" or "anomalous".
        present: &'static str,
        /// Number of labels.
        count: usize,
    },
    /// An anomaly map does not have the stated size.
    #[error("anomaly map {image} has {found} values, but {width}×{height} needs {expected}")]
    MapSize {
        /// The number of images pushed before this one.
        image: usize,
        /// Stated width in pixels.
        width: usize,
        /// Stated height in pixels.
        height: usize,
        /// `width * height`.
        expected: usize,
        /// Number of values given.
        found: usize,
    },
    /// A ground-truth mask does not have the size of its anomaly map.
    #[error("mask {image} has {found} pixels, but its {width}×{height} anomaly map has {expected}")]
    MaskSize {
        /// The number of images pushed before this one.
        image: usize,
        /// Width of the map in pixels.
        width: usize,
        /// Height of the map in pixels.
        height: usize,
        /// `width * height`.
        expected: usize,
        /// Number of mask pixels given.
        found: usize,
    },
    /// An image has more pixels than a region's size can count (2³² − 1).
    #[error("a {width}×{height} image is too large; at most {} pixels are supported", u32::MAX)]
    ImageTooLarge {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// A value of an anomaly map is NaN.
    #[error("anomaly map {image} is not a number at x = {x}, y = {y}")]
    NanPixel {
        /// The number of images pushed before this one.
        image: usize,
        /// Column of the first such value.
        x: usize,
        /// Row of the first such value.
        y: usize,
    },
    /// The confidence level of an interval is not in (0, 1).
    #[error("the confidence level {level} is outside (0, 1)")]
    Level {
        /// The level given.
        level: f64,
    },
    /// Too few resamples for a bootstrap interval.
    #[error("{resamples} resamples are too few for a bootstrap interval; at least {needed} are needed")]
    Resamples {
        /// The number given.
        resamples: usize,
        /// The least number.
        needed: usize,
    },
    /// The false-positive rate up to which to integrate is not in (0, 1].
    #[error("the false-positive-rate limit {limit} is outside (0, 1]")]
    Limit {
        /// The limit given.
        limit: f64,
    },
}

/// Rejects labels of one class only.
pub(crate) fn both_classes(positives: usize, negatives: usize) -> Result<(), MetricError> {
    match (positives, negatives) {
        (0, 0) => Err(MetricError::Empty),
        (0, count) => Err(MetricError::OneClass { present: "normal", count }),
        (count, 0) => Err(MetricError::OneClass { present: "anomalous", count }),
        _ => Ok(()),
    }
}
