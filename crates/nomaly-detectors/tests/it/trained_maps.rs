//! A trained method that makes maps of cached taps: features of a frozen network are restored from a few channels.

use nomaly_backbones::{Backbone, BackboneError, OutputLayout, TapRequest};
use nomaly_detectors::{Detector, FitOptions, PredictOptions, StreamOptions};
use nomaly_kernels::Isa;
use nomaly_kernels::training::mean_squared_error;
use nomaly_methods::networks::{FitData, StoredNetwork, TrainedNetwork, TrainingNeeds, TrainingSet};
use nomaly_methods::training::{Batch, Learner, Losses, NetworkStreams, Objective, TrainingParams};
use nomaly_methods::{
    DEFAULT_SIGMA, FeatureBatch, FeatureSource, FitContext, FittedMethod, InputParams, MapMaker, Method, MethodError,
    MethodFit, MethodScore, MethodWorkspace, Tiles,
};
use nomaly_nn::graph::{ConvOptions, Graph, GraphBuilder};
use nomaly_nn::init::pytorch_default;
use nomaly_nn::runtime::Executor;
use nomaly_nn::weights::Weights;
use nomaly_scorers::State;
use nomaly_settings::{Assignments, Auto, Memory};
use nomaly_store::Silent;

use crate::images::{blot, good};

const NAME: &str = "restored-features";
/// Channels of the taps.
const CHANNELS: [usize; 2] = [16, 24];

/// A network of two inputs: each tap is restored from four channels, the deeper one with the code of the other.
fn graph() -> Graph {
    let mut builder = GraphBuilder::new(CHANNELS[0]);
    let deep = builder.input(CHANNELS[1]);
    let shallow = builder.conv_with_bias(GraphBuilder::INPUT, "shallow.code", 4, ConvOptions::centered(1, 1));
    let restored = builder.conv_with_bias(shallow, "shallow.restored", CHANNELS[0], ConvOptions::centered(1, 1));
    builder.tap("shallow", restored);
    let down = builder.conv_with_bias(shallow, "deep.down", 4, ConvOptions::centered(3, 2));
    let own = builder.conv_with_bias(deep, "deep.code", 4, ConvOptions::centered(1, 1));
    let code = builder.add(down, own);
    let restored = builder.conv_with_bias(code, "deep.restored", CHANNELS[1], ConvOptions::centered(1, 1));
    builder.tap("deep", restored);
    builder.finish().unwrap()
}

fn opened(weights: Weights) -> Result<Backbone, BackboneError> {
    Backbone::of_graph(NAME, graph(), weights)
}

fn restored() -> [TapRequest; 2] {
    ["shallow", "deep"].map(|tap| TapRequest::new(tap, OutputLayout::Nchw))
}

struct RestoredFeatures {
    training: TrainingParams,
    taps: [TapRequest; 2],
    max_memory: u64,
    /// Whether features in the cache are compared with those of another visit.
    compares: bool,
}

impl RestoredFeatures {
    fn new(max_memory: u64) -> Self {
        let training = TrainingParams { rate: Auto::Value(0.01), ..TrainingParams::new(Auto::Value(12), 6) };
        let taps = ["stage1", "stage2"].map(|tap| TapRequest::new(tap, OutputLayout::Nchw));
        Self { training, taps, max_memory, compares: false }
    }
}

struct Restoration<'a> {
    set: &'a TrainingSet<'a>,
    learner: Learner,
    taps: [Vec<f32>; 2],
}

impl Objective for Restoration<'_> {
    fn examples(&self) -> usize {
        self.set.train.len()
    }

    fn learners(&mut self) -> Vec<(&'static str, &mut Learner)> {
        vec![("restorer", &mut self.learner)]
    }

    fn step(&mut self, batch: &Batch<'_>) -> Result<Losses, MethodError> {
        let Self { set, learner: Learner { network, .. }, taps } = self;
        let views: Vec<usize> = batch.examples.iter().map(|&example| set.train[example as usize]).collect();
        set.data.read(&views, taps)?;
        network.run(&[&taps[0], &taps[1]], Default::default())?;
        let mut loss = 0.0;
        let mut gradients = [Vec::new(), Vec::new()];
        for (tap, gradient) in gradients.iter_mut().enumerate() {
            gradient.resize(taps[tap].len(), 0.0);
            let own = mean_squared_error(Isa::best()?, network.output(tap), &taps[tap], gradient)?;
            loss += f64::from(own);
        }
        network.backward(&[&gradients[0], &gradients[1]])?;
        self.learner.step()?;
        Ok(loss.into())
    }
}

