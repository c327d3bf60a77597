// A custom method with an anomaly map: how much brighter or darker each position is than in good images.
//
// `cargo run --release -p nomaly --example own_method`. In the library such a method is one file of
// `crates/nomaly-methods/src/methods` and a line in the registry, which allows loading its models.

use nomaly::backbones::{OutputLayout, TapRequest};
use nomaly::devices::Executor;
use nomaly::methods::{
    FeatureBatch, FeatureSource, FitContext, FittedMethod, HeldOut, Method, MethodError, MethodFit, MethodScore,
    MethodWorkspace,
};
use nomaly::params::InputParams;
use nomaly::scorers::State;
use nomaly::settings::Auto;
use nomaly::store::Silent;
use nomaly::{AnomalyMap, Assignments, Detector, FitOptions, PredictOptions, data};

/// The mean of a feature at every position.
struct MeanMap {
    taps: [TapRequest; 1],
}

/// The features of each view of a batch, averaged over channels, `[views, positions]`.
fn brightness(batch: &FeatureBatch<'_>) -> Vec<Vec<f32>> {
    let [channels, height, width] = batch.shapes[0];
    let mean = |rows: &[f32]| rows.iter().sum::<f32>() / channels as f32;
    let view = |values: &[f32]| values.chunks_exact(channels).map(mean).collect();
    batch.values[0].chunks_exact(channels * height * width).map(view).collect()
}

impl Method for MeanMap {
    fn name(&self) -> &'static str {
        "mean-map"
    }

    fn taps(&self) -> &[TapRequest] {
        &self.taps
    }

    fn settings(&self) -> Assignments {
        Assignments::new()
    }

    fn fit(&self, source: &dyn FeatureSource, context: &FitContext<'_>) -> Result<MethodFit, MethodError> {
        let mut seen: Vec<Vec<f32>> = Vec::new();
        let mut grid = [0, 0];
        let images = source.visit(context.progress, &mut |batch| {
            grid = [batch.shapes[0][1], batch.shapes[0][2]];
            seen.extend(brightness(batch));
            Ok(())
        })?;
        let sum_of = |views: &[Vec<f32>]| {
            let mut sum = vec![0.0f32; grid[0] * grid[1]];
            views.iter().for_each(|view| sum.iter_mut().zip(view).for_each(|(sum, value)| *sum += value));
            sum
        };
        let sum = sum_of(&seen);
        // Each image is compared with the mean of the others.
        let held_out = seen.iter().enumerate().map(|(image, view)| {
            let others = (images - 1) as f32;
            let mean = sum.iter().zip(view).map(|(sum, own)| (sum - own) / others).collect();
            let score = FittedMeanMap { grid, mean }.located(view, grid);
            HeldOut::new(image, &score)
        });
        let held_out = held_out.collect();
        let mean = sum.iter().map(|sum| sum / images as f32).collect();
        Ok(MethodFit::new(Box::new(FittedMeanMap { grid, mean }), held_out, images))
    }

    fn restore(&self, _: Vec<(String, State)>, _: &Executor) -> Result<Box<dyn FittedMethod>, MethodError> {
        Err(MethodError::State { state: "mean".to_owned(), reason: None })
    }
}

/// The fitted method.
struct FittedMeanMap {
    grid: [usize; 2],
    mean: Vec<f32>,
}

impl FittedMeanMap {
    /// The differences of a view, enlarged to a map of `[height, width]`.
    fn located(&self, view: &[f32], [height, width]: [usize; 2]) -> MethodScore {
        let [rows, columns] = self.grid;
        let at = |pixel: usize| {
            let (y, x) = (pixel / width * rows / height, pixel % width * columns / width);
            (view[y * columns + x] - self.mean[y * columns + x]).abs()
        };
        let map = AnomalyMap { height, width, values: (0..height * width).map(at).collect() };
        MethodScore::located(map.max(), map)
    }
}

impl FittedMethod for FittedMeanMap {
    fn score(&self, batch: &FeatureBatch<'_>, _: &mut MethodWorkspace) -> Result<Vec<MethodScore>, MethodError> {
        Ok(brightness(batch).iter().map(|view| self.located(view, batch.map)).collect())
    }

    fn states(&self) -> Vec<(String, State)> {
        Vec::new()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let images = data::demo("brick", 0)?;
    let input = InputParams { input_size: Auto::Value(96), ..InputParams::default() };
    let method = MeanMap { taps: [TapRequest::new("stage2", OutputLayout::Rows)] };
    let detector = Detector::of(Box::new(method), "efficientnet-lite0", &input, &Executor::cpu()?)?;
    let fit = detector.fit(&images.name, &images.train, &FitOptions::default(), &Silent)?;
    let mut flagged = 0;
    fit.detector.predict(&images.test, &PredictOptions::default(), &Silent, |outcome| {
        flagged += usize::from(outcome.result.is_ok_and(|prediction| prediction.anomalous == Some(true)));
        Ok(())
    })?;
    println!("{flagged} of {} test images are anomalous", images.test.len());
    Ok(())
}
