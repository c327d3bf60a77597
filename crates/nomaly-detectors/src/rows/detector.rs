//! A scorer on rows, before and after it has seen data.

use std::path::Path;

use ndarray::{ArrayView2, Axis};
use nomaly_data::tables::Table;
use nomaly_registry::UnknownName;
use nomaly_scorers::{Params, SCORERS, Scorer, ScorerEntry, State, Watch, restore};
use nomaly_store::Progress;
use serde::Serialize;

use super::model::{RowsInfo, RowsTraining};
use super::scaling::{SCALING, Scaling, Standardise};
use crate::calibration::{Calibration, DEFAULT_MAX_FPR, DecisionRule, splits};
use crate::model_file::{self, RowParts};
use crate::{DetectorError, Parameter, Settings, Skipped};

/// The scorer where none is named.
pub const DEFAULT_SCORER: &str = "neighbours";
/// The settings of the default scorer where it is used on rows: the distance to the fifth nearest row.
const NEIGHBOURS: [(&str, &str); 3] = [("k", "5"), ("distance", "l2"), ("aggregation", "kth")];
/// Rows that are scored between two looks at the progress.
const BLOCK: usize = 8192;
/// The state of the scorer, beside that of the scaling.
const SCORER: &str = "scorer";

/// The settings of rows, beside those of the scorer.
pub const ROW_PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "scorer",
        default: DEFAULT_SCORER,
        values: "a name of `nomaly list scorers`",
        summary: "what scores the rows",
    },
    Parameter {
        name: "standardise",
        default: "z",
        values: Standardise::ALLOWED,
        summary: "how columns are brought to one scale",
    },
];

/// A scorer with settings that it knows: ready to be fitted.
pub struct RowDetector {
    entry: &'static ScorerEntry,
    params: Params,
    standardise: Standardise,
}

/// How a detector of rows is fitted.
#[derive(Clone, Copy, Debug)]
pub struct RowFitOptions {
    /// Decides every random choice.
    pub seed: u64,
    /// The decision rule that the model starts with.
    pub rule: DecisionRule,
    /// Whether the first row that cannot be used ends the fit.
    pub strict: bool,
}

impl Default for RowFitOptions {
    fn default() -> Self {
        Self { seed: 0, rule: DecisionRule::MaxFpr(DEFAULT_MAX_FPR), strict: false }
    }
}

/// How rows are scored.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowPredictOptions {
    /// A decision rule in place of the model's own.
    pub rule: Option<DecisionRule>,
    /// Whether the first row that cannot be used ends the run.
    pub strict: bool,
}

/// What a fit on rows gives.
pub struct RowFit {
    /// The fitted detector.
    pub detector: FittedRows,
    /// Rows that could not be used.
    pub skipped: Vec<Skipped>,
}

/// What a fitted detector says of a row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RowPrediction {
    /// The anomaly score, *higher = more anomalous*; its scale belongs to the scorer.
    pub score: f64,
    /// The conformal p-value in (0, 1].
    pub p_value: f64,
    /// The decision.
    pub anomalous: bool,
}

/// One row of a run over many.
#[derive(Clone, Debug, PartialEq)]
pub struct RowOutcome {
    /// The row, from 1.
    pub row: usize,
    /// What the detector says, or why it cannot.
    pub result: Result<RowPrediction, Skipped>,
}

impl RowDetector {
    /// Checks settings: `scorer`, `standardise`, and whatever the scorer takes.
    ///
    /// # Errors
    /// A scorer or a setting that is not known, a way to standardise that there is none of. The values of the scorer's
    /// own settings are checked when it is fitted.
    pub fn new(settings: &Settings) -> Result<Self, DetectorError> {
        let entry = SCORERS.get(settings.get("scorer").unwrap_or(DEFAULT_SCORER))?;
        settings.check_known(&[ROW_PARAMETERS, entry.parameters])?;
        let standardise = settings.value("standardise", Standardise::default(), Standardise::ALLOWED)?;
        let mut params: Params = entry.parameters.iter().map(|parameter| (parameter.name, parameter.default)).collect();
        if entry.name == DEFAULT_SCORER {
            NEIGHBOURS.iter().for_each(|(name, value)| params.set(name, value));
        }
        let own = settings.iter().filter(|(name, _)| ROW_PARAMETERS.iter().all(|parameter| parameter.name != *name));
        own.for_each(|(name, value)| params.set(name, value));
        Ok(Self { entry, params, standardise })
    }

