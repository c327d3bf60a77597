//! A scorer on rows, before and after it has seen data.

use std::path::Path;

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use nomaly_data::tables::Table;
use nomaly_methods::groups::GroupInfo;
use nomaly_methods::recognition::{
    ClassFit, ClassModel, ClassTask, HeldOutClass, Labels, OPEN_SET_PARAMETERS, OpenSetSettings,
};
use nomaly_methods::{Groups, HeldOut, MethodError, Settings, Skipped, Stage};
use nomaly_registry::UnknownName;
use nomaly_scorers::{Parameter, Params, SCORERS, Scorer, ScorerEntry, State, Watch, restore};
use nomaly_store::Progress;
use serde::Serialize;

use super::scaling::{SCALING, Scaling, Standardise};
use crate::DetectorError;
use crate::calibration::{Calibration, DEFAULT_MAX_FPR, DecisionRule};
use crate::classes::{Classes, Recognition};
use crate::info::{DecisionHistory, RowsInfo, RowsTraining};
use crate::judge::{Fault, is_about_values};
use crate::model_file::{self, HeldOutScores, RowParts};

/// The scorer where none is named.
pub const DEFAULT_SCORER: &str = "neighbours";
/// The settings of the default scorer where it is used on rows: the distance to the fifth nearest row.
const NEIGHBOURS: [(&str, &str); 3] = [("k", "5"), ("distance", "l2"), ("aggregation", "kth")];
/// What is said where classes are to be learned from rows without labels.
const NO_LABELS: &str = "classes cannot be learned from rows without labels";
/// Rows that are scored between two looks at the progress.
const BLOCK: usize = 8192;
/// The fewest rows that are left to learn from where a group is held out; smaller groups of others are taken apart.
const LEAST_ROWS: usize = 8;
/// The state of the scorer, beside that of the scaling.
const SCORER: &str = "scorer";
/// What stands for the scorer of models that tell classes apart.
pub(super) const OPEN_SET: &str = "open-set";

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
    task: Task,
    standardise: Standardise,
}

/// What is to be learned.
enum Task {
    /// What normal rows are.
    Normal { entry: &'static ScorerEntry, params: Params },
    /// Which class a row is of.
    Classes(OpenSetSettings),
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
        Ok(Self { task: Task::Normal { entry, params }, standardise })
    }

    /// Checks settings for a model that tells the classes of rows apart: `standardise`, and those of
    /// [`OPEN_SET_PARAMETERS`].
    ///
    /// # Errors
    /// A setting that is not known, or a value out of range.
    pub fn of_classes(settings: &Settings) -> Result<Self, DetectorError> {
        let standardise: &[Parameter] = &ROW_PARAMETERS[1..];
        settings.check_known(&[standardise, OPEN_SET_PARAMETERS])?;
        let standardise = settings.value("standardise", Standardise::default(), Standardise::ALLOWED)?;
        Ok(Self { task: Task::Classes(OpenSetSettings::from_settings(settings)?), standardise })
    }

    /// Learns what is normal from the rows of `table`, all of which are taken to be good whatever their label says. A model
    /// of classes learns what rows of each label are.
    ///
    /// Rows with cells that are missing or not finite are left out, and for a model of classes rows without a label.
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
        let labels = match &self.task {
            Task::Normal { .. } => None,
            Task::Classes(_) => {
                Some(table.labels.as_deref().ok_or_else(|| DetectorError::Table { reason: NO_LABELS.to_owned() })?)
            }
        };
        let (usable, skipped) = usable(table, labels, options.strict)?;
        let (needed, found) = (2, usable.len());
        if found < needed {
            let scorer = self.name().to_owned();
            return Err(DetectorError::from(MethodError::TooFew { of: scorer, items: "rows", needed, found }));
        }
        let rows = if found == table.rows.nrows() { None } else { Some(table.rows.select(Axis(0), &usable)) };
        let rows = rows.as_ref().map_or_else(|| table.rows.view(), |rows| rows.view());
        let labels = labels.map(|labels| usable.iter().map(|&row| labels[row].as_str()).collect::<Vec<_>>());
        let groups = match &table.groups {
            None => Groups::singletons(found),
            Some(names) => Groups::of_keys(usable.iter().map(|&row| names[row].as_str())),
        };
        let how = (!groups.is_trivial()).then(|| "by a column of the table".to_owned());
        let by = if table.groups.is_some() { "column" } else { "none" };
        let group_info = GroupInfo { by: by.to_owned(), count: groups.count(), how };
        let learned = self.learn(rows, labels.as_deref(), &groups, options.seed, progress)?;
        let info = RowsInfo {
            scorer: self.name().to_owned(),
            settings: self.settings().with("standardise", self.standardise),
            columns: table.columns.clone(),
            dim: rows.ncols(),
            classes: learned.classes.iter().map(|held_out| held_out.class.clone()).collect(),
            decision: rule,
            history: DecisionHistory::default(),
            training: RowsTraining {
                dataset: table.name.clone(),
                rows: rows.nrows(),
                skipped: skipped.len(),
                seed: options.seed,
                groups: group_info,
            },
        };
        let Learned { scaling, model, held_out, classes } = learned;
        let calibration = Calibration::of(&held_out, &groups, rule)?;
        let classes = if classes.is_empty() { None } else { Some(Classes::new(classes, rule)?) };
        Ok(RowFit { detector: FittedRows { info, calibration, classes, scaling, model }, skipped })
    }

    /// What the model file calls the scorer.
    fn name(&self) -> &'static str {
        match &self.task {
            Task::Normal { entry, .. } => entry.name,
            Task::Classes(_) => OPEN_SET,
        }
    }

    fn settings(&self) -> Settings {
        match &self.task {
            Task::Normal { params, .. } => {
                params.iter().fold(Settings::default(), |settings, (name, value)| settings.with(name, value))
            }
            Task::Classes(settings) => settings.add_to(Settings::default()),
        }
    }

    fn learn(
        &mut self,
        rows: ArrayView2<'_, f32>,
        labels: Option<&[&str]>,
        groups: &Groups,
        seed: u64,
        progress: &dyn Progress,
    ) -> Result<Learned, DetectorError> {
        match &mut self.task {
            Task::Normal { entry, params } => {
                if entry.takes("seed") && params.iter().all(|(name, value)| name != "seed" || value == "0") {
                    params.set("seed", seed);
                }
                let fit = ScorerFit { entry, params, standardise: self.standardise, progress };
                let held_out = fit.held_out(rows, groups, seed)?;
                let _stage = Stage::start(progress, "fitting on all rows", None);
                let (scaling, scorer) = fit.fit(rows)?;
                Ok(Learned { scaling, model: Model::Normal(scorer), held_out, classes: Vec::new() })
            }
            Task::Classes(settings) => {
                let labels = Labels::new(labels.unwrap_or_default())?;
                let task = ClassTask { labels: &labels, groups, dim: rows.ncols(), settings, seed, progress };
                let ClassFit { model: (scaling, model), held_out, closest } = task.run(
                    |train, classes, plan| {
                        let rows = rows.select(Axis(0), train);
                        let scaling = Scaling::fit(rows.view(), self.standardise);
                        let model = ClassModel::fit(scaling.apply(rows.view()).view(), classes, plan, progress)?;
                        Ok((scaling, model))
                    },
                    |(scaling, model), test| {
                        let rows = scaling.apply(rows.select(Axis(0), test).view());
                        let scores = model.scores(rows.view())?;
                        Ok::<_, MethodError>(scores.outer_iter().map(|scores| scores.to_vec()).collect())
                    },
                )?;
                Ok(Learned { scaling, model: Model::Classes(model), held_out: closest, classes: held_out })
            }
        }
    }
}

