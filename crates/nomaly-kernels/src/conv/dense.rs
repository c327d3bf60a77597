//! Dense (groups = 1) convolution: packing, cutting into tiles, cache blocking, sharing among threads.
//!
//! **The problem.** The register tile alone is fast only while its weights come from a near cache: 14 columns use a
//! pair of weight vectors for 14 cycles and then need the next. A layer of 512 channels has 9 MiB of weights, and a
//! layer of 112 x 112 positions has megabytes of input; either can fall out of the cache between uses.
//!
//! **The design.** Output channels are taken in pairs of blocks. A reduction whose weights for one pair exceed
//! [`WEIGHT_CHUNK`] is cut into chunks of input blocks, with partial sums kept in the output. [`schedule`] chooses
//! between two loop orders: layers with more weights than input run all images and positions against one pair of
//! blocks; the others run all pairs against a band of input that stays in the cache. 1x1 layers of stride 1 without
//! halo are flattened: positions are cut without regard to rows, so that a 7 x 7 image still fills the tile. Elsewhere
//! two rows of at most half a tile share one.
//!
//! While one part of the weights is in use, its first tiles prefetch the next: at 7 x 7 there are only a handful of
//! tiles to hide the latency of memory.
//!
//! **Measured** on one core of an Ice Lake server at 2.8 GHz (AVX-512, batch 1, best of 20, other work on the machine):
//! 3x3 layers of ResNet-18 at 56x56, 28x28 and 14x14 run at 137 to 145 GFLOP/s; 512 -> 512 at 7x7 at 88 GFLOP/s without
//! the prefetch and at 114 to 128 with it; the 7x7 stem at 149, 1x1 layers with 80 and more channels at 110 to 126.
//!
//! **Eligible** is every convolution with groups = 1.

use crate::blocked::{Arena, Region, Scratch, View};
use crate::buffer::AlignedBuf;
use crate::epilogue::Epilogue;
use crate::geometry::Padding;
use crate::simd::{Kernel, Simd, Token};
use crate::team::Team;
use crate::window::Window;

use super::part;
use super::tile::{self, CurveKernel, DYNAMIC_COLUMNS, LINE, Pitch, Reduction, Tile};

/// Bytes of weights of one pair of blocks that are used at a time: half of a first-level cache. Against a quarter of a
/// second-level cache this gives 1x1 layers with 512 and more channels 5 to 11 % more speed.
const WEIGHT_CHUNK: usize = 24 << 10;

/// Bytes of input that a unit of work reads, for layers with fewer weights than inputs.
const INPUT_BAND: usize = 512 << 10;

/// Floating-point operations below which a unit of work is not worth its own dispatch.
const UNIT_FLOPS: u64 = 400_000;

/// Bytes of weights that are worth a unit of work, however little arithmetic there is: with one position, as in channel
/// attention, a layer takes as long as it takes to load its weights.
const UNIT_WEIGHTS: usize = 128 << 10;

/// Weights and bias packed in the order of use:
/// `[O / 2b][I / b][kh][kw][b in][2b out]`, or planar `[O / 2b][I][kh][kw][2b out]`.
///
/// Output channels are padded to whole blocks with zeros; input channels are not padded.
#[derive(Debug)]
pub(crate) struct DenseWeights {
    data: AlignedBuf,
    bias: AlignedBuf,
    out: usize,
    channels: usize,
    kernel: [usize; 2],
    lanes: usize,
    planar: bool,
}

