//! GeoTrans: scores from a network trained to classify geometric transformations of normal images.
//!
//! # What it computes
//! A wide residual network is trained from random weights to classify which of k transformations was applied to a
//! training image. A test image is classified under all k transformations; the score measures how unlike those of
//! normal images the k vectors of probabilities are. By default a [Dirichlet distribution](nomaly_scorers::dirichlet)
//! of each transformation's vectors is fitted on the training images, and the score is the mean of
//! −Σⱼ (αᵢⱼ − 1) ln yⱼ over the transformations i; all the other [scores](TableScore) are parts of the
//! result.
//!
//! With `normality=two-step` the network is trained on one part of the images, and a [scorer](nomaly_scorers::SCORERS)
//! is fitted on its features of the other part, before the classifier. With `normality=mc-dropout` it runs many passes
//! with dropout, and the score is the entropy of the mean prediction; the variance, the mutual information and the
//! deviation of the score over the passes are its parts.
//!
//! # When to use
//! When no pretrained network is suitable: images unlike photographs, or a ban on foreign weights. Items should have a
//! definite pose; if normal images come rotated or mirrored, leave out those transformations (`transformations=…`).
//! Training takes minutes to hours; methods on pretrained features are faster and mostly better.
//!
//! # Parameters
//! `transformations`, `network`, `normality`, `dropout`, those of the training, and with `normality=two-step` those of
//! the scorer, with `normality=mc-dropout` the number of `passes`. The default number of epochs is ⌈200 / k⌉ as in
//! the paper: three for its 72 transformations. Probabilities are at least 1e-12. Images smaller than the input are
//! padded, as the paper does with MNIST.
//!
//! # Reference
//! Golan & El-Yaniv, *Deep Anomaly Detection Using Geometric Transformations*, NeurIPS 2018: Adam, batches of 128, L2
//! penalty; section 4.2 for the Dirichlet score. Entropy: Braga, *Deep Anomaly Detection Using Geometric
//! Transformations*, 2025, an extension of it. Two steps: Sohn, Li, Yoon, Jin, Pfister, *Learning and Evaluating
//! Representations for Deep One-Class Classification*, ICLR 2021.

mod fitted;
mod objective;
mod passes;
mod scores;

use nomaly_backbones::registry::BACKBONES;
use nomaly_backbones::{Backbone, OutputLayout, TapRequest};
use nomaly_nn::graph::Graph;
use nomaly_nn::runtime::Executor;
use nomaly_scorers::{State, restore};
use nomaly_settings::{Assignments, Auto, SettingError, Settings, SettingsTable};
use nomaly_transforms::transformations::TransformationSet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::fitted::FittedGeoTrans;
use self::fitted::{SCORER as SCORER_STATE, ScoreModel, TransformationClassifier};
use self::objective::{MOST_VALIDATED, Transformed};
use self::passes::Passes;
use self::scores::NormalityBuilder;
pub use self::scores::{Normality, TableScore};
use super::scoring::{ChosenScorer, scorer_table};
use crate::features::FeatureSource;
use crate::groups::{Groups, held_out_scores};
use crate::input::InputParams;
use crate::method::{Cost, FitContext, FittedMethod, Method, MethodEntry, MethodFit, MethodParams, Published, Sees};
use crate::networks::classification::Classification;
use crate::networks::classifier::{STATE as NETWORK, StoredNetwork, TrainedNetwork};
use crate::networks::examples::Examples;
use crate::networks::set::{TrainingNeeds, TrainingSet};
use crate::score::{HeldOut, MethodScore};
use crate::stage::Stage;
use crate::training::settings::TrainingParams;
use crate::workspace::MethodWorkspace;
use crate::{MethodError, PublishedClasses};

const NAME: &str = "geotrans";
/// One image to hold out, and two to learn from.
const MIN_IMAGES: usize = 3;
/// The dropout of Zagoruyko & Komodakis on CIFAR.
const DEFAULT_DROPOUT: f64 = 0.3;
/// The paper divides this by the number of transformations to get the number of epochs.
const PASSES: usize = 200;

