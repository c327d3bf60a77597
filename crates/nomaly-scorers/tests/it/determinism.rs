//! Results do not depend on threads or other rows.

use ndarray::Array2;
use nomaly_scorers::{SCORERS, State, restore};
use nomaly_settings::Assignments;
use rayon::ThreadPoolBuilder;

use crate::support::rows;

/// Every scorer with every setting that takes a different code path.
fn settings() -> Vec<(&'static str, Assignments)> {
    let with = |name, value: &str| Assignments::new().with(name, value);
    let mut all: Vec<_> = ["ledoit-wolf", "empirical", "diagonal", "identity"]
        .map(|covariance| ("gaussian", with("covariance", covariance)))
        .to_vec();
    all.extend(["leading", "trailing"].map(|keep| ("gaussian-pca", with("keep", keep))));
    all.extend(["l2", "squared-l2", "cosine"].map(|distance| ("neighbours", with("distance", distance))));
    all
}

fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

/// Asserts that a scorer's state and scores do not depend on the number of threads, nor a row's score on other rows,
/// their order in memory or a restore. `train` and `test` have the same columns.
#[track_caller]
pub(crate) fn check_determinism(name: &str, params: &Assignments, train: &Array2<f32>, test: &Array2<f32>) {
    let fit = || SCORERS.get(name).unwrap().fit(params, train.view()).unwrap();
    let run = || -> (State, Vec<f64>) {
        let scorer = fit();
        (scorer.state(), scorer.score(test.view()).unwrap())
    };
    let one = on_threads(1, run);
    for threads in [2, 5] {
        assert!(on_threads(threads, run) == one, "{name} {params:?} on {threads} threads");
    }
    let scorer = fit();
    let again = restore(&scorer.state()).unwrap();
    assert_eq!(again.state(), scorer.state(), "{name}");
    assert_eq!(again.dim(), train.ncols());
    let together = scorer.score(test.view()).unwrap();
    assert!(together.iter().all(|score| score.is_finite()), "{name} {params:?}");
    for (row, score) in together.iter().enumerate() {
        let alone = again.score(test.slice(ndarray::s![row..row + 1, ..])).unwrap();
        assert_eq!(alone, [*score], "{name} {params:?} row {row}");
    }
    // Strided views give the same result as contiguous ones.
    let reversed = scorer.score(test.slice(ndarray::s![..;-1, ..])).unwrap();
    assert!(reversed.iter().rev().eq(&together), "{name}");
    assert!(scorer.score(test.slice(ndarray::s![..0, ..])).unwrap().is_empty());
}

#[test]
fn gaussians_and_neighbours() {
    for (name, params) in settings() {
        check_determinism(name, &params, &rows(1, 400, 290), &rows(2, 53, 290));
        check_determinism(name, &params, &rows(3, 120, 70), &rows(4, 41, 70));
    }
}
