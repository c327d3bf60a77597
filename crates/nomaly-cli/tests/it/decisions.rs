//! Decision rules, their intervals, and sequences.

use serde_json::Value;

use crate::args;
use crate::support::{TEST, fresh_folder, model, nomaly, part, parts};

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
    // Too few images for a tail: said, and nothing is called anomalous.
    let run =
        nomaly(args!["score", parts().join("test"), "-m", model(), "--rule", "extreme-value", "--max-fpr", "0.001"]);
    assert!(run.stderr.contains("at least 50 held-out scores, but there are 24"), "{}", run.stderr);
    assert!(run.ok().lines().all(|line| !line.starts_with("anomalous")));
    let refused = nomaly(args!["eval", parts(), "-m", model(), "--rule", "three-sigma", "--max-fpr", "0.1"]);
    assert!(refused.error().contains("takes no rate"));
}

/// Twelve good parts, then six defective ones, with a file in between that is no image.
fn sequence() -> std::path::PathBuf {
    let root = fresh_folder("sequence");
    for index in 0..18u32 {
        part(300 + index, index >= 12).save(root.join(format!("{index:02}.png"))).unwrap();
    }
    std::fs::write(root.join("05b.png"), "not an image").unwrap();
    root
}

#[test]
fn a_sequence_has_a_chart_that_says_when_something_changed() {
    let images = sequence();
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
        // The file that is no image counts as one of the sequence, and does not break it.
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
    assert_eq!(rows[0][8..], ["statistic", "alarm"]);
    assert!(rows.iter().all(|row| row.len() == 10));
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
