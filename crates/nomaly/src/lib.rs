//! Visual anomaly detection: learn from images of good items, and find anomalies.
//!
//! [`Fit`] learns from images of good items and returns a [`FittedDetector`], saved as one file with everything that
//! scoring needs, offline. A [`Session`] gives every further image a score (*higher = more anomalous*), a p-value and a
//! decision with a controlled false-alarm rate.
//!
//! ```
//! use nomaly::params::{InputParams, MvgParams};
//! use nomaly::settings::Auto;
//! use nomaly::{Fit, FittedDetector, SessionOptions, data};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("part.nomaly");
//! // Embedded photographs of a texture. For your own images use `Fit::of("folder/of/good/images")`.
//! let images = data::demo("brick", 0)?;
//! let unseen = images.test[0].source.load(&nomaly::Limits::default())?;
//!
//! // The weights of the default backbone are embedded: nothing is downloaded. Small images are faster.
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
//! | networks | [`backbones`], [`devices`], [`kernels`] |
//! | records and schemas | [`wire`] |
//! | extend | [`methods`], [`training`], [`scorers`], [`registry`] |
//!
//! # Threads and determinism
//! Work runs on rayon's current thread pool. The same images, settings and seed give the same bytes for any number of
//! threads.
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
    //! Settings as data: definitions and given values.

    pub use nomaly_settings::{Assignments, Auto, Memory, Names, Setting, SettingError, Settings, SettingsTable};
}

pub mod calibration {
    //! Calibration: decisions with a controlled false-alarm rate.

    pub use nomaly_detectors::auto::{FEW_GROUPS, choose_method};
    pub use nomaly_detectors::calibration::{DEFAULT_MAX_FPR, is_rate, scores_for};
    pub use nomaly_detectors::info::DecisionHistory;
    pub use nomaly_detectors::suspicion::{Suspicious, naming_level, suspicious};
    pub use nomaly_methods::groups::{GroupInfo, Groups};
}

pub mod model_file {
    //! The content of model files.

    pub use nomaly_detectors::info::{ModelInfo, RowsInfo};
    pub use nomaly_detectors::model_file::{AnySummary, Summary, read_any_summary, stored_classes};
}

pub mod shards {
    //! Fits divided over processes or machines.

    pub use nomaly_detectors::partial::{Absorbed, MergeOptions, Merged, Shard, merge};
}

pub mod regions {
    //! Anomalous regions of a map.

    pub use nomaly_detectors::regions::{RegionOptions, Regions};
    pub use nomaly_wire::Region;
}

pub mod explain {
    //! Explanations of networks.

    pub use nomaly_backbones::explain::Importance;
    pub use nomaly_detectors::explain::{Explained, Explainer, Explains, ImageExplanation, importance_mask};
}

pub mod shift {
    //! Shifts of images against the training images, apart from defects.

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
    //! Models of classes of good items.

    pub use nomaly_detectors::classes::{Classes, Recognition};
    pub use nomaly_methods::recognition::{KnownClass, UNKNOWN, check_name};
}

pub mod evaluation {
    //! Evaluation on labeled items.

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
    //! Metrics of rankings and decisions.

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
    //! Preprocessing and augmentation.

    pub use nomaly_transforms::augment::Changes;
    pub use nomaly_transforms::decode::image_format;
    pub use nomaly_transforms::registry::{TRANSFORMS, TransformEntry};
    pub use nomaly_transforms::samples::TEXTURES;
    pub use nomaly_transforms::statistics::ImageStatistics;
    pub use nomaly_transforms::{Pipeline, decode_bytes, decode_file, scaled_preview};
}

