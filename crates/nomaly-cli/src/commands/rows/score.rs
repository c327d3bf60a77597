//! `nomaly score` on a table: a score, a p-value and a decision for each row, in their order.

use std::io::{self, Write};

use anyhow::bail;
use nomaly::Skipped;
use nomaly::data::tables::read;
use nomaly::detectors::rows::{FittedRows, RowOutcome, RowPredictOptions};
use serde::Serialize;

use super::super::{Status, decision, tell_skipped, warn_unattainable};
use super::refusal;
use crate::args::{ScoreArgs, ScoreFormat};
use crate::console::Console;
use crate::failure::Failure;
use crate::output::style::{ANOMALOUS, FAILED, HEADING, NORMAL};
use crate::output::{counted, significant, stdout, write_csv};
use crate::progress::{Bars, Unit};

/// One row as programs see it; part of the command line's contract.
#[derive(Debug, Serialize)]
struct Record<'a> {
    row: usize,
    id: Option<&'a str>,
    score: Option<f64>,
    p_value: Option<f64>,
    anomalous: Option<bool>,
    error: Option<RecordError<'a>>,
}

#[derive(Debug, Serialize)]
struct RecordError<'a> {
    kind: &'a str,
    message: &'a str,
}

impl<'a> Record<'a> {
    fn new(outcome: &'a RowOutcome, ids: Option<&'a [String]>) -> Self {
        let prediction = outcome.result.as_ref().ok();
        Self {
            row: outcome.row,
            id: ids.map(|ids| ids[outcome.row - 1].as_str()),
            score: prediction.map(|prediction| prediction.score),
            p_value: prediction.map(|prediction| prediction.p_value),
            anomalous: prediction.map(|prediction| prediction.anomalous),
            error: outcome.result.as_ref().err().map(|Skipped { kind, message, .. }| RecordError { kind, message }),
        }
    }
}

pub(crate) fn run(args: &ScoreArgs, console: &Console) -> anyhow::Result<Status> {
    if args.report.is_some() {
        return Err(refusal("--report", "`--format csv` gives a table of the scores"));
    }
    if let Some((file, _)) = args.maps.folders().next() {
        return Err(refusal(file.flag(), "rows have no pixels"));
    }
    if args.sequence.chart().is_some() {
        return Err(refusal("--sequence", "the scores of rows are judged one by one"));
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
    warn_unattainable(&calibration, console);
    console.detail(format_args!("{}; {}", detector.info().scorer, decision(&calibration)));
    let outcomes = detector.predict(&table, &options, &Bars::new(console, Unit::Images)).map_err(|error| {
        Failure::if_cancelled(error, "interrupted, and nothing was printed", "the same command starts again")
    })?;
    let skipped: Vec<Skipped> = outcomes.iter().filter_map(|outcome| outcome.result.clone().err()).collect();
    tell_skipped(&skipped, console);
    let records: Vec<Record<'_>> = outcomes.iter().map(|outcome| Record::new(outcome, table.ids.as_deref())).collect();
    print(&mut stdout(), args.format, &records)?;
    let scored = outcomes.len() - skipped.len();
    if scored == 0 {
        bail!("none of the {} could be scored", counted(outcomes.len(), "row"));
    }
    let anomalous = records.iter().filter(|record| record.anomalous == Some(true)).count();
    let failed = if skipped.is_empty() { String::new() } else { format!(", {} could not be used", skipped.len()) };
    console.note(format_args!("{anomalous} of {} anomalous{failed}", counted(scored, "row")));
    Ok(if args.fail_on_anomaly && anomalous > 0 { Status::AnomaliesFound } else { Status::Done })
}

fn print(out: &mut impl Write, format: ScoreFormat, records: &[Record<'_>]) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(out);
    match format {
        ScoreFormat::Table => {
            writeln!(out, "{HEADING}{:<9}  {:>10}  {:>8}  row{HEADING:#}", "decision", "score", "p-value")?;
            for record in records {
                table_line(&mut out, record)?;
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
            write_csv(&mut out, &["row", "id", "score", "p_value", "anomalous", "error_kind", "error_message"])?;
            let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
            for record in records {
                let anomalous = record.anomalous.map_or(String::new(), |anomalous| anomalous.to_string());
                let (kind, message) = record.error.as_ref().map_or(("", ""), |error| (error.kind, error.message));
                let (row, score, p_value) = (record.row.to_string(), number(record.score), number(record.p_value));
                write_csv(&mut out, &[&row, record.id.unwrap_or(""), &score, &p_value, &anomalous, kind, message])?;
            }
        }
    }
    Ok(out.flush()?)
}

fn table_line(out: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
    let (style, decision) = match record.anomalous {
        Some(true) => (ANOMALOUS, "anomalous"),
        Some(false) => (NORMAL, "normal"),
        None => (FAILED, "error"),
    };
    let number = |value: Option<f64>, digits| value.map_or("–".to_owned(), |value| significant(value, digits));
    let id = record.id.map_or_else(|| record.row.to_string(), str::to_owned);
    let reason = record.error.as_ref().map_or(String::new(), |error| format!("  ({})", error.message));
    let (score, p_value) = (number(record.score, 5), number(record.p_value, 3));
    writeln!(out, "{style}{decision:<9}{style:#}  {score:>10}  {p_value:>8}  {id}{reason}")
}
