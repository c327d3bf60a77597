//! Neither threads nor company change a bit.

use nomaly_scorers::{Params, SCORERS, State, restore};
use rayon::ThreadPoolBuilder;

use crate::support::rows;

/// Every scorer with every setting that takes another way through the code.
fn settings() -> Vec<(&'static str, Params)> {
    let with = |name, value: &str| Params::new().with(name, value);
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

#[test]
fn states_and_scores_are_the_same_on_any_number_of_threads() {
    let (train, test) = (rows(1, 400, 290), rows(2, 53, 290));
    for (name, params) in settings() {
        let run = || -> (State, Vec<f64>) {
            let scorer = (SCORERS.get(name).unwrap().fit)(&params, train.view()).unwrap();
            (scorer.state(), scorer.score(test.view()).unwrap())
        };
        let one = on_threads(1, run);
        for threads in [2, 5] {
            assert!(on_threads(threads, run) == one, "{name} {params:?} on {threads} threads");
        }
    }
}

#[test]
fn the_score_of_a_row_does_not_depend_on_its_company_nor_on_a_restore() {
    let (train, test) = (rows(3, 120, 70), rows(4, 41, 70));
    for (name, params) in settings() {
        let scorer = (SCORERS.get(name).unwrap().fit)(&params, train.view()).unwrap();
        let again = restore(&scorer.state()).unwrap();
        assert_eq!(again.state(), scorer.state(), "{name}");
        assert_eq!(again.dim(), 70);
        let together = scorer.score(test.view()).unwrap();
        assert!(together.iter().all(|score| score.is_finite() && *score >= 0.0));
        for (row, score) in together.iter().enumerate() {
            let alone = again.score(test.slice(ndarray::s![row..row + 1, ..])).unwrap();
            assert_eq!(alone, [*score], "{name} {params:?} row {row}");
        }
        // Strided views are as good as contiguous ones.
        let reversed = scorer.score(test.slice(ndarray::s![..;-1, ..])).unwrap();
        assert!(reversed.iter().rev().eq(&together), "{name}");
        assert!(scorer.score(test.slice(ndarray::s![..0, ..])).unwrap().is_empty());
    }
}
