//! Padding and cropping of planes, with gradients.

use rayon::prelude::*;

use crate::geometry::Padding;

use super::error::{TrainingError, expect, positive, samples, values};
use super::memory::threads_for;

/// Values of a unit of work.
const UNIT: usize = 32 << 10;

/// What lies around an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Border {
    /// Zeros.
    Zeros,
    /// The image mirrored at its border, which is not repeated: `c b | a b c | b a`.
    Reflection,
}

/// Padding of planes `[N, C, H, W]` to `[N, C, top + H + bottom, left + W + right]`, for any number of planes.
///
/// ```
/// use nomaly_kernels::geometry::Padding;
/// use nomaly_kernels::training::{Border, Pad};
///
/// let sides = Padding { left: 2, right: 1, ..Padding::default() };
/// let mut row = [0.0; 6];
/// Pad::new([1, 3], sides, Border::Reflection)?.forward(&[1.0, 2.0, 3.0], &mut row)?;
/// assert_eq!(row, [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]);
/// # Ok::<(), nomaly_kernels::training::TrainingError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Pad {
    input: [usize; 2],
    output: [usize; 2],
    padding: Padding,
    border: Border,
}

impl Pad {
    /// Plans padding of images of `input` (height, width).
    ///
    /// # Errors
    /// For sizes of zero, images too large for memory, and a reflection that is not smaller than the image.
    pub fn new(input: [usize; 2], padding: Padding, border: Border) -> Result<Self, TrainingError> {
        positive(&[("the height of the input", input[0]), ("the width of the input", input[1])])?;
        let Padding { top, bottom, left, right } = padding;
        for (sides, size) in [[top, bottom], [left, right]].into_iter().zip(input) {
            if let Some(padding) = sides.into_iter().find(|side| border == Border::Reflection && *side >= size) {
                return Err(TrainingError::Reflection { padding, size });
            }
        }
        let output =
            [input[0].saturating_add(top).saturating_add(bottom), input[1].saturating_add(left).saturating_add(right)];
        values("the output", &output)?;
        Ok(Self { input, output, padding, border })
    }

    /// Height and width of the output.
    pub fn output(&self) -> [usize; 2] {
        self.output
    }

    /// The row of the image that row `y` of the output shows, if any.
    fn row(&self, y: usize) -> Option<usize> {
        let (top, last) = (self.padding.top, self.input[0] - 1);
        match self.border {
            _ if (top..=top + last).contains(&y) => Some(y - top),
            Border::Zeros => None,
            Border::Reflection if y < top => Some(top - y),
            Border::Reflection => Some(2 * last + top - y),
        }
    }

    /// Pads each plane.
    ///
    /// # Errors
    /// If `input` does not hold whole planes, or `output` does not hold as many.
    pub fn forward(&self, input: &[f32], output: &mut [f32]) -> Result<(), TrainingError> {
        let [from, to] = [self.input, self.output].map(|size| size[0] * size[1]);
        let planes = samples("the input", input.len(), from)?;
        expect("the output", output.len(), planes * to)?;
        let [_, width] = self.input;
        let Padding { left, right, .. } = self.padding;
        each(input, output, [from, to], |input, output| {
            for (y, to) in output.chunks_exact_mut(self.output[1]).enumerate() {
                let Some(row) = self.row(y) else {
                    to.fill(0.0);
                    continue;
                };
                let row = &input[row * width..(row + 1) * width];
                to[left..left + width].copy_from_slice(row);
                let (before, after) = (0..left, left + width..left + width + right);
                match self.border {
                    Border::Zeros => {
                        to[before].fill(0.0);
                        to[after].fill(0.0);
                    }
                    Border::Reflection => {
                        before.for_each(|x| to[x] = row[left - x]);
                        after.for_each(|x| to[x] = row[2 * (width - 1) + left - x]);
                    }
                }
            }
        });
        Ok(())
    }

