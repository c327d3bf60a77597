//! A user's workflow: fit, inspect, score, evaluate.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::args;
use crate::support::{INPUT_SIZE, PROGRAM, TEST, TRAIN, folder, fresh_folder, model, nomaly, parts};

/// The keys of an object, sorted.
fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn fit_says_what_it_did_on_stderr_only() {
    let path = fresh_folder("fit").join("a.nomaly");
    let run = nomaly(args!["fit", parts(), "-o", path, "--set", INPUT_SIZE]);
    assert_eq!((run.status, run.stdout.as_str()), (0, ""));
    for expected in [
        "auto chose patchcore at the size 64 for 24 images; about",
        "fitted patchcore on efficientnet-lite0: 24 images of parts",
        "at most 5 % false alarms",
        "wrote ",
    ] {
        assert!(run.stderr.contains(expected), "{}", run.stderr);
    }
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);

    let quiet = nomaly(args!["fit", parts(), "-o", path, "--set", INPUT_SIZE, "--quiet"]);
    assert_eq!((quiet.status, quiet.stdout + &quiet.stderr), (0, String::new()));
}

#[test]
fn a_time_budget_chooses_a_method_or_says_what_each_would_take() {
    let path = fresh_folder("budget").join("a.nomaly");
    let fit = |more: &[&str]| {
        let first = args!["fit", parts(), "-o", path, "--set", INPUT_SIZE];
        nomaly(first.into_iter().chain(more.iter().map(Into::into)))
    };
    let generous = fit(&["--time-budget", "100000"]);
    assert!(generous.status == 0 && generous.stderr.contains("of 100000 s allowed"), "{}", generous.stderr);
    assert!(fit(&["--time-budget", "0.000001"]).error().contains("mvg at the size 64 would take"));
    assert!(fit(&["--time-budget", "5", "--method", "mvg"]).error().contains("--method auto"));
}

#[test]
fn a_model_does_not_depend_on_the_number_of_threads_or_the_batch() {
    let fit = |name: &str, threads: &str, batch: &str| {
        let path = folder("threads").join(name);
        nomaly(args!["fit", parts(), "-o", path, "--set", INPUT_SIZE, "--threads", threads, "--batch", batch]).ok();
        std::fs::read(path).unwrap()
    };
    let one = fit("1.nomaly", "1", "8");
    assert!(one == fit("2.nomaly", "2", "8"), "two threads wrote another model than one");
    assert!(one == fit("3.nomaly", "2", "5"), "batches of five wrote another model than batches of eight");
}

#[test]
fn inspect_tells_what_is_in_a_model() {
    let json = nomaly(args!["inspect", model(), "--format", "json"]).json();
    assert_eq!(json["method"]["name"], "mvg");
    assert_eq!(json["backbone"]["name"], "efficientnet-lite0");
    assert_eq!(json["training"]["images"], TRAIN);
    assert!(json["threshold"].as_f64().unwrap() > 0.0);
    assert_eq!(json["smallest_p_value"], 1.0 / (TRAIN as f64 + 1.0));

    let table = nomaly(args!["inspect", model()]).ok();
    for expected in ["mvg", "efficientnet-lite0", "64×64 pixels", "24 images of parts", "Apache-2.0"] {
        assert!(table.contains(expected), "{table}");
    }
}

#[test]
fn scores_come_in_the_order_of_the_images_in_every_format() {
    // Not the order that sorting would give.
    let images =
        [parts().join("test/spot/001.png"), parts().join("test/good/003.png"), parts().join("test/spot/000.png")];
    let score =
        |format: &str| nomaly(args!["score", images[0], images[1], images[2], "-m", model(), "--format", format]).ok();
    let lines: Vec<Value> = score("jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    for (line, image) in lines.iter().zip(&images) {
        assert_eq!(keys(line), ["anomalous", "error", "input_shift", "map_max", "p_value", "path", "regions", "score"]);
        assert_eq!(line["path"], image.to_str().unwrap());
        assert!(line["map_max"].is_null() && line["error"].is_null());
    }
    let of = |place: usize, key: &str| lines[place][key].as_f64().unwrap();
    assert!(of(0, "score") > of(1, "score"));
    // The smallest p-value that 24 held-out scores allow.
    assert_eq!(of(0, "p_value"), 1.0 / 25.0);
    assert_eq!([&lines[0]["anomalous"], &lines[1]["anomalous"], &lines[2]["anomalous"]], [true, false, true]);

    assert_eq!(serde_json::from_str::<Vec<Value>>(&score("json")).unwrap(), lines);

    let csv = score("csv");
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(
        rows[0],
        ["path", "score", "p_value", "anomalous", "map_max", "error_kind", "error_message", "regions", "input_shift"]
    );
    for (row, line) in rows[1..].iter().zip(&lines) {
        assert_eq!(row[0], line["path"]);
        assert_eq!(row[1].parse::<f64>().unwrap(), line["score"].as_f64().unwrap());
        assert_eq!(row[3], line["anomalous"].to_string());
    }

    let table = score("table");
    assert!(!table.contains('\u{1b}'), "colours belong on terminals only: {table:?}");
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["decision", "score", "p-value", "image"]);
    assert_eq!([rows[1][0], rows[2][0], rows[3][0]], ["anomalous", "normal", "anomalous"]);
}

