//! `nomaly score` on a table: a score, a p-value and a decision for each row, in their order.

use std::io::{self, Write};

use anyhow::bail;
use nomaly::Skipped;
use nomaly::data::tables::read;
use nomaly::detectors::classes::Classes;
use nomaly::detectors::rows::{FittedRows, RowOutcome, RowPredictOptions};
use serde::Serialize;

use super::super::sequence::{ChartRecord, Watched, chart};
use super::super::{Status, and_undecided, classes, decision, tell_skipped, warn_unattainable};
use super::refusal;
use crate::args::{ScoreArgs, ScoreFormat};
use crate::console::Console;
use crate::failure::Failure;
use crate::output::style::{ANOMALOUS, FAILED, HEADING, NORMAL, UNDECIDED};
use crate::output::{counted, significant, stdout, write_csv};
use crate::progress::{Bars, Unit};

/// One row as programs see it; part of the command line's contract.
#[derive(Debug, Serialize)]
struct Record<'a> {
    row: usize,
    id: Option<&'a str>,
    score: Option<f64>,
    p_value: Option<f64>,
    /// The decision; `null` where there is none: without a score, and without a threshold.
    anomalous: Option<bool>,
    /// The class, `unknown` or `undecided`, for models of classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    error: Option<RecordError<'a>>,
    /// What the chart says, with `--sequence`.
    #[serde(flatten)]
    chart: Option<ChartRecord>,
}

#[derive(Debug, Serialize)]
struct RecordError<'a> {
    kind: &'a str,
    message: &'a str,
}

impl<'a> Record<'a> {
    fn new(outcome: &'a RowOutcome, ids: Option<&'a [String]>, known: Option<&'a Classes>) -> Self {
        let prediction = outcome.result.as_ref().ok();
        Self {
            row: outcome.row,
            id: ids.map(|ids| ids[outcome.row - 1].as_str()),
            score: prediction.map(|prediction| prediction.score),
            p_value: prediction.map(|prediction| prediction.p_value),
            anomalous: prediction.and_then(|prediction| prediction.anomalous),
            label: known.zip(prediction.and_then(|found| found.recognition)).map(|(known, found)| known.label(&found)),
            chart: None,
            error: outcome.result.as_ref().err().map(|Skipped { kind, message, .. }| RecordError { kind, message }),
        }
    }
}

pub(crate) fn run(args: &ScoreArgs, console: &Console) -> anyhow::Result<Status> {
    if args.report.is_some() {
        return Err(refusal("--report", "`--format csv` gives a table of the scores"));
    }
    if args.with.is_some() {
        return Err(refusal("--with", "one model scores rows"));
    }
    if let Some((file, _)) = args.maps.folders().next() {
        return Err(refusal(file.flag(), "rows have no pixels"));
    }
    let [path] = &args.images[..] else {
        return Err(
            Failure::new("one table at a time can be scored", "give one .csv, .tsv, .npy or .parquet file").into()
        );
    };
    let detector = FittedRows::load(&args.model)?;
    let table = read(path, &args.rows.options())?;
    let options = RowPredictOptions {
        rule: args.rule.rule(Some(detector.calibration().rule()))?,
        strict: args.reading.options(None).strict,
    };
    let calibration = detector.calibration_for(&options)?;
    let known = detector.classes_for(&options)?;
    let rule_in_words = match &known {
        Some(known) => {
            classes::warn_unattainable(known, console);
            classes::decision(known)
        }
        None => {
            warn_unattainable(&calibration, "row", console);
            decision(&calibration)
        }
    };
    console.detail(format_args!("{}; {rule_in_words}", detector.info().scorer));
    let chart = chart(&args.sequence, &calibration, "row", console)?;
    let mut sequence = chart.as_ref().map(|chart| Watched::new(chart, "row"));
    let outcomes = detector.predict(&table, &options, &Bars::new(console, Unit::Images)).map_err(|error| {
        Failure::if_cancelled(error, "interrupted, and nothing was printed", "the same command starts again")
    })?;
    let skipped: Vec<Skipped> = outcomes.iter().filter_map(|outcome| outcome.result.clone().err()).collect();
    tell_skipped(&skipped, "row", console);
    let record = |outcome| {
        let mut record = Record::new(outcome, table.ids.as_deref(), known.as_ref());
        let name = record.id.map_or_else(|| record.row.to_string(), str::to_owned);
        record.chart = sequence.as_mut().map(|sequence| sequence.see(record.row, &name, record.score));
        record
    };
    let records: Vec<Record<'_>> = outcomes.iter().map(record).collect();
    let layout = Layout { labels: known.is_some(), sequence: sequence.is_some() };
    print(&mut stdout(), args.format, layout, &records)?;
    let scored = outcomes.len() - skipped.len();
    if scored == 0 {
        bail!("none of the {} could be scored", counted(outcomes.len(), "row"));
    }
    let anomalous = records.iter().filter(|record| record.anomalous == Some(true)).count();
    let undecided = records.iter().filter(|record| record.score.is_some() && record.anomalous.is_none()).count();
    let failed = if skipped.is_empty() { String::new() } else { format!(", {} could not be used", skipped.len()) };
    let word = if known.is_some() { "unknown" } else { "anomalous" };
    let summary = format!("{anomalous} of {} {word}{}{failed}", counted(scored, "row"), and_undecided(undecided));
    console.note(summary);
    let found = match &sequence {
        Some(sequence) => {
            console.note(sequence.describe());
            sequence.alarmed()
        }
        None => anomalous > 0,
    };
    Ok(Status::of_scores(args.fail_on_anomaly && found, undecided))
}