    /// Computes the gradient of the input from that of the output: each value's gradient is the sum over the places
    /// that show it.
    ///
    /// # Errors
    /// If `output_gradient` does not hold whole planes, or `input_gradient` does not hold as many.
    pub fn input_gradient(&self, output_gradient: &[f32], input_gradient: &mut [f32]) -> Result<(), TrainingError> {
        let [to, from] = [self.input, self.output].map(|size| size[0] * size[1]);
        let planes = samples("the gradient of the output", output_gradient.len(), from)?;
        expect("the gradient of the input", input_gradient.len(), planes * to)?;
        let ([height, width], wide) = (self.input, self.output[1]);
        let Padding { top, left, right, .. } = self.padding;
        each(output_gradient, input_gradient, [from, to], |gradient, to| {
            for (y, to) in to.chunks_exact_mut(width).enumerate() {
                let row = &gradient[(top + y) * wide..(top + y + 1) * wide];
                to.copy_from_slice(&row[left..left + width]);
            }
            if self.border == Border::Zeros {
                return;
            }
            for (y, row) in gradient.chunks_exact(wide).enumerate() {
                let Some(place) = self.row(y) else { continue };
                let to = &mut to[place * width..(place + 1) * width];
                if !(top..top + height).contains(&y) {
                    to.iter_mut().zip(&row[left..]).for_each(|(to, value)| *to += value);
                }
                (0..left).for_each(|x| to[left - x] += row[x]);
                (left + width..left + width + right).for_each(|x| to[2 * (width - 1) + left - x] += row[x]);
            }
        });
        Ok(())
    }
}

/// Cropping of planes `[N, C, H, W]` to a rectangle of them, for any number of planes.
#[derive(Clone, Copy, Debug)]
pub struct Crop {
    /// The padding that the crop undoes.
    inverse: Pad,
}

impl Crop {
    /// Plans the crop of images of `input` (height, width) to those of `size` whose first row and column are `start`.
    ///
    /// # Errors
    /// For sizes of zero, images too large for memory, and a rectangle that is not within the image.
    pub fn new(input: [usize; 2], start: [usize; 2], size: [usize; 2]) -> Result<Self, TrainingError> {
        let rest = |axis: usize| {
            let end = start[axis].checked_add(size[axis]);
            end.and_then(|end| input[axis].checked_sub(end)).ok_or(TrainingError::Crop { input, start, size })
        };
        let padding = Padding { top: start[0], bottom: rest(0)?, left: start[1], right: rest(1)? };
        Ok(Self { inverse: Pad::new(size, padding, Border::Zeros)? })
    }

    /// Height and width of the output.
    pub fn output(&self) -> [usize; 2] {
        let Pad { input: cropped, .. } = self.inverse;
        cropped
    }

    /// Crops each plane.
    ///
    /// # Errors
    /// If `input` does not hold whole planes, or `output` does not hold as many.
    pub fn forward(&self, input: &[f32], output: &mut [f32]) -> Result<(), TrainingError> {
        self.inverse.input_gradient(input, output)
    }

    /// Computes the gradient of the input from that of the output: zeros around it.
    ///
    /// # Errors
    /// If `output_gradient` does not hold whole planes, or `input_gradient` does not hold as many.
    pub fn input_gradient(&self, output_gradient: &[f32], input_gradient: &mut [f32]) -> Result<(), TrainingError> {
        self.inverse.forward(output_gradient, input_gradient)
    }
}

/// Calls `work` with each plane.
fn each(
    from: &[f32],
    to: &mut [f32],
    [from_plane, to_plane]: [usize; 2],
    work: impl Fn(&[f32], &mut [f32]) + Send + Sync,
) {
    if threads_for(8 * to.len().max(from.len())) > 1 {
        let unit = (UNIT / (from_plane + to_plane)).max(1);
        let pairs = from.par_chunks_exact(from_plane).zip(to.par_chunks_exact_mut(to_plane));
        pairs.with_min_len(unit).for_each(|(from, to)| work(from, to));
    } else {
        from.chunks_exact(from_plane).zip(to.chunks_exact_mut(to_plane)).for_each(|(from, to)| work(from, to));
    }
}
