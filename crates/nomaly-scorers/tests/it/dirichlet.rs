//! Dirichlet distributions against SciPy.

use nomaly_scorers::dirichlet::{Dirichlet, SimplexStatistics};
use serde::Deserialize;

use crate::support::{Lcg, assert_close};

#[derive(Deserialize)]
struct Case {
    seed: u64,
    n: usize,
    k: usize,
    sharpness: f64,
    first: Vec<f64>,
    alpha: Vec<f64>,
    normality: Vec<f64>,
    log_density: Vec<f64>,
}

/// Log-softmax of the logits that `gen_dirichlet.py` draws.
fn rows(seed: u64, n: usize, k: usize, sharpness: f64) -> Vec<Vec<f64>> {
    let mut lcg = Lcg(seed);
    (0..n)
        .map(|_| {
            let mut z: Vec<f64> = (0..k).map(|_| (2.0 * lcg.uniform() - 1.0) * sharpness).collect();
            z[0] += sharpness;
            let log_sum = z.iter().map(|value| value.exp()).sum::<f64>().ln();
            z.iter().map(|value| value - log_sum).collect()
        })
        .collect()
}

#[test]
fn the_maximum_of_the_likelihood_is_scipy_s() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../fixtures/dirichlet.json")).unwrap();
    for case in cases {
        let train = rows(case.seed, case.n, case.k, case.sharpness);
        assert_close(&train[0].iter().map(|value| value.exp()).collect::<Vec<_>>(), &case.first, 1e-12, "rows");
        let mut statistics = SimplexStatistics::new(case.k);
        train.iter().for_each(|row| statistics.push(row).unwrap());
        let fitted = Dirichlet::fit(&statistics).unwrap();
        // Both stop at a step shorter than 1e-9, which depends on the last digits.
        assert_close(fitted.alpha(), &case.alpha, 1e-6, "alpha");
        let queries = rows(case.seed + 50, 5, case.k, case.sharpness);
        let of = |value: &dyn Fn(&[f64]) -> f64| queries.iter().map(|row| value(row)).collect::<Vec<_>>();
        assert_close(&of(&|row| fitted.normality(row).unwrap()), &case.normality, 1e-6, "normality");
        assert_close(&of(&|row| fitted.log_density(row).unwrap()), &case.log_density, 1e-6, "log-density");
    }
}

/// The vector of the reference implementation's own test: twelve rows of four classes.
#[test]
fn the_reference_vector_is_met() {
    let mut lcg = Lcg(7);
    let mut statistics = SimplexStatistics::new(4);
    let mut first = Vec::new();
    for _ in 0..12 {
        let mut p: Vec<f64> = (0..4).map(|_| lcg.uniform() + 0.05).collect();
        p[0] += 2.0;
        let sum: f64 = p.iter().sum();
        let log: Vec<f64> = p.iter().map(|value| (value / sum).ln()).collect();
        if first.is_empty() {
            first.clone_from(&log);
        }
        statistics.push(&log).unwrap();
    }
    let fitted = Dirichlet::fit(&statistics).unwrap();
    let alpha = [14.838082953032636, 2.8776536034168982, 2.546421013722087, 2.9355106242115276];
    assert_close(fitted.alpha(), &alpha, 1e-6, "alpha");
    assert_close(&[fitted.normality(&first).unwrap()], &[-19.556250298388463], 1e-6, "normality");
}