/// The default number of passes of `normality=mc-dropout`.
const DEFAULT_PASSES: usize = 50;

/// Table 1 of the paper.
const ONE_VS_ALL: &[PublishedClasses] = &[
    PublishedClasses {
        dataset: "fashion-mnist",
        classes: &[],
        on: "Golan & El-Yaniv 2018, all 6 000 images of a class",
        mean: 93.5,
        by_class: &[99.4, 97.6, 91.1, 89.9, 92.1, 93.4, 83.3, 98.9, 90.8, 99.2],
    },
    PublishedClasses {
        dataset: "cifar10",
        classes: &["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
        on: "Golan & El-Yaniv 2018, all 5 000 images of a class",
        mean: 86.0,
        by_class: &[74.7, 95.7, 78.1, 72.4, 87.8, 87.8, 83.4, 95.5, 93.3, 91.3],
    },
];

/// The registry's entry.
pub(crate) const ENTRY: MethodEntry = MethodEntry {
    name: NAME,
    summary: "a network trained to tell geometric transformations of normal images apart",
    paper: "Golan, El-Yaniv: Deep Anomaly Detection Using Geometric Transformations (2018)",
    maps: false,
    min_images: MIN_IMAGES,
    cost: Cost {
        fit: "training on about 200 passes over the images",
        predict: "one pass of the network for each transformation",
        memory: "the images at the size of the input, a byte a value, to fit; the network afterwards",
    },
    table: SettingsTable::of::<GeoTransParams>,
    more: Some(more),
    sees: Sees::Pixels,
    input: || InputParams::small(32),
    classes: false,
    trains: true,
    published: &[
        Published::image("CIFAR-10, one class against nine", 86.0),
        Published::image("Fashion-MNIST, one class against nine", 93.5),
        Published::image("CIFAR-100, one of 20 coarse classes", 78.7),
        Published::image("cats against dogs, at 64 pixels", 88.8),
    ],
    one_vs_all: ONE_VS_ALL,
    build: |given, _| Ok(Box::new(GeoTrans::new(given)?)),
};

/// Only `normality=two-step` has the settings of a scorer.
fn more(given: &Assignments) -> Result<SettingsTable, MethodError> {
    if given.text("normality").as_deref() == Some("two-step") {
        scorer_table(given)
    } else {
        Ok(SettingsTable::default())
    }
}

/// The score computed from the probabilities of all transformations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NormalityKind {
    /// [`TableScore::Dirichlet`].
    Dirichlet,
    /// [`TableScore::Weighted`].
    Weighted,
    /// [`TableScore::LogLikelihood`].
    LogLikelihood,
    /// [`TableScore::Entropy`].
    Entropy,
    /// [`TableScore::Simple`].
    Simple,
    /// A scorer on features.
    TwoStep,
    /// The uncertainty over many passes with dropout.
    McDropout,
}

/// Parameters of GeoTrans, besides those of the scorer of `normality=two-step`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GeoTransParams {
    /// The transformations that the network learns to tell apart (`nomaly list transforms`).
    pub transformations: TransformationSet,
    /// The network that is trained.
    #[schemars(extend("x-values" = "a wide residual network from `nomaly list backbones`"))]
    pub network: String,
    /// How the probabilities of all transformations become a score; `two-step` scores features instead, and
    /// `mc-dropout` how unsure many passes with dropout are.
    pub normality: NormalityKind,
    /// Share of the values inside of each block that a training step leaves out; `auto`: none, and 0.3 with
    /// `normality=mc-dropout`.
    #[schemars(extend("minimum" = 0, "maximum" = 0.9))]
    pub dropout: Auto<f64>,
    /// Passes with dropout of each image with `normality=mc-dropout`, where `auto` is 50; the time of a score grows
    /// with it.
    #[schemars(extend("minimum" = 2, "maximum" = 1000))]
    pub passes: Auto<usize>,
    /// What scores features with `normality=two-step`, where `auto` is gaussian; its settings are settings too.
    #[schemars(extend("x-values" = "`auto` or a name from `nomaly list scorers`"))]
    pub scorer: Auto<String>,
    /// How the network is trained.
    #[serde(flatten)]
    pub training: TrainingParams,
}

