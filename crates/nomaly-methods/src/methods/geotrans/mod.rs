//! GeoTrans: a network that tells geometric transformations apart knows what normal images look like.
//!
//! # What it computes
//! Every training image is seen under each of k transformations, and a wide residual network is trained from the start
//! to tell which one it was. Of an image under test the network sees all k transformations: of each it gives a vector of
//! probabilities, and the score says how unlike those of normal images they are. By default each transformation's vectors
//! have a [Dirichlet distribution](nomaly_scorers::dirichlet), fitted on the training images, and the score is the mean of
//! −Σⱼ (αᵢⱼ − 1) ln yⱼ over the transformations i; all the other [scores](Score) are parts of the result.
//!
//! With `normality=two-step` the network is trained on one part of the images, and a [scorer](nomaly_scorers::SCORERS) is fitted
//! on what it sees before its classifier in the other part. With `normality=mc-dropout` it is run many times with dropout, and
//! the score is the entropy of the mean answer; the variance, the mutual information and the deviation of the score over
//! the passes are its parts.
//!
//! # When to use
//! Where no pretrained network is of use: images unlike photographs, or a ban on foreign weights. Items should have a
//! definite pose. A set without some transformations (`transformations=…`) is needed where normal images come turned or
//! mirrored. It takes minutes to hours of training; a method on pretrained features is quicker and mostly better.
//!
//! # Parameters
//! `transformations`, `network`, `normality`, `dropout`, those of the training, and with `normality=two-step` those of the scorer, with
//! `normality=mc-dropout` the number of `passes`. The number of epochs is ⌈200 / k⌉ where none is given, as in the paper: three for its 72 transformations. Probabilities below 1e-12 count as
//! 1e-12. Images smaller than the input are padded, as the paper does with MNIST.
//!
//! # Reference
//! Golan & El-Yaniv, *Deep Anomaly Detection Using Geometric Transformations*, NeurIPS 2018: Adam, batches of 128, L2
//! penalty; section 4.2 for the Dirichlet score. Entropy: Braga, *Deep Anomaly Detection Using Geometric Transformations*,
//! 2025, an extension of it. Two steps: Sohn, Li, Yoon, Jin, Pfister, *Learning and Evaluating Representations for Deep
//! One-Class Classification*, ICLR 2021.

mod fitted;
mod objective;
mod passes;
mod scores;

use nomaly_backbones::architectures::pixels;
use nomaly_backbones::graph::Graph;
use nomaly_backbones::registry::BACKBONES;
use nomaly_backbones::{OutputLayout, TapRequest};
use nomaly_scorers::{Parameter, State, restore};
use nomaly_transforms::transformations::TransformationSet;

pub use self::fitted::FittedGeoTrans;
use self::fitted::{Judgement, Recogniser, SCORER as SCORER_STATE};
use self::objective::{MOST_VALIDATED, Transformed};
use self::passes::Passes;
use self::scores::NormalityBuilder;
pub use self::scores::{Normality, Score};
use super::scoring::{ChosenScorer, SCORER, ScorerChoice};
use crate::features::FeatureSource;
use crate::groups::{Groups, held_out_scores};
use crate::method::{Cost, FitContext, FittedMethod, Method, MethodEntry, MethodFit, Published};
use crate::networks::classification::Classification;
use crate::networks::classifier::{STATE as NETWORK, Stored, TrainedNetwork};
use crate::networks::examples::Examples;
use crate::networks::set::TrainingSet;
use crate::score::{HeldOut, MethodScore};
use crate::stage::Stage;
use crate::training::settings::{Epochs, Optimiser, Patience, TrainingSettings, within};
use crate::training::{Schedule, settings as training};
use crate::{MethodError, PublishedClasses, Settings};

const NAME: &str = "geotrans";
/// One image to hold out, and two to learn from.
const MIN_IMAGES: usize = 3;
const DEFAULT_NETWORK: &str = "wrn-10-4";
const DEFAULT_SET: &str = "geotrans";
const DEFAULT_SCORER: &str = "gaussian";
const TWO_STEP: &str = "two-step";
const MC_DROPOUT: &str = "mc-dropout";
/// What Zagoruyko & Komodakis drop out on CIFAR.
const DEFAULT_DROPOUT: f32 = 0.3;
/// Passes over the images themselves that the paper's rule divides by the number of transformations.
const PASSES: usize = 200;

