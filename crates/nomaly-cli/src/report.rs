//! From outcomes and figures to the HTML report.

use std::path::Path;

use nomaly::detectors::evaluation::Evaluation;
use nomaly::detectors::model_file::ModelInfo;
use nomaly::store::write_atomic;
use nomaly::{Calibration, DecisionRule, Label, Limits, Outcome};
use nomaly_report::{Figure, Item, KindRow, Picture, Report, Skipped, Threshold, render};

use crate::output::{percent, seconds, significant};

/// The longest side of the decoded images that reports need, in pixels.
pub(crate) const PREVIEW_SIDE: u32 = nomaly_report::MAX_SIDE;

/// Collects images for a report as they are scored.
#[derive(Debug)]
pub(crate) struct ReportBuilder {
    limits: Limits,
    items: Vec<Item>,
    skipped: Vec<Skipped>,
}

impl ReportBuilder {
    /// An empty report whose masks are read within `limits`.
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, items: Vec::new(), skipped: Vec::new() }
    }

    /// Takes one image, with its preview where there is one.
    pub(crate) fn add(&mut self, outcome: &Outcome<'_>) {
        let sample = outcome.sample;
        match &outcome.result {
            Ok(prediction) => self.items.push(Item {
                id: sample.id.clone(),
                kind: (sample.label != Label::Unknown).then(|| sample.kind.clone()),
                label: match sample.label {
                    Label::Normal => Some(false),
                    Label::Anomalous => Some(true),
                    Label::Unknown => None,
                },
                score: prediction.score,
                p_value: Some(prediction.p_value),
                anomalous: Some(prediction.anomalous),
                thumbnail: outcome.preview.as_ref().and_then(|image| Picture::photo(image).ok()),
                // A mask only illustrates: one that cannot be read is left out of the page.
                mask: sample
                    .mask
                    .as_ref()
                    .and_then(|mask| mask.load(&self.limits).ok())
                    .and_then(|mask| Picture::mask(&mask).ok()),
                ..Item::default()
            }),
            Err(skipped) => {
                self.skipped.push(Skipped { path: skipped.id.clone(), reason: skipped.message.clone() });
            }
        }
    }

    /// Writes the report of a scoring run.
    pub(crate) fn write_scores(self, path: &Path, info: &ModelInfo, calibration: &Calibration) -> anyhow::Result<()> {
        let anomalous = self.items.iter().filter(|item| item.anomalous == Some(true)).count();
        let [height, width] = info.pipeline.output_size();
        let report = Report {
            title: format!("{anomalous} of {} images anomalous", self.items.len()),
            subtitle: format!("scored by {} on {}", info.method.name, info.backbone.name),
            summary: facts([
                ("method", info.method.name.clone()),
                ("backbone", info.backbone.name.clone()),
                ("input", format!("{height}×{width} pixels")),
                ("trained on", format!("{} images of {}", info.training.images, info.training.dataset)),
            ]),
            threshold: threshold(calibration),
            items: self.items,
            skipped: self.skipped,
            ..Report::default()
        };
        Ok(write_atomic(path, render(&report)?.as_bytes())?)
    }

    /// Writes the report of an evaluation; `notes` are what the reader must know first.
    pub(crate) fn write_evaluation(
        self,
        path: &Path,
        figures: &Evaluation,
        calibration: &Calibration,
        notes: &[&str],
    ) -> anyhow::Result<()> {
        let timing = &figures.timing;
        let mut summary = facts([
            ("data set", figures.dataset.clone()),
            ("method", figures.method.clone()),
            ("backbone", figures.backbone.clone()),
            ("training images", figures.n_train.to_string()),
            ("test images", format!("{} normal, {} anomalous", figures.n_test.normal, figures.n_test.anomalous)),
            ("seed", figures.seed.to_string()),
        ]);
        if let Some(fit_s) = timing.fit_s {
            summary.extend(facts([("time to fit", seconds(fit_s))]));
        }
        let per_image = significant(timing.predict_ms_per_image_median, 3);
        summary.extend(facts([("time to score", format!("{per_image} ms an image (median)"))]));
        let report = Report {
            title: figures.dataset.clone(),
            subtitle: format!("{} on {}", figures.method, figures.backbone),
            notes: notes.iter().map(|&note| note.to_owned()).collect(),
            summary,
            figures: headline(figures),
            threshold: threshold(calibration),
            by_kind: by_kind(&self.items, figures),
            items: self.items,
            skipped: self.skipped,
            ..Report::default()
        };
        Ok(write_atomic(path, render(&report)?.as_bytes())?)
    }
}

fn facts<const N: usize>(facts: [(&str, String); N]) -> Vec<(String, String)> {
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn threshold(calibration: &Calibration) -> Option<Threshold> {
    let value = calibration.threshold()?;
    let max_fpr = match calibration.rule() {
        DecisionRule::MaxFpr(rate) => Some(rate),
        DecisionRule::Threshold(_) => None,
    };
    Some(Threshold { value, rule: calibration.describe(), max_fpr })
}

fn headline(figures: &Evaluation) -> Vec<Figure> {
    let figure = |name: &str, value: f64, meaning: &str| Figure {
        name: name.to_owned(),
        value: percent(value),
        meaning: meaning.to_owned(),
    };
    let image = &figures.image;
    let mut headline = vec![
        figure("AUROC", image.auroc, "how often an anomalous image scores higher than a normal one"),
        figure("average precision", image.ap, "the precision averaged over all recalls"),
        figure("F1-max", image.f1_max, "the best F1 of all thresholds, chosen by looking at the labels"),
        figure("EER", image.eer, "the error rate where false alarms and misses are equally frequent"),
        figure("found", figures.threshold.tpr, "the share of the anomalous images above the threshold"),
        figure("false alarms", figures.threshold.fpr, "the share of the normal images above the threshold"),
    ];
    if let Some(pixel) = &figures.pixel {
        headline.push(figure("pixel AUROC", pixel.auroc, "how often a defective pixel scores higher than a good one"));
        headline.push(figure("AUPRO", pixel.aupro, "the share of each defect covered, up to 30 % false pixels"));
    }
    headline
}

/// One row for the normal images' kinds and one for each kind of anomaly, sorted by name, normal kinds first.
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
        row.flagged += usize::from(item.anomalous == Some(true));
    }
    rows.into_values().collect()
}
