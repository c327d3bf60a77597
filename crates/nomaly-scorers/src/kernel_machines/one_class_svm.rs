//! The one-class support vector machine: a hyperplane between the rows and the origin.
//!
//! # What it computes
//! In the feature space of a kernel, the hyperplane that separates most rows from the origin with the largest margin: the
//! `β` that minimise `½ Σ β_i β_j k(x_i, x_j)` with `0 <= β_i <= 1` and `Σ β_i = ν n`. The score is `ρ - Σ β_i k(x_i, x)`,
//! the negative of scikit-learn's `decision_function`: positive outside, zero on the boundary, bounded by `ρ` with `rbf`. At
//! most a share `ν` of the rows of the fit lies outside, and only rows with `β_i > 0`, the support vectors, are kept.
//!
//! # When to use
//! Where normal rows fill a region of any shape, with up to some 100 000 of them: with the number of rows `n`, the time of a
//! fit grows as `ν n²`, that of a score as `ν n`. Columns should have comparable scales. The default `ν` suits rows that are
//! normal but for a few; scikit-learn's 0.5 would put half of them outside.
//!
//! # Parameters
//! `kernel`, `gamma`, `degree` and `coef0`: see [`KernelOptions`](super::KernelOptions); `nu`, `tolerance` and `cache`: see
//! [`SupportVectorOptions`].
//!
//! # Reference
//! Schölkopf, Platt, Shawe-Taylor, Smola and Williamson, *Estimating the support of a high-dimensional distribution* (2001),
//! equations 3.10 and 3.11; Chang and Lin, *LIBSVM: a library for support vector machines* (2011), section 2.3, for the scale of
//! `β`.

use ndarray::ArrayView2;

use super::expansion::{CACHE, Expansion, Machine, NU, SupportVectorOptions, TOLERANCE, fit, is_nu};
use super::kernel::{KERNEL_PARAMETERS, KernelFunction};
use crate::scorer::{Scorer, State, check_rows};
use crate::{Parameter, ScorerEntry, ScorerError, Watch};

const NAME: &str = "one-class-svm";

/// The table of parameters.
pub(super) const PARAMETERS: &[Parameter] = {
    let [coef0, degree, gamma, kernel] = KERNEL_PARAMETERS;
    &[CACHE, coef0, degree, gamma, kernel, NU, TOLERANCE]
};

/// The registry's entry.
pub(crate) const ENTRY: ScorerEntry = ScorerEntry {
    name: NAME,
    summary: "signed distance from the boundary of a one-class support vector machine",
    parameters: PARAMETERS,
    fitter: |params, rows, watch| {
        Ok(Box::new(OneClassSvm::fit(rows, SupportVectorOptions::read(params, PARAMETERS)?, watch)?))
    },
    restore: |state| Ok(Box::new(OneClassSvm::from_state(state)?)),
};

/// A fitted one-class support vector machine.
#[derive(Clone, Debug)]
pub struct OneClassSvm {
    nu: f64,
    expansion: Expansion,
    /// `ρ`.
    offset: f64,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    kernel: KernelFunction,
    nu: f64,
}

impl OneClassSvm {
    /// Fits on rows `[n, dim]`.
    ///
    /// # Errors
    /// [`ScorerError::Parameter`], [`ScorerError::TooFewRows`] without rows, [`ScorerError::NonFiniteFeature`],
    /// [`ScorerError::Numerical`] where kernel values leave the range of single precision or the solver does not converge,
    /// [`ScorerError::Cancelled`], [`ScorerError::InstructionSet`].
    pub fn fit(
        rows: ArrayView2<'_, f32>,
        options: SupportVectorOptions,
        watch: Watch<'_>,
    ) -> Result<Self, ScorerError> {
        let (space, solution) = fit(rows, options, Machine::Hyperplane, watch)?;
        let expansion = Expansion::new(space, rows, &solution.coefficients)?;
        Ok(Self { nu: options.nu, expansion, offset: solution.level })
    }

    /// The number of support vectors.
    pub fn support_vectors(&self) -> usize {
        self.expansion.len()
    }

    /// `ρ`: what the sum over the support vectors is on the boundary.
    pub fn offset(&self) -> f64 {
        self.offset
    }

    /// Brings back what [`state`](Scorer::state) gave.
    ///
    /// # Errors
    /// As [`restore`](crate::restore).
    pub fn from_state(state: &State) -> Result<Self, ScorerError> {
        let Config { kernel, nu } = state.read_config()?;
        if !is_nu(&nu) {
            return Err(state.config_error(format!("nu is {nu}, expected above 0, at most 1")));
        }
        let (expansion, offset) = Expansion::from_state(state, kernel)?;
        Ok(Self { nu, expansion, offset })
    }
}

impl Scorer for OneClassSvm {
    fn dim(&self) -> usize {
        self.expansion.dim()
    }

    fn score(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        check_rows(rows, self.dim())?;
        self.expansion.evaluate(rows, |sum, _| self.offset - sum)
    }

    fn state(&self) -> State {
        let config = Config { kernel: self.expansion.function(), nu: self.nu };
        State::new(NAME, &config, self.expansion.tensors(self.offset))
    }
}
