//! `nomaly score`: a score, a p-value and a decision for each image, in the given order.

use std::io::{self, IsTerminal, Write};
use std::iter;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::bail;
use nomaly::classes::Classes;
use nomaly::data::ImageSource;
use nomaly::methods::METHODS;
use nomaly::shift::InputShift;
use nomaly::wire::{ChartRecord, ImageRecord, RecordError, Shift};
use nomaly::{AnomalyMap, Calibration, FittedDetector, GroupBy, Outcome, PredictOptions, Sample, Skipped};

use super::hybrid::HybridRun;
use super::sequence::{MonitoredSequence, chart};
use super::shift::ShiftMonitor;
use super::{Status, check_writable, classes, decision, rows, skipped_line, warn_unattainable};
use crate::args::{ScoreArgs, ScoreFormat};
use crate::console::Console;
use crate::failure::Failure;
use crate::locate::{Located, Locator};
use crate::map_files::MapFiles;
use crate::output::style::{ANOMALOUS, FAILED, HEADING, NORMAL, UNDECIDED};
use crate::output::{Stdout, and_undecided, counted, significant, stdout, write_csv};
use crate::progress::{Bars, Unit};
use crate::report::{PREVIEW_SIDE, ReportBuilder, ReportRule};
use crate::writable::check_apart;

