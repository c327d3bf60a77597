//! CutPaste: features of a network trained to detect patches pasted into normal images.
//!
//! # What it computes
//! Every training image gives examples of three [classes](nomaly_transforms::augment::CutPasteClass): unchanged, with a
//! patch of itself pasted elsewhere, and with a thin rotated strip of itself. A residual network is trained from random
//! weights to classify them. A [scorer](nomaly_scorers::SCORERS), by default a Gaussian, is then fitted on the
//! network's features before the classifier, averaged over positions. Features use the running statistics of batch
//! norm, so that those of an image do not depend on others.
//!
//! Held-out images, unseen by network and scorer, calibrate the decision.
//!
//! # When to use
//! For local defects when no pretrained network is suitable: images unlike photographs, or a ban on foreign weights.
//! Training takes minutes to hours; methods on pretrained features are faster, mostly better, and locate defects.
//!
//! # Parameters
//! `network`, `scorer` with the scorer's parameters, and those of the training. The paper trains ResNet-18 at 256
//! pixels for 65 000 steps by SGD with momentum 0.9 (`optimiser=sgd`), a learning rate of 0.03 that falls with a
//! cosine, and an L2 penalty of 0.00003. The input is 64 pixels here, at which a network trains in minutes without a
//! GPU, and `input_size` makes it larger. In the thousand steps of 100 passes over 300 images SGD learns little; Adam
//! at 0.001 learns more, hence the default. In training, all images are first shifted by up to 1/32 of the side and
//! changed in brightness and contrast by up to 10 %: the paper names translation and color jitter, the amounts are our
//! choice. The network sees values in [−1, 1].
//!
//! # Reference
//! Li, Sohn, Yoon, Pfister, *CutPaste: Self-Supervised Learning for Anomaly Detection and Localization*, CVPR 2021:
//! section 2.3 for three classes, 2.4 for the score, appendix A for the training.

mod objective;

use ndarray::Array2;
use nomaly_backbones::registry::{BACKBONES, BackboneEntry};
use nomaly_backbones::{Backbone, OutputLayout, TapRequest};
use nomaly_nn::runtime::Executor;
use nomaly_scorers::{Scorer, State, restore};
use nomaly_settings::{Assignments, Auto, SettingError, Settings, SettingsTable};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::objective::{CLASSES, MOST_VALIDATED, ThreeWay, normalize};
use super::scoring::{ChosenScorer, DEFAULT_SCORER, SCORER, scorer_table};
use crate::MethodError;
use crate::features::{FeatureBatch, FeatureSource};
use crate::input::InputParams;
use crate::method::{
    Cost, FitContext, FittedMethod, Method, MethodEntry, MethodFit, MethodNetwork, MethodParams, Published, Sees,
};
use crate::networks::classification::Classification;
use crate::networks::classifier::{INPUTS_PER_RUN, NetworkBuffers, STATE, StoredNetwork, TrainedNetwork};
use crate::networks::examples::Examples;
use crate::networks::images::views;
use crate::networks::set::{TrainingNeeds, TrainingSet};
use crate::score::MethodScore;
use crate::stage::Stage;
use crate::training::Schedule;
use crate::training::settings::TrainingParams;
use crate::workspace::MethodWorkspace;

const NAME: &str = "cutpaste";
/// One image to hold out, and three to fit on, the fewest for the shrinkage of a covariance.
const MIN_IMAGES: usize = 4;
const NEEDS: TrainingNeeds = TrainingNeeds { images: MIN_IMAGES, examples: CLASSES };
/// The registry's entry.
pub(crate) const ENTRY: MethodEntry = MethodEntry {
    name: NAME,
    summary: "a scorer on features of a network trained to find what was pasted into normal images",
    paper: "Li, Sohn, Yoon, Pfister: CutPaste: Self-Supervised Learning for Anomaly Detection and Localization (2021)",
    maps: false,
    min_images: MIN_IMAGES,
    cost: Cost {
        fit: "training on 300 passes over the images, and the scorer's fit",
        predict: "one pass of the network, and the scorer",
        memory: "the images at the size of the input, a byte a value, to fit; then the network and what the scorer keeps",
    },
    table: SettingsTable::of::<CutPasteParams>,
    more: Some(scorer_table),
    sees: Sees::Pixels,
    input: || InputParams { input_size: Auto::Value(64), ..InputParams::default() },
    classes: false,
    trains: true,
    published: &[Published::image("MVTec AD, 3-way, at 256 pixels", 95.2)],
    one_vs_all: &[],
    build: |given, _| Ok(Box::new(CutPaste::new(given)?)),
};

