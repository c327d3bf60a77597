//! The table format of the figures of an evaluation.

use std::io::{self, Write};

use nomaly::wire::{
    Ends, Evaluation, HybridFigures, ImageFigures, PValueShare, Ranking, SupervisedReference, ThresholdFigures,
};

use crate::output::style::{FAINT, HEADING};
use crate::output::{Align, Table, counted, percent, seconds, significant};

/// Prints headline figures, the figures by kind and by part, the decision and the timing.
pub(crate) fn print(out: &mut impl Write, figures: &Evaluation) -> io::Result<()> {
    let Evaluation { n_test, threshold, timing, .. } = figures;
    // Without a backbone, rows of numbers were scored.
    let (article, noun) = if figures.backbone.is_some() { ("an", "image") } else { ("a", "row") };
    let on = figures.backbone.as_ref().map_or(String::new(), |name| format!(" on {name}"));
    writeln!(out, "{HEADING}{}{HEADING:#}: {}{on}", figures.dataset, figures.method)?;
    writeln!(
        out,
        "{FAINT}{}, {} normal and {} anomalous test {noun}s, seed {}{FAINT:#}\n",
        counted(figures.n_train, &format!("training {noun}")),
        n_test.normal,
        n_test.anomalous,
        figures.seed
    )?;

    match &figures.image {
        Some(image) => headline(out, figures, image)?,
        None => writeln!(out, "no anomalous test {noun}s: the figures are those that need none")?,
    }
    rankings(out, "kind of anomaly", figures.by_kind.iter().map(|(name, ranking)| (name.as_str(), ranking)))?;
    rankings(out, "part of the score", figures.by_part.iter().map(|(name, ranking)| (name.as_str(), ranking)))?;

    sensitivity(out, &figures.sensitivity.0)?;

    decisions(out, threshold, noun)?;
    if figures.image.is_none() {
        small_p_values(out, &figures.p_values, noun)?;
    }
    if let Some(reference) = &figures.supervised_reference {
        supervised(out, reference, noun)?;
    }
    if let Some(figures) = &figures.hybrid {
        hybrid(out, figures)?;
    }
    let fit = timing.fit_s.map_or(String::new(), |fit_s| format!("fit {}, ", seconds(fit_s)));
    let memory = figures.peak_rss_mib.map_or(String::new(), |mib| format!(", peak memory {mib:.0} MiB"));
    writeln!(
        out,
        "{HEADING}timing{HEADING:#}     {fit}{} ms {article} {noun} (median), {} {noun}s/s{memory}",
        significant(timing.predict_ms_per_image_median, 3),
        significant(timing.images_per_s, 3)
    )
}

/// Terms shown from each end of the list.
const TERMS_SHOWN: usize = 4;

/// The terms whose removal would hurt most, and those whose removal would help most.
fn sensitivity(out: &mut impl Write, changes: &[(String, f64)]) -> io::Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut sorted: Vec<&(String, f64)> = changes.iter().collect();
    sorted.sort_by(|a, b| a.1.total_cmp(&b.1));
    if sorted.len() > 2 * TERMS_SHOWN {
        sorted.drain(TERMS_SHOWN..sorted.len() - TERMS_SHOWN);
    }
    let heading = format!("left out, of {} terms", changes.len());
    let mut table = Table::new(&[(heading.as_str(), Align::Left), ("change of AUROC", Align::Right)]);
    for (name, change) in sorted {
        table.row([name.clone(), format!("{:+.2} points", 100.0 * change)]);
    }
    writeln!(out)?;
    table.print(out)
}

/// The figures of two combined detectors.
fn hybrid(out: &mut impl Write, figures: &HybridFigures) -> io::Result<()> {
    let at = format!("at a combined p-value of at most {}", figures.max_fpr);
    let Some(auroc) = figures.auroc else {
        let fpr = share(figures.fpr);
        return writeln!(out, "\n{HEADING}together{HEADING:#}   flags {fpr} of the normal images {at}\n");
    };
    let alone: Vec<String> = figures
        .of
        .iter()
        .zip(&figures.alone)
        .map(|(name, auroc)| format!("{name} alone {}", percent(*auroc)))
        .collect();
    writeln!(
        out,
        "\n{HEADING}together{HEADING:#}   AUROC {}, 95 % interval {}  ({})",
        percent(auroc),
        interval_text(figures.auroc_ci),
        alone.join(", "),
    )?;
    writeln!(
        out,
        "           flags {} of the normal and {} of the anomalous images {at}\n",
        share(figures.fpr),
        share(figures.tpr),
    )
}

/// The figure of the supervised reference, on separate labelled lines.
fn supervised(out: &mut impl Write, reference: &SupervisedReference, noun: &str) -> io::Result<()> {
    writeln!(
        out,
        "\n{HEADING}supervised reference{HEADING:#}  AUROC {}, 95 % interval {}",
        percent(reference.auroc),
        interval_text(reference.auroc_ci)
    )?;
    writeln!(
        out,
        "{FAINT}logistic regression on the labels of the test {noun}s, {}-fold; not an anomaly detector{FAINT:#}\n\
         {FAINT}features: {}, {} columns{FAINT:#}\n",
        reference.folds, reference.features, reference.dim
    )
}

