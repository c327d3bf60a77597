//! The register tile of every dense convolution.
//!
//! **The problem.** A multiply-add unit is busy only if almost nothing but multiply-adds is issued: two vector loads a
//! cycle feed two multiply-adds a cycle, so each loaded value has to be used several times from a register.
//!
//! **The design.** A tile is `N` output columns x `B` (1 or 2) blocks of output channels, held in `N * B` accumulators
//! for the whole reduction. One step of the reduction loads `B` vectors of weights and broadcasts `N` inputs: with
//! AVX-512, 14 columns and 2 blocks, that is 16 loads for 28 multiply-adds. The weights are packed in the order in
//! which they are used. The distance of the inputs of neighbouring columns is a constant of the instantiation
//! ([`Pitch`]), so that the broadcasts need no address arithmetic. Only the second half of the columns has its own
//! address, so that two short rows fill one tile.
//!
//! **Fallback.** Strides above two take [`Pitch::DYNAMIC`] with at most [`DYNAMIC_COLUMNS`] columns.

use crate::epilogue::{Curve, Epilogue};
use crate::simd::{Kernel, Simd};

/// Distance between the inputs of neighbouring output columns, as a const parameter of the tile.
pub(crate) struct Pitch;

impl Pitch {
    /// Any distance, known at run time.
    pub(crate) const DYNAMIC: u8 = 0;
    /// One block: stride 1 in the blocked layout.
    pub(crate) const BLOCK: u8 = 1;
    /// Two blocks: stride 2 in the blocked layout.
    pub(crate) const TWO_BLOCKS: u8 = 2;
    /// Two values: stride 2 in the planar layout.
    pub(crate) const TWO: u8 = 3;

    /// The constant for a distance in values, with `lanes` values in a block.
    pub(crate) fn of(distance: usize, lanes: usize) -> u8 {
        match distance {
            d if d == lanes => Self::BLOCK,
            d if d == 2 * lanes => Self::TWO_BLOCKS,
            2 => Self::TWO,
            _ => Self::DYNAMIC,
        }
    }
}

/// Values in a cache line.
pub(crate) const LINE: usize = 16;

/// Columns of the widest tile with a pitch that is not a constant.
pub(crate) const DYNAMIC_COLUMNS: usize = 4;

/// The reduction, as three nested loops around a run of consecutive inputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reduction {
    /// Repetitions of the three outer loops (blocks of input channels, kernel rows, kernel columns) ...
    pub(crate) counts: [usize; 3],
    /// ... and how far each moves the input.
    pub(crate) strides: [usize; 3],
    /// Consecutive inputs inside.
    pub(crate) inner: usize,
    /// The same for the last repetition of the outermost loop.
    pub(crate) inner_last: usize,
}

/// One tile's worth of work.
pub(crate) struct Tile {
    pub(crate) reduction: Reduction,
    /// First input of column 0.
    pub(crate) input: *const f32,
    /// Distance to the first input of column `N / 2`, where the second half of the columns begins.
    pub(crate) gap: usize,
    /// Packed weights of these blocks, from the first step of this reduction on.
    pub(crate) weights: *const f32,
    /// Weights that are needed soon: each step of the reduction prefetches one cache line.
    pub(crate) upcoming: *const f32,
    /// Bias of these blocks, or null: continue with the partial sums in the output.
    pub(crate) bias: *const f32,
    /// Column 0 of the first block.
    pub(crate) output: *mut f32,
    /// Distance of each column from column 0.
    pub(crate) output_columns: *const u32,
    /// Distance of the second block.
    pub(crate) output_plane: usize,
    /// The same for the tensor that is added, or null.
    pub(crate) residual: *const f32,
    pub(crate) residual_columns: *const u32,
    pub(crate) residual_plane: usize,
    /// Distance between the inputs of neighbouring columns.
    pub(crate) pitch: usize,
    /// Bounds of the clamp.
    pub(crate) low: f32,
    pub(crate) high: f32,
}

struct TileKernel<'a, const N: usize, const B: usize, const PITCH: u8>(&'a Tile);