/// What a fit has learned, with the scores of rows by fits that had not seen them.
struct Learned {
    scaling: Scaling,
    model: Model,
    held_out: Vec<HeldOut>,
    classes: Vec<HeldOutClass>,
}

/// What scores rows that have been brought to one scale.
enum Model {
    /// A scorer of the registry.
    Normal(Box<dyn Scorer>),
    /// A model that tells classes apart.
    Classes(ClassModel),
}

impl Model {
    fn dim(&self) -> usize {
        match self {
            Self::Normal(scorer) => scorer.dim(),
            Self::Classes(model) => model.dim(),
        }
    }

    fn states(&self) -> Vec<(String, State)> {
        match self {
            Self::Normal(scorer) => vec![(SCORER.to_owned(), scorer.state())],
            Self::Classes(model) => model.states(),
        }
    }

    /// Brings back what [`states`](Self::states) gave, of the scorer of this name.
    fn restore(name: &str, states: &[(String, State)]) -> Result<Self, DetectorError> {
        match states {
            _ if name == OPEN_SET => Ok(Self::Classes(ClassModel::restore(states)?)),
            [(state_name, state)] if state_name == SCORER && state.kind == name => Ok(Self::Normal(restore(state)?)),
            _ => Err(DetectorError::from(MethodError::State { state: SCORER.to_owned(), reason: None })),
        }
    }
}

/// The fits of a scorer of the registry.
struct ScorerFit<'a> {
    entry: &'a ScorerEntry,
    params: &'a Params,
    standardise: Standardise,
    progress: &'a dyn Progress,
}

impl ScorerFit<'_> {
    fn fit(&self, rows: ArrayView2<'_, f32>) -> Result<(Scaling, Box<dyn Scorer>), DetectorError> {
        let scaling = Scaling::fit(rows, self.standardise);
        let stop = || self.progress.cancelled();
        let scorer = self.entry.fit_watched(self.params, scaling.apply(rows).view(), Watch::new(&stop))?;
        Ok((scaling, scorer))
    }

    fn held_out(&self, rows: ArrayView2<'_, f32>, groups: &Groups, seed: u64) -> Result<Vec<HeldOut>, DetectorError> {
        let units = groups.leaving(LEAST_ROWS);
        let stage = Stage::start(self.progress, "calibrating", Some(units.splits(seed).len()));
        let scored = nomaly_methods::groups::held_out_scores(&units, seed, |train, test| {
            let (scaling, scorer) = self.fit(rows.select(Axis(0), train).view())?;
            if self.progress.cancelled() {
                return Err(DetectorError::from(MethodError::Cancelled));
            }
            let scores = scorer.score(scaling.apply(rows.select(Axis(0), test).view()).view())?;
            stage.advance(1);
            Ok(scores)
        })?;
        Ok(scored.into_iter().map(|(image, score)| HeldOut::scored(image, score)).collect())
    }
}

/// The rows whose cells are all finite, and with a label where `labels` are given; and what is wrong with the others.
fn usable(table: &Table, labels: Option<&[String]>, strict: bool) -> Result<(Vec<usize>, Vec<Skipped>), DetectorError> {
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

/// A detector that has learned what normal rows are.
pub struct FittedRows {
    info: RowsInfo,
    calibration: Calibration,
    /// Present where the model tells classes apart.
    classes: Option<Classes>,
    scaling: Scaling,
    model: Model,
}

impl FittedRows {
    /// What it is made of and what it was fitted on.
    pub fn info(&self) -> &RowsInfo {
        &self.info
    }

    /// Its decision rule and held-out scores. A model of classes decides by its [classes](Self::classes); this holds the
    /// held-out scores under the closest class then.
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
