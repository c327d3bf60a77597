//! Linear layers on rows with weights that do not change: tokens of a transformer in inference.
//!
//! **The problem.** A transformer is products of a few hundred rows with matrices of some megabytes. [`linear`] packs
//! the weights in each call, which costs a tenth of such a product, and bias, activation and residual sum pass through
//! memory once more each.
//!
//! **The design.** Weights are packed once, in panels of two vectors of outputs, `[panel][input][2 lanes]`. A unit of
//! work takes some rows and as many panels as fit into the second-level cache: a tile of up to 14 rows (the height of
//! the register tile) stays in the first-level cache while the panels stream past it. Any smaller number of rows has a
//! tile of its own, so that none is computed in vain. A tile begins with the bias and ends with the residual sum; the
//! activation follows when all panels of the unit have passed, in rows that are still in the cache.
//!
//! Each value is one sum in the order of the inputs, whatever the tile: a row's result depends neither on the other
//! rows nor on the number of threads.
//!
//! [`linear`]: super::linear

use std::ops::Range;

use crate::buffer::AlignedBuf;
use crate::epilogue::Epilogue;
use crate::geometry::Activation;
use crate::isa::Isa;
use crate::neighbours::tile::{pack_panels, tile_rows};
use crate::parallel::for_each;
use crate::simd::{Kernel, Simd, Token};

use super::activation::Forward;
use super::error::{TrainingError, expect, expect_some, positive, samples, values};
use super::memory::{Shared, threads_for};

/// Bytes of weights that a unit of work passes for each tile of rows: they stay in the second-level cache.
const GROUP: usize = 768 << 10;

/// Tiles of rows of a unit of work.
const TILES: usize = 5;

/// Rows of the highest tile.
const HIGHEST: usize = 14;

/// Outputs of a panel of the widest instruction set.
const WIDEST: usize = 32;

/// `activation(x weightᵀ + bias)`, or `activation(x weightᵀ + bias + residual)`, for rows x.
///
/// ```
/// use nomaly_kernels::geometry::Activation;
/// use nomaly_kernels::isa::Isa;
/// use nomaly_kernels::training::PackedLinear;
///
/// let weight = [1.0, 2.0, 0.0, -1.0]; // two outputs of two inputs
/// let layer = PackedLinear::new(Isa::best()?, [2, 2], &weight, Some(&[0.5, 0.0]), Activation::Relu)?;
/// let mut output = [0.0; 4];
/// layer.forward(&[1.0, 1.0, 2.0, -1.0], None, &mut output)?;
/// assert_eq!(output, [3.5, 0.0, 0.5, 1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PackedLinear {
    token: Token,
    inputs: usize,
    outputs: usize,
    /// Outputs of a panel.
    width: usize,
    panels: AlignedBuf,
    /// Filled up with zeros to whole panels.
    bias: AlignedBuf,
    epilogue: Epilogue,
}

impl PackedLinear {
    /// Packs `weight` `[O, I]` and `bias` `[O]` for rows of `[I, O]` inputs and outputs.
    ///
    /// # Errors
    /// For an instruction set that this processor does not have, sizes of zero, and slices whose lengths differ from
    /// the sizes.
    pub fn new(
        isa: Isa,
        [inputs, outputs]: [usize; 2],
        weight: &[f32],
        bias: Option<&[f32]>,
        activation: Activation,
    ) -> Result<Self, TrainingError> {
        let token = Token::new(isa)?;
        positive(&[("the number of inputs", inputs), ("the number of outputs", outputs)])?;
        expect("the weight", weight.len(), values("the weight", &[inputs, outputs])?)?;
        expect_some("the bias", bias, outputs)?;
        let width = 2 * isa.lanes();
        let columns = outputs.next_multiple_of(width);
        let mut panels = AlignedBuf::zeroed(values("the weight", &[columns, inputs])?);
        pack_panels(token, weight, &vec![1.0; outputs], inputs, inputs, width, &mut panels);
        let mut padded = AlignedBuf::zeroed(columns);
        if let Some(bias) = bias {
            padded[..outputs].copy_from_slice(bias);
        }
        Ok(Self { token, inputs, outputs, width, panels, bias: padded, epilogue: Epilogue::new(activation) })
    }

