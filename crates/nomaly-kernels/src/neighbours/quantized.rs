//! Rows rounded to bytes, the rounding error of each, and the products of such rows.
//!
//! Each row has its own step, so that its largest number becomes 127: a row far from the others is coarse itself but
//! does not make other rows coarser. Numbers are taken relative to a common centre, which changes no distance.
//!
//! Rows of the bank are packed in panels of two vectors of sums: four positions of each row of the panel, then the next
//! four. Their bytes are unsigned, with 128 for zero, because the instruction requires one unsigned factor; the sums
//! start with the negated offset. A row's largest number is 127 and not 128, and sums of [`MAX_DIM`] products stay
//! below 2^31: they are exact.

use std::ops::Range;

use rayon::prelude::*;

use super::rows::View;
use super::tile::tile_rows;
use crate::buffer::AlignedBuf;
use crate::simd::{ByteKernel, ByteToken, Bytes, Kernel, Simd, Token};

/// The longest rows that are rounded to bytes.
pub(super) const MAX_DIM: usize = 1 << 14;

/// Bytes that are multiplied in a lane at a time.
const BYTES: usize = 4;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Added to an unsigned byte.
const OFFSET: u8 = 128;

/// The largest magnitude of a byte.
const LARGEST: f64 = 127.0;

/// Rows with no number above this are rounded to zero, so that no step is too small to divide by.
const NEGLIGIBLE: f64 = 1e-30;

/// Rows whose median is the centre.
const SAMPLE: usize = 255;

/// A share of the squared lengths that exceeds the rounding of a score and its limit: a score has five roundings of at
/// most 2^-24 of its terms, which are at most `‖q̂‖² + ‖b̂‖²` and `T e`, see [`Reach`].
const SLACK: f64 = 1.0 / (1 << 20) as f64;

/// Rows of a bank as bytes.
#[derive(Clone, Debug)]
pub(super) struct Quantized {
    /// Subtracted from every row and query.
    center: Vec<f32>,
    /// `[panel][step][row of the panel][BYTES]`.
    codes: AlignedBuf,
    steps: usize,
    /// Rows of a panel.
    width: usize,
    /// The step of each row, padded with zeros to whole panels.
    scales: Vec<f32>,
    /// `(e² - ‖b̂‖²) / 2` of each row plus slack, padded with minus infinity.
    offsets: Vec<f32>,
    /// An upper bound of the rounding error `e` of each row, padded with zeros.
    errors: Vec<f32>,
}

/// Queries as bytes, in tiles of as many as the registers hold, padded with queries that match no row.
#[derive(Default)]
pub(super) struct QuantizedQueries {
    /// `[tile][step][query of the tile]`, four bytes each.
    codes: Vec<i32>,
    /// The initial value of each query's sums.
    starts: Vec<i32>,
    scales: Vec<f32>,
    /// `‖q̂‖²`.
    squares: Vec<f64>,
    errors: Vec<f64>,
    /// `T` of each query's [`Reach`] ...
    reaches: Vec<f32>,
    /// ... and the least score of a row within it.
    limits: Vec<f32>,
}

/// `count` panels: `first`, `first + step`, ….
#[derive(Clone, Copy, Debug)]
pub(super) struct Panels {
    pub(super) first: usize,
    pub(super) step: usize,
    pub(super) count: usize,
}

impl Panels {
    pub(super) fn panel(self, index: usize) -> usize {
        self.first + index * self.step
    }
}

/// A rounded row.
struct Code {
    scale: f32,
    /// The squared length of the rounded row.
    square: f64,
    /// An upper bound of its distance from the row.
    error: f64,
    /// The sum of the bytes.
    sum: i32,
}

