//! The list of scorers.

use ndarray::ArrayView2;
use nomaly_registry::{Entry, Registry};
use nomaly_settings::{Assignments, SettingError, Settings, Table};

use crate::clustering::{CblofOptions, ClusteringOptions};
use crate::gaussian::{GaussianOptions, PcaOptions};
use crate::histogram::HistogramOptions;
use crate::isolation::{ExtendedIsolationForestOptions, IsolationForestOptions};
use crate::kde::KdeOptions;
use crate::kernel_machines::{KernelPcaOptions, OneClassSvmOptions, SvddOptions};
use crate::lof::LofOptions;
use crate::mixture::MixtureOptions;
use crate::neighbours::NeighboursOptions;
use crate::random_projections::RandomProjectionsOptions;
use crate::scorer::{Scorer, State};
use crate::sparse::SparseOptions;
use crate::subspace::{PcaMonitorOptions, RobustPcaOptions};
use crate::{ScorerError, Watch};

/// The settings of a scorer, and the scorer that follows from them: all that the registry has to know of it.
///
/// A scorer is one file with such a struct and what it is fitted to, and one line in [`SCORERS`].
pub trait ScorerParams: Settings {
    /// The name, also the `kind` of the [`State`].
    const NAME: &'static str;
    /// One line that says what the scorer measures.
    const SUMMARY: &'static str;
    /// The fitted scorer.
    type Fitted: Scorer + 'static;

    /// Fits on rows `[n, dim]` of normal items, ended early where `watch` says so.
    ///
    /// # Errors
    /// [`ScorerError::Setting`] for settings out of range, rows that the scorer cannot be fitted on, and
    /// [`ScorerError::Cancelled`].
    fn fit(&self, rows: ArrayView2<'_, f32>, watch: Watch<'_>) -> Result<Self::Fitted, ScorerError>;

    /// Brings back what [`Scorer::state`] gave.
    ///
    /// # Errors
    /// As [`restore`](crate::restore).
    fn restore(state: &State) -> Result<Self::Fitted, ScorerError>;
}

/// Refuses settings made in code for what the same settings are refused for as text.
pub(crate) fn check_settings<S: Settings>(settings: &S) -> Result<(), SettingError> {
    Assignments::of(settings).read::<S>().map(drop)
}

type Fit = fn(&Assignments, ArrayView2<'_, f32>, Watch<'_>) -> Result<Box<dyn Scorer>, ScorerError>;

/// A scorer that can be fitted and restored by name.
pub struct ScorerEntry {
    /// The name, also the `kind` of its [`State`].
    pub name: &'static str,
    /// One line that says what it measures.
    pub summary: &'static str,
    table: fn() -> Table,
    complete: fn(&Assignments) -> Result<Assignments, SettingError>,
    fit: Fit,
    restore: fn(&State) -> Result<Box<dyn Scorer>, ScorerError>,
}

impl ScorerEntry {
    /// The entry of the scorer with the settings `P`.
    pub const fn of<P: ScorerParams>() -> Self {
        Self {
            name: P::NAME,
            summary: P::SUMMARY,
            table: Table::of::<P>,
            complete: |given| Ok(Assignments::of(&given.read::<P>()?)),
            fit: |given, rows, watch| Ok(Box::new(given.read::<P>()?.fit(rows, watch)?)),
            restore: |state| Ok(Box::new(P::restore(state)?)),
        }
    }

    /// Its settings with their defaults, ranges and summaries.
    pub fn table(&self) -> Table {
        (self.table)()
    }

    /// The JSON Schema of an object with its settings.
    pub fn schema(&self) -> serde_json::Value {
        self.table().schema(self.name)
    }

    /// Whether it has a setting of that name.
    pub fn takes(&self, setting: &str) -> bool {
        self.table().get(setting).is_some()
    }

    /// All settings, typed: those given, and the defaults for all others.
    ///
    /// # Errors
    /// Unknown settings and values out of range.
    pub fn complete(&self, given: &Assignments) -> Result<Assignments, SettingError> {
        (self.complete)(given)
    }

    /// Fits on rows `[n, dim]` of normal items.
    ///
    /// # Errors
    /// [`ScorerError::Setting`] for unknown settings and values out of range, and rows that the scorer cannot be fitted
    /// on.
    pub fn fit(&self, given: &Assignments, rows: ArrayView2<'_, f32>) -> Result<Box<dyn Scorer>, ScorerError> {
        self.fit_watched(given, rows, Watch::none())
    }

    /// As [`fit`](Self::fit), ended early where `watch` says so.
    ///
    /// # Errors
    /// As [`fit`](Self::fit), and [`ScorerError::Cancelled`].
    pub fn fit_watched(
        &self,
        given: &Assignments,
        rows: ArrayView2<'_, f32>,
        watch: Watch<'_>,
    ) -> Result<Box<dyn Scorer>, ScorerError> {
        (self.fit)(given, rows, watch)
    }