    /// Learns what is normal from the rows of `table`, all of which are taken to be good whatever their label says.
    ///
    /// Rows with cells that are missing or not finite are left out.
    ///
    /// # Errors
    /// Values that the scorer does not take, too few usable rows, cancellation, and a bad row where the options are strict.
    pub fn fit(
        mut self,
        table: &Table,
        options: &RowFitOptions,
        progress: &dyn Progress,
    ) -> Result<RowFit, DetectorError> {
        let rule = options.rule.checked()?;
        if self.entry.takes("seed") && self.params.iter().all(|(name, value)| name != "seed" || value == "0") {
            self.params.set("seed", options.seed);
        }
        let (usable, skipped) = usable(table, options.strict)?;
        let (needed, found) = (2, usable.len());
        if found < needed {
            return Err(DetectorError::TooFewRows { scorer: self.entry.name.to_owned(), needed, found });
        }
        let rows = if found == table.rows.nrows() { None } else { Some(table.rows.select(Axis(0), &usable)) };
        let rows = rows.as_ref().map_or_else(|| table.rows.view(), |rows| rows.view());
        let held_out = self.held_out(rows, options.seed, progress)?;
        progress.start("fitting on all rows", None);
        let fitted = self.fit_part(rows, progress);
        progress.finish();
        let (scaling, scorer) = fitted?;
        let settings =
            self.params.iter().fold(Settings::default(), |settings, (name, value)| settings.with(name, value));
        let info = RowsInfo {
            scorer: self.entry.name.to_owned(),
            settings: settings.with("standardise", self.standardise),
            columns: table.columns.clone(),
            dim: rows.ncols(),
            decision: rule,
            training: RowsTraining {
                dataset: table.name.clone(),
                rows: rows.nrows(),
                skipped: skipped.len(),
                seed: options.seed,
            },
        };
        let calibration = Calibration::new(held_out, rule)?;
        Ok(RowFit { detector: FittedRows { info, calibration, scaling, scorer }, skipped })
    }

    fn fit_part(
        &self,
        rows: ArrayView2<'_, f32>,
        progress: &dyn Progress,
    ) -> Result<(Scaling, Box<dyn Scorer>), DetectorError> {
        let scaling = Scaling::fit(rows, self.standardise);
        let stop = || progress.cancelled();
        let scorer = self.entry.fit_watched(&self.params, scaling.apply(rows).view(), Watch::new(&stop))?;
        Ok((scaling, scorer))
    }

    fn held_out(
        &self,
        rows: ArrayView2<'_, f32>,
        seed: u64,
        progress: &dyn Progress,
    ) -> Result<Vec<f64>, DetectorError> {
        let total = splits(rows.nrows(), seed).len() as u64;
        progress.start("calibrating", Some(total));
        let scores = crate::calibration::held_out_scores(rows.nrows(), seed, |train, test| {
            let (scaling, scorer) = self.fit_part(rows.select(Axis(0), train).view(), progress)?;
            if progress.cancelled() {
                return Err(DetectorError::Cancelled);
            }
            let scores = scorer.score(scaling.apply(rows.select(Axis(0), test).view()).view())?;
            progress.advance(1);
            Ok(scores)
        });
        progress.finish();
        scores
    }
}

/// The rows whose cells are all finite, and what is wrong with the others.
fn usable(table: &Table, strict: bool) -> Result<(Vec<usize>, Vec<Skipped>), DetectorError> {
    let (mut usable, mut skipped) = (Vec::with_capacity(table.rows.nrows()), Vec::new());
    for (row, cells) in table.rows.outer_iter().enumerate() {
        match cells.iter().position(|cell| !cell.is_finite()) {
            None => usable.push(row),
            Some(column) => {
                let id = format!("row {}", row + 1);
                let what = if cells[column].is_nan() { "missing or not a number" } else { "infinite" };
                let message = format!("{id}: column `{}` is {what}", table.column_name(column));
                let kind = if cells[column].is_nan() { "missing" } else { "infinite" };
                let bad = Skipped { id, kind: kind.to_owned(), message };
                if strict {
                    return Err(DetectorError::BadImage { skipped: bad });
                }
                skipped.push(bad);
            }
        }
    }
    Ok((usable, skipped))
}