    /// Values of a row before and after the layer.
    pub fn sizes(&self) -> [usize; 2] {
        [self.inputs, self.outputs]
    }

    /// Computes `output` `[R, O]` from `input` `[R, I]`; `residual` `[R, O]` is added before the activation.
    ///
    /// # Errors
    /// If the length of a slice does not match the sizes and the rows of `input`.
    pub fn forward(&self, input: &[f32], residual: Option<&[f32]>, output: &mut [f32]) -> Result<(), TrainingError> {
        let rows = samples("the input", input.len(), self.inputs)?;
        expect("the output", output.len(), rows * self.outputs)?;
        expect_some("the residual", residual, output.len())?;
        self.run(rows, input, residual.map_or(std::ptr::null(), <[f32]>::as_ptr), Shared::new(output));
        Ok(())
    }

    /// As [`forward`](Self::forward) with `output` as the residual, which the result replaces.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_onto(&self, input: &[f32], output: &mut [f32]) -> Result<(), TrainingError> {
        let rows = samples("the input", input.len(), self.inputs)?;
        expect("the output", output.len(), rows * self.outputs)?;
        let len = output.len();
        let output = Shared::new(output);
        // SAFETY: nothing is read or written yet; see `run` for what is.
        let residual = unsafe { output.at(0, len) }.cast_const();
        self.run(rows, input, residual, output);
        Ok(())
    }

    /// `residual` is null, or as long as `output` and the same or elsewhere. A unit reads it only where it writes.
    fn run(&self, rows: usize, input: &[f32], residual: *const f32, output: Shared) {
        let panels = self.outputs.div_ceil(self.width);
        let each = (GROUP / (self.inputs * self.width * size_of::<f32>())).clamp(1, panels);
        let height = tile_rows(self.token.columns());
        let (groups, chunks) = (panels.div_ceil(each), rows.div_ceil(TILES * height));
        let threads = threads_for((2 * rows).saturating_mul(self.inputs * self.outputs));
        let residual = Residual(residual);
        for_each(groups * chunks, threads, |unit| {
            let (group, chunk) = (unit / chunks, unit % chunks);
            // Whole tiles, in shares that differ by one.
            let bound = |chunk: usize| (chunk * rows.div_ceil(height) / chunks * height).min(rows);
            self.token.dispatch(Unit {
                plan: self,
                rows: bound(chunk)..bound(chunk + 1),
                panels: group * each..((group + 1) * each).min(panels),
                input,
                residual,
                output,
            });
        });
    }
}

/// The address of the residual, which lives as long as the call and is read where the same unit writes.
#[derive(Clone, Copy)]
struct Residual(*const f32);

// SAFETY: only an address; reading through it is an unsafe operation of its own.
unsafe impl Send for Residual {}
// SAFETY: as above.
unsafe impl Sync for Residual {}

/// Some rows of the outputs of some panels.
struct Unit<'a> {
    plan: &'a PackedLinear,
    rows: Range<usize>,
    panels: Range<usize>,
    input: &'a [f32],
    residual: Residual,
    output: Shared,
}

impl Kernel for Unit<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let PackedLinear { token, outputs, width, epilogue, .. } = self.plan;
        let height = tile_rows(S::COLUMNS);
        assert!(*width == 2 * S::LANES && height <= HIGHEST && *width <= WIDEST);
        let columns = self.panels.start * width..(self.panels.end * width).min(*outputs);
        let mut row = self.rows.start;
        while row < self.rows.end {
            let count = height.min(self.rows.end - row);
            for panel in self.panels.clone() {
                self.tile(s, row, count, panel);
            }
            if epilogue.curve.is_some() {
                for row in row..row + count {
                    // SAFETY: no other unit has these columns of this row.
                    let at = unsafe { self.output.at(row * outputs + columns.start, columns.len()) };
                    token.dispatch(Forward { epilogue: *epilogue, from: at, to: at, len: columns.len() });
                }
            }
            row += count;
        }
    }
}

