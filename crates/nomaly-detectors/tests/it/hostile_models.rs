//! Model files that are damaged or made to do harm.

use std::path::Path;

use ndarray::Array2;
use nomaly_data::tables::Table;
use nomaly_detectors::model_file::read_summary;
use nomaly_detectors::rows::{FittedRows, RowDetector, RowFitOptions};
use nomaly_detectors::{FittedDetector, Settings};
use nomaly_store::Silent;

use crate::images::{fit, good, settings};

/// A small model: the first two levels only.
fn model(folder: &Path) -> Vec<u8> {
    let path = folder.join("good.nomaly");
    fit("mvg", &settings().with("levels", "stem,stage1"), &good(8)).detector.save(&path).unwrap();
    std::fs::read(path).unwrap()
}

fn refusal(folder: &Path, bytes: &[u8]) -> String {
    let path = folder.join("bad.nomaly");
    std::fs::write(&path, bytes).unwrap();
    let message = FittedDetector::load(&path).err().expect("a damaged file is refused").to_string();
    assert!(message.contains("bad.nomaly"), "the message names the file: {message}");
    message
}

/// The file with its header's JSON replaced, the length in front included.
fn with_header(bytes: &[u8], edit: impl Fn(String) -> String) -> Vec<u8> {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = edit(String::from_utf8(bytes[8..8 + length].to_vec()).unwrap());
    let mut edited = (header.len() as u64).to_le_bytes().to_vec();
    edited.extend_from_slice(header.as_bytes());
    edited.extend_from_slice(&bytes[8 + length..]);
    edited
}

#[test]
fn each_kind_of_damage_has_its_message() {
    let folder = tempfile::tempdir().unwrap();
    let good = model(folder.path());
    let said = |bytes: &[u8]| refusal(folder.path(), bytes);
    assert!(said(&good[..good.len() - 100]).contains("truncated"));
    assert!(said(b"").contains("not a nomaly model"));
    assert!(said(b"hello, this is some text and no model").contains("not a nomaly model"));
    assert!(said(&u64::MAX.to_le_bytes()).contains("not a nomaly model"));

    let version = with_header(&good, |header| header.replace("\\\"format\\\":1", "\\\"format\\\":7"));
    let message = said(&version);
    assert!(message.contains("version 7") && message.contains("reads version 1"), "{message}");

    let shape = with_header(&good, |header| header.replace("\"shape\":[32,3,3,3]", "\"shape\":[27,32]"));
    assert!(said(&shape).contains("_conv_stem"), "{}", said(&shape));

    let method = with_header(&good, |header| header.replace("\\\"name\\\":\\\"mvg\\\"", "\\\"name\\\":\\\"mvx\\\""));
    assert!(said(&method).contains("unknown method"), "{}", said(&method));

    let mut nan = good.clone();
    let end = nan.len();
    nan[end - 8..].copy_from_slice(&f64::NAN.to_le_bytes());
    assert!(!said(&nan).is_empty());
}

#[test]
fn no_change_of_the_header_can_make_it_panic() {
    let folder = tempfile::tempdir().unwrap();
    let good = model(folder.path());
    let path = folder.path().join("fuzzed.nomaly");
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let mut state = 1u64;
    for _ in 0..300 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut bytes = good.clone();
        let at = (state >> 33) as usize % header;
        bytes[at] = (state >> 20) as u8;
        std::fs::write(&path, &bytes).unwrap();
        // Some changes are harmless (a name, a seed); none may panic or hang.
        let _summary_or_refusal = read_summary(&path);
        let _model_or_refusal = FittedDetector::load(&path);
    }
}

#[test]
fn a_summary_needs_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = model(folder.path()).len() as u64;
    let summary = read_summary(&folder.path().join("good.nomaly")).unwrap();
    assert_eq!((summary.format, summary.file_bytes, summary.held_out.values.len()), (1, bytes, 8));
    assert_eq!(summary.info.method.settings.get("levels"), Some("stem,stage1"));
    assert!(read_summary(&folder.path().join("absent.nomaly")).err().unwrap().to_string().contains("absent.nomaly"));
}

/// A small model of rows with named columns.
fn row_model(folder: &Path, scorer: &str) -> Vec<u8> {
    let cell = |(row, column): (usize, usize)| ((row * 37 + column * 101 + row * column) % 97) as f32 / 7.0;
    let table = Table {
        name: "rows".to_owned(),
        columns: Some(["left", "middle", "right"].map(str::to_owned).to_vec()),
        rows: Array2::from_shape_fn((60, 3), cell),
        labels: None,
        ids: None,
        groups: None,
    };
    let path = folder.join("rows.nomaly");
    let detector = RowDetector::new(&Settings::default().with("scorer", scorer)).unwrap();
    detector.fit(&table, &RowFitOptions::default(), &Silent).unwrap().detector.save(&path).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn damaged_models_of_rows_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.nomaly");
    for scorer in ["gaussian", "isolation-forest", "kde"] {
        let good = row_model(folder.path(), scorer);
        let said = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let message = FittedRows::load(&path).err().expect("a damaged file is refused").to_string();
            assert!(message.contains("bad.nomaly"), "the message names the file: {message}");
            message
        };
        let edited = |from: &str, to: &str| {
            let bytes = with_header(&good, |header| {
                assert!(header.contains(from), "{from} in {header}");
                header.replacen(from, to, 1)
            });
            said(&bytes)
        };
        assert!(said(&good[..good.len() - 10]).contains("truncated"));
        let twice = edited("\\\"left\\\"", "\\\"right\\\"");
        assert!(twice.contains("two columns are called `right`"), "{twice}");
        assert!(edited("\\\"left\\\",", "").contains("2 names for 3 columns"));
        edited(&format!("\\\"{scorer}\\\""), "\\\"lof\\\"");
        let settings = edited("\\\"config\\\":{}", "\\\"config\\\":{\\\"unknown\\\":1}");
        assert!(settings.contains("takes none"), "{settings}");
        // Every change of a byte of the header has an answer, and none of them is a panic.
        let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
        let mut state = 1u64;
        for _ in 0..300 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut bytes = good.clone();
            bytes[(state >> 33) as usize % header] = (state >> 20) as u8;
            std::fs::write(&path, &bytes).unwrap();
            let _model_or_refusal = FittedRows::load(&path);
        }
    }
}
