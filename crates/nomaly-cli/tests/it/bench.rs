//! `nomaly bench` with few repetitions: its output, not the timings.

use serde_json::Value;

use crate::support::nomaly;

const QUICK: [&str; 7] = ["bench", "backbone", "--input-size", "64", "--repeats", "1", "--quiet"];

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn check_layers(report: &Value) {
    assert!(layers(report).next().is_some());
    for layer in layers(report) {
        assert!(!layer["description"].as_str().unwrap().is_empty(), "{layer}");
        assert!(!layer["algorithm"].as_str().unwrap().is_empty(), "{layer}");
        let rate = number(&layer["gflop_per_s"]);
        let share = rate / number(&report["peak_gflop_per_s"]["all_threads"]);
        assert!((number(&layer["share_of_peak"]) - share).abs() <= 1e-9 * share, "{layer}");
    }
}

#[test]
fn a_backbone_is_timed_as_a_whole_and_layer_by_layer() {
    let report = nomaly([&QUICK[..], &["--batch", "2", "--threads", "1", "--format", "json"]].concat()).json();
    assert_eq!(report["backbone"], "efficientnet-lite0");
    assert_eq!(report["random_weights"], false);
    assert_eq!(report["tap"], "head");
    assert_eq!(report["threads"], 1);
    assert_eq!(report["batch"], 2);
    assert_eq!(report["input"], serde_json::json!([3, 64, 64]));
    let ms = &report["ms"];
    assert!(number(&ms["min"]) > 0.0 && ms["min"] == ms["median"] && ms["median"] == ms["max"], "{ms}");
    assert!((number(&report["images_per_s"]) * number(&ms["median"]) - 2000.0).abs() < 1e-6, "{report}");
    // 0.77 GFLOP at 224 pixels, and the area of 64 pixels.
    assert!((0.06..0.08).contains(&number(&report["gflop_per_image"])), "{report}");
    assert_eq!(report["peak_gflop_per_s"]["one_thread"], report["peak_gflop_per_s"]["all_threads"]);
    assert!(number(&report["workspace_bytes"]) > 0.0);
    check_layers(&report);
    // The layers' work sums to the total.
    let work: f64 = layers(&report).map(|layer| number(&layer["gflop_per_s"]) * number(&layer["ms"]) / 1e3).sum();
    assert!((work / (2.0 * number(&report["gflop_per_image"])) - 1.0).abs() < 1e-6, "{report}");
    assert!(layers(&report).any(is_convolution), "{report}");
}

fn layers(report: &Value) -> impl Iterator<Item = &Value> {
    report["layers"].as_array().unwrap().iter()
}

fn is_convolution(layer: &Value) -> bool {
    let description = layer["description"].as_str().unwrap();
    description.starts_with("conv") || description.starts_with("depthwise")
}

#[test]
fn a_backbone_without_weights_is_timed_with_random_ones_and_says_so() {
    let quick = ["bench", "backbone", "--backbone", "wrn-10-4", "--repeats", "1", "--format", "json"];
    let run = nomaly(quick);
    assert!(run.stderr.contains("no weights for wrn-10-4"), "{}", run.stderr);
    let report = run.json();
    assert_eq!(report["random_weights"], true);
    assert_eq!(report["input"], serde_json::json!([3, 32, 32]));
    check_layers(&report);
}

#[test]
fn a_shallower_tap_is_less_work() {
    let json = |more: &[&str]| nomaly([&QUICK[..], &["--format", "json"], more].concat()).json();
    let (shallow, deep) = (json(&["--tap", "stage2"]), json(&[]));
    assert_eq!(shallow["tap"], "stage2");
    assert!(number(&shallow["gflop_per_image"]) < number(&deep["gflop_per_image"]));
    assert_eq!(json(&["--no-layers"])["layers"], serde_json::json!([]));
}

#[test]
fn tables_name_the_layers_and_the_share_of_the_peak() {
    let table = nomaly(QUICK).ok();
    for expected in ["efficientnet-lite0 up to head", "images per second", "of the peak", "algorithm"] {
        assert!(table.contains(expected), "{expected} is not in: {table}");
    }
}

#[test]
fn layers_are_timed_alone() {
    let report = nomaly(["bench", "kernels", "--repeats", "1", "--format", "json"]).json();
    assert!(number(&report["peak_gflop_per_s"]["one_thread"]) > 0.0);
    check_layers(&report);
    for layer in layers(&report) {
        assert!(is_convolution(layer) && number(&layer["ms"]["min"]) > 0.0, "{layer}");
    }
    assert!(nomaly(["bench", "kernels", "--repeats", "1"]).ok().contains("conv 3x3 64->64 at 56x56"));
}

#[test]
fn what_cannot_be_timed_is_an_error() {
    let error = |args: &[&str]| nomaly([&["bench"], args].concat()).error();
    let unknown = error(&["backbone", "--backbone", "resnet81"]);
    assert!(unknown.contains("resnet81") && unknown.contains("nomaly list backbones"), "{unknown}");
    let tap = error(&["backbone", "--tap", "layer9"]);
    assert!(tap.contains("layer9") && tap.contains("stage1"), "{tap}");
    let file = error(&["backbone", "--weights", "no-such-file.pth"]);
    assert!(file.contains("no-such-file.pth"), "{file}");
    for usage in [&["backbone", "--batch", "0"][..], &["backbone", "--repeats", "0"], &["kernels", "--repeats", "x"]] {
        error(usage);
    }
}

#[test]
fn an_instruction_set_of_another_machine_is_refused() {
    let absent = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    for what in ["backbone", "kernels"] {
        let output = assert_cmd::Command::new(crate::support::PROGRAM)
            .args(["bench", what, "--repeats", "1"])
            .env("NOMALY_ISA", absent)
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(absent) && stderr.contains("portable"), "{stderr}");
    }
}
