//! Winograd's algorithm for 3x3 convolutions of stride 1.
//!
//! **The problem.** A direct 3x3 convolution is bound by multiply-adds, and the register tile of `dense` issues them
//! at nearly the rate of the machine. The only way to be faster is to need fewer.
//!
//! **The design.** F(4x4, 3x3) computes 16 outputs of a channel pair with 36 multiplications instead of 144, F(2x2,
//! 3x3) 4 outputs with 16 instead of 36 (Lavin and Gray 2016). Input tiles are transformed once for all output
//! channels; then, for each of the 36 (16) values of a transformed tile, a matrix product over the channels runs on the
//! same register tile as every dense convolution, with tiles in the place of columns; then each result is transformed
//! back and gets bias, residual and activation in registers. The blocked layout makes all transforms vertical: a lane
//! is a channel.
//!
//! There are two ways to share the work, because transformed weights are 4 (1.8) times as large as the weights. Where
//! they fit into a core's cache, each unit of work takes a *band* of tiles through all three stages, with its scratch
//! memory in the cache too. Where they do not, all tiles are transformed first, and each unit takes all tiles through
//! the products with a *pair* of blocks of output channels, so that every weight is read once.
//!
//! **Eligible**: see [`choose`]. **Fallback**: `dense`.

mod transform;

use std::ops::Range;

use rayon::prelude::*;

use super::tile::{self, LINE, Pitch, Reduction, Tile};
use crate::blocked::{Arena, Region, Scratch, View};
use crate::buffer::AlignedBuf;
use crate::epilogue::{CurveRows, Epilogue};
use crate::geometry::Padding;
use crate::simd::{Kernel, Simd, Token};
use crate::team::Team;
use crate::window::Window;
use transform::side;

/// Bytes of transformed weights that a core keeps in its cache while bands of tiles pass.
const RESIDENT_WEIGHTS: usize = 768 << 10;

/// Bytes of scratch memory of a unit of work.
const UNIT_SCRATCH: usize = 448 << 10;

/// The minimum of transformed input, in bytes, of images that share a pass over weights that are not resident.
const SHARED_INPUT: usize = 2 << 20;

/// Tiles that one task transforms when tiles are shared.
const TRANSFORM_TILES: usize = 16;

/// Columns of the widest register tile of any instruction set.
const MAX_COLUMNS: usize = 14;

/// Cost of loading a transformed weight from memory, in multiply-adds of 16 lanes, measured at 14x14 and 7x7 with 256
/// and 512 channels.
const WEIGHT: f64 = 16.5;

/// The same for a weight of the direct algorithm, whose prefetches hide most of it.
const DIRECT_WEIGHT: f64 = 5.0;

/// Cost of transforming a value there or back, in multiply-adds, for all the channels on the other side together.
const TRANSFORM: f64 = 6.7;

/// The side of the output tiles, 2 or 4, for which a convolution uses Winograd's algorithm, or `None` for the direct
/// kernel.
///
/// The cheapest by a cost model per pair of channels: multiply-adds, transforms, and loads of weights for one image.
/// `output` is the height and width of the result. The choice depends on the geometry alone, never on the batch or the
/// threads, so neither changes a bit of the result.
pub(crate) fn choose(window: &Window, [channels, out]: [usize; 2], output: [usize; 2], lanes: usize) -> Option<usize> {
    if !is_possible(window) || channels < 2 * lanes || out < 2 * lanes {
        return None;
    }
    let [height, width] = output;
    // With narrower vectors, arithmetic takes longer relative to memory.
    let memory = lanes as f64 / 16.0;
    let direct = 9.0 * ((height * width) as f64 + DIRECT_WEIGHT * memory);
    let cost = |outputs: usize| {
        let tiles = (height.div_ceil(outputs) * width.div_ceil(outputs)) as f64;
        let transforms = TRANSFORM * (1.0 / channels as f64 + 1.0 / out as f64);
        let values = (side(outputs) * side(outputs)) as f64;
        values * (tiles * (1.0 + transforms) + WEIGHT * memory)
    };
    let outputs = if cost(2) < cost(4) { 2 } else { 4 };
    (cost(outputs) < direct).then_some(outputs)
}

/// Whether the algorithm can compute this convolution at all.
pub(crate) fn is_possible(window: &Window) -> bool {
    window.kernel == [3, 3] && window.stride == [1, 1]
}

