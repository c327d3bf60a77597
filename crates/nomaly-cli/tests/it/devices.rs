//! `--device`: what each device needs, and fits and scores on candle's processor, which stands for GPUs.

use crate::args;
use crate::support::{fresh_folder, nomaly, parts};

#[test]
fn a_device_that_was_not_built_names_its_feature() {
    let path = fresh_folder("devices").join("a.nomaly");
    for (device, feature, built) in [
        ("cuda", "cuda", cfg!(feature = "cuda")),
        ("cuda:1", "cuda", cfg!(feature = "cuda")),
        ("metal", "metal", cfg!(feature = "metal")),
        ("candle-cpu", "candle", cfg!(feature = "candle")),
    ] {
        if built {
            continue;
        }
        let expected =
            format!("without the device {device}: build it with `cargo build --release --features {feature}`");
        let commands = [
            args!["fit", parts(), "-o", path, "--device", device].to_vec(),
            args!["eval", parts(), "--device", device].to_vec(),
            args!["score", parts(), "-m", path, "--device", device].to_vec(),
            args!["explain", parts(), "-m", path, "-o", path, "--device", device].to_vec(),
            args!["update", parts(), "-m", path, "--device", device].to_vec(),
            args!["calibrate", parts(), "-m", path, "--device", device].to_vec(),
            args!["bench", "backbone", "--device", device].to_vec(),
        ];
        for command in commands {
            let message = nomaly(&command).error();
            assert!(message.contains(&expected), "{command:?}: {message}");
        }
    }
    assert!(!path.exists());
}

#[cfg(feature = "candle")]
#[test]
fn a_model_is_fitted_and_scores_on_another_device() {
    use crate::support::{INPUT_SIZE, TRAIN};

    let folder = fresh_folder("candle-cpu");
    let scores = |fit: &str, score: &str, method: &str| -> Vec<f64> {
        let path = folder.join(format!("{method}-{fit}.nomaly"));
        let fitted = args!["fit", parts(), "-o", path, "--method", method, "--set", INPUT_SIZE, "--device", fit];
        nomaly(fitted).ok();
        let inspected = nomaly(args!["inspect", path, "--format", "json"]).json();
        assert_eq!(inspected["training"]["device"].as_str(), (fit != "cpu").then_some(fit));
        let scored = args!["score", parts(), "-m", path, "--format", "json", "--device", score];
        let records = nomaly(scored).json();
        records.as_array().unwrap().iter().map(|record| record["score"].as_f64().unwrap()).collect()
    };
    for method in ["padim", "patchcore"] {
        let want = scores("cpu", "cpu", method);
        assert!(want.len() > TRAIN);
        let greatest = want.iter().fold(0.0f64, |greatest, score| greatest.max(*score));
        for (fit, score) in [("candle-cpu", "candle-cpu"), ("cpu", "candle-cpu"), ("candle-cpu", "cpu")] {
            for (got, want) in scores(fit, score, method).iter().zip(&want) {
                // Features agree to 1e-4 of the greatest.
                assert!((got - want).abs() <= 1e-3 * greatest, "{method} {fit} {score}: {got}, expected {want}");
            }
        }
    }
}

#[cfg(feature = "candle")]
#[test]
fn a_benchmark_of_another_device_has_no_layers_and_no_peak() {
    let quick = args!["bench", "backbone", "--input-size", "64", "--repeats", "1", "--device", "candle-cpu"];
    let report = nomaly(quick.iter().chain(&args!["--format", "json"])).json();
    assert_eq!((report["device"].as_str(), report["layers"].as_array().map(Vec::len)), (Some("candle-cpu"), Some(0)));
    assert!(report["gflop_per_s"].as_f64().unwrap() > 0.0);
    assert!(report["share_of_peak"].is_null() && report["peak_gflop_per_s"].is_null());
    assert!(nomaly(quick).ok().contains("candle-cpu"));
}
