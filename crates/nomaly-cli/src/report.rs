//! Builds the HTML report from outcomes and figures.

use std::collections::HashMap;
use std::path::Path;

use nomaly::calibration::{naming_level, suspicious};
use nomaly::classes::Classes;
use nomaly::evaluation::{Evaluated, PRO_LIMIT};
use nomaly::model_file::ModelInfo;
use nomaly::regions::{Region, RegionOptions};
use nomaly::store::write_atomic;
use nomaly::transforms::scaled_preview;
use nomaly::wire::Evaluation;
use nomaly::{Calibration, DecisionRule, FitResult, FittedDetector, Label, Limits, Outcome, Sample, StreamOptions};
use nomaly_report::overlay::{DEFAULT_OPACITY, ValueRange, overlay};
use nomaly_report::{
    Contour, Decision, Figure, Item, KindRow, MapCurves, Picture, PixelCurve, RegionBox, Report, SkippedFile,
    Threshold, render,
};

use crate::console::Console;
use crate::locate::{Located, Locator};
use crate::output::{and_undecided, percent, seconds, significant};
use crate::progress::{Bars, Unit};

/// The longest side of the decoded images for reports, in pixels.
pub(crate) const PREVIEW_SIDE: u32 = nomaly_report::MAX_SIDE;

/// The number of images, those with the highest scores, that are explained in the report of a method without maps.
const EXPLAINED: usize = 12;

