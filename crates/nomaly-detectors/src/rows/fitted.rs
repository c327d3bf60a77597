//! Fitted detectors of rows.

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use nomaly_data::tables::Table;
use nomaly_methods::{MethodError, MethodScore, Skipped, Stage};
use nomaly_nn::runtime::Executor;
use nomaly_registry::UnknownName;
use nomaly_store::Progress;

use super::model::RowScorer;
use super::scaling::{SCALING, Scaling};
use crate::calibration::DecisionRule;
use crate::decider::Decider;
use crate::error::DetectorError;
use crate::fitted::sealed::Ours;
use crate::fitted::{Fitted, Model};
use crate::info::RowsInfo;
use crate::judge::{Fault, fault, is_about_values};
use crate::model_file::Stored;
use crate::outcome::Prediction;

/// Rows per block; cancellation is checked between blocks.
const BLOCK: usize = 8192;

/// Options of scoring rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowPredictOptions {
    /// A decision rule in place of the model's own.
    pub rule: Option<DecisionRule>,
    /// Whether the first unusable row ends the run.
    pub strict: bool,
}

/// One row of a run over many.
#[derive(Clone, Debug, PartialEq)]
pub struct RowOutcome {
    /// The number of the row, from 1.
    pub row: usize,
    /// The prediction, or why there is none.
    pub result: Result<Prediction, Skipped>,
}

/// A fitted detector of rows.
pub type FittedRows = Fitted<ForRows>;

/// The fitted model of rows: a scale for each column, and a scorer.
pub struct ForRows {
    pub(super) scaling: Scaling,
    pub(super) scorer: RowScorer,
}

impl Ours for ForRows {}

impl Model for ForRows {
    type Info = RowsInfo;

    fn stored(&self) -> Result<Stored, DetectorError> {
        let scaling = vec![(SCALING.to_owned(), self.scaling.state())];
        Ok(Stored { states: [scaling, self.scorer.states()].concat(), ..Stored::default() })
    }

    fn restore(info: &RowsInfo, stored: Stored, _: &Executor) -> Result<Self, DetectorError> {
        let mut states = stored.states;
        let damaged = |reason| DetectorError::from(MethodError::State { state: SCALING.to_owned(), reason });
        info.check_columns()?;
        if states.first().is_none_or(|(name, state)| name != SCALING || state.kind != SCALING) {
            return Err(damaged(None));
        }
        let (_, scaling) = states.remove(0);
        let scaling = Scaling::from_state(scaling, info.dim)?;
        let scorer = RowScorer::restore(&info.scorer, &states)?;
        if scorer.dim() != info.dim {
            let reason = format!("the scorer has {} columns, and the model {}", scorer.dim(), info.dim);
            return Err(damaged(Some(reason)));
        }
        Ok(Self { scaling, scorer })
    }

    fn class_names(&self) -> &[String] {
        if let RowScorer::Classes(model) = &self.scorer { model.classes() } else { &[] }
    }
}

impl FittedRows {
    /// Scores the rows of `table` in order. Columns are matched by name if both the model and the table have names.
    ///
    /// An unusable row is an outcome too, except in strict mode. A row whose score is not finite is [`Skipped`] with
    /// the kind `non-finite-score`.
    ///
    /// # Errors
    /// Missing or unknown columns, cancellation, and an unusable row in strict mode.
    pub fn predict(
        &self,
        table: &Table,
        options: &RowPredictOptions,
        progress: &dyn Progress,
    ) -> Result<Vec<RowOutcome>, DetectorError> {
        let decider = self.decider_under(options.rule)?;
        let order = self.order(table)?;
        let (usable, skipped) = usable(table, None, options.strict)?;
        let stage = Stage::start(progress, "scoring rows", Some(usable.len()));
        let mut judged: Vec<Result<Prediction, Fault>> = Vec::with_capacity(usable.len());
        for block in usable.chunks(BLOCK) {
            if progress.cancelled() {
                return Err(DetectorError::from(MethodError::Cancelled));
            }
            let mut rows = table.rows.select(Axis(0), block);
            if let Some(order) = &order {
                rows = rows.select(Axis(1), order);
            }
            let rows = self.model.scaling.apply(rows.view());
            let judge = |rows: ArrayView2<'_, f32>| self.judge(rows, &decider);
            match judge(rows.view()) {
                Ok(block) => judged.extend(block),
                // Score the rows one by one, so that the fault concerns only one of them.
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

    /// The model's columns of the rows of `table` whose cells are all finite, and the indices of these rows, ascending.
    ///
    /// # Errors
    /// Missing or unknown columns.
    pub fn usable_rows(&self, table: &Table) -> Result<(Array2<f32>, Vec<usize>), DetectorError> {
        let order = self.order(table)?;
        let (usable, _) = usable(table, None, false)?;
        let mut rows = table.rows.select(Axis(0), &usable);
        if let Some(order) = &order {
            rows = rows.select(Axis(1), order);
        }
        Ok((rows, usable))
    }

    /// The predictions for scaled rows, or the fault of a row whose score is not finite.
    fn judge(
        &self,
        rows: ArrayView2<'_, f32>,
        decider: &Decider,
    ) -> Result<Vec<Result<Prediction, Fault>>, DetectorError> {
        let scored: Vec<MethodScore> = match &self.model.scorer {
            RowScorer::Classes(model) => {
                let of_classes = |scores: ArrayView1<'_, f64>| {
                    let least = scores.iter().copied().fold(f64::INFINITY, f64::min);
                    MethodScore { parts: scores.to_vec(), ..MethodScore::whole(least) }
                };
                model.scores(rows)?.outer_iter().map(of_classes).collect()
            }
            RowScorer::Normal(scorer) => scorer.score(rows)?.into_iter().map(MethodScore::whole).collect(),
        };
        Ok(scored.into_iter().map(|scored| fault(&scored).map_or_else(|| Ok(decider.decide(scored)), Err)).collect())
    }

    /// The index in `table` of each of the model's columns; `None` if they are in the same order.
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
}

/// The rows whose cells are all finite, and with a label if `labels` are given; and why the others are skipped.
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
