//! Support vector data description: the smallest ball around the rows.
//!
//! # What it computes
//! In the feature space of a kernel, the ball of center `a` and radius `R` that minimizes `R² + C Σ ξ_i`, where a
//! row may lie outside by `ξ_i >= 0` in squared distance and `C = 1 / (ν n)`. The center is `a = Σ α_i φ(x_i)`
//! with `0 <= α_i <= C` and `Σ α_i = 1`. The score is `‖φ(x) - a‖² - R²`: positive outside, zero on the
//! boundary. At most a share `ν` of the rows of the fit lies outside, and only rows with `α_i > 0` are kept.
//!
//! # When to use
//! With `linear` for rows that fill a ball, where the result is a center that is robust to a share of outliers. With
//! `rbf`, where every `φ(x)` has length 1, it is the one-class support vector machine on another scale: the score is
//! `2 / (ν n)` times that one's. The time of a fit and of a score is the same, too.
//!
//! # Parameters
//! `kernel`, `gamma`, `degree` and `coef0`: see [`KernelOptions`](super::KernelOptions); `nu`, `tolerance` and `cache`:
//! see [`SupportVectorOptions`].
//!
//! # Reference
//! Tax and Duin, *Support vector data description* (2004), equations 3 to 16, for the squared distance of slack; Chang,
//! Lee and Lin, *A revisit to support vector data description* (2013), for the bound on `C` under which the constraint
//! `R² >= 0` is redundant, which holds for `ν <= 1`.

use ndarray::ArrayView2;
use nomaly_settings::Settings;

use super::{Boundary, SupportVectorMachine, SupportVectorOptions};
use crate::entry::ScorerParams;
use crate::scorer::State;
use crate::{ScorerError, Watch};

/// The settings of a support vector data description.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct SvddOptions(pub SupportVectorOptions);

impl Settings for SvddOptions {}

impl ScorerParams for SvddOptions {
    const NAME: &'static str = Boundary::Ball.name();
    const SUMMARY: &'static str =
        "squared distance from the surface of the smallest ball around most rows (support vector data description)";
    type Fitted = SupportVectorMachine;

    fn fit(&self, rows: ArrayView2<'_, f32>, watch: Watch<'_>) -> Result<SupportVectorMachine, ScorerError> {
        SupportVectorMachine::fit(rows, Boundary::Ball, self.0, watch)
    }

    fn restore(state: &State) -> Result<SupportVectorMachine, ScorerError> {
        SupportVectorMachine::from_state(state)
    }
}
