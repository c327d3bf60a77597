//! Scaling of columns, so that no unit of measurement dominates.

use ndarray::{Array2, ArrayView2};
use nomaly_methods::MethodError;
use nomaly_methods::state::take_f64;
use nomaly_scorers::{State, Tensor};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::DetectorError;

/// The state with centers and scales.
pub(super) const SCALING: &str = "scaling";

/// Scaled values are clamped to this many deviations, so that their squares fit into single precision.
const LIMIT: f64 = 1e15;

/// The standard deviation of a normal distribution divided by its median absolute deviation.
const NORMAL_MAD: f64 = 1.482_602_218_505_602;

/// The scaling of columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standardize {
    /// Mean 0 and standard deviation 1.
    #[default]
    Z,
    /// Median 0 and median absolute deviation 1, in units of a normal distribution's standard deviation: robust to a
    /// few bad rows in the fit.
    Robust,
    /// Unscaled.
    None,
}

/// A center and a scale for each column.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scaling {
    pub(super) center: Vec<f64>,
    /// Above 0.
    pub(super) scale: Vec<f64>,
}

impl Scaling {
    /// Fits the scaling of finite rows, at least one. A column without spread keeps its unit; one whose median absolute
    /// deviation is 0 is scaled by its standard deviation.
    pub(super) fn fit(rows: ArrayView2<'_, f32>, how: Standardize) -> Self {
        let measure = |column: usize| match how {
            Standardize::None => (0.0, 1.0),
            Standardize::Z => moments(rows, column),
            Standardize::Robust => {
                let mut values: Vec<f64> = rows.column(column).iter().copied().map(f64::from).collect();
                let center = median(&mut values);
                values.iter_mut().for_each(|value| *value = (*value - center).abs());
                match median(&mut values) * NORMAL_MAD {
                    0.0 => (center, moments(rows, column).1),
                    scale => (center, scale),
                }
            }
        };
        let (center, scale) = (0..rows.ncols()).into_par_iter().map(measure).unzip();
        Self { center, scale }
    }

    pub(super) fn apply(&self, rows: ArrayView2<'_, f32>) -> Array2<f32> {
        let mut scaled = rows.to_owned();
        for mut row in scaled.outer_iter_mut() {
            for ((value, center), scale) in row.iter_mut().zip(&self.center).zip(&self.scale) {
                *value = ((f64::from(*value) - center) / scale).clamp(-LIMIT, LIMIT) as f32;
            }
        }
        scaled
    }

    /// The state for the model file.
    pub(super) fn state(&self) -> State {
        let list = |values: &[f64]| Tensor::f64([values.len()], values.to_vec());
        let tensors = [("centre", &self.center), ("scale", &self.scale)];
        State {
            kind: SCALING.to_owned(),
            config: serde_json::json!({}),
            tensors: tensors.map(|(name, values)| (name.to_owned(), list(values))).into(),
        }
    }

    /// Restores the scaling of `dim` columns from a model file.
    pub(super) fn from_state(mut state: State, dim: usize) -> Result<Self, DetectorError> {
        let damaged = |reason: String| {
            DetectorError::from(MethodError::State { state: SCALING.to_owned(), reason: Some(reason) })
        };
        if state.config.as_object().is_none_or(|config| !config.is_empty()) {
            return Err(damaged("it has settings, and takes none".to_owned()));
        }
        if state.tensors.values().any(|tensor| tensor.shape != [dim]) {
            return Err(damaged(format!("it is not one of {dim} columns")));
        }
        let center = take_f64(SCALING, &mut state, "centre")?;
        let scale = take_f64(SCALING, &mut state, "scale")?;
        if let Some(name) = state.tensors.keys().next() {
            return Err(damaged(format!("`{name}` is not known")));
        }
        let usable = |scale: &f64| scale.is_finite() && *scale > 0.0;
        if !center.iter().all(|value| value.is_finite()) || !scale.iter().all(usable) {
            return Err(damaged("a centre or a scale is out of range".to_owned()));
        }
        Ok(Self { center, scale })
    }
}

