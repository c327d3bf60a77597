//! Decision rules, their intervals, and sequences.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::args;
use crate::support::{INPUT_SIZE, PROGRAM, Run, TEST, fresh_folder, model, nomaly, part, parts};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_rule_is_stored_in_the_model_and_told() {
    let path = fresh_folder("rule").join("sigma.nomaly");
    let input = "input_size=64";
    let fit =
        args!["fit", parts(), "-o", path, "--method", "mvg", "--set", input, "--rule", "three-sigma", "--verbose"];
    let run = nomaly(fit);
    assert!(run.stderr.contains("mean + 3 standard deviations (24 held-out scores)"), "{}", run.stderr);
    assert!(run.stderr.contains("95 % bootstrap interval"), "{}", run.stderr);
    run.ok();
    let json = nomaly(args!["inspect", path, "--format", "json"]).json();
    assert_eq!(json["decision"], "three-sigma");
    let threshold = json["threshold"].as_f64().unwrap();
    let ends: Vec<f64> = serde_json::from_value(json["threshold_ci"].clone()).unwrap();
    assert!(ends[0] < threshold && threshold < ends[1], "{ends:?} {threshold}");
    assert!(nomaly(args!["inspect", path]).ok().contains("95 % bootstrap interval"));
    let table = nomaly(args!["eval", parts(), "-m", path]).ok();
    for expected in ["mean + 3 standard deviations", "95 % interval", "precision", "accuracy", "FNR"] {
        assert!(table.contains(expected), "{table}");
    }
}

#[test]
fn another_rule_can_be_asked_for_when_scoring() {
    let threshold = |more: &[&str]| {
        let mut args = args!["eval", parts(), "-m", model(), "--format", "json"].to_vec();
        args.extend(more.iter().map(Into::into));
        nomaly(args).json()["threshold"].clone()
    };
    let conformal = threshold(&[]);
    let quantile = threshold(&["--rule", "quantile"]);
    assert!(quantile["rule"].as_str().unwrap().contains("0.05 of 24"), "{quantile}");
    // The conformal threshold is an order statistic at or above the quantile.
    assert!(quantile["value"].as_f64().unwrap() <= conformal["value"].as_f64().unwrap());
    // Too few images for a tail: a warning, and no decisions.
    let run =
        nomaly(args!["score", parts().join("test"), "-m", model(), "--rule", "extreme-value", "--max-fpr", "0.001"]);
    assert!(run.stderr.contains("at least 50 held-out scores, but there are 24"), "{}", run.stderr);
    assert_eq!(run.status, 3, "{}", run.stderr);
    assert!(run.stdout.lines().skip(1).all(|line| line.starts_with("undecided ")), "{}", run.stdout);
    let refused = nomaly(args!["eval", parts(), "-m", model(), "--rule", "three-sigma", "--max-fpr", "0.1"]);
    assert!(refused.error().contains("takes no rate"));
}

/// Twelve good parts, then six defective ones, with a file in between that is not an image.
fn sequence(name: &str) -> PathBuf {
    let root = fresh_folder(name);
    for index in 0..18u32 {
        part(300 + index, index >= 12).save(root.join(format!("{index:02}.png"))).unwrap();
    }
    std::fs::write(root.join("05b.png"), "not an image").unwrap();
    root
}

#[test]
fn a_sequence_has_a_chart_that_says_when_something_changed() {
    let images = sequence("sequence");
    for chart in ["cusum", "ewma"] {
        let run = nomaly(args![
            "score",
            images,
            "-m",
            model(),
            "--sequence",
            chart,
            "--arl0",
            "100",
            "--format",
            "jsonl",
            "--fail-on-anomaly"
        ]);
        assert_eq!(run.status, 1, "{}", run.stderr);
        // The file that is not an image counts as an item of the sequence and does not break it.
        assert!(run.stderr.contains(&format!("{chart} chart: ")), "{}", run.stderr);
        assert!(run.stderr.contains("the first at image 14 ("), "{}", run.stderr);
        let lines = lines(&run.stdout);
        assert_eq!(lines.len(), 19);
        let broken = &lines[6];
        assert!(broken["path"].as_str().unwrap().ends_with("05b.png"));
        assert!(broken["statistic"].is_null() && broken["alarm"].is_null() && !broken["error"].is_null());
        for (place, line) in lines.iter().enumerate().filter(|(place, _)| *place != 6 && *place < 13) {
            assert!(line["alarm"] == false && line["statistic"].is_number(), "{place}: {line}");
        }
        assert_eq!(lines[13]["alarm"], true);
    }

    let csv = nomaly(args!["score", images, "-m", model(), "--sequence", "cusum", "--format", "csv"]).ok();
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows[0][8..], ["input_shift", "statistic", "alarm"]);
    assert!(rows.iter().all(|row| row.len() == 11));
    let table = nomaly(args!["score", images, "-m", model(), "--sequence", "cusum"]).ok();
    let heading: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(heading, ["decision", "score", "p-value", "statistic", "chart", "image"]);
    assert!(table.lines().any(|line| line.contains(" alarm ")));
}

