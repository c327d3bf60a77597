//! Enlarging and shrinking planes, with gradients.
//!
//! **The problem.** An interpolated value is a weighted sum of up to four values whose places follow no fixed step, and
//! the gradient adds to the same four places.
//!
//! **The design.** UpsampleMode is a sparse matrix for each axis, and the gradient is the transposed ones: both are
//! tables of places and weights ([`Taps`]), by which each result is gathered, so nothing is added to in random order.
//! Along rows whole vectors are combined; along columns values are looked up one by one, which is done for as few rows
//! as possible: enlarging looks up first and combines then, and the gradient the other way round.

use rayon::prelude::*;

use crate::isa::Isa;
use crate::simd::{Kernel, Simd, Token};

use super::error::{TrainingError, expect, positive, samples, values};
use super::memory::{threads_for, with_scratch};

/// Values of a unit of work.
const UNIT: usize = 32 << 10;

/// How values between positions are found, as in PyTorch's `interpolate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpsampleMode {
    /// The value at floor(position · input / output).
    Nearest,
    /// Linear on both axes. Positions are the centers of pixels: (position + ½) · input / output - ½, but at least 0
    /// (`align_corners=False`).
    Bilinear,
    /// Linear on both axes. The first and the last positions of input and output coincide: position · (input - 1) /
    /// (output - 1) (`align_corners=True`).
    BilinearCorners,
}

/// UpsampleMode of planes `[N, C, H, W]` → `[N, C, h, w]`, planned for one geometry and any number of planes.
///
/// ```
/// use nomaly_kernels::isa::Isa;
/// use nomaly_kernels::training::{UpsampleMode, Upsample};
///
/// let twice = Upsample::by_factor(Isa::best()?, [1, 2], [1, 2], UpsampleMode::Bilinear)?;
/// let mut row = [0.0; 4];
/// twice.forward(&[0.0, 4.0], &mut row)?;
/// assert_eq!(row, [0.0, 1.0, 3.0, 4.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Upsample {
    token: Token,
    input: [usize; 2],
    output: [usize; 2],
    /// Rows and columns of the output from those of the input.
    forward: [Taps; 2],
    /// Rows and columns of the input's gradient from those of the output's.
    backward: [Taps; 2],
}

impl Upsample {
    /// Plans interpolation from `input` to `output` (height, width), larger or smaller.
    ///
    /// # Errors
    /// For an instruction set that this processor does not have, sizes of zero and planes too large for memory.
    pub fn new(
        isa: Isa,
        input: [usize; 2],
        output: [usize; 2],
        interpolation: UpsampleMode,
    ) -> Result<Self, TrainingError> {
        let token = Token::new(isa)?;
        positive(&[
            ("the height of the input", input[0]),
            ("the width of the input", input[1]),
            ("the height of the output", output[0]),
            ("the width of the output", output[1]),
        ])?;
        for (what, size) in [("the input", input), ("the output", output)] {
            if values(what, &size)? > u32::MAX as usize {
                return Err(TrainingError::TooLarge { what });
            }
        }
        let axes = [0, 1].map(|axis| places(input[axis], output[axis], interpolation));
        let forward = [0, 1].map(|axis| Taps::new(&axes[axis]));
        let backward = [0, 1].map(|axis| Taps::new(&transposed(&axes[axis], input[axis])));
        Ok(Self { token, input, output, forward, backward })
    }

    /// Plans enlarging `input` (height, width) by whole numbers.
    ///
    /// # Errors
    /// As for [`Upsample::new`].
    pub fn by_factor(
        isa: Isa,
        input: [usize; 2],
        factor: [usize; 2],
        interpolation: UpsampleMode,
    ) -> Result<Self, TrainingError> {
        let output = [input[0].saturating_mul(factor[0]), input[1].saturating_mul(factor[1])];
        Self::new(isa, input, output, interpolation)
    }

    /// Height and width of the output.
    pub fn output(&self) -> [usize; 2] {
        self.output
    }

    /// Interpolates each plane.
    ///
    /// # Errors
    /// If `input` does not hold whole planes, or `output` does not hold as many.
    pub fn forward(&self, input: &[f32], output: &mut [f32]) -> Result<(), TrainingError> {
        let [from, to] = [self.input, self.output].map(|size| size[0] * size[1]);
        let planes = samples("the input", input.len(), from)?;
        expect("the output", output.len(), planes * to)?;
        let scratch = 2 * self.output[1];
        each(input, output, [from, to], scratch, |from, to, lines| {
            self.token.dispatch(Enlarge { plan: self, from, to, lines });
        });
        Ok(())
    }

