//! `nomaly score`: a score, a p-value and a decision for each image, in the order in which they were given.

use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use anyhow::bail;
use nomaly::detectors::METHODS;
use nomaly::{DetectorError, FittedDetector, Outcome, PredictOptions, Skipped};
use serde::Serialize;

use super::{Status, check_writable, decision, skipped_line, warn_unattainable};
use crate::args::{ScoreArgs, ScoreFormat};
use crate::console::Console;
use crate::failure::Failure;
use crate::output::style::{ANOMALOUS, FAILED, HEADING, NORMAL};
use crate::output::{counted, significant, write_csv};
use crate::progress::{Bars, Unit};
use crate::report::{PREVIEW_SIDE, ReportBuilder};

pub(crate) fn run(args: &ScoreArgs, console: &Console) -> anyhow::Result<Status> {
    args.device.check()?;
    let detector = FittedDetector::load(&args.model)?;
    if args.heatmaps.is_some() {
        check_makes_maps(&detector.info().method.name)?;
    }
    if let Some(path) = &args.report {
        check_writable(path)?;
    }
    let samples = nomaly::data::images_under(&args.images)?;
    let preview = args.report.is_some().then_some(PREVIEW_SIDE);
    let options = PredictOptions { rule: args.rule.rule(), stream: args.reading.options(preview) };
    let calibration = detector.calibration_for(&options)?;
    warn_unattainable(&calibration, console);
    console.detail(format_args!("{}; {}", detector.info().method.name, decision(&calibration)));

    let mut report = args.report.as_ref().map(|_| ReportBuilder::new(options.stream.limits));
    let mut printer = Printer::new(args.format);
    let mut tally = Tally::default();
    let mut unwritten = None;
    let on_screen = io::stdout().is_terminal();
    let began = Instant::now();
    printer.begin()?;
    let run = detector.predict(&samples, &options, &Bars::new(console, Unit::Images), |outcome| {
        tally.count(&outcome);
        if let Err(skipped) = &outcome.result {
            console.warn(skipped_line(skipped));
        }
        if let Some(report) = &mut report {
            report.add(&outcome);
        }
        let record = Record::from(&outcome);
        // On one screen with a progress bar, lines have to make room for each other.
        let printed = if on_screen { console.aside(|| printer.record(&record)) } else { printer.record(&record) };
        printed.map_err(|error| {
            unwritten = Some(error);
            DetectorError::Cancelled
        })
    });
    if let Some(error) = unwritten {
        return Err(error.into());
    }
    run?;
    printer.end()?;
    let seconds = began.elapsed().as_secs_f64();

    if let (Some(report), Some(path)) = (report, &args.report) {
        report.write_scores(path, detector.info(), &calibration)?;
        console.note(format_args!("wrote {}", path.display()));
    }
    if tally.failed == samples.len() {
        bail!("none of the {} could be scored", counted(samples.len(), "image"));
    }
    console.note(tally.describe(seconds));
    Ok(if args.fail_on_anomaly && tally.anomalous > 0 { Status::AnomaliesFound } else { Status::Done })
}

/// Refuses `--heatmaps` for methods that give whole images a score and their pixels none.
fn check_makes_maps(method: &str) -> anyhow::Result<()> {
    let with_maps: Vec<&str> = METHODS.iter().filter(|entry| entry.maps).map(|entry| entry.name).collect();
    if with_maps.contains(&method) {
        return Ok(());
    }
    let hint = if with_maps.is_empty() {
        "leave out --heatmaps; no method of this version makes maps".to_owned()
    } else {
        format!("leave out --heatmaps, or fit one of: {}", with_maps.join(", "))
    };
    Err(Failure::new(format!("method `{method}` scores whole images and makes no anomaly maps"), hint).into())
}

/// How many images ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    normal: usize,
    anomalous: usize,
    failed: usize,
}

impl Tally {
    fn count(&mut self, outcome: &Outcome<'_>) {
        match &outcome.result {
            Ok(prediction) if prediction.anomalous => self.anomalous += 1,
            Ok(_) => self.normal += 1,
            Err(_) => self.failed += 1,
        }
    }

    fn describe(&self, seconds: f64) -> String {
        let scored = self.normal + self.anomalous;
        let failed = match self.failed {
            0 => String::new(),
            failed => format!(", {failed} could not be read"),
        };
        let rate = significant(scored as f64 / seconds.max(1e-9), 3);
        format!("{} of {} anomalous{failed}; {rate} images/s", self.anomalous, counted(scored, "image"))
    }
}

/// One image as programs see it; part of the command line's contract.
#[derive(Debug, Serialize)]
struct Record<'a> {
    path: &'a str,
    score: Option<f64>,
    p_value: Option<f64>,
    anomalous: Option<bool>,
    /// The largest value of the anomaly map, for methods that make maps.
    map_max: Option<f64>,
    error: Option<RecordError<'a>>,
}