impl Default for GeoTransParams {
    fn default() -> Self {
        Self {
            transformations: "geotrans".parse().expect("the set of the paper"),
            network: "wrn-10-4".to_owned(),
            normality: NormalityKind::Dirichlet,
            dropout: Auto::Auto,
            passes: Auto::Auto,
            scorer: Auto::Auto,
            training: TrainingParams { l2: 2.5e-4, ..TrainingParams::new(Auto::Auto, 128) },
        }
    }
}

impl MethodParams for GeoTransParams {
    const METHOD: &'static str = NAME;
}

impl Settings for GeoTransParams {
    fn check(&self) -> Result<(), SettingError> {
        self.training.check()?;
        if self.transformations.len() < 2 {
            return Err(SettingError::value("transformations", &self.transformations, "two transformations or more"));
        }
        if self.normality == NormalityKind::McDropout && self.dropout == Auto::Value(0.0) {
            return Err(SettingError::value("dropout", 0, "a share above 0 with `normality=mc-dropout`"));
        }
        if let Some(passes) = self.passes.value().filter(|_| self.normality != NormalityKind::McDropout) {
            return Err(SettingError::value("passes", passes, "`auto` unless `normality=mc-dropout`"));
        }
        if let Some(scorer) = self.scorer.as_ref().filter(|_| self.normality != NormalityKind::TwoStep) {
            return Err(SettingError::value("scorer", scorer, "`auto` unless `normality=two-step`"));
        }
        Ok(())
    }
}

/// How images are scored.
#[derive(Clone, Debug)]
enum Scoring {
    Table(TableScore),
    TwoStep(ChosenScorer),
    /// With this many passes with dropout.
    Passes(usize),
}

/// GeoTrans with checked parameters.
#[derive(Clone, Debug)]
pub struct GeoTrans {
    params: GeoTransParams,
    set: TransformationSet,
    network: &'static str,
    scoring: Scoring,
    dropout: f32,
    taps: [TapRequest; 1],
}

impl GeoTrans {
    fn new(given: &Assignments) -> Result<Self, MethodError> {
        let two_step = given.text("normality").as_deref() == Some("two-step");
        let chosen = if two_step { Some(ChosenScorer::part(given)?) } else { None };
        let own = chosen.as_ref().map_or(given, |(_, own)| own);
        let mut params: GeoTransParams = own.read()?;
        let network = BACKBONES.get(&params.network)?;
        if network.family() != "wide-resnet" {
            let allowed = "a wide residual network, such as wrn-10-4";
            return Err(SettingError::value("network", network.name, allowed).into());
        }
        let set = params.transformations.clone();
        let epochs = params.training.epochs.unwrap_or(PASSES.div_ceil(set.len()));
        params.training.epochs = Auto::Value(epochs);
        let scoring = match params.normality {
            NormalityKind::Dirichlet => Scoring::Table(TableScore::Dirichlet),
            NormalityKind::Weighted => Scoring::Table(TableScore::Weighted),
            NormalityKind::LogLikelihood => Scoring::Table(TableScore::LogLikelihood),
            NormalityKind::Entropy => Scoring::Table(TableScore::Entropy),
            NormalityKind::Simple => Scoring::Table(TableScore::Simple),
            NormalityKind::McDropout => {
                let passes = params.passes.unwrap_or(DEFAULT_PASSES);
                params.passes = Auto::Value(passes);
                params.dropout = Auto::Value(params.dropout.unwrap_or(DEFAULT_DROPOUT));
                Scoring::Passes(passes)
            }
            NormalityKind::TwoStep => {
                // The scorer is fitted on half of the images.
                params.training.holdout = Auto::Value(params.training.holdout.unwrap_or(0.5));
                let (scorer, _) = ChosenScorer::part(given)?;
                params.scorer = Auto::Value(scorer.name().to_owned());
                Scoring::TwoStep(scorer)
            }
        };
        let dropout = params.dropout.unwrap_or(0.0) as f32;
        let taps = [TapRequest::pixels(OutputLayout::Nchw)];
        Ok(Self { params, set, network: network.name, scoring, dropout, taps })
    }

