//! What is said of images: of those that are scored, and of those that were held out.

use image::RgbImage;
use nomaly_data::Sample;
use nomaly_methods::{AnomalyMap, Skipped};
use serde::Serialize;

use crate::classes::Recognition;
use crate::shift::{InputShift, Look};

/// What a fitted detector says of an image, or of a row of a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The anomaly score, *higher = more anomalous*; its scale belongs to the method.
    pub score: f64,
    /// An error bar: the standard deviation of the score over the passes of a network with dropout, for methods that
    /// make several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deviation: Option<f64>,
    /// The conformal p-value in (0, 1]: the share of held-out normal images that score at least as high.
    pub p_value: f64,
    /// The decision; `None` where the model has no threshold to decide by.
    pub anomalous: Option<bool>,
    /// How the image differs from the training images in what is no defect: exposure, size, sharpness, storage. `None`
    /// where it does not, and for models that keep no [profile](crate::FittedDetector::input_profile). The rate of
    /// false alarms is promised for images without a shift.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_shift: Option<InputShift>,
    /// Scores of the parts that the score is made of, in the order of
    /// [`part_names`](crate::FittedDetector::part_names); for models of classes those under each class.
    #[serde(skip)]
    pub parts: Vec<f64>,
    /// What each of the [terms](crate::FittedDetector::term_names) adds to the score, for methods whose score is a sum.
    #[serde(skip)]
    pub terms: Vec<f64>,
    /// Which class the image was taken for, by models of [classes](crate::Fitted::classes). It is
    /// `anomalous` where it is unknown, nothing is decided where that class has no threshold, and the p-value is that
    /// among the held-out images of the closest class.
    #[serde(skip)]
    pub recognition: Option<Recognition>,
    /// How anomalous each pixel is of what the network sees, for methods that locate: a map of the
    /// [frame](nomaly_transforms::Pipeline::frame_size). [`map_on_image`](crate::FittedDetector::map_on_image) lays it
    /// over the image.
    #[serde(skip)]
    pub map: Option<AnomalyMap>,
}

/// One image of a run over many.
pub struct Outcome<'a> {
    /// The image.
    pub sample: &'a Sample,
    /// The number of the batch it was in.
    pub batch: usize,
    /// What the detector says, or why it cannot.
    pub result: Result<Prediction, Skipped>,
    /// Width and height of the image in pixels, where it could be decoded.
    pub size: Option<(u32, u32)>,
    /// A small version of the decoded image, where [`preview`](crate::StreamOptions::preview) asks for one.
    pub preview: Option<RgbImage>,
    /// How the image looks, where it could be decoded.
    pub look: Option<Look>,
}

/// What a training image got from a fit that had seen neither it nor any other image of its group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeldOutImage {
    /// Its place among the samples that were fitted on.
    pub sample: usize,
    /// The number of its group.
    pub group: u32,
    /// Its score, *higher = more anomalous*.
    pub score: f64,
}