#[derive(Debug, Serialize)]
struct RecordError<'a> {
    kind: &'a str,
    message: &'a str,
}

impl<'a> From<&'a Outcome<'_>> for Record<'a> {
    fn from(outcome: &'a Outcome<'_>) -> Self {
        let path = &outcome.sample.id;
        match &outcome.result {
            Ok(prediction) => Self {
                path,
                score: Some(prediction.score),
                p_value: Some(prediction.p_value),
                anomalous: Some(prediction.anomalous),
                map_max: None,
                error: None,
            },
            Err(Skipped { kind, message, .. }) => Self {
                path,
                score: None,
                p_value: None,
                anomalous: None,
                map_max: None,
                error: Some(RecordError { kind, message }),
            },
        }
    }
}

/// Prints records as they come.
struct Printer {
    format: ScoreFormat,
    out: anstream::Stdout,
    printed: usize,
}

impl Printer {
    fn new(format: ScoreFormat) -> Self {
        Self { format, out: anstream::stdout(), printed: 0 }
    }

    fn begin(&mut self) -> io::Result<()> {
        match self.format {
            ScoreFormat::Table => {
                writeln!(self.out, "{HEADING}{:<9}  {:>10}  {:>8}  image{HEADING:#}", "decision", "score", "p-value")
            }
            ScoreFormat::Csv => {
                let header = ["path", "score", "p_value", "anomalous", "map_max", "error_kind", "error_message"];
                write_csv(&mut self.out, &header)
            }
            ScoreFormat::Json => write!(self.out, "["),
            ScoreFormat::Jsonl => Ok(()),
        }
    }

    fn record(&mut self, record: &Record<'_>) -> io::Result<()> {
        match self.format {
            ScoreFormat::Table => self.table_line(record)?,
            ScoreFormat::Csv => self.csv_line(record)?,
            ScoreFormat::Json => {
                let separator = if self.printed == 0 { "\n  " } else { ",\n  " };
                write!(self.out, "{separator}{}", serde_json::to_string(record)?)?;
            }
            ScoreFormat::Jsonl => writeln!(self.out, "{}", serde_json::to_string(record)?)?,
        }
        self.printed += 1;
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        if self.format == ScoreFormat::Json {
            writeln!(self.out, "\n]")?;
        }
        self.out.flush()
    }

    fn table_line(&mut self, record: &Record<'_>) -> io::Result<()> {
        let (style, decision) = match record.anomalous {
            Some(true) => (ANOMALOUS, "anomalous"),
            Some(false) => (NORMAL, "normal"),
            None => (FAILED, "error"),
        };
        let number = |value: Option<f64>, digits| value.map_or("–".to_owned(), |value| significant(value, digits));
        let reason = record.error.as_ref().map_or(String::new(), |error| format!("  ({})", error.kind));
        writeln!(
            self.out,
            "{style}{decision:<9}{style:#}  {:>10}  {:>8}  {}{reason}",
            number(record.score, 5),
            number(record.p_value, 3),
            record.path,
        )
    }

    fn csv_line(&mut self, record: &Record<'_>) -> io::Result<()> {
        let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let error = record.error.as_ref();
        write_csv(
            &mut self.out,
            &[
                record.path,
                &number(record.score),
                &number(record.p_value),
                &record.anomalous.map_or(String::new(), |anomalous| anomalous.to_string()),
                &number(record.map_max),
                error.map_or("", |error| error.kind),
                error.map_or("", |error| error.message),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_every_key_of_the_contract_in_order() {
        let record = Record {
            path: "a.png",
            score: None,
            p_value: None,
            anomalous: None,
            map_max: None,
            error: Some(RecordError { kind: "empty", message: "the file is empty" }),
        };
        assert_eq!(
            serde_json::to_string(&record).unwrap(),
            r#"{"path":"a.png","score":null,"p_value":null,"anomalous":null,"map_max":null,"#.to_owned()
                + r#""error":{"kind":"empty","message":"the file is empty"}}"#
        );
    }

    #[test]
    fn the_summary_counts_scored_images_only() {
        let tally = Tally { normal: 3, anomalous: 1, failed: 2 };
        assert_eq!(tally.describe(2.0), "1 of 4 images anomalous, 2 could not be read; 2.00 images/s");
    }

    #[test]
    fn heatmaps_are_refused_with_a_way_out() {
        let error = check_makes_maps("mvg").unwrap_err();
        assert!(error.to_string().contains("`mvg`"));
        assert!(crate::failure::hint(&error).unwrap().contains("leave out --heatmaps"));
    }
}
