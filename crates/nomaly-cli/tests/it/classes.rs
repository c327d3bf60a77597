//! Classes of good items from the command line: `--labels`.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};
use serde_json::Value;

use crate::args;
use crate::support::{INPUT_SIZE, fresh_folder, nomaly, parts};

/// Images of each class to learn from: enough for the default rate, even if one is mistaken for another class.
const LEARN: u32 = 24;

fn picture(colour: [u8; 3], seed: u32) -> RgbImage {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(99);
    RgbImage::from_fn(32, 32, |x, y| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (state >> 24) as u8 / 10 + if (x + y) % 8 < 4 { 20 } else { 0 };
        Rgb(colour.map(|value| value.saturating_add(noise)))
    })
}

const RED: [u8; 3] = [190, 50, 50];
const BLUE: [u8; 3] = [40, 60, 190];
const YELLOW: [u8; 3] = [200, 190, 20];

fn pictures(folder: &Path, colour: [u8; 3], seeds: std::ops::Range<u32>) {
    std::fs::create_dir_all(folder).unwrap();
    seeds.for_each(|seed| picture(colour, seed).save(folder.join(format!("{seed:03}.png"))).unwrap());
}

/// Folders `train` and `test` of two classes, and a third one in `test`.
pub(crate) fn kinds(name: &str) -> PathBuf {
    let root = fresh_folder(name);
    for (class, colour) in [("red", RED), ("blue", BLUE)] {
        pictures(&root.join("train").join(class), colour, 0..LEARN);
        pictures(&root.join("test").join(class), colour, 100..106);
    }
    pictures(&root.join("test/yellow"), YELLOW, 200..206);
    root
}

#[test]
fn images_are_given_a_class_or_called_unknown() {
    let data = kinds("classes");
    let model = data.join("kinds.nomaly");
    let run = nomaly(args!["fit", data.join("train"), "--labels", "-o", model, "--set", INPUT_SIZE]);
    assert!(run.stderr.contains("fitted open-set on efficientnet-lite0: 48 images of train"), "{}", run.stderr);
    assert!(run.stderr.contains("classes blue, red; unknown: conformal p-value of at most 0.05"), "{}", run.stderr);
    run.ok();
    let score = |format: &str| nomaly(args!["score", data.join("test"), "-m", model, "--format", format]);
    let records: Vec<Value> = score("jsonl").ok().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 18);
    for record in &records {
        let path = record["path"].as_str().unwrap();
        let unknown = record["anomalous"] == true;
        assert_eq!(unknown, record["label"] == "unknown", "{record}");
        if !unknown {
            let label = record["label"].as_str().unwrap();
            assert!(["blue", "red"].contains(&label) && path.contains(&format!("/{label}/")), "{record}");
        }
        assert!(unknown || !path.contains("yellow"), "{record}");
    }
    assert_eq!(score("json").json(), Value::from(records));
    assert!(
        score("csv")
            .ok()
            .starts_with("path,score,p_value,anomalous,map_max,error_kind,error_message,regions,input_shift,label\n")
    );
    let run = score("table");
    assert!(run.stdout.lines().next().unwrap().contains("label"), "{}", run.stdout);
    assert!(run.stderr.contains("of 18 images unknown"), "{}", run.stderr);

    let shown = nomaly(args!["inspect", model]).ok();
    assert!(shown.contains("unknown above") && shown.contains("\nblue "), "{shown}");
    let inspected = nomaly(args!["inspect", model, "--format", "json"]).json();
    assert_eq!(inspected["class_thresholds"][1]["name"], "red");
    assert_eq!(inspected["class_thresholds"][1]["items"], LEARN);
    assert!(inspected["threshold"].is_null());

    let eval = nomaly(args!["eval", data, "--labels", "-m", model, "--format", "json"]).json();
    assert_eq!(eval["n_test"], serde_json::json!({"known": 12, "unknown": 6}));
    assert_eq!((&eval["closed_set_accuracy"], &eval["auroc"]), (&Value::from(1.0), &Value::from(1.0)));
    assert_eq!(eval["confusion"]["decisions"], serde_json::json!(["blue", "red", "unknown"]));
    let fitted = nomaly(args!["eval", data, "--labels", "--set", INPUT_SIZE]).ok();
    assert!(fitted.contains("closed-set accuracy") && fitted.contains("yellow (not known)"), "{fitted}");
    let message = nomaly(args!["eval", parts(), "-m", model]).error();
    assert!(message.contains("--labels"), "{message}");
}