impl Quantized {
    /// `token` must match `bytes`.
    pub(super) fn new(rows: View<'_>, token: Token, bytes: ByteToken) -> Self {
        let (lanes, _) = bytes.shape();
        let (width, steps, len) = (2 * lanes, rows.dim.div_ceil(BYTES), rows.len());
        let padded = len.next_multiple_of(width);
        let mut bank = Self {
            center: median(rows),
            codes: AlignedBuf::zeroed(padded * steps),
            steps,
            width,
            scales: vec![0.0; padded],
            offsets: vec![f32::NEG_INFINITY; padded],
            errors: vec![0.0; padded],
        };
        let Self { center, codes, scales, offsets, errors, .. } = &mut bank;
        let panels = codes.bytes_mut().par_chunks_exact_mut(width * steps * BYTES);
        let factors = scales.par_chunks_mut(width).zip(offsets.par_chunks_mut(width)).zip(errors.par_chunks_mut(width));
        panels.zip(factors).enumerate().with_min_len(8).for_each_init(
            || Encoder::new(rows.dim),
            |encoder, (panel, (codes, ((scales, offsets), errors)))| {
                for (place, row) in (panel * width..len.min((panel + 1) * width)).enumerate() {
                    let code = encoder.encode(token, rows.scaled(row), center);
                    for (step, bytes) in encoder.codes.chunks_exact(BYTES).take(steps).enumerate() {
                        let into = &mut codes[(step * width + place) * BYTES..][..BYTES];
                        into.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte.cast_unsigned() ^ OFFSET);
                    }
                    scales[place] = code.scale;
                    errors[place] = (code.error as f32).next_up();
                    let offset = 0.5 * (code.error * code.error - code.square) + SLACK * code.square;
                    offsets[place] = offset as f32;
                }
            },
        );
        bank
    }

    pub(super) fn panels(&self) -> usize {
        self.scales.len() / self.width
    }

    /// Rows of a panel.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// The rows of a panel with the padding, and their errors.
    pub(super) fn panel(&self, panel: usize) -> (Range<usize>, &[f32]) {
        let rows = panel * self.width..(panel + 1) * self.width;
        (rows.clone(), &self.errors[rows])
    }

    /// Adds the rows that [`Marks`] has marked for a query.
    pub(super) fn collect(&self, panels: Panels, marks: &[u32], found: &mut Vec<u32>) {
        for (index, &marks) in marks.iter().enumerate() {
            let mut left = marks;
            while left != 0 {
                found.push((panels.panel(index) * self.width) as u32 + left.trailing_zeros());
                left &= left - 1;
            }
        }
    }
}

/// The median of each column over evenly spread rows; distant rows do not move it.
fn median(rows: View<'_>) -> Vec<f32> {
    let count = rows.len().min(SAMPLE);
    let mut column = vec![0.0f32; count];
    let median = |position: usize| {
        for (at, value) in column.iter_mut().enumerate() {
            let (row, scale) = rows.scaled(at * rows.len() / count);
            *value = row[position] * scale;
        }
        *column.select_nth_unstable_by(count / 2, f32::total_cmp).1
    };
    (0..rows.dim).map(median).collect()
}

/// Rounds rows one at a time.
struct Encoder {
    /// The row less the centre, padded with zeros to chunks of [`LANES`].
    values: Vec<f64>,
    /// The bytes of the row, padded likewise.
    codes: Vec<i8>,
}

/// Values that are rounded at a time, with separate sums.
const LANES: usize = 16;

impl Encoder {
    fn new(dim: usize) -> Self {
        let padded = dim.next_multiple_of(LANES);
        Self { values: vec![0.0; padded], codes: vec![0; padded] }
    }

    fn encode(&mut self, token: Token, (row, factor): (&[f32], f32), center: &[f32]) -> Code {
        token.dispatch(Encode { row, factor, center, values: &mut self.values, codes: &mut self.codes })
    }
}

/// One row, scaled by `factor`.
struct Encode<'a> {
    row: &'a [f32],
    factor: f32,
    center: &'a [f32],
    values: &'a mut [f64],
    codes: &'a mut [i8],
}

