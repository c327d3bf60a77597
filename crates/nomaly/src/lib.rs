//! Visual anomaly detection: learn what normal looks like from images of good items, and find what is not.
//!
//! [`Fit`] learns from images of good items and gives a [`FittedDetector`], which is one file: it holds everything that
//! scoring needs, and scores anywhere, offline. A [`Session`] of it gives every further image a score (*higher = more
//! anomalous*), a p-value and a decision with a controlled rate of false alarms.
//!
//! ```
//! use nomaly::params::{InputParams, MvgParams};
//! use nomaly::settings::Auto;
//! use nomaly::{Fit, FittedDetector, SessionOptions, data};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("part.nomaly");
//! // Embedded photographs of a texture; in earnest it is `Fit::of("folder/of/good/images")`.
//! let images = data::demo("brick", 0)?;
//! let unseen = images.test[0].source.load(&nomaly::Limits::default())?;
//!
//! // The default backbone has its weights in the library: nothing is downloaded. Small images, to be quick.
//! let input = InputParams { input_size: Auto::Value(64), ..InputParams::default() };
//! let fit = Fit::of_dataset(images).method(&MvgParams::default()).input(&input).max_fpr(0.05).run()?;
//! fit.save(&path)?;
//!
//! let mut session = FittedDetector::load(&path)?.session(SessionOptions::default())?;
//! let verdict = session.score(&unseen)?;
//! println!("{} p = {} anomalous: {:?}", verdict.score, verdict.p_value, verdict.anomalous);
//! # Ok(())
//! # }
//! ```
//!
//! # Where to look
//!
//! | what | where |
//! |---|---|
//! | fit | [`Fit`], [`params`], [`settings`]; [`Detector`] for each step by hand |
//! | fit on several machines | [`shards`] |
//! | score | [`Session`] for images as they come, [`FittedDetector::predict`] for many |
//! | decide | [`DecisionRule`], [`Calibration`], [`calibration`], [`groups`](GroupBy) |
//! | locate and explain | [`AnomalyMap`], [`regions`], [`explain`] |
//! | what changed at the camera | [`shift`] |
//! | tables and classes | [`rows`], [`classes`] |
//! | measure | [`evaluation`], [`metrics`] |
//! | data sets | [`data`], [`transforms`] |
//! | networks | [`backbones`], [`kernels`] |
//! | records and schemas | [`wire`] |
//! | extend | [`methods`], [`scorers`], [`registry`] |
//!
//! # Threads and determinism
//! Work runs on rayon's current thread pool. The same images, settings and seed give the same bytes whatever the number
//! of threads.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod fit;

pub use fit::Fit;
pub use nomaly_data::{Dataset, Label, Sample};
pub use nomaly_detectors::{
    AUTO, Calibration, Chosen, DEFAULT_BACKBONE, Decider, DecisionRule, Detector, DetectorError, FitOptions, FitResult,
    Fitted, FittedDetector, Outcome, PredictOptions, Prediction, Recipe, Session, SessionOptions, StreamOptions,
    Verdict,
};
pub use nomaly_methods::{AnomalyMap, ErrorKind, GroupBy, Skipped};
pub use nomaly_settings::Assignments;
pub use nomaly_transforms::Limits;

pub mod params {
    //! The parameters of each method, and of the input.

    pub use nomaly_methods::methods::adacl::AdaclParams;
    pub use nomaly_methods::methods::cutpaste::CutPasteParams;
    pub use nomaly_methods::methods::dn2::Dn2Params;
    pub use nomaly_methods::methods::features::FeaturesParams;
    pub use nomaly_methods::methods::geotrans::GeoTransParams;
    pub use nomaly_methods::methods::mvg::MvgParams;
    pub use nomaly_methods::methods::open_set::OpenSetMethodParams;
    pub use nomaly_methods::methods::padim::PadimParams;
    pub use nomaly_methods::methods::patch_model::PatchModelParams;
    pub use nomaly_methods::methods::patchcore::PatchCoreParams;
    pub use nomaly_methods::methods::spade::SpadeParams;
    pub use nomaly_methods::{InputParams, MethodParams};
}

pub mod settings {
    //! Settings as data: what can be set, and what was.

    pub use nomaly_settings::{Assignments, Auto, Memory, Names, Setting, SettingError, Settings, Table};
}

pub mod calibration {
    //! From held-out scores to a rate of false alarms.

    pub use nomaly_detectors::auto::{FEW_GROUPS, choose_method};
    pub use nomaly_detectors::calibration::{DEFAULT_MAX_FPR, is_rate, scores_for};
    pub use nomaly_detectors::info::DecisionHistory;
    pub use nomaly_detectors::suspicion::{Suspicious, naming_level, suspicious};
    pub use nomaly_methods::groups::{GroupInfo, Groups};
}

pub mod model_file {
    //! What is in a model file.

    pub use nomaly_detectors::info::{ModelInfo, RowsInfo};
    pub use nomaly_detectors::model_file::{AnySummary, Summary, read_any_summary, stored_classes};
}

pub mod shards {
    //! Fits that are divided over processes or machines.

    pub use nomaly_detectors::partial::{Absorbed, MergeOptions, Merged, Shard, merge};
}

