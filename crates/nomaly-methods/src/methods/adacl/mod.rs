//! ADACL: a small network learns to distinguish normal images from anomalies made of them.
//!
//! # What it computes
//! Each epoch makes an anomaly of every training image with one of four
//! [augmentations](nomaly_transforms::augment::AdaclAugmentation) drawn at random. A small convolutional network is
//! trained from random weights to regress labels: near 0 for normal images, near 1 for anomalies. Labels are drawn anew
//! each time, uniformly from [0, 0.3] and [0.7, 1], which according to the paper varies less between runs than 0 and 1.
//! The loss is the squared error of the output clipped to [0, 1]; an output outside gets the gradient of the bound,
//! because a gradient of zero would keep it there.
//!
//! The score is the unclipped output of the network. The paper clips it, which keeps the order of scores inside [0, 1]
//! and ties those outside.
//!
//! After each epoch the network is validated on up to 150 held-out images and an anomaly of each, fixed by the seed.
//! With `patience` training stops when their loss no longer falls, and the best network is kept. The decision is
//! calibrated on all held-out images.
//!
//! # When to use
//! For small images whose anomalies are of another class, when no pretrained network is suitable. Not for small
//! defects: the training anomalies change the whole structure. Leave `rotation` and `mix-up` out of `anomalies` if
//! normal items come rotated.
//!
//! # Parameters
//! `anomalies`, `labels`, `margin` and those of the training. The paper gives no batch size, learning rate or penalty:
//! 32, a cyclic rate of up to 0.001 and an L2 penalty of 0.001 are our choice. It trains up to 10 epochs on MNIST and
//! 15 on CIFAR-10 with early stopping. The loss on made anomalies is no guide for stopping: it keeps falling while real
//! anomalies are detected less well (t-shirts of Fashion-MNIST: AUROC 77 after 10 passes over 6000 images without
//! penalty, 90 after 3 with one). `epochs=auto` therefore trains on a fixed number of images. Images smaller than the
//! input are padded with black. The network sees values in [0, 1].
//!
//! # Reference
//! Khazaie, Wong, Mohsenzadeh, *ADACL: Augment to Detect Anomalies with Continuous Labelling*, arXiv 2207.01112, 2022;
//! Khazaie's thesis, University of Western Ontario, 2022, chapter 4: section 4.3.2 for the network and its loss, 4.3.3
//! for the labels, 4.3.4 for the anomalies, table 4.1 for the figures.

mod network;
mod objective;

use nomaly_backbones::{Backbone, BackboneError, OutputLayout, TapRequest};
use nomaly_nn::runtime::Executor;
use nomaly_nn::weights::Weights;
use nomaly_scorers::State;
use nomaly_settings::{Assignments, Auto, SettingError, Settings, SettingsTable};
use nomaly_transforms::augment::AdaclKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::objective::{EXAMPLES, Labels, NormalOrAnomaly, Regression, taps};
use crate::features::{FeatureBatch, FeatureSource};
use crate::input::InputParams;
use crate::method::{
    Cost, FitContext, FittedMethod, Method, MethodEntry, MethodFit, MethodNetwork, MethodParams, Published, Sees,
};
use crate::networks::classifier::{INPUTS_PER_RUN, NetworkBuffers, STATE, StoredNetwork, TrainedNetwork};
use crate::networks::examples::Examples;
use crate::networks::images::views;
use crate::networks::set::{TrainingNeeds, TrainingSet};
use crate::score::MethodScore;
use crate::training::Schedule;
use crate::training::settings::TrainingParams;
use crate::workspace::MethodWorkspace;
use crate::{MethodError, PublishedClasses, state};

const NAME: &str = "adacl";
/// The name of the network in model files.
const NETWORK: &str = "adacl-cnn";
/// One image to hold out, and two to learn from.
const MIN_IMAGES: usize = 3;
const NEEDS: TrainingNeeds = TrainingNeeds { images: MIN_IMAGES, examples: EXAMPLES };

