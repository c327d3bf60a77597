//! Learning-rate schedules.

use std::f64::consts::PI;
use std::fmt;
use std::str::FromStr;

use nomaly_settings::written_as_text;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The factor of the learning rate at each step.
///
/// ```
/// use nomaly_methods::training::Schedule;
///
/// let cosine = Schedule::Cosine;
/// assert_eq!(cosine.factor(0, 100), 1.0);
/// assert!((cosine.factor(50, 100) - 0.5).abs() < 1e-12);
/// assert!(cosine.factor(99, 100) < 0.001);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// A constant rate.
    #[default]
    Constant,
    /// Divides the rate by 5 after 30, 60 and 80 % of the steps (Zagoruyko & Komodakis 2016, section 3).
    Step,
    /// Half a period of a cosine from the rate to zero (Loshchilov & Hutter 2017, without restarts).
    Cosine,
    /// Triangles between a tenth of the rate and the rate, four over the training (Smith 2017, `triangular`).
    Cyclic,
    /// One cycle: half a cosine from a 25th of the rate to the rate in 30 % of the steps, then one down to a 10 000th
    /// of the first rate (Smith & Topin 2019), with the constants of PyTorch's `OneCycleLR`.
    OneCycle,
}

/// Shares of the steps after which [`Schedule::Step`] lowers the rate.
const FALLS: [f64; 3] = [0.3, 0.6, 0.8];
const FALL: f64 = 0.2;
/// The number of triangles of [`Schedule::Cyclic`].
const CYCLES: f64 = 4.0;
/// The lower end of a triangle, as a share of the rate.
const LOW: f64 = 0.1;
/// The share of the steps in which [`Schedule::OneCycle`] rises, and its first and last factor.
const RISE: f64 = 0.3;
const FIRST: f64 = 1.0 / 25.0;
const LAST: f64 = FIRST / 1e4;

impl Schedule {
    /// The factor at step `step` of `steps`, counted from 0.
    pub fn factor(self, step: u64, steps: u64) -> f64 {
        let done = step as f64 / steps.max(1) as f64;
        match self {
            Self::Constant => 1.0,
            Self::Step => FALL.powi(FALLS.iter().filter(|share| done >= **share).count() as i32),
            Self::Cosine => 0.5 * (1.0 + (PI * done.min(1.0)).cos()),
            Self::Cyclic => {
                let within = (done * CYCLES).fract();
                LOW + (1.0 - LOW) * (1.0 - (2.0 * within - 1.0).abs())
            }
            Self::OneCycle => {
                let between = |from: f64, to: f64, share: f64| to + 0.5 * (from - to) * (1.0 + (PI * share).cos());
                // The rate is highest at this step, not always a whole one.
                let peak = (RISE * steps as f64 - 1.0).max(0.0);
                let step = step as f64;
                if step < peak {
                    between(FIRST, 1.0, step / peak)
                } else {
                    let fall = (steps as f64 - 1.0 - peak).max(1.0);
                    between(1.0, LAST, ((step - peak) / fall).min(1.0))
                }
            }
        }
    }

    /// The factor at step `step` of `steps`, of which the first `warmup` rise in equal parts to where the schedule
    /// begins; the schedule takes the rest of the steps.
    pub fn factor_after(self, warmup: u64, step: u64, steps: u64) -> f64 {
        let rest = steps.saturating_sub(warmup);
        if step < warmup {
            self.factor(0, rest) * (step + 1) as f64 / warmup as f64
        } else {
            self.factor(step - warmup, rest)
        }
    }
}

/// The linear rise of the learning rate before its schedule begins.
///
/// ```
/// use nomaly_methods::training::Warmup;
///
/// assert_eq!("none".parse(), Ok(Warmup::None));
/// assert_eq!("2".parse(), Ok(Warmup::Epochs(2)));
/// assert_eq!("5%".parse(), Ok(Warmup::Percent(5.0)));
/// assert_eq!(Warmup::Percent(5.0).steps(1000, 40), 50);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Warmup {
    /// The schedule begins with the first step.
    #[default]
    None,
    /// A number of epochs, from 1.
    Epochs(u32),
    /// A share of all steps in percent, above 0 and at most 100.
    Percent(f64),
}