impl Unit<'_> {
    /// A tile of `count` rows, no more than the register tile has.
    #[inline(always)]
    fn tile<S: Simd>(&self, s: S, row: usize, count: usize, panel: usize) {
        let PackedLinear { inputs, outputs, width, panels, bias, epilogue, .. } = self.plan;
        let first = panel * width;
        let left = &self.input[row * inputs..(row + count) * inputs];
        let right = &panels[first * inputs..(first + width) * inputs];
        let columns = (*width).min(outputs - first);
        let start = row * outputs + first;
        // SAFETY: no other unit has these columns of these rows.
        let to = unsafe { self.output.at(start, (count - 1) * outputs + columns) };
        let residual = match self.residual.0.is_null() {
            true => std::ptr::null(),
            // SAFETY: the residual is as long as the output.
            false => unsafe { self.residual.0.add(start) },
        };
        let bounds = [epilogue.low, epilogue.high];
        let place = Place {
            depth: *inputs,
            left: left.as_ptr(),
            right: right.as_ptr(),
            bias: bias[first..first + width].as_ptr(),
            bounds,
        };
        if columns == *width {
            // SAFETY: `count` rows of a whole panel lie inside the input, the output and the residual.
            unsafe { by_height(s, count, &place, residual, to, *outputs) };
            return;
        }
        // The last panel has fewer columns than a tile.
        let mut whole = [0.0f32; HIGHEST * WIDEST];
        // SAFETY: the rows have `columns` values each in output and residual, and `whole` holds the highest tile.
        unsafe {
            if !residual.is_null() {
                for m in 0..count {
                    whole.as_mut_ptr().add(m * width).copy_from_nonoverlapping(residual.add(m * outputs), columns);
                }
            }
            let at = whole.as_mut_ptr();
            let residual = if residual.is_null() { residual } else { at.cast_const() };
            by_height(s, count, &place, residual, at, *width);
            for m in 0..count {
                to.add(m * outputs).copy_from_nonoverlapping(at.add(m * width), columns);
            }
        }
    }
}

/// The operands of a tile.
struct Place {
    depth: usize,
    left: *const f32,
    right: *const f32,
    bias: *const f32,
    bounds: [f32; 2],
}

/// Calls the tile of a number of rows, no more than the register tile has.
///
/// # Safety
/// As for [`tile`] with that many rows.
#[inline(always)]
unsafe fn by_height<S: Simd>(s: S, rows: usize, place: &Place, residual: *const f32, to: *mut f32, step: usize) {
    // Heights that the registers do not hold are never asked for; the constant condition keeps them from being
    // compiled.
    macro_rules! tiles {
        ($($rows:literal)*) => {
            match rows {
                $($rows if $rows <= tile_rows(S::COLUMNS) => {
                    // SAFETY: the caller's promise.
                    unsafe { tile::<S, $rows>(s, place, residual, to, step) }
                })*
                _ => unreachable!("a tile has between one and `tile_rows` rows"),
            }
        };
    }
    tiles!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
}