impl DenseWeights {
    /// Packs `[O, I, kh, kw]` weights whose lengths have been checked.
    pub(crate) fn pack(
        weight: &[f32],
        bias: Option<&[f32]>,
        [out, channels]: [usize; 2],
        kernel: [usize; 2],
        lanes: usize,
        planar: bool,
    ) -> Self {
        let blocks = out.div_ceil(lanes);
        let window = kernel[0] * kernel[1];
        let taps = channels * window;
        let mut data = AlignedBuf::zeroed(blocks * lanes * taps);
        for o in 0..out {
            let pair = o / (2 * lanes);
            let width = if 2 * pair + 1 < blocks { 2 * lanes } else { lanes };
            let base = pair * 2 * lanes * taps + o % (2 * lanes);
            for (source, value) in weight[o * taps..(o + 1) * taps].iter().enumerate() {
                let (channel, position) = (source / window, source % window);
                let step = if planar {
                    source
                } else {
                    // All blocks before this one are whole; within a block, positions are outermost.
                    let first = channel - channel % lanes;
                    first * window + position * (channels - first).min(lanes) + channel % lanes
                };
                data[base + step * width] = *value;
            }
        }
        let mut padded = AlignedBuf::zeroed(blocks * lanes);
        if let Some(bias) = bias {
            padded[..out].copy_from_slice(bias);
        }
        Self { data, bias: padded, out, channels, kernel, lanes, planar }
    }

    /// Whether these are the weights of a 1x1 convolution of blocked tensors with these numbers of channels.
    pub(crate) fn is_pointwise(&self, channels: usize, out: usize) -> bool {
        self.kernel == [1, 1] && !self.planar && self.channels == channels && self.out == out
    }

    /// Weights and bias of one pair of blocks of output channels.
    pub(super) fn pair(&self, pair: usize) -> (*const f32, *const f32) {
        let taps = self.channels * self.kernel[0] * self.kernel[1];
        (self.data[pair * 2 * self.lanes * taps..].as_ptr(), self.bias[pair * 2 * self.lanes..].as_ptr())
    }
}

/// Where one tile begins, in values from the start of an image.
#[derive(Clone, Copy, Debug)]
struct Place {
    columns: u32,
    /// Number of its first output position.
    position: u32,
    input: u32,
    /// From the input of the first column to that of the middle one.
    gap: u32,
    output: u32,
    residual: u32,
    /// Where in the table the distances of its columns begin.
    output_columns: u32,
    residual_columns: u32,
}

/// A dense convolution with resolved addresses.
#[derive(Debug)]
pub(crate) struct Dense {
    weights: DenseWeights,
    window: Window,
    epilogue: Epilogue,
    src: View,
    dst: View,
    residual: Option<View>,
    /// Factors of the input channels, `[C, 1, 1]`, multiplied into the weights.
    gate: Option<View>,
    reduction: Reduction,
    pitch: usize,
    places: Vec<Place>,
    /// Distances of columns: first those of a tile within a row, then those of each tile that straddles rows.
    columns: Vec<u32>,
    /// The widest tile.
    widest: usize,
    /// Repetitions of the outermost loop in one chunk of the reduction.
    chunk: usize,
}

/// What a band of a pointwise convolution reads: `[C / b][positions][b]` without gaps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Band {
    pub(super) input: *const f32,
    pub(super) image: usize,
    /// The rows of the output.
    pub(super) y0: usize,
    pub(super) y1: usize,
}

/// How a run is split into units of work: a product of three groupings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Schedule {
    images: usize,
    bands: usize,
    pairs: usize,
}

impl Dense {
    /// Cuts the output of `dst`'s shape into tiles of at most `columns` columns.
    pub(crate) fn new(
        weights: DenseWeights,
        window: Window,
        epilogue: Epilogue,
        src: View,
        dst: View,
        [residual, gate]: [Option<View>; 2],
        columns: usize,
    ) -> Self {
        let [kh, kw] = weights.kernel;
        let lanes = weights.lanes;
        let reduction = if weights.planar {
            Reduction { counts: [weights.channels, kh, 1], strides: [src.plane, src.row, 0], inner: kw, inner_last: kw }
        } else {
            Reduction {
                counts: [src.blocks, kh, kw],
                strides: [src.plane, src.row, src.pixel],
                inner: lanes,
                inner_last: weights.channels - (src.blocks - 1) * lanes,
            }
        };
        let pitch = window.stride[1] * src.pixel;
        let columns = if Pitch::of(pitch, lanes) == Pitch::DYNAMIC { columns.min(DYNAMIC_COLUMNS) } else { columns };

        let mut cut = Cut { places: Vec::new(), columns: Vec::new(), src, dst, residual, window };
        cut.columns.extend((0..columns).map(|j| (j * lanes) as u32));
        if is_flat(&window, &src) {
            cut.span(0, dst.height * dst.width, columns);
        } else if 2 * dst.width <= columns {
            cut.pairs_of_rows();
        } else {
            for y in 0..dst.height {
                cut.span(y * dst.width, (y + 1) * dst.width, columns);
            }
        }

        let loops = reduction.counts[0];
        let bytes = weights.channels * kh * kw * 2 * lanes * size_of::<f32>();
        let chunk = loops.div_ceil(bytes.div_ceil(WEIGHT_CHUNK).min(loops));
        let (widest, Cut { places, columns, .. }) = (columns, cut);
        let dense = Self {
            weights,
            window,
            epilogue,
            src,
            dst,
            residual,
            gate,
            reduction,
            pitch,
            places,
            columns,
            widest,
            chunk,
        };
        dense.check();
        dense
    }

