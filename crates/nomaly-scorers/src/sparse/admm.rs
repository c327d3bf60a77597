//! Basis pursuit denoising by the alternating direction method of multipliers (ADMM).
//!
//! `argmin ½‖Dα - s‖² + λ‖α‖₁` is split into a ridge regression for `x` and a soft threshold for `z`,
//! joined by a scaled dual `u` (Boyd et al., 2011, section 6.4). The matrix of the regression is the same for all rows
//! and all iterations and is inverted once, so that an iteration is one product with a small dense matrix for many rows
//! at once.
//!
//! Products have a fixed width. When a row has converged, the next row takes its column, so that slow rows do not delay
//! the others, and a row goes through the same operations regardless of the others.

use faer::linalg::matmul::matmul;
use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{Accum, Mat, MatMut, MatRef, Par};
use ndarray::{Array2, ArrayView2};
use nomaly_settings::SettingError;
use rayon::prelude::*;

use crate::{ScorerError, Watch, linalg};

/// Rows in progress at once.
const SLOTS: usize = 32;

/// Rows of one task. Many more than [`SLOTS`], because a task ends with columns that have no next row.
pub(crate) const TASK: usize = 512;

/// The penalty `ρ`. Atoms have unit length, so that 1 is the mean eigenvalue of `DᵀD`.
const PENALTY: f64 = 1.0;

/// Over-relaxation, Boyd et al. (2011), section 3.4.3: which recommends values from 1.5 to 1.8.
const RELAXATION: f64 = 1.6;

/// Iterations between checks of the residuals of a row.
const INTERVAL: usize = 5;

/// The most iterations for a row, a multiple of [`INTERVAL`]. Rows that reach it keep their code, whose relative error
/// is somewhat above the tolerance.
const MAX_ITERATIONS: usize = 2000;

/// Codes rows with a given dictionary: `argmin ½‖Dα - s‖² + λ‖α‖₁` for each row `s`.
///
/// A row is done when its primal and its dual residual are below a tolerance relative to its code (Boyd et al., 2011,
/// section 3.3.1), with an absolute part relative to `λ`. Codes have exact zeros.
///
/// ```
/// use ndarray::array;
/// use nomaly_scorers::Watch;
/// use nomaly_scorers::sparse::BasisPursuit;
///
/// // With orthogonal atoms the code is the soft-thresholded product.
/// let solver = BasisPursuit::new(array![[1.0, 0.0], [0.0, 1.0]].view(), 0.5, 1e-9)?;
/// let codes = solver.codes(array![[2.0, -0.3]].view(), Watch::none())?;
/// assert!((codes[[0, 0]] - 1.5).abs() < 1e-6 && codes[[0, 1]] == 0.0);
/// # Ok::<(), nomaly_scorers::ScorerError>(())
/// ```
#[derive(Clone, Debug)]
pub struct BasisPursuit {
    /// `[dim, atoms]`.
    dictionary: Mat<f64>,
    inverse: Inverse,
    lambda: f64,
    tolerance: f64,
}

/// `(DᵀD + ρI)⁻¹` in the form that takes fewer multiplications.
#[derive(Clone, Debug)]
enum Inverse {
    /// The matrix, `[atoms, atoms]`.
    Direct(Mat<f64>),
    /// `G = L⁻¹D`, `[dim, atoms]`, with `LLᵀ = ρI + DDᵀ`: by Woodbury's identity the inverse is `(I - GᵀG) /
    /// ρ`.
    Woodbury(Mat<f64>),
}

/// The two parts of the cost of a code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// `‖Dα - s‖²`.
    pub(crate) error: f64,
    /// `‖α‖₁`.
    pub(crate) sparsity: f64,
}

/// The workspace of one task: column-major arrays of one column for each slot.
struct Work {
    right: Vec<f64>,
    x: Vec<f64>,
    z: Vec<f64>,
    u: Vec<f64>,
    short: Vec<f64>,
}

