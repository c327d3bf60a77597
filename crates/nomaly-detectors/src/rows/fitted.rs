//! A detector that has learned what normal rows are.

use std::path::Path;

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use nomaly_data::tables::Table;
use nomaly_methods::{MethodError, Skipped, Stage};
use nomaly_registry::UnknownName;
use nomaly_store::Progress;
use serde::Serialize;

use super::model::Model;
use super::scaling::{SCALING, Scaling};
use crate::calibration::{Calibration, DecisionRule};
use crate::classes::{Classes, Recognition};
use crate::error::DetectorError;
use crate::info::RowsInfo;
use crate::judge::{Fault, is_about_values};
use crate::model_file::{self, HeldOutScores, RowParts};

/// Rows that are scored between two looks at the progress.
const BLOCK: usize = 8192;

/// How rows are scored.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowPredictOptions {
    /// A decision rule in place of the model's own.
    pub rule: Option<DecisionRule>,
    /// Whether the first row that cannot be used ends the run.
    pub strict: bool,
}

/// What a fitted detector says of a row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RowPrediction {
    /// The anomaly score, *higher = more anomalous*; its scale belongs to the scorer.
    pub score: f64,
    /// The conformal p-value in (0, 1]; that in the closest class, for models of classes.
    pub p_value: f64,
    /// The decision; whether the row is unknown, for models of classes. `None` where the model has no threshold to
    /// decide by.
    pub anomalous: Option<bool>,
    /// Which class the row was taken for, by models of [classes](FittedRows::classes).
    #[serde(skip)]
    pub recognition: Option<Recognition>,
}

/// One row of a run over many.
#[derive(Clone, Debug, PartialEq)]
pub struct RowOutcome {
    /// The row, from 1.
    pub row: usize,
    /// What the detector says, or why it cannot.
    pub result: Result<RowPrediction, Skipped>,
}

/// A detector that has learned what normal rows are.
pub struct FittedRows {
    pub(super) info: RowsInfo,
    pub(super) calibration: Calibration,
    /// Present where the model tells classes apart.
    pub(super) classes: Option<Classes>,
    pub(super) scaling: Scaling,
    pub(super) model: Model,
}

impl FittedRows {
    /// What it is made of and what it was fitted on.
    pub fn info(&self) -> &RowsInfo {
        &self.info
    }

    /// Its decision rule and held-out scores. A model of classes decides by its [classes](Self::classes); this holds
    /// the held-out scores under the closest class then.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// The classes that it knows, with the decision for each; `None` for models of normal rows alone.
    pub fn classes(&self) -> Option<&Classes> {
        self.classes.as_ref()
    }

    /// Its classes under the rule that `options` ask for.
    ///
    /// # Errors
    /// A [rule](DecisionRule::checked) out of range.
    pub fn classes_for(&self, options: &RowPredictOptions) -> Result<Option<Classes>, DetectorError> {
        let with_rule =
            |classes: &Classes| options.rule.map_or_else(|| Ok(classes.clone()), |rule| classes.with_rule(rule));
        self.classes.as_ref().map(with_rule).transpose()
    }

    /// Its calibration under the rule that `options` ask for.
    ///
    /// # Errors
    /// A [rule](DecisionRule::checked) out of range.
    pub fn calibration_for(&self, options: &RowPredictOptions) -> Result<Calibration, DetectorError> {
        options.rule.map_or_else(|| Ok(self.calibration.clone()), |rule| self.calibration.with_rule(rule))
    }

