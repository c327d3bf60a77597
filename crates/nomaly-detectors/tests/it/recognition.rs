//! Models of classes, on images and rows.

use std::path::Path;

use nomaly_data::tables::Table;
use nomaly_detectors::rows::{FittedRows, RowDetector, RowFitOptions, RowPredictOptions};
use nomaly_detectors::{DetectorError, FittedDetector};
use nomaly_settings::Assignments;
use nomaly_store::Silent;

use crate::images::{fit, settings};
use crate::kinds::{fit_rows, pictures, table};

fn saved(model: &FittedRows, path: &Path) -> Vec<u8> {
    model.save(path).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn a_model_of_row_classes_comes_back_from_its_file() {
    let (train, test) = (table(&["a", "b"], 40, 3), table(&["a", "b", "z"], 20, 4));
    let folder = tempfile::tempdir().unwrap();
    let on = |threads: usize, name: &str| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| saved(&fit_rows(&train), &folder.path().join(name)))
    };
    assert!(on(1, "one") == on(2, "two"), "two threads write another file");
    let (model, loaded) = (fit_rows(&train), FittedRows::load(&folder.path().join("one")).unwrap());
    assert_eq!(loaded.info(), model.info());
    assert_eq!(loaded.info().classes.iter().map(|class| class.items).collect::<Vec<_>>(), [40, 40]);
    let predict = |model: &FittedRows| model.predict(&test, &RowPredictOptions::default(), &Silent).unwrap();
    assert_eq!(predict(&loaded), predict(&model));
    assert_eq!(saved(&loaded, &folder.path().join("again")), std::fs::read(folder.path().join("one")).unwrap());
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
fn tampered_classes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    let good = saved(&fit_rows(&table(&["ant", "bee"], 40, 5)), &path);
    let known = |name: &str| format!("{{\\\"name\\\":\\\"{name}\\\",\\\"items\\\":40}}");
    for (from, to) in [
        (known("ant"), known("bee")),
        (known("ant"), known("unknown")),
        (known("ant"), known("abc")),
        (format!("{},{}", known("ant"), known("bee")), known("ant")),
        ("calibration/class/1".to_owned(), "calibration/class/2".to_owned()),
        ("calibration/class/1".to_owned(), "calibration/clasp/1".to_owned()),
        ("[\\\"ant\\\",\\\"bee\\\"]".to_owned(), "[\\\"bee\\\",\\\"ant\\\"]".to_owned()),
        ("\\\"scorer\\\":\\\"open-set\\\"".to_owned(), "\\\"scorer\\\":\\\"gmm\\\"".to_owned()),
    ] {
        let bad = with_header(&good, |header| {
            assert!(header.contains(&from), "{from}: {header}");
            header.replacen(&from, &to, 1)
        });
        std::fs::write(&path, bad).unwrap();
        let error = FittedRows::load(&path).err().unwrap_or_else(|| panic!("{from} became {to}"));
        assert!(matches!(error, DetectorError::ModelFile { .. }), "{error}");
    }
}

#[test]
fn rows_that_cannot_be_told_apart_or_lack_labels_are_refused() {
    let refused = |table: &Table| {
        let detector = RowDetector::of_classes(&Assignments::new()).unwrap();
        detector.fit(table, &RowFitOptions::default(), &Silent).err().unwrap().to_string()
    };
    let mut few = table(&["a", "b"], 30, 6);
    few.labels.as_mut().unwrap()[..3].fill("rare".to_owned());
    assert!(refused(&few).contains("class `rare`: a class needs at least 4"), "{}", refused(&few));
    assert!(refused(&Table { labels: None, ..few }).contains("without labels"));
    let mut missing = table(&["a", "b"], 30, 6);
    missing.labels.as_mut().unwrap()[7].clear();
    let fit = RowDetector::of_classes(&Assignments::new()).unwrap();
    let fit = fit.fit(&missing, &RowFitOptions::default(), &Silent).unwrap();
    assert_eq!((fit.detector.info().training.rows, fit.skipped[0].id.as_str()), (59, "row 8"));
    let unknown = RowDetector::of_classes(&Assignments::new().with("scorer", "gmm")).err().unwrap();
    assert!(unknown.to_string().contains("unknown setting `scorer`"), "{unknown}");
}

#[test]
fn a_model_of_image_classes_comes_back_from_its_file() {
    let fitted = fit("open-set", &settings(), &pictures(&["red", "blue"], 0..24)).detector;
    let known: Vec<_> = fitted.classes().unwrap().known().iter().map(|class| class.name.as_str()).collect();
    assert_eq!(known, ["blue", "red"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    fitted.save(&path).unwrap();
    let loaded = FittedDetector::load(&path).unwrap();
    assert_eq!(loaded.info(), fitted.info());
    let again = folder.path().join("again");
    loaded.save(&again).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&again).unwrap());
}
