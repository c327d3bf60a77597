//! The one-class support vector machine: a hyperplane between the rows and the origin.
//!
//! # What it computes
//! In the feature space of a kernel, the hyperplane that separates most rows from the origin with the largest margin:
//! the `β` that minimize `½ Σ β_i β_j k(x_i, x_j)` with `0 <= β_i <= 1` and `Σ β_i = ν n`. The score is `ρ -
//! Σ β_i k(x_i, x)`, the negative of scikit-learn's `decision_function`: positive outside, zero on the boundary,
//! bounded by `ρ` with `rbf`. At most a share `ν` of the rows of the fit lies outside, and only rows with `β_i > 0`,
//! the support vectors, are kept.
//!
//! # When to use
//! Where normal rows fill a region of any shape, with up to some 100 000 of them: with the number of rows `n`, the time
//! of a fit grows as `ν n²`, that of a score as `ν n`. Columns should have comparable scales. The default `ν` suits
//! rows that are almost all normal; scikit-learn's 0.5 would put half of them outside.
//!
//! # Parameters
//! `kernel`, `gamma`, `degree` and `coef0`: see [`KernelOptions`](super::KernelOptions); `nu`, `tolerance` and `cache`:
//! see [`SupportVectorOptions`].
//!
//! # Reference
//! Schölkopf, Platt, Shawe-Taylor, Smola and Williamson, *Estimating the support of a high-dimensional distribution*
//! (2001), equations 3.10 and 3.11; Chang and Lin, *LIBSVM: a library for support vector machines* (2011), section 2.3,
//! for the scale of `β`.

use ndarray::ArrayView2;
use nomaly_settings::Settings;

use super::{Boundary, SupportVectorMachine, SupportVectorOptions};
use crate::entry::ScorerParams;
use crate::scorer::State;
use crate::{ScorerError, Watch};

/// The settings of a one-class support vector machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct OneClassSvmOptions(pub SupportVectorOptions);

impl Settings for OneClassSvmOptions {}

impl ScorerParams for OneClassSvmOptions {
    const NAME: &'static str = Boundary::Hyperplane.name();
    const SUMMARY: &'static str = "signed distance from the boundary of a one-class support vector machine";
    type Fitted = SupportVectorMachine;

    fn fit(&self, rows: ArrayView2<'_, f32>, watch: Watch<'_>) -> Result<SupportVectorMachine, ScorerError> {
        SupportVectorMachine::fit(rows, Boundary::Hyperplane, self.0, watch)
    }

    fn restore(state: &State) -> Result<SupportVectorMachine, ScorerError> {
        SupportVectorMachine::from_state(state)
    }
}
