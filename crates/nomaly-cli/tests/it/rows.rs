//! Tables of numbers from the command line.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::args;
use crate::support::{fresh_folder, model, nomaly, parts};

/// A table of `normal` rows around a line and `anomalous` rows far from it, with names, labels and a column of text.
fn table(folder: &Path, name: &str, normal: usize, anomalous: usize) -> PathBuf {
    let mut text = "part,width,height,batch,state\n".to_owned();
    for row in 0..normal + anomalous {
        let bad = row >= normal;
        let (width, noise) = ((row * 37 % 101) as f64 / 10.0, (row * 53 % 97) as f64 / 100.0);
        let height = 2.0 * width + noise + if bad { 9.0 } else { 0.0 };
        writeln!(text, "p{row},{width},{height},b{},{}", row % 3, if bad { "bad" } else { "good" }).unwrap();
    }
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

const COLUMNS: [&str; 6] = ["--id", "part", "--label", "state", "--ignore", "batch"];

fn with(args: impl IntoIterator<Item = std::ffi::OsString>, more: &[&str]) -> Vec<std::ffi::OsString> {
    args.into_iter().chain(more.iter().map(Into::into)).collect()
}

#[test]
fn a_table_is_fitted_scored_evaluated_and_inspected() {
    let folder = fresh_folder("rows");
    let (data, model) = (table(&folder, "rows.csv", 120, 12), folder.join("rows.nomaly"));
    let fit = |out: &Path, more: &[&str]| nomaly(with(with(args!["fit", data, "-o", out], &COLUMNS), more));
    let run = fit(&model, &[]);
    assert!(run.stderr.contains("left out 12 rows labelled anomalous"), "{}", run.stderr);
    assert!(run.stderr.contains("fitted neighbours: 120 rows of rows.csv"), "{}", run.stderr);
    run.ok();
    // The same rows, settings and seed give the same file, on any number of threads.
    fit(&folder.join("again.nomaly"), &["--threads", "1"]).ok();
    assert_eq!(std::fs::read(&model).unwrap(), std::fs::read(folder.join("again.nomaly")).unwrap());

    let score =
        |format: &str| nomaly(with(with(args!["score", data, "-m", model, "--format", format], &COLUMNS), &[])).ok();
    let lines: Vec<Value> = score("jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 132);
    assert_eq!((&lines[0]["row"], &lines[0]["id"]), (&Value::from(1), &"p0".into()));
    assert!(lines[120..].iter().all(|line| line["anomalous"] == true), "{lines:?}");
    assert!(lines[..120].iter().filter(|line| line["anomalous"] == true).count() <= 12);
    assert_eq!(serde_json::from_str::<Value>(&score("json")).unwrap(), Value::from(lines));
    assert!(score("csv").starts_with("row,id,score,p_value,anomalous,error_kind,error_message\n1,p0,"));
    assert!(score("table").lines().last().unwrap().starts_with("anomalous"));

    let figures = nomaly(with(args!["eval", data, "-m", model, "--format", "json"], &COLUMNS)).json();
    assert_eq!(figures["n_test"], serde_json::json!({"normal": 120, "anomalous": 12}));
    assert!(figures["backbone"].is_null() && figures["pixel"].is_null(), "{figures}");
    assert_eq!(figures["image"]["auroc"], 1.0);
    let settings = ["--set", "scorer=gaussian", "--set", "standardize=robust"];
    let fitted = nomaly(with(with(args!["eval", data, "--format", "json"], &COLUMNS), &settings)).json();
    assert_eq!((&fitted["method"], &fitted["n_train"]), (&"gaussian".into(), &Value::from(60)));
    assert_eq!(fitted["image"]["auroc"], 1.0);

    let shown = nomaly(args!["inspect", model]).ok();
    assert!(shown.contains("width, height") && shown.contains("standardize=z"), "{shown}");
    assert_eq!(nomaly(args!["inspect", model, "--format", "json"]).json()["scorer"], "neighbours");
}

#[test]
fn columns_are_matched_by_name_and_bad_rows_are_skipped() {
    let folder = fresh_folder("rows-columns");
    let (data, model) = (table(&folder, "rows.csv", 60, 0), folder.join("rows.nomaly"));
    nomaly(with(args!["fit", data, "-o", model], &COLUMNS)).ok();
    let write = |text: &str| {
        let path = folder.join("new.csv");
        std::fs::write(&path, text).unwrap();
        nomaly(args!["score", path, "-m", model, "--format", "json"])
    };
    let score = |text: &str| write(text).json()[0]["score"].clone();
    assert_eq!(score("width,height\n3,6\n"), score("height,width\n6,3\n"));
    assert!(write("width\n3\n").error().contains("column `height` is missing"));
    assert!(write("width,height,wieght\n3,6,1\n").error().contains("`--ignore wieght`"));

    let run = write("width,height\n3,6\n3,\ninf,4\n");
    assert!(run.stderr.contains("row 2: column `height` is missing") && run.stderr.contains("row 3"), "{}", run.stderr);
    let rows = run.json();
    assert_eq!((&rows[1]["error"]["kind"], &rows[2]["error"]["kind"]), (&"missing".into(), &"infinite".into()));
    assert!(rows[0]["score"].is_number() && rows[1]["score"].is_null());
    let strict = nomaly(args!["score", folder.join("new.csv"), "-m", model, "--strict"]).error();
    assert!(strict.contains("row 2"), "{strict}");
}

#[test]
fn images_and_rows_are_told_apart() {
    let folder = fresh_folder("rows-or-images");
    let (data, rows) = (table(&folder, "rows.csv", 40, 0), folder.join("rows.nomaly"));
    nomaly(with(args!["fit", data, "-o", rows], &COLUMNS)).ok();
    let message = nomaly(args!["score", parts(), "-m", rows]).error();
    assert!(message.contains("is a model of rows"), "{message}");
    let message = nomaly(with(args!["score", data, "-m", model()], &COLUMNS)).error();
    assert!(message.contains("is a model of images"), "{message}");
    for (args, told) in [
        (with(args!["fit", data, "-o", rows], &["--method", "mvg"]), "--method is for images"),
        (with(args!["fit", parts(), "-o", rows], &["--label", "x"]), "--label is for tables"),
        (with(args!["fit", data, "-o", rows], &[]), "is not a number"),
        (with(args!["fit", data, "-o", rows], &["--set", "scorer=neighbuors"]), "did you mean `neighbours`?"),
        (with(args!["fit", data, "-o", rows], &["--set", "scorer=neighbuors"]), "`nomaly list scorers` shows"),
        (with(args!["fit", data, "-o", rows], &["--set", "kk=3"]), "`nomaly list scorers` shows"),
        (with(args!["update", data, "-m", rows], &[]), "only models of images can be updated"),
        (with(args!["update", data, "-m", model()], &[]), "is a table, and"),
        (with(args!["calibrate", parts(), "-m", rows], &[]), "is not a table, and"),
        (with(args!["calibrate", data, "-m", model()], &[]), "parts.nomaly is a model of images"),
        (with(args!["eval", data, "-m", model()], &[]), "parts.nomaly is a model of images"),
        (with(args!["eval", data], &["--ignore", "part", "--ignore", "batch", "--ignore", "state"]), "needs labels"),
        (with(args!["eval", data], &["--label", "batch", "--ignore", "part", "--ignore", "state"]), "labelled `b0`"),
    ] {
        let message = nomaly(args).error();
        assert!(message.contains(told), "{told}: {message}");
    }
}

#[test]
fn the_supervised_reference_is_told_apart_from_the_detector() {
    let folder = fresh_folder("rows-reference");
    let data = table(&folder, "rows.csv", 80, 12);
    let eval =
        |data: &Path, more: &[&str]| nomaly(with(with(args!["eval", data, "--supervised-reference"], &COLUMNS), more));
    let shown = eval(&data, &[]).ok();
    assert!(shown.contains("supervised reference  AUROC 100.0 %"), "{shown}");
    assert!(shown.contains("labels of the test rows, 5-fold; not an anomaly detector"), "{shown}");
    let figures = eval(&data, &["--format", "json"]).json();
    let reference = &figures["supervised_reference"];
    assert_eq!((&reference["folds"], &reference["dim"]), (&Value::from(5), &Value::from(2)));
    assert!(reference["method"].as_str().unwrap().ends_with("not an anomaly detector"), "{reference}");
    let without = nomaly(with(args!["eval", data, "--format", "json"], &COLUMNS)).json();
    assert!(without.get("supervised_reference").is_none());
    assert_eq!(without["image"], figures["image"]);
    let few = table(&folder, "few.csv", 40, 1);
    assert!(eval(&few, &[]).error().contains("two or more test items of each label"));
}
