// A custom method that trains a network and makes maps: an autoencoder restores good images, and what it cannot restore
// is anomalous.
//
// `cargo run --release -p nomaly --example own_autoencoder`. In the library such a method is one folder of
// `crates/nomaly-methods/src/methods` and a line in the registry, which allows loading its models.

use std::sync::Arc;

use image::{Rgb, RgbImage};
use nomaly::backbones::{Backbone, OutputLayout, TapRequest};
use nomaly::data::ImageSource;
use nomaly::devices::Executor;
use nomaly::kernels::Isa;
use nomaly::methods::{
    DEFAULT_SIGMA, FeatureBatch, FeatureSource, FitContext, FittedMethod, Method, MethodError, MethodFit, MethodScore,
    MethodWorkspace, finish_maps,
};
use nomaly::params::InputParams;
use nomaly::scorers::State;
use nomaly::settings::Auto;
use nomaly::store::Silent;
use nomaly::training::{
    Activation, Batch, ConvOptions, ConvTransposeOptions, Graph, GraphBuilder, Learner, Losses, NetworkStreams,
    Objective, Pass, Schedule, StoredNetwork, TrainedNetwork, TrainingNeeds, TrainingParams, TrainingSet,
    mean_squared_error, pytorch_default,
};
use nomaly::{Assignments, Detector, FitOptions, Label, PredictOptions, Sample};

const NAME: &str = "autoencoder";

/// Three convolutions of stride 2 to a code of 8 channels, and three transposed ones back to an image.
fn graph() -> Graph {
    let mut builder = GraphBuilder::new(3);
    let mut x = GraphBuilder::INPUT;
    for (layer, channels) in [("down1", 16), ("down2", 32), ("code", 8)] {
        x = builder.conv_with_bias(x, layer, channels, ConvOptions::padded(4, 2, 1));
        x = builder.activation(x, Activation::Relu);
    }
    for (layer, channels) in [("up1", 32), ("up2", 16)] {
        x = builder.conv_transpose(x, layer, channels, ConvTransposeOptions::new(4, 2, 1));
        x = builder.activation(x, Activation::Relu);
    }
    let image = builder.conv_transpose(x, "image", 3, ConvTransposeOptions::new(4, 2, 1));
    builder.tap("image", image);
    builder.finish().expect("the layers fit each other")
}

/// The tap of the trained network.
fn restored() -> [TapRequest; 1] {
    [TapRequest::new("image", OutputLayout::Nchw)]
}

/// The method: how it is trained, and that it sees pixels.
struct Autoencoder {
    epochs: usize,
    training: TrainingParams,
    taps: [TapRequest; 1],
}

impl Autoencoder {
    fn new(epochs: usize) -> Self {
        let training = TrainingParams {
            rate: Auto::Value(0.002),
            schedule: Schedule::Cosine,
            clip_norm: Some(1.0),
            ..TrainingParams::new(Auto::Value(epochs), 4)
        };
        Self { epochs, training, taps: [TapRequest::pixels(OutputLayout::Nchw)] }
    }
}

/// The mean squared error of restored views.
struct Restoration<'a> {
    set: &'a TrainingSet<'a>,
    learner: Learner,
    images: [Vec<f32>; 1],
    gradient: Vec<f32>,
}

impl Objective for Restoration<'_> {
    fn examples(&self) -> usize {
        self.set.train.len()
    }

    fn learners(&mut self) -> Vec<(&'static str, &mut Learner)> {
        vec![(NAME, &mut self.learner)]
    }

    fn step(&mut self, batch: &Batch<'_>) -> Result<Losses, MethodError> {
        let Self { set, learner, images, gradient } = self;
        let views: Vec<usize> = batch.examples.iter().map(|&example| set.train[example as usize]).collect();
        set.data.read(&views, images)?;
        learner.network.run(&[&images[0]], Pass::Train)?;
        gradient.resize(images[0].len(), 0.0);
        let loss = mean_squared_error(Isa::best()?, learner.network.output(0), &images[0], gradient)?;
        learner.network.backward(&[gradient])?;
        learner.step()?;
        Ok(f64::from(loss).into())
    }
}