/// Rows and columns of zeros that the input needs so that the last tiles can be read whole.
pub(crate) fn padding(outputs: usize, window: &Window, [height, width]: [usize; 2]) -> Padding {
    let Padding { top, left, bottom, right } = window.padding;
    let whole = |size: usize, before: usize, after: usize| {
        let output = size + before + after - 2;
        output.next_multiple_of(outputs) + 2 - before - size
    };
    Padding { top, left, bottom: whole(height, top, bottom), right: whole(width, left, right) }
}

/// Transformed weights in the order of use, `[O / 2b][T * T][I][2b out]`, and bias.
#[derive(Debug)]
pub(crate) struct WinogradWeights {
    data: AlignedBuf,
    bias: AlignedBuf,
    out: usize,
    channels: usize,
    lanes: usize,
    /// The side of an output tile.
    outputs: usize,
}

impl WinogradWeights {
    /// Transforms `[O, I, 3, 3]` weights whose lengths have been checked, for output tiles of side `outputs` (2 or 4).
    pub(crate) fn pack(
        weight: &[f32],
        bias: Option<&[f32]>,
        [out, channels]: [usize; 2],
        lanes: usize,
        outputs: usize,
    ) -> Self {
        let values = side(outputs) * side(outputs);
        let blocks = out.div_ceil(lanes);
        let mut data = AlignedBuf::zeroed(blocks * lanes * channels * values);
        data.par_chunks_mut(2 * lanes * channels * values).enumerate().for_each(|(pair, data)| {
            let width = data.len() / (channels * values);
            let first = pair * 2 * lanes;
            for lane in 0..width.min(out - first) {
                for channel in 0..channels {
                    let filter = &weight[((first + lane) * channels + channel) * 9..][..9];
                    let transformed = transform::filter(outputs, filter);
                    for (value, transformed) in transformed[..values].iter().enumerate() {
                        data[(value * channels + channel) * width + lane] = *transformed as f32;
                    }
                }
            }
        });
        let mut padded = AlignedBuf::zeroed(blocks * lanes);
        if let Some(bias) = bias {
            padded[..out].copy_from_slice(bias);
        }
        Self { data, bias: padded, out, channels, lanes, outputs }
    }

    /// The side of an output tile: 2 or 4.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }
}

/// How a transformed tensor lies in scratch memory: `[T * T][blocks][tiles][b]`.
#[derive(Clone, Copy, Debug)]
struct Values {
    /// Distance of the values of a tile.
    value: usize,
    /// Distance of blocks.
    plane: usize,
}

impl Values {
    fn new(blocks: usize, tiles: usize, lanes: usize) -> Self {
        let plane = tiles * lanes;
        // One extra cache line: distances that are powers of two would all map to the same few cache sets.
        Self { value: blocks * plane + LINE, plane }
    }

    fn len(self, outputs: usize) -> usize {
        self.value * side(outputs) * side(outputs)
    }
}

/// A convolution by Winograd's algorithm with resolved addresses.
#[derive(Debug)]
pub(crate) struct Winograd {
    weights: WinogradWeights,
    window: Window,
    epilogue: Epilogue,
    src: View,
    dst: View,
    residual: Option<View>,
    /// Rows and columns of tiles.
    grid: [usize; 2],
    /// The widest register tile.
    columns: usize,
    /// The most tiles that a unit of work has scratch memory for.
    unit: usize,
    /// Whether bands of tiles pass one by one, instead of all tiles together.
    banded: bool,
}

impl Winograd {
    /// Plans for a source whose halo is at least [`padding`].
    pub(crate) fn new(
        weights: WinogradWeights,
        window: Window,
        epilogue: Epilogue,
        src: View,
        dst: View,
        residual: Option<View>,
        columns: usize,
    ) -> Self {
        let outputs = weights.outputs;
        let grid = [dst.height.div_ceil(outputs), dst.width.div_ceil(outputs)];
        let banded = weights.data.len() * size_of::<f32>() <= RESIDENT_WEIGHTS;
        // Scratch memory of a tile: its products for a pair of blocks, and in a band its transformed input.
        let blocks = if banded { src.blocks + 2 } else { 2 };
        let bytes = blocks * side(outputs) * side(outputs) * weights.lanes * size_of::<f32>();
        let unit = (UNIT_SCRATCH / bytes).max(columns);
        let unit = if banded { unit.min(grid[0] * grid[1]) } else { unit };
        let plan = Self { weights, window, epilogue, src, dst, residual, grid, columns, unit, banded };
        plan.check();
        plan
    }