    /// Asserts what the kernels rely on: no tile reaches beyond its tensors.
    fn check(&self) {
        let Reduction { counts, strides, inner, .. } = self.reduction;
        let reach: usize = counts.iter().zip(strides).map(|(count, stride)| (count - 1) * stride).sum();
        for place in &self.places {
            let columns = place.columns as usize;
            let first_half = (columns / 2).saturating_sub(1) * self.pitch;
            let second_half = place.gap as usize + (columns - columns / 2 - 1) * self.pitch;
            let inputs = place.input as usize + reach + first_half.max(second_half) + inner;
            let table = place.output_columns as usize..place.output_columns as usize + columns;
            let far = self.columns[table].iter().max().map_or(0, |column| *column as usize);
            let outputs = place.output as usize + far + (self.dst.blocks - 1) * self.dst.plane + self.dst.pixel;
            assert!(inputs <= self.src.len && outputs <= self.dst.len, "a tile reaches beyond its tensor");
            assert!(self.gate.is_none() || self.weights.is_pointwise(self.src.channels, self.dst.channels));
            if let Some(view) = &self.residual {
                let table = place.residual_columns as usize..place.residual_columns as usize + columns;
                let far = self.columns[table].iter().max().map_or(0, |column| *column as usize);
                let residuals = place.residual as usize + far + (view.blocks - 1) * view.plane + view.pixel;
                assert!(residuals <= view.len && view.blocks == self.dst.blocks, "a tile reaches beyond the residual");
            }
        }
    }

    /// Multiplications and additions for one image.
    pub(crate) fn flops(&self) -> u64 {
        let taps = self.weights.channels * self.weights.kernel[0] * self.weights.kernel[1];
        2 * (taps * self.weights.out) as u64 * (self.dst.height * self.dst.width) as u64
    }

    /// Kernel size, input and output channels, for descriptions.
    pub(crate) fn describe(&self) -> String {
        let [kh, kw] = self.weights.kernel;
        let View { height, width, .. } = self.dst;
        format!("conv {kh}x{kw} {}->{} at {height}x{width}", self.weights.channels, self.weights.out)
    }