/// The threshold and its decisions, with 95 % intervals below the figures.
fn decisions(out: &mut impl Write, threshold: &ThresholdFigures, noun: &str) -> io::Result<()> {
    let above = threshold.value.map_or("none".to_owned(), |value| significant(value, 5));
    let within = threshold.value_ci.map_or(String::new(), |[low, high]| {
        format!(", 95 % interval {} to {}", significant(low, 5), significant(high, 5))
    });
    writeln!(out, "\n{HEADING}threshold{HEADING:#}  {above}{within}  ({})", threshold.rule)?;
    match (threshold.fpr, threshold.tpr) {
        (Some(fpr), Some(tpr)) => writeln!(
            out,
            "           flags {} of the normal and {} of the anomalous test {noun}s",
            percent(fpr),
            percent(tpr)
        )?,
        (Some(fpr), None) => writeln!(out, "           flags {} of the normal test {noun}s", percent(fpr))?,
        (None, _) => writeln!(out, "           nothing is decided: the model has no threshold")?,
    }
    let right = Align::Right;
    let mut table = Table::new(&[
        ("at the threshold", Align::Left),
        ("TPR, recall", right),
        ("FPR", right),
        ("FNR", right),
        ("TNR", right),
        ("precision", right),
        ("accuracy", right),
        ("F1", right),
    ]);
    let t = threshold;
    let [tpr, fpr, fnr, tnr, precision, accuracy, f1] =
        [t.tpr, t.fpr, t.fnr, t.tnr, t.precision, t.accuracy, t.f1].map(share);
    table.row([noun.to_owned(), tpr, fpr, fnr, tnr, precision, accuracy, f1]);
    let complement = |ends: Option<Ends>| ends.map(|[low, high]| [1.0 - high, 1.0 - low]);
    let intervals =
        [t.tpr_ci, t.fpr_ci, complement(t.tpr_ci), complement(t.fpr_ci), t.precision_ci, t.accuracy_ci, t.f1_ci];
    let [tpr, fpr, fnr, tnr, precision, accuracy, f1] = intervals.map(interval_text);
    table.row([INTERVAL.to_owned(), tpr, fpr, fnr, tnr, precision, accuracy, f1]);
    table.print(out)
}

/// The name of rows with intervals.
const INTERVAL: &str = "  95 % interval";

/// The shares of normal items with small p-values, if there are no other figures.
fn small_p_values(out: &mut impl Write, shares: &[PValueShare], noun: &str) -> io::Result<()> {
    let right = Align::Right;
    let heading = format!("normal {noun}s with a p-value of");
    let mut table = Table::new(&[(heading.as_str(), Align::Left), ("share", right), ("95 % interval", right)]);
    for PValueShare { at_most, share, share_ci } in shares {
        table.row([format!("at most {at_most}"), percent(*share), interval_text(*share_ci)]);
    }
    writeln!(out)?;
    table.print(out)?;
    writeln!(out)
}

/// A share in percent, or a dash.
fn share(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), percent)
}

/// An interval of a share, in percent.
fn interval_text(ends: Option<Ends>) -> String {
    ends.map_or("–".to_owned(), |[low, high]| format!("{:.1}–{:.1} %", low * 100.0, high * 100.0))
}

/// A line of figures over images, and one of figures over pixels if available.
fn headline(out: &mut impl Write, figures: &Evaluation, image: &ImageFigures) -> io::Result<()> {
    let right = Align::Right;
    let columns =
        [("level", Align::Left), ("AUROC", right), ("AP", right), ("F1-max", right), ("EER", right), ("AUPRO", right)];
    let level = if figures.backbone.is_some() { "image" } else { "row" };
    let of_image =
        [level.to_owned(), percent(image.auroc), percent(image.ap), percent(image.f1_max), percent(image.eer)];
    let [auroc, ap, f1_max, eer] =
        [image.auroc_ci, Some(image.ap_ci), Some(image.f1_max_ci), Some(image.eer_ci)].map(interval_text);
    let intervals = [INTERVAL.to_owned(), auroc, ap, f1_max, eer];
    let Some(pixel) = &figures.pixel else {
        let mut table = Table::new(&columns[..of_image.len()]);
        table.row(of_image);
        table.row(intervals);
        return table.print(out);
    };
    let none = || "–".to_owned();
    let mut table = Table::new(&columns);
    let [name, auroc, ap, f1_max, eer] = of_image;
    table.row([name, auroc, ap, f1_max, eer, none()]);
    let [name, auroc, ap, f1_max, eer] = intervals;
    table.row([name, auroc, ap, f1_max, eer, none()]);
    table.row(["pixel".to_owned(), percent(pixel.auroc), none(), percent(pixel.f1_max), none(), percent(pixel.aupro)]);
    table.print(out)?;
    let regions = usize::try_from(pixel.regions).unwrap_or(usize::MAX);
    writeln!(
        out,
        "{FAINT}pixels of {} with {}{FAINT:#}",
        counted(pixel.images, "image"),
        counted(regions, "defective region")
    )
}

fn rankings<'a>(
    out: &mut impl Write,
    heading: &str,
    rankings: impl Iterator<Item = (&'a str, &'a Ranking)>,
) -> io::Result<()> {
    let mut table = Table::new(&[(heading, Align::Left), ("AUROC", Align::Right)]);
    let mut any = false;
    for (name, ranking) in rankings {
        table.row([name.to_owned(), percent(ranking.auroc)]);
        any = true;
    }
    if any {
        writeln!(out)?;
        table.print(out)?;
    }
    Ok(())
}
