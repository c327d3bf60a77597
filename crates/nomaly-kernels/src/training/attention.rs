//! Multi-head scaled dot-product attention (Vaswani et al. 2017, section 3.2), with rotary position embedding (Su et
//! al. 2021), and its gradients.
//!
//! **The problem.** The scores of all pairs of tokens are many times larger than queries, keys and values. Computed
//! step by step over a whole batch, they pass through memory for each of scaling, softmax and product, in both
//! directions.
//!
//! **The design.** A unit of work is one head of one image. It copies its queries, keys and values into its cache
//! (where rotation and scaling cost nothing extra), packs keys and values for the register tile of
//! [`matrix`](super::matrix), and takes the queries block by block: scores, softmax and the product with the values all
//! stay in the second-level cache, [`SCORES`] values at a time. Scores of a row are complete before the softmax, so
//! nothing is rescaled afterwards. The backward pass computes the probabilities again instead of reading them from
//! memory, as FlashAttention does (Dao et al. 2022), which is one of its five products.

use std::ops::Range;

use crate::isa::Isa;
use crate::neighbours::tile::{pack_panels, tile_rows};
use crate::parallel::for_each;
use crate::simd::{Kernel, Simd, Token};

use super::error::{TrainingError, expect, positive, samples, values};
use super::matrix::{Left, Product, pack_rows};
use super::memory::{Shared, threads_for, with_scratch};
use super::softmax::exponentials;
use super::vectors::{map_vectors, sum_vectors};

/// Scores that are held at a time, of each kind.
const SCORES: usize = 48 << 10;

/// The sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttentionShape {
    /// Heads.
    pub heads: usize,
    /// Tokens of an image.
    pub tokens: usize,
    /// Values of a query, a key or a value of one head.
    pub head_dim: usize,
}

/// Queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub enum Qkv<'a> {
    /// `[N, tokens, 3 * heads * head_dim]`, as one linear layer computes them: of each token first the queries of all
    /// heads, then the keys, then the values.
    Packed(&'a [f32]),
    /// `[N, heads, tokens, head_dim]` each.
    Separate {
        /// Queries.
        queries: &'a [f32],
        /// Keys.
        keys: &'a [f32],
        /// Values.
        values: &'a [f32],
    },
}

/// Destinations of the gradients of queries, keys and values.
#[derive(Debug)]
pub enum QkvGradient<'a> {
    /// As [`Qkv::Packed`].
    Packed(&'a mut [f32]),
    /// As [`Qkv::Separate`].
    Separate {
        /// Of the queries.
        queries: &'a mut [f32],
        /// Of the keys.
        keys: &'a mut [f32],
        /// Of the values.
        values: &'a mut [f32],
    },
}

/// Rotary position embedding: pairs of values of each query and key are rotated by the angles of their token, the same
/// in every head.
///
/// A token without position has cosines of 1 and sines of 0.
#[derive(Clone, Copy, Debug)]
pub struct Rotary<'a> {
    /// Cosine of the angle of each pair, `[tokens, head_dim / 2]`.
    pub cos: &'a [f32],
    /// Sine of the angle of each pair, `[tokens, head_dim / 2]`.
    pub sin: &'a [f32],
    /// Which values are a pair.
    pub pairs: RotaryPairs,
}

/// Which values of a query or key [`Rotary`] rotates together: `(a, b)` becomes `(a cos - b sin, b cos + a sin)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RotaryPairs {
    /// Pair i is 2i and 2i + 1.
    Adjacent,
    /// Pair i is i and i + head_dim / 2.
    Halves,
}

/// `softmax(queries keysᵀ · scale) values` of each head of each image.
///
/// ```
/// use nomaly_kernels::isa::Isa;
/// use nomaly_kernels::training::{Attention, AttentionShape, Qkv};
///
/// let shape = AttentionShape { heads: 1, tokens: 2, head_dim: 1 };
/// let attention = Attention::new(Isa::best()?, shape)?;
/// let mut output = [0.0; 2];
/// // Queries of zero attend to both tokens alike.
/// attention.forward(Qkv::Packed(&[0.0, 1.0, 3.0, 0.0, 7.0, 5.0]), None, &mut output)?;
/// assert_eq!(output, [4.0, 4.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Attention {
    token: Token,
    shape: AttentionShape,
    scale: f32,
    sizes: Sizes,
    /// Factors of rows that are packed unchanged.
    ones: Vec<f32>,
}

