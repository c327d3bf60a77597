//! Random projections that nearly preserve distances.

use rayon::prelude::*;

use super::{CoresetError, check_rows};
use crate::isa::Isa;
use crate::random::unit;
use crate::simd::{Kernel, Simd, Token};

/// Rows that are projected at a time.
const PANEL: usize = 16;

/// How the weights of a random projection are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Projection {
    /// A share of `density` of the weights is nonzero, all of one magnitude and either sign. `None` is 1 / √dim, as
    /// in Li, Hastie and Church, *Very sparse random projections* (2006), and scikit-learn's `SparseRandomProjection`.
    Sparse {
        /// The share of nonzero weights, in (0, 1].
        density: Option<f64>,
    },
    /// Normally distributed weights.
    #[default]
    Gaussian,
}

/// A linear map to fewer dimensions that keeps the expected squared length of every row.
///
/// Each weight is a function of the seed and its place alone (SplitMix64 of Steele, Lea and Flood 2014), so that a seed
/// gives the same map everywhere.
#[derive(Clone, Debug)]
pub struct RandomProjection {
    dim: usize,
    components: usize,
    token: Token,
    /// The nonzero weights, component by component: the column of the row, and the weight ...
    pub(super) weights: Vec<(u32, f32)>,
    /// ... and the start of each component, followed by the end of the last.
    pub(super) starts: Vec<usize>,
}

/// The number of components that keeps all distances of `rows` rows within a factor of 1 ± `distortion` with high
/// probability: `4 ln(rows) / (ε²/2 - ε³/3)`, rounded down, as scikit-learn's `johnson_lindenstrauss_min_dim`.
///
/// `distortion` is clamped to [0.01, 0.99]. anomalib projects to the dimension for 0.9.
///
/// ```
/// assert_eq!(nomaly_kernels::coreset::johnson_lindenstrauss_dim(100_000, 0.9), 284);
/// ```
pub fn johnson_lindenstrauss_dim(rows: usize, distortion: f64) -> usize {
    let distortion = distortion.clamp(0.01, 0.99);
    let denominator = distortion.powi(2) / 2.0 - distortion.powi(3) / 3.0;
    ((4.0 * (rows.max(2) as f64).ln() / denominator) as usize).max(1)
}

impl RandomProjection {
    /// A projection of rows of `dim` numbers to `components`.
    ///
    /// # Errors
    /// [`CoresetError::NoColumns`], [`CoresetError::Density`], [`CoresetError::Isa`].
    pub fn new(kind: Projection, dim: usize, components: usize, seed: u64, isa: Isa) -> Result<Self, CoresetError> {
        let token = Token::new(isa)?;
        if dim == 0 || components == 0 {
            return Err(CoresetError::NoColumns);
        }
        let density = match kind {
            Projection::Sparse { density } => density.unwrap_or(1.0 / (dim as f64).sqrt()),
            Projection::Gaussian => 1.0,
        };
        if !(density > 0.0 && density <= 1.0) {
            return Err(CoresetError::Density { density });
        }
        let magnitude = (1.0 / (density * components as f64)).sqrt();
        let (mut weights, mut starts) = (Vec::new(), vec![0]);
        for component in 0..components {
            for column in 0..dim {
                let place = (component * dim + column) as u64;
                let (a, b) = (unit(seed, 2 * place), unit(seed, 2 * place + 1));
                let weight = match kind {
                    Projection::Sparse { .. } if a >= density => continue,
                    Projection::Sparse { .. } => magnitude.copysign(b - 0.5),
                    // Box and Muller; 1 - a is never 0.
                    Projection::Gaussian => {
                        magnitude * (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
                    }
                };
                weights.push((column as u32, weight as f32));
            }
            starts.push(weights.len());
        }
        Ok(Self { dim, components, token, weights, starts })
    }

    /// The length of a projected row.
    pub fn components(&self) -> usize {
        self.components
    }

    /// The projections `[rows, components]` of `rows` `[rows, dim]`. Works in parallel on rayon's current pool.
    ///
    /// # Errors
    /// [`CoresetError::Ragged`], [`CoresetError::NotFinite`], [`CoresetError::TooManyRows`].
    pub fn apply(&self, rows: &[f32]) -> Result<Vec<f32>, CoresetError> {
        let total = check_rows(rows, self.dim)?;
        let mut projected = vec![0.0f32; total * self.components];
        let panels = rows.par_chunks(PANEL * self.dim).zip(projected.par_chunks_mut(PANEL * self.components));
        panels.for_each_init(
            || (vec![0.0f32; PANEL * self.dim], vec![0.0f32; PANEL * self.components]),
            |(columns, sums), (rows, projected)| {
                self.token.dispatch(Panel { projection: self, rows, columns, sums, projected });
            },
        );
        Ok(projected)
    }
}

/// Projects up to [`PANEL`] rows.
struct Panel<'a> {
    projection: &'a RandomProjection,
    rows: &'a [f32],
    /// Memory for the rows, column by column.
    columns: &'a mut [f32],
    /// Memory for the projections, component by component.
    sums: &'a mut [f32],
    projected: &'a mut [f32],
}

impl Kernel for Panel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        const SUMS: usize = 4;
        let Self { projection, rows, columns, sums, projected } = self;
        let RandomProjection { dim, components, weights, starts, .. } = projection;
        let count = rows.len() / dim;
        assert!(count <= PANEL && columns.len() == PANEL * dim && PANEL.is_multiple_of(S::LANES));
        let (whole_rows, whole_columns) = (count / S::LANES * S::LANES, dim / S::LANES * S::LANES);
        for column in (0..whole_columns).step_by(S::LANES) {
            for row in (0..whole_rows).step_by(S::LANES) {
                // SAFETY: the square ends at row `whole_rows <= count` and column `whole_columns <= dim`.
                unsafe {
                    let from = rows.as_ptr().add(row * dim + column);
                    simd.transpose(from, *dim, columns.as_mut_ptr().add(column * PANEL + row), PANEL);
                }
            }
        }
        for (row, values) in rows.chunks_exact(*dim).enumerate() {
            let first = if row < whole_rows { whole_columns } else { 0 };
            for column in first..*dim {
                columns[column * PANEL + row] = values[column];
            }
        }
        for component in 0..*components {
            let weights = &weights[starts[component]..starts[component + 1]];
            for lane in (0..PANEL).step_by(S::LANES) {
                let mut partial = [simd.splat(0.0); SUMS];
                let mut add = |i: usize, (column, weight): (u32, f32)| {
                    // SAFETY: columns are below `dim`, and each has PANEL values.
                    let values = unsafe { simd.load(columns.as_ptr().add(column as usize * PANEL + lane)) };
                    partial[i] = simd.fma(values, simd.splat(weight), partial[i]);
                };
                let (fours, rest) = weights.as_chunks::<SUMS>();
                for four in fours {
                    for i in 0..SUMS {
                        add(i, four[i]);
                    }
                }
                rest.iter().for_each(|weight| add(0, *weight));
                let total = simd.add(simd.add(partial[0], partial[1]), simd.add(partial[2], partial[3]));
                let target = &mut sums[component * PANEL + lane..][..S::LANES];
                // SAFETY: `target` has LANES values.
                unsafe { simd.store(target.as_mut_ptr(), total) };
            }
        }
        for (row, projected) in projected.chunks_exact_mut(*components).enumerate() {
            for (component, value) in projected.iter_mut().enumerate() {
                *value = sums[component * PANEL + row];
            }
        }
    }
}