/// The mean of a column and its standard deviation (with `n` in the denominator), or 1 if that is only the rounding
/// error of a constant.
fn moments(rows: ArrayView2<'_, f32>, column: usize) -> (f64, f64) {
    let values = || rows.column(column).into_iter().copied().map(f64::from);
    let n = rows.nrows() as f64;
    let mean = values().sum::<f64>() / n;
    let deviation = (values().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt();
    let rounding = 10.0 * f64::EPSILON * n.sqrt() * mean.abs();
    (mean, if deviation > rounding { deviation } else { 1.0 })
}

/// The lower median; there must be a value.
fn median(values: &mut [f64]) -> f64 {
    let middle = (values.len() - 1) / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn columns_get_one_scale_and_constants_keep_theirs() {
        let rows = array![[1.0f32, 5.1, 1e20], [3.0, 5.1, 2e20], [5.0, 5.1, 3e20], [7.0, 5.1, -9e20]];
        let z = Scaling::fit(rows.view(), Standardize::Z);
        assert_eq!((z.center[0], z.scale[0], z.scale[1]), (4.0, 5.0f64.sqrt(), 1.0));
        let robust = Scaling::fit(rows.view(), Standardize::Robust);
        assert_eq!((robust.center[0], robust.scale[0]), (3.0, 2.0 * NORMAL_MAD));
        assert_eq!(robust.scale[1], 1.0);
        assert_eq!(Scaling::fit(rows.view(), Standardize::None).apply(rows.view())[[1, 0]], 3.0);
        let far = z.apply(array![[f32::MAX, 5.1, f32::MAX]].view());
        assert!(far.iter().all(|value| (value * value).is_finite()), "{far}");
        assert!((z.apply(rows.view())[[0, 1]]).abs() < 1e-6);
    }

    #[test]
    fn a_state_that_was_tampered_with_is_refused() {
        let scaling = Scaling { center: vec![1.0, 2.0], scale: vec![0.5, 3.0] };
        assert_eq!(Scaling::from_state(scaling.state(), 2).unwrap(), scaling);
        assert!(Scaling::from_state(scaling.state(), 3).is_err());
        let refused = |edit: &dyn Fn(&mut State)| {
            let mut state = scaling.state();
            edit(&mut state);
            Scaling::from_state(state, 2).unwrap_err().to_string()
        };
        for config in [serde_json::json!({ "unknown": 1 }), serde_json::json!(null), serde_json::json!([])] {
            assert!(refused(&|state| state.config = config.clone()).contains("takes none"));
        }
        for name in ["centre", "scale"] {
            let set = |tensor: Tensor| refused(&|state| drop(state.tensors.insert(name.to_owned(), tensor.clone())));
            assert!(refused(&|state| drop(state.tensors.remove(name))).contains("is missing"));
            for bad in [f64::NAN, f64::INFINITY] {
                assert!(set(Tensor::f64([2], vec![1.0, bad])).contains("out of range"));
            }
            for shape in [vec![3], vec![1, 2], vec![2, 1]] {
                let values = vec![1.0; shape.iter().product()];
                assert!(set(Tensor::f64(shape, values)).contains("not one of 2 columns"));
            }
            assert!(set(Tensor::f32([2], vec![1.0, 1.0])).contains("not of f64"));
        }
        for bad in [0.0, -1.0] {
            let tensor = Tensor::f64([2], vec![1.0, bad]);
            let message = refused(&|state| drop(state.tensors.insert("scale".to_owned(), tensor.clone())));
            assert!(message.contains("out of range"), "{message}");
        }
        let more = Tensor::f64([2], vec![1.0, 1.0]);
        assert!(refused(&|state| drop(state.tensors.insert("more".to_owned(), more.clone()))).contains("not known"));
    }
}
