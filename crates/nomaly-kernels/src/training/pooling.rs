//! Pooling with gradients.

use rayon::prelude::*;

use crate::geometry::Pool2d;
use crate::isa::Isa;
use crate::simd::Token;
use crate::window::Window;

use super::error::{TrainingError, expect, positive, samples, values};
use super::memory::threads_for;
use super::reduce::plane_means;

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
    pool: Pool2d,
    input: [usize; 2],
    output: [usize; 2],
}

impl Pool {
    /// Plans pooling of images of `input` (height, width).
    ///
    /// # Errors
    /// For sizes of zero, a window that does not fit into the padded image or that could lie entirely in the padding,
    /// and images whose positions do not fit into 32 bits.
    pub fn new(input: [usize; 2], pool: Pool2d) -> Result<Self, TrainingError> {
        let Pool2d { kernel, stride, padding } = pool;
        let output = Window { kernel, stride, padding }.output(input)?;
        if values("the input", &input)? > u32::MAX as usize {
            return Err(TrainingError::TooLarge { what: "the input" });
        }
        Ok(Self { pool, input, output })
    }

    /// Height and width of the output.
    pub fn output(&self) -> [usize; 2] {
        self.output
    }

    fn planes(&self) -> [usize; 2] {
        [self.input, self.output].map(|size| size[0] * size[1])
    }

    /// Calls `visit` with each output position and the part of its window that lies inside the image.
    fn windows(&self, mut visit: impl FnMut(usize, std::ops::Range<usize>, std::ops::Range<usize>)) {
        let Pool2d { kernel, stride, padding } = self.pool;
        for y in 0..self.output[0] {
            let top = (y * stride[0]).saturating_sub(padding.top);
            let bottom = (y * stride[0] + kernel[0] - padding.top).min(self.input[0]);
            for x in 0..self.output[1] {
                let left = (x * stride[1]).saturating_sub(padding.left);
                let right = (x * stride[1] + kernel[1] - padding.left).min(self.input[1]);
                visit(y * self.output[1] + x, top..bottom, left..right);
            }
        }
    }

    fn divisor(&self, over: AverageOver, rows: usize, columns: usize) -> f32 {
        match over {
            AverageOver::Window => (self.pool.kernel[0] * self.pool.kernel[1]) as f32,
            AverageOver::Inside => (rows * columns) as f32,
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
        let width = self.input[1];
        each(input.par_chunks_exact(from).zip(output.par_chunks_exact_mut(to)), input.len(), |(input, output)| {
            self.windows(|position, rows, columns| {
                let divisor = self.divisor(over, rows.len(), columns.len());
                let rows = rows.map(|y| &input[y * width..][columns.clone()]);
                output[position] = rows.map(|row| row.iter().sum::<f32>()).sum::<f32>() / divisor;
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
        let (width, cost) = (self.input[1], input_gradient.len());
        let pairs = output_gradient.par_chunks_exact(from).zip(input_gradient.par_chunks_exact_mut(to));
        each(pairs, cost, |(gradient, to)| {
            to.fill(0.0);
            self.windows(|position, rows, columns| {
                let share = gradient[position] / self.divisor(over, rows.len(), columns.len());
                for y in rows {
                    to[y * width..][columns.clone()].iter_mut().for_each(|value| *value += share);
                }
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
        let width = self.input[1];
        let results = output.par_chunks_exact_mut(to).zip(places.par_chunks_exact_mut(to));
        each(input.par_chunks_exact(from).zip(results), input.len(), |(input, (output, places))| {
            self.windows(|position, rows, columns| {
                let mut place = rows.start * width + columns.start;
                for y in rows {
                    for x in columns.clone() {
                        let (value, greatest) = (input[y * width + x], input[place]);
                        if value > greatest || (value.is_nan() && !greatest.is_nan()) {
                            place = y * width + x;
                        }
                    }
                }
                output[position] = input[place];
                places[position] = place as u32;
            });
        });
        Ok(())
    }

    /// Computes the gradient of the input of [`Pool::max`]: each window's gradient goes to its maximum.
    ///
    /// # Errors
    /// If `output_gradient` does not hold whole planes, or `places` or `input_gradient` do not hold as many.
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
        if let Some(place) = places.iter().find(|place| **place as usize >= to) {
            return Err(TrainingError::Length { what: "a plane with the place", expected: *place as usize, found: to });
        }
        let cost = input_gradient.len();
        let sources = output_gradient.par_chunks_exact(from).zip(places.par_chunks_exact(from));
        each(sources.zip(input_gradient.par_chunks_exact_mut(to)), cost, |((gradient, places), to)| {
            to.fill(0.0);
            gradient.iter().zip(places).for_each(|(gradient, place)| to[*place as usize] += gradient);
        });
        Ok(())
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