    /// Brings a fitted scorer of this kind back.
    ///
    /// # Errors
    /// As [`restore`](crate::restore).
    pub fn restore(&self, state: &State) -> Result<Box<dyn Scorer>, ScorerError> {
        (self.restore)(state)
    }
}

impl Entry for ScorerEntry {
    fn name(&self) -> &str {
        self.name
    }

    fn summary(&self) -> &str {
        self.summary
    }
}

/// Every scorer of this crate.
pub static SCORERS: Registry<ScorerEntry> = Registry::new(
    "scorer",
    &[
        ScorerEntry::of::<CblofOptions>(),
        ScorerEntry::of::<ClusteringOptions>(),
        ScorerEntry::of::<GaussianOptions>(),
        ScorerEntry::of::<PcaOptions>(),
        ScorerEntry::of::<HistogramOptions>(),
        ScorerEntry::of::<IsolationForestOptions>(),
        ScorerEntry::of::<ExtendedIsolationForestOptions>(),
        ScorerEntry::of::<KdeOptions>(),
        ScorerEntry::of::<KernelPcaOptions>(),
        ScorerEntry::of::<OneClassSvmOptions>(),
        ScorerEntry::of::<SvddOptions>(),
        ScorerEntry::of::<LofOptions>(),
        ScorerEntry::of::<MixtureOptions>(),
        ScorerEntry::of::<NeighboursOptions>(),
        ScorerEntry::of::<RandomProjectionsOptions>(),
        ScorerEntry::of::<SparseOptions>(),
        ScorerEntry::of::<PcaMonitorOptions>(),
        ScorerEntry::of::<RobustPcaOptions>(),
    ],
);

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use serde_json::Value;

    use super::*;

    fn rows() -> Array2<f32> {
        Array2::from_shape_fn((30, 4), |(i, j)| ((i * 7 + j * 13) % 11) as f32 + (i % 3 * j) as f32)
    }

    #[test]
    fn names_are_unique_and_settings_have_summaries() {
        let mut names: Vec<_> = SCORERS.names().collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SCORERS.iter().count());
        for entry in SCORERS.iter() {
            for setting in &entry.table() {
                assert!(!setting.summary.is_empty(), "{}: {}", entry.name, setting.name);
                assert!(entry.takes(&setting.name));
            }
            assert_eq!(entry.schema()["title"], entry.name);
        }
    }

    #[test]
    fn settings_written_out_in_full_make_the_same_scorer() {
        for entry in SCORERS.iter() {
            let fit = |given: &Assignments| entry.fit(given, rows().view()).unwrap().state();
            let usual = fit(&Assignments::new());
            assert_eq!(usual.kind, entry.name);
            let typed = entry.complete(&Assignments::new()).unwrap();
            assert_eq!(typed.iter().count(), entry.table().iter().count(), "{}", entry.name);
            assert_eq!(fit(&typed), usual, "{}", entry.name);
            let text: Assignments = entry.table().iter().map(|setting| (&setting.name, &setting.default)).collect();
            assert_eq!(fit(&text), usual, "{}", entry.name);
        }
    }

    /// Numbers at or just beyond the bounds of a schema and of its variants, as text.
    fn outside(schema: &Value) -> Vec<String> {
        let beyond = |(key, step): (&str, f64)| Some((schema.get(key)?.as_f64()? + step).to_string());
        let bounds = [("minimum", -1.0), ("maximum", 1.0), ("exclusiveMinimum", 0.0), ("exclusiveMaximum", 0.0)];
        let variants = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten();
        bounds.into_iter().filter_map(beyond).chain(variants.flat_map(outside)).collect()
    }

    #[test]
    fn values_out_of_bounds_are_refused_by_name() {
        let rows = rows();
        let mut cases = 0;
        for entry in SCORERS.iter() {
            for setting in &entry.table() {
                for value in outside(&Value::Object(setting.schema.clone())) {
                    let what = format!("{} {}={value}", entry.name, setting.name);
                    let found = entry.fit(&Assignments::new().with(&setting.name, &value), rows.view());
                    match found {
                        Err(ScorerError::Setting(SettingError::Value { name, .. })) => {
                            assert_eq!(name, setting.name, "{what}");
                        }
                        // The whole of the variance is no share of it, but one component is a number of them.
                        Ok(_) => assert_eq!((setting.name.as_str(), value.as_str()), ("components", "1"), "{what}"),
                        Err(other) => panic!("{what}: {other}"),
                    }
                    cases += 1;
                }
            }
        }
        assert!(cases > 60, "{cases}");
    }

    #[test]
    fn a_setting_that_was_renamed_is_named() {
        let error = SCORERS.get("pca").unwrap().complete(&Assignments::new().with("standardise", true)).unwrap_err();
        assert_eq!(error.to_string(), "setting `standardise` is now called `standardize`");
    }
}