/// Sizes of working memory.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Columns of a panel.
    width: usize,
    /// Queries of a block; a multiple of the height of a tile.
    block: usize,
    /// Tokens, rounded up to whole tiles.
    rows: usize,
    /// Tokens, rounded up to whole panels.
    keys: usize,
    /// `head_dim`, rounded up to whole panels.
    dim: usize,
    /// Distance between the scores of consecutive queries: at least `rows` and `keys`.
    step: usize,
}

impl Attention {
    /// Plans for a shape, with the scale `1 / sqrt(head_dim)`.
    ///
    /// # Errors
    /// For an instruction set that this processor does not have, sizes of zero, and tensors too large for memory.
    pub fn new(isa: Isa, shape: AttentionShape) -> Result<Self, TrainingError> {
        let token = Token::new(isa)?;
        let AttentionShape { heads, tokens, head_dim } = shape;
        positive(&[
            ("the number of heads", heads),
            ("the number of tokens", tokens),
            ("the values of a head", head_dim),
        ])?;
        values("the queries, keys and values", &[3, heads, tokens, head_dim, size_of::<f32>()])?;
        // The scores of the smallest block, whose tiles and panels round up to no more than these.
        values("the scores", &[tokens.saturating_add(64), 64, size_of::<f32>()])?;
        let (width, height) = (2 * isa.lanes(), tile_rows(token.columns()));
        let (rows, keys) = (tokens.next_multiple_of(height), tokens.next_multiple_of(width));
        let step = rows.max(keys);
        let block = (SCORES / step / height * height).clamp(height, rows);
        let sizes = Sizes { width, block, rows, keys, dim: head_dim.next_multiple_of(width), step };
        Ok(Self { token, shape, scale: (1.0 / (head_dim as f64).sqrt()) as f32, sizes, ones: vec![1.0; tokens] })
    }

    /// The same attention with another scale.
    #[must_use]
    pub fn with_scale(self, scale: f32) -> Self {
        Self { scale, ..self }
    }

    /// Writes `[N, tokens, heads * head_dim]`.
    ///
    /// # Errors
    /// If the length of a slice does not match the shape and the batch.
    pub fn forward(&self, qkv: Qkv<'_>, rotary: Option<Rotary<'_>>, output: &mut [f32]) -> Result<(), TrainingError> {
        let images = self.check(&qkv, rotary)?;
        expect("the output", output.len(), images * self.image_len())?;
        let AttentionShape { heads, tokens, head_dim } = self.shape;
        let Sizes { block, rows, keys, dim, step, .. } = self.sizes;
        let output = Shared::new(output);
        let lens =
            [rows * head_dim, keys * head_dim, dim * tokens, tokens * head_dim, block * step, block * dim, block];
        for_each(images * heads, threads_for(images * self.flops(2)), |unit| {
            with_scratch(lens.iter().sum(), |scratch| {
                let [queries, packed_keys, packed_values, copy, scores, results, sums] = parts(scratch, lens);
                let place = self.place(unit);
                self.copy_queries(&qkv, place, rotary, queries);
                self.copy(&qkv, Part::Keys, place, rotary, copy);
                self.pack_transposed(copy, packed_keys);
                self.copy(&qkv, Part::Values, place, None, copy);
                pack_rows(copy, head_dim, self.sizes.width, packed_values);
                for start in (0..tokens).step_by(block) {
                    let range = start..(start + block).min(tokens);
                    self.scores(queries, range.clone(), packed_keys, scores);
                    self.token.dispatch(Exponentials { scores, step, tokens, sums: &mut sums[..range.len()] });
                    self.product(scores, false, range.len(), packed_values, tokens, results, false);
                    let kernel = WriteRows {
                        rows: results,
                        step: dim,
                        factors: sums,
                        to: output,
                        place: self.output_place(place, range),
                        head_dim,
                    };
                    self.token.dispatch(kernel);
                }
            });
        });
        Ok(())
    }