pub(crate) fn run(args: &ScoreArgs, console: &Console) -> anyhow::Result<Status> {
    let executor = args.device.open()?;
    if rows::is_about_rows(&args.images[0], &args.rows)? {
        return rows::score(args, console);
    }
    let detector = FittedDetector::load_on(&args.model, &executor)?;
    let asked: Vec<&str> = args.maps.folders().map(|(file, _)| file.flag()).collect();
    check_makes_maps(&detector.info().method.name, &asked)?;
    if let Some(path) = &args.report {
        let inputs = args.images.iter().chain(iter::once(&args.model)).chain(&args.with);
        check_apart(&[path], &inputs.map(PathBuf::as_path).collect::<Vec<_>>())?;
        check_writable(path)?;
    }
    let samples_of = |path: &PathBuf| nomaly::data::images_under(std::slice::from_ref(path));
    let groups: Vec<Vec<Sample>> = args.images.iter().map(samples_of).collect::<Result<_, _>>()?;
    // Heat maps are drawn over the original images.
    let preview = if args.maps.wants_heatmaps() { Some(u32::MAX) } else { args.report.as_ref().map(|_| PREVIEW_SIDE) };
    let rule = args.rule.rule(Some(detector.info().decision))?;
    let options = PredictOptions { rule, stream: args.reading.options(preview) };
    let decider = detector.decider_under(options.rule)?;
    let (calibration, known) = (decider.calibration(), decider.classes());
    let samples = groups.concat();
    let hybrid = args.with.as_deref().map(|path| HybridRun::score(path, &detector, &samples, &options, console));
    let hybrid = hybrid.transpose()?;
    let rule_in_words = match (known, &hybrid) {
        (_, Some(hybrid)) => hybrid.rule(),
        (Some(known), None) => {
            classes::warn_unattainable(known, console);
            classes::decision(known)
        }
        (None, None) => {
            warn_unattainable(calibration, "image", console);
            decision(calibration)
        }
    };
    console.detail(format_args!("{}; {rule_in_words}", detector.info().method.name));
    let chart = chart(&args.sequence, calibration, "image", console)?;
    let mut sequence = chart.as_ref().map(|chart| MonitoredSequence::new(chart, "image"));

    let wanted = !asked.is_empty() || args.report.is_some() || args.format != ScoreFormat::Table;
    let locator = if wanted { Locator::new(&detector, calibration, args.maps.regions(calibration)?)? } else { None };
    let files = match &locator {
        Some(locator) if !asked.is_empty() => {
            let others = iter::once(&args.model).chain(&args.with).chain(&args.report);
            let others: Vec<&Path> = others.map(PathBuf::as_path).collect();
            Some(MapFiles::new(&args.maps, locator.scales(), &files_of(&args.images, &groups), &others)?)
        }
        _ => None,
    };
    let map_range = locator.as_ref().map(|locator| locator.scales().colors);
    let mut report = args.report.as_ref().map(|_| ReportBuilder::new(options.stream.limits, map_range));
    let deviations = detector.scores_vary() && hybrid.is_none();
    let mut printer = Printer::new(args.format, known.is_some(), sequence.is_some(), deviations);
    let mut tally = Tally::default();
    let mut shifts = ShiftMonitor::new(detector.input_profile());
    let on_screen = io::stdout().is_terminal();
    let began = Instant::now();
    printer.begin()?;
    let bars = Bars::new(console, Unit::Images);
    let run = detector.predict_grouped(&samples, &GroupBy::None, &options, &bars, |outcome| -> anyhow::Result<()> {
        let mut outcome = match &hybrid {
            Some(hybrid) => hybrid.join(outcome, tally.total()),
            None => outcome,
        };
        let located = locator.as_ref().map(|locator| locator.locate(&outcome)).transpose()?.flatten();
        if let Err(skipped) = &outcome.result {
            console.warn(skipped_line(skipped));
        }
        if let Some(report) = &mut report {
            report.add(&outcome, located.as_ref())?;
        }
        if let (Some(files), Some(located)) = (&files, &located) {
            files.write(tally.total(), &mut outcome, located)?;
        }
        let score = outcome.result.as_ref().ok().map(|prediction| prediction.score);
        let chart = sequence.as_mut().map(|sequence| sequence.push(tally.total() + 1, &outcome.sample.id, score));
        let found = located.as_ref().filter(|_| locator.as_ref().is_some_and(Locator::decides));
        let record = record(&outcome, found, known, calibration, chart);
        // On a terminal, results and the progress bar share the screen.
        if on_screen { console.suspend_bars(|| printer.record(&record)) } else { printer.record(&record) }?;
        shifts.push(&outcome, console);
        tally.count(&outcome);
        Ok(())
    });
    run.map_err(|error| {
        let message = format!("interrupted after {} of {}", tally.total(), counted(samples.len(), "image"));
        Failure::if_cancelled(error, message, "what was printed and written so far is complete; no report was written")
    })?;
    printer.end()?;
    let seconds = began.elapsed().as_secs_f64();
    let shift_notes = shifts.finish(console);

    if let (Some(mut report), Some(path)) = (report, &args.report) {
        report.notes = shift_notes;
        report.explain(&detector, &samples, options.stream, console)?;
        let rule = match (&hybrid, &known) {
            (Some(hybrid), _) => ReportRule::Hybrid(hybrid.threshold(), hybrid.rule()),
            (None, Some(known)) => ReportRule::Classes(known),
            (None, None) => ReportRule::Rule(calibration),
        };
        report.write_scores(path, detector.info(), &rule)?;
        console.note(format_args!("wrote {}", path.display()));
    }
    if tally.failed == samples.len() {
        bail!("none of the {} could be scored", counted(samples.len(), "image"));
    }
    for (file, folder) in args.maps.folders() {
        console.note(format_args!(
            "wrote {} of {} into {}",
            file.plural(),
            counted(tally.scored(), "image"),
            folder.display()
        ));
    }
    console.note(tally.describe(if known.is_some() { "unknown" } else { "anomalous" }, seconds));
    let found = match &sequence {
        Some(sequence) => {
            console.note(sequence.describe());
            sequence.alarmed()
        }
        None => tally.anomalous > 0,
    };
    Ok(Status::of_scores(args.fail_on_anomaly && found, tally.undecided))
}

/// Rejects flags that need maps for methods that score only whole images.
fn check_makes_maps(method: &str, flags: &[&str]) -> anyhow::Result<()> {
    let with_maps: Vec<&str> = METHODS.iter().filter(|entry| entry.maps).map(|entry| entry.name).collect();
    if flags.is_empty() || with_maps.contains(&method) {
        return Ok(());
    }
    let hint = format!("leave out {}, or fit one of: {}", flags.join(" and "), with_maps.join(", "));
    Err(Failure::new(format!("method `{method}` scores whole images and makes no anomaly maps"), hint).into())
}

