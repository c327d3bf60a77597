//! The commands, one file each, and their shared functions.

pub(crate) mod bench;
pub(crate) mod calibrate;
pub(crate) mod classes;
pub(crate) mod completions;
pub(crate) mod data;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod eval;
mod evaluation_data;
pub(crate) mod explain;
mod figures;
pub(crate) mod fit;
mod hybrid;
pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod merge;
mod one_vs_all;
mod provenance;
pub(crate) mod rows;
pub(crate) mod schema;
pub(crate) mod score;
mod sequence;
mod shard;
mod shift;
pub(crate) mod update;
pub(crate) mod weights;

use std::time::{Duration, Instant};

use anyhow::bail;
use nomaly::Dataset;
use nomaly::FitResult;
use nomaly::calibration::GroupInfo;
use nomaly::calibration::scores_for;
use nomaly::calibration::{Suspicious, naming_level, suspicious};
use nomaly::devices::Executor;
use nomaly::methods::METHODS;
use nomaly::store::home;
use nomaly::{Assignments, Calibration, DecisionRule, FitOptions, Skipped, StreamOptions};

use crate::args::MethodArgs;
use crate::console::Console;
use crate::failure::Failure;
use crate::output::{counted, percent, significant};
use crate::progress::{Bars, Unit};
use crate::writable::check_writable;
use nomaly::{AUTO, Recipe};

/// The outcome of a command that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Done,
    /// Something is anomalous, and the exit status should say so.
    AnomaliesFound,
    /// The model could not decide on some items.
    Undecided,
    /// Images are unlike the training images, and the exit status should say so.
    ShiftFound,
}

impl Status {
    /// The outcome of scoring: whether the exit status should report `anomalous` items, and the number of undecided
    /// ones.
    fn of_scores(anomalous: bool, undecided: usize) -> Self {
        match (anomalous, undecided) {
            (true, _) => Self::AnomaliesFound,
            (false, 0) => Self::Done,
            (false, _) => Self::Undecided,
        }
    }
}

/// The most skipped images listed without `--verbose`.
const SKIPPED_SHOWN: usize = 10;
/// The most suspicious images listed without `--verbose`.
const SUSPICIOUS_SHOWN: usize = 10;

/// The recipe of the arguments, to run on `executor`; the default rule is the library's.
fn recipe(
    args: &MethodArgs,
    rule: Option<DecisionRule>,
    stream: StreamOptions,
    executor: &Executor,
) -> anyhow::Result<Recipe> {
    let rule = rule.unwrap_or(FitOptions::default().rule);
    let group_by = args.groups.group_by.clone();
    let changes = args.bear.clone().unwrap_or_default();
    if args.method != AUTO && args.time_budget.is_some() {
        bail!("--time-budget is for --method auto, and the method is {}", args.method);
    }
    Ok(Recipe {
        method: args.method.clone(),
        backbone: args.backbone.clone(),
        settings: settings_of(args)?,
        options: FitOptions { seed: args.seed, rule, group_by, changes, stream, updatable: false },
        time_budget: args.time_budget.map(Duration::from_secs_f64),
        drop_suspicious: None,
        checkpoints: Some(home()?.join("checkpoints")),
        executor: Some(executor.clone()),
    })
}

/// The settings in the arguments.
fn settings_of(args: &MethodArgs) -> anyhow::Result<Assignments> {
    let epochs = args.epochs.map(|epochs| format!("epochs={epochs}"));
    let pairs: Vec<&str> = args.set.iter().chain(&epochs).map(String::as_str).collect();
    Ok(Assignments::parse(&pairs)?)
}

/// Fits a detector on the training images; also returns the seconds of the fit.
fn fit_detector(recipe: &Recipe, dataset: &Dataset, console: &Console) -> anyhow::Result<(FitResult, f64)> {
    let chosen = recipe.choose(&dataset.train)?;
    if let Some(reason) = &chosen.reason {
        console.note(reason);
    }
    console.detail(format_args!(
        "fitting {} on {} with {} of {}",
        chosen.method,
        chosen.backbone,
        counted(dataset.train.len(), "training image"),
        dataset.name
    ));
    let began = Instant::now();
    let bars = Bars::new(console, Unit::Images);
    let trains = METHODS.get(chosen.method)?.trains;
    let fit = recipe.fit(&chosen, &dataset.name, &dataset.train, &bars).map_err(|error| {
        let (what, hint) = if trains {
            ("the fit was interrupted, and no model was written", "the same command goes on from the last checkpoint")
        } else {
            let hint = "a fit is not resumed: the same command starts from the beginning";
            ("the fit was interrupted, and nothing was written", hint)
        };
        Failure::if_cancelled(error, what, hint)
    })?;
    let seconds = began.elapsed().as_secs_f64();
    tell_fit(&fit, console);
    if fit.detector.classes().is_none() {
        tell_suspicious(&fit, &|sample| dataset.train[sample].id.as_str(), console);
    }
    Ok((fit, seconds))
}

