//! Grad-CAM against PyTorch (`tests/fixtures/gen_wrn_evaluation.py`), and average activations against their definition.

use nomaly_backbones::explain::{AverageActivations, ExplainError, GradCam, Target};
use nomaly_backbones::registry::BACKBONES;
use nomaly_backbones::{Backbone, OutputLayout, TapRequest};
use nomaly_kernels::Isa;
use nomaly_nn::graph::Op;
use nomaly_nn::runtime::Executor;
use nomaly_nn::weights::WeightTensor;
use serde_json::Value;

use crate::formula;

const SIDE: usize = 16;

/// The network of the fixture.
fn wrn() -> Backbone {
    let graph = BACKBONES.get("wrn-10-4").expect("a known name").architecture.graph(5);
    Backbone::from_tensors("wrn-10-4", formula::weights(&graph)).expect("weights made from the graph fit it")
}

fn images(count: usize) -> Vec<f32> {
    formula::image([count * SIDE, SIDE])
}

fn cam(backbone: &Backbone, tap: Option<&str>) -> Result<GradCam, ExplainError> {
    GradCam::new(backbone, tap, [SIDE; 2], &Executor::cpu().unwrap())
}

#[test]
fn grad_cam_is_that_of_pytorch_at_every_depth() {
    let fixture: Value = serde_json::from_str(include_str!("../fixtures/wrn-evaluation.json")).expect("a fixture");
    let backbone = wrn();
    for isa in Isa::available() {
        for (tap, cases) in fixture["grad_cam"].as_object().unwrap() {
            let mut cam = GradCam::new(&backbone, Some(tap), [SIDE; 2], &isa.into()).unwrap();
            for (position, target) in [Target::Predicted, Target::Class(3)].into_iter().enumerate() {
                let found = cam.explain(&images(2), target).unwrap();
                for (image, found) in found.iter().enumerate() {
                    let want = &cases[image][position];
                    let what = format!("{isa} {tap} {image} {target:?}");
                    assert_eq!(found.class, want["class"].as_u64().map(|class| class as usize), "{what}");
                    let class = found.class.expect("a class");
                    let logit = f64::from(found.value);
                    let expected = fixture["logits"][5 * image + class].as_f64().unwrap();
                    assert!((logit - expected).abs() < 1e-4 * expected.abs().max(1.0), "{what}: {logit} {expected}");
                    let expected: Vec<f64> =
                        want["map"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
                    assert_eq!(
                        found.map.size.as_slice(),
                        serde_json::from_value::<Vec<usize>>(want["shape"].clone()).unwrap()
                    );
                    let greatest = expected.iter().copied().fold(0.0, f64::max);
                    for (value, expected) in found.map.values.iter().zip(&expected) {
                        // Weights are means of gradients through ReLUs, some of them near their kinks; single
                        // precision.
                        assert!(
                            (f64::from(*value) - expected).abs() <= 2e-3 * greatest.max(1e-3),
                            "{what}: {value} {expected}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn an_explanation_does_not_depend_on_the_batch() {
    let backbone = wrn();
    let mut cam = cam(&backbone, None).unwrap();
    assert_eq!((cam.tap(), cam.output(), cam.classes()), ("head", "logits", Some(5)));
    let ten = images(10);
    let together = cam.explain(&ten, Target::Predicted).unwrap();
    for (image, together) in ten.chunks(3 * SIDE * SIDE).zip(&together) {
        assert_eq!(&cam.explain(image, Target::Predicted).unwrap()[0], together);
    }
    assert!(together.iter().any(|one| one.map.values.iter().any(|value| *value > 0.0)));
}

/// The head of a classifier of pooled features: the weights of the class are the weights of the channels (Zhou et al.
/// 2016).
#[test]
fn before_pooling_the_map_is_the_class_activation_map() {
    let backbone = Backbone::embedded().unwrap();
    let image = formula::image([64, 64]);
    let isa = Isa::best().unwrap();
    let found =
        GradCam::new(&backbone, None, [64, 64], &isa.into()).unwrap().explain(&image, Target::Class(7)).unwrap();

    let request = [TapRequest::new("head", OutputLayout::Nchw)];
    let extractor = backbone.compile([64, 64], &request, &isa.into()).unwrap();
    let mut features = vec![Vec::new()];
    extractor.run(&image, 1, &mut extractor.workspace(1), &mut features).unwrap();
    let weights = backbone.export(&["logits"]).unwrap();
    let fc = weights.iter().find(|(_, tensor)| tensor.shape == [1000, 1280]).expect("a classifier").1.to_f32().unwrap();
    let positions = 4;
    for position in 0..positions {
        let sum: f32 = (0..1280).map(|k| fc[7 * 1280 + k] * features[0][k * positions + position]).sum();
        let expected = (sum / positions as f32).max(0.0);
        let value = found[0].map.values[position];
        assert!((value - expected).abs() < 1e-4 * expected.max(1.0), "{value} {expected}");
    }
}

#[test]
fn without_a_classifier_distances_are_explained() {
    let graph = BACKBONES.get("resnet18").unwrap().graph();
    let mut weights = formula::weights(&graph);
    weights.retain(|name, _| !name.starts_with("layer4") && !name.starts_with("fc"));
    let backbone = Backbone::from_tensors("resnet18", weights).unwrap();
    let isa = Isa::best().unwrap();
    let image = formula::image([32, 32]);
    let mut cam = GradCam::new(&backbone, Some("layer2"), [32, 32], &isa.into()).unwrap();
    assert_eq!((cam.output(), cam.classes()), ("layer3", None));
    let error = cam.explain(&image, Target::Predicted).unwrap_err().to_string();
    assert!(error.contains("no classifier") && error.contains("layer3"), "{error}");

    let request = [TapRequest::new("layer3", OutputLayout::Mean)];
    let extractor = backbone.compile([32, 32], &request, &isa.into()).unwrap();
    let mut means = vec![Vec::new()];
    extractor.run(&image, 1, &mut extractor.workspace(1), &mut means).unwrap();
    let from_origin = cam.explain(&image, Target::Distance(None)).unwrap();
    let half: f32 = means[0].iter().map(|value| value * value / 2.0).sum();
    assert!((from_origin[0].value - half).abs() < 1e-4 * half);
    assert_eq!(from_origin[0].class, None);
    assert!(from_origin[0].map.values.iter().any(|value| *value > 0.0));
    // The gradient of half a squared length is the vector itself.
    let by_gradient = cam.explain(&image, Target::Gradient(&means[0])).unwrap();
    let greatest = from_origin[0].map.values.iter().copied().fold(0.0, f32::max);
    for (one, other) in by_gradient[0].map.values.iter().zip(&from_origin[0].map.values) {
        assert!((one - other).abs() < 1e-4 * greatest, "{one} {other}");
    }
    // From the image's own features, the distance is zero.
    let own = cam.explain(&image, Target::Distance(Some(&means[0]))).unwrap();
    assert!(own[0].value < 1e-6 * half);
    let error = cam.explain(&image, Target::Distance(Some(&[0.0; 3]))).unwrap_err();
    assert!(matches!(error, ExplainError::Centre { expected: 256, found: 3, .. }));
    // At the output itself the weights are the differences.
    let mut itself = GradCam::new(&backbone, None, [32, 32], &isa.into()).unwrap();
    assert_eq!(itself.tap(), "layer3");
    assert!(itself.explain(&image, Target::Distance(None)).unwrap()[0].map.values.iter().all(|value| *value >= 0.0));
}

/// Weights with folded batch norm give the same explanations as those without.
#[test]
fn folded_weights_explain_alike() {
    let graph = BACKBONES.get("resnet18").unwrap().architecture.graph(3);
    let plain = formula::weights(&graph);
    let mut folded = plain.clone();
    for (index, node) in graph.nodes().iter().enumerate() {
        let (Op::BatchNorm { name, epsilon, .. }, Some(conv)) = (&node.op, graph.foldable_into(index)) else {
            continue;
        };
        let Op::Conv { name: conv, .. } = &graph.nodes()[conv].op else { continue };
        let values = |leaf: &str| plain[&format!("{name}.{leaf}")].to_f32().unwrap();
        let deviations = values("running_var").into_iter().map(|variance| (f64::from(variance) + epsilon).sqrt());
        let scales: Vec<f32> =
            values("weight").iter().zip(deviations).map(|(w, d)| (f64::from(*w) / d) as f32).collect();
        let biases: Vec<f32> =
            (0..scales.len()).map(|c| values("bias")[c] - values("running_mean")[c] * scales[c]).collect();
        let weight = folded.get_mut(&format!("{conv}.weight")).expect("a convolution");
        let mut factors = weight.to_f32().unwrap();
        let each = factors.len() / scales.len();
        factors.chunks_mut(each).zip(&scales).for_each(|(row, scale)| row.iter_mut().for_each(|w| *w *= scale));
        *weight = WeightTensor::from_f32(weight.shape.clone(), &factors);
        folded.insert(format!("{conv}.bias"), WeightTensor::from_f32(vec![biases.len()], &biases));
        folded.retain(|tensor, _| tensor.rsplit_once('.').is_none_or(|(prefix, _)| prefix != name));
    }
    let image = formula::image([48, 48]);
    let [plain, folded] = [plain, folded].map(|weights| {
        let backbone = Backbone::from_tensors("resnet18", weights).unwrap();
        let mut cam = GradCam::new(&backbone, Some("layer2"), [48, 48], &Executor::cpu().unwrap()).unwrap();
        [0, 1, 2].map(|class| cam.explain(&image, Target::Class(class)).unwrap().remove(0).map.values).concat()
    });
    let greatest = plain.iter().copied().fold(0.0, f32::max);
    assert!(greatest > 0.0);
    for (plain, folded) in plain.iter().zip(&folded) {
        assert!((plain - folded).abs() < 2e-3 * greatest, "{plain} {folded}");
    }
}

#[test]
fn what_cannot_be_explained_says_why() {
    let lite = Backbone::embedded().unwrap();
    // Depthwise convolutions have gradients: every depth can be explained.
    let found = cam(&lite, Some("stage2")).unwrap().explain(&images(1), Target::Class(281)).unwrap();
    assert!(found[0].map.values.iter().any(|value| *value > 0.0));
    let error = cam(&wrn(), Some("logits")).unwrap_err().to_string();
    assert_eq!(
        error,
        "the tap `logits` of wrn-10-4 has no positions to make a map of; there are stem, group1, group2, group3, head"
    );
    assert!(cam(&wrn(), Some("grop1")).unwrap_err().to_string().contains("did you mean `group1`"));
    let mut cam = cam(&wrn(), None).unwrap();
    let error = cam.explain(&images(1), Target::Class(5)).unwrap_err();
    assert_eq!(error.to_string(), "wrn-10-4 has no class 5: its 5 classes are numbered from 0");
    assert!(matches!(cam.explain(&[0.0; 5], Target::Predicted), Err(ExplainError::Images { .. })));
}

#[test]
fn average_activations_are_means_over_channels_and_images() {
    let backbone = wrn();
    let isa = Isa::best().unwrap();
    let mut average = AverageActivations::new(&backbone, &[], [SIDE; 2], &isa.into()).unwrap();
    assert_eq!(
        average.maps().iter().map(|(tap, _)| *tap).collect::<Vec<_>>(),
        ["stem", "group1", "group2", "group3", "head"]
    );
    let ten = images(10);
    let (first, rest) = ten.split_at(3 * 3 * SIDE * SIDE);
    average.add(first).unwrap();
    average.add(rest).unwrap();
    assert!(matches!(average.add(&[0.0; 7]), Err(ExplainError::Images { .. })));
    assert_eq!(average.images(), 10);
    let request = [TapRequest::new("group2", OutputLayout::Nchw)];
    let extractor = backbone.compile([SIDE; 2], &request, &isa.into()).unwrap();
    let mut features = vec![Vec::new()];
    extractor.run(&ten, 10, &mut extractor.workspace(10), &mut features).unwrap();
    let maps = average.maps();
    let map = &maps[2].1;
    assert_eq!(map.size, [8, 8]);
    for (position, value) in map.values.iter().enumerate() {
        let of_all = features[0].iter().skip(position).step_by(64);
        let mean = of_all.map(|value| f64::from(*value)).sum::<f64>() / (10.0 * 128.0);
        assert!((f64::from(*value) - mean).abs() < 1e-6, "{value} {mean}");
    }
    let error = AverageActivations::new(&backbone, &["logits"], [SIDE; 2], &isa.into()).unwrap_err();
    assert!(matches!(error, ExplainError::NoPositions { .. }));
}
