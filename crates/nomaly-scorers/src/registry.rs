//! The list of scorers, and the restoration of stored ones.

use nomaly_registry::Registry;

use crate::clustering::{CblofOptions, ClusteringOptions};
pub use crate::entry::{ScorerEntry, ScorerParams};
use crate::error::ScorerError;
use crate::gaussian::{GaussianOptions, PcaOptions};
use crate::histogram::HistogramOptions;
use crate::isolation::{ExtendedIsolationForestOptions, IsolationForestOptions};
use crate::kde::KdeOptions;
use crate::kernel_machines::{KernelPcaOptions, OneClassSvmOptions, SvddOptions};
use crate::lof::LofOptions;
use crate::mixture::MixtureOptions;
use crate::neighbours::NeighboursOptions;
use crate::open_set::{self, OpenSet};
use crate::random_projections::RandomProjectionsOptions;
use crate::scorer::{Scorer, State};
use crate::sparse::SparseOptions;
use crate::subspace::{PcaMonitorOptions, RobustPcaOptions};

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

/// Restores a stored scorer.
///
/// The state may come from anywhere: every shape, every number and every setting is checked before it is used.
///
/// # Errors
/// [`ScorerError::UnknownName`] for its kind, [`ScorerError::Stored`].
pub fn restore(state: &State) -> Result<Box<dyn Scorer>, ScorerError> {
    if state.kind == open_set::KIND {
        return Ok(Box::new(OpenSet::from_state(state)?));
    }
    SCORERS.get(&state.kind)?.restore(state)
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use nomaly_settings::{Assignments, SettingError};
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
                        // 1 is not a share in (0, 1), but it is a valid number of components.
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