    /// Computes the gradients of queries, keys and values from that of the output, `[N, tokens, heads * head_dim]`.
    ///
    /// # Errors
    /// If the length of a slice does not match the shape and the batch, or the gradients are not laid out as `qkv`.
    pub fn backward(
        &self,
        qkv: Qkv<'_>,
        rotary: Option<Rotary<'_>>,
        output_gradient: &[f32],
        gradient: QkvGradient<'_>,
    ) -> Result<(), TrainingError> {
        let images = self.check(&qkv, rotary)?;
        expect("the gradient of the output", output_gradient.len(), images * self.image_len())?;
        let to = self.destinations(gradient, images)?;
        let AttentionShape { heads, tokens, head_dim } = self.shape;
        let Sizes { width, block, rows, keys, dim, step } = self.sizes;
        // Queries and their gradient in this block, the keys and values packed in the ways of the products, the sums of
        // their gradients, and the scores twice.
        let lens = [
            rows * head_dim,
            keys * head_dim,
            keys * head_dim,
            dim * tokens,
            tokens * head_dim,
            block * head_dim,
            dim * block,
            block * dim,
            rows * dim,
            rows * dim,
            block * step,
            block * step,
            block,
        ];
        for_each(images * heads, threads_for(images * self.flops(5)), |unit| {
            with_scratch(lens.iter().sum(), |scratch| {
                let [
                    queries,
                    keys_across,
                    values_across,
                    packed_keys,
                    copy,
                    above,
                    packed,
                    by_queries,
                    by_keys,
                    by_values,
                    scores,
                    by_scores,
                    sums,
                ] = parts(scratch, lens);
                let place = self.place(unit);
                self.copy_queries(&qkv, place, rotary, queries);
                self.copy(&qkv, Part::Values, place, None, copy);
                self.pack_transposed(copy, values_across);
                self.copy(&qkv, Part::Keys, place, rotary, copy);
                self.pack_transposed(copy, keys_across);
                pack_rows(copy, head_dim, width, packed_keys);
                for start in (0..tokens).step_by(block) {
                    let range = start..(start + block).min(tokens);
                    let count = range.len();
                    let whole = count.next_multiple_of(tile_rows(self.token.columns()));
                    let from = self.output_place(place, range.clone());
                    for (row, to) in above[..count * head_dim].chunks_exact_mut(head_dim).enumerate() {
                        to.copy_from_slice(&output_gradient[from.start + row * from.step..][..head_dim]);
                    }
                    above[count * head_dim..whole * head_dim].fill(0.0);

                    self.scores(queries, range.clone(), keys_across, scores);
                    self.token.dispatch(Exponentials { scores, step, tokens, sums: &mut sums[..count] });
                    let left = Left { values: above, row_step: head_dim, transposed: false };
                    let (right, result) = (&*values_across, &mut *by_scores);
                    let product =
                        Product { left, right, rows: whole, depth: head_dim, columns: keys, result, step, add: false };
                    self.token.dispatch(product);
                    self.token.dispatch(SoftmaxBackward { scores, by_scores, step, tokens, sums: &sums[..count] });

                    let add = start > 0;
                    let packed = &mut packed[..dim * count];
                    pack_rows(&above[..count * head_dim], head_dim, width, packed);
                    self.product(scores, true, rows, packed, count, by_values, add);
                    pack_rows(&queries[start * head_dim..range.end * head_dim], head_dim, width, packed);
                    self.product(by_scores, true, rows, packed, count, by_keys, add);
                    self.product(by_scores, false, count, packed_keys, tokens, by_queries, false);
                    // The scores are products of scaled queries.
                    self.write(by_queries, to[0], place, range, rotary, self.scale);
                }
                self.write(by_keys, to[1], place, 0..tokens, rotary, 1.0);
                self.write(by_values, to[2], place, 0..tokens, None, 1.0);
            });
        });
        Ok(())
    }

