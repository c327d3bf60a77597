//! Detectors on a vision transformer with random weights, which a user would bring as a file.

use nomaly_backbones::Backbone;
use nomaly_detectors::{Detector, FitOptions, FittedDetector, PredictOptions};
use nomaly_nn::weights::{Metadata, to_safetensors};
use nomaly_settings::Assignments;
use nomaly_store::Silent;

use crate::images::dataset;

#[test]
fn a_transformer_with_weights_from_a_file_finds_blots() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("dinov2.safetensors");
    // The taps of the default layers need the first ten blocks; the file may end there.
    let backbone = Backbone::initialized("dinov2-small", 0, 1).unwrap();
    let exported = backbone.export(&["block9"]).unwrap();
    std::fs::write(&weights, to_safetensors(&exported, &Metadata::new()).unwrap()).unwrap();
    let file = weights.display().to_string();
    let settings = |size: u32| Assignments::new().with("weights", file.as_str()).with("input_size", size);
    for method in ["padim", "patchcore"] {
        let refused = Detector::new(method, "dinov2-small", &settings(64)).err().expect("no whole patches").to_string();
        assert!(refused.contains("multiples of 14, not 64 x 64: the next size that fits is 70 x 70"), "{refused}");
        // The images are square, and 60 is nearest to 56 in steps of 14.
        let settings = settings(60).with("aspect", "keep");
        let fitted = Detector::new(method, "dinov2-small", &settings)
            .unwrap()
            .fit("stripes", &dataset().train, &FitOptions::default(), &Silent)
            .unwrap()
            .detector;
        let path = folder.path().join(method);
        fitted.save(&path).unwrap();
        let loaded = FittedDetector::load(&path).unwrap();
        let mut scores = Vec::new();
        loaded
            .predict(&dataset().test, &PredictOptions::default(), &Silent, |outcome| {
                scores.push(outcome.result.unwrap().score);
                Ok(())
            })
            .unwrap();
        let mean = |blot: usize| scores.iter().skip(blot).step_by(2).sum::<f64>() / 8.0;
        assert!(mean(1) > mean(0), "{method}: {scores:?}");
    }
}
