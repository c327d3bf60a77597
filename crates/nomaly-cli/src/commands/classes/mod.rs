//! Models of classes: checks before a fit, and their description.

mod eval;
mod figures;

use std::collections::BTreeMap;

use nomaly::Dataset;
use nomaly::calibration::scores_for;
use nomaly::classes::Classes;
use nomaly::classes::check_name;
use nomaly::wire::ClassThreshold;
use nomaly::{Calibration, DecisionRule};

pub(crate) use self::eval::run as eval;
pub(super) use self::figures::print as print_figures;
use super::rate_in_percent;
use crate::console::Console;
use crate::failure::Failure;
use crate::output::{Align, Table, counted, significant};
use nomaly::AUTO;
use nomaly::Recipe;

/// The method for classes of images.
pub(super) const METHOD: &str = "open-set";

/// Checks the classes of a data set before the images are read, and adapts the recipe.
pub(super) fn prepare(recipe: &mut Recipe, dataset: &Dataset) -> anyhow::Result<()> {
    if recipe.time_budget.is_some() {
        return Err(Failure::new("--time-budget is for --method auto without --labels", "leave one of them out").into());
    }
    if ![AUTO, METHOD].contains(&recipe.method.as_str()) {
        let message = format!("--labels is for the method {METHOD}, and the method is {}", recipe.method);
        return Err(Failure::new(message, "leave out --method, or --labels").into());
    }
    METHOD.clone_into(&mut recipe.method);
    check_counts(dataset.train.iter().map(|sample| sample.kind.as_str()), "image", recipe.options.rule)
}

/// Rejects too few classes, and classes with too few items for the requested rate.
pub(super) fn check_counts<'a>(
    labels: impl Iterator<Item = &'a str>,
    noun: &str,
    rule: DecisionRule,
) -> anyhow::Result<()> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    labels.for_each(|label| *counts.entry(label).or_default() += 1);
    for name in counts.keys() {
        check_name(name)?;
    }
    if counts.len() < 2 {
        let only = counts.keys().next().map_or_else(String::new, |name| format!(": {name}"));
        let message = format!("there is {}{only}, and --labels takes two or more", counted(counts.len(), "class"));
        return Err(Failure::new(message, "without --labels, `nomaly fit` learns what good items look like").into());
    }
    let needed = if let DecisionRule::MaxFpr(rate) = rule { scores_for(rate) } else { 0 };
    match counts.iter().find(|(_, count)| **count < needed) {
        Some((name, count)) => Err(too_few(name, *count, &counted(*count, noun), noun, rule).into()),
        None => Ok(()),
    }
}

fn too_few(class: &str, count: usize, has: &str, noun: &str, rule: DecisionRule) -> Failure {
    let rate = rule.rate().unwrap_or_default();
    Failure::new(
        format!(
            "class `{class}` has {has}, and calling at most {} of its {noun}s unknown takes at least {}",
            rate_in_percent(rate),
            scores_for(rate),
        ),
        format!(
            "learn from more {noun}s of the class, leave it out, or ask for --max-fpr {} or --rule extreme-value",
            super::rate_allowed_by(count)
        ),
    )
}

/// Rejects a fit that could decide nothing because a class has too few held-out items.
pub(super) fn check_attainable(classes: &Classes, noun: &str) -> anyhow::Result<()> {
    let Some((class, reason)) = classes.unattainable() else { return Ok(()) };
    let held_out = held_out_of(classes, &class.name);
    match classes.calibrations().first().map(Calibration::rule) {
        Some(rule @ DecisionRule::MaxFpr(_)) => {
            let of = format!("{} taken for it", counted(held_out, &format!("held-out {noun}")));
            Err(too_few(&class.name, held_out, &of, noun, rule).into())
        }
        _ => {
            let message = format!("class `{}` has no threshold: {reason}", class.name);
            Err(Failure::new(message, "learn from more items of the class, or use --rule conformal").into())
        }
    }
}

/// Warns at any verbosity if a rule given for scoring needs more held-out items than a class has.
pub(super) fn warn_unattainable(classes: &Classes, console: &Console) {
    if let Some((class, reason)) = classes.unattainable() {
        console.alert(format_args!("nothing that is taken for class `{}` can be decided on: {reason}", class.name));
        let allowed = super::rate_allowed_by(held_out_of(classes, &class.name));
        console.hint(format_args!("ask for --rule extreme-value, --max-fpr {allowed} or a --threshold"));
    }
}

fn held_out_of(classes: &Classes, name: &str) -> usize {
    let mut pairs = classes.known().iter().zip(classes.calibrations());
    pairs.find(|(class, _)| class.name == name).map_or(0, |(_, calibration)| calibration.independent())
}

/// The decision in words.
pub(super) fn decision(classes: &Classes) -> String {
    let counts = classes.calibrations().iter().map(|calibration| calibration.held_out().len());
    let (fewest, most) = (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0));
    let count = if fewest == most { most.to_string() } else { format!("{fewest} to {most}") };
    format!("{}; unknown: {} ({count} held-out scores a class)", names(classes), classes.describe())
}

/// The names of up to eight classes.
fn names(classes: &Classes) -> String {
    const SHOWN: usize = 8;
    let known = classes.known();
    let shown: Vec<&str> = known.iter().take(SHOWN).map(|class| class.name.as_str()).collect();
    let more = if known.len() > SHOWN { format!(" and {} more", known.len() - SHOWN) } else { String::new() };
    format!("classes {}{more}", shown.join(", "))
}

/// Every class with its numbers.
pub(super) fn rows(classes: &Classes) -> Vec<ClassThreshold> {
    let row = |(class, calibration): (&nomaly::classes::KnownClass, &Calibration)| ClassThreshold {
        name: class.name.clone(),
        items: class.items,
        held_out: calibration.held_out().len(),
        threshold: calibration.threshold(),
    };
    classes.known().iter().zip(classes.calibrations()).map(row).collect()
}

/// The same as a table.
pub(super) fn table(rows: &[ClassThreshold], noun: &str) -> Table {
    let right = Align::Right;
    let learned = format!("{noun}s");
    let mut table =
        Table::new(&[("class", Align::Left), (learned.as_str(), right), ("held-out", right), ("unknown above", right)]);
    for ClassThreshold { name, items, held_out, threshold } in rows {
        let threshold = threshold.map_or("–".to_owned(), |threshold| significant(threshold, 5));
        table.row([name.clone(), items.to_string(), held_out.to_string(), threshold]);
    }
    table
}