#[test]
fn the_exit_status_tells_of_anomalies_only_when_asked() {
    let score = |threshold: &str, more: &[&str]| {
        let mut args = args!["score", parts().join("test"), "-m", model(), "--threshold", threshold].to_vec();
        args.extend(more.iter().map(Into::into));
        nomaly(args)
    };
    assert_eq!(score("-1e30", &[]).status, 0);
    let found = score("-1e30", &["--fail-on-anomaly"]);
    assert_eq!(found.status, 1);
    assert!(found.stderr.contains("8 of 8 images anomalous"), "{}", found.stderr);
    assert!(!found.stderr.contains("error"), "{}", found.stderr);
    assert_eq!(score("1e30", &["--fail-on-anomaly"]).status, 0);
}

#[test]
fn the_false_alarm_rate_can_be_set_again_when_scoring() {
    let flagged = |rate: f64| {
        let text = rate.to_string();
        let images = parts().join("test");
        let out = nomaly(args!["score", images, "-m", model(), "--max-fpr", text, "--format", "jsonl", "-q"]).ok();
        let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for line in &lines {
            assert_eq!(line["anomalous"], line["p_value"].as_f64().unwrap() <= rate, "{line}");
        }
        lines.iter().filter(|line| line["anomalous"] == true).count()
    };
    assert_eq!(flagged(0.05), TEST);
    assert!(flagged(0.99) > TEST);
    let strict = nomaly(args!["score", parts().join("test"), "-m", model(), "--max-fpr", "0.001"]);
    assert!(strict.stderr.contains("at least 999 images"), "{}", strict.stderr);
    assert_eq!(strict.status, 3, "{}", strict.stderr);
    assert!(strict.stdout.lines().skip(1).all(|line| line.starts_with("undecided ")), "{}", strict.stdout);
    for rate in ["1e-300", "1e-10", "0.99999999999", "0.99999999999999999"] {
        for command in ["score", "eval"] {
            let message = nomaly(args![command, parts(), "-m", model(), "--max-fpr", rate]).error();
            assert!(message.contains("a rate from 1e-9"), "{command} {rate}: {message}");
        }
    }
}

#[test]
fn eval_of_a_model_prints_the_object_of_the_contract() {
    let json = nomaly(args!["eval", parts(), "-m", model(), "--format", "json"]).json();
    for key in [
        "dataset",
        "method",
        "backbone",
        "seed",
        "n_train",
        "n_test",
        "image",
        "pixel",
        "by_kind",
        "threshold",
        "timing",
        "peak_rss_mib",
    ] {
        assert!(json.get(key).is_some(), "{key} is missing");
    }
    for (name, figures) in [
        ("image", &["ap", "auroc", "eer", "f1_max"][..]),
        ("threshold", &["accuracy", "f1", "fnr", "fpr", "precision", "recall", "rule", "tnr", "tpr", "value"]),
    ] {
        let found = keys(&json[name]);
        let without_intervals: Vec<&str> = found.iter().copied().filter(|key| !key.ends_with("_ci")).collect();
        assert_eq!(without_intervals, figures);
        for interval in found.iter().filter(|key| key.ends_with("_ci")) {
            let ends: Vec<f64> = serde_json::from_value(json[name][interval].clone()).unwrap();
            let figure = json[name][interval.trim_end_matches("_ci")].as_f64().unwrap();
            assert!(ends.len() == 2 && ends[0] <= figure && figure <= ends[1], "{interval} {ends:?} {figure}");
        }
    }
    assert_eq!(keys(&json["timing"]), ["fit_s", "images_per_s", "predict_ms_per_image_median"]);
    assert_eq!(json["n_test"], serde_json::json!({ "normal": TEST, "anomalous": TEST }));
    assert_eq!(json["n_train"], TRAIN);
    assert_eq!(json["image"]["auroc"], 1.0, "a dark spot on stripes is hard to miss");
    assert_eq!(json["by_kind"]["spot"]["auroc"], 1.0);
    assert!(json["timing"]["fit_s"].is_null());
}