/// The decision rule of a scoring run.
pub(crate) enum ReportRule<'a> {
    /// One rule for all scores.
    Rule(&'a Calibration),
    /// The classes of the model, which have separate rules.
    Classes(&'a Classes),
    /// Two models: the threshold of the combined score, and the rule in words.
    Hybrid(f64, String),
}

/// Collects images for a report as they are scored.
#[derive(Debug)]
pub(crate) struct ReportBuilder {
    limits: Limits,
    map_range: Option<ValueRange>,
    explained_at: Option<String>,
    items: Vec<Item>,
    skipped: Vec<SkippedFile>,
    /// Notes at the top of the report.
    pub(crate) notes: Vec<String>,
}

impl ReportBuilder {
    /// An empty report; masks are read within `limits`, and maps have the colour range `map_range`.
    pub(crate) fn new(limits: Limits, map_range: Option<ValueRange>) -> Self {
        Self { limits, map_range, explained_at: None, items: Vec::new(), skipped: Vec::new(), notes: Vec::new() }
    }

    /// Adds one image, with its preview if available, and its located anomalies.
    pub(crate) fn add(&mut self, outcome: &Outcome<'_>, located: Option<&Located>) -> anyhow::Result<()> {
        let sample = outcome.sample;
        let prediction = match &outcome.result {
            Ok(prediction) => prediction,
            Err(skipped) => {
                self.skipped.push(SkippedFile { path: skipped.id.clone(), reason: skipped.message.clone() });
                return Ok(());
            }
        };
        let preview = outcome.preview.as_ref().map(|image| scaled_preview(image, PREVIEW_SIDE));
        let overlay = match (&preview, located, self.map_range) {
            (Some(image), Some(located), Some(range)) => {
                let (width, height) = located.size();
                let drawn = overlay(image, &located.map.values, width, height, range, DEFAULT_OPACITY)?;
                Some(Picture::photo(&drawn)?)
            }
            _ => None,
        };
        // A mask is only an illustration: an unreadable one is omitted.
        let truth = sample.mask.as_ref().and_then(|mask| mask.load(&self.limits).ok());
        self.items.push(Item {
            id: sample.id.clone(),
            kind: (sample.label != Label::Unknown).then(|| sample.kind.clone()),
            label: match sample.label {
                Label::Normal => Some(false),
                Label::Anomalous => Some(true),
                Label::Unknown => None,
            },
            score: prediction.score,
            p_value: Some(prediction.p_value),
            decision: Decision::from(prediction.anomalous),
            size: outcome.size,
            thumbnail: preview.as_ref().map(Picture::photo).transpose()?,
            overlay,
            mask: truth.as_ref().map(Picture::mask).transpose()?,
            regions: located.map_or_else(Vec::new, |located| located.found.regions.iter().map(region_box).collect()),
            found: located.map(|located| Contour::new(&located.found.mask)).transpose()?,
            truth: truth.as_ref().map(Contour::new).transpose()?,
            shift: prediction.input_shift.as_ref().map(|shift| shift.message.clone()),
        });
        Ok(())
    }

    /// If the method makes no maps, draws Grad-CAM maps over the [`EXPLAINED`] images with the highest scores among
    /// `samples`. Does nothing for methods without a network.
    pub(crate) fn explain(
        &mut self,
        detector: &FittedDetector,
        samples: &[Sample],
        options: StreamOptions,
        console: &Console,
    ) -> anyhow::Result<()> {
        if self.map_range.is_some() {
            return Ok(());
        }
        let mut explainer = match detector.explainer(None, None) {
            Ok(explainer) => explainer,
            Err(error) => {
                console.detail(format_args!("the report explains no image: {error}"));
                return Ok(());
            }
        };
        let mut order: Vec<usize> = (0..self.items.len()).collect();
        order.sort_by(|&a, &b| self.items[b].score.total_cmp(&self.items[a].score));
        order.truncate(EXPLAINED);
        let places: HashMap<&str, usize> = order.iter().map(|&place| (self.items[place].id.as_str(), place)).collect();
        let chosen: Vec<Sample> =
            samples.iter().filter(|sample| places.contains_key(sample.id.as_str())).cloned().collect();
        let mut drawn = Vec::new();
        let options = StreamOptions { preview: Some(PREVIEW_SIDE), ..options };
        let bars = Bars::new(console, Unit::Images);
        explainer.run(&chosen, options, &bars, |explained| -> anyhow::Result<()> {
            let (Ok(found), Some(image), Some(size)) = (&explained.result, &explained.preview, explained.size) else {
                return Ok(());
            };
            let greatest = found.map.max() as f32;
            if greatest > 0.0 {
                let map = detector.map_on_image(&found.map, size)?;
                let range = ValueRange::new(0.0, greatest)?;
                let image = scaled_preview(image, PREVIEW_SIDE);
                let overlay = overlay(&image, &map.values, size.0, size.1, range, DEFAULT_OPACITY)?;
                drawn.push((places[explained.sample.id.as_str()], Picture::photo(&overlay)?));
            }
            Ok(())
        })?;
        self.explained_at = Some(explainer.tap().to_owned());
        for (place, overlay) in drawn {
            self.items[place].overlay = Some(overlay);
        }
        Ok(())
    }

    /// Writes the report of a scoring run.
    pub(crate) fn write_scores(self, path: &Path, info: &ModelInfo, decided: &ReportRule<'_>) -> anyhow::Result<()> {
        let count = |decision| self.items.iter().filter(|item| item.decision == decision).count();
        let (anomalous, undecided) = (count(Decision::Anomalous), count(Decision::Undecided));
        let reason = match decided {
            ReportRule::Rule(calibration) => calibration.unattainable(),
            ReportRule::Classes(classes) => classes.unattainable().map(|(_, reason)| reason),
            ReportRule::Hybrid(..) => None,
        };
        let word = if matches!(decided, ReportRule::Classes(_)) { "unknown" } else { "anomalous" };
        let report = Report {
            title: format!("{anomalous} of {} images {word}{}", self.items.len(), and_undecided(undecided)),
            subtitle: format!("scored by {} on {}", info.method.name, info.backbone.name),
            notes: reason
                .map(|reason| format!("Not every image can be decided on: {reason}."))
                .into_iter()
                .chain(self.notes)
                .collect(),
            summary: facts([
                ("method", info.method.name.clone()),
                ("backbone", info.backbone.name.clone()),
                ("input", info.input_in_words()),
                ("trained on", format!("{} images of {}", info.training.images, info.training.dataset)),
            ]),
            threshold: match decided {
                ReportRule::Rule(calibration) => threshold(calibration),
                ReportRule::Classes(_) => None,
                ReportRule::Hybrid(value, rule) => Some(Threshold { value: *value, rule: rule.clone(), max_fpr: None }),
            },
            items: self.items,
            map_range: self.map_range,
            explained_at: self.explained_at,
            skipped: self.skipped,
            ..Report::default()
        };
        Ok(write_atomic(path, render(&report)?.as_bytes())?)
    }
}

/// The most training images in a report.
const TRAINING_SHOWN: usize = 200;

/// Writes a page of the training images of a fit with their held-out scores, the highest first.
pub(crate) fn write_training(path: &Path, fit: &FitResult, samples: &[Sample], limits: Limits) -> anyhow::Result<()> {
    let named = suspicious(&fit.held_out, naming_level(fit.held_out.len()));
    // A level of 1 gives all images, each with its p-value.
    let all = suspicious(&fit.held_out, 1.0);
    let held_out = fit.held_out.iter().map(|image| image.sample).collect::<std::collections::BTreeSet<_>>().len();
    let mut items = Vec::new();
    for image in fit.dropped.iter().chain(&all).take(TRAINING_SHOWN) {
        let sample = &samples[image.sample];
        let pixels = sample.source.load(&limits)?;
        let is_named = fit.dropped.contains(image) || named.contains(image);
        items.push(Item {
            id: sample.id.clone(),
            score: image.score,
            p_value: Some(image.p_value),
            decision: Decision::from(Some(is_named)),
            size: Some(pixels.dimensions()),
            thumbnail: Some(Picture::photo(&scaled_preview(&pixels, PREVIEW_SIDE))?),
            ..Item::default()
        });
    }
    let info = fit.detector.info();
    let count = fit.dropped.len() + named.len();
    let mut notes = vec![
        "Each training image was scored by a fit that had not seen it, nor any image of its group. The p-value says how rare \
         such a score is by a tail through the middle of all scores; where it is very small, the image is marked anomalous."
            .to_owned(),
    ];
    if !fit.dropped.is_empty() {
        notes.push(format!("{} of these images were left out of the training.", fit.dropped.len()));
    }
    if let Some(how) = &info.training.groups.how {
        notes.push(format!("The images form {} independent groups: {how}.", info.training.groups.count));
    }
    if held_out > items.len() {
        notes.push(format!("Only the {} highest scores are shown.", items.len()));
    }
    let report = Report {
        title: format!("{count} of {} training images look unlike the others", fit.dropped.len() + held_out),
        subtitle: format!("{} on {}", info.method.name, info.backbone.name),
        notes,
        summary: facts([
            ("method", info.method.name.clone()),
            ("backbone", info.backbone.name.clone()),
            ("input", info.input_in_words()),
            ("trained on", format!("{} images of {}", info.training.images, info.training.dataset)),
            ("independent groups", info.training.groups.count.to_string()),
        ]),
        items,
        skipped: fit
            .skipped
            .iter()
            .map(|bad| SkippedFile { path: bad.id.clone(), reason: bad.message.clone() })
            .collect(),
        ..Report::default()
    };
    Ok(write_atomic(path, render(&report)?.as_bytes())?)
}

/// The report of an evaluation, with located anomalies.
pub(crate) struct EvaluationReport<'a> {
    /// Height and width of the network's input.
    input: String,
    locator: Option<Locator<'a>>,
    pub(crate) images: ReportBuilder,
    /// Why an image could not be added.
    failure: Option<anyhow::Error>,
}

