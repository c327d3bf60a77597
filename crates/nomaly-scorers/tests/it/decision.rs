//! Decision rules against SciPy (`fixtures/gen_decision.py`) and in independent simulations.

use nomaly_scorers::decision::bootstrap::ThresholdBootstrap;
use nomaly_scorers::decision::sequence::{ChartKind, ChartOptions, ControlChart};
use nomaly_scorers::decision::{Conformal, ExtremeValue, quantile};
use serde_json::Value;

use crate::support::{Lcg, assert_close};

/// Golden-section search and the simplex method both find a flat maximum to the square root of the precision.
const OPTIMIZERS: f64 = 2e-5;

/// The relative error allowed for a simulated run length.
const RUN_LENGTH: f64 = 0.1;

fn quantile_of(distribution: &str, u: f64) -> f64 {
    match distribution {
        "exponential" => -(-u).ln_1p(),
        "pareto" => (1.0 - u).powf(-0.4),
        "gumbel" => -(-u.max(1e-300).ln()).ln(),
        "triangular" => 1.0 - (1.0 - u).sqrt(),
        _ => unreachable!("{distribution}"),
    }
}

fn draws(distribution: &str, seed: u64, n: usize) -> Vec<f64> {
    let mut lcg = Lcg(seed);
    (0..n).map(|_| quantile_of(distribution, lcg.uniform())).collect()
}

#[test]
fn extreme_value_tails_agree_with_scipy() {
    let fixture: Value = serde_json::from_str(include_str!("../fixtures/decision.json")).unwrap();
    let cases = fixture["cases"].as_array().unwrap();
    assert!(cases.len() >= 6);
    for case in cases {
        let number = |name: &str| case[name].as_f64().unwrap();
        let list = |name: &str| -> Vec<f64> {
            case[name].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
        };
        let distribution = case["distribution"].as_str().unwrap();
        let what = format!("{distribution}, n = {}", case["n"]);
        let scores = draws(distribution, case["seed"].as_u64().unwrap(), case["n"].as_u64().unwrap() as usize);
        let rule = ExtremeValue::fit(scores).unwrap();
        assert_close(&[rule.initial_threshold()], &[number("initial")], 1e-12, &what);
        assert_eq!(rule.exceedances() as u64, case["exceedances"].as_u64().unwrap(), "{what}");
        assert!((rule.shape() - number("shape")).abs() < OPTIMIZERS, "{what}: {}", rule.shape());
        assert_close(&[rule.scale()], &[number("scale")], OPTIMIZERS, &what);
        let thresholds: Vec<f64> = list("rates").iter().map(|&rate| rule.threshold(rate).unwrap()).collect();
        assert_close(&thresholds, &list("thresholds"), 10.0 * OPTIMIZERS, &what);
        let at = |distance: f64| rule.p_value(number("initial") + distance * number("scale"));
        assert_close(&[0.5, 2.0, 5.0].map(at), &list("p_values"), 50.0 * OPTIMIZERS, &what);
    }
}

#[test]
fn a_tail_reaches_rates_that_ranks_cannot() {
    // 5000 scores promise 1/5001 at best; of a million further ones, half of that should be above. The shape of 100
    // exceedances is good to ± 0.1, which is a factor of two or three in the rate at a two-hundredth of their share.
    for distribution in ["exponential", "pareto", "gumbel"] {
        let rule = ExtremeValue::fit(draws(distribution, 17, 5000)).unwrap();
        let threshold = rule.threshold(1e-4).unwrap();
        let alarms = draws(distribution, 99, 1_000_000).iter().filter(|&&score| score > threshold).count();
        assert!((12..800).contains(&alarms), "{distribution}: {alarms} alarms of 100 expected");
    }
}

#[test]
fn bootstrap_intervals_cover_as_often_as_they_say() {
    // The 0.9 quantile of an exponential distribution, by intervals of 100 samples of 200 scores.
    let truth = -(0.1f64).ln();
    let bootstrap = ThresholdBootstrap { resamples: 200, ..ThresholdBootstrap::default() };
    let covered = (0..100)
        .filter(|&seed| {
            let scores = draws("exponential", 1000 + seed, 200);
            let interval = bootstrap.interval(&scores, |scores| quantile(scores, 0.1)).unwrap();
            (interval.low..=interval.high).contains(&truth)
        })
        .count();
    // A binomial count of 100 at 0.95 has a standard deviation of 2.2; percentile intervals cover a little less.
    assert!((85..=100).contains(&covered), "{covered} of 100");
}

#[test]
fn bootstrap_intervals_depend_on_their_seed_and_on_nothing_else() {
    let scores = draws("gumbel", 4, 99);
    let mut backwards = scores.clone();
    backwards.reverse();
    let interval = |seed, scores: &[f64]| {
        let bootstrap = ThresholdBootstrap { seed, resamples: 100, ..ThresholdBootstrap::default() };
        bootstrap.interval(scores, |scores| Ok(Conformal::new(scores.to_vec())?.threshold(0.05).unwrap())).unwrap()
    };
    assert_eq!(interval(1, &scores), interval(1, &backwards));
    assert_ne!(interval(1, &scores), interval(2, &scores));
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(alone.install(|| interval(1, &scores)), interval(1, &scores));
}