    /// Asserts what the kernels rely on: every tile can be read whole, and the tensors have the shapes of the weights.
    fn check(&self) {
        let View { height, width, halo, channels, .. } = self.src;
        let Padding { top, left, bottom, right } = padding(self.weights.outputs, &self.window, [height, width]);
        let wide = halo.top >= top && halo.left >= left && halo.bottom >= bottom && halo.right >= right;
        assert!(wide, "the halo is too narrow for whole tiles");
        assert!(channels == self.weights.channels && self.dst.channels == self.weights.out, "channels differ");
        assert!(self.columns <= MAX_COLUMNS && is_possible(&self.window));
        let same = |view: &View| view.blocks == self.dst.blocks && view.height == self.dst.height;
        assert!(self.residual.as_ref().is_none_or(|view| same(view) && view.width == self.dst.width));
    }

    /// Multiplications and additions of the direct algorithm for one image.
    pub(crate) fn flops(&self) -> u64 {
        2 * 9 * (self.weights.channels * self.weights.out) as u64 * (self.dst.height * self.dst.width) as u64
    }

    /// Kernel size, input and output channels, for descriptions.
    pub(crate) fn describe(&self) -> String {
        let View { height, width, .. } = self.dst;
        format!("conv 3x3 {}->{} at {height}x{width}", self.weights.channels, self.weights.out)
    }