impl Kernel for Encode<'_> {
    type Output = Code;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Code {
        /// Adding it to a small number leaves the nearest whole number in the lowest bits.
        const ROUNDER: f64 = 1.5 * (1u64 << 52) as f64;
        let Self { row, factor, center, values, codes } = self;
        for ((value, number), center) in values.iter_mut().zip(row).zip(center) {
            *value = f64::from(number * factor) - f64::from(*center);
        }
        let (values, _) = values.as_chunks::<LANES>();
        let (codes, _) = codes.as_chunks_mut::<LANES>();
        let mut largest = [0.0f64; LANES];
        for chunk in values {
            for (largest, value) in largest.iter_mut().zip(chunk) {
                *largest = if value.abs() > *largest { value.abs() } else { *largest };
            }
        }
        let largest = largest.into_iter().fold(0.0, f64::max);
        let scale = if largest < NEGLIGIBLE { 0.0 } else { (largest / LARGEST) as f32 };
        let (step, inverse) = (f64::from(scale), if scale == 0.0 { 0.0 } else { 1.0 / f64::from(scale) });
        let (mut squares, mut residues, mut lengths) = ([0.0f64; LANES], [0.0f64; LANES], [0.0f64; LANES]);
        let mut sums = [0i32; LANES];
        for (codes, chunk) in codes.iter_mut().zip(values) {
            for lane in 0..LANES {
                let shifted = chunk[lane] * inverse + ROUNDER;
                let whole = shifted - ROUNDER;
                let residue = chunk[lane] - step * whole;
                codes[lane] = shifted.to_bits() as i8;
                sums[lane] += i32::from(codes[lane]);
                squares[lane] += whole * whole;
                residues[lane] += residue * residue;
                lengths[lane] += chunk[lane] * chunk[lane];
            }
        }
        let sum = |lanes: [f64; LANES]| lanes.iter().sum::<f64>();
        Code {
            scale,
            square: sum(squares) * step * step,
            // Differences of f32 are rounded to 2^-53 of their size, sums of squares to much less than 1e-9.
            error: sum(residues).sqrt() * (1.0 + 1e-9) + 1e-15 * sum(lengths).sqrt(),
            sum: sums.iter().sum(),
        }
    }
}

impl QuantizedQueries {
    /// Replaces the queries; `token` must match `bytes`.
    pub(super) fn encode(&mut self, queries: View<'_>, bank: &Quantized, token: Token, bytes: ByteToken) {
        let (height, steps) = (tile_rows(bytes.shape().1), bank.steps);
        let padded = queries.len().next_multiple_of(height);
        self.codes.clear();
        self.codes.resize(padded * steps, 0);
        for values in [&mut self.squares, &mut self.errors] {
            values.clear();
        }
        self.starts.clear();
        self.scales.clear();
        let mut encoder = Encoder::new(queries.dim);
        for query in 0..queries.len() {
            let code = encoder.encode(token, queries.scaled(query), &bank.center);
            let tile = &mut self.codes[query / height * height * steps..];
            let words = encoder.codes.as_chunks::<BYTES>().0.iter();
            for (step, &[a, b, c, d]) in words.take(steps).enumerate() {
                tile[step * height + query % height] = i32::from_ne_bytes([a, b, c, d].map(i8::cast_unsigned));
            }
            self.starts.push(-i32::from(OFFSET) * code.sum);
            self.scales.push(code.scale);
            self.squares.push(code.square);
            self.errors.push(code.error);
        }
        self.starts.resize(padded, 0);
        self.scales.resize(padded, 0.0);
        self.reaches.clear();
        self.reaches.resize(padded, 0.0);
        self.limits.clear();
        self.limits.resize(padded, f32::INFINITY);
    }

    /// With padding.
    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Limits the search to rows that may be as near to the query as `square`; infinity accepts all rows.
    pub(super) fn set_reach(&mut self, query: usize, square: f64) {
        let reach = Reach::new(self.squares[query], self.errors[query], square);
        (self.reaches[query], self.limits[query]) = (reach.reach, reach.limit);
    }

    pub(super) fn reach(&self, query: usize) -> Reach {
        Reach { reach: self.reaches[query], limit: self.limits[query] }
    }
}

/// The rows that may be as near to a query as a given distance, judged by their bytes.
///
/// With `e_q` and `e` the rounding errors of query and row, a row within `√square` of the query is within `T + e`
/// after rounding, where `T = e_q + √square`: `‖q̂‖² + ‖b̂‖² - 2 q̂·b̂ <= T² + 2 T e + e²`. The
/// product is the whole number `P` times the steps of both, `s_q s P`. Halved and rearranged by dependence on the row,
/// that is `s_q s P + (e²
/// - ‖b̂‖²) / 2 + T e >= (‖q̂‖² - T²) / 2`; the left side is called the score.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// `T`.
    pub(super) reach: f32,
    pub(super) limit: f32,
}

