//! Pooling with gradients.
//!
//! **The problem.** A window has a handful of values, and those of neighbouring windows overlap or lie a stride apart:
//! taken window by window, every value costs a comparison of its own and a branch at the border.
//!
//! **The design.** A row of the output is made in one pass for each element of the window, over all columns whose
//! element is inside the image: plain loops without branches, which the compiler turns into vectors when they are
//! compiled for the instruction set (they run inside [`Token::dispatch`]). The gradient of a mean adds up rows first,
//! and then spreads the sum over the columns, those of one remainder modulo the stride at a time, so that no loop
//! writes with a step.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use crate::geometry::Pool2d;
use crate::isa::Isa;
use crate::simd::{Kernel, Simd, Token};
use crate::window::Window;

use super::error::{TrainingError, expect, positive, samples, values};
use super::memory::{threads_for, with_scratch};
use super::reduce::plane_means;
use super::stage::join;

/// The divisor of a window's sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AverageOver {
    /// All positions of the window, padding included (PyTorch's default).
    #[default]
    Window,
    /// The positions inside the image.
    Inside,
}

/// Average and max pooling of planes `[N, C, H, W]` → `[N, C, h, w]`, planned for one geometry and any number of
/// planes.
#[derive(Clone, Debug)]
pub struct Pool {
    token: Token,
    pool: Pool2d,
    input: [usize; 2],
    output: [usize; 2],
}

impl Pool {
    /// Plans pooling of images of `input` (height, width), for the instruction set of [`Isa::best`].
    ///
    /// # Errors
    /// For sizes of zero, a window that does not fit into the padded image or that could lie entirely in the padding,
    /// images whose positions do not fit into 32 bits, and as for [`Isa::best`].
    pub fn new(input: [usize; 2], pool: Pool2d) -> Result<Self, TrainingError> {
        Self::with_isa(Isa::best()?, input, pool)
    }

    /// [`Pool::new`] for a given instruction set.
    ///
    /// # Errors
    /// As for [`Pool::new`], and for an instruction set that this processor does not have.
    pub fn with_isa(isa: Isa, input: [usize; 2], pool: Pool2d) -> Result<Self, TrainingError> {
        let token = Token::new(isa)?;
        let Pool2d { kernel, stride, padding } = pool;
        let output = Window { kernel, stride, padding }.output(input)?;
        if values("the input", &input)? > u32::MAX as usize {
            return Err(TrainingError::TooLarge { what: "the input" });
        }
        Ok(Self { token, pool, input, output })
    }

    /// Height and width of the output.
    pub fn output(&self) -> [usize; 2] {
        self.output
    }

    fn planes(&self) -> [usize; 2] {
        [self.input, self.output].map(|size| size[0] * size[1])
    }

    /// The rows of the image that the window of output row `y` sees.
    #[inline(always)]
    fn rows(&self, y: usize) -> Range<usize> {
        let Pool2d { kernel, stride, padding } = self.pool;
        (y * stride[0]).saturating_sub(padding.top)..(y * stride[0] + kernel[0] - padding.top).min(self.input[0])
    }

    /// The columns of the image that the window of output column `x` sees.
    #[inline(always)]
    fn columns(&self, x: usize) -> Range<usize> {
        let Pool2d { kernel, stride, padding } = self.pool;
        (x * stride[1]).saturating_sub(padding.left)..(x * stride[1] + kernel[1] - padding.left).min(self.input[1])
    }

    /// The output columns whose window has its column `kx` inside the image.
    #[inline(always)]
    fn inside(&self, kx: usize) -> Range<usize> {
        let (step, left) = (self.pool.stride[1], self.pool.padding.left);
        let first = left.saturating_sub(kx).div_ceil(step);
        let end = (self.input[1] + left).saturating_sub(kx).div_ceil(step).min(self.output[1]);
        first.min(end)..end
    }

    /// What the sum of each column of a row is multiplied with, for windows of `rows` rows inside the image.
    #[inline(always)]
    fn scales(&self, over: AverageOver, rows: usize, to: &mut [f32]) {
        let window = self.pool.kernel[0] * self.pool.kernel[1];
        for (x, to) in to.iter_mut().enumerate() {
            let places = if over == AverageOver::Window { window } else { rows * self.columns(x).len() };
            *to = 1.0 / places as f32;
        }
    }