    /// The algorithm's name.
    pub(crate) fn algorithm(&self) -> &'static str {
        if self.weights.outputs == 2 { "winograd 2x2" } else { "winograd 4x4" }
    }

    /// Tiles of one image.
    fn tiles(&self) -> usize {
        self.grid[0] * self.grid[1]
    }

    /// Values of scratch memory: what all threads share for one image, and what each needs.
    pub(crate) fn scratch(&self) -> [usize; 2] {
        let Self { weights, src, unit, .. } = self;
        let products = Values::new(2, *unit, weights.lanes).len(weights.outputs);
        if self.banded {
            [0, Values::new(src.blocks, *unit, weights.lanes).len(weights.outputs) + products]
        } else {
            // The spare lines are counted once per image, which is more than enough.
            [Values::new(src.blocks, self.tiles(), weights.lanes).len(weights.outputs), products]
        }
    }

    /// Runs for `images` images, shared among the threads of the current pool.
    ///
    /// # Safety
    /// The arena must hold this plan's tensors for that many images and `scratch` what [`scratch`](Self::scratch) asks
    /// for, and nobody else may use them during the run.
    pub(crate) unsafe fn run(&self, token: Token, arena: Arena, scratch: Scratch, images: usize, team: &Team) {
        if self.banded {
            let bands = self.tiles().div_ceil(self.unit);
            let bands =
                if team.threads() == 1 { bands } else { bands.next_multiple_of(team.threads()).min(self.tiles()) };
            team.for_each(images * bands, |unit| {
                let (image, band) = (unit / bands, unit % bands);
                let tiles = super::part(self.tiles(), bands, band);
                let first = image * self.tiles();
                let memory = scratch.slot();
                token.dispatch(BandKernel { plan: self, arena, memory, tiles: first + tiles.start..first + tiles.end });
            });
            return;
        }
        let bytes = self.scratch()[0] * size_of::<f32>();
        let weights = self.weights.data.len() * size_of::<f32>();
        let together = (weights.max(SHARED_INPUT) / bytes).clamp(1, images);
        for first in (0..images).step_by(together) {
            let all = first * self.tiles()..(first + together).min(images) * self.tiles();
            let parts = all.len().div_ceil(TRANSFORM_TILES);
            team.for_each(parts * self.src.blocks, |unit| {
                let (block, index) = (unit / parts, unit % parts);
                let tiles = super::part(all.len(), parts, index);
                let tiles = all.start + tiles.start..all.start + tiles.end;
                let input = scratch.shared();
                token.dispatch(TransformKernel { plan: self, arena, input, all: all.clone(), block, tiles });
            });
            let pairs = self.dst.blocks.div_ceil(2);
            let wanted = if team.threads() == 1 { 1 } else { (4 * team.threads()).div_ceil(pairs) };
            let groups = all.len().div_ceil(self.unit).max(wanted.min(all.len().div_ceil(self.columns)));
            team.for_each(pairs * groups, |unit| {
                let (pair, group) = (unit / groups, unit % groups);
                let tiles = super::part(all.len(), groups, group);
                let tiles = all.start + tiles.start..all.start + tiles.end;
                let (input, memory) = (scratch.shared(), scratch.slot());
                token.dispatch(PairKernel { plan: self, arena, input, memory, all: all.clone(), pair, tiles });
            });
        }
    }

    /// Image, and row and column in the grid, of a tile counted over all images.
    #[inline(always)]
    fn locate(&self, tile: usize) -> (usize, usize, usize) {
        let (image, tile) = (tile / self.tiles(), tile % self.tiles());
        (image, tile / self.grid[1], tile % self.grid[1])
    }

    /// Transforms the input of `tiles` of one block; the first goes to `to`.
    ///
    /// # Safety
    /// As for [`run`](Self::run), with `to` in the layout `values`.
    #[inline(always)]
    unsafe fn transform<S: Simd>(
        &self,
        s: S,
        arena: Arena,
        tiles: Range<usize>,
        block: usize,
        to: *mut f32,
        values: Values,
    ) {
        let outputs = self.weights.outputs;
        let View { row, .. } = self.src;
        let corner = self.src.origin - self.window.padding.top * row - self.window.padding.left * S::LANES;
        for (index, tile) in tiles.enumerate() {
            let (image, y, x) = self.locate(tile);
            // SAFETY: `check` asserted that the halo is wide enough for every tile, and the caller promises the rest.
            unsafe {
                let from = self.arena_block(arena, image, block);
                let from = from.add(corner + y * outputs * row + x * outputs * S::LANES);
                let to = to.add(index * S::LANES);
                if outputs == 2 {
                    transform::load::<S, 4>(s, from, row, to, values.value);
                } else {
                    transform::load::<S, 6>(s, from, row, to, values.value);
                }
            }
        }
    }

    /// # Safety
    /// As for [`run`](Self::run).
    #[inline(always)]
    unsafe fn arena_block(&self, arena: Arena, image: usize, block: usize) -> *const f32 {
        // SAFETY: the caller's promise.
        unsafe { arena.block(&self.src, image, block) }
    }

    /// Products of `count` transformed tiles at `input` with the weights of one pair of blocks, into `products`.
    ///
    /// # Safety
    /// As for [`run`](Self::run), with `input` and `products` in the layouts `values` and `product_values`.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(
        &self,
        s: S,
        pair: usize,
        count: usize,
        [input, products]: [*mut f32; 2],
        [values, product_values]: [Values; 2],
    ) {
        let WinogradWeights { data, channels, lanes, outputs, .. } = &self.weights;
        let blocks = (self.dst.blocks - 2 * pair).min(2);
        let all = side(*outputs) * side(*outputs);
        let steps = channels * blocks * lanes;
        let zeros = [0.0f32; 32];
        let mut columns = [0u32; MAX_COLUMNS];
        for (index, column) in columns.iter_mut().enumerate() {
            *column = (index * S::LANES) as u32;
        }
        let reduction = Reduction {
            counts: [self.src.blocks, 1, 1],
            strides: [values.plane, 0, 0],
            inner: *lanes,
            inner_last: channels - (self.src.blocks - 1) * lanes,
        };
        let tiles = count.div_ceil(self.columns);
        // SAFETY: the caller's promise; the packed weights have `steps` values for each value of a tile and pair, and
        // the columns of a register tile are at most `self.columns`.
        unsafe {
            let weights = data.as_ptr().add(pair * 2 * lanes * channels * all);
            for value in 0..all {
                let weights = weights.add(value * steps);
                for tile in 0..tiles {
                    let range = super::part(count, tiles, tile);
                    // The first register tiles together bring in the weights of the next value.
                    let ahead = tile * channels * LINE;
                    let following = weights.wrapping_add(steps + ahead);
                    let work = Tile {
                        reduction,
                        input: input.add(value * values.value + range.start * S::LANES),
                        gap: range.len() / 2 * S::LANES,
                        weights,
                        upcoming: if ahead < steps { following } else { weights },
                        bias: zeros.as_ptr(),
                        output: products.add(value * product_values.value + range.start * S::LANES),
                        output_columns: columns.as_ptr(),
                        output_plane: product_values.plane,
                        residual: std::ptr::null(),
                        residual_columns: columns.as_ptr(),
                        residual_plane: 0,
                        pitch: S::LANES,
                        low: f32::NEG_INFINITY,
                        high: f32::INFINITY,
                    };
                    tile::run(s, Pitch::BLOCK, blocks, range.len(), &work);
                }
            }
        }
    }

    /// Transforms the products of `tiles` of one pair back and applies the epilogue.
    ///
    /// # Safety
    /// As for [`run`](Self::run), with `products` in the layout `values`.
    #[inline(always)]
    unsafe fn finish<S: Simd>(
        &self,
        s: S,
        arena: Arena,
        tiles: Range<usize>,
        pair: usize,
        products: *const f32,
        values: Values,
    ) {
        for block in 2 * pair..(2 * pair + 2).min(self.dst.blocks) {
            for (index, tile) in tiles.clone().enumerate() {
                // SAFETY: the caller's promise.
                unsafe {
                    let from = products.add((block - 2 * pair) * values.plane + index * S::LANES);
                    if self.weights.outputs == 2 {
                        let result = transform::gather::<S, 4>(s, from, values.value);
                        self.write(s, arena, tile, block, result);
                    } else {
                        let result = transform::gather::<S, 6>(s, from, values.value);
                        self.write(s, arena, tile, block, result);
                    }
                }
            }
        }
    }

    /// Adds bias and residual to one finished tile of one block, applies the activation and stores what lies inside.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    #[inline(always)]
    unsafe fn write<S: Simd, const T: usize>(
        &self,
        s: S,
        arena: Arena,
        tile: usize,
        block: usize,
        result: [[S::V; T]; T],
    ) {
        let (image, ty, tx) = self.locate(tile);
        let (y0, x0) = (ty * (T - 2), tx * (T - 2));
        let (rows, columns) = ((self.dst.height - y0).min(T - 2), (self.dst.width - x0).min(T - 2));
        // SAFETY: the caller's promise; rows and columns are clipped to the tensor, and the residual has its shape.
        unsafe {
            let bias = s.load(self.weights.bias.as_ptr().add(block * S::LANES));
            let to = arena.block(&self.dst, image, block).add(self.dst.at(y0, x0));
            let residual = self.residual.map(|view| (arena.block(&view, image, block).add(view.at(y0, x0)), view.row));
            let whole = rows == T - 2 && columns == T - 2;
            for y in 0..T - 2 {
                for x in 0..T - 2 {
                    if whole || (y < rows && x < columns) {
                        let mut sum = s.add(result[y][x], bias);
                        if let Some((from, row)) = residual {
                            sum = s.add(sum, s.load(from.add(y * row + x * S::LANES)));
                        }
                        s.store(to.add(y * self.dst.row + x * S::LANES), self.epilogue.clamp(s, sum));
                    }
                }
            }
            if let Some(curve) = self.epilogue.curve {
                s.vectorize(CurveRows { curve, start: to, row: self.dst.row, rows, columns });
            }
            if tx == 0 {
                let region = Region { image, block, y0, y1: y0 + rows };
                arena.clear_halo(&self.dst, region);
            }
        }
    }
}

