//! The arguments of decision rules.

use anyhow::bail;
use clap::{Args, ValueEnum};
use nomaly::DecisionRule;
use nomaly::calibration::{DEFAULT_MAX_FPR, is_rate};
use nomaly::scorers::{ChartKind, ChartOptions};

/// How a score becomes a decision.
#[derive(Debug, Args)]
#[command(next_help_heading = "Decision")]
pub(crate) struct RuleArgs {
    /// How held-out scores of good images give the threshold [default: what the model says, else conformal]
    #[arg(long, value_enum, value_name = "RULE", conflicts_with = "threshold")]
    rule: Option<Rule>,
    /// The rate of false alarms to allow: call an image or a row anomalous (with classes: unknown) where its p-value is
    /// at most P [default: 0.05, or what the model says]
    #[arg(long, value_name = "P", value_parser = rate, conflicts_with = "threshold")]
    max_fpr: Option<f64>,
    /// Call an image or a row anomalous where its score is above X
    #[arg(long, value_name = "X", value_parser = finite, allow_negative_numbers = true)]
    threshold: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Rule {
    /// P-values by rank: keeps the rate for any scores, and needs 1 / P good images
    Conformal,
    /// The empirical quantile: close to the rate with many images
    Quantile,
    /// Mean + 3 standard deviations: takes no rate
    ThreeSigma,
    /// A tail fitted to the highest scores: for rates below what the number of images allows
    ExtremeValue,
    /// A tail through the middle of the scores: for training images of which a few may be defective
    Robust,
}

impl RuleArgs {
    /// The rule, if given; `of_model`, the rule of the model, fills in what is missing.
    pub(crate) fn rule(&self, of_model: Option<DecisionRule>) -> anyhow::Result<Option<DecisionRule>> {
        if let Some(threshold) = self.threshold {
            return Ok(Some(DecisionRule::Threshold(threshold)));
        }
        if self.rule.is_none() && self.max_fpr.is_none() {
            return Ok(None);
        }
        let rule = self.rule.unwrap_or(match of_model {
            Some(DecisionRule::Quantile(_)) => Rule::Quantile,
            Some(DecisionRule::ExtremeValue(_)) => Rule::ExtremeValue,
            Some(DecisionRule::RobustTail(_)) => Rule::Robust,
            _ => Rule::Conformal,
        });
        let rate = self.max_fpr.or(of_model.and_then(DecisionRule::rate)).unwrap_or(DEFAULT_MAX_FPR);
        Ok(Some(match rule {
            Rule::Conformal => DecisionRule::MaxFpr(rate),
            Rule::Quantile => DecisionRule::Quantile(rate),
            Rule::ExtremeValue => DecisionRule::ExtremeValue(rate),
            Rule::Robust => DecisionRule::RobustTail(rate),
            Rule::ThreeSigma if self.max_fpr.is_some() => {
                bail!("--rule three-sigma takes no rate: leave out --max-fpr, or use another rule")
            }
            Rule::ThreeSigma => DecisionRule::ThreeSigma,
        }))
    }
}

/// Monitoring of the images or rows as one sequence.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sequences")]
pub(crate) struct SequenceArgs {
    /// Take the images or rows, in their order, as one sequence, and watch their scores for a lasting change;
    /// --fail-on-anomaly then looks at the chart's alarms
    #[arg(long, value_enum, value_name = "CHART")]
    sequence: Option<Sequence>,
    /// How many good images or rows pass on average until a false alarm of the chart
    #[arg(long, value_name = "N", value_parser = run_length, requires = "sequence",
        default_value_t = ChartOptions::DEFAULT_ARL0)]
    arl0: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sequence {
    /// Cumulative sums: soonest for a shift of the scores
    Cusum,
    /// An exponentially weighted moving average: for slow drifts
    Ewma,
}

impl SequenceArgs {
    /// The options of the chart, if requested.
    pub(crate) fn chart(&self) -> Option<ChartOptions> {
        let kind = match self.sequence? {
            Sequence::Cusum => ChartKind::CUSUM,
            Sequence::Ewma => ChartKind::EWMA,
        };
        Some(ChartOptions { kind, arl0: self.arl0, ..ChartOptions::default() })
    }
}

pub(crate) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if is_rate(rate) => Ok(rate),
        _ => Err("a rate from 1e-9 to 1 - 1e-9 is needed".to_owned()),
    }
}

fn run_length(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(length) if (2.0..=ChartOptions::MAX_ARL0).contains(&length) => Ok(length),
        _ => Err("a number of images or rows from 2 to 100000 is needed".to_owned()),
    }
}

fn finite(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err("a finite number is needed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn rates_and_thresholds_are_checked_before_anything_is_done() {
        assert_eq!([rate("0.05"), rate("1e-9")], [Ok(0.05), Ok(1e-9)]);
        for bad in ["0", "1", "-0.1", "NaN", "inf", "five", "1e-300", "9e-10", "0.9999999999"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
        assert_eq!(finite("-3.5"), Ok(-3.5));
        assert!(finite("inf").is_err() && finite("nan").is_err());
    }

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        rule: RuleArgs,
        #[command(flatten)]
        sequence: SequenceArgs,
    }

    fn parse(args: &str) -> Result<Line, clap::Error> {
        Line::try_parse_from(["nomaly"].into_iter().chain(args.split_whitespace()))
    }

    #[test]
    fn what_a_rule_leaves_open_comes_from_the_model() {
        let rule = |args: &str, of_model| parse(args).unwrap().rule.rule(of_model).unwrap();
        let model = Some(DecisionRule::ExtremeValue(0.001));
        assert_eq!(rule("", model), None);
        assert_eq!(rule("--max-fpr 0.01", None), Some(DecisionRule::MaxFpr(0.01)));
        assert_eq!(rule("--max-fpr 0.01", model), Some(DecisionRule::ExtremeValue(0.01)));
        assert_eq!(rule("--rule quantile", model), Some(DecisionRule::Quantile(0.001)));
        assert_eq!(rule("--rule conformal", None), Some(DecisionRule::MaxFpr(DEFAULT_MAX_FPR)));
        assert_eq!(rule("--rule three-sigma", model), Some(DecisionRule::ThreeSigma));
        assert_eq!(rule("--max-fpr 0.01", Some(DecisionRule::Threshold(3.0))), Some(DecisionRule::MaxFpr(0.01)));
        assert_eq!(rule("--threshold -3", model), Some(DecisionRule::Threshold(-3.0)));
        assert!(parse("--rule three-sigma --max-fpr 0.1").unwrap().rule.rule(None).is_err());
        assert!(parse("--rule quantile --threshold 3").is_err());
    }

    #[test]
    fn a_run_length_needs_a_sequence() {
        let chart = |args: &str| parse(args).unwrap().sequence.chart();
        assert_eq!(chart(""), None);
        assert_eq!(chart("--sequence cusum"), Some(ChartOptions::default()));
        let ewma = ChartOptions { kind: ChartKind::EWMA, arl0: 100.0, seed: 0 };
        assert_eq!(chart("--sequence ewma --arl0 100"), Some(ewma));
        assert!(parse("--arl0 100").is_err() && parse("--sequence cusum --arl0 1").is_err());
    }
}
