//! The commands, one file each, and what several of them do.

pub(crate) mod bench;
pub(crate) mod classes;
pub(crate) mod completions;
pub(crate) mod data;
pub(crate) mod demo;
pub(crate) mod eval;
pub(crate) mod explain;
mod figures;
pub(crate) mod fit;
pub(crate) mod inspect;
pub(crate) mod list;
mod one_vs_all;
pub(crate) mod rows;
pub(crate) mod score;
mod sequence;
mod together;
pub(crate) mod update;
pub(crate) mod weights;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;
use nomaly::data::Dataset;
use nomaly::detectors::auto::choose_method;
use nomaly::detectors::calibration::scores_for;
use nomaly::detectors::{Fit, METHODS};
use nomaly::store::{AtomicFile, home};
use nomaly::{Calibration, DecisionRule, Detector, FitOptions, Settings, Skipped, StreamOptions};

use crate::args::{AUTO, DEFAULT_BACKBONE, MethodArgs};
use crate::console::Console;
use crate::failure::Failure;
use crate::output::{counted, percent, significant};
use crate::progress::{Bars, Unit};

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Done,
    /// Something is anomalous, and the user asked for that to be told by the exit status.
    AnomaliesFound,
}

/// The most skipped images that are named without `--verbose`.
const SKIPPED_SHOWN: usize = 10;

/// Makes sure that `path` can be written, before long work whose result goes there.
fn check_writable(path: &Path) -> anyhow::Result<()> {
    // Dropped without a commit, it leaves no trace.
    AtomicFile::create(path)?;
    Ok(())
}

/// What to fit, and how.
#[derive(Clone, Debug)]
struct Recipe<'a> {
    method: &'a str,
    time_budget: Option<Duration>,
    /// The one that was named.
    backbone: Option<&'a str>,
    settings: Settings,
    options: FitOptions,
}

impl<'a> Recipe<'a> {
    /// What the arguments ask for; the library's rule where they ask for none.
    fn new(args: &'a MethodArgs, rule: Option<DecisionRule>, stream: StreamOptions) -> anyhow::Result<Self> {
        let rule = rule.unwrap_or(FitOptions::default().rule);
        let options = FitOptions { seed: args.seed, rule, stream };
        let time_budget = args.time_budget.map(Duration::from_secs_f64);
        let settings = settings_of(args)?;
        Ok(Self { method: &args.method, time_budget, backbone: args.backbone.as_deref(), settings, options })
    }
}

/// The settings that the arguments ask for.
fn settings_of(args: &MethodArgs) -> anyhow::Result<Settings> {
    let epochs = args.epochs.map(|epochs| format!("epochs={epochs}"));
    let pairs: Vec<&str> = args.set.iter().chain(&epochs).map(String::as_str).collect();
    Ok(Settings::parse(&pairs)?)
}

/// Fits a detector on the training images; also says how many seconds the fit took.
fn fit_detector(recipe: Recipe<'_>, dataset: &Dataset, console: &Console) -> anyhow::Result<(Fit, f64)> {
    let Recipe { method, time_budget, backbone, settings, options } = recipe;
    let method = if method == AUTO {
        let backbone = backbone.unwrap_or(DEFAULT_BACKBONE);
        let choice = choose_method(&dataset.train, backbone, &settings, time_budget, options.stream)?;
        console.note(choice.reason);
        choice.method
    } else if time_budget.is_some() {
        bail!("--time-budget is for --method auto, and the method is {method}");
    } else {
        method
    };
    let entry = METHODS.get(method)?;
    let backbone = backbone.unwrap_or(entry.backbone.unwrap_or(DEFAULT_BACKBONE));
    let mut detector = Detector::new(method, backbone, &settings)?;
    if entry.trains {
        detector = detector.with_checkpoints(home()?.join("checkpoints"));
    }
    console.detail(format_args!(
        "fitting {method} on {backbone} with {} of {}",
        counted(dataset.train.len(), "training image"),
        dataset.name
    ));
    let began = Instant::now();
    let fit =
        detector.fit(&dataset.name, &dataset.train, &options, &Bars::new(console, Unit::Images)).map_err(|error| {
            let (what, hint) = if entry.trains {
                (
                    "the fit was interrupted, and no model was written",
                    "the same command goes on from the last checkpoint",
                )
            } else {
                let hint = "a fit is not resumed: the same command starts from the beginning";
                ("the fit was interrupted, and nothing was written", hint)
            };
            Failure::if_cancelled(error, what, hint)
        })?;
    let seconds = began.elapsed().as_secs_f64();
    tell_fit(&fit, console);
    Ok((fit, seconds))
}

/// Says what the user should know of a fit: images it could not use, its notes, a rule that cannot be kept.
fn tell_fit(fit: &Fit, console: &Console) {
    tell_skipped(&fit.skipped, "image", console);
    for note in &fit.notes {
        console.note(note);
    }
    if fit.detector.classes().is_none() {
        warn_unattainable(fit.detector.calibration(), "image", console);
    }
}

/// `, 3 skipped`, or nothing.
fn and_skipped(count: usize) -> String {
    if count == 0 { String::new() } else { format!(", {count} skipped") }
}

/// What is wrong with an image, with its name once.
fn skipped_line(skipped: &Skipped) -> String {
    if skipped.message.contains(&skipped.id) {
        skipped.message.clone()
    } else {
        format!("{}: {}", skipped.id, skipped.message)
    }
}