/// All three stages for a band of tiles of one image.
struct BandKernel<'a> {
    plan: &'a Winograd,
    arena: Arena,
    memory: *mut f32,
    tiles: Range<usize>,
}

impl Kernel for BandKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { plan, arena, memory, tiles } = self;
        let values = Values::new(plan.src.blocks, tiles.len(), S::LANES);
        let products = Values::new(2, tiles.len(), S::LANES);
        // SAFETY: `Winograd::run` gives each thread its own memory of the length that `scratch` states, and bands have
        // at most `unit` tiles; the caller of `run` promises the arena.
        unsafe {
            let result = memory.add(values.len(plan.weights.outputs));
            for block in 0..plan.src.blocks {
                plan.transform(s, arena, tiles.clone(), block, memory.add(block * values.plane), values);
            }
            for pair in 0..plan.dst.blocks.div_ceil(2) {
                plan.multiply(s, pair, tiles.len(), [memory, result], [values, products]);
                plan.finish(s, arena, tiles.clone(), pair, result, products);
            }
        }
    }
}

/// The first stage for a few tiles of one block.
struct TransformKernel<'a> {
    plan: &'a Winograd,
    arena: Arena,
    input: *mut f32,
    all: Range<usize>,
    block: usize,
    tiles: Range<usize>,
}