    /// The algorithm's name.
    pub(crate) fn algorithm(&self) -> &'static str {
        if is_flat(&self.window, &self.src) { "pointwise" } else { "direct" }
    }

    /// Values of scratch memory that threads share, for one image.
    pub(crate) fn scratch(&self) -> usize {
        if self.gate.is_some() { self.weights.data.len() } else { 0 }
    }

    /// Runs for `images` images, shared among the team.
    ///
    /// # Safety
    /// The arena must hold this plan's tensors for that many images and `scratch` what [`scratch`](Self::scratch) asks
    /// for, and nobody else may use them during the run.
    pub(crate) unsafe fn run(&self, token: Token, arena: Arena, scratch: Scratch, images: usize, team: &Team) {
        let pairs = self.dst.blocks.div_ceil(2);
        if let Some(gate) = &self.gate {
            team.for_each(images * pairs, |unit| {
                let (image, pair) = (unit / pairs, unit % pairs);
                let to = scratch.shared().wrapping_add(image * self.weights.data.len());
                token.dispatch(GateKernel { dense: self, gate, arena, image, pair, to });
            });
        }
        let schedule = self.schedule(images, pairs, team.threads());
        let units = schedule.images * schedule.bands * schedule.pairs;
        team.for_each(units, |unit| {
            let (image, rest) = (unit / (schedule.bands * schedule.pairs), unit % (schedule.bands * schedule.pairs));
            let (band, pair) = (rest / schedule.pairs, rest % schedule.pairs);
            let images = part(images, schedule.images, image);
            let band = part(self.places.len(), schedule.bands, band);
            let pairs = part(pairs, schedule.pairs, pair);
            token.dispatch(UnitKernel { dense: self, arena, gated: scratch.shared(), images, band, pairs });
        });
    }

    /// Computes a band of rows of a pointwise convolution from the caller's memory.
    ///
    /// # Safety
    /// As for [`run`](Self::run), without a gate; the input must have every channel and position of the band.
    #[inline(always)]
    pub(super) unsafe fn band<S: Simd>(&self, s: S, arena: Arena, band: Band) {
        let Band { input, image, y0, y1 } = band;
        let positions = (y1 - y0) * self.dst.width;
        let unit = UnitKernel {
            dense: self,
            arena,
            gated: std::ptr::null(),
            images: image..image + 1,
            band: 0..0,
            pairs: 0..self.dst.blocks.div_ceil(2),
        };
        let loops = self.reduction.counts[0];
        for pair in unit.pairs.clone() {
            for from in (0..loops).step_by(self.chunk) {
                let part = from..(from + self.chunk).min(loops);
                let source = Source { input, plane: positions * S::LANES };
                // SAFETY: the caller's promise.
                unsafe { unit.sweep(s, pair, part, image, source, self.band_places(band)) };
            }
        }
        for block in 0..self.dst.blocks {
            // SAFETY: the caller's promise.
            unsafe { arena.clear_halo(&self.dst, Region { image, block, y0, y1 }) };
        }
    }

    /// The tiles of a band: of all its positions together, or row by row where a tensor has a halo.
    #[inline(always)]
    fn band_places(&self, Band { y0, y1, .. }: Band) -> impl Iterator<Item = Place> {
        let (width, lanes) = (self.dst.width, self.dst.pixel);
        let flat = self.dst.is_contiguous() && self.residual.is_none_or(|view| view.is_contiguous());
        let (spans, length) = if flat { (1, (y1 - y0) * width) } else { (y1 - y0, width) };
        let tiles = length.div_ceil(self.widest);
        (0..spans).flat_map(move |span| {
            let output = self.dst.at(y0 + span, 0);
            let residual = self.residual.map_or(0, |view| view.at(y0 + span, 0));
            (0..tiles).map(move |tile| {
                let range = part(length, tiles, tile);
                Place {
                    columns: range.len() as u32,
                    position: ((y0 + span) * width + range.start) as u32,
                    input: ((span * length + range.start) * lanes) as u32,
                    gap: (range.len() / 2 * lanes) as u32,
                    output: (output + range.start * lanes) as u32,
                    residual: (residual + range.start * lanes) as u32,
                    output_columns: 0,
                    residual_columns: 0,
                }
            })
        })
    }

    fn schedule(&self, images: usize, pairs: usize, threads: usize) -> Schedule {
        let input = self.src.channels * self.src.height * self.src.width * size_of::<f32>();
        let weights = self.weights.data.len() * size_of::<f32>();
        let work = (self.flops() * images as u64 / UNIT_FLOPS) as usize;
        let work = work.max(weights / UNIT_WEIGHTS).max(1);
        let wanted = if threads == 1 { 1 } else { (4 * threads).min(work) };
        schedule(input, weights, [images, self.places.len(), pairs], wanted)
    }
}

/// Whether positions can be cut without regard to rows.
fn is_flat(window: &Window, src: &View) -> bool {
    window.kernel == [1, 1] && window.stride == [1, 1] && window.padding == Padding::default() && src.is_contiguous()
}