#[test]
fn good_parts_in_sequence_raise_no_alarm() {
    let images = parts().join("test/good");
    let score = args!["score", images, "-m", model(), "--sequence", "cusum", "--format", "json", "--fail-on-anomaly"];
    let run = nomaly(score);
    assert!(run.stderr.contains("cusum chart: no alarm"), "{}", run.stderr);
    assert_eq!(serde_json::from_str::<Vec<Value>>(&run.ok()).unwrap().len(), TEST);
    assert!(nomaly(args!["score", images, "-m", model(), "--arl0", "100"]).error().contains("--sequence"));
}

#[test]
fn no_region_is_looked_for_without_a_threshold_of_pixels() {
    let path = fresh_folder("undecided-maps").join("padim.nomaly");
    nomaly(args!["fit", parts(), "-o", path, "--method", "padim", "--set", INPUT_SIZE]).ok();
    let regions = |rate: &str| {
        let images = parts().join("test/spot");
        let run = nomaly(args!["score", images, "-m", path, "--max-fpr", rate, "--format", "jsonl"]);
        let regions: Vec<Value> = lines(&run.stdout).iter().map(|line| line["regions"].clone()).collect();
        (run.status, regions)
    };
    let (status, found) = regions("0.05");
    assert!(status == 0 && found.iter().all(|regions| !regions.as_array().unwrap().is_empty()), "{found:?}");
    assert_eq!(regions("0.001"), (3, vec![Value::Null; TEST]));
}

/// A model of 40 good parts with a rate of 1 %, which needs 99; created once.
fn strict_model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let folder = fresh_folder("strict");
        let photos = folder.join("good");
        std::fs::create_dir_all(&photos).unwrap();
        for index in 0..40 {
            part(1000 + index, false).save(photos.join(format!("{index:02}.png"))).unwrap();
        }
        let path = folder.join("part.nomaly");
        let fit = args!["fit", photos, "-o", path, "--method", "mvg", "--set", INPUT_SIZE, "--max-fpr", "0.01", "-q"];
        let run = nomaly(fit);
        let warned = "40 held-out images cannot promise a false-alarm rate of at most 1 %";
        assert!(run.stderr.contains(warned) && run.stderr.contains("no image can be decided on"), "{}", run.stderr);
        assert!(!run.stderr.contains("hint:"), "{}", run.stderr);
        run.ok();
        path
    })
}

fn score(more: &[&str]) -> Run {
    let first = args!["score", parts().join("test"), "-m", strict_model()];
    nomaly(first.into_iter().chain(more.iter().map(Into::into)))
}

#[cfg(unix)]
#[test]
fn what_cannot_be_decided_is_not_shipped() {
    let script = "\"$0\" score \"$1\" -m \"$2\" --fail-on-anomaly --strict && echo ship";
    let output = Command::new("sh")
        .args(args!["-c", script, PROGRAM, parts().join("test"), strict_model()])
        .env("NOMALY_HOME", fresh_folder("home-ship"))
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(!stdout.contains("ship"), "{stdout}");
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert_eq!(stdout.lines().filter(|line| line.starts_with("undecided ")).count(), 2 * TEST, "{stdout}");
    assert!(stderr.contains("0 of 8 images anomalous, 8 undecided"), "{stderr}");
}

#[test]
fn undecided_images_are_told_in_every_format() {
    for more in [&["--fail-on-anomaly"][..], &["--quiet"]] {
        let run = score(&[&["--format", "jsonl"], more].concat());
        assert_eq!(run.status, 3, "{}", run.stderr);
        assert!(run.stderr.contains("warning: 40 held-out images cannot promise"), "{}", run.stderr);
        for line in lines(&run.stdout) {
            assert!(line["anomalous"].is_null() && line["score"].is_number() && line["error"].is_null(), "{line}");
            assert!(line["p_value"].as_f64().unwrap() >= 1.0 / 41.0, "{line}");
        }
    }
    let csv = score(&["--format", "csv"]);
    assert_eq!(csv.status, 3);
    for line in csv.stdout.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        assert!(!cells[1].is_empty() && cells[3..6] == ["", "", ""], "{line}");
    }
    let page = fresh_folder("undecided").join("page.html");
    assert_eq!(score(&["--report", page.to_str().unwrap()]).status, 3);
    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.contains("0 of 8 images anomalous, 8 undecided") && html.contains("at least 99 held-out scores"));
    assert_eq!(html.matches("data-decision=\"undecided\"").count(), 2 * TEST);
    assert!(!html.contains("badge normal"));
    // A rate that 40 images support decides again, and an error takes precedence.
    assert_eq!(score(&["--max-fpr", "0.05"]).status, 0);
    let folder = fresh_folder("undecided-broken");
    std::fs::write(folder.join("a.png"), "no image").unwrap();
    part(1, false).save(folder.join("b.png")).unwrap();
    let mixed = |more: &[&str]| {
        let first = args!["score", folder, "-m", strict_model()];
        nomaly(first.into_iter().chain(more.iter().map(Into::into)))
    };
    assert_eq!(mixed(&[]).status, 3);
    assert_eq!(mixed(&["--strict"]).status, 2);
}