    /// Values of an image in the output, and in each of queries, keys and values.
    fn image_len(&self) -> usize {
        self.shape.heads * self.shape.tokens * self.shape.head_dim
    }

    /// Multiplications and additions for one image with this many products of the size of the scores.
    fn flops(&self, products: usize) -> usize {
        (2 * products * self.shape.tokens).saturating_mul(self.image_len())
    }

    /// Checks the lengths of the operands, and returns the number of images.
    fn check(&self, qkv: &Qkv<'_>, rotary: Option<Rotary<'_>>) -> Result<usize, TrainingError> {
        let AttentionShape { tokens, head_dim, .. } = self.shape;
        if let Some(Rotary { cos, sin, .. }) = rotary {
            samples("the values of a head that are rotated", head_dim, 2)?;
            expect("the cosines", cos.len(), tokens * (head_dim / 2))?;
            expect("the sines", sin.len(), tokens * (head_dim / 2))?;
        }
        match qkv {
            Qkv::Packed(all) => samples("the queries, keys and values", all.len(), 3 * self.image_len()),
            Qkv::Separate { queries, keys, values } => {
                expect("the keys", keys.len(), queries.len())?;
                expect("the values", values.len(), queries.len())?;
                samples("the queries", queries.len(), self.image_len())
            }
        }
    }

    /// Where the gradients of queries, keys and values of an image and head go.
    fn destinations(&self, gradient: QkvGradient<'_>, images: usize) -> Result<[(Shared, Layout); 3], TrainingError> {
        let len = images * self.image_len();
        match gradient {
            QkvGradient::Packed(all) => {
                expect("the gradient of queries, keys and values", all.len(), 3 * len)?;
                let all = Shared::new(all);
                Ok([Part::Queries, Part::Keys, Part::Values].map(|part| (all, self.packed(part))))
            }
            QkvGradient::Separate { queries, keys, values } => {
                expect("the gradient of the queries", queries.len(), len)?;
                expect("the gradient of the keys", keys.len(), len)?;
                expect("the gradient of the values", values.len(), len)?;
                Ok([queries, keys, values].map(|slice| (Shared::new(slice), self.separate())))
            }
        }
    }

    fn packed(&self, part: Part) -> Layout {
        let AttentionShape { heads, tokens, head_dim } = self.shape;
        let row = 3 * heads * head_dim;
        Layout { start: part as usize * heads * head_dim, image: tokens * row, head: head_dim, token: row }
    }

    fn separate(&self) -> Layout {
        let AttentionShape { tokens, head_dim, .. } = self.shape;
        Layout { start: 0, image: self.image_len(), head: tokens * head_dim, token: head_dim }
    }

    fn place(&self, unit: usize) -> Place {
        Place { image: unit / self.shape.heads, head: unit % self.shape.heads }
    }

    /// Where some tokens of one head are in the output.
    fn output_place(&self, Place { image, head }: Place, tokens: Range<usize>) -> OutputPlace {
        let AttentionShape { heads, head_dim, .. } = self.shape;
        let step = heads * head_dim;
        let start = image * self.image_len() + tokens.start * step + head * head_dim;
        OutputPlace { start, step, count: tokens.len() }
    }

    /// Copies one of queries, keys and values of one head, rotated.
    fn copy(&self, qkv: &Qkv<'_>, part: Part, place: Place, rotary: Option<Rotary<'_>>, to: &mut [f32]) {
        let (from, layout) = match (qkv, part) {
            (Qkv::Packed(all), part) => (*all, self.packed(part)),
            (Qkv::Separate { queries, .. }, Part::Queries) => (*queries, self.separate()),
            (Qkv::Separate { keys, .. }, Part::Keys) => (*keys, self.separate()),
            (Qkv::Separate { values, .. }, Part::Values) => (*values, self.separate()),
        };
        let head_dim = self.shape.head_dim;
        for (token, to) in to.chunks_exact_mut(head_dim).enumerate() {
            let from = &from[layout.at(place, token)..][..head_dim];
            match rotary {
                Some(rotary) => rotary.rotate(token, Direction::Forward, from, to),
                None => to.copy_from_slice(from),
            }
        }
    }

