//! Scorers on groups of rows that k-means finds.

mod cblof;
mod distance;

use ndarray::{Array2, ArrayView2};

use crate::kmeans::{KMeans, KMeansOptions};
use crate::scorer::{State, Tensor};
use crate::{Parameter, ScorerError, Watch};

pub use cblof::{Cblof, CblofOptions};
pub use distance::{ClusterDistance, Clustering, ClusteringOptions};

pub(crate) use cblof::ENTRY as CBLOF_ENTRY;
pub(crate) use distance::ENTRY;

/// The parameter of the number of groups.
const CLUSTERS: Parameter = Parameter {
    name: "clusters",
    default: "8",
    values: "a whole number from 1 to the number of rows",
    summary: "the groups that k-means makes; fewer where there are fewer distinct rows",
};

/// The parameter of random choices.
const SEED: Parameter =
    Parameter { name: "seed", default: "0", values: "a whole number from 0", summary: "where k-means starts" };

/// Groups with rows in them.
#[derive(Clone, Debug)]
struct Groups {
    /// Without the labels of the rows.
    means: KMeans,
    /// The rows of each group, 1 at least.
    sizes: Vec<u32>,
    /// For each group the sum of the squared distances of its rows from its centre.
    squares: Vec<f64>,
}

impl Groups {
    /// Groups of the rows `[n, dim]`.
    fn fit(rows: ArrayView2<'_, f32>, clusters: usize, seed: u64, watch: Watch<'_>) -> Result<Self, ScorerError> {
        let options = KMeansOptions { seed, ..KMeansOptions::default() };
        let found = KMeans::fit(rows, clusters, &options, watch)?;
        let k = found.centres.nrows();
        let (mut sizes, mut squares) = (vec![0u32; k], vec![0.0; k]);
        for (group, square) in found.assign(rows) {
            sizes[group as usize] += 1;
            squares[group as usize] += square;
        }
        // The last step of k-means may leave a centre without rows.
        let kept: Vec<usize> = (0..k).filter(|group| sizes[*group] > 0).collect();
        Ok(Self {
            means: with_centres(found.centres.select(ndarray::Axis(0), &kept)),
            sizes: kept.iter().map(|group| sizes[*group]).collect(),
            squares: kept.iter().map(|group| squares[*group]).collect(),
        })
    }

    fn dim(&self) -> usize {
        self.means.centres.ncols()
    }

    fn len(&self) -> usize {
        self.sizes.len()
    }

    /// The tensors `centres` `[k, dim]`, `sizes` `[k]` and `squares` `[k]` of a state.
    fn tensors(&self) -> [(&'static str, Tensor); 3] {
        let k = self.len();
        let centres = self.means.centres.iter().copied().collect();
        [
            ("centres", Tensor::f64([k, self.dim()], centres)),
            ("sizes", Tensor::u32([k], self.sizes.clone())),
            ("squares", Tensor::f64([k], self.squares.clone())),
        ]
    }

    /// Reads those tensors.
    fn from_state(state: &State) -> Result<Self, ScorerError> {
        state.expect_only(&["centres", "sizes", "squares"])?;
        let [k, dim] = state.shape("centres")?;
        let centres = state.read_f64("centres", [k, dim])?;
        // Centres are means of `f32` numbers, so that their squared distances are far from the largest `f64`.
        if let Some(at) = centres.iter().position(|value| value.abs() > f64::from(f32::MAX)) {
            return Err(state.tensor_error("centres", format!("number {at} is no mean of single precision numbers")));
        }
        let centres = Array2::from_shape_fn((k, dim), |(group, column)| centres[group * dim + column]);
        let sizes = state.read_u32("sizes", [k])?.to_vec();
        if sizes.contains(&0) {
            return Err(state.tensor_error("sizes", "there is a group without rows".to_owned()));
        }
        let squares = state.read_f64("squares", [k])?.to_vec();
        if let Some(at) = squares.iter().position(|square| *square < 0.0) {
            return Err(state.tensor_error("squares", format!("number {at} is negative")));
        }
        Ok(Self { means: with_centres(centres), sizes, squares })
    }
}

/// Centres that rows are compared with, of rows that are not kept.
fn with_centres(centres: Array2<f64>) -> KMeans {
    KMeans { centres, labels: Vec::new(), inertia: 0.0 }
}
