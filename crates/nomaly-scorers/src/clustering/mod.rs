//! Scorers on groups of rows that k-means finds.

mod cblof;
mod distance;

use ndarray::{Array2, ArrayView2};

use crate::kmeans::{KMeans, KMeansOptions};
use crate::scorer::{State, Tensor};
use crate::{ScorerError, Watch};

pub use cblof::{Cblof, CblofOptions};
pub use distance::{ClusterDistance, Clustering, ClusteringOptions};

/// Nonempty groups.
#[derive(Clone, Debug)]
struct Groups {
    /// The centers, without the labels of the rows.
    means: KMeans,
    /// The rows of each group, 1 at least.
    sizes: Vec<u32>,
    /// For each group the sum of the squared distances of its rows from its center.
    squares: Vec<f64>,
}

impl Groups {
    /// Groups of the rows `[n, dim]`.
    fn fit(rows: ArrayView2<'_, f32>, clusters: usize, seed: u64, watch: Watch<'_>) -> Result<Self, ScorerError> {
        let options = KMeansOptions { seed, ..KMeansOptions::default() };
        let found = KMeans::fit(rows, clusters, &options, watch)?;
        let k = found.centers.nrows();
        let (mut sizes, mut squares) = (vec![0u32; k], vec![0.0; k]);
        for (group, square) in found.assign(rows) {
            sizes[group as usize] += 1;
            squares[group as usize] += square;
        }
        // The last step of k-means may leave a center without rows.
        let kept: Vec<usize> = (0..k).filter(|group| sizes[*group] > 0).collect();
        Ok(Self {
            means: with_centers(found.centers.select(ndarray::Axis(0), &kept)),
            sizes: kept.iter().map(|group| sizes[*group]).collect(),
            squares: kept.iter().map(|group| squares[*group]).collect(),
        })
    }

    fn dim(&self) -> usize {
        self.means.centers.ncols()
    }

    fn len(&self) -> usize {
        self.sizes.len()
    }

    /// The tensors `centres` `[k, dim]`, `sizes` `[k]` and `squares` `[k]` of a state.
    fn tensors(&self) -> [(&'static str, Tensor); 3] {
        let k = self.len();
        let centers = self.means.centers.iter().copied().collect();
        [
            ("centres", Tensor::f64([k, self.dim()], centers)),
            ("sizes", Tensor::u32([k], self.sizes.clone())),
            ("squares", Tensor::f64([k], self.squares.clone())),
        ]
    }

    /// Reads those tensors.
    fn from_state(state: &State) -> Result<Self, ScorerError> {
        state.expect_only(&["centres", "sizes", "squares"])?;
        let [k, dim] = state.shape("centres")?;
        let centers = state.read_f64("centres", [k, dim])?;
        // Centers are means of `f32` numbers, so their squared distances are far below the largest `f64`.
        if let Some(at) = centers.iter().position(|value| value.abs() > f64::from(f32::MAX)) {
            return Err(state.tensor_error("centres", format!("number {at} is not a mean of single precision numbers")));
        }
        let centers = Array2::from_shape_fn((k, dim), |(group, column)| centers[group * dim + column]);
        let sizes = state.read_u32("sizes", [k])?.to_vec();
        if sizes.contains(&0) {
            return Err(state.tensor_error("sizes", "there is a group without rows".to_owned()));
        }
        let squares = state.read_f64("squares", [k])?.to_vec();
        if let Some(at) = squares.iter().position(|square| *square < 0.0) {
            return Err(state.tensor_error("squares", format!("number {at} is negative")));
        }
        Ok(Self { means: with_centers(centers), sizes, squares })
    }
}

/// k-means centers without the rows of the fit.
fn with_centers(centers: Array2<f64>) -> KMeans {
    KMeans { centers, labels: Vec::new(), inertia: 0.0 }
}
