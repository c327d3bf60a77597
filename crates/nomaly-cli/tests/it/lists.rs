//! Lists and help.

use serde_json::Value;

use crate::args;
use crate::support::nomaly;

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect()
}

#[test]
fn every_list_is_there_for_people_and_for_programs() {
    for (kind, expected) in [
        ("methods", "mvg"),
        ("backbones", "efficientnet-lite0"),
        ("scorers", "gaussian"),
        ("transforms", "resize"),
        ("datasets", "fashion-mnist"),
        ("metrics", "auroc"),
    ] {
        let json = nomaly(["list", kind, "--format", "json"]).json();
        assert!(names(&json).contains(&expected), "{kind}: {json}");
        let table = nomaly(["list", kind]).ok();
        for name in names(&json) {
            assert!(table.contains(name), "{kind} lacks {name}: {table}");
        }
    }
}

#[test]
fn methods_are_listed_with_their_paper_and_settings() {
    let methods = nomaly(["list", "methods", "--format", "json"]).json();
    for method in methods.as_array().unwrap() {
        assert!(!method["paper"].as_str().unwrap().is_empty());
        assert!(["fit", "predict", "memory"].iter().all(|cost| !method["cost"][cost].as_str().unwrap().is_empty()));
        assert!(method["parameters"].as_array().unwrap().iter().any(|parameter| parameter["name"] == "input_size"));
    }
}

#[test]
fn methods_are_listed_with_the_figures_of_their_papers() {
    let table = nomaly(["list", "methods"]).ok();
    assert!(table.contains("99.2 % image AUROC, 98.1 % pixel AUROC, 94.4 % AUPRO on MVTec AD"), "{table}");
    let methods = nomaly(["list", "methods", "--format", "json"]).json();
    let of = |name: &str| methods.as_array().unwrap().iter().find(|method| method["name"] == name).unwrap().clone();
    assert_eq!(of("patchcore")["published"][0]["aupro_percent"], 94.4);
    assert!(of("mvg")["published"][0]["pixel_auroc_percent"].is_null());
}

#[test]
fn weights_and_data_are_listed_with_their_state() {
    let weights = nomaly(["weights", "list", "--format", "json"]).json();
    let state =
        |name: &str| weights.as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap()["state"].clone();
    assert_eq!(state("efficientnet-lite0"), "embedded");
    assert_eq!(state("resnet18"), "available");
    assert!(nomaly(["weights", "list"]).ok().contains("embedded"));

    let data = nomaly(["data", "list", "--format", "json"]).json();
    assert!(data.as_array().unwrap().iter().all(|entry| entry["folder"].is_null()), "{data}");
    assert!(nomaly(["data", "list"]).ok().contains("not fetched"));
}

#[test]
fn completions_name_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = nomaly(["completions", shell]).ok();
        for command in ["demo", "fit", "update", "score", "eval", "inspect", "list", "weights", "data", "bench"] {
            assert!(script.contains(command), "{shell} lacks {command}");
        }
    }
}

#[test]
fn every_command_has_help_and_a_wrong_usage_is_an_error() {
    for command in
        ["demo", "fit", "update", "score", "eval", "inspect", "list", "weights", "data", "bench", "completions"]
    {
        let help = nomaly([command, "--help"]).ok();
        assert!(help.contains("Usage: nomaly"), "{help}");
    }
    for usage in
        [&["fit", "x"][..], &["score", "-m", "x"], &["eval"], &["nonsense"], &["fit", "x", "-o", "y", "--max-fpr", "2"]]
    {
        nomaly(usage).error();
    }
    assert_eq!(nomaly(args!["--version"]).ok().split_whitespace().next(), Some("nomaly"));
}