impl Method for Autoencoder {
    fn name(&self) -> &'static str {
        NAME
    }

    fn taps(&self) -> &[TapRequest] {
        &self.taps
    }

    fn settings(&self) -> Assignments {
        Assignments::new().with("epochs", self.epochs)
    }

    fn fit(&self, source: &dyn FeatureSource, context: &FitContext<'_>) -> Result<MethodFit, MethodError> {
        let needs = TrainingNeeds { images: 3, examples: 1 };
        let set = TrainingSet::collect(self, &self.training, source, context, needs)?;
        let (graph, size) = (graph(), set.data.input_size());
        let weights = pytorch_default(&graph, NetworkStreams::new(context.seed, NAME).initialization());
        let learner = set.learner_at(&graph, &weights, &["image"])?;
        let mut objective = Restoration { set: &set, learner, images: [Vec::new()], gradient: Vec::new() };
        let trained = set.train(&mut objective)?;
        let network = Backbone::of_graph(NAME, graph, objective.learner.network.weights()?)?;
        let network = TrainedNetwork::new(network, &[size], &restored(), context.executor)?;
        let fitted = FittedAutoencoder { network, seed: context.seed };
        let held_out = set.score_held_out_with(&fitted)?;
        Ok(set.finish(Box::new(fitted), held_out, &trained, "each once an epoch"))
    }

    fn restore(&self, states: Vec<(String, State)>, executor: &Executor) -> Result<Box<dyn FittedMethod>, MethodError> {
        let missing = || MethodError::State { state: NAME.to_owned(), reason: None };
        let [(_, state)] = <[_; 1]>::try_from(states).map_err(|_| missing())?;
        let open = |weights| Backbone::of_graph(NAME, graph(), weights);
        let StoredNetwork { network, seed, .. } = TrainedNetwork::restore(NAME, state, open, &restored(), executor)?;
        Ok(Box::new(FittedAutoencoder { network, seed }))
    }
}

/// The fitted method.
struct FittedAutoencoder {
    network: TrainedNetwork,
    seed: u64,
}

impl FittedMethod for FittedAutoencoder {
    fn score(
        &self,
        batch: &FeatureBatch<'_>,
        workspace: &mut MethodWorkspace,
    ) -> Result<Vec<MethodScore>, MethodError> {
        let buffers = workspace.get_or_insert_with(|| self.network.buffers());
        let views = batch.rows(0, self.network.shape(0).iter().product())?;
        let restored = &self.network.run(&[&batch.values[0]], buffers)?[0];
        let positions = batch.input[0] * batch.input[1];
        let mut errors = Vec::with_capacity(views.nrows() * positions);
        for (view, restored) in batch.values[0].chunks(3 * positions).zip(restored.chunks(3 * positions)) {
            let error = |at: usize| (view[at] - restored[at]).powi(2) / 3.0;
            errors.extend(
                (0..positions).map(|at| [0, 1, 2].map(|channel| error(channel * positions + at)).iter().sum::<f32>()),
            );
        }
        let maps = finish_maps(batch, errors, DEFAULT_SIGMA)?;
        Ok(maps.into_iter().map(|map| MethodScore::located(map.max(), map)).collect())
    }

    fn states(&self) -> Vec<(String, State)> {
        vec![(NAME.to_owned(), self.network.state(self.seed))]
    }
}

/// Waves of a random phase; a defect is a red square of 8 pixels at the place.
fn sample(number: u32, defect: Option<[u32; 2]>) -> Sample {
    let phase = (number * 37 % 100) as f32 / 100.0;
    let image = RgbImage::from_fn(64, 64, |x, y| {
        let wave = (std::f32::consts::TAU * ((x as f32 + 0.5 * y as f32) / 32.0 + phase)).sin();
        let inside = |[left, top]: [u32; 2]| (left..left + 8).contains(&x) && (top..top + 8).contains(&y);
        if defect.is_some_and(inside) { Rgb([220, 40, 40]) } else { Rgb([(150.0 + 50.0 * wave) as u8; 3]) }
    });
    let label = if defect.is_some() { Label::Anomalous } else { Label::Normal };
    let source = ImageSource::Memory(Arc::new(image));
    Sample { id: format!("{number}"), source, label, kind: "wave".to_owned(), mask: None }
}

/// Returns on how many defects the map is largest, and the number of defects.
fn run(epochs: usize) -> Result<[usize; 2], Box<dyn std::error::Error>> {
    let good: Vec<Sample> = (0..40).map(|number| sample(number, None)).collect();
    let places: Vec<[u32; 2]> = (0..12).map(|number| [4 + number * 29 % 49, 4 + number * 17 % 49]).collect();
    let bad: Vec<Sample> = (41..).zip(&places).map(|(number, place)| sample(number, Some(*place))).collect();
    let input = InputParams { input_size: Auto::Value(64), ..InputParams::default() };
    let detector = Detector::of_pixels(Box::new(Autoencoder::new(epochs)), &input, &Executor::cpu()?)?;
    let fit = detector.fit("waves", &good, &FitOptions::default(), &Silent)?;
    fit.notes.iter().for_each(|note| println!("{note}"));
    let (mut found, mut place) = (0, places.iter());
    fit.detector.predict(&bad, &PredictOptions::default(), &Silent, |outcome| {
        let map = outcome.result.expect("the image is in memory").map.expect("the method makes maps");
        let largest = (0..map.values.len()).max_by(|&a, &b| map.values[a].total_cmp(&map.values[b])).unwrap_or(0);
        let on = |at: usize, from: u32| (from as usize..from as usize + 8).contains(&at);
        found += usize::from(place.next().is_some_and(|[left, top]| on(largest % 64, *left) && on(largest / 64, *top)));
        Ok(())
    })?;
    println!("the map is largest on {found} of {} defects", bad.len());
    Ok([found, bad.len()])
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    run(100).map(drop)
}
