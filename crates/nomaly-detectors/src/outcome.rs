//! Results of scored and held-out images.

use image::RgbImage;
use nomaly_data::Sample;
use nomaly_methods::{AnomalyMap, Skipped};
use serde::Serialize;

use crate::classes::Recognition;
use crate::shift::{InputShift, Look};

/// The result for an image or a row of a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The anomaly score, *higher = more anomalous*; its scale belongs to the method.
    pub score: f64,
    /// The standard deviation of the score over passes with dropout, for methods that make several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deviation: Option<f64>,
    /// The conformal p-value in (0, 1]: the share of held-out normal images that score at least as high.
    pub p_value: f64,
    /// The decision; `None` without a threshold.
    pub anomalous: Option<bool>,
    /// How the image differs from the training images apart from defects: exposure, size, sharpness, storage. `None`
    /// without a shift, and for models without a [profile](crate::FittedDetector::input_profile). The false-alarm rate
    /// only holds for images without a shift.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_shift: Option<InputShift>,
    /// Scores of its parts, in the order of [`part_names`](crate::FittedDetector::part_names); for models of classes,
    /// the scores under each class.
    #[serde(skip)]
    pub parts: Vec<f64>,
    /// The contribution of each [term](crate::FittedDetector::term_names), for methods whose score is a sum.
    #[serde(skip)]
    pub terms: Vec<f64>,
    /// The predicted class, for models of [classes](crate::Fitted::classes). An unknown image is `anomalous`; there is
    /// no decision if the closest class has no threshold; the p-value refers to the held-out images of the closest
    /// class.
    #[serde(skip)]
    pub recognition: Option<Recognition>,
    /// The anomaly map of the [frame](nomaly_transforms::Pipeline::frame_size), for methods that make maps.
    /// [`map_on_image`](crate::FittedDetector::map_on_image) maps it to the image.
    #[serde(skip)]
    pub map: Option<AnomalyMap>,
}

/// One image of a run over many.
pub struct Outcome<'a> {
    /// The image.
    pub sample: &'a Sample,
    /// The number of its batch.
    pub batch: usize,
    /// The prediction, or why there is none.
    pub result: Result<Prediction, Skipped>,
    /// Width and height of the image in pixels, if decoded.
    pub size: Option<(u32, u32)>,
    /// A small version of the decoded image, if [`preview`](crate::StreamOptions::preview) requests it.
    pub preview: Option<RgbImage>,
    /// How the image looks, if decoded.
    pub look: Option<Look>,
}

/// The score of a training image by a fit without its group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeldOutImage {
    /// Its index among the samples of the fit.
    pub sample: usize,
    /// The number of its group.
    pub group: u32,
    /// Its score, *higher = more anomalous*.
    pub score: f64,
}