    /// Computes the gradient of the input from that of the output.
    ///
    /// # Errors
    /// If `output_gradient` does not hold whole planes, or `input_gradient` does not hold as many.
    pub fn input_gradient(&self, output_gradient: &[f32], input_gradient: &mut [f32]) -> Result<(), TrainingError> {
        let [to, from] = [self.input, self.output].map(|size| size[0] * size[1]);
        let planes = samples("the gradient of the output", output_gradient.len(), from)?;
        expect("the gradient of the input", input_gradient.len(), planes * to)?;
        let scratch = self.output[1];
        each(output_gradient, input_gradient, [from, to], scratch, |from, to, line| {
            self.token.dispatch(Gather { plan: self, from, to, line });
        });
        Ok(())
    }
}

/// Calls `work` with each plane and with working memory.
fn each(
    from: &[f32],
    to: &mut [f32],
    [from_plane, to_plane]: [usize; 2],
    scratch: usize,
    work: impl Fn(&[f32], &mut [f32], &mut [f32]) + Send + Sync,
) {
    let unit = (UNIT / (from_plane + to_plane)).max(1);
    let some = |(from, to): (&[f32], &mut [f32])| {
        with_scratch(scratch, |scratch| {
            let planes = from.chunks_exact(from_plane).zip(to.chunks_exact_mut(to_plane));
            planes.for_each(|(from, to)| work(from, to, scratch));
        });
    };
    if threads_for(16 * to.len().max(from.len())) > 1 {
        from.par_chunks(unit * from_plane).zip(to.par_chunks_mut(unit * to_plane)).for_each(some);
    } else {
        some((from, to));
    }
}

/// The places of the input that each output position is made of, with their weights.
fn places(input: usize, output: usize, interpolation: UpsampleMode) -> Vec<Vec<(usize, f64)>> {
    let last = input - 1;
    let linear = |at: f64| {
        let low = (at as usize).min(last);
        let share = (at - low as f64).min(1.0);
        if low == last || share == 0.0 { vec![(low, 1.0)] } else { vec![(low, 1.0 - share), (low + 1, share)] }
    };
    let of = |position: usize| match interpolation {
        // PyTorch decides in single precision, but for the factors one and two.
        UpsampleMode::Nearest if output == input || output == 2 * input => vec![(position * input / output, 1.0)],
        UpsampleMode::Nearest => {
            vec![(((position as f32 * (input as f32 / output as f32)) as usize).min(last), 1.0)]
        }
        UpsampleMode::Bilinear => linear(((position as f64 + 0.5) * input as f64 / output as f64 - 0.5).max(0.0)),
        UpsampleMode::BilinearCorners if output == 1 => linear(0.0),
        UpsampleMode::BilinearCorners => linear((position * last) as f64 / (output - 1) as f64),
    };
    (0..output).map(of).collect()
}

/// The transposed matrix, of `rows` rows.
fn transposed(matrix: &[Vec<(usize, f64)>], rows: usize) -> Vec<Vec<(usize, f64)>> {
    let mut result = vec![Vec::new(); rows];
    for (index, row) in matrix.iter().enumerate() {
        row.iter().for_each(|(place, weight)| result[*place].push((index, *weight)));
    }
    result
}

/// The places and the weights of each result: `[taps][len]`.
#[derive(Clone, Debug)]
struct Taps {
    taps: usize,
    len: usize,
    /// All places are below this.
    bound: usize,
    places: Vec<u32>,
    weights: Vec<f32>,
}

impl Taps {
    /// The table of a sparse matrix; shorter rows repeat a place with the weight 0.
    fn new(matrix: &[Vec<(usize, f64)>]) -> Self {
        let taps = matrix.iter().map(Vec::len).max().unwrap_or(0);
        let at = |tap: usize, row: &Vec<(usize, f64)>| match row.get(tap) {
            Some((place, weight)) => (*place as u32, *weight as f32),
            None => (row.first().map_or(0, |(place, _)| *place as u32), 0.0),
        };
        let (places, weights): (Vec<u32>, Vec<f32>) =
            (0..taps).flat_map(|tap| matrix.iter().map(move |row| at(tap, row))).unzip();
        let bound = places.iter().max().map_or(0, |place| *place as usize + 1);
        Self { taps, len: matrix.len(), bound, places, weights }
    }