impl BasisPursuit {
    /// A solver for `atoms` `[count, dim]` of length at most 1, a weight `lambda` above 0 and a relative `tolerance`
    /// above 0.
    ///
    /// # Errors
    /// [`ScorerError::NoColumns`] without atoms or columns, [`ScorerError::Setting`] where a value is out of its range.
    pub fn new(atoms: ArrayView2<'_, f64>, lambda: f64, tolerance: f64) -> Result<Self, ScorerError> {
        if atoms.is_empty() {
            return Err(ScorerError::NoColumns);
        }
        for (name, value) in [("lambda", lambda), ("tolerance", tolerance)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(refused(name, value, "a number above 0"));
            }
        }
        for atom in atoms.outer_iter() {
            let norm = atom.iter().map(|value| value * value).sum::<f64>().sqrt();
            if norm.is_nan() || norm > 1.0 + 1e-6 {
                return Err(refused("atoms", norm, "atoms of length at most 1"));
            }
        }
        let dictionary = Mat::from_fn(atoms.ncols(), atoms.nrows(), |i, j| atoms[[j, i]]);
        let inverse = Inverse::of(dictionary.as_ref())?;
        Ok(Self { dictionary, inverse, lambda, tolerance })
    }

    /// The number of columns of a row.
    pub fn dim(&self) -> usize {
        self.dictionary.nrows()
    }

    /// The number of atoms.
    pub fn atoms(&self) -> usize {
        self.dictionary.ncols()
    }

    /// The codes `[n, atoms]` of rows `[n, dim]` of finite numbers.
    ///
    /// # Errors
    /// [`ScorerError::Dimension`], [`ScorerError::NonFiniteFeature`], [`ScorerError::Cancelled`].
    pub fn codes(&self, rows: ArrayView2<'_, f64>, watch: Watch<'_>) -> Result<Array2<f64>, ScorerError> {
        if rows.ncols() != self.dim() {
            return Err(ScorerError::Dimension { expected: self.dim(), got: rows.ncols() });
        }
        if let Some(((row, column), _)) = rows.indexed_iter().find(|(_, value)| !value.is_finite()) {
            return Err(ScorerError::NonFiniteFeature { row, column });
        }
        let flat: Vec<f64> = rows.iter().copied().collect();
        let mut codes = Array2::zeros((rows.nrows(), self.atoms()));
        if let Some(codes) = codes.as_slice_mut() {
            let tasks = codes.par_chunks_mut(TASK * self.atoms()).zip(flat.par_chunks(TASK * self.dim()));
            tasks.try_for_each(|(codes, rows)| {
                watch.check()?;
                self.solve(rows, codes, &mut vec![0.0; codes.len()]);
                Ok::<(), ScorerError>(())
            })?;
        }
        Ok(codes)
    }

    /// Iterates `codes` and the scaled `duals`, both `[n, atoms]`, to the solution for `rows` `[n, dim]`, starting from
    /// zeros or the solution of a similar problem.
    pub(crate) fn solve(&self, rows: &[f64], codes: &mut [f64], duals: &mut [f64]) {
        let (dim, atoms) = (self.dim(), self.atoms());
        let count = rows.len() / dim;
        let linear = self.correlations(rows);
        let zeros = || vec![0.0f64; atoms * SLOTS];
        let mut work = Work { right: zeros(), x: zeros(), z: zeros(), u: zeros(), short: vec![0.0; dim * SLOTS] };
        let of = |index: usize| index * atoms..(index + 1) * atoms;
        let mut slots: [Option<(usize, usize)>; SLOTS] = [None; SLOTS];
        let mut next = 0;
        loop {
            for (slot, held) in slots.iter_mut().enumerate().filter(|(_, held)| held.is_none()) {
                if next < count {
                    work.z[of(slot)].copy_from_slice(&codes[of(next)]);
                    work.u[of(slot)].copy_from_slice(&duals[of(next)]);
                    *held = Some((next, 0));
                    next += 1;
                } else {
                    for values in [&mut work.z, &mut work.u, &mut work.right] {
                        values[of(slot)].fill(0.0);
                    }
                }
            }
            if slots.iter().all(Option::is_none) {
                return;
            }
            for (slot, (row, _)) in slots.iter().enumerate().filter_map(|(slot, held)| Some((slot, (*held)?))) {
                let iterates = work.z[of(slot)].iter().zip(&work.u[of(slot)]);
                for ((right, linear), (z, u)) in work.right[of(slot)].iter_mut().zip(&linear[of(row)]).zip(iterates) {
                    *right = linear + PENALTY * (z - u);
                }
            }
            self.inverse.apply(&mut work);
            for (slot, held) in slots.iter_mut().enumerate() {
                let Some((row, iteration)) = held else { continue };
                *iteration += 1;
                let (x, z, u) = (&work.x[of(slot)], &mut work.z[of(slot)], &mut work.u[of(slot)]);
                let threshold = self.lambda / PENALTY;
                let done = if iteration.is_multiple_of(INTERVAL) {
                    self.has_converged(&threshold_step::<true>(x, z, u, threshold)) || *iteration >= MAX_ITERATIONS
                } else {
                    threshold_step::<false>(x, z, u, threshold);
                    false
                };
                if done {
                    codes[of(*row)].copy_from_slice(z);
                    duals[of(*row)].copy_from_slice(u);
                    *held = None;
                }
            }
        }
    }

    /// The cost of a code; replaces the row `s` by the residual `s - Dα`.
    pub(crate) fn cost(&self, row: &mut [f64], code: &[f64]) -> Cost {
        let mut sparsity = 0.0;
        for (atom, coefficient) in code.iter().enumerate().filter(|(_, coefficient)| **coefficient != 0.0) {
            sparsity += coefficient.abs();
            for (residual, value) in row.iter_mut().zip(self.dictionary.col(atom).iter()) {
                *residual -= coefficient * value;
            }
        }
        Cost { error: row.iter().map(|residual| residual * residual).sum(), sparsity }
    }

    /// `½‖Dα - s‖² + λ‖α‖₁`.
    pub(crate) fn objective(&self, cost: Cost) -> f64 {
        0.5 * cost.error + self.lambda * cost.sparsity
    }

    /// `Dᵀs` of each row, `[n, atoms]` and a few more, in products of a fixed width.
    fn correlations(&self, rows: &[f64]) -> Vec<f64> {
        let (dim, atoms) = (self.dim(), self.atoms());
        let blocks = (rows.len() / dim).div_ceil(SLOTS);
        let mut correlations = vec![0.0f64; blocks * SLOTS * atoms];
        let mut padded = vec![0.0f64; SLOTS * dim];
        for (target, rows) in correlations.chunks_exact_mut(SLOTS * atoms).zip(rows.chunks(SLOTS * dim)) {
            padded[..rows.len()].copy_from_slice(rows);
            padded[rows.len()..].fill(0.0);
            product(target, self.dictionary.transpose(), &padded, Accum::Replace, 1.0);
        }
        correlations
    }

    /// The stopping rule of Boyd et al. (2011), section 3.3.1.
    fn has_converged(&self, residuals: &Residuals) -> bool {
        let absolute = (self.atoms() as f64).sqrt() * self.tolerance * self.lambda;
        let largest = residuals.x.max(residuals.z).sqrt();
        residuals.primal.sqrt() <= absolute + self.tolerance * largest
            && PENALTY * residuals.dual.sqrt() <= absolute + self.tolerance * PENALTY * residuals.u.sqrt()
    }
}