/// Table 4.1 of the thesis.
const ONE_VS_ALL: &[PublishedClasses] = &[
    PublishedClasses {
        dataset: "mnist",
        classes: &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
        on: "Khazaie 2022, all images of a digit",
        mean: 98.01,
        by_class: &[99.37, 99.30, 98.58, 97.36, 97.57, 98.43, 99.56, 98.09, 93.46, 98.38],
    },
    PublishedClasses {
        dataset: "fashion-mnist",
        classes: &[],
        on: "Khazaie 2022, all 6 000 images of a class",
        mean: 93.22,
        by_class: &[94.42, 99.46, 89.82, 91.05, 92.68, 90.40, 80.43, 97.88, 97.14, 98.88],
    },
    PublishedClasses {
        dataset: "cifar10",
        classes: &["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
        on: "Khazaie 2022, all 5 000 images of a class",
        mean: 76.80,
        by_class: &[73.89, 83.87, 67.47, 70.66, 69.51, 77.91, 72.66, 83.04, 87.64, 81.35],
    },
];

/// The registry's entry.
pub(crate) const ENTRY: MethodEntry = MethodEntry {
    name: NAME,
    summary: "a small network trained to tell normal images from anomalies made of them",
    paper: "Khazaie, Wong, Mohsenzadeh: ADACL: Augment to Detect Anomalies with Continuous Labelling (2022)",
    maps: false,
    min_images: MIN_IMAGES,
    cost: Cost {
        fit: "training on 24 000 images and as many anomalies made of them: a minute",
        predict: "one pass of a network of 250 000 parameters",
        memory: "the images at the size of the input, a byte a value, to fit; the network afterwards",
    },
    table: SettingsTable::of::<AdaclParams>,
    more: None,
    sees: Sees::Pixels,
    input: || InputParams::small(32),
    classes: false,
    trains: true,
    published: &[
        Published::image("MNIST, one class against nine", 98.01),
        Published::image("Fashion-MNIST, one class against nine", 93.22),
        Published::image("CIFAR-10, one class against nine", 76.80),
    ],
    one_vs_all: ONE_VS_ALL,
    build: |given, _| Ok(Box::new(Adacl::new(given.read()?))),
};

/// Parameters of ADACL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AdaclParams {
    /// How anomalies are made of training images; one is drawn each time.
    #[schemars(extend("x-values" = "some of `cut-paste`, `puzzle`, `rotation` and `mix-up`, joined by commas"))]
    pub anomalies: Vec<AdaclKind>,
    /// What the network learns to say: numbers drawn from intervals, or 0 and 1.
    pub labels: LabelKind,
    /// Width of the intervals of continuous labels, from 0 up and from 1 down.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 0.5))]
    pub margin: f64,
    /// How the network is trained.
    #[serde(flatten)]
    pub training: TrainingParams,
}

/// The labels of the training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LabelKind {
    /// Drawn from intervals.
    Continuous,
    /// 0 and 1.
    Discrete,
}

impl Default for AdaclParams {
    fn default() -> Self {
        Self {
            anomalies: AdaclKind::ALL.to_vec(),
            labels: LabelKind::Continuous,
            margin: 0.3,
            training: TrainingParams { schedule: Schedule::Cyclic, l2: 1e-3, ..TrainingParams::new(Auto::Auto, 32) },
        }
    }
}

impl MethodParams for AdaclParams {
    const METHOD: &'static str = NAME;
}

impl Settings for AdaclParams {
    fn check(&self) -> Result<(), SettingError> {
        self.training.check()?;
        let is_twice = |(place, kind): (usize, &AdaclKind)| self.anomalies[..place].contains(kind);
        if !self.anomalies.iter().enumerate().any(is_twice) {
            return Ok(());
        }
        let given: Vec<&str> = self.anomalies.iter().map(|kind| kind.name()).collect();
        Err(SettingError::value("anomalies", given.join(","), "each way once"))
    }
}

