//! Fits from parts equal fits from all rows.

use ndarray::{Array2, Axis, concatenate, s};
use nomaly_scorers::Scorer;
use nomaly_scorers::gaussian::{Covariance, Gaussian, GaussianStatistics};
use nomaly_scorers::neighbours::{Aggregation, Distance, NearestNeighbours, NeighboursOptions};
use proptest::prelude::*;

use crate::support::{assert_close, queries, refused_setting, rows};

/// Rounding of sums over a few thousand numbers, and of moving moments to another mean.
const ROUNDING: f64 = 1e-10;

/// Ledoit–Wolf by its definition in the paper: the mean over the rows of `‖x xᵀ - C‖²`.
fn shrinkage_by_definition(rows: &Array2<f32>) -> f64 {
    let rows = rows.mapv(f64::from);
    let (n, dim) = (rows.nrows() as f64, rows.ncols());
    let centered = &rows - &rows.mean_axis(Axis(0)).unwrap();
    let covariance = centered.t().dot(&centered) / n;
    let mean_variance = covariance.diag().sum() / dim as f64;
    let distance = (&covariance - &(Array2::<f64>::eye(dim) * mean_variance)).mapv(|value| value * value).sum();
    let error = centered.outer_iter().map(|row| {
        let own = row.insert_axis(Axis(1));
        (own.dot(&own.t()) - &covariance).mapv(|value| value * value).sum()
    });
    (error.sum::<f64>() / (n * n) / distance).min(1.0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn merged_statistics_are_those_of_all_rows(
        n in 4usize..60, dim in 1usize..20, seed in 0u64..1000, shift in -50.0f32..50.0,
        cuts in prop::collection::vec(0.0f64..1.0, 0..4),
    ) {
        // A shift of half of the rows makes the means of the parts differ much.
        let mut all = rows(seed, n, dim);
        all.slice_mut(s![n / 2.., ..]).mapv_inplace(|value| value + shift);
        let whole = GaussianStatistics::from_rows(all.view()).unwrap();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| (cut * n as f64) as usize).chain([0, n]).collect();
        cuts.sort_unstable();
        let parts: Vec<_> =
            cuts.windows(2).map(|cut| GaussianStatistics::from_rows(all.slice(s![cut[0]..cut[1], ..])).unwrap()).collect();
        let merged = GaussianStatistics::merged(&parts).unwrap();
        prop_assert_eq!(merged.count(), n as u64);
        assert_close(merged.mean(), whole.mean(), ROUNDING, "mean");
        for i in 0..dim {
            for j in 0..dim {
                let scale = (whole.scatter(i, i) * whole.scatter(j, j)).sqrt();
                prop_assert!((merged.scatter(i, j) - whole.scatter(i, j)).abs() <= ROUNDING * scale);
            }
        }
        prop_assert!((merged.shrinkage() - whole.shrinkage()).abs() <= 1e-8);
        if dim > 1 {
            prop_assert!((whole.shrinkage() - shrinkage_by_definition(&all)).abs() <= 1e-8);
        }
    }
}

#[test]
fn many_rows_are_merged_block_by_block() {
    let all = rows(3, 2500, 150);
    let whole = GaussianStatistics::from_rows(all.view()).unwrap();
    assert!((whole.shrinkage() - shrinkage_by_definition(&all)).abs() <= 1e-9);
    let mut pushed = GaussianStatistics::new(150).unwrap();
    for part in all.axis_chunks_iter(Axis(0), 700) {
        pushed.push_rows(part).unwrap();
    }
    let score = |statistics| {
        Gaussian::from_statistics(statistics, Covariance::LedoitWolf).unwrap().score(queries(3, 150).view()).unwrap()
    };
    assert_close(&score(&pushed), &score(&whole), ROUNDING, "scores");
}

#[test]
fn statistics_travel_as_a_state() {
    let all = rows(4, 30, 9);
    let statistics = GaussianStatistics::from_rows(all.view()).unwrap();
    let mut again = GaussianStatistics::from_state(&statistics.state()).unwrap();
    assert_eq!(again, statistics);
    assert!(again.merge(&GaussianStatistics::new(8).unwrap()).is_err());
    again.merge(&GaussianStatistics::new(9).unwrap()).unwrap();
    assert_eq!(again, statistics, "a merge with nothing changes nothing");
    assert!(GaussianStatistics::merged([]).is_err());
}

#[test]
fn merged_banks_are_the_bank_of_all_rows() {
    let options = NeighboursOptions { aggregation: Aggregation::Sum, distance: Distance::L2, k: 3 };
    let (one, two) = (rows(5, 20, 6), rows(6, 11, 6));
    let mut merged = NearestNeighbours::fit(one.view(), options).unwrap();
    merged.merge(&NearestNeighbours::fit(two.view(), options).unwrap()).unwrap();
    let all = concatenate![Axis(0), one, two];
    assert_eq!(merged.state(), NearestNeighbours::fit(all.view(), options).unwrap().state());
    let other = NearestNeighbours::fit(two.view(), NeighboursOptions { k: 2, ..options }).unwrap();
    let error = merged.merge(&other).unwrap_err();
    assert_eq!(error.to_string(), "setting `k` is `2`; it takes `3`, as in the bank before it");
    assert_eq!(refused_setting(Err::<(), _>(error)), "k");
}
