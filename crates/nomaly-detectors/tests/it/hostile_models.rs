//! Damaged and malicious model files.

use std::path::Path;

use ndarray::Array2;
use nomaly_data::tables::Table;
use nomaly_detectors::model_file::read_summary;
use nomaly_detectors::rows::{FittedRows, RowDetector, RowFitOptions, RowPredictOptions};
use nomaly_detectors::{DetectorError, FittedDetector, PredictOptions};
use nomaly_methods::MethodError;
use nomaly_settings::Assignments;
use nomaly_store::{Silent, sha256};
use serde_json::{Value, json};

use crate::images::{fit, good, missing, settings};

/// A small model: the first two levels only.
fn model(folder: &Path) -> Vec<u8> {
    let path = folder.join("good.nomaly");
    fit("mvg", &settings().with("levels", "stem,stage1"), &good(8)).detector.save(&path).unwrap();
    std::fs::read(path).unwrap()
}

fn refusal(folder: &Path, bytes: &[u8]) -> String {
    let path = folder.join("bad.nomaly");
    std::fs::write(&path, bytes).unwrap();
    match FittedDetector::load(&path).err().expect("a damaged file is refused") {
        DetectorError::ModelFile { path: named, reason } => {
            assert_eq!(named, path);
            reason
        }
        other => panic!("{other:?}"),
    }
}

/// The file with a valid checksum, as in an attack.
pub(crate) fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len() - 32;
    let digest = sha256(&bytes[..end]);
    bytes[end..].copy_from_slice(&digest);
    bytes
}

/// The file with a changed description of the model.
pub(crate) fn with_facts(bytes: &[u8], edit: impl Fn(&mut Value)) -> Vec<u8> {
    with_header(bytes, |header| {
        let mut header: Value = serde_json::from_str(&header).unwrap();
        let mut facts: Value = serde_json::from_str(header["__metadata__"]["nomaly"].as_str().unwrap()).unwrap();
        edit(&mut facts);
        header["__metadata__"]["nomaly"] = facts.to_string().into();
        header.to_string()
    })
}

/// The file with its header's JSON replaced, the length in front and the checksum included.
fn with_header(bytes: &[u8], edit: impl Fn(String) -> String) -> Vec<u8> {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = edit(String::from_utf8(bytes[8..8 + length].to_vec()).unwrap());
    let mut edited = (header.len() as u64).to_le_bytes().to_vec();
    edited.extend_from_slice(header.as_bytes());
    edited.extend_from_slice(&bytes[8 + length..]);
    sealed(edited)
}

#[test]
fn each_kind_of_damage_has_its_message() {
    let folder = tempfile::tempdir().unwrap();
    let good = model(folder.path());
    let message_of = |bytes: &[u8]| refusal(folder.path(), bytes);
    assert!(message_of(&good[..good.len() - 100]).contains("truncated"));
    assert!(message_of(b"").contains("not a nomaly model"));
    assert!(message_of(b"hello, this is some text and no model").contains("not a nomaly model"));
    assert!(message_of(&u64::MAX.to_le_bytes()).contains("not a nomaly model"));

    let version = with_header(&good, |header| header.replace("\\\"format\\\":3", "\\\"format\\\":7"));
    let message = message_of(&version);
    assert!(message.contains("version 7") && message.contains("reads versions 2 to 3"), "{message}");
    let older = with_header(&good, |header| header.replace("\\\"format\\\":3", "\\\"format\\\":1"));
    assert!(
        message_of(&older).contains("version 1") && message_of(&older).contains("fit the model again"),
        "{}",
        message_of(&older)
    );

    let shape = with_header(&good, |header| header.replace("\"shape\":[32,3,3,3]", "\"shape\":[27,32]"));
    assert!(message_of(&shape).contains("_conv_stem"), "{}", message_of(&shape));

    let method = with_header(&good, |header| header.replace("\\\"name\\\":\\\"mvg\\\"", "\\\"name\\\":\\\"mvx\\\""));
    assert!(message_of(&method).contains("unknown method"), "{}", message_of(&method));

    // A rate that no number of images supports.
    let rate = with_header(&good, |header| header.replace("{\\\"max-fpr\\\":0.05}", "{\\\"max-fpr\\\":1e-300}"));
    assert!(message_of(&rate).contains("max_fpr"), "{}", message_of(&rate));

    let mut nan = good.clone();
    let length = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&good[8..8 + length]).unwrap();
    let place = header["calibration/held_out"]["data_offsets"][0].as_u64().unwrap() as usize;
    nan[8 + length + place..][..8].copy_from_slice(&f64::NAN.to_le_bytes());
    let message = message_of(&sealed(nan));
    assert!(message.contains("NaN"), "{message}");
}