const NORMALITY: Parameter = Parameter {
    name: "normality",
    default: "dirichlet",
    values: "`dirichlet`, `weighted`, `log-likelihood`, `entropy`, `simple`, `two-step` or `mc-dropout`",
    summary: "how the probabilities of all transformations become a score; `two-step` scores features instead, and \
              `mc-dropout` how unsure many passes with dropout are",
};

const DROPOUT: Parameter = Parameter {
    name: "dropout",
    default: "0; 0.3 with `normality=mc-dropout`",
    values: "a share from 0 to 0.9",
    summary: "share of the values inside of each block that a training step leaves out",
};

const PASSES_PARAMETER: Parameter = Parameter {
    name: "passes",
    default: "50",
    values: "a whole number from 2 to 1000",
    summary: "passes with dropout of each image; the time of a score grows with it",
};

const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "transformations",
        default: DEFAULT_SET,
        values: "`geotrans`, `rotations` or `rotations-flips`, each with extras as in `geotrans+zoom`, or a list",
        summary: "the transformations that the network learns to tell apart (`nomaly list transforms`)",
    },
    Parameter {
        name: "network",
        default: DEFAULT_NETWORK,
        values: "a wide residual network from `nomaly list backbones`",
        summary: "the network that is trained",
    },
    NORMALITY,
    training::epochs("200 divided by the number of transformations, rounded up"),
    training::batch_size("128"),
    training::OPTIMISER,
    training::rate("0.001"),
    training::schedule("constant"),
    training::l2("0.00025"),
    training::patience("none"),
    DROPOUT,
    training::holdout("auto; half of the images with `normality=two-step`"),
];

const SCORER_PARAMETER: Parameter = Parameter {
    name: SCORER,
    default: DEFAULT_SCORER,
    values: "a name from `nomaly list scorers`",
    summary: "what scores features with `normality=two-step`; its parameters are settings too",
};

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
    parameters: PARAMETERS,
    more_parameters: Some(more_parameters),
    backbone: Some("pixels"),
    defaults: &[("input_size", "32"), ("view", "pad")],
    classes: false,
    trains: true,
    published: &[
        Published::image("CIFAR-10, one class against nine", 86.0),
        Published::image("Fashion-MNIST, one class against nine", 93.5),
        Published::image("CIFAR-100, one of 20 coarse classes", 78.7),
        Published::image("cats against dogs, at 64 pixels", 88.8),
    ],
    one_vs_all: ONE_VS_ALL,
    build: |settings, _| Ok(Box::new(GeoTrans::from_settings(settings)?)),
};

/// The choice of a scorer, and its parameters, belong to the score in two steps alone.
fn more_parameters(settings: &Settings) -> Result<Vec<Parameter>, MethodError> {
    match settings.get(NORMALITY.name) {
        Some(TWO_STEP) => {}
        Some(MC_DROPOUT) => return Ok(vec![PASSES_PARAMETER]),
        _ => return Ok(Vec::new()),
    }
    let choice = ScorerChoice::of(settings, DEFAULT_SCORER)?;
    Ok(std::iter::once(SCORER_PARAMETER).chain(choice.parameters().iter().copied()).collect())
}

/// How images are scored.
#[derive(Clone, Debug)]
enum Way {
    Table(Score),
    TwoStep(ChosenScorer),
    /// So many passes with dropout.
    Passes(usize),
}

/// GeoTrans with checked parameters.
#[derive(Clone, Debug)]
pub struct GeoTrans {
    set: TransformationSet,
    network: &'static str,
    way: Way,
    dropout: f32,
    training: TrainingSettings,
    taps: [TapRequest; 1],
}