impl<const N: usize, const B: usize, const PITCH: u8> Kernel for TileKernel<'_, N, B, PITCH> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let t = self.0;
        let pitch = match PITCH {
            Pitch::BLOCK => S::LANES,
            Pitch::TWO_BLOCKS => 2 * S::LANES,
            Pitch::TWO => 2,
            _ => t.pitch,
        };
        // SAFETY: `Tile` values are made by `dense` alone, whose constructor checks that every input, weight, output
        // and residual of every tile lies inside its tensor.
        unsafe {
            let mut sums = [[s.splat(0.0); B]; N];
            if t.bias.is_null() {
                for j in 0..N {
                    let out = t.output.add(*t.output_columns.add(j) as usize);
                    for b in 0..B {
                        sums[j][b] = s.load(out.add(b * t.output_plane));
                    }
                }
            } else {
                for b in 0..B {
                    let bias = s.load(t.bias.add(b * S::LANES));
                    for j in 0..N {
                        sums[j][b] = bias;
                    }
                }
            }

            let Reduction { counts, strides, inner, inner_last } = t.reduction;
            let mut weights = t.weights;
            let mut upcoming = t.upcoming;
            let mut input0 = t.input;
            for i0 in 0..counts[0] {
                let inner = if i0 + 1 == counts[0] { inner_last } else { inner };
                let mut input1 = input0;
                for _ in 0..counts[1] {
                    let mut input2 = input1;
                    for _ in 0..counts[2] {
                        let mut input = input2;
                        let mut second = input2.wrapping_add(t.gap);
                        for step in 0..inner {
                            let mut w = [s.splat(0.0); B];
                            for b in 0..B {
                                w[b] = s.load(weights.add(b * S::LANES));
                            }
                            for j in 0..N {
                                let half = N / 2;
                                let x = if j < half { input.add(j * pitch) } else { second.add((j - half) * pitch) };
                                let x = s.splat(*x);
                                for b in 0..B {
                                    sums[j][b] = s.fma(x, w[b], sums[j][b]);
                                }
                            }
                            s.prefetch(upcoming);
                            // The next block of input channels, which another core may have written. With one block of
                            // output channels, loads are already the bottleneck.
                            if B == 2 {
                                s.prefetch(input2.wrapping_add(strides[0] + step * LINE));
                            }
                            upcoming = upcoming.wrapping_add(LINE);
                            weights = weights.add(B * S::LANES);
                            input = input.add(1);
                            second = second.add(1);
                        }
                        input2 = input2.wrapping_add(strides[2]);
                    }
                    input1 = input1.wrapping_add(strides[1]);
                }
                input0 = input0.wrapping_add(strides[0]);
            }

            if !t.residual.is_null() {
                for j in 0..N {
                    let residual = t.residual.add(*t.residual_columns.add(j) as usize);
                    for b in 0..B {
                        sums[j][b] = s.add(sums[j][b], s.load(residual.add(b * t.residual_plane)));
                    }
                }
            }
            let (low, high) = (s.splat(t.low), s.splat(t.high));
            for j in 0..N {
                let out = t.output.add(*t.output_columns.add(j) as usize);
                for b in 0..B {
                    s.store(out.add(b * t.output_plane), s.min(high, s.max(low, sums[j][b])));
                }
            }
        }
    }
}

/// Computes one tile of `columns` columns and `blocks` (1 or 2) blocks.
///
/// # Safety
/// Every address reached by the tile's strides and counts must be valid.
#[inline(always)]
pub(crate) unsafe fn run<S: Simd>(s: S, pitch: u8, blocks: usize, columns: usize, tile: &Tile) {
    match (pitch, blocks) {
        (Pitch::BLOCK, 1) => by_width::<S, 1, { Pitch::BLOCK }>(s, columns, tile),
        (Pitch::BLOCK, _) => by_width::<S, 2, { Pitch::BLOCK }>(s, columns, tile),
        (Pitch::TWO_BLOCKS, 1) => by_width::<S, 1, { Pitch::TWO_BLOCKS }>(s, columns, tile),
        (Pitch::TWO_BLOCKS, _) => by_width::<S, 2, { Pitch::TWO_BLOCKS }>(s, columns, tile),
        (Pitch::TWO, 1) => by_width::<S, 1, { Pitch::TWO }>(s, columns, tile),
        (Pitch::TWO, _) => by_width::<S, 2, { Pitch::TWO }>(s, columns, tile),
        (_, 1) => by_width::<S, 1, { Pitch::DYNAMIC }>(s, columns, tile),
        _ => by_width::<S, 2, { Pitch::DYNAMIC }>(s, columns, tile),
    }
}

/// Chooses the instantiation for a number of columns; tiles that do not fit the registers are not compiled.
fn by_width<S: Simd, const B: usize, const PITCH: u8>(s: S, columns: usize, tile: &Tile) {
    macro_rules! widths {
        ($($n:literal)*) => {
            match columns {
                $($n if $n <= S::COLUMNS && (PITCH != Pitch::DYNAMIC || $n <= DYNAMIC_COLUMNS) => {
                    s.vectorize(TileKernel::<$n, B, PITCH>(tile));
                })*
                _ => unreachable!("tiles are cut for the register file of the instruction set"),
            }
        };
    }
    widths!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
}

/// Applies a curve in place to a tile that has just been stored.
pub(super) struct CurveKernel<'a> {
    pub(super) tile: &'a Tile,
    pub(super) columns: usize,
    pub(super) blocks: usize,
    pub(super) curve: Curve,
}

impl Kernel for CurveKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for b in 0..self.blocks {
            for j in 0..self.columns {
                // SAFETY: these are the places that the tile itself wrote.
                unsafe {
                    let column = *self.tile.output_columns.add(j) as usize;
                    let out = self.tile.output.add(column + b * self.tile.output_plane);
                    let x = s.load(out);
                    s.store(out, self.curve.apply(s, x));
                }
            }
        }
    }
}

/// The clamp bounds of a partial sum, which must pass unchanged, or of a final one.
pub(super) fn bounds(epilogue: &Epilogue, last: bool) -> (f32, f32) {
    if last { (epilogue.low, epilogue.high) } else { (f32::NEG_INFINITY, f32::INFINITY) }
}