/// M × 2 vectors of sums.
///
/// # Safety
/// `left` must be valid for reading M rows of `depth` values, `right` for `2 · LANES · depth` and `bias` for
/// `2 · LANES`; `to` for writing `2 · LANES` values at each of M multiples of `step`, and `residual`, unless it is
/// null, for reading as many.
#[inline(always)]
unsafe fn tile<S: Simd, const M: usize>(s: S, place: &Place, residual: *const f32, to: *mut f32, step: usize) {
    let Place { depth, left, right, bias, bounds: [low, high] } = *place;
    // SAFETY: every offset below stays within what the caller promises.
    unsafe {
        let mut sums = [[s.load(bias), s.load(bias.add(S::LANES))]; M];
        let mut right = right;
        for k in 0..depth {
            let (first, second) = (s.load(right), s.load(right.add(S::LANES)));
            let column = left.add(k);
            for m in 0..M {
                let value = s.splat(*column.add(m * depth));
                sums[m] = [s.fma(value, first, sums[m][0]), s.fma(value, second, sums[m][1])];
            }
            right = right.add(2 * S::LANES);
        }
        if !residual.is_null() {
            for m in 0..M {
                let from = residual.add(m * step);
                sums[m] = [s.add(sums[m][0], s.load(from)), s.add(sums[m][1], s.load(from.add(S::LANES)))];
            }
        }
        let (low, high) = (s.splat(low), s.splat(high));
        for m in 0..M {
            let at = to.add(m * step);
            s.store(at, s.min(high, s.max(low, sums[m][0])));
            s.store(at.add(S::LANES), s.min(high, s.max(low, sums[m][1])));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small integers, whose sums are exact.
    fn integers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + seed * 11) % 13) as f32 - 6.0).collect()
    }

    #[test]
    fn products_are_those_of_loops_for_every_number_of_rows_and_outputs() {
        for isa in Isa::available() {
            for (inputs, outputs) in [(1, 1), (9, 7), (24, 32), (65, 77), (3, 96)] {
                let (weight, bias) = (integers(inputs * outputs, 1), integers(outputs, 2));
                let layer = PackedLinear::new(isa, [inputs, outputs], &weight, Some(&bias), Activation::Relu).unwrap();
                for rows in [0, 1, 2, 3, 5, 13, 14, 15, 29, 75] {
                    let (x, residual) = (integers(rows * inputs, 3), integers(rows * outputs, 4));
                    let want = |with: bool| -> Vec<f32> {
                        let value = |at: usize| {
                            let (row, output) = (at / outputs, at % outputs);
                            let terms = (0..inputs).map(|k| x[row * inputs + k] * weight[output * inputs + k]);
                            let sum = terms.sum::<f32>() + bias[output];
                            (if with { sum + residual[at] } else { sum }).max(0.0)
                        };
                        (0..rows * outputs).map(value).collect()
                    };
                    let mut got = vec![f32::NAN; rows * outputs];
                    layer.forward(&x, None, &mut got).unwrap();
                    assert_eq!(got, want(false), "{isa} {inputs} {outputs} {rows}");
                    layer.forward(&x, Some(&residual), &mut got).unwrap();
                    assert_eq!(got, want(true), "{isa} {inputs} {outputs} {rows}, residual");
                    got.copy_from_slice(&residual);
                    layer.forward_onto(&x, &mut got).unwrap();
                    assert_eq!(got, want(true), "{isa} {inputs} {outputs} {rows}, in place");
                }
            }
        }
    }

    #[test]
    fn a_row_depends_neither_on_the_others_nor_on_threads() {
        for isa in Isa::available() {
            let (inputs, outputs, rows) = (130, 200, 151);
            let noise = |count: usize, seed: u32| -> Vec<f32> {
                (0..count as u32).map(|i| ((i ^ seed).wrapping_mul(2_654_435_761) >> 8) as f32 / 1e7 - 0.8).collect()
            };
            let (weight, x) = (noise(inputs * outputs, 5), noise(rows * inputs, 9));
            let layer = PackedLinear::new(isa, [inputs, outputs], &weight, None, Activation::Gelu).unwrap();
            let [one, three] = [1, 3].map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let mut output = vec![0.0; rows * outputs];
                pool.install(|| layer.forward(&x, None, &mut output)).unwrap();
                output
            });
            assert!(one == three, "{isa}");
            for row in 0..rows {
                let mut alone = vec![0.0; outputs];
                layer.forward(&x[row * inputs..][..inputs], None, &mut alone).unwrap();
                assert!(alone == one[row * outputs..][..outputs], "{isa}: row {row}");
            }
        }
    }

    #[test]
    fn slices_that_do_not_fit_are_refused() {
        let isa = Isa::best().unwrap();
        let new = |sizes, weight: &[f32]| PackedLinear::new(isa, sizes, weight, None, Activation::Identity);
        assert!(matches!(new([0, 2], &[]), Err(TrainingError::ZeroSize { .. })));
        assert!(matches!(new([2, 2], &[0.0; 3]), Err(TrainingError::Length { expected: 4, found: 3, .. })));
        let layer = new([2, 2], &[0.0; 4]).unwrap();
        let error = layer.forward(&[0.0; 3], None, &mut [0.0; 2]).unwrap_err();
        assert!(matches!(error, TrainingError::Batch { each: 2, found: 3, .. }), "{error}");
        let error = layer.forward(&[0.0; 2], Some(&[0.0; 4]), &mut [0.0; 2]).unwrap_err();
        assert!(matches!(error, TrainingError::Length { expected: 2, found: 4, .. }), "{error}");
        let error = layer.forward_onto(&[0.0; 2], &mut [0.0; 4]).unwrap_err();
        assert!(matches!(error, TrainingError::Length { expected: 2, found: 4, .. }), "{error}");
    }
}
