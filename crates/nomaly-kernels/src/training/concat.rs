//! Concatenation along the channels, and the division of its gradient.

use rayon::prelude::*;

use super::error::{TrainingError, expect, positive, samples, values};
use super::memory::threads_for;

/// Concatenation of tensors `[N, Ci, H, W]` along their channels to `[N, C1 + C2 + …, H, W]`, for any batch.
///
/// ```
/// use nomaly_kernels::training::Concat;
///
/// let concat = Concat::new(&[1, 2], 1)?;
/// let mut both = [0.0; 6];
/// concat.forward(&[&[1.0, 4.0], &[2.0, 3.0, 5.0, 6.0]], &mut both)?;
/// assert_eq!(both, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
/// # Ok::<(), nomaly_kernels::training::TrainingError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Concat {
    /// Values of one image of each part.
    sizes: Vec<usize>,
    /// Values of one image of the whole.
    whole: usize,
}

impl Concat {
    /// Plans for parts of these numbers of channels, with `plane` positions.
    ///
    /// # Errors
    /// For sizes of zero, no parts, and tensors too large for memory.
    pub fn new(channels: &[usize], plane: usize) -> Result<Self, TrainingError> {
        positive(&[("the number of parts", channels.len()), ("the number of positions", plane)])?;
        let mut sizes = Vec::with_capacity(channels.len());
        let mut whole = 0usize;
        for channels in channels {
            positive(&[("the number of channels of a part", *channels)])?;
            let size = values("a part", &[*channels, plane])?;
            whole = whole.checked_add(size).ok_or(TrainingError::TooLarge { what: "the concatenation" })?;
            sizes.push(size);
        }
        Ok(Self { sizes, whole })
    }

    /// Values of one image of the concatenation.
    pub fn output_len(&self) -> usize {
        self.whole
    }

    /// Checks the parts' number and lengths for this number of images.
    fn check(&self, images: usize, lens: impl ExactSizeIterator<Item = usize>) -> Result<(), TrainingError> {
        expect("the list of parts", lens.len(), self.sizes.len())?;
        for (len, size) in lens.zip(&self.sizes) {
            expect("a part", len, images * size)?;
        }
        Ok(())
    }

    /// Concatenates the parts.
    ///
    /// # Errors
    /// If the number or the lengths of the parts do not match the shapes and the batch of `output`.
    pub fn forward(&self, parts: &[&[f32]], output: &mut [f32]) -> Result<(), TrainingError> {
        let images = samples("the output", output.len(), self.whole)?;
        self.check(images, parts.iter().map(|part| part.len()))?;
        let threads = threads_for(8 * output.len());
        let copy = |(image, mut output): (usize, &mut [f32])| {
            for (part, size) in parts.iter().zip(&self.sizes) {
                let (to, rest) = output.split_at_mut(*size);
                to.copy_from_slice(&part[image * size..(image + 1) * size]);
                output = rest;
            }
        };
        if threads > 1 {
            output.par_chunks_exact_mut(self.whole).enumerate().for_each(copy);
        } else {
            output.chunks_exact_mut(self.whole).enumerate().for_each(copy);
        }
        Ok(())
    }

    /// Divides the gradient of the concatenation into those of the parts.
    ///
    /// # Errors
    /// If the number or the lengths of the parts do not match the shapes and the batch of `output_gradient`.
    pub fn split(&self, output_gradient: &[f32], parts: &mut [&mut [f32]]) -> Result<(), TrainingError> {
        let images = samples("the gradient of the output", output_gradient.len(), self.whole)?;
        self.check(images, parts.iter().map(|part| part.len()))?;
        let threads = threads_for(8 * output_gradient.len());
        let mut before = 0;
        for (part, size) in parts.iter_mut().zip(&self.sizes) {
            let copy = |(to, from): (&mut [f32], &[f32])| to.copy_from_slice(&from[before..before + size]);
            if threads > 1 {
                let whole = output_gradient.par_chunks_exact(self.whole);
                part.par_chunks_exact_mut(*size).zip(whole).for_each(copy);
            } else {
                part.chunks_exact_mut(*size).zip(output_gradient.chunks_exact(self.whole)).for_each(copy);
            }
            before += size;
        }
        Ok(())
    }
}
