//! Control charts, which monitor a sequence of scores for a lasting change.
//!
//! A rule for single scores detects a shift below its threshold late or never; a chart accumulates the evidence. It is
//! calibrated for a given *in-control average run length* ARL₀: the mean number of scores of normal items until a
//! false alarm. The limit is found by simulating the chart on scores drawn from the held-out ones, with the same random
//! numbers for all limits; the same seed gives the same limit on any number of threads.
//!
//! The simulation draws scores independently. If consecutive items resemble each other, their scores come in runs and
//! false alarms are more frequent: [`ControlChart::calibrate_groups`] draws whole groups of scores instead, in the
//! order in which they came (the block bootstrap: Künsch, *The jackknife and the bootstrap for general stationary
//! observations*, 1989). The held-out scores also stand in for the distribution: with `n` of them the mean is off by `1
//! / √n` standard deviations, which matters to a chart that accumulates small excesses. For a precise run length,
//! calibrate on many thousand scores.
//!
//! ```
//! use nomaly_scorers::decision::sequence::{ChartKind, ChartOptions, ControlChart};
//!
//! let held_out: Vec<f64> = (0..200).map(|i| f64::from(i * 37 % 200)).collect();
//! let options = ChartOptions { kind: ChartKind::EWMA, arl0: 200.0, seed: 0 };
//! let chart = ControlChart::calibrate(&held_out, &options)?;
//! let mut monitor = chart.monitor();
//! assert!(!monitor.push(100.0).alarm);
//! // No single score is unusual, but so many high ones in a row are.
//! let first = (0..50).position(|_| monitor.push(190.0).alarm);
//! assert!(first.is_some_and(|at| at < 10));
//! # Ok::<(), nomaly_scorers::ScorerError>(())
//! ```

pub mod cusum;
pub mod ewma;
mod run_length;

use self::run_length::Stretches;
use super::{check_number, check_scores};
use crate::ScorerError;

/// The charted statistic. The parameter is in units of the standard deviation of held-out scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ChartKind {
    /// [Cumulative sums](cusum).
    Cusum {
        /// The excess over the mean that does not add to the sum, from 0.
        allowance: f64,
    },
    /// [Exponentially weighted moving averages](ewma).
    Ewma {
        /// The weight of the newest score, in (0, 1].
        lambda: f64,
    },
}

impl ChartKind {
    /// Cumulative sums with an allowance of half a standard deviation.
    pub const CUSUM: Self = Self::Cusum { allowance: cusum::DEFAULT_ALLOWANCE };
    /// A moving average in which the newest score weighs a tenth.
    pub const EWMA: Self = Self::Ewma { lambda: ewma::DEFAULT_LAMBDA };

    /// The name: `cusum` or `ewma`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cusum { .. } => "cusum",
            Self::Ewma { .. } => "ewma",
        }
    }

    /// The statistic after one more standardized score.
    fn step(self, statistic: f64, z: f64) -> f64 {
        match self {
            Self::Cusum { allowance } => cusum::step(statistic, z, allowance),
            Self::Ewma { lambda } => ewma::step(statistic, z, lambda),
        }
    }

    /// The approximate spread of the statistic.
    fn spread(self) -> f64 {
        match self {
            Self::Cusum { .. } => 1.0,
            Self::Ewma { lambda } => ewma::spread(lambda),
        }
    }

    fn check(self) -> Result<(), ScorerError> {
        match self {
            Self::Cusum { allowance } => {
                let fits = allowance >= 0.0 && allowance.is_finite();
                check_number("allowance", allowance, fits, "a number of standard deviations from 0")
            }
            Self::Ewma { lambda } => {
                check_number("lambda", lambda, lambda > 0.0 && lambda <= 1.0, "a weight above 0, at most 1")
            }
        }
    }
}

/// Options of the calibration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChartOptions {
    /// The charted statistic.
    pub kind: ChartKind,
    /// The in-control average run length, in scores, from 2 to 100 000.
    pub arl0: f64,
    /// The seed of the simulation.
    pub seed: u64,
}

impl ChartOptions {
    /// The default average run length.
    pub const DEFAULT_ARL0: f64 = 500.0;
    /// The longest average run length allowed.
    pub const MAX_ARL0: f64 = 1e5;
}

impl Default for ChartOptions {
    fn default() -> Self {
        Self { kind: ChartKind::CUSUM, arl0: Self::DEFAULT_ARL0, seed: 0 }
    }
}

/// A chart with its limit.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlChart {
    kind: ChartKind,
    center: f64,
    spread: f64,
    /// The lowest standardized held-out score.
    lowest: f64,
    limit: f64,
    arl0: f64,
}

impl ControlChart {
    /// The fewest held-out scores that a chart is calibrated on.
    pub const FEWEST_SCORES: usize = 20;

