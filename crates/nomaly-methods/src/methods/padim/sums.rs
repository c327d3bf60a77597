//! Sums over the training images, which updates extend.

use nomaly_kernels::Isa;
use nomaly_kernels::linalg::{PositionStatistics, packed_len};
use nomaly_scorers::{State, Tensor};

use super::positions::Positions;
use crate::MethodError;
use crate::state::{take, take_f64};

/// Images per stretch, added to the statistics together.
const STRETCH: usize = 16;
/// Name of the state in a model file.
pub(super) const SUMS: &str = "sums";

/// The statistics of whole stretches of images, and the remaining images.
///
/// Sums are rounded. Since stretches depend neither on batches nor on updates, an updated model equals that of a fit on
/// all images.
#[derive(Debug)]
pub(super) struct Sums {
    whole: PositionStatistics,
    /// `[images, positions, features]`.
    rest: Vec<f32>,
    /// Positions and features.
    shape: [usize; 2],
}

impl Sums {
    /// Empty sums.
    pub(super) fn new(positions: &Positions) -> Result<Self, MethodError> {
        let shape = [positions.count(), positions.features()];
        let whole = PositionStatistics::new(shape[0], shape[1], Isa::best()?)?;
        Ok(Self { whole, rest: Vec::new(), shape })
    }

    /// Adds images `[images, positions, features]`.
    pub(super) fn add(&mut self, images: &[f32]) -> Result<(), MethodError> {
        let [positions, features] = self.shape;
        let image = positions * features;
        for rows in images.chunks_exact(image) {
            self.rest.extend_from_slice(rows);
            if self.rest.len() == STRETCH * image {
                self.whole.add(&self.rest)?;
                self.rest.clear();
            }
        }
        Ok(())
    }

    /// The statistics of all images.
    pub(super) fn into_statistics(mut self) -> Result<PositionStatistics, MethodError> {
        self.whole.add(&self.rest)?;
        Ok(self.whole)
    }

    /// As [`into_statistics`](Self::into_statistics), without consuming the sums.
    pub(super) fn statistics(&self) -> Result<PositionStatistics, MethodError> {
        let mut all = self.whole.clone();
        all.add(&self.rest)?;
        Ok(all)
    }

    /// The state for the model file.
    pub(super) fn state(&self) -> State {
        let [positions, features] = self.shape;
        let tensors = [
            ("mean", Tensor::f64(self.shape, self.whole.mean().to_vec())),
            ("scatter", Tensor::f32([positions, packed_len(features)], self.whole.scatter().to_vec())),
            ("rest", Tensor::f32([self.rest.len() / (positions * features), positions, features], self.rest.clone())),
        ];
        State {
            kind: SUMS.to_owned(),
            config: serde_json::json!({ "count": self.whole.count() }),
            tensors: tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into(),
        }
    }

    /// Restores the sums from a model file.
    ///
    /// # Errors
    /// A state that is damaged or has other positions.
    pub(super) fn restore(mut state: State, positions: &Positions) -> Result<Self, MethodError> {
        let refuse = |reason: &str| MethodError::State { state: SUMS.to_owned(), reason: Some(reason.to_owned()) };
        let shape = [positions.count(), positions.features()];
        let count = state.config.get("count").and_then(serde_json::Value::as_u64);
        let count = count.filter(|count| state.kind == SUMS && *count < 1 << 53);
        let count = count.ok_or_else(|| refuse("it does not say of how many images"))?;
        let mean = take_f64(SUMS, &mut state, "mean")?;
        if mean.iter().any(|value| !value.is_finite()) {
            return Err(refuse("a mean is not finite"));
        }
        let (scatter, rest) = (take(SUMS, &mut state, "scatter")?, take(SUMS, &mut state, "rest")?);
        let image = shape[0] * shape[1];
        if !rest.len().is_multiple_of(image) || rest.len() >= STRETCH * image || !count.is_multiple_of(STRETCH as u64) {
            return Err(refuse("its images do not fall into stretches"));
        }
        let whole = PositionStatistics::from_parts(shape, count, mean, scatter, Isa::best()?)?;
        Ok(Self { whole, rest, shape })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions() -> Positions {
        serde_json::from_value(serde_json::json!({ "grid": [2, 1], "views": 1, "channels": [0, 2, 3] })).unwrap()
    }

    fn sums(images: usize) -> Sums {
        let mut sums = Sums::new(&positions()).unwrap();
        let rows: Vec<f32> = (0..images * 6).map(|at| (at * 37 % 101) as f32).collect();
        sums.add(&rows).unwrap();
        sums
    }

    #[test]
    fn sums_go_on_where_they_were_kept() {
        let expected = sums(40).into_statistics().unwrap();
        for first in [1, 16, 23] {
            let mut kept = Sums::restore(sums(first).state(), &positions()).unwrap();
            let rows: Vec<f32> = (first * 6..40 * 6).map(|at| (at * 37 % 101) as f32).collect();
            kept.add(&rows).unwrap();
            let found = kept.statistics().unwrap();
            assert_eq!((found.count(), found.mean(), found.scatter()), (40, expected.mean(), expected.scatter()));
        }
    }

    #[test]
    fn sums_that_were_tampered_with_are_refused() {
        let refused = |edit: &dyn Fn(&mut State), reason: &str| {
            let mut state = sums(20).state();
            edit(&mut state);
            let error = Sums::restore(state, &positions()).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        };
        for config in [serde_json::json!({}), serde_json::json!({ "count": -1 }), serde_json::json!(null)] {
            refused(&|state| state.config = config.clone(), "of how many images");
        }
        refused(&|state| state.config = serde_json::json!({ "count": 15 }), "stretches");
        let set = |name: &'static str, tensor: Tensor| {
            move |state: &mut State| drop(state.tensors.insert(name.to_owned(), tensor.clone()))
        };
        refused(&set("rest", Tensor::f32([5], vec![1.0; 5])), "stretches");
        refused(&set("rest", Tensor::f32([16 * 6], vec![1.0; 16 * 6])), "stretches");
        refused(&set("mean", Tensor::f64([6], vec![f64::NAN; 6])), "not finite");
        refused(&set("mean", Tensor::f64([5], vec![0.0; 5])), "the mean should have 6 numbers");
        refused(&set("scatter", Tensor::f32([11], vec![0.0; 11])), "should have 12 numbers");
        refused(&|state| drop(state.tensors.remove("scatter")), "`scatter` is missing");
    }
}
