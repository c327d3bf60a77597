//! The list of scorers.

use ndarray::ArrayView2;
use nomaly_registry::{Entry, Registry};

use crate::scorer::{Scorer, State};
use crate::{Parameter, Params, ScorerError, gaussian, neighbours};

/// Fits a scorer on rows `[n, dim]`.
pub type Fit = fn(&Params, ArrayView2<'_, f32>) -> Result<Box<dyn Scorer>, ScorerError>;

/// Brings a stored scorer back.
pub type Restore = fn(&State) -> Result<Box<dyn Scorer>, ScorerError>;

/// A scorer that can be fitted and restored by name.
pub struct ScorerEntry {
    /// The name, also the `kind` of its [`State`].
    pub name: &'static str,
    /// One line that says what it measures.
    pub summary: &'static str,
    /// The table of its parameters.
    pub parameters: &'static [Parameter],
    /// Fits on rows `[n, dim]` of normal items.
    pub fit: Fit,
    /// Brings a fitted scorer back; see [`restore`](crate::restore).
    pub restore: Restore,
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
pub static SCORERS: Registry<ScorerEntry> =
    Registry::new("scorer", &[gaussian::ENTRY, gaussian::PCA_ENTRY, neighbours::ENTRY]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_default_is_accepted() {
        let rows =
            ndarray::Array2::from_shape_fn((30, 4), |(i, j)| ((i * 7 + j * 13) % 11) as f32 + (i % 3 * j) as f32);
        let mut names: Vec<_> = SCORERS.names().collect();
        for entry in SCORERS.iter() {
            let scorer = (entry.fit)(&Params::new(), rows.view()).unwrap();
            assert_eq!(scorer.state().kind, entry.name);
            let explicit: Params = entry.parameters.iter().map(|p| (p.name, p.default)).collect();
            assert_eq!((entry.fit)(&explicit, rows.view()).unwrap().state(), scorer.state());
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SCORERS.iter().count());
    }
}
