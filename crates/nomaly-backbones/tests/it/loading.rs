//! Weight sets that are complete, folded, truncated, wrong or hostile.

use nomaly_backbones::registry::BACKBONES;
use nomaly_backbones::{Backbone, BackboneError, OutputLayout, TapRequest};
use nomaly_nn::runtime::Executor;
use nomaly_nn::weights::{WeightTensor, Weights};

use crate::formula;

fn resnet18() -> Weights {
    formula::weights(&BACKBONES.get("resnet18").unwrap().graph())
}

fn features(backbone: &Backbone, tap: &str) -> Vec<f32> {
    let request = [TapRequest::new(tap, OutputLayout::Nchw)];
    let extractor = backbone.compile([48, 40], &request, &Executor::cpu().unwrap()).unwrap();
    let mut outputs = vec![Vec::new()];
    extractor.run(&formula::image([48, 40]), 1, &mut extractor.workspace(1), &mut outputs).unwrap();
    outputs.remove(0)
}

/// Folds ResNet batch norm the way exporters do: `weight * g`, `beta - mean * g` with `g = gamma / sqrt(var + 1e-5)`.
fn folded(weights: &Weights, keep: impl Fn(&str) -> bool) -> Weights {
    let mut out = Weights::new();
    for (name, weight) in weights.iter().filter(|(name, tensor)| tensor.shape.len() == 4 && keep(name)) {
        let conv = name.strip_suffix(".weight").unwrap();
        let norm = match conv.strip_suffix("downsample.0") {
            Some(block) => format!("{block}downsample.1"),
            None => conv.replace("conv", "bn"),
        };
        let part = |leaf: &str| weights[&format!("{norm}.{leaf}")].to_f32().unwrap();
        let (gamma, beta, mean, var) = (part("weight"), part("bias"), part("running_mean"), part("running_var"));
        let scale: Vec<f32> = gamma.iter().zip(&var).map(|(gamma, var)| gamma / (var + 1e-5).sqrt()).collect();
        let each = weight.shape[1..].iter().product::<usize>();
        let values = weight.to_f32().unwrap();
        let values: Vec<f32> = values.iter().enumerate().map(|(i, value)| value * scale[i / each]).collect();
        let bias: Vec<f32> = (0..scale.len()).map(|c| beta[c] - mean[c] * scale[c]).collect();
        out.insert(name.clone(), WeightTensor::from_f32(weight.shape.clone(), &values));
        out.insert(format!("{conv}.bias"), WeightTensor::from_f32(vec![bias.len()], &bias));
    }
    out
}

#[test]
fn a_folded_trunk_serves_the_taps_it_can_and_says_where_it_ends() {
    let whole = Backbone::from_tensors("resnet18", resnet18()).unwrap();
    let trunk = folded(&resnet18(), |name| !name.starts_with("layer4"));
    let trunk = Backbone::from_tensors("resnet18", trunk).unwrap();
    assert_eq!(
        trunk.taps().iter().map(|tap| tap.name.as_str()).collect::<Vec<_>>(),
        ["stem", "layer1", "layer2", "layer3"]
    );
    for tap in ["stem", "layer3"] {
        let (a, b) = (features(&whole, tap), features(&trunk, tap));
        let greatest = a.iter().fold(0f32, |max, value| max.max(value.abs()));
        // Both fold, one in f32, one in f64.
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-5 * greatest), "{tap}");
    }
    let request = [TapRequest::new("layer4", OutputLayout::Mean)];
    let error = trunk.compile([64, 64], &request, &Executor::cpu().unwrap()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the weights of resnet18 have no `layer4.0.downsample.0.weight`, which the tap `layer4` needs; \
         the deepest tap they serve is `layer3`"
    );
}

#[cfg(feature = "candle")]
#[test]
fn a_folded_trunk_runs_in_candle_too() {
    use candle_core::{Device, Tensor};
    use nomaly_nn::module::Mode;

    let trunk = Backbone::from_tensors("resnet18", folded(&resnet18(), |name| !name.starts_with("layer4"))).unwrap();
    let module = trunk.module(&["layer2"], &Device::Cpu, |_| false).unwrap();
    let input = Tensor::from_vec(formula::image([48, 40]), (1, 3, 48, 40), &Device::Cpu).unwrap();
    let output = module.forward(&[&input], Mode::Evaluate).unwrap().remove(0);
    let output: Vec<f32> = output.flatten_all().unwrap().to_vec1().unwrap();
    let expected = features(&trunk, "layer2");
    let greatest = expected.iter().fold(0f32, |max, value| max.max(value.abs()));
    assert!(expected.iter().zip(&output).all(|(a, b)| (a - b).abs() <= 1e-4 * greatest));
}