/// ADACL with checked parameters.
#[derive(Clone, Debug)]
pub struct Adacl {
    params: AdaclParams,
    taps: [TapRequest; 1],
}

impl Adacl {
    fn new(params: AdaclParams) -> Self {
        Self { params, taps: [TapRequest::pixels(OutputLayout::Nchw)] }
    }

    fn labels(&self) -> Labels {
        match self.params.labels {
            LabelKind::Continuous => Labels::Continuous(self.params.margin),
            LabelKind::Discrete => Labels::Discrete,
        }
    }
}

impl Method for Adacl {
    fn name(&self) -> &'static str {
        NAME
    }

    fn taps(&self) -> &[TapRequest] {
        &self.taps
    }

    fn settings(&self) -> Assignments {
        Assignments::of(&self.params)
    }

    fn check_input(&self, input: [usize; 2]) -> Result<(), MethodError> {
        Ok(self.params.anomalies.iter().try_for_each(|kind| kind.check(input))?)
    }

    fn fit(&self, source: &dyn FeatureSource, context: &FitContext<'_>) -> Result<MethodFit, MethodError> {
        let set = TrainingSet::collect(self, &self.params.training, source, context, NEEDS)?;
        let size = set.data.input_size();
        let examples = Examples::new(NormalOrAnomaly { kinds: &self.params.anomalies, labels: self.labels() }, &set)?;
        let mut objective = Regression { examples, learner: set.learner(&network::graph(1))? };
        let trained = set.train(&mut objective)?;
        let network = own_network(objective.learner.network.weights()?)?;
        let network = TrainedNetwork::new(network, &[size], &taps(), context.executor)?;
        let fitted = FittedAdacl { network, size, seed: context.seed };
        let mut buffers = fitted.network.buffers();
        let held_out = set.score_held_out(|planes| Ok(MethodScore::whole(fitted.outputs(planes, &mut buffers)?[0])))?;
        Ok(set.finish(Box::new(fitted), held_out, &trained, "with as many created anomalies an epoch"))
    }

    fn restore(
        &self,
        mut states: Vec<(String, State)>,
        executor: &Executor,
    ) -> Result<Box<dyn FittedMethod>, MethodError> {
        let network = state::only_named(STATE, &mut states)?;
        let StoredNetwork { network, size, seed } =
            TrainedNetwork::restore(NETWORK, network, own_network, &taps(), executor)?;
        Ok(Box::new(FittedAdacl { network, size, seed }))
    }
}

/// The network with its weights.
fn own_network(weights: Weights) -> Result<Backbone, BackboneError> {
    Backbone::of_graph(NETWORK, network::graph(1), weights)
}

/// Fitted ADACL.
pub struct FittedAdacl {
    network: TrainedNetwork,
    size: [usize; 2],
    seed: u64,
}

impl FittedAdacl {
    /// The network's output for views, given as planes `[n, 3, H, W]` in [0, 1].
    fn outputs(&self, planes: &[f32], buffers: &mut NetworkBuffers) -> Result<Vec<f64>, MethodError> {
        let each = 3 * self.size[0] * self.size[1];
        let mut all = Vec::with_capacity(planes.len() / each);
        for inputs in planes.chunks(INPUTS_PER_RUN * each) {
            let outputs = &self.network.run(&[inputs], buffers)?[0];
            all.extend(outputs.iter().map(|output| f64::from(*output)));
        }
        Ok(all)
    }
}

impl FittedMethod for FittedAdacl {
    fn score(
        &self,
        batch: &FeatureBatch<'_>,
        workspace: &mut MethodWorkspace,
    ) -> Result<Vec<MethodScore>, MethodError> {
        let views = views(batch, self.size)?;
        let buffers = workspace.get_or_insert_with(|| self.network.buffers());
        let outputs = self.outputs(views.as_slice().expect("rows are contiguous"), buffers)?;
        Ok(outputs.into_iter().map(MethodScore::whole).collect())
    }

    fn states(&self) -> Vec<(String, State)> {
        vec![(STATE.to_owned(), self.network.state(self.seed))]
    }

