//! The embedded weights on a photograph.

use std::collections::BTreeMap;

use nomaly_backbones::{Backbone, BackboneEntry, OutputLayout, TapRequest};
use nomaly_nn::runtime::Executor;
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    logits: BTreeMap<usize, f32>,
}

/// The embedded weights are the published f32 ones rounded to f16, and JPEG decoders differ by single grey levels; the
/// logits range from −4 to 9.
const TOLERANCE: f32 = 0.1;

/// The preprocessed photograph, `[3, 224, 224]`.
fn cat() -> Vec<f32> {
    let image = image::load_from_memory(include_bytes!("../fixtures/cat.jpg")).unwrap().into_rgb8();
    assert_eq!(image.dimensions(), (224, 224));
    let wanted = Backbone::embedded().unwrap().preprocessing();
    (0..3)
        .flat_map(|channel| {
            let samples = image.pixels().map(move |pixel| f32::from(pixel[channel]) / 255.0);
            samples.map(move |sample| (sample - wanted.mean[channel]) / wanted.std[channel]).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn a_cat_is_a_cat() {
    let backbone = Backbone::embedded().unwrap();
    assert_eq!((backbone.name(), backbone.licence()), ("efficientnet-lite0", "Apache-2.0"));
    assert!(backbone.entries().all(BackboneEntry::is_embedded));
    let request = [TapRequest::new("logits", OutputLayout::Mean)];
    let extractor = backbone.compile([224, 224], &request, &Executor::cpu().unwrap()).unwrap();
    let mut outputs = vec![Vec::new()];
    extractor.run(&cat(), 1, &mut extractor.workspace(1), &mut outputs).unwrap();

    let logits = &outputs[0];
    let top = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
    assert!((281..=285).contains(&top), "class {top} is not one of ImageNet's domestic cats");
    let expected: Expected = serde_json::from_str(include_str!("../fixtures/cat.json")).unwrap();
    for (class, expected) in expected.logits {
        let found = logits[class];
        assert!((found - expected).abs() <= TOLERANCE, "class {class}: {found}, expected {expected}");
    }
}
