//! Recalibration of a model with other held-out data or another rule.

use nomaly_data::Sample;
use nomaly_data::tables::Table;
use nomaly_methods::recognition::{HeldOutClass, closest};
use nomaly_methods::{GroupBy, Groups, HeldOut, MethodError, MethodScore, Skipped};
use nomaly_store::Progress;

use crate::calibration::Calibration;
use crate::classes::Classes;
use crate::decider::Decider;
use crate::images::{StreamOptions, Streamed};
use crate::model_file::StoredScores;
use crate::rows::{FittedRows, RowPredictOptions};
use crate::{DecisionRule, DetectorError, FittedDetector};

impl FittedDetector {
    /// Recalibrates the model on `samples`, good images outside its training data, grouped by `group_by`. `dataset` is
    /// their name.
    ///
    /// # Errors
    /// No usable image, a class without images, and the errors of [`predict`](FittedDetector::predict).
    pub fn calibrate(
        mut self,
        dataset: &str,
        samples: &[Sample],
        group_by: &GroupBy,
        rule: DecisionRule,
        options: StreamOptions,
        progress: &dyn Progress,
    ) -> Result<(Self, Vec<Skipped>), DetectorError> {
        let rule = rule.checked()?;
        let mut scored: Vec<MethodScore> = Vec::new();
        let Streamed { skipped, groups, .. } = {
            let fused = self.fused();
            let mut workspaces = fused.workspaces();
            let images = self.stream(samples, options).grouped(group_by);
            images.run_and_record(progress, "scoring images", &mut |batch| -> Result<(), DetectorError> {
                for mut image in fused.score(&batch.features, &mut workspaces)? {
                    // Only the largest value of a map is needed.
                    let most = HeldOut::new(0, &image).map_max;
                    image.map = None;
                    image.terms = most.into_iter().collect();
                    scored.push(image);
                }
                Ok(())
            })?;
            images.into_streamed()?
        };
        if scored.is_empty() {
            let method = self.info().method.name.clone();
            return Err(DetectorError::from(MethodError::TooFew {
                of: method,
                items: "training images",
                needed: 1,
                found: 0,
            }));
        }
        let classes = self.classes().map(|classes| by_class(classes, &scored, &groups, rule)).transpose()?;
        let held_out: Vec<HeldOut> = scored
            .iter()
            .enumerate()
            .map(|(image, score)| HeldOut {
                map_max: score.terms.first().copied(),
                ..HeldOut::scored(image, score.score)
            })
            .collect();
        let calibration = Calibration::of(&held_out, &groups, rule)?;
        self.decide_by(Decider::new(calibration, classes), Some(dataset.to_owned()));
        Ok((self, skipped))
    }
}

/// Calibrates each class by the items assigned to it.
fn by_class(
    classes: &Classes,
    scored: &[MethodScore],
    groups: &Groups,
    rule: DecisionRule,
) -> Result<Classes, DetectorError> {
    let mut held_out: Vec<HeldOutClass> = classes
        .known()
        .iter()
        .map(|class| HeldOutClass {
            class: class.clone(),
            scores: Vec::new(),
            groups: (!groups.is_trivial()).then(Vec::new),
        })
        .collect();
    for (item, score) in scored.iter().enumerate() {
        let class = closest(&score.parts);
        held_out[class].scores.push(score.parts[class]);
        if let Some(of) = &mut held_out[class].groups {
            of.push(groups.of()[item]);
        }
    }
    Classes::new(held_out, rule)
}

impl FittedRows {
    /// Recalibrates the model on the rows of `table`, good rows outside its training data, in the groups named in the
    /// table. For models without classes.
    ///
    /// # Errors
    /// A model of classes, no usable row, and the errors of [`predict`](FittedRows::predict).
    pub fn calibrate(
        mut self,
        table: &Table,
        rule: DecisionRule,
        strict: bool,
        progress: &dyn Progress,
    ) -> Result<(Self, Vec<Skipped>), DetectorError> {
        if self.classes().is_some() {
            let reason = "a model of classes of rows is calibrated when it is fitted".to_owned();
            return Err(DetectorError::from(MethodError::State { state: "classes".to_owned(), reason: Some(reason) }));
        }
        let options = RowPredictOptions { rule: None, strict };
        let (mut values, mut groups, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        for (row, outcome) in self.predict(table, &options, progress)?.into_iter().enumerate() {
            match outcome.result {
                Ok(prediction) => {
                    values.push(prediction.score);
                    groups.extend(table.groups.as_ref().map(|groups| groups[row].as_str()));
                }
                Err(bad) => skipped.push(bad),
            }
        }
        if values.is_empty() {
            let scorer = self.info().scorer.clone();
            return Err(DetectorError::from(MethodError::TooFew { of: scorer, items: "rows", needed: 1, found: 0 }));
        }
        let groups = table.groups.as_ref().map(|_| Groups::of_keys(groups).of().to_vec());
        let calibration = StoredScores { values, groups, map_maxima: None }.calibration(rule)?;
        self.decide_by(Decider::new(calibration, None), Some(table.name.clone()));
        Ok((self, skipped))
    }
}