    /// Scores the rows of `table` in order. Columns are matched by name where both the model and the table have names.
    ///
    /// A row that cannot be used is an outcome too, unless the options are strict. So is one whose score is not a
    /// finite number: it is [`Skipped`] with the kind `non-finite-score`.
    ///
    /// # Errors
    /// Columns that are missing or not known, cancellation, and a bad row where the options are strict.
    pub fn predict(
        &self,
        table: &Table,
        options: &RowPredictOptions,
        progress: &dyn Progress,
    ) -> Result<Vec<RowOutcome>, DetectorError> {
        let calibration = self.calibration_for(options)?;
        let classes = self.classes_for(options)?;
        let order = self.order(table)?;
        let (usable, skipped) = usable(table, None, options.strict)?;
        let stage = Stage::start(progress, "scoring rows", Some(usable.len()));
        let mut judged: Vec<Result<RowPrediction, Fault>> = Vec::with_capacity(usable.len());
        for block in usable.chunks(BLOCK) {
            if progress.cancelled() {
                return Err(DetectorError::from(MethodError::Cancelled));
            }
            let mut rows = table.rows.select(Axis(0), block);
            if let Some(order) = &order {
                rows = rows.select(Axis(1), order);
            }
            let rows = self.scaling.apply(rows.view());
            let judge = |rows: ArrayView2<'_, f32>| self.judge(rows, &calibration, classes.as_ref());
            match judge(rows.view()) {
                Ok(block) => judged.extend(block),
                // The other rows of the block are not to blame.
                Err(DetectorError::Method(error)) if is_about_values(&error) => {
                    for row in 0..rows.nrows() {
                        match judge(rows.select(Axis(0), &[row]).view()) {
                            Ok(row) => judged.extend(row),
                            Err(DetectorError::Method(error)) if is_about_values(&error) => {
                                judged.push(Err(Fault(error.to_string())));
                            }
                            Err(error) => return Err(error),
                        }
                    }
                }
                Err(error) => return Err(error),
            }
            stage.advance(block.len());
        }
        let mut judged = usable.into_iter().zip(judged).peekable();
        let mut skipped = skipped.into_iter();
        let mut outcomes = Vec::with_capacity(table.rows.nrows());
        for row in 0..table.rows.nrows() {
            let result = match judged.next_if(|(usable, _)| *usable == row) {
                Some((_, judged)) => judged.map_err(|fault| fault.of(&format!("row {}", row + 1))),
                None => Err(skipped.next().expect("every other row was skipped")),
            };
            match result {
                Err(skipped) if options.strict => return Err(DetectorError::from(MethodError::BadImage { skipped })),
                result => outcomes.push(RowOutcome { row: row + 1, result }),
            }
        }
        Ok(outcomes)
    }

    /// The columns of the model of those rows of `table` whose cells are all finite, and their places, ascending.
    ///
    /// # Errors
    /// Columns that are missing or not known.
    pub fn usable_rows(&self, table: &Table) -> Result<(Array2<f32>, Vec<usize>), DetectorError> {
        let order = self.order(table)?;
        let (usable, _) = usable(table, None, false)?;
        let mut rows = table.rows.select(Axis(0), &usable);
        if let Some(order) = &order {
            rows = rows.select(Axis(1), order);
        }
        Ok((rows, usable))
    }

