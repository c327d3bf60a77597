//! Writes the pooled features of a data set's images as raw rows, for the scripts in `benches/compare`.
//!
//! ```console
//! $ pooled_features DATA OUT [DEVICE]
//! ```
//!
//! `DATA` is as for `nomaly eval`. `OUT-train.f32` and `OUT-test.f32` get a row of `f32` (little-endian) for each
//! image: the deepest features of the embedded EfficientNet-Lite0, averaged over all positions; `OUT-test.label` a byte
//! for each test image, 1 where it is anomalous. Prints one JSON object with the number of rows and columns.
//! `DEVICE` is that of `nomaly fit`, by default `cpu`.
#![forbid(unsafe_code)]

use std::error::Error;

use nomaly_backbones::{Backbone, OutputLayout, TapRequest};
use nomaly_data::loader::{self, LoaderOptions};
use nomaly_data::{Label, Sample};
use nomaly_nn::runtime::{Device, Executor};
use nomaly_transforms::{Filter, Normalize, Pipeline, Resize, ResizeMode};

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (data, out, device) = match arguments.as_slice() {
        [data, out] => (data, out, Device::Cpu),
        [data, out, device] => (data, out, device.parse()?),
        _ => return Err("usage: pooled_features DATA OUT [DEVICE]".into()),
    };
    let executor = Executor::on(device)?;
    let dataset = nomaly_data::open(data)?;
    let backbone = Backbone::embedded()?;
    let deepest = backbone.taps().into_iter().map(|tap| tap.name).rfind(|name| name != "logits");
    let taps = [TapRequest::new(deepest.ok_or("the backbone has no taps")?, OutputLayout::Mean)];

    let (train, dim) = features(&backbone, &taps, &dataset.train, &executor)?;
    let (test, _) = features(&backbone, &taps, &dataset.test, &executor)?;
    let write = |name: &str, rows: &[f32]| {
        std::fs::write(format!("{out}-{name}.f32"), rows.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
    };
    write("train", &train)?;
    write("test", &test)?;
    let labels: Vec<u8> = dataset.test.iter().map(|sample| u8::from(sample.label == Label::Anomalous)).collect();
    std::fs::write(format!("{out}-test.label"), labels)?;
    println!(r#"{{"train":{},"test":{},"dim":{dim}}}"#, train.len() / dim, test.len() / dim);
    Ok(())
}

/// The features of all samples, row by row, and the length of a row; an unreadable sample is an error.
fn features(
    backbone: &Backbone,
    taps: &[TapRequest],
    samples: &[Sample],
    executor: &Executor,
) -> Result<(Vec<f32>, usize), Failure> {
    let native = backbone.preprocessing();
    let side = native.input_size as u32;
    let resize = Resize { mode: ResizeMode::Exact { height: side, width: side }, filter: Filter::Bilinear };
    let pipeline = Pipeline::new(resize, None, Normalize { mean: native.mean, std: native.std })?;
    let extractor = backbone.compile(pipeline.output_size(), taps, executor)?;
    let options = LoaderOptions::default();
    let mut workspace = extractor.workspace(options.batch);
    let (mut rows, mut outputs) = (Vec::new(), vec![Vec::new()]);
    loader::stream(samples, &[pipeline], &options, |batch| {
        if let Some(failure) = batch.failures.first() {
            return Err(Failure::from(failure.error.to_string()));
        }
        extractor.run(&batch.data[0], batch.len(), &mut workspace, &mut outputs)?;
        rows.extend_from_slice(&outputs[0]);
        Ok(())
    })?;
    Ok((rows, extractor.output_shape(0)[0]))
}