/// Parameters of CutPaste, besides those of the scorer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CutPasteParams {
    /// The network that is trained, from the start.
    #[schemars(extend("x-values" = "a residual or wide residual network from `nomaly list backbones`"))]
    pub network: String,
    /// What scores features; its settings are settings too.
    #[schemars(extend("x-values" = "a name from `nomaly list scorers`"))]
    pub scorer: String,
    /// How the network is trained.
    #[serde(flatten)]
    pub training: TrainingParams,
}

impl Default for CutPasteParams {
    fn default() -> Self {
        Self {
            network: "resnet18".to_owned(),
            scorer: DEFAULT_SCORER.to_owned(),
            training: TrainingParams {
                schedule: Schedule::Cosine,
                l2: 3e-5,
                ..TrainingParams::new(Auto::Value(100), 64)
            },
        }
    }
}

impl MethodParams for CutPasteParams {
    const METHOD: &'static str = NAME;
}

impl Settings for CutPasteParams {
    fn check(&self) -> Result<(), SettingError> {
        self.training.check()
    }
}

/// CutPaste with checked parameters.
#[derive(Clone, Debug)]
pub struct CutPaste {
    params: CutPasteParams,
    network: &'static BackboneEntry,
    scorer: ChosenScorer,
    taps: [TapRequest; 1],
}

impl CutPaste {
    fn new(given: &Assignments) -> Result<Self, MethodError> {
        let (scorer, own) = ChosenScorer::part(given)?;
        let params: CutPasteParams = own.read()?;
        let network = BACKBONES.get(&params.network)?;
        if !matches!(network.family(), "resnet" | "wide-resnet") {
            let allowed = "a residual or wide residual network from `nomaly list backbones`";
            return Err(SettingError::value("network", network.name, allowed).into());
        }
        Ok(Self { params, network, scorer, taps: [TapRequest::pixels(OutputLayout::Nchw)] })
    }

    /// The scored features, averaged over positions, and the class logits, kept for explanations.
    fn features(&self) -> [TapRequest; 2] {
        let last = if self.network.family() == "resnet" { "layer4" } else { "head" };
        [TapRequest::new(last, OutputLayout::Mean), TapRequest::new("logits", OutputLayout::Rows)]
    }
}

impl Method for CutPaste {
    fn name(&self) -> &'static str {
        NAME
    }

    fn taps(&self) -> &[TapRequest] {
        &self.taps
    }

    fn settings(&self) -> Assignments {
        Assignments::of(&self.params).or(self.scorer.settings())
    }

    fn fit(&self, source: &dyn FeatureSource, context: &FitContext<'_>) -> Result<MethodFit, MethodError> {
        let FitContext { seed, progress, .. } = *context;
        let set = TrainingSet::collect(self, &self.params.training, source, context, NEEDS)?;
        let (images, name) = (set.data.pixels()?, self.network.name);
        let examples = Examples::new(ThreeWay, &set)?;
        let learner = set.learner(&self.network.architecture.graph(CLASSES))?;
        let mut objective = Classification { examples, learner, most_validated: MOST_VALIDATED };
        let trained = set.train(&mut objective)?;
        let weights = objective.learner.network.weights()?;
        let network = Backbone::from_tensors(name, weights)?;
        let network = TrainedNetwork::new(network, &[images.size()], &self.features(), context.executor)?;
        let embedder = Embedder { network, size: images.size(), seed };
        let mut buffers = embedder.network.buffers();
        let scorer = {
            let stage = Stage::start(progress, "fitting the scorer", Some(set.train.len()));
            let mut planes = vec![0.0; images.view_len()];
            let mut rows = Vec::new();
            for &view in &set.train {
                images.unpack(view, &mut planes);
                embedder.embed(&planes, &mut buffers, &mut rows)?;
                stage.advance(1);
                if progress.cancelled() {
                    return Err(MethodError::Cancelled);
                }
            }
            let rows = Array2::from_shape_vec((set.train.len(), embedder.width()), rows).expect("whole rows");
            self.scorer.fit(rows.view(), seed, progress)?
        };
        let fitted = FittedCutPaste { embedder, scorer };
        let held_out = set.score_held_out(|planes| Ok(MethodScore::whole(fitted.scores(planes, &mut buffers)?[0])))?;
        Ok(set.finish(Box::new(fitted), held_out, &trained, "each as three classes"))
    }

    fn restore(&self, states: Vec<(String, State)>, executor: &Executor) -> Result<Box<dyn FittedMethod>, MethodError> {
        let missing = |name: &str| MethodError::State { state: name.to_owned(), reason: None };
        let [(first, network), (second, scorer)] =
            <[(String, State); 2]>::try_from(states).map_err(|_| missing(STATE))?;
        if first != STATE {
            return Err(missing(STATE));
        }
        if second != SCORER || scorer.kind != self.scorer.name() {
            return Err(missing(SCORER));
        }
        let name = self.network.name;
        let open = |weights| Backbone::from_tensors(name, weights);
        let StoredNetwork { network, size, seed } =
            TrainedNetwork::restore(name, network, open, &self.features(), executor)?;
        if network.width(1) != CLASSES {
            let reason = format!("it tells {} classes apart, not {CLASSES}", network.width(1));
            return Err(MethodError::State { state: STATE.to_owned(), reason: Some(reason) });
        }
        let embedder = Embedder { network, size, seed };
        let scorer = restore(&scorer)?;
        if scorer.dim() != embedder.width() {
            let reason = format!("it takes {} features, not {}", scorer.dim(), embedder.width());
            return Err(MethodError::State { state: SCORER.to_owned(), reason: Some(reason) });
        }
        Ok(Box::new(FittedCutPaste { embedder, scorer }))
    }
}

