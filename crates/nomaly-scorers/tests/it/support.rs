//! Data shared by the tests.

use ndarray::Array2;
use nomaly_scorers::ScorerError;
use nomaly_settings::SettingError;

/// Knuth's linear congruential generator, as in `fixtures/gen_scorers.py`.
pub(crate) struct Lcg(pub(crate) u64);

impl Lcg {
    /// The next number in [0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The rows of the fixtures: correlated columns of falling variance.
pub(crate) fn rows(seed: u64, n: usize, dim: usize) -> Array2<f32> {
    let mut lcg = Lcg(seed);
    let mut rows = Array2::from_shape_simple_fn((n, dim), || lcg.uniform() * 2.0 - 1.0);
    for mut row in rows.outer_iter_mut() {
        for j in 1..dim {
            row[j] = 0.6 * row[j - 1] + row[j] * 4.0 / (j + 2) as f64;
        }
    }
    rows.mapv(|value| (value + 3.0) as f32)
}

/// The queries of the fixtures: rows of another seed, each moved by a constant.
pub(crate) fn queries(seed: u64, dim: usize) -> Array2<f32> {
    let mut queries = rows(seed + 100, 7, dim);
    let mut lcg = Lcg(seed + 200);
    for mut row in queries.outer_iter_mut() {
        let offset = f64::from(lcg.uniform() as f32);
        row.mapv_inplace(|value| (f64::from(value) + offset) as f32);
    }
    queries
}

/// Moves row `i` by `i % k`, alternating along the columns.
pub(crate) fn groups(mut rows: Array2<f32>, k: usize) -> Array2<f32> {
    for ((i, j), value) in rows.indexed_iter_mut() {
        let step = if j % 2 == 0 { 1.0 } else { -1.0 };
        *value = (f64::from(*value) + (i % k) as f64 * step) as f32;
    }
    rows
}

/// The queries of `gen_isolation.py` and `gen_local.py`: row `i` of `n` stands `1.5 i / n` of its way further from the
/// middle.
pub(crate) fn queries_outwards(seed: u64, n: usize, dim: usize) -> Array2<f32> {
    let mut queries = rows(seed, n, dim);
    for (i, mut row) in queries.outer_iter_mut().enumerate() {
        let factor = 1.0 + 1.5 * i as f64 / n as f64;
        row.mapv_inplace(|value| ((f64::from(value) - 3.0) * factor + 3.0) as f32);
    }
    queries
}

/// Asserts that two lists agree to a relative tolerance.
#[track_caller]
pub(crate) fn assert_close(got: &[f64], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        let slack = tolerance * want.abs().max(1e-3);
        assert!((got - want).abs() <= slack, "{what}: number {at} is {got}, expected {want}");
    }
}

/// Spearman's rank correlation of two lists; equal numbers share their mean rank.
pub(crate) fn rank_correlation(a: &[f64], b: &[f64]) -> f64 {
    let ranks = |values: &[f64]| -> Vec<f64> {
        let rank = |value: &f64| {
            let (below, equal) = values.iter().fold((0, 0), |(below, equal), other| {
                (below + usize::from(other < value), equal + usize::from(other == value))
            });
            below as f64 + (equal as f64 - 1.0) / 2.0
        };
        values.iter().map(rank).collect()
    };
    let (a, b) = (ranks(a), ranks(b));
    let middle = (a.len() as f64 - 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - middle) * (b - middle)).sum::<f64>();
    product(&a, &b) / (product(&a, &a) * product(&b, &b)).sqrt()
}

/// The setting or argument whose value was rejected.
#[track_caller]
pub(crate) fn refused_setting<T>(result: Result<T, ScorerError>) -> String {
    match result {
        Err(ScorerError::Setting(SettingError::Value { name, .. })) => name,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("nothing was refused"),
    }
}