/// Chooses how to cut `[images, tiles, pairs]` into about `wanted` units, given bytes of input per image and weights.
fn schedule(input: usize, weights: usize, [images, tiles, pairs]: [usize; 3], wanted: usize) -> Schedule {
    if weights > input {
        let pair_groups = pairs.min(wanted);
        let bands = if 2 * pair_groups > wanted { 1 } else { wanted.div_ceil(pair_groups).min(tiles) };
        Schedule { images: 1, bands, pairs: pair_groups }
    } else {
        let bands = input.div_ceil(INPUT_BAND).max(wanted.div_ceil(images)).min(tiles);
        Schedule { images, bands, pairs: wanted.div_ceil(images * bands).min(pairs) }
    }
}

/// Collects the tiles.
struct Cut {
    places: Vec<Place>,
    columns: Vec<u32>,
    src: View,
    dst: View,
    residual: Option<View>,
    window: Window,
}

impl Cut {
    /// Cuts output positions `from..to` into tiles of nearly equal width, at most `widest`.
    fn span(&mut self, from: usize, to: usize, widest: usize) {
        let tiles = (to - from).div_ceil(widest);
        for tile in 0..tiles {
            let range = part(to - from, tiles, tile);
            let middle = range.len() / 2 * self.window.stride[1] * self.src.pixel;
            self.tile(from + range.start, from + range.end, middle);
        }
    }

    /// Makes one tile of every two rows.
    fn pairs_of_rows(&mut self) {
        let View { height, width, .. } = self.dst;
        for y in (0..height - height % 2).step_by(2) {
            self.tile(y * width, (y + 2) * width, self.window.stride[0] * self.src.row);
        }
        if height % 2 == 1 {
            self.span((height - 1) * width, height * width, width);
        }
    }

    /// One tile of positions `from..to`, with `gap` between the inputs of the first and the middle one.
    fn tile(&mut self, from: usize, to: usize, gap: usize) {
        let (y, x) = (from / self.dst.width, from % self.dst.width);
        let [sy, sx] = self.window.stride;
        let Padding { top, left, .. } = self.window.padding;
        // The window of position (0, 0) begins inside the halo, which is at least as wide as the padding.
        let input = self.src.at(0, 0) - top * self.src.row - left * self.src.pixel;
        let residual = self.residual;
        let place = Place {
            columns: (to - from) as u32,
            position: from as u32,
            input: (input + y * sy * self.src.row + x * sx * self.src.pixel) as u32,
            gap: gap as u32,
            output: self.dst.at(y, x) as u32,
            residual: residual.map_or(0, |view| view.at(y, x)) as u32,
            output_columns: self.table(self.dst, from, to),
            residual_columns: residual.map_or(0, |view| self.table(view, from, to)),
        };
        self.places.push(place);
    }

    /// Index of the distances of positions `from..to` of a tensor in the table; adds them if they are missing.
    fn table(&mut self, view: View, from: usize, to: usize) -> u32 {
        let width = self.dst.width;
        if view.is_contiguous() || from / width == (to - 1) / width {
            return 0;
        }
        let start = view.at(from / width, from % width);
        let first = self.columns.len() as u32;
        self.columns.extend((from..to).map(|position| (view.at(position / width, position % width) - start) as u32));
        first
    }
}

/// Multiplies the gate of one image into the weights of one pair of blocks.
struct GateKernel<'a> {
    dense: &'a Dense,
    gate: &'a View,
    arena: Arena,
    image: usize,
    pair: usize,
    to: *mut f32,
}

impl Kernel for GateKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { dense, gate, arena, image, pair, to } = self;
        let blocks = (dense.dst.blocks - 2 * pair).min(2);
        let (weights, _) = dense.weights.pair(pair);
        // SAFETY: a gate is made for pointwise weights only, which have one step per channel; the scratch memory holds
        // the weights of each image, and every unit of work writes those of its own pair.
        unsafe {
            let to = to.add(pair * 2 * S::LANES * dense.weights.channels);
            for channel in 0..dense.weights.channels {
                let (block, lane) = (channel / S::LANES, channel % S::LANES);
                let factor = s.splat(*arena.block(gate, image, block).add(gate.origin + lane));
                for b in 0..blocks {
                    let at = (channel * blocks + b) * S::LANES;
                    s.store(to.add(at), s.mul(s.load(weights.add(at)), factor));
                }
            }
        }
    }
}

