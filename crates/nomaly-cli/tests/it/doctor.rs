//! Images that are unlike the training images: the output of `score` and `doctor`.

use std::path::{Path, PathBuf};

use image::RgbImage;
use serde_json::Value;

use crate::args;
use crate::support::{fresh_folder, model, nomaly, part};

/// A folder of good parts, each changed.
fn folder_of(name: &str, count: u32, extension: &str, change: impl Fn(RgbImage) -> RgbImage) -> PathBuf {
    let folder = fresh_folder(name);
    for index in 0..count {
        change(part(500 + index, false)).save(folder.join(format!("{index:03}.{extension}"))).unwrap();
    }
    folder
}

fn brighter(mut image: RgbImage) -> RgbImage {
    image.iter_mut().for_each(|value| *value = value.saturating_add(25));
    image
}

fn records(folder: &Path) -> (Vec<Value>, String) {
    let run = nomaly(args!["score", folder, "-m", model(), "--format", "jsonl"]);
    let stderr = run.stderr.clone();
    (run.ok().lines().map(|line| serde_json::from_str(line).unwrap()).collect(), stderr)
}

#[test]
fn every_record_says_whether_its_image_is_shifted_and_each_kind_is_warned_of_once() {
    let (unshifted, stderr) = records(&folder_of("unshifted", 12, "png", |image| image));
    assert!(unshifted.iter().all(|record| record["input_shift"].is_null()), "{unshifted:?}");
    assert!(!stderr.contains("shifted") && !stderr.contains("promised for"), "{stderr}");

    let bright = folder_of("bright", 12, "png", brighter);
    let (shifted, stderr) = records(&bright);
    for record in &shifted {
        let shift = &record["input_shift"];
        assert_eq!((&shift["worst"], &shift["kinds"][0]), (&Value::from("brightness"), &Value::from("brightness")));
        assert!(shift["p_value"].as_f64().unwrap() < 0.001, "{shift}");
        assert!(shift["message"].as_str().unwrap().starts_with("brighter than the training images ("), "{shift}");
    }
    assert_eq!(stderr.matches("000.png: shifted input: brighter").count(), 1, "{stderr}");
    assert_eq!(stderr.matches("shifted input: brighter").count(), 1, "{stderr}");
    assert!(stderr.contains("12 of 12 images are brighter or darker than the training images"), "{stderr}");
    assert!(stderr.contains("the 12 images as a whole are brighter"), "{stderr}");

    let csv = nomaly(args!["score", bright, "-m", model(), "--format", "csv", "--quiet"]).ok();
    assert!(csv.lines().next().unwrap().ends_with(",regions,input_shift"), "{csv}");
    assert!(csv.lines().nth(1).unwrap().contains("brighter than the training images"), "{csv}");
    let table = nomaly(args!["score", bright, "-m", model(), "--quiet"]).ok();
    assert!(table.lines().nth(1).unwrap().ends_with("000.png  (shifted: brightness)"), "{table}");
}

#[test]
fn another_format_is_named() {
    let (records, stderr) = records(&folder_of("jpeg", 6, "jpg", |image| image));
    for record in &records {
        assert_eq!(record["input_shift"]["worst"], "format", "{record}");
    }
    assert!(stderr.contains("a JPEG file of quality 75, and all 24 training images are PNG"), "{stderr}");
    assert!(stderr.contains("6 of 6 images are stored in another format than the training images"), "{stderr}");
}

#[test]
fn the_report_shows_what_is_shifted() {
    let report = fresh_folder("shift-report").join("report.html");
    nomaly(args!["score", folder_of("bright-report", 6, "png", brighter), "-m", model(), "--report", report]).ok();
    let html = std::fs::read_to_string(report).unwrap();
    assert_eq!(html.matches("shifted input</span>").count(), 6);
    assert!(
        html.contains("6 of 6 images are brighter or darker than the training images; the false-alarm rate is not")
    );
}

#[test]
fn doctor_compares_a_folder_with_a_model() {
    let same = folder_of("doctor-same", 12, "png", |image| image);
    let bright = folder_of("doctor-bright", 12, "png", brighter);
    let doctor = |folder: &Path, more: &[&str]| {
        let first = args!["doctor", folder, "-m", model()];
        nomaly(first.into_iter().chain(more.iter().map(Into::into)))
    };
    assert_eq!(doctor(&same, &["--fail-on-shift"]).status, 0);
    assert!(doctor(&same, &[]).ok().contains("nothing sets the 12 images apart"));
    assert_eq!(doctor(&bright, &[]).status, 0);
    let failed = doctor(&bright, &["--fail-on-shift"]);
    assert_eq!((failed.status, failed.stderr.contains("error")), (1, false), "{}", failed.stderr);
    assert!(failed.stdout.contains("as a whole are brighter than the training images"), "{}", failed.stdout);
    let json = doctor(&bright, &["--format", "json"]).json();
    assert_eq!(
        (&json["shifted"], &json["run"]["images"], &json["run"]["shifted"]),
        (&true.into(), &12.into(), &12.into())
    );
    assert_eq!(json["run"]["findings"][0]["kind"], "brightness");
    assert_eq!(json["images"].as_array().unwrap().len(), 12);
    assert_eq!(json["expected"]["statistics"][0]["statistic"], "brightness");
}

#[test]
fn doctor_says_what_a_model_expects_and_what_images_are() {
    let expected = nomaly(args!["doctor", "-m", model()]).ok();
    for text in ["48×48 pixels", "24 PNG", "brightness", "feature distance"] {
        assert!(expected.contains(text), "{text}: {expected}");
    }
    let folder = folder_of("doctor-survey", 4, "png", |image| image);
    std::fs::copy(folder.join("001.png"), folder.join("copy.png")).unwrap();
    std::fs::write(folder.join("torn.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    let json = nomaly(args!["doctor", folder, "--format", "json"]).json();
    assert_eq!(json["images"], 5);
    assert_eq!(json["sizes"], serde_json::json!([{ "width": 48, "height": 48, "images": 5 }]));
    let duplicates = json["duplicates"].as_array().unwrap();
    assert_eq!((duplicates.len(), duplicates[0].as_array().unwrap().len()), (1, 2));
    assert_eq!(json["unreadable"][0]["kind"], "truncated");
    let table = nomaly(args!["doctor", folder]).ok();
    assert!(table.contains("48×48 (5)") && table.contains("the same pixels: "), "{table}");
    assert!(nomaly(args!["doctor"]).error().contains("required"));
}
