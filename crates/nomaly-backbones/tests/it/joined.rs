//! Two joined networks against each of them alone.

use nomaly_backbones::explain::{GradCam, Target};
use nomaly_backbones::registry::BACKBONES;
use nomaly_backbones::{Backbone, BackboneError, OutputLayout, TapRequest};
use nomaly_kernels::Isa;
use nomaly_nn::weights::Weights;

use crate::formula;

const SIZE: [usize; 2] = [77, 61];

/// Relative to the largest magnitude at a tap: renormalized values differ in the last bit from values normalized once,
/// and a hundred layers amplify that. Up to 3e-6 was observed.
const TOLERANCE: f32 = 1e-5;

/// The weights of joined networks, by the formula.
fn weights(names: &str) -> Weights {
    let of = |name: &str| {
        let own = formula::weights(&BACKBONES.get(name).unwrap().graph()).into_iter();
        own.map(|(tensor, values)| (format!("{name}/{tensor}"), values)).collect::<Vec<_>>()
    };
    names.split('+').flat_map(of).collect()
}

fn joined(names: &str) -> Backbone {
    Backbone::from_tensors(names, weights(names)).unwrap()
}

/// Two images with samples in [0, 1), normalized as a backbone wants them.
fn images(backbone: &Backbone) -> Vec<f32> {
    let [mean, std] = [backbone.preprocessing().mean, backbone.preprocessing().std];
    let positions = SIZE[0] * SIZE[1];
    let samples = formula::values("samples", 2 * 3 * positions).map(|value| ((value + 1.0) / 2.0) as f32);
    samples.enumerate().map(|(at, sample)| (sample - mean[at / positions % 3]) / std[at / positions % 3]).collect()
}

fn features(backbone: &Backbone, taps: &[(&str, OutputLayout)], isa: Isa) -> Vec<Vec<f32>> {
    let requests: Vec<_> = taps.iter().map(|(tap, layout)| TapRequest::new(*tap, *layout)).collect();
    let extractor = backbone.compile(SIZE, &requests, &isa.into()).unwrap();
    let mut outputs = vec![Vec::new(); taps.len()];
    extractor.run(&images(backbone), 2, &mut extractor.workspace(2), &mut outputs).unwrap();
    for (place, output) in outputs.iter().enumerate() {
        let [channels, height, width] = extractor.output_shape(place);
        assert_eq!(output.len(), 2 * channels * height * width);
    }
    outputs
}

#[track_caller]
fn assert_near(found: &[f32], expected: &[f32], tolerance: f32) {
    let greatest = expected.iter().fold(0f32, |max, value| max.max(value.abs()));
    let difference = found.iter().zip(expected).fold(0f32, |max, (a, b)| max.max((a - b).abs()));
    assert_eq!(found.len(), expected.len());
    assert!(difference <= tolerance * greatest, "{difference} of {greatest}");
}

#[test]
fn each_network_sees_the_image_as_it_would_alone() {
    let both = joined("efficientnet-lite0+mobilenetv2");
    let [lite, mobile] = ["efficientnet-lite0", "mobilenetv2"].map(crate::backbone);
    assert_eq!(both.preprocessing(), lite.preprocessing());
    let layouts = [OutputLayout::Rows, OutputLayout::Mean, OutputLayout::Nchw];
    for isa in Isa::available() {
        // Alternating, so that the outputs of a network are not adjacent.
        let found = features(
            &both,
            &[
                ("mobilenetv2/stem", layouts[0]),
                ("efficientnet-lite0/stage5", layouts[0]),
                ("mobilenetv2/head", layouts[1]),
                ("efficientnet-lite0/stage3", layouts[2]),
                ("mobilenetv2/stage5", layouts[2]),
            ],
            isa,
        );
        let first = features(&lite, &[("stage5", layouts[0]), ("stage3", layouts[2])], isa);
        assert_eq!([&found[1], &found[3]], [&first[0], &first[1]]);
        let second = features(&mobile, &[("stem", layouts[0]), ("head", layouts[1]), ("stage5", layouts[2])], isa);
        for (found, expected) in [&found[0], &found[2], &found[4]].into_iter().zip(&second) {
            assert_near(found, expected, TOLERANCE);
        }
    }
}

#[test]
fn networks_of_one_normalization_differ_in_no_bit_from_those_alone() {
    let names = "mobilenetv2+resnet18+efficientnet-b0-torchvision";
    let taps = [("mobilenetv2", "stage2"), ("resnet18", "layer2"), ("efficientnet-b0-torchvision", "stage3")];
    let named = taps.map(|(network, tap)| format!("{network}/{tap}"));
    let found =
        features(&joined(names), &named.each_ref().map(|tap| (&**tap, OutputLayout::Rows)), Isa::best().unwrap());
    for ((network, tap), found) in taps.into_iter().zip(found) {
        let alone = features(&crate::backbone(network), &[(tap, OutputLayout::Rows)], Isa::best().unwrap());
        assert_eq!(found, alone[0], "{network}");
    }
}