/// The image files of each given path.
pub(super) fn files_of<'a>(given: &'a [PathBuf], groups: &'a [Vec<Sample>]) -> Vec<(&'a Path, Vec<&'a Path>)> {
    let file = |sample: &'a Sample| match &sample.source {
        ImageSource::File(path) => path.as_path(),
        _ => Path::new(&sample.id),
    };
    given.iter().zip(groups).map(|(path, group)| (path.as_path(), group.iter().map(file).collect())).collect()
}

/// Counts of outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    normal: usize,
    anomalous: usize,
    /// Scored, but undecided without a threshold.
    undecided: usize,
    failed: usize,
}

impl Tally {
    fn count(&mut self, outcome: &Outcome<'_>) {
        match &outcome.result {
            Ok(prediction) => match prediction.anomalous {
                Some(true) => self.anomalous += 1,
                Some(false) => self.normal += 1,
                None => self.undecided += 1,
            },
            Err(_) => self.failed += 1,
        }
    }

    fn scored(&self) -> usize {
        self.normal + self.anomalous + self.undecided
    }

    /// The number of images so far.
    fn total(&self) -> usize {
        self.scored() + self.failed
    }

    /// The summary; `word` is the adjective for anomalous ones.
    fn describe(&self, word: &str, seconds: f64) -> String {
        let scored = self.scored();
        let failed = match self.failed {
            0 => String::new(),
            failed => format!(", {failed} could not be scored"),
        };
        let undecided = and_undecided(self.undecided);
        let rate = significant(scored as f64 / seconds.max(1e-9), 3);
        format!("{} of {} {word}{undecided}{failed}; {rate} images/s", self.anomalous, counted(scored, "image"))
    }
}

/// The record of one image.
fn record(
    outcome: &Outcome<'_>,
    located: Option<&Located>,
    known: Option<&Classes>,
    calibration: &Calibration,
    chart: Option<ChartRecord>,
) -> ImageRecord {
    let (prediction, error) = match &outcome.result {
        Ok(prediction) => (Some(prediction), None),
        Err(Skipped { kind, message, .. }) => {
            (None, Some(RecordError { kind: kind.clone(), message: message.clone() }))
        }
    };
    let undecided = prediction.filter(|prediction| prediction.anomalous.is_none()).and_then(|_| match known {
        Some(known) => known.unattainable().map(|(_, reason)| reason),
        None => calibration.unattainable(),
    });
    let recognized = known.zip(prediction.and_then(|prediction| prediction.recognition));
    ImageRecord {
        path: outcome.sample.id.clone(),
        score: prediction.map(|prediction| prediction.score),
        score_deviation: prediction.and_then(|prediction| prediction.deviation),
        p_value: prediction.map(|prediction| prediction.p_value),
        anomalous: prediction.and_then(|prediction| prediction.anomalous),
        undecided: undecided.map(ToOwned::to_owned),
        label: recognized.map(|(known, found)| known.label(&found).to_owned()),
        map_max: prediction.and_then(|prediction| prediction.map.as_ref()).map(AnomalyMap::max),
        error,
        regions: located.map(|located| located.found.regions.clone()),
        input_shift: prediction.and_then(|prediction| prediction.input_shift.as_ref()).map(shift_record),
        chart,
    }
}

/// The record of how an image differs from the training images.
fn shift_record(shift: &InputShift) -> Shift {
    Shift {
        kinds: shift.kinds.iter().map(|kind| kind.name().to_owned()).collect(),
        worst: shift.worst.name().to_owned(),
        p_value: shift.p_value,
        message: shift.message.clone(),
    }
}