impl<'a> EvaluationReport<'a> {
    /// An empty report on `detector` with the decision `calibration`.
    pub(crate) fn new(detector: &'a FittedDetector, calibration: &Calibration, limits: Limits) -> anyhow::Result<Self> {
        let locator = Locator::new(detector, calibration, RegionOptions::default())?;
        let images = ReportBuilder::new(limits, locator.as_ref().map(|locator| locator.scales().colors));
        Ok(Self { input: detector.info().input_in_words(), locator, images, failure: None })
    }

    /// Adds one image; [`write`](Self::write) returns the first error.
    pub(crate) fn record(&mut self, outcome: &Outcome<'_>) {
        if self.failure.is_none() {
            self.failure = self.add(outcome).err();
        }
    }

    fn add(&mut self, outcome: &Outcome<'_>) -> anyhow::Result<()> {
        let located = self.locator.as_ref().map(|locator| locator.locate(outcome)).transpose()?.flatten();
        self.images.add(outcome, located.as_ref())
    }

    /// Writes the page; `notes` appear at the top.
    pub(crate) fn write(
        self,
        path: &Path,
        evaluated: &Evaluated,
        calibration: &Calibration,
        notes: &[&str],
    ) -> anyhow::Result<()> {
        let Self { input, images: ReportBuilder { map_range, explained_at, items, skipped, .. }, failure, .. } = self;
        failure.map_or(Ok(()), Err)?;
        let figures = &evaluated.figures;
        let timing = &figures.timing;
        let mut summary = facts([
            ("data set", figures.dataset.clone()),
            ("method", figures.method.clone()),
            ("backbone", figures.backbone.clone().unwrap_or_default()),
            ("input", input),
            ("training images", figures.n_train.to_string()),
            ("test images", format!("{} normal, {} anomalous", figures.n_test.normal, figures.n_test.anomalous)),
            ("seed", figures.seed.to_string()),
        ]);
        if let Some(fit_s) = timing.fit_s {
            summary.extend(facts([("time to fit", seconds(fit_s))]));
        }
        let per_image = significant(timing.predict_ms_per_image_median, 3);
        summary.extend(facts([("time to score", format!("{per_image} ms an image (median)"))]));
        let undecided = calibration
            .unattainable()
            .map(|reason| format!("No image is decided on, because there is no threshold: {reason}."));
        let report = Report {
            title: figures.dataset.clone(),
            subtitle: format!("{} on {}", figures.method, figures.backbone.as_deref().unwrap_or("rows")),
            notes: notes.iter().map(|&note| note.to_owned()).chain(undecided).collect(),
            summary,
            figures: headline(figures),
            threshold: threshold(calibration),
            pixel: pixel_curves(evaluated),
            by_kind: by_kind(&items, figures),
            items,
            map_range,
            explained_at,
            skipped,
        };
        Ok(write_atomic(path, render(&report)?.as_bytes())?)
    }
}

