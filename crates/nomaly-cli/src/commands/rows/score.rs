//! `nomaly score` on a table: a score, a p-value and a decision for each row, in their order.

use std::io::{self, Write};

use anyhow::bail;
use nomaly::Skipped;
use nomaly::classes::Classes;
use nomaly::rows::read;
use nomaly::rows::{FittedRows, RowOutcome, RowPredictOptions};
use nomaly::wire::{RecordError, RowRecord};

use super::super::sequence::{MonitoredSequence, chart};
use super::super::{Status, classes, decision, tell_skipped, warn_unattainable};
use super::refusal;
use crate::args::{ScoreArgs, ScoreFormat};
use crate::console::Console;
use crate::failure::Failure;
use crate::output::style::{ANOMALOUS, FAILED, HEADING, NORMAL, UNDECIDED};
use crate::output::{and_undecided, counted, significant, stdout, write_csv};
use crate::progress::{Bars, Unit};

/// The record of one row.
fn record(
    outcome: &RowOutcome,
    ids: Option<&[String]>,
    known: Option<&Classes>,
    sequence: Option<&mut MonitoredSequence<'_>>,
) -> RowRecord {
    let prediction = outcome.result.as_ref().ok();
    let error = |Skipped { kind, message, .. }: &Skipped| RecordError { kind: kind.clone(), message: message.clone() };
    let recognized = known.zip(prediction.and_then(|found| found.recognition));
    let (id, score) = (ids.map(|ids| ids[outcome.row - 1].clone()), prediction.map(|prediction| prediction.score));
    let name = id.clone().unwrap_or_else(|| outcome.row.to_string());
    RowRecord {
        row: outcome.row,
        id,
        score,
        p_value: prediction.map(|prediction| prediction.p_value),
        anomalous: prediction.and_then(|prediction| prediction.anomalous),
        label: recognized.map(|(known, found)| known.label(&found).to_owned()),
        error: outcome.result.as_ref().err().map(error),
        chart: sequence.map(|sequence| sequence.push(outcome.row, &name, score)),
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
    let decider = detector.decider_under(options.rule)?;
    let (calibration, known) = (decider.calibration(), decider.classes());
    let rule_in_words = match known {
        Some(known) => {
            classes::warn_unattainable(known, console);
            classes::decision(known)
        }
        None => {
            warn_unattainable(calibration, "row", console);
            decision(calibration)
        }
    };
    console.detail(format_args!("{}; {rule_in_words}", detector.info().scorer));
    let chart = chart(&args.sequence, calibration, "row", console)?;
    let mut sequence = chart.as_ref().map(|chart| MonitoredSequence::new(chart, "row"));
    let outcomes = detector.predict(&table, &options, &Bars::new(console, Unit::Images)).map_err(|error| {
        Failure::if_cancelled(error, "interrupted, and nothing was printed", "the same command starts again")
    })?;
    let skipped: Vec<Skipped> = outcomes.iter().filter_map(|outcome| outcome.result.clone().err()).collect();
    tell_skipped(&skipped, "row", console);
    let records: Vec<RowRecord> =
        outcomes.iter().map(|outcome| record(outcome, table.ids.as_deref(), known, sequence.as_mut())).collect();
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

/// Optional columns.
#[derive(Clone, Copy)]
struct Layout {
    /// Whether the model tells classes apart.
    labels: bool,
    /// Whether the rows are a sequence, with a chart.
    sequence: bool,
}

/// The width of the column of labels.
const LABEL: usize = 12;

fn print(out: &mut impl Write, format: ScoreFormat, layout: Layout, records: &[RowRecord]) -> anyhow::Result<()> {
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
fn cells(layout: Layout, record: &RowRecord) -> Vec<String> {
    let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    let truth = |value: Option<bool>| value.map_or(String::new(), |value| value.to_string());
    let (kind, message) = record.error.as_ref().map_or(("", ""), |error| (error.kind.as_str(), error.message.as_str()));
    let mut cells = vec![
        record.row.to_string(),
        record.id.clone().unwrap_or_default(),
        number(record.score),
        number(record.p_value),
        truth(record.anomalous),
        kind.to_owned(),
        message.to_owned(),
    ];
    if layout.labels {
        cells.push(record.label.clone().unwrap_or_default());
    }
    if layout.sequence {
        cells.push(number(record.chart.and_then(|chart| chart.statistic)));
        cells.push(truth(record.chart.and_then(|chart| chart.alarm)));
    }
    cells
}

fn table_line(out: &mut impl Write, layout: Layout, record: &RowRecord) -> io::Result<()> {
    let (style, decision) = match record.anomalous {
        Some(true) if layout.labels => (ANOMALOUS, "unknown"),
        Some(true) => (ANOMALOUS, "anomalous"),
        Some(false) => (NORMAL, "normal"),
        None if record.error.is_none() => (UNDECIDED, "undecided"),
        None => (FAILED, "error"),
    };
    let number = |value: Option<f64>, digits| value.map_or("–".to_owned(), |value| significant(value, digits));
    let id = record.id.clone().unwrap_or_else(|| record.row.to_string());
    let reason = record.error.as_ref().map_or(String::new(), |error| format!("  ({})", error.message));
    let (score, p_value) = (number(record.score, 5), number(record.p_value, 3));
    let label =
        if layout.labels { format!("{:<LABEL$}  ", record.label.as_deref().unwrap_or("–")) } else { String::new() };
    let chart = record.chart.map_or(String::new(), |chart| {
        let (style, mark) = if chart.alarm == Some(true) { (ANOMALOUS, "alarm") } else { (NORMAL, "") };
        format!("{:>9}  {style}{mark:<5}{style:#}  ", number(chart.statistic, 4))
    });
    writeln!(out, "{style}{decision:<9}{style:#}  {score:>10}  {p_value:>8}  {label}{chart}{id}{reason}")
}