#[test]
fn an_alarm_of_the_chart_comes_before_what_is_undecided() {
    let watched = |images: &Path| {
        nomaly(args![
            "score",
            images,
            "-m",
            strict_model(),
            "--sequence",
            "cusum",
            "--arl0",
            "100",
            "--fail-on-anomaly"
        ])
    };
    let run = watched(&sequence("sequence-undecided"));
    assert_eq!(run.status, 1, "{}", run.stderr);
    assert_eq!(watched(&parts().join("test/good")).status, 3);
}

#[test]
fn an_evaluation_without_a_threshold_claims_no_decisions() {
    let eval = |more: &[&str]| {
        let first = args!["eval", parts(), "-m", strict_model()];
        nomaly(first.into_iter().chain(more.iter().map(Into::into)))
    };
    let json = eval(&["--format", "json"]).json();
    for figure in ["value", "fpr", "tpr", "fnr", "tnr", "precision", "recall", "accuracy", "f1", "fpr_ci", "f1_ci"] {
        assert!(json["threshold"][figure].is_null(), "{figure}: {json}");
    }
    assert_eq!(json["image"]["auroc"], 1.0);
    let out = fresh_folder("eval-undecided");
    let table = eval(&["--report", out.to_str().unwrap()]).ok();
    assert!(table.contains("nothing is decided: the model has no threshold"), "{table}");
    let csv = std::fs::read_to_string(out.join("scores.csv")).unwrap();
    assert!(csv.lines().skip(1).all(|line| line.ends_with(',')), "{csv}");
    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(html.contains("No image is decided on") && !html.contains("false alarms</span>"));
}

#[test]
fn good_images_alone_give_the_rate_of_false_alarms() {
    let folder = fresh_folder("good-only");
    for (group, first, count) in [("train/good", 0, 24), ("test/good", 500, 10)] {
        std::fs::create_dir_all(folder.join(group)).unwrap();
        for index in 0..count {
            part(first + index, false).save(folder.join(group).join(format!("{index:02}.png"))).unwrap();
        }
    }
    let eval = |more: &[&str]| {
        let first = args!["eval", folder, "-m", model()];
        nomaly(first.into_iter().chain(more.iter().map(Into::into)))
    };
    let json = eval(&["--format", "json"]).json();
    assert_eq!(json["n_test"], serde_json::json!({"normal": 10, "anomalous": 0}));
    let fpr = json["threshold"]["fpr"].as_f64().unwrap();
    let ends: Vec<f64> = serde_json::from_value(json["threshold"]["fpr_ci"].clone()).unwrap();
    assert!(ends[0] <= fpr && fpr <= ends[1] && ends[1] - ends[0] > 0.1, "{fpr} {ends:?}");
    for figure in ["/image", "/threshold/tpr", "/threshold/precision", "/threshold/f1", "/threshold/accuracy"] {
        assert_eq!(json.pointer(figure), Some(&Value::Null), "{figure}");
    }
    // The share with a p-value of at most the rate is the share that is flagged.
    assert_eq!(
        (&json["p_values"][1]["at_most"], &json["p_values"][1]["share"]),
        (&Value::from(0.05), &Value::from(fpr))
    );
    let out = fresh_folder("good-only-report");
    let table = eval(&["--report", out.to_str().unwrap()]).ok();
    for expected in ["10 normal and 0 anomalous", "of the normal test images", "p-value of", "at most 0.05"] {
        assert!(table.contains(expected), "{expected}: {table}");
    }
    assert!(!table.contains("AUROC"), "{table}");
    assert!(std::fs::read_to_string(out.join("report.html")).unwrap().contains("false alarms"));
    nomaly(args!["eval", folder, "--method", "dn2", "--set", INPUT_SIZE]).ok();
    assert!(eval(&["--supervised-reference"]).error().contains("needs both"));
}
