//! The interface of a scorer to the registry, and its entry there.

use ndarray::ArrayView2;
use nomaly_registry::Entry;
use nomaly_settings::{Assignments, SettingError, Settings, SettingsTable};

use crate::error::ScorerError;
use crate::scorer::{Scorer, State};
use crate::watch::Watch;

/// The settings of a scorer and how it is fitted: all that the registry needs.
///
/// A scorer is one file with such a struct and its fitted type, and one line in [`SCORERS`](crate::SCORERS).
pub trait ScorerParams: Settings {
    /// The name, also the `kind` of the [`State`].
    const NAME: &'static str;
    /// One line: what the scorer measures.
    const SUMMARY: &'static str;
    /// The fitted scorer.
    type Fitted: Scorer + 'static;

    /// Fits on rows `[n, dim]` of normal items; stops early if `watch` says so.
    ///
    /// # Errors
    /// [`ScorerError::Setting`] for settings out of range, rows that the scorer cannot be fitted on, and
    /// [`ScorerError::Cancelled`].
    fn fit(&self, rows: ArrayView2<'_, f32>, watch: Watch<'_>) -> Result<Self::Fitted, ScorerError>;

    /// Restores the scorer from [`Scorer::state`].
    ///
    /// # Errors
    /// As [`restore`](crate::restore).
    fn restore(state: &State) -> Result<Self::Fitted, ScorerError>;
}

/// Checks settings built in code as if they were given as text.
pub(crate) fn check_settings<S: Settings>(settings: &S) -> Result<(), SettingError> {
    Assignments::of(settings).read::<S>().map(drop)
}

type Fit = fn(&Assignments, ArrayView2<'_, f32>, Watch<'_>) -> Result<Box<dyn Scorer>, ScorerError>;

/// A scorer that can be fitted and restored by name.
pub struct ScorerEntry {
    /// The name, also the `kind` of its [`State`].
    pub name: &'static str,
    /// One line: what it measures.
    pub summary: &'static str,
    table: fn() -> SettingsTable,
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
            table: SettingsTable::of::<P>,
            complete: |given| Ok(Assignments::of(&given.read::<P>()?)),
            fit: |given, rows, watch| Ok(Box::new(given.read::<P>()?.fit(rows, watch)?)),
            restore: |state| Ok(Box::new(P::restore(state)?)),
        }
    }

    /// Its settings with their defaults, ranges and summaries.
    pub fn table(&self) -> SettingsTable {
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

    /// As [`fit`](Self::fit); stops early if `watch` says so.
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

    /// Restores a fitted scorer of this kind.
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