/// A trained network that computes the scored features.
struct Embedder {
    network: TrainedNetwork,
    size: [usize; 2],
    seed: u64,
}

impl Embedder {
    /// Features per view.
    fn width(&self) -> usize {
        self.network.width(0)
    }

    /// Adds the features of views, given as planes `[n, 3, H, W]` in [0, 1], to `rows`.
    fn embed(&self, planes: &[f32], buffers: &mut NetworkBuffers, rows: &mut Vec<f32>) -> Result<(), MethodError> {
        let each = 3 * self.size[0] * self.size[1];
        for chunk in planes.chunks(INPUTS_PER_RUN * each) {
            let mut inputs = chunk.to_vec();
            normalize(&mut inputs);
            rows.extend_from_slice(&self.network.run(&[&inputs], buffers)?[0]);
        }
        Ok(())
    }
}

/// Fitted CutPaste.
pub struct FittedCutPaste {
    embedder: Embedder,
    scorer: Box<dyn Scorer>,
}

impl FittedCutPaste {
    /// Scores of views, given as planes `[n, 3, H, W]` in [0, 1].
    fn scores(&self, planes: &[f32], buffers: &mut NetworkBuffers) -> Result<Vec<f64>, MethodError> {
        let mut rows = Vec::new();
        self.embedder.embed(planes, buffers, &mut rows)?;
        let width = self.embedder.width();
        let rows = Array2::from_shape_vec((rows.len() / width, width), rows).expect("every view adds a whole row");
        Ok(self.scorer.score(rows.view())?)
    }
}

impl FittedMethod for FittedCutPaste {
    fn score(
        &self,
        batch: &FeatureBatch<'_>,
        workspace: &mut MethodWorkspace,
    ) -> Result<Vec<MethodScore>, MethodError> {
        let views = views(batch, self.embedder.size)?;
        let buffers = workspace.get_or_insert_with(|| self.embedder.network.buffers());
        let scores = self.scores(views.as_slice().expect("rows are contiguous"), buffers)?;
        Ok(scores.into_iter().map(MethodScore::whole).collect())
    }

    fn states(&self) -> Vec<(String, State)> {
        let Embedder { network, seed, .. } = &self.embedder;
        vec![(STATE.to_owned(), network.state(*seed)), (SCORER.to_owned(), self.scorer.state())]
    }

    fn network(&self) -> Option<MethodNetwork<'_>> {
        let classes = ["normal", "cut-paste", "scar"].map(str::to_owned).to_vec();
        Some(MethodNetwork { backbone: self.embedder.network.backbone(), input: [2.0, -1.0], classes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_in_full_make_the_same_method() {
        let method = |given: &[&str]| CutPaste::new(&Assignments::parse(given).unwrap());
        for given in [&[] as &[&str], &["network=wrn-10-4", "scorer=neighbours", "k=3", "schedule=step"]] {
            let stored = method(given).unwrap().settings();
            assert_eq!(CutPaste::new(&stored).unwrap().settings(), stored);
            for pair in given {
                let (key, value) = pair.split_once('=').unwrap();
                assert_eq!(stored.text(key).as_deref(), Some(value));
            }
        }
        for given in ["network=efficientnet-lite0", "rate=0"] {
            let error = method(&[given]).unwrap_err();
            let is_named =
                matches!(&error, MethodError::Setting(SettingError::Value { name, .. }) if given.starts_with(name));
            assert!(is_named, "{given}: {error}");
        }
        assert!(method(&["scorer=gausian"]).unwrap_err().to_string().contains("did you mean `gaussian`"));
    }
}
