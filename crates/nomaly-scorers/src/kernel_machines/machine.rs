//! Support vector machines: settings, fit and the fitted machine.

use ndarray::ArrayView2;
use nomaly_settings::Settings;

use super::expansion::Expansion;
use super::kernel::{KernelFunction, KernelOptions, Space};
use super::smo::{Limits, Problem, solve};
use crate::entry::check_settings;
use crate::scorer::{Scorer, State, check_finite, check_rows};
use crate::{ScorerError, Watch};

/// The settings of a [`SupportVectorMachine`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct SupportVectorOptions {
    /// The similarity of rows.
    #[serde(flatten)]
    pub kernel: KernelOptions,
    /// The largest share of the rows of the fit that may lie outside.
    ///
    /// At least this share become support vectors.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1))]
    pub nu: f64,
    /// The violation of the optimality conditions at which the solver stops, relative to the mean `k(x, x)`.
    ///
    /// With `rbf` it is LIBSVM's.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub tolerance: f64,
    /// Memory for rows of the kernel matrix while fitting, in MiB.
    #[schemars(extend("x-unit" = "MiB"))]
    pub cache: usize,
}

impl Default for SupportVectorOptions {
    /// The Gaussian kernel, room for one row in twenty outside, tolerance and cache of scikit-learn.
    fn default() -> Self {
        Self { kernel: KernelOptions::default(), nu: 0.05, tolerance: 1e-3, cache: 200 }
    }
}

impl Settings for SupportVectorOptions {}

/// The boundary around the rows in the feature space of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The hyperplane between the rows and the origin: the one-class support vector machine.
    Hyperplane,
    /// The smallest ball around the rows: support vector data description.
    Ball,
}

impl Boundary {
    /// The name of the scorer.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Hyperplane => "one-class-svm",
            Self::Ball => "svdd",
        }
    }
}

/// A fitted boundary in the feature space of a kernel.
#[derive(Clone, Debug)]
pub struct SupportVectorMachine {
    boundary: Boundary,
    nu: f64,
    /// `Σ β_i k(x_i, x)`.
    expansion: Expansion,
    offset: f64,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    kernel: KernelFunction,
    nu: f64,
}

impl SupportVectorMachine {
    /// Fits on rows `[n, dim]`.
    ///
    /// # Errors
    /// [`ScorerError::Setting`], [`ScorerError::TooFewRows`] without rows, [`ScorerError::NonFiniteFeature`],
    /// [`ScorerError::Numerical`] where kernel values leave the range of single precision or the solver does not
    /// converge, [`ScorerError::Cancelled`], [`ScorerError::InstructionSet`].
    pub fn fit(
        rows: ArrayView2<'_, f32>,
        boundary: Boundary,
        options: SupportVectorOptions,
        watch: Watch<'_>,
    ) -> Result<Self, ScorerError> {
        check_settings(&options)?;
        check_finite(rows)?;
        let count = rows.nrows();
        if count == 0 {
            return Err(ScorerError::TooFewRows { what: "a kernel machine", needed: 1, got: 0 });
        }
        let (space, points) = Space::fit(rows, options.kernel)?;
        let diagonal = space.self_kernels(points.view());
        let total = options.nu * count as f64;
        // `min ½ βᵀKβ`, for the ball less `½ total Σ β_i K_ii`, with coefficients from 0 to 1 and of sum
        // `total`.
        let linear = match boundary {
            Boundary::Hyperplane => vec![0.0; count],
            Boundary::Ball => diagonal.iter().map(|value| -0.5 * total * value).collect(),
        };
        let problem = Problem { space: &space, points: &points, diagonal: &diagonal, linear: &linear, total };
        let limits = Limits { tolerance: options.tolerance, cache_bytes: options.cache.saturating_mul(1 << 20) };
        let found = solve(problem, limits, watch)?;
        let (coefficients, offset) = match boundary {
            Boundary::Hyperplane => (found.coefficients, found.level),
            // The solver's coefficients are `total` times those of the ball, and its gradient `Kβ - ½ total K_ii` is
            // `½ total (‖a‖² - d²)` of a row at squared distance `d²` from the center.
            Boundary::Ball => {
                let of_ball = found.coefficients.iter().map(|beta| (beta / total).min(1.0)).collect();
                (of_ball, 2.0 * found.level / total)
            }
        };
        let expansion = Expansion::new(space, rows, &coefficients)?;
        Ok(Self { boundary, nu: options.nu, expansion, offset })
    }

    /// The kind of boundary.
    pub fn boundary(&self) -> Boundary {
        self.boundary
    }

    /// The number of support vectors.
    pub fn support_vectors(&self) -> usize {
        self.expansion.len()
    }

    /// For the hyperplane `ρ`, the value of the sum over support vectors on the boundary; for the ball
    /// `‖a‖² - R²`.
    pub fn offset(&self) -> f64 {
        self.offset
    }

    /// Restores the machine from its [`state`](Scorer::state), whose kind names the boundary.
    ///
    /// # Errors
    /// As [`restore`](crate::restore).
    pub fn from_state(state: &State) -> Result<Self, ScorerError> {
        let boundary =
            [Boundary::Hyperplane, Boundary::Ball].into_iter().find(|boundary| boundary.name() == state.kind);
        let boundary = boundary.ok_or_else(|| state.config_error("is not a support vector machine".to_owned()))?;
        let Config { kernel, nu } = state.read_config()?;
        let options = SupportVectorOptions { nu, ..SupportVectorOptions::default() };
        check_settings(&options).map_err(|error| state.config_error(error.to_string()))?;
        let (expansion, offset) = Expansion::from_state(state, kernel)?;
        Ok(Self { boundary, nu, expansion, offset })
    }
}

impl Scorer for SupportVectorMachine {
    fn dim(&self) -> usize {
        self.expansion.dim()
    }

    fn score(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        check_rows(rows, self.dim())?;
        match self.boundary {
            Boundary::Hyperplane => self.expansion.evaluate(rows, |sum, _| self.offset - sum),
            Boundary::Ball => self.expansion.evaluate(rows, |sum, self_kernels| self_kernels - 2.0 * sum + self.offset),
        }
    }

    fn state(&self) -> State {
        let config = Config { kernel: self.expansion.function(), nu: self.nu };
        State::new(self.boundary.name(), &config, self.expansion.tensors(self.offset))
    }
}