impl Reach {
    fn new(query_square: f64, error: f64, square: f64) -> Self {
        if square == f64::INFINITY {
            return Self { reach: 0.0, limit: f32::MIN };
        }
        let reach = error + square.sqrt();
        // The last term covers subnormal results.
        let limit = 0.5 * (query_square - reach * reach)
            - SLACK * (query_square + reach * reach)
            - 16.0 * f64::from(f32::MIN_POSITIVE);
        // Padding of the bank has a score of minus infinity.
        Self { reach: (reach * (1.0 + SLACK)) as f32, limit: (limit as f32).max(f32::MIN) }
    }
}

/// The scores of all queries with the rows of some panels, without the term `T e`.
pub(super) struct Scores<'a> {
    pub(super) queries: &'a QuantizedQueries,
    pub(super) bank: &'a Quantized,
    pub(super) panels: Panels,
    /// `[queries, panels, rows of a panel]`.
    pub(super) scores: &'a mut [f32],
}

impl ByteKernel for Scores<'_> {
    type Output = ();

    #[inline(always)]
    fn run<B: Bytes>(self, bytes: B) {
        let Self { queries, bank, panels, scores } = self;
        let stride = panels.count * bank.width;
        assert!(scores.len() == queries.len() * stride);
        Work { queries, bank, panels }.run(bytes, Keep { scores, stride });
    }
}

/// Marks the rows of some panels whose scores are within the reach of a query.
pub(super) struct Marks<'a> {
    pub(super) queries: &'a QuantizedQueries,
    pub(super) bank: &'a Quantized,
    pub(super) panels: Panels,
    /// `[queries, panels]`, a bit for each row of the panel from the lowest on.
    pub(super) marks: &'a mut [u32],
}

impl ByteKernel for Marks<'_> {
    type Output = ();

    #[inline(always)]
    fn run<B: Bytes>(self, bytes: B) {
        let Self { queries, bank, panels, marks } = self;
        assert!(marks.len() == queries.len() * panels.count);
        Work { queries, bank, panels }.run(bytes, Mark { queries, marks, stride: panels.count });
    }
}

/// A consumer of scores while they are in registers. A trait, because a closure would not be compiled for the
/// instruction set.
trait Sink {
    /// Takes the scores of a query with a panel, the index of the panel within the work, and the errors of its rows.
    fn take<B: Bytes>(&mut self, bytes: B, query: usize, index: usize, scores: [<B::S as Simd>::V; 2], errors: &[f32]);
}

struct Keep<'a> {
    scores: &'a mut [f32],
    /// Scores of a query.
    stride: usize,
}

impl Sink for Keep<'_> {
    #[inline(always)]
    fn take<B: Bytes>(&mut self, bytes: B, query: usize, index: usize, scores: [<B::S as Simd>::V; 2], _: &[f32]) {
        let width = 2 * B::S::LANES;
        let to = &mut self.scores[query * self.stride + index * width..][..width];
        // SAFETY: `to` has two vectors.
        unsafe {
            bytes.simd().store(to.as_mut_ptr(), scores[0]);
            bytes.simd().store(to.as_mut_ptr().add(B::S::LANES), scores[1]);
        }
    }
}

struct Mark<'a> {
    queries: &'a QuantizedQueries,
    marks: &'a mut [u32],
    /// Marks of a query.
    stride: usize,
}

impl Sink for Mark<'_> {
    #[inline(always)]
    fn take<B: Bytes>(&mut self, bytes: B, query: usize, index: usize, scores: [<B::S as Simd>::V; 2], errors: &[f32]) {
        let simd = bytes.simd();
        assert!(errors.len() == 2 * B::S::LANES);
        let (reach, limit) = (simd.splat(self.queries.reaches[query]), simd.splat(self.queries.limits[query]));
        // SAFETY: `errors` has two vectors.
        let (low, high) = unsafe { (simd.load(errors.as_ptr()), simd.load(errors.as_ptr().add(B::S::LANES))) };
        let low = bytes.at_least(simd.fma(low, reach, scores[0]), limit);
        let high = bytes.at_least(simd.fma(high, reach, scores[1]), limit);
        self.marks[query * self.stride + index] = low | high << B::S::LANES;
    }
}

/// All queries with some panels of the bank.
struct Work<'a> {
    queries: &'a QuantizedQueries,
    bank: &'a Quantized,
    panels: Panels,
}

