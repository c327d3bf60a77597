//! Two networks against each other: killed in the middle of their training, they end with the same bytes.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nomaly_kernels::Isa;
use nomaly_kernels::geometry::Activation;
use nomaly_kernels::training::binary_cross_entropy;
use nomaly_methods::MethodError;
use nomaly_methods::training::{
    Batch, Checkpoint, Learner, Losses, NetworkStreams, Objective, Schedule, StreamUse, Trained, TrainingPlan, Warmup,
    tap_node, train,
};
use nomaly_nn::graph::{ConvOptions, ConvTransposeOptions, Graph, GraphBuilder};
use nomaly_nn::init::pytorch_default;
use nomaly_nn::runtime::{Executor, TrainableNetwork};
use nomaly_nn::trainable::{Clip, OptimizerState, Pass, Rule};
use nomaly_nn::weights::Weights;
use nomaly_store::Silent;
use rand::RngExt;

const SEED: u64 = 11;
const IMAGES: usize = 20;
const BATCH: usize = 4;
const EPOCHS: usize = 12;
const STEPS: u64 = (EPOCHS * IMAGES / BATCH) as u64;
/// Updates of the critic in a step.
const CRITIC_UPDATES: u64 = 2;
/// The generator learns in every third step.
const PERIOD: u64 = 3;
/// Values of a latent code, and of an image.
const LATENT: usize = 4 * 16;
const IMAGE: usize = 64;

fn generator() -> Graph {
    let mut builder = GraphBuilder::new(4);
    let x = builder.conv_transpose(GraphBuilder::INPUT, "up", 6, ConvTransposeOptions::new(4, 2, 1));
    let x = builder.batch_norm(x, "norm", 1e-5);
    let x = builder.activation(x, Activation::Relu);
    let x = builder.conv_with_bias(x, "image", 1, ConvOptions::centered(3, 1));
    builder.tap("image", x);
    builder.finish().unwrap()
}

fn critic() -> Graph {
    let mut builder = GraphBuilder::new(1);
    let x = builder.conv_with_bias(GraphBuilder::INPUT, "down", 6, ConvOptions::padded(4, 2, 1));
    let x = builder.activation(x, Activation::Relu);
    let x = builder.dropout(x, 0.2);
    builder.classifier(x, "verdict", 1);
    builder.finish().unwrap()
}

/// A generator and a critic with optimizers of their own.
struct Adversaries {
    generator: Learner,
    critic: Learner,
    streams: [NetworkStreams; 2],
    /// After each step, so that a kill meets a training.
    pause: Duration,
    latents: Vec<f32>,
    generator_updates: u64,
    /// A third network, which learns by itself.
    encoder: Option<(Learner, NetworkStreams)>,
}

fn learner(graph: &Graph, tap: &str, size: usize, rule: Rule, streams: &NetworkStreams) -> Learner {
    let weights = pytorch_default(graph, streams.initialization());
    let (executor, output) = (Executor::cpu().unwrap(), tap_node(graph, tap).unwrap());
    Learner::new(executor.runtime().trainable(graph, &weights, &[[size; 2]], &[output]).unwrap(), rule)
}

impl Adversaries {
    fn new(pause: Duration) -> Self {
        let streams = ["generator", "critic"].map(|name| NetworkStreams::new(SEED, name));
        let mut critic =
            learner(&critic(), "logits", 8, Rule::sgd(0.05, 0.9), &streams[1]).with_clip(Some(Clip::Value(0.1)));
        critic.network.set_input_gradient(true);
        Self {
            generator: learner(&generator(), "image", 4, Rule::adam(0.01), &streams[0]),
            critic,
            streams,
            pause,
            latents: Vec::new(),
            generator_updates: 0,
            encoder: None,
        }
    }

    /// Draws the codes of the examples of an update, each from a stream of its own.
    fn draw_latents(&mut self, batch: &Batch<'_>, update: u64) {
        self.latents.clear();
        for place in 0..batch.examples.len() as u64 {
            let number = (batch.step * (CRITIC_UPDATES + 1) + update) * BATCH as u64 + place;
            let mut random = self.streams[0].numbers(StreamUse::Latents, number);
            self.latents.extend((0..LATENT).map(|_| 2.0 * random.random::<f32>() - 1.0));
        }
    }

    /// The critic's loss on images that have this label, whose gradients it hands back.
    fn judge(critic: &mut dyn TrainableNetwork, images: &[f32], label: f32) -> Result<f64, MethodError> {
        critic.run(&[images], Pass::Train)?;
        let labels = vec![label; critic.output(0).len()];
        let mut gradient = vec![0.0; labels.len()];
        let loss = binary_cross_entropy(Isa::best()?, critic.output(0), &labels, &mut gradient)?;
        critic.backward(&[&gradient])?;
        Ok(f64::from(loss))
    }
}

/// A bright square whose place depends on the number.
fn real(example: u32) -> [f32; IMAGE] {
    std::array::from_fn(|at| {
        let (left, top) = (example as usize % 5, example as usize / 5);
        if (left..left + 3).contains(&(at % 8)) && (top..top + 3).contains(&(at / 8)) { 1.0 } else { 0.0 }
    })
}

impl Objective for Adversaries {
    fn examples(&self) -> usize {
        IMAGES
    }

    fn learners(&mut self) -> Vec<(&'static str, &mut Learner)> {
        let mut learners = vec![("generator", &mut self.generator), ("critic", &mut self.critic)];
        learners.extend(self.encoder.as_mut().map(|(encoder, _)| ("encoder", encoder)));
        learners
    }