impl Method for RestoredFeatures {
    fn name(&self) -> &'static str {
        NAME
    }

    fn taps(&self) -> &[TapRequest] {
        &self.taps
    }

    fn settings(&self) -> Assignments {
        Assignments::new()
    }

    fn max_memory(&self) -> Memory {
        Memory(self.max_memory)
    }

    fn fit(&self, source: &dyn FeatureSource, context: &FitContext<'_>) -> Result<MethodFit, MethodError> {
        let needs = TrainingNeeds { images: 3, examples: 1 };
        let set = TrainingSet::collect(self, &self.training, source, context, needs)?;
        if self.compares {
            compare(&set.data, source)?;
        }
        let sizes: Vec<[usize; 2]> = set.data.shapes().iter().map(|[_, height, width]| [*height, *width]).collect();
        let weights = pytorch_default(&graph(), NetworkStreams::new(context.seed, NAME).initialization());
        let learner = set.learner_at(&graph(), &weights, &["shallow", "deep"])?;
        let mut objective = Restoration { set: &set, learner, taps: Default::default() };
        let trained = set.train(&mut objective)?;
        assert!(trained.history[11].loss < 0.5 * trained.history[0].loss, "{trained}");
        let network =
            TrainedNetwork::new(opened(objective.learner.network.weights()?)?, &sizes, &restored(), context.executor)?;
        let states = FittedRestorer { network, seed: context.seed }.states();
        // What is not in the states is not in the fitted method.
        let fitted = self.restore(states, context.executor)?;
        let held_out = set.score_held_out_with(&*fitted)?;
        Ok(set.finish(fitted, held_out, &trained, "each once an epoch"))
    }

    fn restore(&self, states: Vec<(String, State)>, executor: &Executor) -> Result<Box<dyn FittedMethod>, MethodError> {
        let [(_, state)] = <[_; 1]>::try_from(states).unwrap();
        let StoredNetwork { network, seed, .. } = TrainedNetwork::restore(NAME, state, opened, &restored(), executor)?;
        Ok(Box::new(FittedRestorer { network, seed }))
    }
}

/// Compares cached features with those of another visit.
fn compare(data: &FitData, source: &dyn FeatureSource) -> Result<(), MethodError> {
    let FitData::Taps(store) = data else { panic!("the method sees taps") };
    let mut view = 0;
    let (mut squares, mut errors) = (0.0, 0.0);
    source.visit(&Silent, &mut |batch| {
        for place in 0..batch.images * batch.views {
            let mut cached = [Vec::new(), Vec::new()];
            store.read(&[view], &mut cached)?;
            for (cached, values) in cached.iter().zip(batch.values) {
                let values = &values[place * cached.len()..(place + 1) * cached.len()];
                for (cached, value) in cached.iter().zip(values) {
                    let error = (cached - value).abs();
                    assert!(error <= value.abs() * 2f32.powi(-11) + 1e-9, "{cached} {value}");
                    errors += f64::from(error).powi(2);
                    squares += f64::from(*value).powi(2);
                }
            }
            view += 1;
        }
        Ok(())
    })?;
    assert_eq!(view, store.inputs());
    let relative = (errors / squares).sqrt();
    println!("cached features are off by {relative:.2e} of their root mean square");
    assert!(relative < 3e-4, "{relative}");
    Ok(())
}

struct FittedRestorer {
    network: TrainedNetwork,
    seed: u64,
}

