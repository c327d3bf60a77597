//! The table format of figures of classes.

use std::io::{self, Write};

use nomaly::classes::UNKNOWN;
use nomaly::wire::Ends;
use nomaly::wire::RecognitionEvaluation;

use crate::output::style::{FAINT, HEADING};
use crate::output::{Align, Table, counted, percent, seconds, significant};

/// The most columns of the confusion matrix.
const MOST_COLUMNS: usize = 20;

/// Prints the shares, the confusion matrix, and the timing.
pub(crate) fn print(out: &mut impl Write, evaluation: &RecognitionEvaluation) -> io::Result<()> {
    let noun = if evaluation.backbone.is_some() { "image" } else { "row" };
    let on = evaluation.backbone.as_ref().map_or(String::new(), |name| format!(" on {name}"));
    let figures = &evaluation.figures;
    let learned: usize = evaluation.classes.iter().map(|class| class.items).sum();
    writeln!(out, "{HEADING}{}{HEADING:#}: {}{on}", evaluation.dataset, evaluation.method)?;
    writeln!(
        out,
        "{FAINT}{} of {} known classes, {} test {noun}s of them and {} of others, seed {}{FAINT:#}\n",
        counted(learned, &format!("training {noun}")),
        evaluation.classes.len(),
        figures.n_test.known,
        figures.n_test.unknown,
        evaluation.seed
    )?;
    let mut table = Table::new(&[("figure", Align::Left), ("value", Align::Right), ("95 % interval", Align::Right)]);
    let mut row = |name: String, value: Option<f64>, ends: Option<Ends>| {
        let dash = || "–".to_owned();
        let ends = ends.map_or_else(dash, |[low, high]| format!("{:.1}–{:.1} %", low * 100.0, high * 100.0));
        table.row([name, value.map_or_else(dash, percent), ends]);
    };
    let accuracy = Some(figures.closed_set_accuracy);
    row(
        format!("closed-set accuracy: known {noun}s whose likeliest class is theirs"),
        accuracy,
        figures.closed_set_accuracy_ci,
    );
    row(format!("false unknown: known {noun}s called {UNKNOWN}"), figures.false_unknown, figures.false_unknown_ci);
    row(
        format!("accuracy of accepted: known {noun}s given a class, theirs"),
        figures.accuracy_of_accepted,
        figures.accuracy_of_accepted_ci,
    );
    row(format!("unknown found: other {noun}s called {UNKNOWN}"), figures.unknown_found, figures.unknown_found_ci);
    row("AUROC of the score, others against known".to_owned(), figures.auroc, figures.auroc_ci);
    table.print(out)?;
    writeln!(out, "\n{HEADING}decision{HEADING:#}   {}", evaluation.rule)?;
    if figures.undecided > 0 {
        let undecided = counted(figures.undecided, noun);
        writeln!(out, "           {undecided} undecided: the class that they are closest to has no threshold")?;
    }
    writeln!(out)?;
    confusion(out, evaluation)?;
    let timing = &evaluation.timing;
    let fit = timing.fit_s.map_or(String::new(), |fit_s| format!("fit {}, ", seconds(fit_s)));
    let memory = evaluation.peak_rss_mib.map_or(String::new(), |mib| format!(", peak memory {mib:.0} MiB"));
    writeln!(out, "\n{HEADING}timing{HEADING:#}     {fit}{} {noun}s/s{memory}", significant(timing.images_per_s, 3))
}

/// The confusion matrix; only the counts of right and wrong decisions if there are too many classes.
fn confusion(out: &mut impl Write, evaluation: &RecognitionEvaluation) -> io::Result<()> {
    let confusion = &evaluation.figures.confusion;
    let decisions = &confusion.decisions;
    let wide = decisions.len() <= MOST_COLUMNS;
    // Decisions other than classes: `unknown`, and `undecided` if there are such items.
    let no_class = &decisions[evaluation.classes.len()..];
    let mut columns = vec![("labelled", Align::Left)];
    if wide {
        columns.extend(decisions.iter().map(|name| (name.as_str(), Align::Right)));
    } else {
        columns.extend(["its class", "another"].map(|name| (name, Align::Right)));
        columns.extend(no_class.iter().map(|name| (name.as_str(), Align::Right)));
    }
    let mut table = Table::new(&columns);
    for row in &confusion.rows {
        let name = if row.known { row.kind.clone() } else { format!("{} (not known)", row.kind) };
        let counts = if wide {
            row.counts.clone()
        } else {
            let own = decisions.iter().position(|name| row.known && *name == row.kind).map_or(0, |own| row.counts[own]);
            let (given, refused) = row.counts.split_at(evaluation.classes.len());
            [&[own, given.iter().sum::<usize>() - own], refused].concat()
        };
        table.cells([name].into_iter().chain(counts.iter().map(usize::to_string)).collect());
    }
    table.print(out)
}
