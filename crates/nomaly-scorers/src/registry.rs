//! The list of scorers.

use ndarray::ArrayView2;
use nomaly_registry::{Entry, Registry};

use crate::scorer::{Scorer, State};
use crate::{
    Parameter, Params, ScorerError, Watch, clustering, gaussian, histogram, isolation, kde, kernel_machines, lof,
    mixture, neighbours, random_projections, sparse, subspace,
};

/// Fits a scorer on rows `[n, dim]`.
pub type Fit = fn(&Params, ArrayView2<'_, f32>, Watch<'_>) -> Result<Box<dyn Scorer>, ScorerError>;

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
    /// Fits on rows `[n, dim]` of normal items; see [`fit`](Self::fit).
    pub fitter: Fit,
    /// Brings a fitted scorer back; see [`restore`](crate::restore).
    pub restore: Restore,
}

impl ScorerEntry {
    /// Fits on rows `[n, dim]` of normal items.
    ///
    /// # Errors
    /// Unknown parameters, values out of range, and rows that the scorer cannot be fitted on.
    pub fn fit(&self, params: &Params, rows: ArrayView2<'_, f32>) -> Result<Box<dyn Scorer>, ScorerError> {
        self.fit_watched(params, rows, Watch::none())
    }

    /// As [`fit`](Self::fit), ended early where `watch` says so.
    ///
    /// # Errors
    /// As [`fit`](Self::fit), and [`ScorerError::Cancelled`].
    pub fn fit_watched(
        &self,
        params: &Params,
        rows: ArrayView2<'_, f32>,
        watch: Watch<'_>,
    ) -> Result<Box<dyn Scorer>, ScorerError> {
        (self.fitter)(params, rows, watch)
    }

    /// Whether it has a parameter of that name.
    pub fn takes(&self, parameter: &str) -> bool {
        self.parameters.iter().any(|known| known.name == parameter)
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
        clustering::CBLOF_ENTRY,
        clustering::ENTRY,
        gaussian::ENTRY,
        gaussian::PCA_ENTRY,
        histogram::ENTRY,
        isolation::ENTRY,
        isolation::EXTENDED_ENTRY,
        kde::ENTRY,
        kernel_machines::KERNEL_PCA_ENTRY,
        kernel_machines::ONE_CLASS_SVM_ENTRY,
        kernel_machines::SVDD_ENTRY,
        lof::ENTRY,
        mixture::ENTRY,
        neighbours::ENTRY,
        random_projections::ENTRY,
        sparse::ENTRY,
        subspace::PCA_ENTRY,
        subspace::ROBUST_PCA_ENTRY,
    ],
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_default_is_accepted() {
        let rows =
            ndarray::Array2::from_shape_fn((30, 4), |(i, j)| ((i * 7 + j * 13) % 11) as f32 + (i % 3 * j) as f32);
        let mut names: Vec<_> = SCORERS.names().collect();
        for entry in SCORERS.iter() {
            let scorer = entry.fit(&Params::new(), rows.view()).unwrap();
            assert_eq!(scorer.state().kind, entry.name);
            let explicit: Params = entry.parameters.iter().map(|p| (p.name, p.default)).collect();
            assert_eq!(entry.fit(&explicit, rows.view()).unwrap().state(), scorer.state());
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SCORERS.iter().count());
    }
}
