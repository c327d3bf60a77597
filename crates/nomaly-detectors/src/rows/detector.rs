//! Detectors of rows before they are fitted.

use ndarray::{ArrayView2, Axis};
use nomaly_data::tables::Table;
use nomaly_methods::groups::{GroupInfo, held_out_scores};
use nomaly_methods::recognition::{ClassFit, ClassModel, ClassTask, HeldOutClass, Labels, OpenSetParams};
use nomaly_methods::{Groups, HeldOut, MethodError, Skipped, Stage};
use nomaly_scorers::{SCORERS, Scorer, ScorerEntry, Watch};
use nomaly_settings::{Assignments, Settings, SettingsTable};
use nomaly_store::Progress;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fitted::{FittedRows, ForRows, usable};
use super::model::{OPEN_SET, RowScorer};
use super::scaling::{Scaling, Standardize};
use crate::calibration::{Calibration, DEFAULT_MAX_FPR, DecisionRule};
use crate::classes::Classes;
use crate::decider::Decider;
use crate::error::DetectorError;
use crate::info::{DecisionHistory, RowsInfo, RowsTraining};

/// The default scorer.
pub const DEFAULT_SCORER: &str = "neighbours";
/// The settings of the default scorer on rows: the distance to the fifth nearest row.
const DEFAULT_SCORER_SETTINGS: [(&str, &str); 3] = [("k", "5"), ("distance", "l2"), ("aggregation", "kth")];
/// The message for classes of rows without labels.
const NO_LABELS: &str = "classes cannot be learned from rows without labels";
/// The fewest rows left to fit on when a group is held out; groups that leave fewer are split.
const LEAST_ROWS: usize = 8;

/// Settings of models of rows, besides those of the scorer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RowParams {
    /// What scores the rows; its settings are settings too.
    #[schemars(extend("x-values" = "a name of `nomaly list scorers`"))]
    pub scorer: String,
    /// How columns are brought to one scale.
    #[schemars(extend("x-formerly" = ["standardise"]))]
    pub standardize: Standardize,
}

impl Default for RowParams {
    fn default() -> Self {
        Self { scorer: DEFAULT_SCORER.to_owned(), standardize: Standardize::Z }
    }
}

impl Settings for RowParams {}

/// Settings of models of classes of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClassRowParams {
    /// How columns are brought to one scale.
    #[schemars(extend("x-formerly" = ["standardise"]))]
    pub standardize: Standardize,
    /// How classes are modelled.
    #[serde(flatten)]
    pub classes: OpenSetParams,
}

impl Settings for ClassRowParams {}

/// A scorer with checked settings, ready to be fitted.
pub struct RowDetector {
    task: Task,
    standardize: Standardize,
}

/// The kind of model to fit.
enum Task {
    /// A model of normal rows; the settings of the scorer are complete.
    Normal { entry: &'static ScorerEntry, settings: Assignments },
    /// A model of classes.
    Classes(OpenSetParams),
}

/// Options of a fit on rows.
#[derive(Clone, Copy, Debug)]
pub struct RowFitOptions {
    /// Seeds every random choice.
    pub seed: u64,
    /// The decision rule of the model.
    pub rule: DecisionRule,
    /// Whether the first unusable row ends the fit.
    pub strict: bool,
}

impl Default for RowFitOptions {
    fn default() -> Self {
        Self { seed: 0, rule: DecisionRule::MaxFpr(DEFAULT_MAX_FPR), strict: false }
    }
}

/// The result of a fit on rows.
pub struct RowFit {
    /// The fitted detector.
    pub detector: FittedRows,
    /// Unusable rows.
    pub skipped: Vec<Skipped>,
}

impl RowDetector {
    /// Checks settings: those of [`RowParams`] and of the scorer.
    ///
    /// # Errors
    /// An unknown scorer or setting, or a value out of range.
    pub fn new(given: &Assignments) -> Result<Self, DetectorError> {
        let own_table = SettingsTable::of::<RowParams>();
        let (own, others) = given.split(&own_table);
        let params: RowParams = own.read()?;
        let entry = SCORERS.get(&params.scorer)?;
        let table = entry.table();
        for (name, _) in others.iter() {
            SettingsTable::joined([&own_table, &table]).find(name)?;
        }
        let usual: Assignments = if entry.name == DEFAULT_SCORER {
            DEFAULT_SCORER_SETTINGS.into_iter().collect()
        } else {
            Assignments::new()
        };
        let settings = entry.complete(&others.or(&usual))?;
        Ok(Self { task: Task::Normal { entry, settings }, standardize: params.standardize })
    }

