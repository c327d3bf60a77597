//! Two networks as one backbone.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nomaly::backbones::Backbone;
use nomaly::backbones::{Metadata, to_safetensors};
use serde_json::Value;

use crate::args;
use crate::support::{INPUT_SIZE, TEST, fresh_folder, nomaly, nomaly_at, parts};

const JOINED: &str = "efficientnet-lite0+mobilenetv2";

/// A cache folder with arbitrary weights of MobileNetV2.
fn home() -> &'static Path {
    static HOME: OnceLock<PathBuf> = OnceLock::new();
    HOME.get_or_init(|| {
        let home = fresh_folder("joined-home");
        let file = home.join("mobilenetv2.safetensors");
        let weights = Backbone::initialized("mobilenetv2", 10, 1).unwrap().export(&["head"]).unwrap();
        std::fs::write(&file, to_safetensors(&weights, &Metadata::new()).unwrap()).unwrap();
        nomaly_at(&home, args!["weights", "import", file]).ok();
        home
    })
}

fn fit(path: &Path, more: &[&str]) -> Vec<OsString> {
    let first = args!["fit", parts(), "-o", path, "--backbone", JOINED, "--set", INPUT_SIZE];
    first.into_iter().chain(more.iter().map(Into::into)).collect()
}

/// A model of both networks, created once.
fn model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let path = fresh_folder("joined").join("parts.nomaly");
        nomaly_at(home(), fit(&path, &["--method", "patchcore"])).ok();
        path
    })
}

#[test]
fn a_model_holds_both_networks_and_says_so() {
    let json = nomaly(args!["inspect", model(), "--format", "json"]).json();
    assert_eq!(json["backbone"]["name"], JOINED);
    assert_eq!(json["backbone"]["licence"], "Apache-2.0 AND MIT");
    let source = json["backbone"]["source"].as_str().unwrap();
    assert!(source.starts_with("efficientnet-lite0: ") && source.contains("; mobilenetv2: "), "{source}");
    let layers = ["efficientnet-lite0/stage3", "efficientnet-lite0/stage5", "mobilenetv2/stage3", "mobilenetv2/stage5"];
    assert_eq!(json["method"]["settings"]["layers"], serde_json::json!(layers));
    // Lite0 was trained on samples from -1 to 1, MobileNetV2 on others.
    assert_eq!(json["pipeline"]["normalize"]["std"][0], f64::from(128f32 / 255.0) as f32);
    assert!(nomaly(args!["inspect", model()]).ok().contains(JOINED));
}

#[test]
fn a_model_needs_no_weights_beside_it_and_is_the_same_each_time() {
    // A cache folder without weights.
    let scores = nomaly(args!["score", parts().join("test"), "-m", model(), "--format", "json"]).json();
    assert_eq!(
        scores,
        nomaly_at(home(), args!["score", parts().join("test"), "-m", model(), "--format", "json"]).json()
    );
    let of = |kind: &str| -> Vec<f64> {
        let all = scores.as_array().unwrap().iter();
        all.filter(|line| line["path"].as_str().unwrap().contains(kind))
            .map(|line| line["score"].as_f64().unwrap())
            .collect()
    };
    let (good, spot) = (of("/good/"), of("/spot/"));
    assert_eq!((good.len(), spot.len()), (TEST, TEST));
    assert!(spot.iter().all(|spot| good.iter().all(|good| spot > good)), "{good:?} {spot:?}");

    let again = fresh_folder("joined-again").join("parts.nomaly");
    nomaly_at(home(), fit(&again, &["--method", "patchcore", "--batch", "5", "--threads", "1"])).ok();
    assert!(std::fs::read(&again).unwrap() == std::fs::read(model()).unwrap(), "another batch wrote another model");
}

#[test]
fn every_method_on_features_looks_at_both() {
    for (method, key, expected) in [
        (
            "padim",
            "layers",
            "efficientnet-lite0/stage2,efficientnet-lite0/stage3,efficientnet-lite0/stage5,\
                             mobilenetv2/stage2,mobilenetv2/stage3,mobilenetv2/stage5",
        ),
        ("features", "level", "efficientnet-lite0/head,mobilenetv2/head"),
    ] {
        let path = fresh_folder("joined-methods").join(format!("{method}.nomaly"));
        let run = nomaly_at(home(), fit(&path, &["--method", method]));
        assert_eq!(run.status, 0, "{}", run.stderr);
        let settings = nomaly(args!["inspect", path, "--format", "json"]).json()["method"]["settings"].clone();
        let names: Vec<&str> = expected.split(',').collect();
        assert_eq!(settings[key], serde_json::json!(names), "{method}");
    }
}

#[test]
fn networks_are_timed_and_explained_by_their_names() {
    let bench =
        args!["bench", "backbone", "--backbone", JOINED, "--input-size", "64", "--repeats", "1", "--format", "json"];
    let report: Value = nomaly_at(home(), bench).json();
    assert_eq!(report["tap"], "efficientnet-lite0/head, mobilenetv2/head");
    assert_eq!(report["random_weights"], false);
    let layers = report["layers"].as_array().unwrap();
    let stems = layers.iter().filter(|layer| layer["description"].as_str().unwrap().contains("3->32")).count();
    assert_eq!(stems, 2);

    let out = fresh_folder("joined-explained");
    nomaly(args!["explain", parts().join("test/spot"), "-m", model(), "-o", out]).ok();
    assert!(out.join("000.mobilenetv2.stage5.png").is_file());
    nomaly(args!["explain", parts().join("test/spot"), "-m", model(), "-o", out, "--average"]).ok();
    assert!(out.join("average.efficientnet-lite0.stage3.png").is_file());
    assert!(out.join("average.mobilenetv2.stage1.png").is_file());
}

#[test]
fn what_makes_no_sense_for_joined_networks_is_refused_with_the_reason() {
    let output = fresh_folder("joined-refused").join("out.nomaly");
    let message = |home: &Path, backbone: &str, more: &[&str]| {
        let first = args!["fit", parts(), "-o", output, "--set", INPUT_SIZE, "--backbone", backbone];
        nomaly_at(home, first.into_iter().chain(more.iter().map(Into::into))).error()
    };
    for (backbone, more, expected) in [
        ("efficientnet-lite0+pixels", &[][..], "`pixels` is no backbone"),
        ("efficientnet-lite0+efficientnet-lite0", &[], "efficientnet-lite0 is named twice"),
        ("efficientnet-lite0+mobilenet", &[], "unknown backbone `mobilenet`; did you mean `mobilenetv2`?"),
        (
            "efficientnet-lite0+resnet18",
            &[],
            "no weights for resnet18 here; fetch them with `nomaly weights get resnet18`",
        ),
        (JOINED, &["--set", "weights=x.pth"], "is several networks joined, and a weight file is for one"),
        (JOINED, &["--method", "geotrans"], "sees pixels and takes no backbone"),
        (
            JOINED,
            &["--method", "dn2"],
            "method dn2 does not look at efficientnet-lite0 of efficientnet-lite0+mobilenetv2, but at mobilenetv2/head: \
             name a level of each if it takes several, or leave that network out",
        ),
        (
            JOINED,
            &["--method", "patchcore", "--set", "layers=efficientnet-lite0/stage3"],
            "does not look at mobilenetv2 of",
        ),
        (JOINED, &["--method", "patchcore", "--set", "layers=stage3"], "unknown layer `stage3`"),
    ] {
        let message = message(home(), backbone, more);
        assert!(message.contains(expected), "{expected} is not in: {message}");
    }
}