/// Flips single bits of a file and restores them: every third of the header, and random others.
fn flip_bits(good: &[u8], others: usize, check: impl Fn(&[u8], usize)) {
    let mut bytes = good.to_vec();
    let header = 8 * (8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize);
    let mut state = 1u64;
    let random = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as usize % (8 * good.len())
    });
    for bit in (0..header).step_by(3).chain(random.take(others)) {
        bytes[bit / 8] ^= 1 << (bit % 8);
        check(&bytes, bit);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn every_flipped_bit_of_a_model_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flipped.nomaly");
    let good = row_model(folder.path(), "gaussian");
    flip_bits(&good, 1000, |bytes, bit| {
        std::fs::write(&path, bytes).unwrap();
        let error = FittedRows::load(&path).err().unwrap_or_else(|| panic!("bit {bit} went unnoticed"));
        assert!(matches!(error, DetectorError::ModelFile { .. }), "{error:?}");
    });
}

#[test]
fn flipped_bits_of_weights_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = model(folder.path());
    let end = 8 * bytes.len();
    for bit in (end - 256..end).step_by(7).chain((0..end).step_by(end / 100)) {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(!refusal(folder.path(), &bytes).is_empty());
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn what_a_fit_refuses_is_refused_in_a_model_too() {
    let folder = tempfile::tempdir().unwrap();
    let good = model(folder.path());
    let size = |height: Value, width: Value| json!({"exact": {"height": height, "width": width}});
    let crop = json!({"height": 64, "width": 64});
    let tiling = |rows: u64, columns: u64, side: u64| json!({"tiling": {"rows": rows, "columns": columns, "height": side, "width": side}, "flips": "none"});
    let hostile: Vec<(&str, Value, &str)> = vec![
        ("/model/pipeline/resize/mode", size(8192.into(), 8192.into()), "sides are from 32 to 2048"),
        ("/model/pipeline/resize/mode", size(64.into(), 2049.into()), "sides are from 32 to 2048"),
        ("/model/pipeline/resize/mode", size(64.into(), 16.into()), "sides are from 32 to 2048"),
        ("/model/pipeline/resize/mode", size(0.into(), 64.into()), "is 0, expected 1 to 8192"),
        ("/model/pipeline/resize/mode", size(u32::MAX.into(), 64.into()), "expected 1 to 8192"),
        ("/model/pipeline/resize/mode", size((-1).into(), 64.into()), "damaged header"),
        ("/model/pipeline/resize/mode", size(1e30.into(), 64.into()), "damaged header"),
        ("/model/pipeline/crop", crop.clone(), "does not go with its crop"),
        ("/model/pipeline/normalize/std/1", 0.into(), "std"),
        ("/model/pipeline/views", tiling(0, 1, 64), "0 rows of tiles"),
        ("/model/pipeline/views", tiling(1_000_000, 1, 64), "1000000 rows of tiles"),
        ("/model/pipeline/views", tiling(64, 64, 33), "tiles overlap"),
        ("/model/pipeline/views", tiling(2, 2, 65), "tile"),
        ("/model/pipeline/views", tiling(8, 8, 16), "sides are from 32 to 2048"),
        ("/model/median", 0.into(), "median"),
        ("/model/median", 3.into(), "a method with maps, which mvg has not"),
        ("/model/median", u64::MAX.into(), "median"),
        ("/model/method/settings", json!({"bogus": "1"}), "unknown setting `bogus`"),
        ("/model/method/name", "patches".into(), "unknown setting"),
        ("/model/backbone/name", "resnet18".into(), "resnet18"),
        ("/model/backbone/name", "efficientnet-lite0+pixels".into(), "`pixels` is no backbone"),
        ("/model/backbone/name", "adacl-cnn".into(), "`adacl-cnn` is no backbone"),
        ("/model/backbone/name", "pixels".into(), "stem"),
        ("/model/backbone/name", "efficientnet-lite0+resnet18".into(), "no `_conv_stem.weight`"),
        ("/model/decision", json!({"max_fpr": 5.0}), ""),
    ];
    for (place, value, reason) in hostile {
        let bytes = with_facts(&good, |facts| {
            let slot = match facts.pointer_mut(place) {
                Some(slot) => slot,
                None => {
                    let (parent, key) = place.rsplit_once('/').unwrap();
                    facts.pointer_mut(parent).unwrap().as_object_mut().unwrap().entry(key).or_insert(Value::Null)
                }
            };
            *slot = value.clone();
        });
        let found = refusal(folder.path(), &bytes);
        assert!(found.contains(reason), "{place} = {value}: {found}");
    }
    let mode = json!({"short_side": 8192});
    let bytes = with_facts(&good, |facts| {
        facts["model"]["pipeline"]["resize"]["mode"] = mode.clone();
        facts["model"]["pipeline"]["crop"] = crop.clone();
    });
    assert!(refusal(folder.path(), &bytes).contains("does not go with its crop"));
}

#[test]
fn settings_of_older_files_are_text_and_renamed_ones_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let good = model(folder.path());
    let older = |settings: Value| {
        with_facts(&good, |facts| {
            facts["format"] = 2.into();
            facts["model"]["method"]["settings"] = settings.clone();
        })
    };
    let path = folder.path().join("older.nomaly");
    let text = json!({"levels": "stem,stage1", "distance": "mahalanobis", "covariance": "ledoit-wolf"});
    std::fs::write(&path, older(text)).unwrap();
    let loaded = FittedDetector::load(&path).unwrap();
    let now = FittedDetector::load(&folder.path().join("good.nomaly")).unwrap();
    assert_eq!(loaded.calibration().held_out(), now.calibration().held_out());
    let refused = refusal(folder.path(), &older(json!({"levels": "stem,stage1", "distance": "cosine"})));
    assert!(refused.contains("setting `distance` is `cosine`; it takes `mahalanobis`, `sed` or `l2`"), "{refused}");

    let settings = settings().with("max_patches", 200);
    fit("patches", &settings, &crate::images::good(8)).detector.save(&path).unwrap();
    let renamed = with_facts(&std::fs::read(&path).unwrap(), |facts| {
        let settings = facts["model"]["method"]["settings"].as_object_mut().unwrap();
        let color = settings.remove("color").unwrap();
        settings.insert("colour".to_owned(), color);
    });
    let refused = refusal(folder.path(), &renamed);
    assert!(refused.contains("setting `colour` is now called `color`"), "{refused}");
}

