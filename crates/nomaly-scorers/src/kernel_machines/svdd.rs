//! Support vector data description: the smallest ball around the rows.
//!
//! # What it computes
//! In the feature space of a kernel, the ball of centre `a` and radius `R` that minimises `R² + C Σ ξ_i`, where a row may lie
//! outside by `ξ_i >= 0` in squared distance and `C = 1 / (ν n)`. The centre is `a = Σ α_i φ(x_i)` with `0 <= α_i <= C` and
//! `Σ α_i = 1`. The score is `‖φ(x) - a‖² - R²`: positive outside, zero on the boundary. At most a share `ν` of the rows of
//! the fit lies outside, and only rows with `α_i > 0` are kept.
//!
//! # When to use
//! With `linear` for rows that fill a ball, where the result is a centre that a share of outliers does not move. With `rbf`,
//! where every `φ(x)` has length 1, it is the one-class support vector machine on another scale: the score is
//! `2 / (ν n)` times that one's. The time of a fit and of a score is the same, too.
//!
//! # Parameters
//! `kernel`, `gamma`, `degree` and `coef0`: see [`KernelOptions`](super::KernelOptions); `nu`, `tolerance` and `cache`: see
//! [`SupportVectorOptions`].
//!
//! # Reference
//! Tax and Duin, *Support vector data description* (2004), equations 3 to 16, for the squared distance of slack; Chang, Lee and
//! Lin, *A revisit to support vector data description* (2013), for the bound on `C` under which `R² >= 0` need not be asked
//! for, which `ν <= 1` respects.

use ndarray::ArrayView2;

use super::expansion::{Expansion, Machine, SupportVectorOptions, fit, is_nu};
use super::kernel::KernelFunction;
use super::one_class_svm::PARAMETERS;
use crate::scorer::{Scorer, State, check_rows};
use crate::{ScorerEntry, ScorerError, Watch};

const NAME: &str = "svdd";

/// The registry's entry.
pub(crate) const ENTRY: ScorerEntry = ScorerEntry {
    name: NAME,
    summary: "squared distance from the surface of the smallest ball around most rows (support vector data description)",
    parameters: PARAMETERS,
    fitter: |params, rows, watch| {
        Ok(Box::new(Svdd::fit(rows, SupportVectorOptions::read(params, PARAMETERS)?, watch)?))
    },
    restore: |state| Ok(Box::new(Svdd::from_state(state)?)),
};

/// A fitted ball.
#[derive(Clone, Debug)]
pub struct Svdd {
    nu: f64,
    /// `Σ α_i k(x_i, x)`.
    expansion: Expansion,
    /// `‖a‖² - R²`.
    offset: f64,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    kernel: KernelFunction,
    nu: f64,
}

impl Svdd {
    /// Fits on rows `[n, dim]`.
    ///
    /// # Errors
    /// As [`OneClassSvm::fit`](super::OneClassSvm::fit).
    pub fn fit(
        rows: ArrayView2<'_, f32>,
        options: SupportVectorOptions,
        watch: Watch<'_>,
    ) -> Result<Self, ScorerError> {
        let (space, solution) = fit(rows, options, Machine::Ball, watch)?;
        // The solver's coefficients are ν n times those of the ball, and its gradient `Kβ - ½ ν n K_ii` is
        // `½ ν n (‖a‖² - d²)` of a row at squared distance `d²` from the centre.
        let total = options.nu * rows.nrows() as f64;
        let coefficients: Vec<f64> = solution.coefficients.iter().map(|beta| (beta / total).min(1.0)).collect();
        let expansion = Expansion::new(space, rows, &coefficients)?;
        Ok(Self { nu: options.nu, expansion, offset: 2.0 * solution.level / total })
    }

    /// The number of support vectors.
    pub fn support_vectors(&self) -> usize {
        self.expansion.len()
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

impl Scorer for Svdd {
    fn dim(&self) -> usize {
        self.expansion.dim()
    }

    fn score(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        check_rows(rows, self.dim())?;
        self.expansion.evaluate(rows, |sum, of_itself| of_itself - 2.0 * sum + self.offset)
    }

    fn state(&self) -> State {
        let config = Config { kernel: self.expansion.function(), nu: self.nu };
        State::new(NAME, &config, self.expansion.tensors(self.offset))
    }
}
