//! A scorer chosen by settings, for the methods that stand on any of them.

use ndarray::ArrayView2;
use nomaly_scorers::{Parameter, Params, SCORERS, Scorer, ScorerEntry, ScorerError, Watch};
use nomaly_store::Progress;

use crate::{MethodError, Settings};

/// The setting that names the scorer.
pub(super) const SCORER: &str = "scorer";
/// The parameter of scorers that decides their random choices.
const SEED: &str = "seed";

/// A scorer of the registry with the values for its parameters.
#[derive(Clone, Copy)]
pub(super) struct ScorerChoice {
    entry: &'static ScorerEntry,
}

impl ScorerChoice {
    /// The scorer that the settings name, or else `default`.
    pub(super) fn of(settings: &Settings, default: &str) -> Result<Self, MethodError> {
        Ok(Self { entry: SCORERS.get(settings.get(SCORER).unwrap_or(default))? })
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        self.entry.name
    }

    /// The table of its parameters.
    pub(super) fn parameters(self) -> &'static [Parameter] {
        self.entry.parameters
    }
}

/// A scorer with values for its parameters, ready to be fitted.
#[derive(Clone)]
pub(super) struct ChosenScorer {
    choice: ScorerChoice,
    params: Params,
}

impl std::fmt::Debug for ChosenScorer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChosenScorer").field("name", &self.name()).field("params", &self.params).finish()
    }
}

impl ChosenScorer {
    /// The scorer that the settings name, or else `default`, with what they say of its parameters.
    pub(super) fn from_settings(settings: &Settings, default: &str) -> Result<Self, MethodError> {
        let choice = ScorerChoice::of(settings, default)?;
        let given = |parameter: &Parameter| Some((parameter.name, settings.get(parameter.name)?));
        Ok(Self { choice, params: choice.parameters().iter().filter_map(given).collect() })
    }

    /// Its name.
    pub(super) fn name(&self) -> &'static str {
        self.choice.name()
    }

    /// `settings` with the scorer's name and all its parameters. The seed stays out unless it was given: it is the
    /// detector's.
    pub(super) fn add_to(&self, mut settings: Settings) -> Settings {
        for parameter in self.choice.parameters() {
            let given = self.params.iter().find(|(name, _)| *name == parameter.name).map(|(_, value)| value);
            if let Some(value) = given.or((parameter.name != SEED).then_some(parameter.default)) {
                settings = settings.with(parameter.name, value);
            }
        }
        settings.with(SCORER, self.name())
    }

    /// Fits it on rows `[n, dim]`; `seed` decides its random choices where the settings do not.
    pub(super) fn fit(
        &self,
        rows: ArrayView2<'_, f32>,
        seed: u64,
        progress: &dyn Progress,
    ) -> Result<Box<dyn Scorer>, MethodError> {
        let mut params = self.params.clone();
        if self.choice.entry.takes(SEED) && params.iter().all(|(name, _)| name != SEED) {
            params.set(SEED, seed);
        }
        let stop = || progress.cancelled();
        self.choice.entry.fit_watched(&params, rows, Watch::new(&stop)).map_err(|error| match error {
            ScorerError::Cancelled => MethodError::Cancelled,
            error => error.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_brings_the_same_scorer_back() {
        let settings = Settings::parse(&["scorer=neighbours", "k=3"]).unwrap();
        let chosen = ChosenScorer::from_settings(&settings, "gaussian").unwrap();
        let stored = chosen.add_to(Settings::default());
        assert_eq!(stored.get("k"), Some("3"));
        assert_eq!(stored.get("distance"), Some("squared-l2"));
        let again = ChosenScorer::from_settings(&stored, "gaussian").unwrap();
        assert_eq!(again.add_to(Settings::default()), stored);
        assert!(ChosenScorer::from_settings(&Settings::default().with("scorer", "gausian"), "gaussian").is_err());
    }
}