impl GeoTrans {
    fn from_settings(settings: &Settings) -> Result<Self, MethodError> {
        let set: TransformationSet = settings.get("transformations").unwrap_or(DEFAULT_SET).parse()?;
        if set.len() < 2 {
            let given = settings.get("transformations").unwrap_or_default();
            return Err(MethodError::setting("transformations", given, "two transformations or more"));
        }
        let network = BACKBONES.get(settings.get("network").unwrap_or(DEFAULT_NETWORK))?;
        if network.family() != "wide-resnet" {
            return Err(MethodError::setting("network", network.name, "a wide residual network, such as wrn-10-4"));
        }
        let way = match settings.get(NORMALITY.name).unwrap_or(NORMALITY.default) {
            TWO_STEP => Way::TwoStep(ChosenScorer::from_settings(settings, DEFAULT_SCORER)?),
            MC_DROPOUT => Way::Passes(within(settings, &PASSES_PARAMETER, 50, &(2..=1000))?),
            name => {
                Way::Table(name.parse().map_err(|()| MethodError::setting(NORMALITY.name, name, NORMALITY.values))?)
            }
        };
        let defaults = TrainingSettings {
            epochs: Epochs::Fixed(PASSES.div_ceil(set.len())),
            batch_size: 128,
            optimiser: Optimiser::Adam,
            rate: 1e-3,
            schedule: Schedule::Constant,
            l2: 2.5e-4,
            patience: Patience::None,
            holdout: matches!(way, Way::TwoStep(_)).then_some(0.5),
        };
        let training = defaults.updated(settings)?;
        let needed = matches!(way, Way::Passes(_));
        let dropout = within(settings, &DROPOUT, if needed { DEFAULT_DROPOUT } else { 0.0 }, &(0.0..=0.9))?;
        if needed && dropout == 0.0 {
            return Err(MethodError::setting(DROPOUT.name, "0", "a share above 0 with `normality=mc-dropout`"));
        }
        let taps = [TapRequest::new(pixels::TAP, OutputLayout::Nchw)];
        Ok(Self { set, network: network.name, way, dropout, training, taps })
    }

    /// The network in training, with dropout where there is some.
    fn graph(&self) -> Graph {
        let plain = BACKBONES.get(self.network).expect("the name was checked").architecture;
        plain.with_dropout(self.dropout).unwrap_or(plain).graph(self.set.len())
    }

    /// The taps that the trained network is compiled for.
    fn network_taps() -> [TapRequest; 2] {
        [TapRequest::new("logits", OutputLayout::Rows), TapRequest::new("head", OutputLayout::Mean)]
    }

    /// Fits what the score needs, and scores the held-out images.
    fn judge(
        &self,
        set: &TrainingSet<'_>,
        recogniser: Recogniser,
    ) -> Result<(FittedGeoTrans, Vec<HeldOut>), MethodError> {
        let FitContext { seed, progress, .. } = set.context;
        let judgement = match &self.way {
            Way::TwoStep(scorer) => return two_step(scorer, set, recogniser),
            Way::Passes(count) => {
                let weights = recogniser.network.weights();
                Judgement::Passes(Passes::new(&self.graph(), &weights, recogniser.size, *count, seed)?.into())
            }
            Way::Table(score) => {
                let mut builder = NormalityBuilder::new(self.set.len());
                let mut planes = vec![0.0; set.images.each()];
                let stage = Stage::start(progress, "fitting the score", Some(set.division.train.len()));
                for &image in &set.division.train {
                    for view in set.images.views_of(image) {
                        set.images.unpack(view, &mut planes);
                        builder.push(recogniser.table(&planes)?)?;
                    }
                    stage.advance(1);
                    check(progress.cancelled())?;
                }
                Judgement::Table { normality: builder.finish()?, score: *score }
            }
        };
        let fitted = FittedGeoTrans { recogniser, judgement };
        let held_out = set.score_held_out(|planes| fitted.judge(planes))?;
        Ok((fitted, held_out))
    }
}