/// One unit of work.
struct UnitKernel<'a> {
    dense: &'a Dense,
    arena: Arena,
    /// Weights of each image, if there is a gate.
    gated: *const f32,
    images: std::ops::Range<usize>,
    band: std::ops::Range<usize>,
    pairs: std::ops::Range<usize>,
}

impl Kernel for UnitKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let dense = self.dense;
        let loops = dense.reduction.counts[0];
        for pair in self.pairs.clone() {
            for from in (0..loops).step_by(dense.chunk) {
                let to = (from + dense.chunk).min(loops);
                for image in self.images.clone() {
                    // SAFETY: `Dense::check` asserted that all tiles lie inside their tensors, and the caller of
                    // `Dense::run` promises that the arena holds these tensors.
                    unsafe {
                        let source = Source { input: self.arena.block(&dense.src, image, 0), plane: dense.src.plane };
                        let places = dense.places.get_unchecked(self.band.clone()).iter().copied();
                        self.sweep(s, pair, from..to, image, source, places);
                    }
                }
            }
        }
        let width = dense.dst.width;
        let start = dense.places[self.band.start].position as usize;
        let end = dense.places.get(self.band.end).map_or(dense.dst.height * width, |place| place.position as usize);
        for image in self.images.clone() {
            for block in 2 * self.pairs.start..(2 * self.pairs.end).min(dense.dst.blocks) {
                let region = Region { image, block, y0: start.div_ceil(width), y1: end.div_ceil(width) };
                // SAFETY: the arena holds the tensor, and each row's first position is in one band only.
                unsafe { self.arena.clear_halo(&dense.dst, region) };
            }
        }
    }
}

/// Where the input of one image lies.
#[derive(Clone, Copy)]
struct Source {
    input: *const f32,
    /// Distance of blocks (planar: channels).
    plane: usize,
}