#[test]
fn folders_that_are_no_classes_are_refused_with_a_way_out() {
    let root = fresh_folder("no-classes");
    let model = root.join("x.nomaly");
    let fit = |data: &Path, more: &[&str]| {
        let first = args!["fit", data, "--labels", "-o", model, "--set", INPUT_SIZE];
        nomaly(first.into_iter().chain(more.iter().map(Into::into))).error()
    };
    let folder = |name: &str, classes: &[(&str, u32)]| {
        let data = root.join(name);
        classes.iter().for_each(|(class, count)| pictures(&data.join(class), RED, 0..*count));
        data
    };
    let told = |message: String, expected: &str| assert!(message.contains(expected), "{expected}: {message}");
    told(fit(&folder("one", &[("only", 2)]), &[]), "there is 1 class: only");
    told(fit(&folder("few", &[("many", 20), ("few", 12)]), &[]), "class `few` has 12 images");
    told(fit(&folder("few", &[]), &[]), "at least 19");
    told(fit(&folder("rate", &[("a", 20), ("b", 20)]), &["--max-fpr", "0.01"]), "at least 99");
    told(fit(&folder("reserved", &[("a", 2), ("Unknown", 2)]), &[]), "reserved");
    told(fit(&folder("empty", &[("a", 2), ("b", 0)]), &[]), "holds no images");
    told(fit(&folder("method", &[("a", 2), ("b", 2)]), &["--method", "mvg"]), "--labels is for the method open-set");
    let beside = folder("beside", &[("a", 2), ("b", 2)]);
    picture(RED, 0).save(beside.join("stray.png")).unwrap();
    told(fit(&beside, &[]), "stray.png beside folders of classes");
    let column = nomaly(args!["fit", beside, "--labels", "kind", "-o", model]).error();
    told(column, "the class of an image is the name of its folder");
    told(nomaly(args!["eval", root.join("rate"), "--labels"]).error(), "no images to test with");
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let odd = folder("odd", &[("a", 2)]);
        std::fs::create_dir_all(odd.join(std::ffi::OsStr::from_bytes(b"caf\xe9"))).unwrap();
        told(fit(&odd, &[]), "not UTF-8");
    }
    assert!(!model.exists());
}

/// Rows of three kinds, and of a fourth one that is labelled `unknown`.
fn table(path: &Path) {
    let mut text = "width,height,kind\n".to_owned();
    for row in 0..240 {
        let (kind, x, y) = [("nut", 0.0, 0.0), ("bolt", 9.0, 0.0), ("cap", 0.0, 9.0), ("unknown", 9.0, 9.0)][row % 4];
        let (a, b) = ((row * 37 % 101) as f64 / 60.0, (row * 53 % 97) as f64 / 60.0);
        writeln!(text, "{},{},{kind}", x + a, y + b).unwrap();
    }
    std::fs::write(path, text).unwrap();
}

#[test]
fn rows_are_given_a_class_or_called_unknown() {
    let folder = fresh_folder("row-classes");
    let (all, known, model) = (folder.join("all.csv"), folder.join("known.csv"), folder.join("kinds.nomaly"));
    table(&all);
    let text = std::fs::read_to_string(&all).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.ends_with("unknown")).collect();
    std::fs::write(&known, lines.join("\n")).unwrap();
    assert!(nomaly(args!["fit", all, "--labels", "kind", "-o", model]).error().contains("reserved"));
    nomaly(args!["fit", known, "--labels", "kind", "-o", model]).ok();
    nomaly(args!["fit", known, "--labels", "kind", "-o", folder.join("again"), "--threads", "1"]).ok();
    assert_eq!(std::fs::read(&model).unwrap(), std::fs::read(folder.join("again")).unwrap());

    let csv = nomaly(args!["score", all, "-m", model, "--ignore", "kind", "--format", "csv"]).ok();
    let mut lines = csv.lines();
    assert_eq!(lines.next().unwrap(), "row,id,score,p_value,anomalous,error_kind,error_message,label");
    for (line, row) in lines.zip(text.lines().skip(1)) {
        let (label, truth) = (line.rsplit(',').next().unwrap(), row.rsplit(',').next().unwrap());
        assert!(label == truth || label == "unknown", "{line} of {row}");
    }
    let eval = nomaly(args!["eval", all, "--labels", "kind", "-m", model, "--format", "json"]).json();
    assert_eq!(eval["n_test"], serde_json::json!({"known": 180, "unknown": 60}));
    assert_eq!((&eval["unknown_found"], &eval["auroc"]), (&Value::from(1.0), &Value::from(1.0)));
    let halves = nomaly(args!["eval", all, "--labels", "kind", "--format", "json"]).json();
    assert_eq!(halves["n_test"], serde_json::json!({"known": 90, "unknown": 60}));
    assert!(nomaly(args!["eval", all, "--labels"]).error().contains("needs the name of a column"));
    assert!(nomaly(args!["eval", all, "--label", "kind", "-m", model]).stderr.contains("is a model of classes"));
}

#[test]
fn rows_are_watched_as_a_sequence() {
    let folder = fresh_folder("row-sequence");
    let (data, drift, model) = (folder.join("good.csv"), folder.join("drift.csv"), folder.join("rows.nomaly"));
    let rows = |shift: f64| {
        let line =
            |row: usize| format!("{},{}\n", (row * 37 % 101) as f64 / 10.0 + shift, (row * 53 % 97) as f64 / 10.0);
        (0..200).map(line).collect::<String>()
    };
    std::fs::write(&data, format!("a,b\n{}", rows(0.0))).unwrap();
    std::fs::write(&drift, format!("a,b\n{}{}", rows(0.0), rows(9.0))).unwrap();
    nomaly(args!["fit", data, "-o", model]).ok();
    let run = nomaly(args!["score", drift, "-m", model, "--sequence", "cusum", "--format", "csv", "--fail-on-anomaly"]);
    assert_eq!(run.status, 1, "{}", run.stderr);
    assert!(run.stdout.starts_with("row,id,score,p_value,anomalous,error_kind,error_message,statistic,alarm\n"));
    assert!(run.stderr.contains("cusum chart: ") && run.stderr.contains("the first at row 2"), "{}", run.stderr);
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert!(lines[1].ends_with(",false") && lines[400].ends_with(",true"), "{} {}", lines[1], lines[400]);
}
