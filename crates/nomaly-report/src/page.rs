//! The page and its sections.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use nomaly_metrics::{CurvePoints, auroc, roc_curve};

use crate::ReportError;
use crate::cards;
use crate::model::{KindRow, Report, Skipped, Threshold};
use crate::number;
use crate::overlay::{INFERNO, ValueRange};
use crate::plots::{self, Class, OperatingPoint};
use crate::tally::{Entry, Mistake, Tally};

/// Images shown at most. With more, mistakes and anomalies come first, and the page says what was left out.
pub const MAX_IMAGES: usize = 240;

/// False alarms, and misses, shown at most in the section on mistakes.
pub const MAX_MISTAKES: usize = 6;

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// Nothing is ever fetched, whatever a path or a kind in the report may contain.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

/// Renders a report as one HTML file.
///
/// Sections without contents are left out. The same report gives the same bytes.
///
/// # Errors
/// An item's score, or the threshold, is NaN.
pub fn render(report: &Report) -> Result<String, ReportError> {
    let tally = Tally::new(report)?;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="generator" content=(concat!("nomaly ", env!("CARGO_PKG_VERSION")));
                title { (report.title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#images" { "Skip to the images" }
                header.page {
                    h1 { (report.title) }
                    @if !report.subtitle.is_empty() { p.subtitle { (report.subtitle) } }
                    @for note in &report.notes { p.note role="note" { (note) } }
                }
                main {
                    (summary(&report.summary))
                    (figures(report))
                    (plots_section(report, &tally))
                    (kinds(&report.by_kind))
                    (mistakes(&tally))
                    (images(report, &tally))
                    (skipped(&report.skipped))
                }
                footer.page {
                    p { "Made by nomaly " (env!("CARGO_PKG_VERSION")) ". Higher scores are more anomalous." }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    Ok(page.into_string())
}

fn summary(facts: &[(String, String)]) -> Markup {
    html! {
        @if !facts.is_empty() {
            section.summary aria-label="Summary" {
                dl { @for (name, value) in facts { div { dt { (name) } dd { (value) } } } }
            }
        }
    }
}

fn figures(report: &Report) -> Markup {
    html! {
        @if !report.figures.is_empty() {
            section aria-labelledby="figures" {
                h2 #figures { "Figures" }
                ul.figures {
                    @for figure in &report.figures {
                        li {
                            span.name { (figure.name) }
                            span.value { (figure.value) }
                            span.meaning { (figure.meaning) }
                        }
                    }
                }
            }
        }
    }
}

fn plots_section(report: &Report, tally: &Tally<'_>) -> Markup {
    let (scores, labels) = tally.labelled();
    let counts = &tally.confusion;
    let operating = match (counts.fpr(), counts.tpr()) {
        (Some(fpr), Some(tpr)) => Some(OperatingPoint { fpr, tpr }),
        _ => None,
    };
    // Labels of one class have no ROC curve; nothing else can be wrong with scores that the tally has checked.
    let roc = roc_curve(&scores, &labels, CurvePoints::Corners).ok().zip(auroc(&scores, &labels).ok());

    let of = |label: Option<bool>| {
        tally.entries.iter().filter(move |entry| entry.item.label == label).map(|entry| entry.item.score).collect()
    };
    let classes = [
        Class { style: "normal", scores: of(Some(false)) },
        Class { style: "anomalous", scores: of(Some(true)) },
        Class { style: "unlabelled", scores: of(None) },
    ];
    let classes: Vec<Class> = classes.into_iter().filter(|class| !class.scores.is_empty()).collect();
    let histogram = plots::scores(&classes, report.threshold.as_ref().map(|threshold| threshold.value));
    html! {
        @if histogram.is_some() || report.threshold.is_some() {
            section aria-labelledby="scores" {
                h2 #scores { "Scores" }
                @if let Some(threshold) = &report.threshold { (threshold_text(threshold, tally)) }
                div.plots {
                    @if let Some((plot, infinite)) = &histogram {
                        figure {
                            figcaption {
                                "Distribution of scores"
                                ul.legend {
                                    @for class in &classes {
                                        li class=(class.style) { (class.style) " (" (number::grouped(class.scores.len())) ")" }
                                    }
                                }
                            }
                            (plot)
                            @if *infinite > 0 { p.aside { (number::counted(*infinite, "infinite score")) " not drawn." } }
                        }
                    }
                    @if let Some((curve, area)) = &roc {
                        figure {
                            figcaption { "ROC curve" }
                            (plots::roc(curve, *area, operating))
                        }
                    }
                }
            }
        }
    }
}

fn threshold_text(threshold: &Threshold, tally: &Tally<'_>) -> Markup {
    let counts = &tally.confusion;
    let (normal, anomalous) =
        (counts.false_positives + counts.true_negatives, counts.true_positives + counts.false_negatives);
    let flagged = tally.entries.iter().filter(|entry| entry.decision == Some(true)).count();
    html! {
        p.decision {
            "Images that score above " b { (number::score(threshold.value)) } " are called anomalous"
            @if !threshold.rule.is_empty() { " (" (threshold.rule) ")" }
            "."
            @if let Some(rate) = threshold.max_fpr {
                " The rule allows at most " (number::percent(rate)) " false alarms among images like those that the model was fitted on."
            }
            @if normal + anomalous == 0 {
                " Here " b { (number::grouped(flagged)) } " of " (number::counted(tally.entries.len(), "image")) " were."
            }
            @if normal > 0 {
                " Here " b { (number::grouped(counts.false_positives as usize)) } " of "
                (number::counted(normal as usize, "normal image")) " raised a false alarm"
                @if let Some(rate) = counts.fpr() { " (" (number::percent(rate)) ")" }
                @if anomalous == 0 { "." }
            }
            @if anomalous > 0 {
                @if normal > 0 { ", and " } @else { " Here " }
                b { (number::grouped(counts.true_positives as usize)) } " of "
                (number::counted(anomalous as usize, "anomalous image")) " were found"
                @if let Some(rate) = counts.tpr() { " (" (number::percent(rate)) ")" }
                "."
            }
        }
    }
}

fn kinds(rows: &[KindRow]) -> Markup {
    html! {
        @if !rows.is_empty() {
            section aria-labelledby="kinds" {
                h2 #kinds { "By kind" }
                div.scroll tabindex="0" role="region" aria-labelledby="kinds" {
                    table {
                        thead {
                            tr {
                                th scope="col" { "Kind" }
                                th.number scope="col" { "Images" }
                                th.number scope="col" { "AUROC" }
                                th.number scope="col" { "Flagged" }
                                th.share scope="col" { span.visually-hidden { "Share flagged" } }
                            }
                        }
                        tbody {
                            @for row in rows {
                                @let share = row.flagged as f64 / row.n.max(1) as f64;
                                tr {
                                    th scope="row" { (row.kind) }
                                    td.number { (number::grouped(row.n)) }
                                    td.number {
                                        @match row.auroc { Some(area) => (format!("{area:.3}")), None => "–" }
                                    }
                                    td.number { (number::grouped(row.flagged)) }
                                    td.share {
                                        span.bar aria-hidden="true" {
                                            span style=(format!("width:{:.1}%", 100.0 * share.clamp(0.0, 1.0))) {}
                                        }
                                        span { (number::percent(share)) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn mistakes(tally: &Tally<'_>) -> Markup {
    let worst = tally.worst();
    html! {
        @if worst.iter().any(|(_, _, count)| *count > 0) {
            section aria-labelledby="mistakes" {
                h2 #mistakes { "Worst mistakes" }
                @for (kind, entries, count) in worst.iter().filter(|(_, _, count)| *count > 0) {
                    h3 {
                        @match kind {
                            Mistake::FalseAlarm => "False alarms with the highest scores",
                            Mistake::Miss => "Misses with the lowest scores",
                        }
                        " " span.count { (number::grouped(entries.len())) " of " (number::grouped(*count)) }
                    }
                    ul.mistakes { @for entry in entries { (cards::wide(entry)) } }
                }
            }
        }
    }
}

fn images(report: &Report, tally: &Tally<'_>) -> Markup {
    let (shown, left_out) = tally.shown();
    html! {
        @if !shown.is_empty() {
            section aria-labelledby="images" {
                h2 #images tabindex="-1" { "Images" }
                @if let Some(text) = left_out { p { (text) } }
                div.toolbar {
                    (views(&shown))
                    (filters(&shown))
                }
                @if shown.iter().any(|entry| entry.item.overlay.is_some()) {
                    @if let Some(range) = report.map_range { (scale(range)) }
                }
                ul #grid .grid { @for entry in &shown { (cards::compact(entry)) } }
            }
        }
    }
}

/// The switch between image, heat map and mask, which works by style alone.
fn views(shown: &[Entry<'_>]) -> Markup {
    let heat = shown.iter().any(|entry| entry.item.overlay.is_some());
    let truth = shown.iter().any(|entry| entry.item.mask.is_some());
    let view = |id: &str, text: &str, checked: bool| {
        html! {
            input.visually-hidden type="radio" name="view" id=(id) checked[checked];
            label for=(id) { (text) }
        }
    };
    html! {
        @if heat || truth {
            fieldset.views {
                legend.visually-hidden { "What to show of each image" }
                (view("view-photo", "Image", !heat))
                @if heat { (view("view-heat", "Heat map", true)) }
                @if truth { (view("view-truth", "Ground truth", false)) }
            }
        }
    }
}

/// Filters and sorting, which the script reveals.
fn filters(shown: &[Entry<'_>]) -> Markup {
    let decided = shown.iter().any(|entry| entry.decision.is_some());
    let mistakes = shown.iter().any(|entry| entry.mistake.is_some());
    let mut kinds: Vec<&str> = shown.iter().filter_map(|entry| entry.item.kind.as_deref()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    html! {
        div.filters hidden {
            @if decided {
                div.buttons role="group" aria-label="Decision" {
                    button type="button" data-filter="" aria-pressed="true" { "All" }
                    button type="button" data-filter="anomalous" aria-pressed="false" { "Anomalous" }
                    button type="button" data-filter="normal" aria-pressed="false" { "Normal" }
                    @if mistakes { button type="button" data-filter="mistake" aria-pressed="false" { "Mistakes" } }
                }
            }
            @if kinds.len() > 1 {
                label {
                    "Kind "
                    select #kind {
                        option value="" selected { "all" }
                        @for kind in kinds { option value=(format!("={kind}")) { (kind) } }
                    }
                }
            }
            label {
                "Sort "
                select #sort {
                    option value="falling" selected { "highest score first" }
                    option value="rising" { "lowest score first" }
                    option value="id" { "by name" }
                }
            }
            output #shown aria-live="polite" {}
        }
    }
}

/// The colour scale of the heat maps.
fn scale(range: ValueRange) -> Markup {
    let stops: Vec<String> = INFERNO.iter().map(|[r, g, b]| format!("rgb({r} {g} {b})")).collect();
    html! {
        p.scale {
            span { (number::score(range.low().into())) }
            span.ramp style=(format!("background:linear-gradient(to right,{})", stops.join(",")))
                role="img" aria-label="Colour scale of the heat maps, from low to high" {}
            span { (number::score(range.high().into())) }
        }
    }
}

fn skipped(files: &[Skipped]) -> Markup {
    html! {
        @if !files.is_empty() {
            section aria-labelledby="skipped" {
                h2 #skipped { "Skipped" }
                p { (number::counted(files.len(), "file")) " could not be scored." }
                div.scroll tabindex="0" role="region" aria-labelledby="skipped" {
                    table {
                        thead { tr { th scope="col" { "File" } th scope="col" { "Reason" } } }
                        tbody {
                            @for file in files { tr { th.path scope="row" { (file.path) } td { (file.reason) } } }
                        }
                    }
                }
            }
        }
    }
}