#[test]
fn a_patch_is_never_larger_than_the_input() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("good.nomaly");
    let settings = settings().with("feature", "expert").with("max_patches", 200);
    fit("patches", &settings, &good(8)).detector.save(&path).unwrap();
    let bytes = with_facts(&std::fs::read(path).unwrap(), |facts| {
        facts["model"]["method"]["settings"]["patch"] = "64".into();
        facts["model"]["pipeline"]["resize"]["mode"] = json!({"exact": {"height": 32, "width": 64}});
    });
    let found = refusal(folder.path(), &bytes);
    assert!(found.contains("setting `patch` is `64`; it takes at most the input's 32 x 64 pixels"), "{found}");
}

/// Every method on an input of another size than it was fitted on: an error or a score, and no panic.
#[test]
fn an_input_of_another_size_is_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    for method in ["mvg", "dn2", "padim", "patchcore", "spade", "features", "patches"] {
        let path = folder.path().join("good.nomaly");
        let settings = if method == "patches" { settings().with("max_patches", 200) } else { settings() };
        fit(method, &settings, &good(10)).detector.save(&path).unwrap();
        let good_bytes = std::fs::read(&path).unwrap();
        for (height, width) in [(32, 64), (96, 64), (128, 128)] {
            let bytes = with_facts(&good_bytes, |facts| {
                facts["model"]["pipeline"]["resize"]["mode"] = json!({"exact": {"height": height, "width": width}});
            });
            std::fs::write(&path, bytes).unwrap();
            let Ok(detector) = FittedDetector::load(&path) else { continue };
            let mut seen = 0;
            let ended = detector.predict(&good(1), &PredictOptions::default(), &Silent, |outcome| {
                seen += 1;
                assert!(outcome.result.is_ok_and(|prediction| !prediction.score.is_nan()), "{method}");
                Ok(())
            });
            assert!(ended.is_err() || seen == 1, "{method} {height} x {width}");
        }
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (path, reason) in [
        (pipe.as_path(), "not a regular file"),
        (Path::new("/dev/zero"), "not a regular file"),
        (folder.path(), "a folder"),
    ] {
        match FittedDetector::load(path).err() {
            Some(DetectorError::ModelFile { path: named, reason: found }) => {
                assert_eq!(named, path);
                assert!(found.contains(reason), "{found}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The file with the first value of the first tensor of this name replaced.
fn with_value(bytes: &[u8], tensor: &str, value: f64) -> Vec<u8> {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let (_, entry) = header.as_object().unwrap().iter().find(|(name, _)| name.contains(tensor)).unwrap();
    let at = 8 + length + entry["data_offsets"][0].as_u64().unwrap() as usize;
    let value = match entry["dtype"].as_str().unwrap() {
        "F32" => (value as f32).to_le_bytes().to_vec(),
        "F64" => value.to_le_bytes().to_vec(),
        other => panic!("{tensor} holds {other}"),
    };
    let mut edited = bytes.to_vec();
    edited[at..at + value.len()].copy_from_slice(&value);
    edited
}

#[test]
fn what_has_no_finite_score_is_a_fault_of_the_image() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("overflows.nomaly");
    // The square of the distance from this mean is beyond `f64`.
    std::fs::write(&path, sealed(with_value(&model(folder.path()), "method/stage1/mean", 1e300))).unwrap();
    let damaged = FittedDetector::load(&path).unwrap();
    let mut kinds = Vec::new();
    let mut options = PredictOptions::default();
    let samples = [good(3), vec![missing("lost")]].concat();
    damaged
        .predict(&samples, &options, &Silent, |outcome| {
            kinds.push(outcome.result.map(drop).unwrap_err().kind);
            Ok(())
        })
        .unwrap();
    assert_eq!(kinds, ["non-finite-score", "non-finite-score", "non-finite-score", "not-found"]);
    options.stream.strict = true;
    let strict = damaged.predict(&samples[..3], &options, &Silent, |_| Ok(()));
    let named =
        matches!(&strict, Err(DetectorError::Method(MethodError::BadImage { skipped })) if skipped.id == "train/0");
    assert!(named, "{strict:?}");
}

#[test]
fn what_has_no_finite_score_is_a_fault_of_the_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("overflows.nomaly");
    // The square of the distance from this mean is beyond `f64`.
    std::fs::write(&path, sealed(with_value(&row_model(folder.path(), "gaussian"), "mean", 1e300))).unwrap();
    let damaged = FittedRows::load(&path).unwrap();
    let rows = ndarray::arr2(&[[1.0, 2.0, 3.0], [1.0, f32::NAN, 3.0], [4.0, 5.0, 6.0]]);
    let table = Table { name: "rows".to_owned(), columns: None, rows, labels: None, ids: None, groups: None };
    let outcomes = damaged.predict(&table, &RowPredictOptions::default(), &Silent).unwrap();
    let faults: Vec<(String, String)> =
        outcomes.into_iter().map(|outcome| outcome.result.unwrap_err()).map(|bad| (bad.id, bad.kind)).collect();
    let expected = [("row 1", "non-finite-score"), ("row 2", "missing"), ("row 3", "non-finite-score")];
    assert_eq!(faults, expected.map(|(row, kind)| (row.to_owned(), kind.to_owned())));
    let strict = RowPredictOptions { strict: true, ..RowPredictOptions::default() };
    let table = Table { rows: ndarray::arr2(&[[1.0, 2.0, 3.0]]), ..table };
    let refused = damaged.predict(&table, &strict, &Silent);
    assert!(
        matches!(&refused, Err(DetectorError::Method(MethodError::BadImage { skipped })) if skipped.id == "row 1"),
        "{refused:?}"
    );
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
        std::fs::write(&path, sealed(bytes)).unwrap();
        // Some changes are harmless (a name, a seed), but none may panic or hang.
        let _summary_or_refusal = read_summary(&path);
        let _model_or_refusal = FittedDetector::load(&path);
    }
}

#[test]
fn a_summary_needs_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = model(folder.path()).len() as u64;
    let summary = read_summary(&folder.path().join("good.nomaly")).unwrap();
    assert_eq!((summary.format, summary.file_bytes, summary.held_out.values.len()), (3, bytes, 8));
    assert_eq!(summary.info.method.settings.text("levels").as_deref(), Some("stem,stage1"));
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
    let detector = RowDetector::new(&Assignments::new().with("scorer", scorer)).unwrap();
    detector.fit(&table, &RowFitOptions::default(), &Silent).unwrap().detector.save(&path).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn damaged_models_of_rows_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.nomaly");
    for scorer in ["gaussian", "isolation-forest", "kde"] {
        let good = row_model(folder.path(), scorer);
        let message_of = |bytes: &[u8]| {
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
            message_of(&bytes)
        };
        assert!(message_of(&good[..good.len() - 10]).contains("truncated"));
        let twice = edited("\\\"left\\\"", "\\\"right\\\"");
        assert!(twice.contains("two columns are called `right`"), "{twice}");
        assert!(edited("\\\"left\\\",", "").contains("2 names for 3 columns"));
        edited(&format!("\\\"{scorer}\\\""), "\\\"lof\\\"");
        let settings = edited("\\\"config\\\":{}", "\\\"config\\\":{\\\"unknown\\\":1}");
        assert!(settings.contains("takes none"), "{settings}");
        // No change of a byte of the header may panic.
        let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
        let mut state = 1u64;
        for _ in 0..300 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut bytes = good.clone();
            bytes[(state >> 33) as usize % header] = (state >> 20) as u8;
            std::fs::write(&path, sealed(bytes)).unwrap();
            let _model_or_refusal = FittedRows::load(&path);
        }
    }
}