/// Prints records as they arrive.
struct Printer {
    format: ScoreFormat,
    /// Whether the model tells classes apart.
    labels: bool,
    /// Whether the images are a sequence, with a chart.
    sequence: bool,
    /// Whether scores have error bars.
    deviations: bool,
    out: Stdout,
    printed: usize,
}

/// The width of the column of labels.
const LABEL: usize = 12;

/// The fixed columns of the CSV.
const CSV_COLUMNS: [&str; 9] =
    ["path", "score", "p_value", "anomalous", "map_max", "error_kind", "error_message", "regions", "input_shift"];

impl Printer {
    fn new(format: ScoreFormat, labels: bool, sequence: bool, deviations: bool) -> Self {
        Self { format, labels, sequence, deviations, out: stdout(), printed: 0 }
    }

    fn begin(&mut self) -> io::Result<()> {
        match self.format {
            ScoreFormat::Table => {
                let chart = if self.sequence { format!("{:>9}  {:<5}  ", "statistic", "chart") } else { String::new() };
                let label = if self.labels { format!("{:<LABEL$}  ", "label") } else { String::new() };
                let names = ("decision", "score", "p-value");
                let bar = if self.deviations { format!("  {:<9}", "±") } else { String::new() };
                writeln!(
                    self.out,
                    "{HEADING}{:<9}  {:>10}{bar}  {:>8}  {label}{chart}image{HEADING:#}",
                    names.0, names.1, names.2
                )
            }
            ScoreFormat::Csv => {
                let mut keys = CSV_COLUMNS.to_vec();
                if self.deviations {
                    keys.push("score_deviation");
                }
                if self.labels {
                    keys.push("label");
                }
                if self.sequence {
                    keys.extend(["statistic", "alarm"]);
                }
                write_csv(&mut self.out, &keys)
            }
            ScoreFormat::Json => write!(self.out, "["),
            ScoreFormat::Jsonl => Ok(()),
        }
    }

