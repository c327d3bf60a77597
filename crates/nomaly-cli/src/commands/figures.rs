//! How the figures of an evaluation look for people.

use std::io::{self, Write};

use nomaly::detectors::evaluation::{Evaluation, Ranking};

use crate::output::style::{FAINT, HEADING};
use crate::output::{Align, Table, counted, percent, seconds, significant};

/// Prints headline figures, the figures by kind and by part, the decision and the timing.
pub(crate) fn print(out: &mut impl Write, figures: &Evaluation) -> io::Result<()> {
    let Evaluation { n_test, threshold, timing, .. } = figures;
    writeln!(out, "{HEADING}{}{HEADING:#}: {} on {}", figures.dataset, figures.method, figures.backbone)?;
    writeln!(
        out,
        "{FAINT}{}, {} normal and {} anomalous test images, seed {}{FAINT:#}\n",
        counted(figures.n_train, "training image"),
        n_test.normal,
        n_test.anomalous,
        figures.seed
    )?;

    headline(out, figures)?;
    rankings(out, "kind of anomaly", figures.by_kind.iter().map(|(name, ranking)| (name.as_str(), ranking)))?;
    rankings(out, "part of the score", figures.by_part.iter().map(|(name, ranking)| (name.as_str(), ranking)))?;

    let above = threshold.value.map_or("none".to_owned(), |value| significant(value, 5));
    writeln!(out, "\n{HEADING}threshold{HEADING:#}  {above}  ({})", threshold.rule)?;
    writeln!(
        out,
        "           flags {} of the normal and {} of the anomalous test images",
        percent(threshold.fpr),
        percent(threshold.tpr)
    )?;
    let fit = timing.fit_s.map_or(String::new(), |fit_s| format!("fit {}, ", seconds(fit_s)));
    let memory = figures.peak_rss_mib.map_or(String::new(), |mib| format!(", peak memory {mib:.0} MiB"));
    writeln!(
        out,
        "{HEADING}timing{HEADING:#}     {fit}{} ms an image (median), {} images/s{memory}",
        significant(timing.predict_ms_per_image_median, 3),
        significant(timing.images_per_s, 3)
    )
}

/// A line of figures over images, and one of figures over pixels where there are any.
fn headline(out: &mut impl Write, figures: &Evaluation) -> io::Result<()> {
    let right = Align::Right;
    let columns =
        [("level", Align::Left), ("AUROC", right), ("AP", right), ("F1-max", right), ("EER", right), ("AUPRO", right)];
    let image = &figures.image;
    let of_image =
        ["image".to_owned(), percent(image.auroc), percent(image.ap), percent(image.f1_max), percent(image.eer)];
    let Some(pixel) = &figures.pixel else {
        let mut table = Table::new(&columns[..of_image.len()]);
        table.row(of_image);
        return table.print(out);
    };
    let none = || "–".to_owned();
    let mut table = Table::new(&columns);
    let [name, auroc, ap, f1_max, eer] = of_image;
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