    /// What is said of rows on one scale; the fault of a row whose score is not finite.
    fn judge(
        &self,
        rows: ArrayView2<'_, f32>,
        calibration: &Calibration,
        classes: Option<&Classes>,
    ) -> Result<Vec<Result<RowPrediction, Fault>>, DetectorError> {
        let finite = |scores: &[f64]| match scores.iter().find(|score| !score.is_finite()) {
            Some(score) => Err(Fault::of_score(*score)),
            None => Ok(()),
        };
        match (&self.model, classes) {
            (Model::Classes(model), Some(classes)) => {
                let scores = model.scores(rows)?;
                let judge = |scores: ArrayView1<'_, f64>| {
                    let scores = scores.to_vec();
                    finite(&scores)?;
                    let found = classes.recognise(&scores);
                    Ok(RowPrediction {
                        score: found.score,
                        p_value: found.p_value,
                        anomalous: found.unknown,
                        recognition: Some(found),
                    })
                };
                Ok(scores.outer_iter().map(judge).collect())
            }
            (Model::Classes(_), None) => Err(DetectorError::no_classes()),
            (Model::Normal(scorer), _) => {
                let judge = |score: f64| {
                    finite(&[score])?;
                    Ok(RowPrediction {
                        score,
                        p_value: calibration.p_value(score),
                        anomalous: calibration.decide(score),
                        recognition: None,
                    })
                };
                Ok(scorer.score(rows)?.into_iter().map(judge).collect())
            }
        }
    }

    /// The place in `table` of each of the model's columns; `None` where they stand in the same order.
    fn order(&self, table: &Table) -> Result<Option<Vec<usize>>, DetectorError> {
        let (Some(known), Some(names)) = (&self.info.columns, &table.columns) else {
            let found = table.rows.ncols();
            let expected = self.info.dim;
            return if found == expected {
                Ok(None)
            } else {
                let reason = format!("it has {found} columns, and the model was fitted on {expected}");
                Err(DetectorError::Table { reason: format!("{}: {reason}", table.name) })
            };
        };
        if known == names {
            return Ok(None);
        }
        let refuse = |reason: String| DetectorError::Table { reason: format!("{}: {reason}", table.name) };
        if let Some(name) = names.iter().find(|name| !known.contains(name)) {
            let unknown = UnknownName::new("column", name, known.iter().map(String::as_str));
            return Err(refuse(format!("{unknown} (`--ignore {name}` leaves it out)")));
        }
        let place = |name: &String| {
            let place = names.iter().position(|other| other == name);
            place.ok_or_else(|| refuse(format!("column `{name}` is missing, and the model was fitted on it")))
        };
        known.iter().map(place).collect::<Result<Vec<_>, _>>().map(Some)
    }

    pub(crate) fn info_mut(&mut self) -> &mut RowsInfo {
        &mut self.info
    }

    pub(crate) fn set_calibration(&mut self, calibration: Calibration, classes: Option<Classes>) {
        self.calibration = calibration;
        self.classes = classes;
    }

    /// Writes the model file, atomically.
    ///
    /// # Errors
    /// A place that cannot be written to.
    pub fn save(&self, path: &Path) -> Result<(), DetectorError> {
        let states = [vec![(SCALING.to_owned(), self.scaling.state())], self.model.states()].concat();
        let held_out = HeldOutScores { calibration: &self.calibration, classes: self.classes.as_ref() };
        model_file::write_rows(path, &self.info, &states, held_out)
    }

    /// Reads a model file; nothing in it is executed, and everything in it is checked.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged, holds a model of images, or comes from a version that this one does not
    /// know.
    pub fn load(path: &Path) -> Result<Self, DetectorError> {
        let parts = model_file::read_rows(path)?;
        let refuse =
            |error: DetectorError| DetectorError::ModelFile { path: path.to_owned(), reason: error.to_string() };
        Self::from_parts(parts).map_err(refuse)
    }

    fn from_parts(parts: RowParts) -> Result<Self, DetectorError> {
        let RowParts { info, mut states, held_out, class_scores } = parts;
        let calibration = held_out.calibration(info.decision)?;
        let classes = model_file::stored_classes(&info.classes, class_scores, info.decision)?;
        let damaged = |reason: String| {
            DetectorError::from(MethodError::State { state: SCALING.to_owned(), reason: Some(reason) })
        };
        info.check_columns()?;
        if states.first().is_none_or(|(name, state)| name != SCALING || state.kind != SCALING) {
            return Err(DetectorError::from(MethodError::State { state: SCALING.to_owned(), reason: None }));
        }
        let (_, scaling) = states.remove(0);
        let scaling = Scaling::from_state(scaling, info.dim)?;
        let model = Model::restore(&info.scorer, &states)?;
        if model.dim() != info.dim {
            return Err(damaged(format!("the scorer has {} columns, and the model {}", model.dim(), info.dim)));
        }
        let told_apart = if let Model::Classes(model) = &model { model.classes() } else { &[] };
        model_file::check_classes(told_apart, &info.classes)?;
        Ok(Self { info, calibration, classes, scaling, model })
    }
}

/// The rows whose cells are all finite, and with a label where `labels` are given; and what is wrong with the others.
pub(super) fn usable(
    table: &Table,
    labels: Option<&[String]>,
    strict: bool,
) -> Result<(Vec<usize>, Vec<Skipped>), DetectorError> {
    let (mut usable, mut skipped) = (Vec::with_capacity(table.rows.nrows()), Vec::new());
    for (row, cells) in table.rows.outer_iter().enumerate() {
        let (kind, fault) = match cells.iter().position(|cell| !cell.is_finite()) {
            Some(column) if cells[column].is_nan() => {
                ("missing", format!("column `{}` is missing or not a number", table.column_name(column)))
            }
            Some(column) => ("infinite", format!("column `{}` is infinite", table.column_name(column))),
            None if labels.is_some_and(|labels| labels[row].is_empty()) => {
                ("missing", "the label is missing".to_owned())
            }
            None => {
                usable.push(row);
                continue;
            }
        };
        let id = format!("row {}", row + 1);
        let bad = Skipped { message: format!("{id}: {fault}"), id, kind: kind.to_owned() };
        if strict {
            return Err(DetectorError::from(MethodError::BadImage { skipped: bad }));
        }
        skipped.push(bad);
    }
    Ok((usable, skipped))
}
