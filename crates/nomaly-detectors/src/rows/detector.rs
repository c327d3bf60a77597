//! A scorer on rows, before it has seen data.

use ndarray::{ArrayView2, Axis};
use nomaly_data::tables::Table;
use nomaly_methods::groups::{GroupInfo, held_out_scores};
use nomaly_methods::recognition::{
    ClassFit, ClassModel, ClassTask, HeldOutClass, Labels, OPEN_SET_PARAMETERS, OpenSetSettings,
};
use nomaly_methods::{Groups, HeldOut, MethodError, Settings, Skipped, Stage};
use nomaly_scorers::{Parameter, Params, SCORERS, Scorer, ScorerEntry, Watch};
use nomaly_store::Progress;

use super::fitted::{FittedRows, usable};
use super::model::{Model, OPEN_SET};
use super::scaling::{Scaling, Standardise};
use crate::calibration::{Calibration, DEFAULT_MAX_FPR, DecisionRule};
use crate::classes::Classes;
use crate::error::DetectorError;
use crate::info::{DecisionHistory, RowsInfo, RowsTraining};

/// The scorer where none is named.
pub const DEFAULT_SCORER: &str = "neighbours";
/// The settings of the default scorer where it is used on rows: the distance to the fifth nearest row.
const NEIGHBOURS: [(&str, &str); 3] = [("k", "5"), ("distance", "l2"), ("aggregation", "kth")];
/// What is said where classes are to be learned from rows without labels.
const NO_LABELS: &str = "classes cannot be learned from rows without labels";
/// The fewest rows that are left to learn from where a group is held out; smaller groups of others are taken apart.
const LEAST_ROWS: usize = 8;

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

/// What a fit on rows gives.
pub struct RowFit {
    /// The fitted detector.
    pub detector: FittedRows,
    /// Rows that could not be used.
    pub skipped: Vec<Skipped>,
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
        let scored = held_out_scores(&units, seed, |train, test| {
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
