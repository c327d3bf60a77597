//! Every tap of every family against torchvision, efficientnet_lite_pytorch, timm and a WRN written from the paper,
//! computed with the compiled plan on each instruction set of this machine and, with the feature `candle`, with the
//! candle module.

use std::collections::BTreeMap;

use nomaly_backbones::{Backbone, OutputLayout, TapRequest};
use nomaly_kernels::Isa;
use serde::Deserialize;

use crate::formula;

/// Relative to the largest magnitude at a tap. f32 sums of up to a few thousand terms over about a hundred layers
/// differ in order; 1e-5 was observed.
const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct Fixture {
    name: String,
    input: [usize; 2],
    taps: BTreeMap<String, Summary>,
}

#[derive(Deserialize)]
struct Summary {
    shape: [usize; 3],
    mean: f64,
    max_abs: f64,
    values: Vec<f64>,
}

impl Summary {
    fn check(&self, features: &[f32], what: &str) {
        assert_eq!(features.len(), self.shape.iter().product::<usize>(), "{what}");
        let allowed = TOLERANCE * self.max_abs;
        let last = self.values.len() - 1;
        for (index, expected) in self.values.iter().enumerate() {
            let at = index * (features.len() - 1) / last;
            let found = f64::from(features[at]);
            assert!((found - expected).abs() <= allowed, "{what}[{at}]: {found}, expected {expected} ± {allowed}");
        }
        let mean = features.iter().copied().map(f64::from).sum::<f64>() / features.len() as f64;
        assert!((mean - self.mean).abs() <= allowed, "{what}: mean {mean}, expected {}", self.mean);
        let max_abs = f64::from(features.iter().fold(0f32, |max, value| max.max(value.abs())));
        assert!((max_abs - self.max_abs).abs() <= allowed, "{what}: max {max_abs}, expected {}", self.max_abs);
    }
}

fn check_plan(fixture: &Fixture, backbone: &Backbone, isa: Isa) {
    let requests: Vec<_> = fixture.taps.keys().map(|tap| TapRequest::new(tap, OutputLayout::Nchw)).collect();
    let extractor = backbone.compile(fixture.input, &requests, &isa.into()).unwrap();
    let mut outputs = vec![Vec::new(); requests.len()];
    extractor.run(&formula::image(fixture.input), 1, &mut extractor.workspace(1), &mut outputs).unwrap();
    for (index, (tap, summary)) in fixture.taps.iter().enumerate() {
        assert_eq!(extractor.output_shape(index), summary.shape, "{} {tap}", fixture.name);
        summary.check(&outputs[index], &format!("{} {tap} {isa}", fixture.name));
    }
}

#[cfg(feature = "candle")]
fn check_module(fixture: &Fixture, backbone: &Backbone) {
    use candle_core::{Device, Tensor};
    use nomaly_nn::module::Mode;

    let taps: Vec<&str> = fixture.taps.keys().map(String::as_str).collect();
    let module = backbone.module(&taps, &Device::Cpu, |_| false).unwrap();
    let [height, width] = fixture.input;
    let input = Tensor::from_vec(formula::image(fixture.input), (1, 3, height, width), &Device::Cpu).unwrap();
    let outputs = module.forward(&[&input], Mode::Evaluate).unwrap();
    for ((tap, summary), output) in fixture.taps.iter().zip(outputs) {
        assert_eq!(output.dims()[1..], summary.shape, "{} {tap}", fixture.name);
        let features: Vec<f32> = output.flatten_all().unwrap().to_vec1().unwrap();
        summary.check(&features, &format!("{} {tap} candle", fixture.name));
    }
}

fn check(json: &str) {
    let fixture: Fixture = serde_json::from_str(json).unwrap();
    let backbone = crate::backbone(&fixture.name);
    assert_eq!(backbone.taps().len(), fixture.taps.len(), "a fixture has every tap");
    for isa in Isa::available() {
        check_plan(&fixture, &backbone, isa);
    }
    #[cfg(feature = "candle")]
    check_module(&fixture, &backbone);
}

#[test]
fn resnet18_at_an_odd_size() {
    check(include_str!("../fixtures/resnet18.json"));
}

#[test]
fn resnet50() {
    check(include_str!("../fixtures/resnet50.json"));
}

#[test]
fn wide_resnet50_2() {
    check(include_str!("../fixtures/wide-resnet50-2.json"));
}

#[test]
fn mobilenetv2_at_an_odd_size() {
    check(include_str!("../fixtures/mobilenetv2.json"));
}

#[test]
fn wrn_16_4() {
    check(include_str!("../fixtures/wrn-16-4.json"));
}

#[test]
fn efficientnet_lite0_at_an_odd_size() {
    check(include_str!("../fixtures/efficientnet-lite0.json"));
}

#[test]
fn efficientnet_b0_with_tensorflow_padding_at_an_odd_size() {
    check(include_str!("../fixtures/efficientnet-b0.json"));
}

#[test]
fn efficientnet_b4_of_torchvision() {
    check(include_str!("../fixtures/efficientnet-b4-torchvision.json"));
}

#[test]
fn dinov2_small() {
    check(include_str!("../fixtures/dinov2-small.json"));
}

#[test]
fn dinov2_small_with_registers() {
    check(include_str!("../fixtures/dinov2-small-registers.json"));
}