/// Sums of squares that the stopping rule compares.
#[derive(Default)]
struct Residuals {
    /// Of `x - z`.
    primal: f64,
    /// Of the change of `z`.
    dual: f64,
    x: f64,
    z: f64,
    u: f64,
}

/// The soft threshold and the step of the dual; sums the residuals if `MEASURED`.
fn threshold_step<const MEASURED: bool>(x: &[f64], z: &mut [f64], u: &mut [f64], threshold: f64) -> Residuals {
    let mut sums = Residuals::default();
    for ((x, z), u) in x.iter().zip(z).zip(u) {
        let relaxed = RELAXATION * x + (1.0 - RELAXATION) * *z;
        let moved = relaxed + *u;
        // The part that the soft threshold removes is the next dual.
        let cut = moved.clamp(-threshold, threshold);
        let next = moved - cut;
        if MEASURED {
            sums.primal += (x - next) * (x - next);
            sums.dual += (next - *z) * (next - *z);
            sums.x += x * x;
            sums.z += next * next;
            sums.u += cut * cut;
        }
        *z = next;
        *u = cut;
    }
    sums
}

impl Inverse {
    fn of(dictionary: MatRef<'_, f64>) -> Result<Self, ScorerError> {
        let (dim, atoms) = (dictionary.nrows(), dictionary.ncols());
        let is_direct = atoms <= 2 * dim;
        let (left, size) = if is_direct { (dictionary.transpose(), atoms) } else { (dictionary.as_ref(), dim) };
        let mut gram = Mat::<f64>::identity(size, size);
        gram *= faer::Scale(PENALTY);
        matmul(gram.as_mut(), Accum::Add, left, left.transpose(), 1.0, Par::Seq);
        let factor = linalg::cholesky(gram).ok_or_else(|| ScorerError::Numerical {
            what: "the inverse of a dictionary",
            reason: format!("{atoms} atoms in {dim} dimensions are too large"),
        })?;
        if is_direct {
            let mut inverse = Mat::<f64>::identity(atoms, atoms);
            solve_lower_triangular_in_place(factor.as_ref(), inverse.as_mut(), Par::Seq);
            solve_upper_triangular_in_place(factor.transpose(), inverse.as_mut(), Par::Seq);
            Ok(Self::Direct(inverse))
        } else {
            let mut half = dictionary.to_owned();
            solve_lower_triangular_in_place(factor.as_ref(), half.as_mut(), Par::Seq);
            Ok(Self::Woodbury(half))
        }
    }

    /// Computes `x` from `right`, for all slots.
    fn apply(&self, work: &mut Work) {
        match self {
            Self::Direct(inverse) => product(&mut work.x, inverse.as_ref(), &work.right, Accum::Replace, 1.0),
            Self::Woodbury(half) => {
                product(&mut work.short, half.as_ref(), &work.right, Accum::Replace, 1.0);
                for (x, right) in work.x.iter_mut().zip(&work.right) {
                    *x = right / PENALTY;
                }
                product(&mut work.x, half.transpose(), &work.short, Accum::Add, -1.0 / PENALTY);
            }
        }
    }
}

/// `scale · left · right` for column-major `right` and `target` of [`SLOTS`] columns.
fn product(target: &mut [f64], left: MatRef<'_, f64>, right: &[f64], accumulate: Accum, scale: f64) {
    matmul(
        MatMut::from_column_major_slice_mut(target, left.nrows(), SLOTS),
        accumulate,
        left,
        MatRef::from_column_major_slice(right, left.ncols(), SLOTS),
        scale,
        Par::Seq,
    );
}

fn refused(name: &str, value: f64, expected: &str) -> ScorerError {
    SettingError::value(name, value, expected).into()
}