/// Columns that are not always there.
#[derive(Clone, Copy)]
struct Layout {
    /// Whether the model tells classes apart.
    labels: bool,
    /// Whether the rows are a sequence, with a chart.
    sequence: bool,
}

/// How wide the column of labels is.
const LABEL: usize = 12;

fn print(out: &mut impl Write, format: ScoreFormat, layout: Layout, records: &[Record<'_>]) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(out);
    match format {
        ScoreFormat::Table => {
            let label = if layout.labels { format!("{:<LABEL$}  ", "label") } else { String::new() };
            let chart = if layout.sequence { format!("{:>9}  {:<5}  ", "statistic", "chart") } else { String::new() };
            let names = ("decision", "score", "p-value");
            writeln!(out, "{HEADING}{:<9}  {:>10}  {:>8}  {label}{chart}row{HEADING:#}", names.0, names.1, names.2)?;
            for record in records {
                table_line(&mut out, layout, record)?;
            }
        }
        ScoreFormat::Json => {
            serde_json::to_writer_pretty(&mut out, records)?;
            writeln!(out)?;
        }
        ScoreFormat::Jsonl => {
            for record in records {
                writeln!(out, "{}", serde_json::to_string(record)?)?;
            }
        }
        ScoreFormat::Csv => {
            let mut keys = vec!["row", "id", "score", "p_value", "anomalous", "error_kind", "error_message"];
            if layout.labels {
                keys.push("label");
            }
            if layout.sequence {
                keys.extend(["statistic", "alarm"]);
            }
            write_csv(&mut out, &keys)?;
            for record in records {
                let cells = cells(layout, record);
                write_csv(&mut out, &cells.iter().map(String::as_str).collect::<Vec<_>>())?;
            }
        }
    }
    Ok(out.flush()?)
}

/// A record of CSV.
fn cells(layout: Layout, record: &Record<'_>) -> Vec<String> {
    let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    let truth = |value: Option<bool>| value.map_or(String::new(), |value| value.to_string());
    let (kind, message) = record.error.as_ref().map_or(("", ""), |error| (error.kind, error.message));
    let mut cells = vec![
        record.row.to_string(),
        record.id.unwrap_or("").to_owned(),
        number(record.score),
        number(record.p_value),
        truth(record.anomalous),
        kind.to_owned(),
        message.to_owned(),
    ];
    if layout.labels {
        cells.push(record.label.unwrap_or("").to_owned());
    }
    if layout.sequence {
        cells.push(number(record.chart.and_then(|chart| chart.statistic)));
        cells.push(truth(record.chart.and_then(|chart| chart.alarm)));
    }
    cells
}

fn table_line(out: &mut impl Write, layout: Layout, record: &Record<'_>) -> io::Result<()> {
    let (style, decision) = match record.anomalous {
        Some(true) if layout.labels => (ANOMALOUS, "unknown"),
        Some(true) => (ANOMALOUS, "anomalous"),
        Some(false) => (NORMAL, "normal"),
        None if record.error.is_none() => (UNDECIDED, "undecided"),
        None => (FAILED, "error"),
    };
    let number = |value: Option<f64>, digits| value.map_or("–".to_owned(), |value| significant(value, digits));
    let id = record.id.map_or_else(|| record.row.to_string(), str::to_owned);
    let reason = record.error.as_ref().map_or(String::new(), |error| format!("  ({})", error.message));
    let (score, p_value) = (number(record.score, 5), number(record.p_value, 3));
    let label = if layout.labels { format!("{:<LABEL$}  ", record.label.unwrap_or("–")) } else { String::new() };
    let chart = record.chart.map_or(String::new(), |chart| {
        let (style, mark) = if chart.alarm == Some(true) { (ANOMALOUS, "alarm") } else { (NORMAL, "") };
        format!("{:>9}  {style}{mark:<5}{style:#}  ", number(chart.statistic, 4))
    });
    writeln!(out, "{style}{decision:<9}{style:#}  {score:>10}  {p_value:>8}  {label}{chart}{id}{reason}")
}
