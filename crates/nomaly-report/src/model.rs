//! The contents of a report.

use crate::contour::Contour;
use crate::overlay::ValueRange;
use crate::picture::Picture;

/// The contents of a report. Every part may be empty; its section is then omitted.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Heading of the page.
    pub title: String,
    /// One line below the heading.
    pub subtitle: String,
    /// Notes at the top of the page: "the defects are synthetic".
    pub notes: Vec<String>,
    /// Names and values: method, backbone, number of images, time.
    pub summary: Vec<(String, String)>,
    /// Headline figures.
    pub figures: Vec<Figure>,
    /// The decision rule, if any.
    pub threshold: Option<Threshold>,
    /// Curves of the anomaly maps against ground-truth masks, if any.
    pub pixel: Option<MapCurves>,
    /// Figures by kind of image.
    pub by_kind: Vec<KindRow>,
    /// The images, in any order.
    pub items: Vec<Item>,
    /// The values at the ends of the overlays' colour scale.
    pub map_range: Option<ValueRange>,
    /// The layer of Grad-CAM, if the overlays are Grad-CAM maps instead of anomaly maps.
    pub explained_at: Option<String>,
    /// Files that could not be scored.
    pub skipped: Vec<SkippedFile>,
}

/// A headline figure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figure {
    /// Name: "AUROC".
    pub name: String,
    /// Formatted value: "0.987".
    pub value: String,
    /// Its meaning, in one sentence.
    pub meaning: String,
}

/// A decision rule: an item is anomalous if its score is higher than `value`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Threshold {
    /// The score that anomalous items exceed.
    pub value: f64,
    /// How the value was chosen: "conformal, 200 held-out images".
    pub rule: String,
    /// The false-positive rate that the rule promises, in [0, 1].
    pub max_fpr: Option<f64>,
}

/// Curves over the pixels of all images with ground truth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MapCurves {
    /// True-positive rate of the pixels over their false-positive rate, with the AUROC as its area.
    pub roc: PixelCurve,
    /// Per-region overlap (PRO), the share of each defect that is covered, averaged over the defects, over the
    /// false-positive rate of the pixels; its area is the AUPRO: the area up to `max_fpr`, divided by `max_fpr`.
    pub pro: PixelCurve,
    /// The false-positive rate, in (0, 1], up to which the AUPRO integrates; 0.3 by convention.
    pub max_fpr: f64,
}

/// The points of a curve over the false-positive rate, and its area. A few hundred points draw it well; a curve without
/// points is left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PixelCurve {
    /// False-positive rates in [0, 1], ascending.
    pub fpr: Vec<f64>,
    /// The corresponding rates in [0, 1].
    pub rate: Vec<f64>,
    /// The area, in [0, 1].
    pub area: f64,
}

/// Figures of one kind of image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KindRow {
    /// Name of the kind: "good", "scratch".
    pub kind: String,
    /// Number of images of this kind.
    pub n: usize,
    /// AUROC of this kind against the normal images; `None` for normal kinds.
    pub auroc: Option<f64>,
    /// AUROC of the pixels of this kind; the column is omitted if no kind has one.
    pub pixel_auroc: Option<f64>,
    /// AUPRO of this kind; the column is omitted if no kind has one.
    pub aupro: Option<f64>,
    /// The number of images flagged as anomalous.
    pub flagged: usize,
}

/// One image and its result.
#[derive(Clone, Debug, Default)]
pub struct Item {
    /// The identifier of the image: its path.
    pub id: String,
    /// Kind of image, if known: "good", "scratch".
    pub kind: Option<String>,
    /// The ground truth, if known: `true` = anomalous.
    pub label: Option<bool>,
    /// Anomaly score: higher = more anomalous. Infinite is allowed, NaN is not.
    pub score: f64,
    /// Chance that a normal image scores at least as high, in (0, 1].
    pub p_value: Option<f64>,
    /// The decision.
    pub decision: Decision,
    /// Width and height of the image in pixels, which `regions` refer to.
    pub size: Option<(u32, u32)>,
    /// The image.
    pub thumbnail: Option<Picture>,
    /// The anomaly map or the Grad-CAM map over the image.
    pub overlay: Option<Picture>,
    /// The ground-truth mask.
    pub mask: Option<Picture>,
    /// The regions of the anomaly map, in any order. They are drawn as boxes if `size` is known and `found` does not
    /// have their shapes.
    pub regions: Vec<RegionBox>,
    /// Outlines of the predicted mask, drawn over the pictures.
    pub found: Option<Contour>,
    /// Outlines of the ground-truth mask, drawn over the pictures.
    pub truth: Option<Contour>,
    /// How the image differs from the training images other than by defects, so that its decision is not reliable.
    pub shift: Option<String>,
}

/// The decision on an item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decision {
    /// The threshold of the report decides; without one there is no decision.
    #[default]
    ByThreshold,
    /// It is anomalous.
    Anomalous,
    /// It is normal.
    Normal,
    /// The model could not decide; the page shows that.
    Undecided,
}

impl From<Option<bool>> for Decision {
    /// Whether the item is anomalous; `None` if the model could not decide.
    fn from(anomalous: Option<bool>) -> Self {
        match anomalous {
            Some(true) => Self::Anomalous,
            Some(false) => Self::Normal,
            None => Self::Undecided,
        }
    }
}

/// A connected region of an anomaly map above its threshold, in pixels of the image.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RegionBox {
    /// Leftmost column.
    pub x: u32,
    /// Topmost row.
    pub y: u32,
    /// Number of columns.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
    /// Number of pixels that belong to the region.
    pub area: u64,
    /// Highest value of the anomaly map in the region.
    pub peak: f32,
}

/// A file that could not be scored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SkippedFile {
    /// Its path.
    pub path: String,
    /// The reason.
    pub reason: String,
}

impl Item {
    /// Whether it is anomalous, by its own decision or by `threshold`; `None` without a decision.
    pub fn anomalous(&self, threshold: Option<&Threshold>) -> Option<bool> {
        match self.decision {
            Decision::Anomalous => Some(true),
            Decision::Normal => Some(false),
            Decision::Undecided => None,
            Decision::ByThreshold => threshold.map(|threshold| self.score > threshold.value || self.score.is_nan()),
        }
    }
}
