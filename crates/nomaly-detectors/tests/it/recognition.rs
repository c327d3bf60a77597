//! Models that tell classes apart, on images and on rows.

use std::path::Path;
use std::sync::Arc;

use image::{Rgb, RgbImage};
use ndarray::Array2;
use nomaly_data::tables::Table;
use nomaly_data::{ImageSource, Label, Sample};
use nomaly_detectors::recognition::{evaluate_classes, evaluate_row_classes};
use nomaly_detectors::rows::{FittedRows, RowDetector, RowFitOptions, RowPredictOptions};
use nomaly_detectors::{DecisionRule, DetectorError, FittedDetector, PredictOptions, Settings};
use nomaly_store::Silent;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::images::{fit, settings};

/// `n` rows of each of some kinds: normal in five correlated columns, around a centre of their own.
fn table(kinds: &[&str], n: usize, seed: u64) -> Table {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut cells, mut labels) = (Vec::new(), Vec::new());
    for kind in kinds {
        let place = f64::from(kind.as_bytes()[0]);
        for _ in 0..n {
            let mut normal = || (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0;
            let common = normal();
            let centre = |column: usize| 4.0 * (place * (column + 1) as f64).sin();
            cells.extend((0..5).map(|column| (centre(column) + 0.6 * common + 0.8 * normal()) as f32));
            labels.push((*kind).to_owned());
        }
    }
    Table {
        name: "kinds".to_owned(),
        columns: None,
        rows: Array2::from_shape_vec((labels.len(), 5), cells).unwrap(),
        labels: Some(labels),
        ids: None,
        groups: None,
    }
}

fn fit_rows(table: &Table) -> FittedRows {
    let detector = RowDetector::of_classes(&Settings::default()).unwrap();
    detector.fit(table, &RowFitOptions::default(), &Silent).unwrap().detector
}

fn saved(model: &FittedRows, path: &Path) -> Vec<u8> {
    model.save(path).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn known_rows_are_called_unknown_at_the_rate_asked_for() {
    let model = fit_rows(&table(&["a", "b", "c"], 300, 1));
    let test = table(&["a", "b", "c", "q"], 600, 2);
    for rate in [0.02, 0.05, 0.2] {
        let options = RowPredictOptions { rule: Some(DecisionRule::MaxFpr(rate)), ..RowPredictOptions::default() };
        let figures = evaluate_row_classes(&model, &test, None, &options, &Silent).unwrap().figures;
        assert_eq!((figures.n_test.known, figures.n_test.unknown), (1800, 600));
        // Three standard deviations: those of 1800 test rows, and those of the thresholds from 900 held-out ones.
        let allowed = 3.0 * (rate * (1.0 - rate) * (1.0 / 1800.0 + 1.0 / 900.0)).sqrt();
        let false_unknown = figures.false_unknown.unwrap();
        assert!((false_unknown - rate).abs() < allowed, "{rate}: {false_unknown}");
        assert!(figures.closed_set_accuracy > 0.97, "{}", figures.closed_set_accuracy);
        assert!(figures.auroc.unwrap() > 0.97, "{:?}", figures.auroc);
        assert!(rate < 0.05 || figures.unknown_found.unwrap() > 0.9, "{:?}", figures.unknown_found);
    }
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
        let detector = RowDetector::of_classes(&Settings::default()).unwrap();
        detector.fit(table, &RowFitOptions::default(), &Silent).err().unwrap().to_string()
    };
    let mut few = table(&["a", "b"], 30, 6);
    few.labels.as_mut().unwrap()[..3].fill("rare".to_owned());
    assert!(refused(&few).contains("class `rare`: a class needs at least 4"), "{}", refused(&few));
    assert!(refused(&Table { labels: None, ..few }).contains("without labels"));
    let mut missing = table(&["a", "b"], 30, 6);
    missing.labels.as_mut().unwrap()[7].clear();
    let fit = RowDetector::of_classes(&Settings::default()).unwrap();
    let fit = fit.fit(&missing, &RowFitOptions::default(), &Silent).unwrap();
    assert_eq!((fit.detector.info().training.rows, fit.skipped[0].id.as_str()), (59, "row 8"));
    let unknown = RowDetector::of_classes(&Settings::default().with("scorer", "gmm")).err().unwrap();
    assert!(unknown.to_string().contains("unknown setting `scorer`"), "{unknown}");
}

/// A plain image of one of three colours, with noise.
fn picture(kind: &str, seed: u64) -> Sample {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let colour: [u8; 3] = match kind {
        "red" => [190, 60, 60],
        "blue" => [60, 60, 190],
        _ => [200, 190, 20],
    };
    let image = RgbImage::from_fn(32, 32, |x, y| {
        let stripe = if kind == "blue" { x } else { y } % 8 / 4 * 30;
        Rgb(colour.map(|value| value.saturating_add((stripe + rng.random_range(0..25)) as u8)))
    });
    Sample {
        id: format!("{kind}/{seed}"),
        source: ImageSource::Memory(Arc::new(image)),
        label: Label::Normal,
        kind: kind.to_owned(),
        mask: None,
    }
}

#[test]
fn images_get_a_class_or_are_unknown() {
    let pictures = |kinds: &[&str], seeds: std::ops::Range<u64>| -> Vec<Sample> {
        kinds.iter().flat_map(|kind| seeds.clone().map(|seed| picture(kind, seed))).collect()
    };
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

    let test = pictures(&["red", "blue", "yellow"], 100..112);
    let options = PredictOptions::default();
    let figures = evaluate_classes(&loaded, "pictures", &test, None, &options, &Silent).unwrap().figures;
    assert_eq!((figures.closed_set_accuracy, figures.auroc, figures.unknown_found), (1.0, Some(1.0), Some(1.0)));
    // One in twenty is allowed: of 24 more than five are out of the question.
    assert!(figures.false_unknown.unwrap() < 0.25, "{:?}", figures.false_unknown);
    let strangers = pictures(&["yellow"], 0..3);
    let error = evaluate_classes(&loaded, "pictures", &strangers, None, &options, &Silent).err().unwrap();
    assert!(error.to_string().contains("blue, red"), "{error}");
}