pub mod devices {
    //! Devices that networks run on. Results are reproducible on one device; other devices round differently.
    //!
    //! ```no_run
    //! use nomaly::devices::{Device, Executor};
    //! use nomaly::{Fit, FittedDetector, SessionOptions};
    //!
    //! // Needs the feature `cuda`.
    //! let gpu = Executor::on(Device::Cuda(0))?;
    //! Fit::of("photos/good").on(&gpu).run()?.save("part.nomaly".as_ref())?;
    //! let session = FittedDetector::load_on("part.nomaly".as_ref(), &gpu)?.session(SessionOptions::default())?;
    //! # Ok::<(), nomaly::DetectorError>(())
    //! ```

    pub use nomaly_nn::runtime::{Device, DeviceError, Executor};
}

pub mod backbones {
    //! Networks with feature taps, and their weights.

    pub use nomaly_backbones::registry::{BACKBONES, BackboneEntry};
    pub use nomaly_backbones::{
        Backbone, BackboneError, OpenOptions, OutputLayout, PIXELS, TapInfo, TapRequest, cache, tap_infos, weights,
    };
    pub use nomaly_nn::weights::{Metadata, Weights, WeightsError, to_safetensors};
}

pub mod kernels {
    //! The numeric core: instruction sets and benchmarks.

    pub use nomaly_kernels::network::{
        Activation, CompiledNetwork, ConvLayer, NetworkBuilder, NetworkError, OutputLayout, Padding, StepInfo,
    };
    pub use nomaly_kernels::{Isa, peak};
}

pub mod methods {
    //! The traits and the registry of methods.

    pub use nomaly_methods::training::Checkpoint;
    pub use nomaly_methods::{
        Cost, DEFAULT_SIGMA, FeatureBatch, FeatureSource, FitContext, FittedMethod, HeldOut, METHODS, MapMaker, Method,
        MethodEntry, MethodError, MethodFit, MethodScore, MethodWorkspace, Published, Sees, finish_maps,
    };
}

pub mod training {
    //! Networks of methods: graphs, training, and what becomes of them.

    pub use nomaly_kernels::geometry::Activation;
    pub use nomaly_kernels::training::{
        TrainingError, binary_cross_entropy, mean_absolute_error, mean_squared_error, smooth_l1,
        weighted_binary_cross_entropy,
    };
    pub use nomaly_methods::networks::{
        FitData, NetworkBuffers, PixelStore, StoredNetwork, TapLimits, TapStore, TrainedNetwork, TrainingNeeds,
        TrainingSet,
    };
    pub use nomaly_methods::training::{
        Batch, EpochRecord, Learner, Losses, NetworkStreams, Objective, Optimizer, Patience, Schedule, StreamUse,
        Trained, TrainingParams, Validation, Warmup,
    };
    pub use nomaly_nn::graph::{ConvOptions, ConvTransposeOptions, Graph, GraphBuilder};
    pub use nomaly_nn::init::{he_normal, pytorch_default};
    pub use nomaly_nn::trainable::{Network, Pass, Rule, TrainableError};
}

pub mod scorers {
    //! Scorers for rows of numbers, and control charts.

    pub use nomaly_scorers::decision::sequence::{ChartKind, ChartOptions, ControlChart, Monitor, Reading};
    pub use nomaly_scorers::{SCORERS, Scorer, ScorerEntry, ScorerError, ScorerParams, State, Watch};
}

pub mod registry {
    //! Registries of named units.

    pub use nomaly_registry::{Entry, Registry, UnknownName};
}

pub mod store {
    //! Files and progress reports.

    pub use nomaly_store::{
        Progress, Silent, StoreError, canonical_place, check_writable, create_folder, home, sha256, sha256_file,
        write_atomic,
    };
}

pub mod wire {
    //! Output records with their schemas.

    pub use nomaly_wire::{
        ChartRecord, ClassThreshold, Ends, Evaluation, HybridFigures, ImageFigures, ImageRecord, InspectRecord,
        ModelRecord, PValueShare, PixelFigures, Ranking, RecognitionEvaluation, Record, RecordError, RowRecord, Shift,
        SupervisedReference, ThresholdFigures, VERSION,
    };
}