/// Warns of `noun`s that could not be used.
fn tell_skipped(skipped: &[Skipped], noun: &str, console: &Console) {
    let shown = if console.is_verbose() { skipped.len() } else { skipped.len().min(SKIPPED_SHOWN) };
    for image in &skipped[..shown] {
        console.warn(format_args!("skipped {}", skipped_line(image)));
    }
    if shown < skipped.len() {
        console.warn(format_args!("skipped {} more; --verbose names them", counted(skipped.len() - shown, noun)));
    }
}

/// Warns where the held-out scores of good `noun`s do not support the rule, so that nothing can be called anomalous.
fn warn_unattainable(calibration: &Calibration, noun: &str, console: &Console) {
    let Some(reason) = calibration.unattainable() else { return };
    let n = calibration.held_out().len();
    let DecisionRule::MaxFpr(rate) = calibration.rule() else {
        console.warn(format_args!("there is no threshold, so nothing will be called anomalous: {reason}"));
        console.hint(format_args!("fit on more {noun}s, or use --rule conformal or a --threshold"));
        return;
    };
    console.warn(format_args!(
        "{} cannot promise a false-alarm rate of at most {}: the smallest p-value is 1/{} = {}, so nothing will be \
         called anomalous",
        counted(n, &format!("training {noun}")),
        rate_in_percent(rate),
        n + 1,
        percent(calibration.smallest_p_value()),
    ));
    console.hint(format_args!(
        "fit on at least {} {noun}s, or ask for --rule extreme-value, --max-fpr {} or a --threshold",
        scores_for(rate),
        rate_allowed_by(n)
    ));
}

/// The smallest false-alarm rate with at most three decimals that `n` held-out scores support.
fn rate_allowed_by(n: usize) -> f64 {
    (1000.0 / (n as f64 + 1.0)).ceil() / 1000.0
}

/// A rate that a user chose, without digits it does not have.
fn rate_in_percent(rate: f64) -> String {
    format!("{} %", (rate * 1e8).round() / 1e6)
}

/// The decision rule in words, with its threshold.
fn decision(calibration: &Calibration) -> String {
    let above = match calibration.threshold() {
        Some(threshold) => format!("anomalous above {}", significant(threshold, 5)),
        None => "never anomalous".to_owned(),
    };
    let held_out = calibration.held_out();
    let n = counted(held_out.len(), "held-out score");
    match calibration.rule() {
        DecisionRule::MaxFpr(rate) => {
            format!("{above}: expects at most {} false alarms ({n})", rate_in_percent(rate))
        }
        DecisionRule::Quantile(rate) => {
            format!("{above}: the empirical quantile for {} false alarms ({n})", rate_in_percent(rate))
        }
        DecisionRule::ThreeSigma => format!("{above}: mean + 3 standard deviations ({n})"),
        DecisionRule::ExtremeValue(rate) => {
            format!("{above}: expects {} false alarms by the tail of the scores ({n})", rate_in_percent(rate))
        }
        DecisionRule::Threshold(threshold) => {
            let above_it = held_out.iter().filter(|&&score| score > threshold).count();
            format!(
                "{above}: set by hand; {} of the held-out scores are above it",
                percent(above_it as f64 / held_out.len() as f64)
            )
        }
    }
}

/// How far other held-out images might move the threshold, where that is known.
fn interval_in_words(calibration: &Calibration, noun: &str) -> Option<String> {
    let interval = calibration.threshold_interval()?;
    let (low, high) = (significant(interval.low, 5), significant(interval.high, 5));
    Some(format!(
        "other training {noun}s might move the threshold to between {low} and {high} (95 % bootstrap interval)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_that_the_hint_names_can_be_kept() {
        for n in 1..500 {
            let scores = (0..n).map(|score| score as f64).collect();
            let rule = DecisionRule::MaxFpr(rate_allowed_by(n));
            assert!(Calibration::new(scores, rule).unwrap().threshold().is_some(), "n {n}");
        }
    }

    #[test]
    fn rates_and_decisions_are_told_in_plain_numbers() {
        assert_eq!(rate_in_percent(0.05), "5 %");
        assert_eq!(rate_in_percent(0.007), "0.7 %");
        let scores: Vec<f64> = (1..=40).map(f64::from).collect();
        let by_rate = Calibration::new(scores.clone(), DecisionRule::MaxFpr(0.05)).unwrap();
        assert_eq!(decision(&by_rate), "anomalous above 39.000: expects at most 5 % false alarms (40 held-out scores)");
        assert!(interval_in_words(&by_rate, "image").unwrap().contains("between "));
        let sigma = by_rate.with_rule(DecisionRule::ThreeSigma).unwrap();
        assert_eq!(decision(&sigma), "anomalous above 55.571: mean + 3 standard deviations (40 held-out scores)");
        let by_tail = by_rate.with_rule(DecisionRule::ExtremeValue(0.01)).unwrap();
        assert!(decision(&by_tail).starts_with("never anomalous: expects 1 % false alarms"), "{}", decision(&by_tail));
        let by_hand = Calibration::new(scores, DecisionRule::Threshold(30.0)).unwrap();
        assert!(decision(&by_hand).ends_with("25.0 % of the held-out scores are above it"));
    }

    #[test]
    fn an_image_s_name_is_told_once() {
        let skipped = |message: &str| Skipped { id: "a.png".into(), kind: "empty".into(), message: message.into() };
        assert_eq!(skipped_line(&skipped("the file is empty")), "a.png: the file is empty");
        assert_eq!(skipped_line(&skipped("a.png: the file is empty")), "a.png: the file is empty");
    }
}