pub mod regions {
    //! Anomalous regions of a map.

    pub use nomaly_detectors::regions::{RegionOptions, Regions};
    pub use nomaly_wire::Region;
}

pub mod explain {
    //! What a network looks at.

    pub use nomaly_backbones::explain::Importance;
    pub use nomaly_detectors::explain::{Explained, Explainer, Explains, ImageExplanation, importance_mask};
}

pub mod shift {
    //! Images that differ from the training images in what is no defect.

    pub use nomaly_detectors::shift::{
        Finding, InputProfile, InputShift, Look, RunShift, RunWatch, ShiftKind, Statistic,
    };
}

pub mod rows {
    //! Scorers on tables without images.

    pub use nomaly_data::tables::{ReadOptions, Table, is_table, read};
    pub use nomaly_detectors::rows::{
        ClassRowParams, FittedRows, ForRows, RowDetector, RowFitOptions, RowOutcome, RowParams, RowPredictOptions,
    };
}

pub mod classes {
    //! Models that tell classes of good items apart.

    pub use nomaly_detectors::classes::{Classes, Recognition};
    pub use nomaly_methods::recognition::{KnownClass, UNKNOWN, check_name};
}

pub mod evaluation {
    //! How good a model is on labeled items.

    pub use nomaly_evaluation::hybrid::{Hybrid, Voice, hybrid};
    pub use nomaly_evaluation::protocol;
    pub use nomaly_evaluation::recognition::{evaluate_classes, evaluate_row_classes};
    pub use nomaly_evaluation::rows::{evaluate_rows, is_anomalous_label};
    pub use nomaly_evaluation::supervised::{reference_of_images, reference_of_rows};
    pub use nomaly_evaluation::{
        Evaluated, EvaluationError, LabelledPrediction, PRO_LIMIT, evaluate, evaluate_grouped,
    };
}

pub mod metrics {
    //! Figures of rankings and of decisions.

    pub use nomaly_metrics::registry::{Better, METRICS, MetricEntry};
    pub use nomaly_metrics::{PixelMetrics, auroc, average_precision, eer, f1_max};
}

pub mod data {
    //! Data sets: folders, MVTec layout, named sets.

    pub use nomaly_data::demo::{TEXTURE, dataset as demo};
    pub use nomaly_data::subset::{Choice, choose};
    pub use nomaly_data::{
        Availability, DATASETS, DataError, DatasetEntry, ImageSource, MaskSource, get, images_under, open,
        open_classes, with_option,
    };
}

pub mod transforms {
    //! Preprocessing, and what makes images of images.

    pub use nomaly_transforms::augment::Changes;
    pub use nomaly_transforms::decode::image_format;
    pub use nomaly_transforms::registry::{TRANSFORMS, TransformEntry};
    pub use nomaly_transforms::samples::TEXTURES;
    pub use nomaly_transforms::statistics::ImageStatistics;
    pub use nomaly_transforms::{Pipeline, decode_bytes, decode_file, scaled_preview};
}

pub mod backbones {
    //! Networks with feature taps, and their weights.

    pub use nomaly_backbones::registry::{BACKBONES, BackboneEntry};
    pub use nomaly_backbones::{
        Backbone, BackboneError, OpenOptions, OutputLayout, TapInfo, TapRequest, cache, tap_infos, weights,
    };
}

pub mod kernels {
    //! What the numeric core says of itself, and can be timed by.

    pub use nomaly_backbones::kernels::network::{
        Activation, CompiledNetwork, ConvLayer, NetworkBuilder, NetworkError, OutputLayout, Padding, StepInfo,
    };
    pub use nomaly_backbones::kernels::{Isa, peak};
}

pub mod methods {
    //! What a method is: to list them, and to write another.

    pub use nomaly_methods::training::Checkpoint;
    pub use nomaly_methods::{
        Cost, FeatureBatch, FeatureSource, FitContext, FittedMethod, HeldOut, METHODS, Method, MethodEntry,
        MethodError, MethodFit, MethodScore, MethodWorkspace, Published,
    };
}

pub mod scorers {
    //! Scorers for rows of numbers, and control charts.

    pub use nomaly_scorers::decision::sequence::{ChartKind, ChartOptions, ControlChart, Monitor, Reading};
    pub use nomaly_scorers::{SCORERS, Scorer, ScorerEntry, ScorerError, ScorerParams, State, Watch};
}

pub mod registry {
    //! How units are listed and found by name.

    pub use nomaly_registry::{Entry, Registry, UnknownName};
}

pub mod store {
    //! Files, and the progress of long work.

    pub use nomaly_store::{
        Progress, Silent, StoreError, check_writable, create_folder, home, sha256, sha256_file, write_atomic,
    };
}

pub mod wire {
    //! The records that leave a program, with their schemas.

    pub use nomaly_wire::{
        ChartRecord, ClassThreshold, Ends, Evaluation, HybridFigures, ImageFigures, ImageRecord, InspectRecord,
        ModelRecord, PValueShare, PixelFigures, Ranking, RecognitionEvaluation, Record, RecordError, RowRecord, Shift,
        SupervisedReference, ThresholdFigures, VERSION,
    };
}