impl FittedMethod for FittedRestorer {
    fn score(
        &self,
        batch: &FeatureBatch<'_>,
        workspace: &mut MethodWorkspace,
    ) -> Result<Vec<MethodScore>, MethodError> {
        let buffers = workspace.get_or_insert_with(|| self.network.buffers());
        let [shallow, deep] = batch.values else { panic!("the method has two taps") };
        let restored = self.network.run(&[shallow, deep], buffers)?;
        let mut maps: Vec<MethodScore> = Vec::new();
        for ((tap, restored), [channels, height, width]) in batch.values.iter().zip(restored).zip(batch.shapes) {
            let positions = height * width;
            let mut distances = Vec::new();
            for (view, restored) in tap.chunks(channels * positions).zip(restored.chunks(channels * positions)) {
                let error = |at: usize| (view[at] - restored[at]).powi(2);
                let of = |at: usize| (0..*channels).map(|channel| error(channel * positions + at)).sum::<f32>();
                distances.extend((0..positions).map(of));
            }
            let maker = MapMaker::new(batch, [*height, *width], DEFAULT_SIGMA / 2.0)?;
            for (place, map) in maker.maps(&distances)?.into_iter().enumerate() {
                match maps.get_mut(place).and_then(|score| score.map.as_mut()) {
                    Some(sum) => sum.values.iter_mut().zip(map.values).for_each(|(sum, value)| *sum += value),
                    None => maps.push(MethodScore::located(0.0, map)),
                }
            }
        }
        let scored = |score: MethodScore| {
            let map = score.map.expect("each has one");
            MethodScore::located(map.max(), map)
        };
        Ok(maps.into_iter().map(scored).collect())
    }

    fn states(&self) -> Vec<(String, State)> {
        vec![(NAME.to_owned(), self.network.state(self.seed))]
    }
}

fn fitted(method: RestoredFeatures, input: &InputParams, batch: usize) -> (Vec<u8>, nomaly_detectors::FitResult) {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path().join("checkpoints");
    let detector = Detector::of(Box::new(method), "efficientnet-lite0", input, &Executor::cpu().unwrap()).unwrap();
    let stream = StreamOptions { batch, ..StreamOptions::default() };
    let options = FitOptions { stream, ..FitOptions::default() };
    let fit = detector.with_checkpoints(&checkpoints).fit("stripes", &good(16), &options, &Silent).unwrap();
    let path = folder.path().join("model.nomaly");
    fit.save(&path).unwrap();
    assert_eq!(std::fs::read_dir(&checkpoints).unwrap().count(), 0, "files are left");
    (std::fs::read(path).unwrap(), fit)
}

fn input() -> InputParams {
    InputParams { input_size: Auto::Value(64), ..InputParams::default() }
}

#[test]
fn memory_batches_and_threads_do_not_change_the_model() {
    let model = |max_memory, batch, threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| fitted(RestoredFeatures::new(max_memory), &input(), batch).0)
    };
    let expected = model(1 << 30, 8, 1);
    // One view takes 2 · (16 · 32² + 24 · 16²) bytes: all, five and none of 16 are in memory.
    for (max_memory, batch, threads) in [(5 * 45_056 + 100, 3, 3), (0, 16, 2)] {
        assert!(model(max_memory, batch, threads) == expected, "{max_memory} {batch} {threads}");
    }
}

#[test]
fn cached_features_are_those_of_the_network() {
    fitted(RestoredFeatures { compares: true, ..RestoredFeatures::new(1 << 30) }, &input(), 8);
}

#[test]
fn maps_show_blots_and_are_calibrated() {
    let tiled = InputParams { tiles: Tiles { rows: 2, columns: 2 }, ..input() };
    for input in [input(), tiled] {
        let (_, fit) = fitted(RestoredFeatures::new(1 << 30), &input, 8);
        assert_eq!(fit.held_out.len(), 3);
        assert!(fit.detector.calibration().map_threshold().is_some() || fit.held_out.len() < 20);
        let blots: Vec<_> = (0..6).map(blot).collect();
        let samples: Vec<_> = blots.iter().map(|(sample, _)| sample.clone()).collect();
        let highest = fit.held_out.iter().map(|image| image.score).fold(0.0, f64::max);
        let (mut found, mut higher, mut place) = (0, 0, blots.iter().map(|(_, place)| *place));
        fit.detector
            .predict(&samples, &PredictOptions::default(), &Silent, |outcome| {
                let prediction = outcome.result.unwrap();
                higher += usize::from(prediction.score > highest);
                let map = fit.detector.map_on_image(prediction.map.as_ref().unwrap(), outcome.size.unwrap())?;
                let largest = (0..map.values.len()).max_by(|&a, &b| map.values[a].total_cmp(&map.values[b])).unwrap();
                let [left, top, side] = place.next().unwrap().map(|value| value as usize);
                let inside = |at: usize, from: usize| (from.saturating_sub(2)..from + side + 2).contains(&at);
                found += usize::from(inside(largest % map.width, left) && inside(largest / map.width, top));
                Ok(())
            })
            .unwrap();
        assert!(found == 6 && higher == 6, "{found} found, {higher} higher with {:?}", input.tiles);
    }
}