    /// Takes the mean of each window.
    ///
    /// # Errors
    /// If `input` does not hold whole planes, or `output` does not hold as many.
    pub fn average(&self, over: AverageOver, input: &[f32], output: &mut [f32]) -> Result<(), TrainingError> {
        let [from, to] = self.planes();
        let planes = samples("the input", input.len(), from)?;
        expect("the output", output.len(), planes * to)?;
        each(input.par_chunks_exact(from).zip(output.par_chunks_exact_mut(to)), input.len(), |(from, to)| {
            with_scratch(self.output[1], |scales| {
                self.token.dispatch(Average { pool: self, over, from, to, scales });
            });
        });
        Ok(())
    }

    /// Computes the gradient of the input of [`Pool::average`].
    ///
    /// # Errors
    /// If `output_gradient` does not hold whole planes, or `input_gradient` does not hold as many.
    pub fn average_gradient(
        &self,
        over: AverageOver,
        output_gradient: &[f32],
        input_gradient: &mut [f32],
    ) -> Result<(), TrainingError> {
        let [to, from] = self.planes();
        let planes = samples("the gradient of the output", output_gradient.len(), from)?;
        expect("the gradient of the input", input_gradient.len(), planes * to)?;
        let cost = input_gradient.len();
        let pairs = output_gradient.par_chunks_exact(from).zip(input_gradient.par_chunks_exact_mut(to));
        let width = self.output[1];
        let pitch = self.input[1].div_ceil(self.pool.stride[1]) + self.pool.kernel[1];
        each(pairs, cost, |(from, to)| {
            with_scratch(2 * width + self.pool.stride[1] * pitch, |scratch| {
                let (scales, rest) = scratch.split_at_mut(width);
                let (sums, parts) = rest.split_at_mut(width);
                self.token.dispatch(AverageGradient { pool: self, over, from, to, scales, sums, parts, pitch });
            });
        });
        Ok(())
    }

    /// Takes the largest value of each window; `places` gets its position in the plane. Ties go to the first value; NaN
    /// is larger than everything.
    ///
    /// # Errors
    /// If `input` does not hold whole planes, or `output` or `places` do not hold as many.
    pub fn max(&self, input: &[f32], output: &mut [f32], places: &mut [u32]) -> Result<(), TrainingError> {
        let [from, to] = self.planes();
        let planes = samples("the input", input.len(), from)?;
        expect("the output", output.len(), planes * to)?;
        expect("the places", places.len(), planes * to)?;
        let results = output.par_chunks_exact_mut(to).zip(places.par_chunks_exact_mut(to));
        each(input.par_chunks_exact(from).zip(results), input.len(), |(from, (to, places))| {
            self.token.dispatch(Max { pool: self, from, to, places });
        });
        Ok(())
    }

    /// Computes the gradient of the input of [`Pool::max`]: each window's gradient goes to its maximum.
    ///
    /// # Errors
    /// If `output_gradient` does not hold whole planes, or `places` or `input_gradient` do not hold as many, and for a
    /// place that is not in the plane.
    pub fn max_gradient(
        &self,
        output_gradient: &[f32],
        places: &[u32],
        input_gradient: &mut [f32],
    ) -> Result<(), TrainingError> {
        let [to, from] = self.planes();
        let planes = samples("the gradient of the output", output_gradient.len(), from)?;
        expect("the places", places.len(), planes * from)?;
        expect("the gradient of the input", input_gradient.len(), planes * to)?;
        let cost = input_gradient.len();
        let outside = AtomicBool::new(false);
        let sources = output_gradient.par_chunks_exact(from).zip(places.par_chunks_exact(from));
        each(sources.zip(input_gradient.par_chunks_exact_mut(to)), cost, |((gradient, places), to)| {
            to.fill(0.0);
            for (gradient, place) in gradient.iter().zip(places) {
                match to.get_mut(*place as usize) {
                    Some(to) => *to += gradient,
                    None => outside.store(true, Ordering::Relaxed),
                }
            }
        });
        if outside.into_inner() {
            let place = places.iter().copied().max().unwrap_or(0) as usize;
            return Err(TrainingError::Length { what: "a plane with the place", expected: place, found: to });
        }
        Ok(())
    }
}