    /// The network in training, with dropout if enabled.
    fn graph(&self) -> Graph {
        let plain = BACKBONES.get(self.network).expect("the name was checked").architecture;
        plain.with_dropout(self.dropout).unwrap_or(plain).graph(self.set.len())
    }

    /// The taps that the trained network is compiled for.
    fn network_taps() -> [TapRequest; 2] {
        [TapRequest::new("logits", OutputLayout::Rows), TapRequest::new("head", OutputLayout::Mean)]
    }

    /// Fits the score and scores the held-out images.
    fn fit_scores(
        &self,
        set: &TrainingSet<'_>,
        classifier: TransformationClassifier,
    ) -> Result<(FittedGeoTrans, Vec<HeldOut>), MethodError> {
        let FitContext { seed, progress, executor, .. } = set.context;
        let model = match &self.scoring {
            Scoring::TwoStep(scorer) => return two_step(scorer, set, classifier),
            Scoring::Passes(count) => {
                let weights = classifier.network.weights();
                ScoreModel::Passes(Passes::new(self.graph(), weights, classifier.size, *count, seed, executor)?.into())
            }
            Scoring::Table(score) => {
                let mut builder = NormalityBuilder::new(self.set.len());
                let images = set.data.pixels()?;
                let mut planes = vec![0.0; images.view_len()];
                let mut buffers = classifier.network.buffers();
                let stage = Stage::start(progress, "fitting the score", Some(set.division.train.len()));
                for &image in &set.division.train {
                    for view in set.views_of(image) {
                        images.unpack(view, &mut planes);
                        builder.push(classifier.table(&planes, &mut buffers)?)?;
                    }
                    stage.advance(1);
                    check(progress.cancelled())?;
                }
                ScoreModel::Table { normality: builder.finish()?, score: *score }
            }
        };
        let fitted = FittedGeoTrans { classifier, model };
        let mut workspace = MethodWorkspace::default();
        let held_out = set.score_held_out(|planes| fitted.score_view(planes, &mut workspace))?;
        Ok((fitted, held_out))
    }
}

/// Fits a scorer on the network's features of the held-out images, and scores each of them by a fit on the others.
fn two_step(
    scorer: &ChosenScorer,
    set: &TrainingSet<'_>,
    classifier: TransformationClassifier,
) -> Result<(FittedGeoTrans, Vec<HeldOut>), MethodError> {
    let TrainingSet { data, division, source, context: FitContext { seed, progress, .. }, .. } = set;
    let images = data.pixels()?;
    let mut planes = vec![0.0; images.view_len()];
    let _stage = Stage::start(*progress, "fitting the scorer", None);
    let views = source.views();
    let (mut rows, mut buffers) = (Vec::new(), classifier.network.buffers());
    for &view in &set.held_out {
        images.unpack(view, &mut planes);
        rows.extend(classifier.features(&planes, &mut buffers)?);
    }
    let count = division.held_out.len() * views;
    let rows = ndarray::Array2::from_shape_vec((count, rows.len() / count), rows).expect("whole rows");
    let of = |images: &[usize]| {
        let views: Vec<usize> = images.iter().flat_map(|image| image * views..(image + 1) * views).collect();
        rows.select(ndarray::Axis(0), &views)
    };
    let groups = Groups::of_keys(division.held_out.iter().map(|&image| set.groups.of()[image]));
    let scores = held_out_scores(&groups.leaving(MIN_IMAGES), *seed, |train, test| {
        let fitted = scorer.fit(of(train).view(), *seed, *progress)?;
        let scores = fitted.score(of(test).view())?;
        let combine = |views: &[f64]| source.combine(views.iter().map(|score| MethodScore::whole(*score)).collect());
        scores.chunks(views).map(|views| combine(views).map(|image| image.score)).collect()
    })?;
    let number = |(place, score): (usize, f64)| HeldOut::scored(division.held_out[place], score);
    let held_out = scores.into_iter().map(number).collect();
    let scorer = scorer.fit(rows.view(), *seed, *progress)?;
    Ok((FittedGeoTrans { classifier, model: ScoreModel::Features(scorer) }, held_out))
}

