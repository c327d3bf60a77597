//! The coordinates of rows on their principal components.

use ndarray::{Array2, ArrayView2};

use super::pca::decompose;
use super::{Affine, Basis, KeptComponents, PcaMonitorOptions, components};
use crate::entry::check_settings;
use crate::scorer::{State, check_finite};
use crate::{ScorerError, Watch};

const KIND: &str = "principal-components";

/// A map of rows to their coordinates on the leading principal components.
///
/// With `y` for a row less the mean, divided by the standard deviations if columns are standardized, and `P` `[dim, m]`
/// for the `m` leading eigenvectors of the covariance the coordinates are `Pᵀ y`. They are in descending order of
/// variance and uncorrelated over the rows of the fit. The element of largest absolute value in each component is
/// positive, so that the signs do not depend on how the components were computed (as in scikit-learn's `svd_flip`).
///
/// It is not a [`Scorer`](crate::Scorer): it reduces features for scorers that work better on fewer columns.
///
/// Fitting costs what fitting a [`PcaMonitor`](super::PcaMonitor) does, projecting `m dim` multiplications per row.
#[derive(Clone, Debug)]
pub struct PrincipalComponents {
    components: KeptComponents,
    standardize: bool,
    affine: Affine,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(with = "components::Stored")]
    components: KeptComponents,
    #[serde(rename = "standardise")]
    standardize: bool,
}

impl PrincipalComponents {
    /// Fits on rows `[n, dim]`.
    ///
    /// [`KeptComponents::Count`] may be as large as `dim` here; components beyond the numerical rank of the rows are
    /// left out, so that [`kept`](Self::kept) may be less. `standardize` divides columns by their standard deviations
    /// (divisor `n`) first, except for constant columns.
    ///
    /// # Errors
    /// [`ScorerError::Setting`] for components out of range, [`ScorerError::TooFewRows`] below 2 rows,
    /// [`ScorerError::ConstantRows`], [`ScorerError::NoColumns`], [`ScorerError::NonFiniteFeature`],
    /// [`ScorerError::NoConvergence`], [`ScorerError::Cancelled`].
    pub fn fit(
        rows: ArrayView2<'_, f32>,
        components: KeptComponents,
        standardize: bool,
        watch: Watch<'_>,
    ) -> Result<Self, ScorerError> {
        check_finite(rows)?;
        check_settings(&PcaMonitorOptions { components, ..PcaMonitorOptions::default() })?;
        components.check_at_most(rows.ncols())?;
        let (center, scale, principal) = decompose(rows, standardize, watch)?;
        let kept = components.of(&principal.variances);
        let mut directions = principal.directions.subcols(0, kept).to_owned();
        for at in 0..kept {
            let larger = |largest: f64, value: &f64| if value.abs() > largest.abs() { *value } else { largest };
            if directions.col(at).iter().fold(0.0, larger) < 0.0 {
                directions.col_mut(at).iter_mut().for_each(|value| *value = -*value);
            }
        }
        let affine = Affine { center, scale, basis: Basis::Kept, directions, variances: None };
        Ok(Self { components, standardize, affine })
    }

    /// The columns of rows that are projected.
    pub fn dim(&self) -> usize {
        self.affine.dim()
    }

    /// The number of components, at least 1: the columns of the result of [`project`](Self::project).
    pub fn kept(&self) -> usize {
        self.affine.directions.ncols()
    }

    /// The coordinates `[n, kept]` of rows `[n, dim]`. A row's coordinates do not depend on the other rows.
    ///
    /// # Errors
    /// [`ScorerError::Dimension`], [`ScorerError::NonFiniteFeature`], [`ScorerError::Numerical`] for a coordinate
    /// beyond the range of `f32`.
    pub fn project(&self, rows: ArrayView2<'_, f32>) -> Result<Array2<f32>, ScorerError> {
        self.affine.projections(rows)
    }

    /// The complete state, for [`from_state`](Self::from_state).
    pub fn state(&self) -> State {
        let config = Config { components: self.components, standardize: self.standardize };
        State::with_tensors(KIND, &config, self.affine.tensors())
    }

    /// Restores the components from their [`state`](Self::state), and trusts nothing in it.
    ///
    /// # Errors
    /// [`ScorerError::Stored`].
    pub fn from_state(state: &State) -> Result<Self, ScorerError> {
        if state.kind != KIND {
            return Err(state.config_error(format!("expected `{KIND}`")));
        }
        let Config { components, standardize } = state.read_config()?;
        check_settings(&PcaMonitorOptions { components, ..PcaMonitorOptions::default() })
            .map_err(|error| state.config_error(error.to_string()))?;
        let affine = Affine::from_state(state, Basis::Kept, standardize, false)?;
        let kept = affine.directions.ncols();
        if matches!(components, KeptComponents::Count(count) if kept > count || count > affine.dim()) {
            let reason = format!("{kept} directions in {} dimensions, but components are {components}", affine.dim());
            return Err(state.tensor_error("directions", reason));
        }
        Ok(Self { components, standardize, affine })
    }
}