impl Kernel for TransformKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { plan, arena, input, all, block, tiles } = self;
        let values = Values::new(plan.src.blocks, all.len(), S::LANES);
        // SAFETY: the shared memory holds all tiles, each unit of work writes its own, and the caller of
        // `Winograd::run` promises the arena.
        unsafe {
            let to = input.add(block * values.plane + (tiles.start - all.start) * S::LANES);
            plan.transform(s, arena, tiles, block, to, values);
        }
    }
}

/// The second and third stage for one pair of blocks.
struct PairKernel<'a> {
    plan: &'a Winograd,
    arena: Arena,
    input: *mut f32,
    memory: *mut f32,
    all: Range<usize>,
    pair: usize,
    tiles: Range<usize>,
}

impl Kernel for PairKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { plan, arena, input, memory, all, pair, tiles } = self;
        let values = Values::new(plan.src.blocks, all.len(), S::LANES);
        let products = Values::new(2, tiles.len(), S::LANES);
        // SAFETY: as for `BandKernel`; nobody writes the shared memory in this stage.
        unsafe {
            let input = input.add((tiles.start - all.start) * S::LANES);
            plan.multiply(s, pair, tiles.len(), [input, memory], [values, products]);
            plan.finish(s, arena, tiles, pair, memory, products);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(stride: usize, padding: usize) -> Window {
        Window { kernel: [3, 3], stride: [stride; 2], padding: Padding::symmetric(padding) }
    }

    #[test]
    fn larger_tiles_for_more_positions_and_none_for_few() {
        let choice = |channels: usize, size: usize| choose(&window(1, 1), [channels; 2], [size; 2], 16);
        assert_eq!(choice(64, 56), Some(4));
        assert_eq!(choice(128, 28), Some(4));
        assert_eq!(choice(256, 14), Some(2));
        assert_eq!(choice(512, 7), None);
        assert_eq!(choose(&window(1, 1), [512; 2], [7; 2], 8), Some(2), "arithmetic is slower with 8 lanes");
        assert_eq!(choice(16, 56), None, "less than two blocks of channels");
        assert_eq!(choose(&window(2, 1), [64; 2], [28; 2], 16), None, "stride 2");
    }

    #[test]
    fn the_halo_lets_every_tile_be_read_whole() {
        for (outputs, size, padding, extra) in [(4, 56, 1, 1), (4, 14, 1, 3), (2, 7, 1, 2), (4, 8, 0, 2), (2, 8, 0, 0)]
        {
            let halo = super::padding(outputs, &window(1, padding), [size, size]);
            assert_eq!((halo.top, halo.bottom, halo.right), (padding, extra, extra), "{outputs} {size} {padding}");
        }
    }

    #[test]
    fn a_constant_filter_on_a_constant_tile_is_their_product() {
        // Bᵀ d B of ones, times G g Gᵀ of ones, transformed back: each output is 9.
        struct Ones;
        impl Kernel for Ones {
            type Output = Vec<f32>;

            #[inline(always)]
            fn run<S: Simd>(self, s: S) -> Vec<f32> {
                let (ones, mut values) = ([1.0f32; 36 * 16], vec![0.0f32; 36 * S::LANES]);
                let weights = transform::filter(4, &[1.0; 9]);
                let mut out = vec![0.0f32; S::LANES];
                let mut all = Vec::new();
                // SAFETY: the buffers hold 6 x 6 vectors of the longest instruction set, or one vector.
                unsafe {
                    transform::load::<S, 6>(s, ones.as_ptr(), 6 * S::LANES, values.as_mut_ptr(), S::LANES);
                    for (value, weight) in values.chunks_exact_mut(S::LANES).zip(weights) {
                        value.iter_mut().for_each(|v| *v *= weight as f32);
                    }
                    let tile = transform::gather::<S, 6>(s, values.as_ptr(), S::LANES);
                    for row in &tile[..4] {
                        for v in &row[..4] {
                            s.store(out.as_mut_ptr(), *v);
                            all.extend_from_slice(&out);
                        }
                    }
                }
                all
            }
        }
        for isa in crate::Isa::available() {
            for value in Token::new(isa).expect("available").dispatch(Ones) {
                assert!((value - 9.0).abs() < 1e-5, "{isa}: {value}");
            }
        }
    }
}