    /// Finds the limit that gives the chart its run length on the scores of held-out normal items.
    ///
    /// # Errors
    /// [`ScorerError::TooFewScores`] below 20, [`ScorerError::NonFiniteScore`], [`ScorerError::ConstantScores`], and
    /// [`ScorerError::Setting`] for options out of range, an allowance that no held-out score exceeds, and a run length
    /// that is too short for any limit.
    pub fn calibrate(held_out_scores: &[f64], options: &ChartOptions) -> Result<Self, ScorerError> {
        Self::calibrate_stretches(held_out_scores, None, options)
    }

    /// As [`calibrate`](Self::calibrate), for scores that depend on each other within groups. `groups` has the group
    /// number of each score; scores of a group keep their order, and the simulation draws whole groups.
    ///
    /// # Errors
    /// As [`calibrate`](Self::calibrate), with fewer than 20 groups in place of scores, and [`ScorerError::Setting`]
    /// unless there is one group per score.
    pub fn calibrate_groups(
        held_out_scores: &[f64],
        groups: &[u32],
        options: &ChartOptions,
    ) -> Result<Self, ScorerError> {
        let expected = format!("{} numbers, one a score", held_out_scores.len());
        check_number("groups", groups.len() as f64, groups.len() == held_out_scores.len(), &expected)?;
        let mut order: Vec<usize> = (0..groups.len()).collect();
        order.sort_by_key(|&item| groups[item]);
        let scores: Vec<f64> = order.iter().map(|&item| held_out_scores[item]).collect();
        let begins = |&at: &usize| at == 0 || groups[order[at]] != groups[order[at - 1]];
        let starts: Vec<usize> = (0..order.len()).filter(begins).collect();
        if starts.len() < Self::FEWEST_SCORES {
            let (what, needed, got) = ("a control chart of independent groups", Self::FEWEST_SCORES, starts.len());
            return Err(ScorerError::TooFewScores { what, needed, got });
        }
        Self::calibrate_stretches(&scores, Some(&starts), options)
    }

    fn calibrate_stretches(
        held_out_scores: &[f64],
        starts: Option<&[usize]>,
        options: &ChartOptions,
    ) -> Result<Self, ScorerError> {
        let &ChartOptions { kind, arl0, seed } = options;
        check_scores("a control chart", Self::FEWEST_SCORES, held_out_scores)?;
        kind.check()?;
        let range = 2.0..=ChartOptions::MAX_ARL0;
        check_number("arl0", arl0, range.contains(&arl0), "a run length from 2 to 100000")?;
        // Scaled by the largest, so that squares neither over- nor underflow.
        let unit = held_out_scores.iter().fold(0.0, |most: f64, score| most.max(score.abs()));
        if held_out_scores.iter().all(|&score| score == held_out_scores[0]) {
            return Err(ScorerError::ConstantScores { n: held_out_scores.len() });
        }
        let n = held_out_scores.len() as f64;
        let center = held_out_scores.iter().map(|score| score / unit).sum::<f64>() / n * unit;
        let squares: f64 = held_out_scores.iter().map(|score| ((score - center) / unit).powi(2)).sum();
        let spread = (squares / (n - 1.0)).sqrt() * unit;
        if !(spread > 0.0 && spread.is_finite()) {
            return Err(ScorerError::ConstantScores { n: held_out_scores.len() });
        }
        let standardized: Vec<f64> = held_out_scores.iter().map(|score| (score - center) / spread).collect();
        let [lowest, highest] = [f64::min, f64::max].map(|pick| standardized.iter().copied().fold(0.0, pick));
        if let ChartKind::Cusum { allowance } = kind {
            let expected = format!("less than {highest:.2}, the largest held-out score in standard deviations");
            check_number("allowance", allowance, allowance < highest, &expected)?;
        }
        let found = run_length::limit_for(kind, &Stretches { scores: &standardized, starts }, arl0, seed);
        if found.limit == 0.0 && found.arl > arl0 {
            let expected = format!("at least {:.1}, the run length without any allowance for chance", found.arl);
            check_number("arl0", arl0, false, &expected)?;
        }
        Ok(Self { kind, center, spread, lowest, limit: found.limit, arl0: found.arl })
    }

    /// The charted statistic.
    pub fn kind(&self) -> ChartKind {
        self.kind
    }

    /// The limit above which an alarm is raised, in standard deviations of held-out scores.
    pub fn limit(&self) -> f64 {
        self.limit
    }

    /// The average run length of the limit in the simulation: the requested one, or the nearest attainable one if few
    /// scores decide.
    pub fn arl0(&self) -> f64 {
        self.arl0
    }

    /// A chart at its start.
    pub fn monitor(&self) -> Monitor<'_> {
        Monitor { chart: self, statistic: 0.0 }
    }
}

/// A chart in use.
#[derive(Clone, Debug)]
pub struct Monitor<'a> {
    chart: &'a ControlChart,
    statistic: f64,
}