    /// Copies the queries of one head, rotated and scaled, with zeros behind them.
    fn copy_queries(&self, qkv: &Qkv<'_>, place: Place, rotary: Option<Rotary<'_>>, to: &mut [f32]) {
        let (to, rest) = to.split_at_mut(self.shape.tokens * self.shape.head_dim);
        self.copy(qkv, Part::Queries, place, rotary, to);
        to.iter_mut().for_each(|value| *value *= self.scale);
        rest.fill(0.0);
    }

    /// Packs keys or values for products with their transpose.
    fn pack_transposed(&self, rows: &[f32], packed: &mut [f32]) {
        let dim = self.shape.head_dim;
        pack_panels(self.token, rows, &self.ones, dim, dim, self.sizes.width, packed);
    }

    /// The scores of some queries.
    fn scores(&self, queries: &[f32], range: Range<usize>, keys_across: &[f32], scores: &mut [f32]) {
        let (dim, Sizes { keys, step, .. }) = (self.shape.head_dim, self.sizes);
        let rows = range.len().next_multiple_of(tile_rows(self.token.columns()));
        let left = Left { values: &queries[range.start * dim..], row_step: dim, transposed: false };
        let product =
            Product { left, right: keys_across, rows, depth: dim, columns: keys, result: scores, step, add: false };
        self.token.dispatch(product);
    }

    /// The product of scores, or of their transpose, with rows of a head.
    fn product(
        &self,
        scores: &[f32],
        transposed: bool,
        rows: usize,
        right: &[f32],
        depth: usize,
        result: &mut [f32],
        add: bool,
    ) {
        let rows = rows.next_multiple_of(tile_rows(self.token.columns()));
        let left = Left { values: scores, row_step: self.sizes.step, transposed };
        let (columns, step) = (self.sizes.dim, self.sizes.dim);
        self.token.dispatch(Product { left, right, rows, depth, columns, result, step, add });
    }

    /// Writes the gradients of some tokens, rotated back.
    fn write(
        &self,
        rows: &[f32],
        (to, layout): (Shared, Layout),
        place: Place,
        tokens: Range<usize>,
        rotary: Option<Rotary<'_>>,
        factor: f32,
    ) {
        let head_dim = self.shape.head_dim;
        for (row, token) in rows.chunks_exact(self.sizes.dim).zip(tokens) {
            // SAFETY: no other unit has this head of this image, and the destinations do not overlap.
            let to = unsafe { std::slice::from_raw_parts_mut(to.at(layout.at(place, token), head_dim), head_dim) };
            match rotary {
                Some(rotary) => rotary.rotate(token, Direction::Backward, &row[..head_dim], to),
                None => to.copy_from_slice(&row[..head_dim]),
            }
            to.iter_mut().for_each(|value| *value *= factor);
        }
    }
}

#[derive(Clone, Copy)]
enum Part {
    Queries,
    Keys,
    Values,
}

/// One head of one image.
#[derive(Clone, Copy)]
struct Place {
    image: usize,
    head: usize,
}

/// Where the values of an image, a head and a token begin.
#[derive(Clone, Copy)]
struct Layout {
    start: usize,
    image: usize,
    head: usize,
    token: usize,
}

impl Layout {
    fn at(&self, place: Place, token: usize) -> usize {
        self.start + place.image * self.image + place.head * self.head + token * self.token
    }
}