    /// Looks up and adds: `to[i]` becomes the sum over the taps.
    #[inline(always)]
    fn look_up(&self, line: &[f32], to: &mut [f32]) {
        assert!(line.len() >= self.bound && to.len() == self.len, "a table belongs to lines of one length");
        match self.taps {
            1 => self.sum::<1>(line, to),
            2 => self.sum::<2>(line, to),
            3 => self.sum::<3>(line, to),
            4 => self.sum::<4>(line, to),
            taps => {
                to.fill(0.0);
                for tap in 0..taps {
                    let (places, weights) = self.tap(tap);
                    for i in 0..to.len() {
                        to[i] += weights[i] * line[places[i] as usize];
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn tap(&self, tap: usize) -> (&[u32], &[f32]) {
        let span = tap * self.len..(tap + 1) * self.len;
        (&self.places[span.clone()], &self.weights[span])
    }

    #[inline(always)]
    fn sum<const T: usize>(&self, line: &[f32], to: &mut [f32]) {
        let taps: [(&[u32], &[f32]); T] = std::array::from_fn(|tap| self.tap(tap));
        for i in 0..to.len() {
            let mut sum = 0.0;
            for (places, weights) in &taps {
                // SAFETY: tables have as many entries as results, and places are below the length of the line, which
                // the caller has asserted.
                sum += unsafe { weights.get_unchecked(i) * line.get_unchecked(*places.get_unchecked(i) as usize) };
            }
            to[i] = sum;
        }
    }
}

/// `to` = the sum of `weight` · row over the taps of row `index`; `row` gives the row at a place.
#[inline(always)]
fn combine<'a, S: Simd>(s: S, rows: &Taps, index: usize, row: impl Fn(usize) -> &'a [f32], to: &mut [f32]) {
    let tap = |tap: usize| (rows.places[tap * rows.len + index] as usize, rows.weights[tap * rows.len + index]);
    let width = to.len();
    let whole = width - width % S::LANES;
    if rows.taps == 0 {
        to.fill(0.0);
    }
    let mut first = 0;
    // Two rows at a time.
    while first < rows.taps {
        let (place, weight) = tap(first);
        let (other, other_weight) = if first + 1 < rows.taps { tap(first + 1) } else { (place, 0.0) };
        let (a, b) = (&row(place)[..width], &row(other)[..width]);
        if first == 0 && other_weight == 0.0 && weight == 1.0 {
            to.copy_from_slice(a);
        } else {
            let weights = [s.splat(weight), s.splat(other_weight)];
            for x in (0..whole).step_by(S::LANES) {
                // SAFETY: the vector lies within all three rows.
                unsafe {
                    let before = if first == 0 { s.splat(0.0) } else { s.load(to.as_ptr().add(x)) };
                    let sum = s.fma(weights[0], s.load(a.as_ptr().add(x)), before);
                    let sum = if other_weight == 0.0 { sum } else { s.fma(weights[1], s.load(b.as_ptr().add(x)), sum) };
                    s.store(to.as_mut_ptr().add(x), sum);
                }
            }
            for x in whole..width {
                let before = if first == 0 { 0.0 } else { to[x] };
                let sum = weight * a[x] + before;
                to[x] = if other_weight == 0.0 { sum } else { other_weight * b[x] + sum };
            }
        }
        first += 2;
    }
}

/// One plane of the output.
struct Enlarge<'a> {
    plan: &'a Upsample,
    from: &'a [f32],
    to: &'a mut [f32],
    /// Two rows of the input with the width of the output: the latest even one and the latest odd one.
    lines: &'a mut [f32],
}

impl Kernel for Enlarge<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let [rows, columns] = &self.plan.forward;
        let (from_width, width) = (self.plan.input[1], self.plan.output[1]);
        let mut held = [None, None];
        for (y, to) in self.to.chunks_exact_mut(width).enumerate() {
            for tap in 0..rows.taps {
                let place = rows.places[tap * rows.len + y] as usize;
                if held[place % 2] != Some(place) {
                    held[place % 2] = Some(place);
                    let line = &mut self.lines[place % 2 * width..][..width];
                    columns.look_up(&self.from[place * from_width..(place + 1) * from_width], line);
                }
            }
            let lines = &*self.lines;
            combine(s, rows, y, |place| &lines[place % 2 * width..][..width], to);
        }
    }
}

/// One plane of the input's gradient.
struct Gather<'a> {
    plan: &'a Upsample,
    from: &'a [f32],
    to: &'a mut [f32],
    /// A row of the input's gradient with the width of the output.
    line: &'a mut [f32],
}

impl Kernel for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let [rows, columns] = &self.plan.backward;
        let (width, from_width) = (self.plan.input[1], self.plan.output[1]);
        let line = &mut self.line[..from_width];
        for (y, to) in self.to.chunks_exact_mut(width).enumerate() {
            combine(s, rows, y, |place| &self.from[place * from_width..][..from_width], line);
            columns.look_up(line, to);
        }
    }
}