    /// Checks settings for a model of classes: those of [`ClassRowParams`].
    ///
    /// # Errors
    /// An unknown setting, or a value out of range.
    pub fn of_classes(given: &Assignments) -> Result<Self, DetectorError> {
        let ClassRowParams { standardize, classes } = given.read()?;
        Ok(Self { task: Task::Classes(classes), standardize })
    }

    /// Fits the scorer on the rows of `table`, all treated as good regardless of their labels. A model of classes fits
    /// one class per label.
    ///
    /// Skips rows with cells that are missing or not finite, and for models of classes rows without a label.
    ///
    /// # Errors
    /// Values that the scorer rejects, too few usable rows, cancellation, and an unusable row in strict mode.
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
            settings: self.settings(),
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
        let Learned { scaling, scorer, held_out, classes } = learned;
        let calibration = Calibration::of(&held_out, &groups, rule)?;
        let classes = if classes.is_empty() { None } else { Some(Classes::new(classes, rule)?) };
        let decider = Decider::new(calibration, classes);
        Ok(RowFit { detector: FittedRows { info, decider, model: ForRows { scaling, scorer } }, skipped })
    }

    /// The name of the scorer in the model file.
    fn name(&self) -> &'static str {
        match &self.task {
            Task::Normal { entry, .. } => entry.name,
            Task::Classes(_) => OPEN_SET,
        }
    }

    /// All settings except the scorer's name, which the model file stores separately.
    fn settings(&self) -> Assignments {
        let standardize = self.standardize;
        match &self.task {
            Task::Normal { entry, settings } => {
                let mut own = Assignments::of(&RowParams { scorer: entry.name.to_owned(), standardize });
                own.remove("scorer");
                own.or(settings)
            }
            Task::Classes(classes) => Assignments::of(&ClassRowParams { standardize, classes: *classes }),
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
            Task::Normal { entry, settings } => {
                if entry.takes("seed") && settings.text("seed").is_none_or(|given| given == "0") {
                    settings.set_value("seed", seed.into());
                }
                let fit = ScorerFit { entry, settings, standardize: self.standardize, progress };
                let held_out = fit.held_out(rows, groups, seed)?;
                let _stage = Stage::start(progress, "fitting on all rows", None);
                let (scaling, scorer) = fit.fit(rows)?;
                Ok(Learned { scaling, scorer: RowScorer::Normal(scorer), held_out, classes: Vec::new() })
            }
            Task::Classes(settings) => {
                let labels = Labels::new(labels.unwrap_or_default())?;
                let task = ClassTask { labels: &labels, groups, dim: rows.ncols(), settings, seed, progress };
                let ClassFit { model: (scaling, model), held_out, closest } = task.run(
                    |train, classes, plan| {
                        let rows = rows.select(Axis(0), train);
                        let scaling = Scaling::fit(rows.view(), self.standardize);
                        let model = ClassModel::fit(scaling.apply(rows.view()).view(), classes, plan, progress)?;
                        Ok((scaling, model))
                    },
                    |(scaling, model), test| {
                        let rows = scaling.apply(rows.select(Axis(0), test).view());
                        let scores = model.scores(rows.view())?;
                        Ok::<_, MethodError>(scores.outer_iter().map(|scores| scores.to_vec()).collect())
                    },
                )?;
                Ok(Learned { scaling, scorer: RowScorer::Classes(model), held_out: closest, classes: held_out })
            }
        }
    }
}

/// A fitted model with its held-out scores.
struct Learned {
    scaling: Scaling,
    scorer: RowScorer,
    held_out: Vec<HeldOut>,
    classes: Vec<HeldOutClass>,
}

/// Fits a scorer of the registry.
struct ScorerFit<'a> {
    entry: &'a ScorerEntry,
    settings: &'a Assignments,
    standardize: Standardize,
    progress: &'a dyn Progress,
}

impl ScorerFit<'_> {
    fn fit(&self, rows: ArrayView2<'_, f32>) -> Result<(Scaling, Box<dyn Scorer>), DetectorError> {
        let scaling = Scaling::fit(rows, self.standardize);
        let stop = || self.progress.cancelled();
        let scorer = self.entry.fit_watched(self.settings, scaling.apply(rows).view(), Watch::new(&stop))?;
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