fn check(cancelled: bool) -> Result<(), MethodError> {
    if cancelled { Err(MethodError::Cancelled) } else { Ok(()) }
}

impl Method for GeoTrans {
    fn name(&self) -> &'static str {
        NAME
    }

    fn taps(&self) -> &[TapRequest] {
        &self.taps
    }

    fn settings(&self) -> Assignments {
        let own = Assignments::of(&self.params);
        match &self.scoring {
            Scoring::TwoStep(scorer) => own.or(scorer.settings()),
            Scoring::Table(_) | Scoring::Passes(_) => own,
        }
    }

    fn check_input(&self, input: [usize; 2]) -> Result<(), MethodError> {
        Ok(self.set.check(input)?)
    }

    fn fit(&self, source: &dyn FeatureSource, context: &FitContext<'_>) -> Result<MethodFit, MethodError> {
        let needed = if matches!(self.scoring, Scoring::TwoStep(_)) { 2 * MIN_IMAGES + 2 } else { MIN_IMAGES };
        let needs = TrainingNeeds { images: needed, examples: self.set.len() };
        let set = TrainingSet::collect(self, &self.params.training, source, context, needs)?;
        let (seed, size) = (context.seed, set.data.input_size());
        let maker = Transformed { set: &self.set, seed };
        let examples = Examples::new(maker, &set)?;
        let mut objective =
            Classification { examples, learner: set.learner(&self.graph())?, most_validated: MOST_VALIDATED };
        let trained = set.train(&mut objective)?;
        let weights = objective.learner.network.weights()?;
        let network = Backbone::from_tensors(self.network, weights)?;
        let network = TrainedNetwork::new(network, &[size], &Self::network_taps(), context.executor)?;
        let classifier = TransformationClassifier { network, set: self.set.clone(), size, seed };
        let (fitted, held_out) = self.fit_scores(&set, classifier)?;
        let learned = format!("each under {} transformations", self.set.len());
        Ok(set.finish(Box::new(fitted), held_out, &trained, &learned))
    }

    fn restore(&self, states: Vec<(String, State)>, executor: &Executor) -> Result<Box<dyn FittedMethod>, MethodError> {
        let missing = |name: &str| MethodError::State { state: name.to_owned(), reason: None };
        let mut states = states.into_iter();
        let network = states.next().filter(|(name, state)| name == NETWORK && state.kind == self.network);
        let (_, network) = network.ok_or_else(|| missing(NETWORK))?;
        let model = states.next();
        if states.next().is_some() {
            return Err(missing(scores::STATE));
        }
        let refuse = |reason: String| MethodError::State { state: NETWORK.to_owned(), reason: Some(reason) };
        let open = |weights| Backbone::from_tensors(self.network, weights);
        let StoredNetwork { network, size, seed } =
            TrainedNetwork::restore(self.network, network, open, &Self::network_taps(), executor)?;
        if network.width(0) != self.set.len() {
            return Err(refuse(format!("it tells {} transformations apart, not {}", network.width(0), self.set.len())));
        }
        let model = match (&self.scoring, model) {
            (Scoring::Passes(count), None) => {
                let weights = network.weights();
                ScoreModel::Passes(Passes::new(self.graph(), weights, size, *count, seed, executor)?.into())
            }
            (Scoring::Table(score), Some((name, model))) if name == scores::STATE => {
                ScoreModel::Table { normality: Normality::restore(model, self.set.len())?, score: *score }
            }
            (Scoring::TwoStep(scorer), Some((name, model))) if name == SCORER_STATE && model.kind == scorer.name() => {
                let scorer = restore(&model)?;
                if scorer.dim() != network.width(1) {
                    return Err(refuse(format!(
                        "the scorer takes {} features, not {}",
                        scorer.dim(),
                        network.width(1)
                    )));
                }
                ScoreModel::Features(scorer)
            }
            _ => return Err(missing(scores::STATE)),
        };
        let classifier = TransformationClassifier { network, set: self.set.clone(), size, seed };
        Ok(Box::new(FittedGeoTrans { classifier, model }))
    }
}
