//! Selects a scorer by settings, for methods that work with any scorer.

use ndarray::ArrayView2;
use nomaly_scorers::{SCORERS, Scorer, ScorerEntry, ScorerError, Watch};
use nomaly_settings::{Assignments, SettingsTable};
use nomaly_store::Progress;

use crate::MethodError;

/// The setting that names the scorer.
pub(super) const SCORER: &str = "scorer";
/// The default scorer: its shrunk covariance is well-posed for fewer rows than columns, and there is nothing to tune.
pub(super) const DEFAULT_SCORER: &str = "gaussian";
/// The setting of scorers that seeds their random choices.
const SEED: &str = "seed";

/// The named scorer, or the default.
fn named(given: &Assignments) -> Result<&'static ScorerEntry, MethodError> {
    let name = given.text(SCORER);
    Ok(SCORERS.get(name.as_deref().unwrap_or(DEFAULT_SCORER))?)
}

/// The settings of the scorer that `given` names.
pub(super) fn scorer_table(given: &Assignments) -> Result<SettingsTable, MethodError> {
    Ok(named(given)?.table())
}

/// A scorer with its settings, ready to be fitted.
#[derive(Clone)]
pub(super) struct ChosenScorer {
    entry: &'static ScorerEntry,
    /// All settings; a seed that was not given is left out and defaults to the detector's.
    settings: Assignments,
}

impl std::fmt::Debug for ChosenScorer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChosenScorer").field("name", &self.name()).field("settings", &self.settings).finish()
    }
}

impl ChosenScorer {
    /// Splits settings into the scorer with its settings, and all others.
    pub(super) fn part(given: &Assignments) -> Result<(Self, Assignments), MethodError> {
        let entry = named(given)?;
        let (own, others) = given.split(&entry.table());
        let mut settings = entry.complete(&own)?;
        if !own.contains(SEED) {
            settings.remove(SEED);
        }
        Ok((Self { entry, settings }, others))
    }

    /// Its name.
    pub(super) fn name(&self) -> &'static str {
        self.entry.name
    }

    /// Its settings in full.
    pub(super) fn settings(&self) -> &Assignments {
        &self.settings
    }

    /// Fits it on rows `[n, dim]`; `seed` is the default of its seed.
    pub(super) fn fit(
        &self,
        rows: ArrayView2<'_, f32>,
        seed: u64,
        progress: &dyn Progress,
    ) -> Result<Box<dyn Scorer>, MethodError> {
        let mut settings = self.settings.clone();
        if self.entry.takes(SEED) && !settings.contains(SEED) {
            settings.set(SEED, seed);
        }
        let stop = || progress.cancelled();
        self.entry.fit_watched(&settings, rows, Watch::new(&stop)).map_err(|error| match error {
            ScorerError::Cancelled => MethodError::Cancelled,
            error => error.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::METHODS;
    use crate::input::InputParams;

    #[test]
    fn no_setting_of_a_scorer_has_the_name_of_one_beside_it() {
        let common = SettingsTable::of::<InputParams>();
        for method in METHODS.iter().filter(|method| method.more.is_some()) {
            let own = (method.table)();
            for scorer in SCORERS.iter() {
                for setting in &scorer.table() {
                    let beside = own.iter().chain(&common).filter(|other| other.name == setting.name).count();
                    assert_eq!(beside, 0, "`{}` of {} and {}", setting.name, scorer.name, method.name);
                }
            }
        }
    }

    #[test]
    fn what_is_stored_brings_the_same_scorer_back() {
        let given = Assignments::parse(&["scorer=neighbours", "k=3", "level=deepest"]).unwrap();
        let (chosen, others) = ChosenScorer::part(&given).unwrap();
        assert_eq!(others.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["level", "scorer"]);
        let stored = chosen.settings().clone();
        assert_eq!((stored.text("k").as_deref(), stored.text("distance").as_deref()), (Some("3"), Some("squared-l2")));
        let (again, _) = ChosenScorer::part(&stored.clone().with(SCORER, "neighbours")).unwrap();
        assert_eq!(again.settings(), &stored);
        let error = ChosenScorer::part(&Assignments::new().with(SCORER, "gausian")).unwrap_err().to_string();
        assert!(error.contains("did you mean `gaussian`"), "{error}");
    }
}