/// The means of one plane.
struct Average<'a> {
    pool: &'a Pool,
    over: AverageOver,
    from: &'a [f32],
    to: &'a mut [f32],
    scales: &'a mut [f32],
}

impl Kernel for Average<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { pool, over, from, to, scales } = self;
        let width = pool.input[1];
        let mut scaled = 0;
        for (y, to) in to.chunks_exact_mut(pool.output[1]).enumerate() {
            let rows = pool.rows(y);
            if scaled != rows.len() {
                scaled = rows.len();
                pool.scales(over, rows.len(), scales);
            }
            to.fill(0.0);
            for row in rows {
                pool.add_row(&from[row * width..(row + 1) * width], to);
            }
            for (to, scale) in to.iter_mut().zip(&*scales) {
                *to *= scale;
            }
        }
    }
}

impl Pool {
    /// Adds each element of a row of the window to a row of sums, where the element is inside the image.
    #[inline(always)]
    fn add_row(&self, row: &[f32], sums: &mut [f32]) {
        let (step, left) = (self.pool.stride[1], self.pool.padding.left);
        for kx in 0..self.pool.kernel[1] {
            let columns = self.inside(kx);
            if columns.is_empty() {
                continue;
            }
            let first = columns.start * step + kx - left;
            let sums = &mut sums[columns];
            let from = &row[first..];
            match step {
                1 => add_every::<1>(from, 1, sums),
                2 => add_every::<2>(from, 2, sums),
                step => add_every::<0>(from, step, sums),
            }
        }
    }
}

/// Adds every `step`-th value of `from`; `STEP` is the step where it is known.
#[inline(always)]
fn add_every<const STEP: usize>(from: &[f32], step: usize, sums: &mut [f32]) {
    let step = if STEP == 0 { step } else { STEP };
    assert!(from.len() > (sums.len() - 1) * step, "each sum has a value");
    for (x, sum) in sums.iter_mut().enumerate() {
        // SAFETY: just asserted for the last value; a check in the loop would keep it from becoming vectors.
        *sum += unsafe { from.get_unchecked(x * step) };
    }
}

/// The gradient of one plane from that of its means.
struct AverageGradient<'a> {
    pool: &'a Pool,
    over: AverageOver,
    from: &'a [f32],
    to: &'a mut [f32],
    scales: &'a mut [f32],
    /// The sum of the rows whose windows see a row of the image.
    sums: &'a mut [f32],
    /// A row of the image, divided by the remainders of its columns: `[stride][pitch]`.
    parts: &'a mut [f32],
    pitch: usize,
}

impl Kernel for AverageGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { pool, over, from, to, scales, sums, parts, pitch } = self;
        let Pool2d { kernel, stride, padding } = pool.pool;
        let width = pool.output[1];
        let mut scaled = 0;
        for (row, to) in to.chunks_exact_mut(pool.input[1]).enumerate() {
            let first = (row + padding.top + 1).saturating_sub(kernel[0]).div_ceil(stride[0]);
            let end = ((row + padding.top) / stride[0] + 1).min(pool.output[0]);
            sums.fill(0.0);
            for y in first..end {
                let rows = pool.rows(y).len();
                if scaled != rows {
                    scaled = rows;
                    pool.scales(over, rows, scales);
                }
                for ((sum, value), scale) in sums.iter_mut().zip(&from[y * width..(y + 1) * width]).zip(&*scales) {
                    *sum += value * scale;
                }
            }
            parts.fill(0.0);
            for kx in 0..kernel[1] {
                let columns = pool.inside(kx);
                if columns.is_empty() {
                    continue;
                }
                let first = columns.start * stride[1] + kx - padding.left;
                let at = first % stride[1] * pitch + first / stride[1];
                let part = &mut parts[at..at + columns.len()];
                for (to, sum) in part.iter_mut().zip(&sums[columns]) {
                    *to += sum;
                }
            }
            join(s, parts, pitch, stride[1], to.len(), to);
        }
    }
}