#[test]
fn what_is_exported_is_enough_for_each_network_and_no_more() {
    let names = "efficientnet-lite0+mobilenetv2";
    let taps = ["mobilenetv2/stage2", "efficientnet-lite0/stage1"];
    let requests = taps.map(|tap| (tap, OutputLayout::Nchw));
    let whole = joined(names);
    let exported = whole.export(&taps).unwrap();
    assert!(exported.contains_key("efficientnet-lite0/_conv_stem.weight"));
    assert!(exported.contains_key("mobilenetv2/features.3.conv.2.weight"));
    assert!(exported.keys().all(|name| !name.contains("_blocks.1.") && !name.contains("features.4.")));
    let part = Backbone::from_tensors(names, exported.clone()).unwrap();
    assert_eq!(part.taps().last().unwrap().name, "mobilenetv2/stage2");
    assert_eq!(part.export(&taps).unwrap(), exported);
    let isa = Isa::best().unwrap();
    assert_eq!(features(&part, &requests, isa), features(&whole, &requests, isa));
}

#[test]
fn taps_are_called_after_their_network() {
    let names = "efficientnet-lite0+mobilenetv2";
    let both = joined(names);
    let taps = both.taps();
    assert_eq!((taps[3].name.as_str(), taps[13].name.as_str()), ("efficientnet-lite0/stage3", "mobilenetv2/stage3"));
    assert_eq!((taps[3].channels, taps[13].channels, taps[13].stride), (40, 32, Some(8)));
    let classifiers: Vec<_> = taps.iter().filter(|tap| tap.is_classifier()).map(|tap| tap.name.as_str()).collect();
    assert_eq!(classifiers, ["efficientnet-lite0/logits", "mobilenetv2/logits"]);
    assert_eq!(both.taps_by_network().map(|taps| taps.len()).collect::<Vec<_>>(), [10, 10]);

    let error = both.export(&["mobilenetv2/stage33"]).unwrap_err().to_string();
    assert_eq!(error, format!("{names}: unknown tap `mobilenetv2/stage33`; did you mean `mobilenetv2/stage3`?"));
    assert!(matches!(both.export(&["stage3"]), Err(BackboneError::UnknownTap { .. })));
    assert_eq!(both.unused(&[TapRequest::new("efficientnet-lite0/stage3", OutputLayout::Mean)]), Some("mobilenetv2"));
    assert_eq!(
        both.unused(&[taps[0].clone(), taps[19].clone()].map(|tap| TapRequest::new(tap.name, OutputLayout::Mean))),
        None
    );
}

#[test]
fn tensors_of_no_network_are_listed_and_a_network_without_any_is_refused() {
    let names = "efficientnet-lite0+mobilenetv2";
    let mut tensors = weights(names);
    for (from, to) in
        [("mobilenetv2/classifier.1.bias", "mobilenetv2/steps"), ("efficientnet-lite0/_fc.bias", "mobilenetv")]
    {
        let tensor = tensors.remove(from).unwrap();
        tensors.insert(to.to_owned(), tensor);
    }
    let both = Backbone::from_tensors(names, tensors.clone()).unwrap();
    assert_eq!(both.ignored(), ["mobilenetv2/steps", "mobilenetv"]);
    // The message has the user's name of the network, and the weight file's name of the tensor.
    let error = both.export(&["mobilenetv2/logits"]).unwrap_err().to_string();
    assert!(error.starts_with("the weights of mobilenetv2 have no `classifier.1.bias`"), "{error}");
    tensors.retain(|name, _| !name.starts_with("mobilenetv2/"));
    let error = Backbone::from_tensors(names, tensors).unwrap_err().to_string();
    assert_eq!(error, "the weights of mobilenetv2 have no `features.0.0.weight`, without which no tap can be computed");
}

#[test]
fn memory_is_of_the_extractor_that_made_it() {
    let both = joined("resnet18+mobilenetv2");
    let isa = Isa::best().unwrap();
    let taps = ["resnet18/stem", "mobilenetv2/stem"].map(|tap| TapRequest::new(tap, OutputLayout::Mean));
    let [one, two] = [&taps[..1], &taps[..]].map(|taps| both.compile(SIZE, taps, &isa.into()).unwrap());
    let error = two.run(&images(&both), 2, &mut one.workspace(2), &mut [Vec::new(), Vec::new()]).unwrap_err();
    assert_eq!(error.to_string(), "the workspace belongs to another extractor");
    let steps = two.profile(&images(&both), 2, &mut two.workspace(2), &mut [Vec::new(), Vec::new()]).unwrap().len();
    assert_eq!(steps, two.steps().len());
    assert!(steps > one.steps().len());
}

#[test]
fn a_joined_network_is_explained_by_itself() {
    let isa = Isa::best().unwrap();
    let both = joined("resnet18+mobilenetv2");
    let image = &images(&both)[..3 * SIZE[0] * SIZE[1]];
    for (tap, network, own, output) in
        [(None, "mobilenetv2", None, "logits"), (Some("resnet18/layer3"), "resnet18", Some("layer3"), "logits")]
    {
        let mut cam = GradCam::new(&both, tap, SIZE, &isa.into()).unwrap();
        let mut alone = GradCam::new(&crate::backbone(network), own, SIZE, &isa.into()).unwrap();
        assert_eq!(
            (cam.tap(), cam.output()),
            (&*format!("{network}/{}", alone.tap()), &*format!("{network}/{output}"))
        );
        assert_eq!(cam.classes(), Some(1000));
        let target = Target::Class(7);
        assert_eq!(cam.explain(image, target).unwrap(), alone.explain(image, target).unwrap());
    }
}
