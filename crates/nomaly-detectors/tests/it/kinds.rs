//! Rows and images of several kinds.

use std::ops::Range;
use std::sync::Arc;

use image::{Rgb, RgbImage};
use ndarray::Array2;
use nomaly_data::tables::Table;
use nomaly_data::{ImageSource, Label, Sample};
use nomaly_detectors::rows::{FittedRows, RowDetector, RowFitOptions};
use nomaly_settings::Assignments;
use nomaly_store::Silent;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// `n` rows of each kind: normally distributed in five correlated columns around a center per kind.
pub(crate) fn table(kinds: &[&str], n: usize, seed: u64) -> Table {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut cells, mut labels) = (Vec::new(), Vec::new());
    for kind in kinds {
        let place = f64::from(kind.as_bytes()[0]);
        for _ in 0..n {
            let mut normal = || (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0;
            let common = normal();
            let center = |column: usize| 4.0 * (place * (column + 1) as f64).sin();
            cells.extend((0..5).map(|column| (center(column) + 0.6 * common + 0.8 * normal()) as f32));
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

pub(crate) fn fit_rows(table: &Table) -> FittedRows {
    let detector = RowDetector::of_classes(&Assignments::new()).unwrap();
    detector.fit(table, &RowFitOptions::default(), &Silent).unwrap().detector
}

/// A plain image of one of three colors, with noise.
fn picture(kind: &str, seed: u64) -> Sample {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let color: [u8; 3] = match kind {
        "red" => [190, 60, 60],
        "blue" => [60, 60, 190],
        _ => [200, 190, 20],
    };
    let image = RgbImage::from_fn(32, 32, |x, y| {
        let stripe = if kind == "blue" { x } else { y } % 8 / 4 * 30;
        Rgb(color.map(|value| value.saturating_add((stripe + rng.random_range(0..25)) as u8)))
    });
    Sample {
        id: format!("{kind}/{seed}"),
        source: ImageSource::Memory(Arc::new(image)),
        label: Label::Normal,
        kind: kind.to_owned(),
        mask: None,
    }
}

/// Pictures of each kind, one per seed.
pub(crate) fn pictures(kinds: &[&str], seeds: Range<u64>) -> Vec<Sample> {
    kinds.iter().flat_map(|kind| seeds.clone().map(|seed| picture(kind, seed))).collect()
}