    fn step(&mut self, batch: &Batch<'_>) -> Result<Losses, MethodError> {
        let images: Vec<f32> = batch.examples.iter().flat_map(|&example| real(example)).collect();
        self.critic.network.seed_dropout(self.streams[1].dropout(batch.step));
        let mut of_critic = 0.0;
        for update in 0..CRITIC_UPDATES {
            self.draw_latents(batch, update);
            self.generator.network.run(&[&self.latents], Pass::Train)?;
            let critic = &mut self.critic.network;
            critic.set_accumulating(true);
            critic.clear_gradients();
            of_critic = Self::judge(&mut **critic, &images, 1.0)?;
            of_critic += Self::judge(&mut **critic, self.generator.network.output(0), 0.0)?;
            critic.set_accumulating(false);
            self.critic.step()?;
        }
        let mut parts = vec![("critic", of_critic)];
        if batch.step % PERIOD == PERIOD - 1 {
            self.draw_latents(batch, CRITIC_UPDATES);
            let Self { generator, critic, .. } = self;
            generator.network.run(&[&self.latents], Pass::Train)?;
            critic.network.set_frozen(true);
            let loss = Self::judge(&mut *critic.network, generator.network.output(0), 1.0)?;
            critic.network.set_frozen(false);
            generator.network.backward(&[critic.network.input_gradient(0)])?;
            generator.step()?;
            self.generator_updates += 1;
            parts.push(("generator", loss));
        }
        if let Some((encoder, streams)) = &mut self.encoder {
            let mut random = streams.numbers(StreamUse::Noise, batch.step);
            let noise: Vec<f32> = images.iter().map(|value| value + random.random::<f32>()).collect();
            encoder.network.seed_dropout(streams.dropout(batch.step));
            Self::judge(&mut *encoder.network, &noise, 1.0)?;
            encoder.step()?;
        }
        std::thread::sleep(self.pause);
        Ok(Losses { total: of_critic, parts })
    }
}

/// The networks after a training, with their optimizers.
type Networks = Vec<(Weights, OptimizerState)>;

fn plan() -> TrainingPlan {
    let (schedule, warmup) = (Schedule::Cosine, Warmup::None);
    TrainingPlan { epochs: EPOCHS, batch: BATCH, schedule, warmup, patience: None, seed: SEED }
}

fn trained(folder: Option<&Path>, pause: Duration) -> (Networks, Trained, u64) {
    let mut objective = Adversaries::new(pause);
    let checkpoint = folder.map(|folder| Checkpoint::new(folder, b"adversaries"));
    let trained = train(&plan(), &mut objective, checkpoint.as_ref(), &Silent, &mut |_| {}).unwrap();
    let updates = objective.generator_updates;
    let networks = objective.learners().into_iter();
    (
        networks
            .map(|(_, learner)| (learner.network.weights().unwrap(), learner.network.optimizer_state().unwrap()))
            .collect(),
        trained,
        updates,
    )
}

/// Names the folder to a child.
const FOLDER: &str = "NOMALY_TEST_ADVERSARIES";

/// This test again, in a process of its own, which only trains.
fn child(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "adversarial::what_is_killed_goes_on_to_the_same_bytes"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits for a checkpoint other than this one.
fn next_checkpoint(child: &mut Child, path: &Path, before: &[u8]) -> Vec<u8> {
    let begun = Instant::now();
    loop {
        match std::fs::read(path) {
            Ok(bytes) if bytes != before => return bytes,
            _ => assert!(begun.elapsed() < Duration::from_secs(120), "no checkpoint is written"),
        }
        assert!(child.try_wait().unwrap().is_none(), "the training ended before it was killed");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn what_is_killed_goes_on_to_the_same_bytes() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        trained(Some(Path::new(&folder)), Duration::from_millis(40));
        return;
    }
    let (expected, uninterrupted, updates) = trained(None, Duration::ZERO);
    assert_eq!((uninterrupted.resumed, updates), (None, STEPS / PERIOD));
    let folder = tempfile::tempdir().unwrap();
    let path = Checkpoint::new(folder.path(), b"adversaries").path().to_owned();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut child = child(folder.path());
        seen = next_checkpoint(&mut child, &path, &seen);
        // Into the epoch after the checkpoint, whose steps are lost.
        std::thread::sleep(Duration::from_millis(60));
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
    }
    let (found, resumed, rest) = trained(Some(folder.path()), Duration::ZERO);
    let step = resumed.resumed.unwrap();
    assert!((1..STEPS).contains(&step) && rest < updates, "{step} {rest}");
    assert_eq!(resumed.history, uninterrupted.history);
    assert!(found == expected, "the networks or their optimizers differ");
}

#[test]
fn another_network_shifts_no_random_numbers_of_the_others() {
    let (alone, ..) = trained(None, Duration::ZERO);
    let encoder = NetworkStreams::new(SEED, "encoder");
    let graph = critic();
    let mut objective = Adversaries::new(Duration::ZERO);
    objective.encoder = Some((learner(&graph, "logits", 8, Rule::adam(0.01), &encoder), encoder));
    train(&plan(), &mut objective, None, &Silent, &mut |_| {}).unwrap();
    let (encoder, _) = objective.encoder.take().unwrap();
    assert_eq!(encoder.network.optimizer_state().unwrap().steps, STEPS);
    let weights: Vec<Weights> =
        objective.learners().into_iter().map(|(_, one)| one.network.weights().unwrap()).collect();
    assert!(weights.iter().eq(alone.iter().map(|(weights, _)| weights)), "the networks differ");
}