impl Warmup {
    /// The number of steps, of `steps` in all and `per_epoch` in an epoch.
    pub fn steps(self, steps: u64, per_epoch: u64) -> u64 {
        match self {
            Self::None => 0,
            Self::Epochs(epochs) => per_epoch.saturating_mul(u64::from(epochs)).min(steps),
            Self::Percent(percent) => ((steps as f64 * percent / 100.0).round() as u64).min(steps),
        }
    }
}

impl fmt::Display for Warmup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.pad("none"),
            Self::Epochs(epochs) => write!(f, "{epochs}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for Warmup {
    type Err = WarmupError;

    fn from_str(text: &str) -> Result<Self, WarmupError> {
        let parsed = match text.strip_suffix('%') {
            _ if text == "none" => Some(Self::None),
            Some(percent) => {
                percent.parse().ok().filter(|percent| *percent > 0.0 && *percent <= 100.0).map(Self::Percent)
            }
            None => text.parse().ok().filter(|epochs| *epochs > 0).map(Self::Epochs),
        };
        parsed.ok_or(WarmupError)
    }
}

/// A text that is no [`Warmup`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a warm-up is {WARMUPS}")]
pub struct WarmupError;

const WARMUPS: &str = "`none`, a whole number of epochs from 1, or a share of the training as `5%`";

written_as_text!(Warmup, WARMUPS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_fall_where_the_paper_has_them_fall() {
        let at = |step| Schedule::Step.factor(step, 200);
        assert_eq!(
            [at(0), at(59), at(60), at(119), at(120), at(160)].map(|f| (f * 1000.0).round()),
            [1000.0, 1000.0, 200.0, 200.0, 40.0, 8.0]
        );
    }

    #[test]
    fn schedules_are_those_of_pytorch() {
        let fixture = include_str!("../../tests/fixtures/schedules.json");
        let cases: serde_json::Value = serde_json::from_str(fixture).unwrap();
        let cases = cases.as_array().unwrap();
        assert_eq!(cases.len(), 13);
        for case in cases {
            let schedule: Schedule = serde_json::from_value(case["schedule"].clone()).unwrap();
            let warmup = case["warmup"].as_u64().unwrap();
            let factors = case["factors"].as_array().unwrap();
            for (step, want) in factors.iter().enumerate() {
                let got = schedule.factor_after(warmup, step as u64, factors.len() as u64);
                let want = want.as_f64().unwrap();
                assert!((got - want).abs() < 1e-12, "{schedule:?} after {warmup}, step {step}: {got}, expected {want}");
            }
        }
    }

    #[test]
    fn short_trainings_have_rates_too() {
        for schedule in [Schedule::Constant, Schedule::Step, Schedule::Cosine, Schedule::Cyclic, Schedule::OneCycle] {
            for (warmup, steps) in [(0, 1), (0, 2), (0, 3), (0, 4), (1, 1), (2, 2), (3, 5)] {
                for step in 0..steps {
                    let factor = schedule.factor_after(warmup, step, steps);
                    assert!(factor > 0.0 && factor <= 1.0, "{schedule:?}, {warmup}, {step} of {steps}: {factor}");
                }
            }
            for step in 0..10 {
                assert_eq!(schedule.factor_after(0, step, 10), schedule.factor(step, 10), "{schedule:?}");
            }
        }
    }

    #[test]
    fn warm_ups_are_written_as_text() {
        for (text, warmup, steps) in [
            ("none", Warmup::None, 0),
            ("3", Warmup::Epochs(3), 30),
            ("7%", Warmup::Percent(7.0), 14),
            ("0.5%", Warmup::Percent(0.5), 1),
            ("100%", Warmup::Percent(100.0), 200),
            ("4000000000", Warmup::Epochs(4_000_000_000), 200),
        ] {
            assert_eq!(text.parse(), Ok(warmup));
            assert_eq!(warmup.to_string(), text);
            assert_eq!(warmup.steps(200, 10), steps, "{text}");
        }
        for text in ["", "0", "-1", "1.5", "0%", "101%", "NaN%", "inf%", "%", "none%"] {
            assert_eq!(text.parse::<Warmup>(), Err(WarmupError), "{text}");
        }
    }

    #[test]
    fn triangles_start_low_and_peak_in_the_middle() {
        let at = |step| Schedule::Cyclic.factor(step, 400);
        assert_eq!(at(0), LOW);
        assert!((at(50) - 1.0).abs() < 1e-12 && (at(25) - 0.55).abs() < 1e-12);
        assert!((at(100) - LOW).abs() < 1e-12);
    }
}
