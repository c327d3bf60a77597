//! What can go wrong, by whose fault it is.

use std::path::PathBuf;

use nomaly_backbones::BackboneError;
use nomaly_backbones::explain::ExplainError;
use nomaly_backbones::trainable::TrainableError;
use nomaly_data::DataError;
use nomaly_registry::UnknownName;
use nomaly_scorers::ScorerError;
use nomaly_store::StoreError;
use nomaly_transforms::TransformError;

use crate::Skipped;

/// Why a detector could not be made, fitted, used, saved or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetectorError {
    /// A name that nothing of its kind has.
    #[error(transparent)]
    Unknown(#[from] UnknownName),
    /// A setting without the form `KEY=VALUE`.
    #[error("setting `{given}` is not of the form KEY=VALUE")]
    SettingSyntax {
        /// What was given.
        given: String,
    },
    /// A setting that was given twice.
    #[error("setting `{name}` is given twice")]
    SettingTwice {
        /// Its name.
        name: String,
    },
    /// A setting whose value is not allowed.
    #[error("setting `{name}` is `{given}`; it takes {allowed}")]
    SettingValue {
        /// Its name.
        name: String,
        /// The value that was given.
        given: String,
        /// What is allowed, in words.
        allowed: String,
    },
    /// Fewer usable training images than the method needs.
    #[error("{method} needs at least {needed} usable training images, and there {} {found}", if *found == 1 { "is" } else { "are" })]
    TooFewImages {
        /// The method.
        method: String,
        /// How many it needs.
        needed: usize,
        /// How many could be used.
        found: usize,
    },
    /// Fewer usable rows than a fit needs.
    #[error("{scorer} needs at least {needed} usable rows, and there {} {found}", if *found == 1 { "is" } else { "are" })]
    TooFewRows {
        /// The scorer.
        scorer: String,
        /// How many it needs.
        needed: usize,
        /// How many could be used.
        found: usize,
    },
    /// A class that cannot be learned.
    #[error("class `{class}`: {reason}")]
    Class {
        /// Its name.
        class: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Rows without labels, where classes are to be learned.
    #[error("classes cannot be learned from rows without labels")]
    NoLabels,
    /// A model that knows no classes, where they are asked for.
    #[error("the model knows no classes")]
    NoClasses,
    /// A table whose columns are not those that were fitted.
    #[error("{table}: {reason}")]
    Columns {
        /// The table.
        table: String,
        /// What disagrees.
        reason: String,
    },
    /// A bad image or row where bad images end the run.
    #[error("{}", skipped.message)]
    BadImage {
        /// The image, and what is wrong with it.
        skipped: Skipped,
    },
    /// A joined network of which the method takes no features.
    #[error(
        "method {method} does not look at {network} of {backbone}, but at {taps}: name a level of each if it takes several, or leave that network out"
    )]
    UnusedNetwork {
        /// The method.
        method: String,
        /// The network.
        network: &'static str,
        /// The joined backbone.
        backbone: String,
        /// What the method looks at.
        taps: String,
    },
    /// A method that stands on one backbone only, and another one.
    #[error("method {method} stands on the backbone {only} only, not on {given}")]
    OtherBackbone {
        /// The method.
        method: &'static str,
        /// Its backbone.
        only: &'static str,
        /// The one that was named.
        given: String,
    },
    /// The user asked to stop.
    #[error("interrupted; nothing was written")]
    Cancelled,
    /// A model file that is damaged, hostile or from another version.
    #[error("{}: {reason}", path.display())]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Features whose shape is not the one that was fitted.
    #[error("features of `{tap}` have {found} values an image, and the method was fitted on {expected}")]
    FeatureShape {
        /// The tap.
        tap: String,
        /// What was fitted.
        expected: usize,
        /// What came.
        found: usize,
    },
    /// A model that cannot be written down.
    #[error("the model cannot be encoded: {reason}")]
    Encode {
        /// Why not.
        reason: String,
    },
    /// A model file without the numbers of one of its parts.
    #[error("the state of `{name}` is missing")]
    MissingState {
        /// The part.
        name: String,
    },
    /// An anomaly map that has not a value for every pixel, or more than 2³² − 1.
    #[error("{values} values are not a map of {width}×{height} pixels")]
    MapShape {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// How many values there are.
        values: usize,
    },
    /// A value of an anomaly map that is not finite.
    #[error("the anomaly map is {value} at column {x} of row {y}, expected a finite number")]
    MapValue {
        /// The column.
        x: usize,
        /// The row.
        y: usize,
        /// The value.
        value: f32,
    },
    /// A threshold for anomaly maps that is no number.
    #[error("the threshold of the anomaly map is {value}, expected a number")]
    MapThreshold {
        /// The value given.
        value: f64,
    },
    /// A stored number or table of a method that does not fit its settings.
    #[error("the state of `{state}` is damaged: {reason}")]
    State {
        /// The part.
        state: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A model whose method cannot take in more images.
    #[error("a model of {method} cannot be extended: fit again on all images")]
    NotExtendable {
        /// The method.
        method: String,
    },
    /// More memory than the settings allow.
    #[error("{method} needs {needed} of memory here, and max_memory is {allowed}; {hint}")]
    Memory {
        /// The method.
        method: String,
        /// What it needs, with a unit.
        needed: String,
        /// What it may take, with a unit.
        allowed: String,
        /// What would help.
        hint: String,
    },
    /// No method fits in the time allowed.
    #[error("no method learns from {images} images in {seconds} s: {estimates}")]
    TimeBudget {
        /// The time allowed.
        seconds: f64,
        /// The images.
        images: usize,
        /// What the methods would take, in words.
        estimates: String,
    },
    /// A region of interest that cannot be used.
    #[error("region of interest {}: {reason}", path.display())]
    RegionOfInterest {
        /// The image file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An instruction set that was forced and is not there.
    #[error(transparent)]
    Isa(#[from] nomaly_kernels::IsaError),
    /// A search for neighbours was refused.
    #[error(transparent)]
    Neighbours(#[from] nomaly_kernels::neighbours::NeighboursError),
    /// A selection of representative rows was refused.
    #[error(transparent)]
    Coreset(#[from] nomaly_kernels::coreset::CoresetError),
    /// Statistics of positions were refused.
    #[error(transparent)]
    Linalg(#[from] nomaly_kernels::linalg::LinalgError),
    /// A filter was refused.
    #[error(transparent)]
    Filter(#[from] nomaly_kernels::filter::FilterError),
    /// A change of size was refused.
    #[error(transparent)]
    Resample(#[from] nomaly_kernels::resample::ResampleError),
    /// A loss that is no finite number.
    #[error(
        "the loss is not a finite number in epoch {epoch} (step {step}): the training diverged; try a smaller `rate`"
    )]
    Diverged {
        /// The epoch, from 1.
        epoch: usize,
        /// The step of the training, from 0.
        step: u64,
    },
    /// A checkpoint that cannot be used.
    #[error("checkpoint {}: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A network in training failed.
    #[error(transparent)]
    Training(#[from] TrainableError),
    /// The network cannot be explained.
    #[error(transparent)]
    Explain(Box<ExplainError>),
    /// A method without a network, where a network is to be explained.
    #[error("method {method} looks at pixels, and there is no network to explain")]
    NoNetwork {
        /// The method.
        method: String,
    },
    /// The backbone failed.
    #[error(transparent)]
    Backbone(Box<BackboneError>),
    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A scorer failed.
    #[error(transparent)]
    Scorer(ScorerError),
    /// A file could not be written or fetched.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The preprocessing is not valid.
    #[error(transparent)]
    Transform(#[from] TransformError),
}

impl From<ScorerError> for DetectorError {
    fn from(error: ScorerError) -> Self {
        match error {
            ScorerError::Cancelled => Self::Cancelled,
            error => Self::Scorer(error),
        }
    }
}

impl DetectorError {
    pub(crate) fn setting(name: &str, given: &str, allowed: &str) -> Self {
        Self::SettingValue { name: name.to_owned(), given: given.to_owned(), allowed: allowed.to_owned() }
    }
}

impl From<ExplainError> for DetectorError {
    fn from(error: ExplainError) -> Self {
        Self::Explain(Box::new(error))
    }
}

impl From<BackboneError> for DetectorError {
    fn from(error: BackboneError) -> Self {
        Self::Backbone(Box::new(error))
    }
}