/// The state of a chart after a score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// The statistic, in standard deviations of held-out scores.
    pub statistic: f64,
    /// Whether it is above the limit.
    pub alarm: bool,
}

impl Monitor<'_> {
    /// Takes the next score. After an alarm the chart starts anew, as after an inspection.
    ///
    /// Infinity and NaN raise an alarm, so that an item without a score never counts as normal. Minus infinity counts
    /// as the lowest held-out score, so that it does not mask later scores.
    pub fn push(&mut self, score: f64) -> Reading {
        let chart = self.chart;
        let z = (score - chart.center) / chart.spread;
        let statistic = match z {
            z if z.is_nan() || z == f64::INFINITY => f64::INFINITY,
            z if z == f64::NEG_INFINITY => chart.kind.step(self.statistic, chart.lowest),
            z => chart.kind.step(self.statistic, z),
        };
        let alarm = statistic > chart.limit;
        self.statistic = if alarm { 0.0 } else { statistic };
        Reading { statistic, alarm }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(n: i32) -> Vec<f64> {
        (0..n).map(f64::from).collect()
    }

    #[test]
    fn statistics_by_hand() {
        let chart = |kind| ControlChart { kind, center: 10.0, spread: 2.0, lowest: -1.5, limit: 1.2, arl0: 0.0 };
        let readings = |chart: &ControlChart, scores: &[f64]| -> Vec<(f64, bool)> {
            let mut monitor = chart.monitor();
            scores.iter().map(|&score| monitor.push(score)).map(|reading| (reading.statistic, reading.alarm)).collect()
        };
        let cusum = chart(ChartKind::CUSUM);
        let scores = [12.0, 8.0, 12.0, 12.0, 12.0, 12.0];
        let expected = [(0.5, false), (0.0, false), (0.5, false), (1.0, false), (1.5, true), (0.5, false)];
        assert_eq!(readings(&cusum, &scores), expected);
        let ewma = chart(ChartKind::Ewma { lambda: 0.5 });
        let scores = [14.0, 14.0, 14.0, f64::NAN, f64::NEG_INFINITY];
        let expected = [(1.0, false), (1.5, true), (1.0, false), (f64::INFINITY, true), (-0.75, false)];
        assert_eq!(readings(&ewma, &scores), expected);
    }

    #[test]
    fn scores_that_come_in_runs_raise_the_limit() {
        // Sixty levels, each five times in a row.
        let levels: Vec<f64> = (0..60).map(|level| f64::from(level * 37 % 60)).collect();
        let scores: Vec<f64> = levels.iter().flat_map(|level| [*level; 5]).collect();
        let groups: Vec<u32> = (0..300).map(|item| item / 5).collect();
        let options = ChartOptions { arl0: 200.0, ..ChartOptions::default() };
        let apart = ControlChart::calibrate(&scores, &options).unwrap();
        let grouped = ControlChart::calibrate_groups(&scores, &groups, &options).unwrap();
        assert!(grouped.limit() > 1.5 * apart.limit(), "{} {}", grouped.limit(), apart.limit());
        let alone: Vec<u32> = (0..300).collect();
        assert_eq!(ControlChart::calibrate_groups(&scores, &alone, &options).unwrap(), apart);
        let few: Vec<u32> = (0..300).map(|item| item / 20).collect();
        let refused = ControlChart::calibrate_groups(&scores, &few, &options).unwrap_err().to_string();
        assert!(refused.contains("at least 20") && refused.contains("15"), "{refused}");
    }

    #[test]
    fn what_cannot_be_calibrated_is_refused() {
        let refused = |scores: &[f64], kind, arl0| {
            ControlChart::calibrate(scores, &ChartOptions { kind, arl0, seed: 0 }).unwrap_err().to_string()
        };
        assert!(refused(&ramp(19), ChartKind::CUSUM, 100.0).contains("at least 20 held-out scores"));
        assert!(refused(&[4.0; 50], ChartKind::CUSUM, 100.0).contains("all 50 held-out scores are equal"));
        assert!(refused(&ramp(50), ChartKind::Cusum { allowance: 2.0 }, 100.0).contains("less than 1.68"));
        assert!(refused(&ramp(50), ChartKind::Cusum { allowance: -0.1 }, 100.0).contains("`allowance`"));
        assert!(refused(&ramp(50), ChartKind::Ewma { lambda: 0.0 }, 100.0).contains("`lambda`"));
        assert!(refused(&ramp(50), ChartKind::EWMA, f64::NAN).contains("`arl0`"));
        assert!(refused(&ramp(50), ChartKind::EWMA, 1e6).contains("`arl0`"));
        assert!(refused(&ramp(50), ChartKind::CUSUM, 2.0).contains("`arl0` is `2`; it takes at least"));
        let with_nan = [ramp(50), vec![f64::NAN]].concat();
        assert!(refused(&with_nan, ChartKind::EWMA, 100.0).contains("held-out score 50"));
    }
}