impl Work<'_> {
    #[inline(always)]
    fn run<B: Bytes>(self, bytes: B, sink: impl Sink) {
        // The height of the tile must be a constant of the function that holds it in registers.
        match tile_rows(B::S::COLUMNS) {
            14 => self.tiles::<B, 14>(bytes, sink),
            6 => self.tiles::<B, 6>(bytes, sink),
            4 => self.tiles::<B, 4>(bytes, sink),
            _ => self.tiles::<B, 2>(bytes, sink),
        }
    }

    #[inline(always)]
    fn tiles<B: Bytes, const M: usize>(self, bytes: B, mut sink: impl Sink) {
        let Self { queries, bank, panels } = self;
        let (simd, lanes, steps, width) = (bytes.simd(), B::S::LANES, bank.steps, 2 * B::S::LANES);
        assert!(bank.width == width && queries.len().is_multiple_of(M));
        assert!(queries.codes.len() == queries.len() * steps && queries.scales.len() == queries.len());
        for index in 0..panels.count {
            let panel = panels.panel(index);
            let rows = panel * width..(panel + 1) * width;
            let codes = &bank.codes.bytes()[rows.start * steps * BYTES..rows.end * steps * BYTES];
            let (scales, offsets) = (&bank.scales[rows.clone()], &bank.offsets[rows.clone()]);
            let errors = &bank.errors[rows];
            // Panels are not adjacent, so the hardware prefetcher cannot predict the next one.
            let next = panels.panel((index + 1).min(panels.count - 1)) * codes.len();
            let mut ahead = bank.codes.bytes()[next..].chunks(LINE).take(codes.len().div_ceil(LINE));
            let share = codes.len().div_ceil(LINE).div_ceil(queries.len() / M);
            for query in (0..queries.len()).step_by(M) {
                for line in ahead.by_ref().take(share) {
                    simd.prefetch(line.as_ptr().cast());
                }
                let words = &queries.codes[query * steps..(query + M) * steps];
                let starts = &queries.starts[query..query + M];
                // SAFETY: `words` has M words for each step, `starts` has M, and `codes` has two vectors for each step.
                let sums = unsafe { products::<B, M>(bytes, steps, starts.as_ptr(), words.as_ptr(), codes.as_ptr()) };
                for m in 0..M {
                    let factor = simd.splat(queries.scales[query + m]);
                    // SAFETY: `scales` and `offsets` have two vectors.
                    let (low, high) = unsafe {
                        let (scale, offset) = (simd.load(scales.as_ptr()), simd.load(offsets.as_ptr()));
                        let (next, next_offset) =
                            (simd.load(scales.as_ptr().add(lanes)), simd.load(offsets.as_ptr().add(lanes)));
                        (
                            simd.fma(simd.mul(bytes.to_f32(sums[m][0]), scale), factor, offset),
                            simd.fma(simd.mul(bytes.to_f32(sums[m][1]), next), factor, next_offset),
                        )
                    };
                    sink.take(bytes, query + m, index, [low, high], errors);
                }
            }
        }
    }
}

/// The products of M queries with the rows of a panel.
///
/// # Safety
/// `starts` must be valid for reading M words, `queries` for `M · steps`, and `bank` for `2 · LANES · steps`.
#[inline(always)]
unsafe fn products<B: Bytes, const M: usize>(
    bytes: B,
    steps: usize,
    starts: *const i32,
    queries: *const i32,
    bank: *const u8,
) -> [[B::I; 2]; M] {
    let mut sums = [[bytes.splat(0); 2]; M];
    // SAFETY: every offset below stays within what the caller promises.
    unsafe {
        for m in 0..M {
            sums[m] = [bytes.splat(*starts.add(m)); 2];
        }
        let (mut query, mut row) = (queries, bank);
        for _ in 0..steps {
            let (low, high) = (bytes.load(row), bytes.load(row.add(BYTES * B::S::LANES)));
            for m in 0..M {
                let word = bytes.splat(*query.add(m));
                sums[m] = [bytes.dot(sums[m][0], low, word), bytes.dot(sums[m][1], high, word)];
            }
            query = query.add(M);
            row = row.add(2 * BYTES * B::S::LANES);
        }
    }
    sums
}