#[test]
fn a_statistic_that_often_fails_has_no_interval() {
    let scores = draws("gumbel", 4, 60);
    let refused = ThresholdBootstrap::default().interval(&scores, |_| quantile(&[], 0.5));
    assert!(refused.unwrap_err().to_string().contains("at least 1 held-out scores"));
    assert!(ThresholdBootstrap { level: 1.0, ..ThresholdBootstrap::default() }.interval(&scores, |_| Ok(0.0)).is_err());
    assert!(
        ThresholdBootstrap { resamples: 10, ..ThresholdBootstrap::default() }.interval(&scores, |_| Ok(0.0)).is_err()
    );
    // As many resamples as tails with too many ties are left out.
    let tail = |scores: &[f64]| ExtremeValue::fit(scores.to_vec())?.threshold(1e-3);
    let interval = ThresholdBootstrap::default().interval(&scores, tail).unwrap();
    let threshold = tail(&scores).unwrap();
    assert!(interval.low < threshold && threshold < interval.high, "{interval:?} {threshold}");
}

/// The mean of `runs` run lengths, each on its own draws of `next`.
fn run_length(chart: &ControlChart, runs: usize, mut next: impl FnMut() -> f64) -> f64 {
    let mut total = 0u64;
    for _ in 0..runs {
        let mut monitor = chart.monitor();
        loop {
            total += 1;
            if monitor.push(next()).alarm {
                break;
            }
        }
    }
    total as f64 / runs as f64
}

#[test]
fn charts_reach_their_run_length_in_an_independent_simulation() {
    for (distribution, n) in [("gumbel", 300), ("exponential", 300), ("pareto", 1000), ("triangular", 1000)] {
        let held_out = draws(distribution, 7, n);
        for (kind, arl0) in [(ChartKind::CUSUM, 200.0), (ChartKind::EWMA, 100.0), (ChartKind::CUSUM, 500.0)] {
            let chart = ControlChart::calibrate(&held_out, &ChartOptions { kind, arl0, seed: 0 }).unwrap();
            // A different generator from the calibration's, on the same scores.
            let mut lcg = Lcg(12_345);
            let found = run_length(&chart, 2000, || held_out[(lcg.uniform() * n as f64) as usize]);
            // 2000 run lengths are good to 2.2 %, the 10 000 of the calibration to 1 %.
            assert!((found / arl0 - 1.0).abs() < RUN_LENGTH, "{distribution}, {kind:?}: {found} for {arl0}");
            assert!((chart.arl0() / found - 1.0).abs() < RUN_LENGTH, "{distribution}, {kind:?}: {}", chart.arl0());
        }
    }
}

#[test]
fn charts_see_a_shift_long_before_the_next_false_alarm() {
    let held_out = draws("gumbel", 7, 1000);
    for kind in [ChartKind::CUSUM, ChartKind::EWMA] {
        let options = ChartOptions { kind, arl0: 500.0, seed: 3 };
        let chart = ControlChart::calibrate(&held_out, &options).unwrap();
        let mut lcg = Lcg(5);
        // By one standard deviation, π / √6.
        let shifted = run_length(&chart, 500, || quantile_of("gumbel", lcg.uniform()) + 1.28);
        assert!((3.0..25.0).contains(&shifted), "{kind:?}: {shifted}");
    }
}

#[test]
fn limits_depend_on_the_scores_and_the_seed_only() {
    let held_out = draws("exponential", 2, 150);
    let options = ChartOptions { arl0: 100.0, ..ChartOptions::default() };
    let chart = ControlChart::calibrate(&held_out, &options).unwrap();
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(alone.install(|| ControlChart::calibrate(&held_out, &options).unwrap()), chart);
    let other = ControlChart::calibrate(&held_out, &ChartOptions { seed: 1, ..options }).unwrap();
    assert_ne!(other, chart);
    assert!((other.limit() / chart.limit() - 1.0).abs() < 0.1);
    // In another unit the limit is the same, as it is in standard deviations.
    let scaled: Vec<f64> = held_out.iter().map(|score| 1e-150 * score).collect();
    let scaled = ControlChart::calibrate(&scaled, &options).unwrap();
    assert!((scaled.limit() / chart.limit() - 1.0).abs() < 1e-6);
}

#[test]
fn a_moving_average_of_bounded_scores_has_a_limit_below_their_largest() {
    let held_out: Vec<f64> = (0..100).map(|i| f64::from(i % 2)).collect();
    let options = ChartOptions { kind: ChartKind::Ewma { lambda: 0.5 }, arl0: 1000.0, seed: 0 };
    let chart = ControlChart::calibrate(&held_out, &options).unwrap();
    assert!(chart.limit() < 1.0 && chart.arl0() > 900.0);
}