/// Fits a scorer on what the network sees in the held-out images, and scores each of them by a fit on the others.
fn two_step(
    scorer: &ChosenScorer,
    set: &TrainingSet<'_>,
    recogniser: Recogniser,
) -> Result<(FittedGeoTrans, Vec<HeldOut>), MethodError> {
    let TrainingSet { images, division, source, context: FitContext { seed, progress, .. }, .. } = set;
    let mut planes = vec![0.0; images.each()];
    let _stage = Stage::start(*progress, "fitting the scorer", None);
    let views = source.views();
    let mut rows = Vec::new();
    for &view in &set.held_out {
        images.unpack(view, &mut planes);
        rows.extend(recogniser.features(&planes)?);
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
    Ok((FittedGeoTrans { recogniser, judgement: Judgement::Features(scorer) }, held_out))
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

    fn settings(&self) -> Settings {
        let settings = Settings::default().with("transformations", &self.set).with("network", self.network);
        let settings = match &self.way {
            Way::Table(score) => settings.with(NORMALITY.name, score),
            Way::TwoStep(scorer) => scorer.add_to(settings.with(NORMALITY.name, TWO_STEP)),
            Way::Passes(count) => settings.with(NORMALITY.name, MC_DROPOUT).with(PASSES_PARAMETER.name, count),
        };
        let settings = settings.with(DROPOUT.name, self.dropout);
        self.training.add_to(settings)
    }

    fn check_input(&self, input: [usize; 2]) -> Result<(), MethodError> {
        Ok(self.set.check(input)?)
    }

    fn fit(&self, source: &dyn FeatureSource, context: &FitContext<'_>) -> Result<MethodFit, MethodError> {
        let needed = if matches!(self.way, Way::TwoStep(_)) { 2 * MIN_IMAGES + 2 } else { MIN_IMAGES };
        let set = TrainingSet::collect(self, &self.training, source, context, (needed, self.set.len()))?;
        let (seed, size) = (context.seed, set.images.size());
        let make = Transformed { set: &self.set, seed };
        let examples = Examples::new(make, &set);
        let mut objective = Classification { examples, network: self.network, most_validated: MOST_VALIDATED };
        let (weights, trained) = set.train(&self.graph(), &mut objective)?;
        let network = TrainedNetwork::new(self.network, weights, size, &Self::network_taps())?;
        let recogniser = Recogniser { name: self.network.to_owned(), network, set: self.set.clone(), size, seed };
        let (fitted, held_out) = self.judge(&set, recogniser)?;
        let learned = format!("each under {} transformations", self.set.len());
        Ok(set.finish(Box::new(fitted), held_out, &trained, &learned))
    }

    fn restore(&self, states: Vec<(String, State)>) -> Result<Box<dyn FittedMethod>, MethodError> {
        let missing = |name: &str| MethodError::State { state: name.to_owned(), reason: None };
        let mut states = states.into_iter();
        let network = states.next().filter(|(name, state)| name == NETWORK && state.kind == self.network);
        let (_, network) = network.ok_or_else(|| missing(NETWORK))?;
        let judgement = states.next();
        if states.next().is_some() {
            return Err(missing(scores::STATE));
        }
        let refuse = |reason: String| MethodError::State { state: NETWORK.to_owned(), reason: Some(reason) };
        let Stored { network, size, seed } = TrainedNetwork::restore(self.network, network, &Self::network_taps())?;
        if network.width(0) != self.set.len() {
            return Err(refuse(format!("it tells {} transformations apart, not {}", network.width(0), self.set.len())));
        }
        let judgement = match (&self.way, judgement) {
            (Way::Passes(count), None) => {
                let weights = network.weights();
                Judgement::Passes(Passes::new(&self.graph(), &weights, size, *count, seed)?.into())
            }
            (Way::Table(score), Some((name, judgement))) if name == scores::STATE => {
                Judgement::Table { normality: Normality::restore(judgement, self.set.len())?, score: *score }
            }
            (Way::TwoStep(scorer), Some((name, judgement)))
                if name == SCORER_STATE && judgement.kind == scorer.name() =>
            {
                let scorer = restore(&judgement)?;
                if scorer.dim() != network.width(1) {
                    return Err(refuse(format!(
                        "the scorer takes {} features, not {}",
                        scorer.dim(),
                        network.width(1)
                    )));
                }
                Judgement::Features(scorer)
            }
            _ => return Err(missing(scores::STATE)),
        };
        let recogniser = Recogniser { name: self.network.to_owned(), network, set: self.set.clone(), size, seed };
        Ok(Box::new(FittedGeoTrans { recogniser, judgement }))
    }
}