    fn record(&mut self, record: &ImageRecord) -> io::Result<()> {
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

    fn table_line(&mut self, record: &ImageRecord) -> io::Result<()> {
        let (style, decision) = match record.anomalous {
            Some(true) if self.labels => (ANOMALOUS, "unknown"),
            Some(true) => (ANOMALOUS, "anomalous"),
            Some(false) => (NORMAL, "normal"),
            None if record.error.is_none() => (UNDECIDED, "undecided"),
            None => (FAILED, "error"),
        };
        let number = |value: Option<f64>, digits| value.map_or("–".to_owned(), |value| significant(value, digits));
        let bar = if self.deviations {
            let value = record.score_deviation.map_or_else(String::new, |value| format!("± {}", significant(value, 2)));
            format!("  {value:<9}")
        } else {
            String::new()
        };
        let reason = match (&record.error, &record.input_shift) {
            (Some(error), _) => format!("  ({})", error.kind),
            (None, Some(shift)) => format!("  (shifted: {})", shift.worst),
            (None, None) => String::new(),
        };
        let label =
            if self.labels { format!("{:<LABEL$}  ", record.label.as_deref().unwrap_or("–")) } else { String::new() };
        let chart = record.chart.map_or(String::new(), |chart| {
            let (style, mark) = if chart.alarm == Some(true) { (ANOMALOUS, "alarm") } else { (NORMAL, "") };
            format!("{:>9}  {style}{mark:<5}{style:#}  ", number(chart.statistic, 4))
        });
        writeln!(
            self.out,
            "{style}{decision:<9}{style:#}  {:>10}{bar}  {:>8}  {label}{chart}{}{reason}",
            number(record.score, 5),
            number(record.p_value, 3),
            record.path,
        )
    }

    fn csv_line(&mut self, record: &ImageRecord) -> io::Result<()> {
        let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let error = record.error.as_ref();
        let truth = |value: Option<bool>| value.map_or(String::new(), |value| value.to_string());
        let mut cells = vec![
            record.path.to_owned(),
            number(record.score),
            number(record.p_value),
            truth(record.anomalous),
            number(record.map_max),
            error.map_or("", |error| error.kind.as_str()).to_owned(),
            error.map_or("", |error| error.message.as_str()).to_owned(),
            record.regions.as_ref().map_or(String::new(), |regions| regions.len().to_string()),
            record.input_shift.as_ref().map_or(String::new(), |shift| shift.message.clone()),
        ];
        if self.deviations {
            cells.push(number(record.score_deviation));
        }
        if self.labels {
            cells.push(record.label.clone().unwrap_or_default());
        }
        if self.sequence {
            cells.push(number(record.chart.and_then(|chart| chart.statistic)));
            cells.push(truth(record.chart.and_then(|chart| chart.alarm)));
        }
        write_csv(&mut self.out, &cells.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use nomaly::regions::Region;

    use super::*;

    #[test]
    fn records_have_every_key_of_the_contract_in_order() {
        let failed = ImageRecord {
            path: "a.png".to_owned(),
            score: None,
            score_deviation: None,
            p_value: None,
            anomalous: None,
            undecided: None,
            label: None,
            map_max: None,
            error: Some(RecordError { kind: "empty".into(), message: "the file is empty".into() }),
            regions: None,
            input_shift: None,
            chart: None,
        };
        assert_eq!(
            serde_json::to_string(&failed).unwrap(),
            r#"{"path":"a.png","score":null,"p_value":null,"anomalous":null,"map_max":null,"#.to_owned()
                + r#""error":{"kind":"empty","message":"the file is empty"},"regions":null,"input_shift":null}"#
        );
        let region = Region { x: 1, y: 2, width: 3, height: 4, area: 9, peak: 1.5, peak_x: 2, peak_y: 5, mean: 1.25 };
        let located = ImageRecord { error: None, regions: Some(vec![region]), ..failed };
        let json = serde_json::to_string(&located).unwrap();
        let regions = r#""error":null,"regions":[{"x":1,"y":2,"width":3,"height":4,"area":9,"peak":1.5,"#.to_owned()
            + r#""peak_x":2,"peak_y":5,"mean":1.25}],"input_shift":null}"#;
        assert!(json.ends_with(&regions), "{json}");
        let watched = ImageRecord { chart: Some(ChartRecord { statistic: Some(0.5), alarm: Some(false) }), ..located };
        assert!(
            serde_json::to_string(&watched)
                .unwrap()
                .ends_with(r#"}],"input_shift":null,"statistic":0.5,"alarm":false}"#)
        );
        let unsure = ImageRecord { score: Some(1.5), score_deviation: Some(0.25), ..watched };
        assert!(serde_json::to_string(&unsure).unwrap().contains(r#""score":1.5,"score_deviation":0.25,"p_value""#));
        let labelled = ImageRecord { label: Some("nut".to_owned()), ..unsure };
        assert!(serde_json::to_string(&labelled).unwrap().contains(r#""anomalous":null,"label":"nut","map_max""#));
    }

    #[test]
    fn the_summary_counts_scored_images_only() {
        let tally = Tally { normal: 3, anomalous: 1, undecided: 0, failed: 2 };
        assert_eq!(tally.describe("anomalous", 2.0), "1 of 4 images anomalous, 2 could not be scored; 2.00 images/s");
        let undecided = Tally { undecided: 40, ..Tally::default() };
        assert_eq!(undecided.describe("anomalous", 40.0), "0 of 40 images anomalous, 40 undecided; 1.00 images/s");
    }

    #[test]
    fn maps_are_refused_with_a_way_out() {
        let error = check_makes_maps("mvg", &["--heatmaps", "--masks"]).unwrap_err();
        assert!(error.to_string().contains("`mvg`"));
        let hint = crate::failure::hint(&error).unwrap();
        assert!(hint.contains("leave out --heatmaps and --masks") && hint.contains("padim"), "{hint}");
        assert!(check_makes_maps("mvg", &[]).is_ok() && check_makes_maps("padim", &["--maps"]).is_ok());
    }
}