/// Rows of the output that belong to some tokens of a head.
#[derive(Clone, Copy)]
struct OutputPlace {
    start: usize,
    step: usize,
    count: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

impl Rotary<'_> {
    /// Rotates the pairs of one token, or back.
    fn rotate(&self, token: usize, direction: Direction, from: &[f32], to: &mut [f32]) {
        let half = from.len() / 2;
        let (cos, sin) = (&self.cos[token * half..][..half], &self.sin[token * half..][..half]);
        let sign = if direction == Direction::Forward { 1.0 } else { -1.0 };
        match self.pairs {
            RotaryPairs::Halves => {
                let ((a, b), (to_a, to_b)) = (from.split_at(half), to.split_at_mut(half));
                for i in 0..half {
                    to_a[i] = a[i] * cos[i] - b[i] * (sign * sin[i]);
                    to_b[i] = b[i] * cos[i] + a[i] * (sign * sin[i]);
                }
            }
            RotaryPairs::Adjacent => {
                for (i, (from, to)) in from.chunks_exact(2).zip(to.chunks_exact_mut(2)).enumerate() {
                    to[0] = from[0] * cos[i] - from[1] * (sign * sin[i]);
                    to[1] = from[1] * cos[i] + from[0] * (sign * sin[i]);
                }
            }
        }
    }
}

/// Cuts working memory.
fn parts<const K: usize>(scratch: &mut [f32], lens: [usize; K]) -> [&mut [f32]; K] {
    let mut rest = scratch;
    lens.map(|len| {
        let (part, behind) = std::mem::take(&mut rest).split_at_mut(len);
        rest = behind;
        part
    })
}

/// Replaces scores by exponentials of their difference from the greatest of the row, and writes 1 / Σ of each row.
struct Exponentials<'a> {
    scores: &'a mut [f32],
    step: usize,
    tokens: usize,
    sums: &'a mut [f32],
}

impl Kernel for Exponentials<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (row, sum) in self.scores.chunks_exact_mut(self.step).zip(self.sums) {
            let to = row[..self.tokens].as_mut_ptr();
            // SAFETY: the exponentials replace the scores of the row.
            *sum = unsafe { 1.0 / exponentials(s, to, to, self.tokens) } as f32;
        }
    }
}

/// Turns exponentials into probabilities p and the gradients g of probabilities into those of scores, p (g - Σ p g).
struct SoftmaxBackward<'a> {
    scores: &'a mut [f32],
    by_scores: &'a mut [f32],
    step: usize,
    tokens: usize,
    /// 1 / Σ of the exponentials of each row.
    sums: &'a [f32],
}

impl Kernel for SoftmaxBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = self.scores.chunks_exact_mut(self.step).zip(self.by_scores.chunks_exact_mut(self.step));
        for ((scores, by_scores), factor) in rows.zip(self.sums) {
            let (scores, by_scores) = (&mut scores[..self.tokens], &mut by_scores[..self.tokens]);
            let from = [scores.as_mut_ptr().cast_const(), by_scores.as_mut_ptr().cast_const()];
            let to = [from[0].cast_mut(), from[1].cast_mut()];
            // SAFETY: both rows have as many values as there are tokens.
            unsafe {
                let [product] = sum_vectors(s, from, self.tokens, |[p, g]| [s.mul(p, g)]);
                let product = s.splat(product as f32 * factor);
                let factor = s.splat(*factor);
                map_vectors(s, from, to, self.tokens, |[p, g]| {
                    let p = s.mul(p, factor);
                    [p, s.mul(p, s.sub(g, product))]
                });
            }
        }
    }
}

/// Writes rows times their factors to the output.
struct WriteRows<'a> {
    rows: &'a [f32],
    step: usize,
    factors: &'a [f32],
    to: Shared,
    place: OutputPlace,
    head_dim: usize,
}

impl Kernel for WriteRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let OutputPlace { start, step, count } = self.place;
        for (row, (values, factor)) in self.rows.chunks_exact(self.step).zip(self.factors).take(count).enumerate() {
            let factor = s.splat(*factor);
            // SAFETY: no other unit has this head of these tokens.
            unsafe {
                let to = self.to.at(start + row * step, self.head_dim);
                map_vectors(s, [values.as_ptr()], [to], self.head_dim, |[x]| [s.mul(x, factor)]);
            }
        }
    }
}