/// Lists the training images that look unlike the others; `id` is the name of a sample by its index.
fn tell_suspicious<'a>(fit: &FitResult, id: &dyn Fn(usize) -> &'a str, console: &Console) {
    let name = |image: &Suspicious| {
        let p_value = significant(image.p_value, 2);
        console.note(format_args!("  {} (score {}, p = {p_value})", id(image.sample), significant(image.score, 4)));
    };
    let shown = |images: &[Suspicious]| {
        let most = if console.is_verbose() { images.len() } else { images.len().min(SUSPICIOUS_SHOWN) };
        images[..most].iter().for_each(name);
        if most < images.len() {
            console.note(format_args!("  and {} more; --verbose names them", images.len() - most));
        }
    };
    if !fit.dropped.is_empty() {
        let count = counted(fit.dropped.len(), "training image");
        console.warn(format_args!("left out {count} that looked unlike the others:"));
        shown(&fit.dropped);
    }
    let found = suspicious(&fit.held_out, naming_level(fit.held_out.len()));
    if !found.is_empty() {
        let count = counted(found.len(), "training image");
        let (verb, they) = if found.len() == 1 { ("looks", "it hides") } else { ("look", "they hide") };
        console.warn(format_args!("{count} {verb} unlike the others; if defective, {they} defects of the same kind:"));
        shown(&found);
        console.hint("look at them and take defective ones out, or fit with --drop-suspicious 0.001 or --rule robust");
    }
}

/// Reports on a fit: skipped images, notes, an unattainable rule.
fn tell_fit(fit: &FitResult, console: &Console) {
    tell_skipped(&fit.skipped, "image", console);
    fit.notes.iter().for_each(|note| console.note(note));
    fit.warnings.iter().for_each(|warning| console.warn(warning));
    tell_groups(&fit.detector.info().training.groups, fit.detector.info().training.images, "image", console);
    if fit.detector.classes().is_none() {
        warn_unattainable(fit.detector.calibration(), "image", console);
    }
}

/// Reports groups of dependent images, if any.
fn tell_groups(groups: &GroupInfo, items: usize, noun: &str, console: &Console) {
    let Some(how) = &groups.how else { return };
    let items = counted(items, noun);
    if groups.by == "auto" {
        console.warn(format_args!("{items} look like about {} independent scenes: {how}", groups.count));
        console.hint("held-out scores leave out whole scenes; --group-by says what belongs together, or `none`");
    } else {
        console.note(format_args!("{items} are {}, {how}", counted(groups.count, "independent group")));
    }
}

/// The problem of an image, with its name exactly once.
fn skipped_line(skipped: &Skipped) -> String {
    if skipped.message.contains(&skipped.id) {
        skipped.message.clone()
    } else {
        format!("{}: {}", skipped.id, skipped.message)
    }
}

/// Warns of skipped `noun`s.
fn tell_skipped(skipped: &[Skipped], noun: &str, console: &Console) {
    let shown = if console.is_verbose() { skipped.len() } else { skipped.len().min(SKIPPED_SHOWN) };
    for image in &skipped[..shown] {
        console.warn(format_args!("skipped {}", skipped_line(image)));
    }
    if shown < skipped.len() {
        console.warn(format_args!("skipped {} more; --verbose names them", counted(skipped.len() - shown, noun)));
    }
}

/// Warns at any verbosity if the held-out scores of good `noun`s do not support the rule, so that nothing can be
/// decided.
fn warn_unattainable(calibration: &Calibration, noun: &str, console: &Console) {
    let Some(reason) = calibration.unattainable() else { return };
    let n = calibration.independent();
    let DecisionRule::MaxFpr(rate) = calibration.rule() else {
        console.alert(format_args!("there is no threshold, so no {noun} can be decided on: {reason}"));
        console.hint(format_args!("fit on more {noun}s, or use --rule conformal or a --threshold"));
        return;
    };
    let items = match calibration.groups() {
        None => counted(n, &format!("held-out {noun}")),
        Some(_) => {
            format!(
                "{} of {}",
                counted(calibration.held_out().len(), &format!("held-out {noun}")),
                counted(n, "independent group")
            )
        }
    };
    console.alert(format_args!(
        "{items} cannot promise a false-alarm rate of at most {}: the smallest p-value is 1/{} = {}, so no {noun} can be \
         decided on",
        rate_in_percent(rate),
        n + 1,
        percent(calibration.smallest_p_value()),
    ));
    console.hint(format_args!(
        "hold out at least {} {}, or ask for --max-fpr {} or a --threshold",
        scores_for(rate),
        if calibration.groups().is_some() { "groups".to_owned() } else { format!("{noun}s") },
        rate_allowed_by(n)
    ));
}

/// The smallest false-alarm rate with at most three decimals that `n` held-out scores support.
fn rate_allowed_by(n: usize) -> f64 {
    (1000.0 / (n as f64 + 1.0)).ceil() / 1000.0
}

/// A user's rate in percent, without spurious digits.
fn rate_in_percent(rate: f64) -> String {
    format!("{} %", (rate * 1e8).round() / 1e6)
}

/// The decision rule in words, with its threshold.
fn decision(calibration: &Calibration) -> String {
    let above = match calibration.threshold() {
        Some(threshold) => format!("anomalous above {}", significant(threshold, 5)),
        None => "undecided".to_owned(),
    };
    let held_out = calibration.held_out();
    let n = match calibration.groups() {
        None => counted(held_out.len(), "held-out score"),
        Some(_) => {
            let groups = counted(calibration.independent(), "group");
            format!("{} of {groups}", counted(held_out.len(), "held-out score"))
        }
    };
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
        DecisionRule::RobustTail(rate) => {
            format!(
                "{above}: expects about {} false alarms by a robust tail of the scores ({n})",
                rate_in_percent(rate)
            )
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

/// The bootstrap interval of the threshold in words, if known.
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
        assert!(decision(&by_tail).starts_with("undecided: expects 1 % false alarms"), "{}", decision(&by_tail));
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