/// The maxima of one plane.
struct Max<'a> {
    pool: &'a Pool,
    from: &'a [f32],
    to: &'a mut [f32],
    places: &'a mut [u32],
}

impl Kernel for Max<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { pool, from, to, places } = self;
        let Pool2d { kernel, stride, padding } = pool.pool;
        let [width, width_out] = [pool.input[1], pool.output[1]];
        let rows = to.chunks_exact_mut(width_out).zip(places.chunks_exact_mut(width_out));
        for (y, (to, places)) in rows.enumerate() {
            let rows = pool.rows(y);
            to.fill(f32::NEG_INFINITY);
            for (x, place) in places.iter_mut().enumerate() {
                *place = (rows.start * width + (x * stride[1]).saturating_sub(padding.left)) as u32;
            }
            for row in rows {
                let from = &from[row * width..(row + 1) * width];
                for kx in 0..kernel[1] {
                    let columns = pool.inside(kx);
                    if columns.is_empty() {
                        continue;
                    }
                    let first = columns.start * stride[1] + kx - padding.left;
                    let (to, places) = (&mut to[columns.clone()], &mut places[columns]);
                    let from = &from[first..];
                    let first = (row * width + first) as u32;
                    match stride[1] {
                        1 => greater::<1>(from, first, 1, to, places),
                        2 => greater::<2>(from, first, 2, to, places),
                        step => greater::<0>(from, first, step, to, places),
                    }
                }
            }
        }
    }
}

/// Replaces the maxima by every `step`-th value of `from` that is greater, or the first that is NaN; `STEP` is the step
/// where it is known.
#[inline(always)]
fn greater<const STEP: usize>(from: &[f32], first: u32, step: usize, to: &mut [f32], places: &mut [u32]) {
    let step = if STEP == 0 { step } else { STEP };
    assert!(from.len() > (to.len() - 1) * step && places.len() == to.len(), "each maximum has a value");
    for (x, (to, place)) in to.iter_mut().zip(places).enumerate() {
        // SAFETY: just asserted for the last value; a check in the loop would keep it from becoming vectors.
        let (value, greatest) = (unsafe { *from.get_unchecked(x * step) }, *to);
        // Without branches: each side is a vector comparison.
        let replaces = (value > greatest) | (value.is_nan() & !greatest.is_nan());
        *to = if replaces { value } else { greatest };
        *place = if replaces { first + (x * step) as u32 } else { *place };
    }
}

/// Calls `work` for each plane, with at least a few thousand values per thread.
fn each<I: IndexedParallelIterator>(planes: I, cost: usize, work: impl Fn(I::Item) + Send + Sync) {
    let units = if threads_for(64 * cost) == 1 { 1 } else { cost.div_ceil(16 << 10) };
    let len = planes.len().div_ceil(units.max(1)).max(1);
    planes.with_min_len(len).for_each(work);
}

/// Takes the mean of each plane of `plane` values.
///
/// # Errors
/// For an instruction set that this processor does not have, a plane of zero values, and unless `output` has one value
/// for each plane of `input`.
pub fn global_average(isa: Isa, plane: usize, input: &[f32], output: &mut [f32]) -> Result<(), TrainingError> {
    let token = Token::new(isa)?;
    positive(&[("the number of positions", plane)])?;
    expect("the output", output.len(), samples("the input", input.len(), plane)?)?;
    plane_means(token, input, plane, output);
    Ok(())
}

/// Computes the gradient of the input of [`global_average`].
///
/// # Errors
/// For a plane of zero values, and unless `output_gradient` has one value for each plane of `input_gradient`.
pub fn global_average_gradient(
    plane: usize,
    output_gradient: &[f32],
    input_gradient: &mut [f32],
) -> Result<(), TrainingError> {
    positive(&[("the number of positions", plane)])?;
    let planes = samples("the gradient of the input", input_gradient.len(), plane)?;
    expect("the gradient of the output", output_gradient.len(), planes)?;
    let cost = input_gradient.len();
    let pairs = output_gradient.par_iter().zip(input_gradient.par_chunks_exact_mut(plane));
    each(pairs, cost, |(gradient, to)| to.fill(gradient / plane as f32));
    Ok(())
}
