//! The page and its sections.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use nomaly_metrics::{CurvePoints, auroc, confusion_curve, roc_curve};

use crate::ReportError;
use crate::cards;
use crate::model::{KindRow, MapCurves, PixelCurve, Report, SkippedFile, Threshold};
use crate::number;
use crate::plots::{self, Class, OperatingPoint};
use crate::tally::{Entry, Mistake, Tally};
use crate::toolbar;

/// The resolution of curves: a point whenever a rate has moved by one part in this many.
const CURVE_STEPS: usize = 256;

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// Nothing is ever fetched, regardless of paths or kinds in the report.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

/// Renders a report as one HTML file.
///
/// Sections without contents are omitted. The same report gives the same bytes.
///
/// # Errors
/// An item's score or the threshold is NaN, or the rates of a curve differ in number, do not ascend or are outside [0,
/// 1].
pub fn render(report: &Report) -> Result<String, ReportError> {
    let tally = Tally::new(report)?;
    if let Some(curves) = &report.pixel {
        check(curves)?;
    }
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
                    @if let Some(curves) = &report.pixel { (pixels(curves)) }
                    (kinds(&report.by_kind))
                    (mistakes(&tally, report.explained_at.is_some()))
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
    // Labels of one class have no ROC curve; the tally has ruled out all other errors.
    let roc = roc_curve(&scores, &labels, CurvePoints::Corners).ok().zip(auroc(&scores, &labels).ok());
    let threshold = report.threshold.as_ref().map(|threshold| threshold.value);
    let over_threshold = confusion_curve(&scores, &labels, CurvePoints::Thinned(CURVE_STEPS)).ok();
    let over_threshold = over_threshold.and_then(|curve| plots::over_threshold(&curve, threshold));

    let of = |label: Option<bool>| {
        tally.entries.iter().filter(move |entry| entry.item.label == label).map(|entry| entry.item.score).collect()
    };
    let classes = [
        Class { style: "normal", scores: of(Some(false)) },
        Class { style: "anomalous", scores: of(Some(true)) },
        Class { style: "unlabelled", scores: of(None) },
    ];
    let classes: Vec<Class> = classes.into_iter().filter(|class| !class.scores.is_empty()).collect();
    let histogram = plots::scores(&classes, threshold);
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
                            (plots::roc("ROC curve", &curve.fpr, &curve.tpr, *area, operating))
                        }
                    }
                    @if let Some(plot) = &over_threshold {
                        figure {
                            figcaption {
                                "Figures over the threshold"
                                ul.legend {
                                    @for (name, _) in plots::OVER_THRESHOLD { li class=(name.to_lowercase()) { (name) } }
                                }
                            }
                            (plot)
                            p.aside { "Precision, F1 and accuracy depend on how common anomalies are among these images." }
                        }
                    }
                }
            }
        }
    }
}

fn check(curves: &MapCurves) -> Result<(), ReportError> {
    // Rates are sums and quotients, so their last bits may exceed the bounds.
    let share = |value: f64| (-1e-9..=1.0 + 1e-9).contains(&value);
    let named: [(_, &PixelCurve); 2] = [("pixel ROC curve", &curves.roc), ("per-region overlap curve", &curves.pro)];
    for (name, curve) in named {
        let PixelCurve { fpr, rate, area } = curve;
        if fpr.len() != rate.len() {
            return Err(ReportError::CurveLength { curve: name, fpr: fpr.len(), rate: rate.len() });
        }
        let rates =
            fpr.iter().map(|&value| ("false-positive rate", value)).chain(rate.iter().map(|&value| ("rate", value)));
        if let Some((what, value)) = rates.chain([("area", *area)]).find(|&(_, value)| !share(value)) {
            return Err(ReportError::CurveValue { curve: name, what, value });
        }
        if let Some(pair) = fpr.windows(2).find(|pair| pair[0] > pair[1]) {
            return Err(ReportError::CurveOrder { curve: name, before: pair[0], after: pair[1] });
        }
    }
    let limit = curves.max_fpr;
    let usable = limit > 0.0 && limit <= 1.0;
    if !usable && !curves.pro.fpr.is_empty() {
        return Err(ReportError::CurveValue { curve: "per-region overlap curve", what: "limit", value: limit });
    }
    Ok(())
}

/// The section on the anomaly maps' pixel metrics.
fn pixels(curves: &MapCurves) -> Markup {
    let MapCurves { roc, pro, max_fpr } = curves;
    html! {
        @if !roc.fpr.is_empty() || !pro.fpr.is_empty() {
            section aria-labelledby="pixels" {
                h2 #pixels { "Anomaly maps" }
                div.plots {
                    @if !roc.fpr.is_empty() {
                        figure {
                            figcaption { "ROC curve of the pixels" }
                            (plots::roc("ROC curve of the pixels", &roc.fpr, &roc.rate, roc.area, None))
                            p.aside { "All pixels count alike, so large defects weigh more than small ones." }
                        }
                    }
                    @if !pro.fpr.is_empty() {
                        figure {
                            figcaption { "Per-region overlap (PRO)" }
                            (plots::pro(pro, *max_fpr))
                            p.aside {
                                "The covered share of a defect, averaged over all defects whatever their size. AUPRO is the shaded area divided by "
                                (number::percent(*max_fpr)) "."
                            }
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
    let pixel_auroc = rows.iter().any(|row| row.pixel_auroc.is_some());
    let aupro = rows.iter().any(|row| row.aupro.is_some());
    let figure = |value: Option<f64>| match value {
        Some(value) => format!("{value:.3}"),
        None => "–".into(),
    };
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
                                @if pixel_auroc { th.number scope="col" { "Pixel AUROC" } }
                                @if aupro { th.number scope="col" { "AUPRO" } }
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
                                    td.number { (figure(row.auroc)) }
                                    @if pixel_auroc { td.number { (figure(row.pixel_auroc)) } }
                                    @if aupro { td.number { (figure(row.aupro)) } }
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

fn mistakes(tally: &Tally<'_>, explained: bool) -> Markup {
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
                    ul.mistakes { @for entry in entries { (cards::wide(entry, explained)) } }
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
                    (toolbar::views(&shown, report.explained_at.is_some()))
                    (toolbar::filters(&shown))
                }
                @if shown.iter().any(|entry| entry.item.overlay.is_some()) {
                    @if let Some(range) = report.map_range { (toolbar::scale(range)) }
                    @if let Some(layer) = &report.explained_at { (explanations(&shown, layer)) }
                }
                ul #grid .grid { @for entry in &shown { (cards::compact(entry, report.explained_at.is_some())) } }
            }
        }
    }
}

/// The explanation of overlays that are Grad-CAM maps.
fn explanations(shown: &[Entry<'_>], layer: &str) -> Markup {
    let count = shown.iter().filter(|entry| entry.item.overlay.is_some()).count();
    html! {
        p {
            "The method scores whole images. The colours show what the network looked at in the "
            (number::counted(count, "image")) " with the highest scores (Grad-CAM at the layer " code { (layer) }
            "), each on a scale of its own. That is a hint, not the outline of a defect."
        }
    }
}

fn skipped(files: &[SkippedFile]) -> Markup {
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