impl UnitKernel<'_> {
    /// Tiles for one pair of output blocks, one part of the reduction and one image.
    ///
    /// # Safety
    /// The arena must hold the tensors that are written and added, and every tile must lie inside them and the source.
    #[inline(always)]
    unsafe fn sweep<S: Simd>(
        &self,
        s: S,
        pair: usize,
        part: std::ops::Range<usize>,
        image: usize,
        source: Source,
        places: impl Iterator<Item = Place>,
    ) {
        let dense = self.dense;
        let lanes = S::LANES;
        let Reduction { counts, strides, inner, inner_last } = dense.reduction;
        let blocks = (dense.dst.blocks - 2 * pair).min(2);
        let taps = dense.weights.channels * dense.weights.kernel[0] * dense.weights.kernel[1];
        let skipped = part.start * inner * counts[1] * counts[2];
        let last = part.end == counts[0];
        let reduction = Reduction {
            counts: [part.len(), counts[1], counts[2]],
            strides: [source.plane, strides[1], strides[2]],
            inner,
            inner_last: if last { inner_last } else { inner },
        };
        let (low, high) = tile::bounds(&dense.epilogue, last);
        let pitch = Pitch::of(dense.pitch, lanes);
        // SAFETY: the caller's promise, and the packed weights have `taps` steps for each pair.
        unsafe {
            let weights = match dense.gate {
                Some(_) => self.gated.add(image * dense.weights.data.len()),
                None => dense.weights.data.as_ptr(),
            };
            let weights = weights.add(pair * 2 * lanes * taps + skipped * blocks * lanes);
            let bias = dense.weights.bias.as_ptr().add(pair * 2 * lanes);
            let input = source.input.add(part.start * source.plane);
            let output = self.arena.block(&dense.dst, image, 2 * pair);
            let residual = dense.residual.as_ref().filter(|_| last);
            let residual_plane = residual.map_or(0, |view| view.plane);
            let residual = residual.map(|view| self.arena.block(view, image, 2 * pair));
            let table = dense.columns.as_ptr();
            let steps = ((part.len() - 1) * inner + reduction.inner_last) * counts[1] * counts[2];
            let following = weights.wrapping_add(steps * blocks * lanes);
            let last_image = image + 1 == self.images.end;
            for (index, place) in places.enumerate() {
                // One cache line per step: the first tiles together bring in the weights of the next sweep.
                let ahead = index * steps * LINE;
                let fetches = last_image && ahead < steps * blocks * lanes;
                let tile = Tile {
                    reduction,
                    input: input.add(place.input as usize),
                    gap: place.gap as usize,
                    weights,
                    upcoming: if fetches { following.wrapping_add(ahead) } else { weights },
                    bias: if part.start == 0 { bias } else { std::ptr::null() },
                    output: output.add(place.output as usize),
                    output_columns: table.add(place.output_columns as usize),
                    output_plane: dense.dst.plane,
                    residual: residual.map_or(std::ptr::null(), |first| first.add(place.residual as usize)),
                    residual_columns: table.add(place.residual_columns as usize),
                    residual_plane,
                    pitch: dense.pitch,
                    low,
                    high,
                };
                let columns = place.columns as usize;
                tile::run(s, pitch, blocks, columns, &tile);
                if let (Some(curve), true) = (dense.epilogue.curve, last) {
                    s.vectorize(CurveKernel { tile: &tile, columns, blocks, curve });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_weights_are_shared_by_bands_and_many_by_pairs() {
        // 64 -> 64 channels, 3x3 at 56x56: 147 KB of weights, 803 KB of input.
        assert_eq!(schedule(803 << 10, 147 << 10, [1, 224, 2], 8), Schedule { images: 1, bands: 8, pairs: 1 });
        // 512 -> 512 channels, 3x3 at 7x7: 9.4 MB of weights, 100 KB of input.
        assert_eq!(schedule(100 << 10, 9400 << 10, [4, 7, 16], 8), Schedule { images: 1, bands: 1, pairs: 8 });
        // Even a single thread gets bands that fit the cache.
        assert_eq!(schedule(3 << 20, 64 << 10, [2, 224, 2], 1), Schedule { images: 2, bands: 6, pairs: 1 });
        // Never more units than there are parts to share.
        assert_eq!(schedule(4, 400, [1, 1, 1], 8), Schedule { images: 1, bands: 1, pairs: 1 });
    }

    #[test]
    fn parts_cover_everything_once() {
        for (total, parts) in [(7, 3), (16, 16), (5, 1), (100, 7)] {
            let joined: Vec<usize> = (0..parts).flat_map(|i| part(total, parts, i)).collect();
            assert_eq!(joined, (0..total).collect::<Vec<_>>());
        }
    }

    #[test]
    fn packing_puts_each_weight_where_the_tile_reads_it() {
        let (out, channels, kernel, lanes) = (5, 3, [1, 2], 2);
        let weight: Vec<f32> = (0..out * channels * 2).map(|i| i as f32 + 1.0).collect();
        let packed = DenseWeights::pack(&weight, None, [out, channels], kernel, lanes, false);
        let at = |o: usize, i: usize, x: usize| weight[(o * channels + i) * 2 + x];
        // Pair 0 (outputs 0..4), input block 0 (inputs 0, 1), position 0, input 1.
        assert_eq!(packed.data[4..8], [at(0, 1, 0), at(1, 1, 0), at(2, 1, 0), at(3, 1, 0)]);
        // Input block 1 holds input 2 alone: positions 0 and 1 follow each other.
        assert_eq!(
            packed.data[16..24],
            [0, 1, 2, 3, 0, 1, 2, 3]
                .map(|o| at(o, 2, 0))
                .iter()
                .enumerate()
                .map(|(i, v)| if i < 4 { *v } else { at(i - 4, 2, 1) })
                .collect::<Vec<_>>()[..]
        );
        // Pair 1 has one block: output 4 and a zero.
        assert_eq!(packed.data[24..28], [at(4, 0, 0), 0.0, at(4, 1, 0), 0.0]);
    }
}