fn region_box(region: &Region) -> RegionBox {
    let &Region { x, y, width, height, area, peak, .. } = region;
    RegionBox { x, y, width, height, area: area as u64, peak }
}

fn pixel_curves(evaluated: &Evaluated) -> Option<MapCurves> {
    let (curves, figures) = (evaluated.curves.as_ref()?, evaluated.figures.pixel?);
    let curve = |fpr: &[f64], rate: &[f64], area| PixelCurve { fpr: fpr.to_vec(), rate: rate.to_vec(), area };
    Some(MapCurves {
        roc: curve(&curves.roc.fpr, &curves.roc.tpr, figures.auroc),
        pro: curve(&curves.pro.fpr, &curves.pro.pro, figures.aupro),
        max_fpr: PRO_LIMIT,
    })
}

fn facts<const N: usize>(facts: [(&str, String); N]) -> Vec<(String, String)> {
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn threshold(calibration: &Calibration) -> Option<Threshold> {
    let value = calibration.threshold()?;
    // The only rule that guarantees its rate in any sample.
    let max_fpr = match calibration.rule() {
        DecisionRule::MaxFpr(rate) => Some(rate),
        _ => None,
    };
    Some(Threshold { value, rule: calibration.describe(), max_fpr })
}

fn headline(figures: &Evaluation) -> Vec<Figure> {
    let figure = |name: &str, value: f64, meaning: &str| Figure {
        name: name.to_owned(),
        value: percent(value),
        meaning: meaning.to_owned(),
    };
    let mut headline = Vec::new();
    if let Some(image) = &figures.image {
        headline.extend([
            figure("AUROC", image.auroc, "how often an anomalous image scores higher than a normal one"),
            figure("average precision", image.ap, "the precision averaged over all recalls"),
            figure("F1-max", image.f1_max, "the best F1 of all thresholds, chosen by looking at the labels"),
            figure("EER", image.eer, "the error rate where false alarms and misses are equally frequent"),
        ]);
    }
    let threshold = &figures.threshold;
    let found = "the share of the anomalous images above the threshold";
    headline.extend(threshold.tpr.map(|tpr| figure("found", tpr, found)));
    let alarms = "the share of the normal images above the threshold";
    headline.extend(threshold.fpr.map(|fpr| figure("false alarms", fpr, alarms)));
    if let Some(reference) = &figures.supervised_reference {
        let meaning = "AUROC of logistic regression that has seen labels of the test set: no anomaly detector";
        headline.push(figure("supervised reference", reference.auroc, meaning));
    }
    if let Some(pixel) = &figures.pixel {
        headline.push(figure("pixel AUROC", pixel.auroc, "how often a defective pixel scores higher than a good one"));
        headline.push(figure("AUPRO", pixel.aupro, "the share of each defect covered, up to 30 % false pixels"));
    }
    headline
}

/// One row per kind, sorted by name, normal kinds first.
fn by_kind(items: &[Item], figures: &Evaluation) -> Vec<KindRow> {
    let mut rows: std::collections::BTreeMap<(bool, &str), KindRow> = std::collections::BTreeMap::new();
    for item in items {
        let (Some(kind), Some(label)) = (&item.kind, item.label) else { continue };
        let row = rows.entry((label, kind)).or_insert_with(|| KindRow {
            kind: kind.clone(),
            auroc: figures.by_kind.get(kind).filter(|_| label).map(|ranking| ranking.auroc),
            ..KindRow::default()
        });
        row.n += 1;
        row.flagged += usize::from(item.decision == Decision::Anomalous);
    }
    rows.into_values().collect()
}