    fn network(&self) -> Option<MethodNetwork<'_>> {
        let classes = vec!["anomaly".to_owned()];
        Some(MethodNetwork { backbone: self.network.backbone(), input: [1.0, 0.0], classes })
    }
}

#[cfg(test)]
mod tests {
    use nomaly_nn::init::he_normal;
    use nomaly_scorers::Tensor;

    use super::*;

    fn read(pairs: &[&str]) -> Result<AdaclParams, SettingError> {
        Assignments::parse(pairs)?.read()
    }

    #[test]
    fn settings_in_full_make_the_same_method() {
        for given in [
            &[] as &[&str],
            &["anomalies=puzzle,cut-paste", "labels=discrete", "epochs=15"],
            &["margin=0.1", "patience=none"],
        ] {
            let stored = Adacl::new(read(given).unwrap()).settings();
            assert_eq!(Adacl::new(stored.read().unwrap()).settings(), stored);
            for pair in given {
                let (key, value) = pair.split_once('=').unwrap();
                assert_eq!(stored.text(key).as_deref(), Some(value));
            }
        }
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        let given =
            ["anomalies=blur", "anomalies=puzzle,puzzle", "anomalies=", "labels=soft", "margin=0.5", "margin=0"];
        for given in given {
            let name = given.split('=').next().unwrap();
            assert!(matches!(read(&[given]), Err(SettingError::Value { name: at, .. }) if at == name), "{given}");
        }
    }

    #[test]
    fn a_stored_network_is_checked() {
        let method = Adacl::new(AdaclParams::default());
        let weights = he_normal(&network::graph(1), 3);
        let executor = Executor::cpu().unwrap();
        let network = TrainedNetwork::new(own_network(weights).unwrap(), &[[32, 32]], &taps(), &executor).unwrap();
        let state = FittedAdacl { network, size: [32, 32], seed: 7 }.states().remove(0).1;
        let restored =
            |name: &str, state: State| method.restore(vec![(name.to_owned(), state)], &Executor::cpu().unwrap());
        assert_eq!(restored(STATE, state.clone()).unwrap().states()[0].1, state);
        assert!(restored("scorer", state.clone()).is_err());
        assert!(method.restore(Vec::new(), &executor).is_err());
        let edits: [fn(&mut State); 10] = [
            |state| state.kind = "resnet18".to_owned(),
            |state| state.config = serde_json::json!({ "size": [0, 32], "seed": 7 }),
            |state| state.config = serde_json::json!({ "size": [32, 1_000_000], "seed": 7 }),
            |state| state.config = serde_json::json!({ "size": [32, 32], "seed": 7, "more": 1 }),
            |state| state.config = serde_json::json!({ "size": [[32, 32], [32, 32]], "seed": 7 }),
            |state| state.config = serde_json::json!({ "size": [], "seed": 7 }),
            |state| drop(state.tensors.remove("conv3.weight")),
            |state| drop(state.tensors.insert("fc2.bias".to_owned(), Tensor::f32([1], vec![f32::NAN]))),
            |state| drop(state.tensors.insert("fc2.bias".to_owned(), Tensor::f64([1], vec![0.0]))),
            |state| drop(state.tensors.insert("fc1.bias".to_owned(), Tensor::f32([1], vec![0.0]))),
        ];
        for (number, edit) in edits.into_iter().enumerate() {
            let mut state = state.clone();
            edit(&mut state);
            assert!(restored(STATE, state).is_err(), "edit {number} is taken");
        }
        let wider = Backbone::of_graph(NETWORK, network::graph(2), he_normal(&network::graph(2), 3)).unwrap();
        let network = TrainedNetwork::new(wider, &[[32, 32]], &taps(), &executor).unwrap();
        let message = restored(STATE, network.state(7)).err().unwrap().to_string();
        assert!(message.contains("`fc2.weight` is [2, 64] in the weights, but [1, 64] in adacl-cnn"), "{message}");
    }
}