#[test]
fn eval_fits_limits_the_training_and_writes_a_report() {
    let report = fresh_folder("eval").join("report");
    let run =
        nomaly(args!["eval", parts(), "--method", "dn2", "--set", INPUT_SIZE, "--max-train", "20", "--report", report]);
    assert!(run.stderr.contains("evaluation.json"), "{}", run.stderr);
    let table = run.ok();
    for expected in
        ["parts: dn2 on efficientnet-lite0", "20 training images", "AUROC", "spot", "threshold", "ms an image"]
    {
        assert!(table.contains(expected), "{table}");
    }
    let html = std::fs::read_to_string(report.join("report.html")).unwrap();
    assert!(html.contains("data:image/jpeg") && html.contains("test/spot/000.png"));
    assert!(html.contains("Grad-CAM at the layer <code>") && html.contains("What the network looks at in test/spot/"));
    let json: Value = serde_json::from_slice(&std::fs::read(report.join("evaluation.json")).unwrap()).unwrap();
    assert_eq!(json["n_train"], 20);
    let csv = std::fs::read_to_string(report.join("scores.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 2 * TEST);
}

#[test]
fn score_writes_a_report() {
    let path = fresh_folder("score").join("score.html");
    nomaly(args!["score", parts().join("test"), "-m", model(), "--report", path]).ok();
    let html = std::fs::read_to_string(path).unwrap();
    assert!(html.contains("data:image/jpeg") && html.contains("of 8 images anomalous"));
}

#[test]
fn two_models_score_together() {
    let folder = fresh_folder("together");
    let (second, report) = (folder.join("second.nomaly"), folder.join("report.html"));
    nomaly(args!["fit", parts(), "--method", "dn2", "--set", INPUT_SIZE, "-o", second]).ok();
    let together = |more: &[&str]| {
        let given = args!["score", parts().join("test"), "-m", model(), "--with", second, "--max-fpr", "0.1"];
        nomaly(given.into_iter().chain(more.iter().map(|arg| std::ffi::OsString::from(*arg))).collect::<Vec<_>>())
    };
    let records = together(&["--format", "json", "--report", report.to_str().unwrap()]).json();
    let alone = nomaly(args!["score", parts().join("test"), "-m", model(), "--format", "json"]).json();
    let records = records.as_array().unwrap();
    assert_eq!(records.len(), 2 * TEST);
    let mut p_values = [Vec::new(), Vec::new()];
    for (record, alone) in records.iter().zip(alone.as_array().unwrap()) {
        assert_eq!(record["path"], alone["path"]);
        assert_ne!(record["score"], alone["score"]);
        let p = record["p_value"].as_f64().unwrap();
        assert!((record["score"].as_f64().unwrap() + p.ln()).abs() < 1e-9, "{record}");
        assert_eq!(record["anomalous"], p <= 0.1, "{record}");
        p_values[usize::from(record["path"].as_str().unwrap().contains("spot"))].push(p);
    }
    let [normal, anomalous] = p_values.map(|p| p.iter().sum::<f64>() / p.len() as f64);
    assert!(anomalous < 0.01 && normal > 0.1, "{anomalous} {normal}");
    let html = std::fs::read_to_string(report).unwrap();
    assert!(html.contains("together have a p-value of at most 10"), "{}", html.len());
    let refused = together(&["--rule", "quantile"]);
    assert!(refused.stderr.contains("cannot be used with"), "{}", refused.stderr);
}

#[test]
fn the_demo_needs_nothing_and_says_that_its_defects_are_synthetic() {
    let path = fresh_folder("demo").join("demo.html");
    let run = nomaly(args!["demo", "--report", path]);
    assert!(run.stderr.contains("synthetic"), "{}", run.stderr);
    assert!(run.ok().contains("AUROC"));
    assert!(std::fs::read_to_string(path).unwrap().contains("synthetic"));
}

#[test]
fn a_reader_that_stops_reading_is_no_error() {
    let mut child = Command::new(PROGRAM)
        .args(args!["score", parts(), "-m", model(), "--format", "jsonl", "--batch", "1", "--quiet"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with('{'));
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(output.status.code(), Some(0));
}