/// A detector that has learned what normal rows are.
pub struct FittedRows {
    info: RowsInfo,
    calibration: Calibration,
    scaling: Scaling,
    scorer: Box<dyn Scorer>,
}

impl FittedRows {
    /// What it is made of and what it was fitted on.
    pub fn info(&self) -> &RowsInfo {
        &self.info
    }

    /// Its decision rule and held-out scores.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
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
    /// A row that cannot be used is an outcome too, unless the options are strict.
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
        let order = self.order(table)?;
        let (usable, skipped) = usable(table, options.strict)?;
        progress.start("scoring rows", Some(usable.len() as u64));
        let scores = self.score(table, order.as_deref(), &usable, progress);
        progress.finish();
        let prediction = |score: f64| RowPrediction {
            score,
            p_value: calibration.p_value(score),
            anomalous: calibration.is_anomalous(score),
        };
        let mut scores = usable.into_iter().zip(scores?).peekable();
        let mut skipped = skipped.into_iter();
        let outcomes = (0..table.rows.nrows()).filter_map(|row| {
            let result = match scores.next_if(|(usable, _)| *usable == row) {
                Some((_, score)) => Ok(prediction(score)),
                None => Err(skipped.next()?),
            };
            Some(RowOutcome { row: row + 1, result })
        });
        Ok(outcomes.collect())
    }

    fn score(
        &self,
        table: &Table,
        order: Option<&[usize]>,
        usable: &[usize],
        progress: &dyn Progress,
    ) -> Result<Vec<f64>, DetectorError> {
        let mut scores = Vec::with_capacity(usable.len());
        for block in usable.chunks(BLOCK) {
            if progress.cancelled() {
                return Err(DetectorError::Cancelled);
            }
            let mut rows = table.rows.select(Axis(0), block);
            if let Some(order) = order {
                rows = rows.select(Axis(1), order);
            }
            scores.extend(self.scorer.score(self.scaling.apply(rows.view()).view())?);
            progress.advance(block.len() as u64);
        }
        Ok(scores)
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
                Err(DetectorError::Columns { table: table.name.clone(), reason })
            };
        };
        if known == names {
            return Ok(None);
        }
        let refuse = |reason: String| DetectorError::Columns { table: table.name.clone(), reason };
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

    /// Writes the model file, atomically.
    ///
    /// # Errors
    /// A place that cannot be written to.
    pub fn save(&self, path: &Path) -> Result<(), DetectorError> {
        let states = [(SCALING.to_owned(), self.scaling.state()), (SCORER.to_owned(), self.scorer.state())];
        model_file::write_rows(path, &self.info, &states, &self.calibration)
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

    fn from_parts(RowParts { info, states, held_out }: RowParts) -> Result<Self, DetectorError> {
        let calibration = Calibration::new(held_out, info.decision)?;
        let damaged = |reason: String| DetectorError::State { state: SCALING.to_owned(), reason };
        info.check_columns()?;
        let [(scaling_name, scaling), (scorer_name, scorer)]: [(String, State); 2] =
            states.try_into().map_err(|_| DetectorError::MissingState { name: SCORER.to_owned() })?;
        if scaling_name != SCALING || scaling.kind != SCALING || scorer_name != SCORER || scorer.kind != info.scorer {
            return Err(DetectorError::MissingState { name: SCORER.to_owned() });
        }
        let scaling = Scaling::from_state(scaling, info.dim)?;
        let scorer = restore(&scorer)?;
        if scorer.dim() != info.dim {
            return Err(damaged(format!("the scorer has {} columns, and the model {}", scorer.dim(), info.dim)));
        }
        Ok(Self { info, calibration, scaling, scorer })
    }
}