#[test]
fn what_is_exported_for_a_tap_is_enough_for_it_and_no_more() {
    let whole = Backbone::from_tensors("resnet18", resnet18()).unwrap();
    let exported = whole.export(&["layer1", "layer2"]).unwrap();
    assert!(exported.keys().all(|name| !name.starts_with("layer3") && !name.starts_with("fc")));
    let part = Backbone::from_tensors("resnet18", exported.clone()).unwrap();
    assert_eq!(part.taps().last().unwrap().name, "layer2");
    assert_eq!(part.export(&["layer2"]).unwrap(), exported);
    assert_eq!(features(&part, "layer2"), features(&whole, "layer2"));
}

#[test]
fn tensors_of_no_one_are_listed_and_the_classifier_may_have_any_size() {
    let mut weights = resnet18();
    weights.insert("bn1.num_batches_tracked".into(), WeightTensor::from_f32(vec![], &[7.0]));
    weights.insert("fc.weight".into(), WeightTensor::from_f32(vec![3, 512], &[0.01; 3 * 512]));
    weights.insert("fc.bias".into(), WeightTensor::from_f32(vec![3], &[0.0; 3]));
    let backbone = Backbone::from_tensors("resnet18", weights).unwrap();
    assert_eq!(backbone.ignored(), ["bn1.num_batches_tracked"]);
    assert_eq!(backbone.taps().last().unwrap().channels, 3);
    assert_eq!(features(&backbone, "logits").len(), 3);
}

#[test]
fn wrong_shapes_and_wrong_numbers_are_refused_by_name() {
    let refused = |change: &dyn Fn(&mut Weights)| {
        let mut weights = resnet18();
        change(&mut weights);
        Backbone::from_tensors("resnet18", weights).unwrap_err().to_string()
    };
    let put = |name: &'static str, shape: Vec<usize>, value: f32| {
        move |weights: &mut Weights| {
            let mut values = vec![0.5; shape.iter().product()];
            *values.last_mut().unwrap() = value;
            weights.insert(name.into(), WeightTensor::from_f32(shape.clone(), &values));
        }
    };
    for (change, expected) in [
        (
            put("layer1.0.conv1.weight", vec![64, 64, 3, 1], 0.5),
            "`layer1.0.conv1.weight` is [64, 64, 3, 1] in the weights, but [64, 64, 3, 3] in resnet18",
        ),
        (put("bn1.bias", vec![64], f32::NAN), "`bn1.bias` of the weights of resnet18 holds NaN at index 63"),
        (put("bn1.bias", vec![64], f32::INFINITY), "`bn1.bias` of the weights of resnet18 holds inf at index 63"),
        (
            put("bn1.running_var", vec![64], -0.25),
            "`bn1.running_var` of the weights of resnet18 holds -0.25 at index 63",
        ),
    ] {
        assert_eq!(refused(&change), expected);
    }
    assert_eq!(
        refused(&|weights| drop(weights.remove("bn1.running_mean"))),
        "the weights of resnet18 have no `bn1.running_mean`, without which no tap can be computed"
    );
}

#[test]
fn an_unknown_name_gets_a_suggestion() {
    let error = Backbone::from_tensors("resnet81", Weights::new()).unwrap_err();
    assert!(error.to_string().starts_with("unknown backbone `resnet81`; did you mean `resnet"), "{error}");
    let backbone = Backbone::from_tensors("resnet18", resnet18()).unwrap();
    let error = backbone.export(&["layr3"]).unwrap_err();
    assert_eq!(error.to_string(), "resnet18: unknown tap `layr3`; did you mean `layer3`?");
    assert!(matches!(
        backbone.compile([64, 64], &[], &Executor::cpu().unwrap()).unwrap_err(),
        BackboneError::NoTaps { .. }
    ));
}

#[test]
fn an_image_gets_the_same_features_in_any_batch_and_layout() {
    let backbone = crate::backbone("efficientnet-lite0");
    let requests =
        [OutputLayout::Nchw, OutputLayout::Rows, OutputLayout::Mean].map(|layout| TapRequest::new("stage3", layout));
    let extractor = backbone.compile([40, 56], &requests, &Executor::cpu().unwrap()).unwrap();
    let run = |input: &[f32], batch| {
        let mut outputs = vec![Vec::new(); 3];
        extractor.run(input, batch, &mut extractor.workspace(batch), &mut outputs).unwrap();
        outputs
    };
    let image = formula::image([40, 56]);
    let other: Vec<f32> = image.iter().rev().copied().collect();
    let (alone, pair) = (run(&image, 1), run(&[other, image.clone()].concat(), 2));
    let [channels, height, width] = extractor.output_shape(0);
    for (alone, pair) in alone.iter().zip(&pair) {
        assert_eq!(alone[..], pair[alone.len()..]);
    }
    for channel in 0..channels {
        let plane = &alone[0][channel * height * width..][..height * width];
        assert!(plane.iter().enumerate().all(|(at, value)| alone[1][at * channels + channel] == *value));
        let mean = plane.iter().sum::<f32>() / plane.len() as f32;
        assert!((mean - alone[2][channel]).abs() <= 1e-5, "{mean} {}", alone[2][channel]);
    }
}
