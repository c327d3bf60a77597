//! Attention against loops in double precision.

use nomaly_kernels::Isa;
use nomaly_kernels::training::{Attention, AttentionShape, Qkv, QkvGradient, Rotary, RotaryPairs, TrainingError};

use super::{numeric_gradient, on_every_isa, wide};
use crate::oracle::{assert_close, values};

/// Cosines and sines of the angles of each token.
#[derive(Clone, Debug)]
struct Angles {
    cos: Vec<f32>,
    sin: Vec<f32>,
    pairs: RotaryPairs,
}

impl Angles {
    fn new(shape: AttentionShape, pairs: RotaryPairs) -> Self {
        let angles = values(shape.tokens * (shape.head_dim / 2), 9);
        let [cos, sin] = [f32::cos, f32::sin].map(|f| angles.iter().map(|angle| f(3.0 * angle)).collect());
        Self { cos, sin, pairs }
    }

    fn rotary(&self) -> Rotary<'_> {
        Rotary { cos: &self.cos, sin: &self.sin, pairs: self.pairs }
    }

    /// Rotates a row, or back.
    fn rotate(&self, token: usize, row: &[f64], sign: f64) -> Vec<f64> {
        let half = row.len() / 2;
        let mut result = row.to_vec();
        for i in 0..half {
            let [a, b] = match self.pairs {
                RotaryPairs::Adjacent => [2 * i, 2 * i + 1],
                RotaryPairs::Halves => [i, i + half],
            };
            let [cos, sin] = [&self.cos, &self.sin].map(|table| f64::from(table[token * half + i]));
            result[a] = row[a] * cos - row[b] * sin * sign;
            result[b] = row[b] * cos + row[a] * sin * sign;
        }
        result
    }
}

/// Queries, keys and values of one head, rotated, and the probabilities.
struct Head {
    rows: [Vec<Vec<f64>>; 3],
    probabilities: Vec<Vec<f64>>,
    scale: f64,
}

impl Head {
    fn new(operands: [&[f64]; 3], dim: usize, angles: Option<&Angles>) -> Self {
        let scale = 1.0 / (dim as f64).sqrt();
        let rotated = |values: &[f64]| -> Vec<Vec<f64>> {
            let rows = values.chunks(dim).enumerate();
            rows.map(|(token, row)| angles.map_or(row.to_vec(), |angles| angles.rotate(token, row, 1.0))).collect()
        };
        let plain = operands[2].chunks(dim).map(<[f64]>::to_vec).collect();
        let rows = [rotated(operands[0]), rotated(operands[1]), plain];
        let probabilities = rows[0].iter().map(|query| {
            let exponentials: Vec<f64> = rows[1].iter().map(|key| (scale * product(query, key)).exp()).collect();
            let sum: f64 = exponentials.iter().sum();
            exponentials.iter().map(|exponential| exponential / sum).collect()
        });
        Self { probabilities: probabilities.collect(), rows, scale }
    }

    fn output(&self) -> Vec<f64> {
        self.probabilities.iter().flat_map(|p| combine(p, &self.rows[2])).collect()
    }

    /// The gradients of queries, keys and values.
    fn gradients(&self, output_gradient: &[f64], angles: Option<&Angles>) -> [Vec<f64>; 3] {
        let tokens = self.probabilities.len();
        let above: Vec<&[f64]> = output_gradient.chunks(output_gradient.len() / tokens).collect();
        let by_scores: Vec<Vec<f64>> = (0..tokens)
            .map(|i| {
                let p = &self.probabilities[i];
                let by_p: Vec<f64> = self.rows[2].iter().map(|value| product(above[i], value)).collect();
                let mean = product(p, &by_p);
                p.iter().zip(&by_p).map(|(p, g)| p * (g - mean) * self.scale).collect()
            })
            .collect();
        let column = |matrix: &[Vec<f64>], j: usize| -> Vec<f64> { matrix.iter().map(|row| row[j]).collect() };
        let above: Vec<Vec<f64>> = above.iter().map(|row| row.to_vec()).collect();
        let back = |token: usize, row: Vec<f64>| angles.map_or(row.clone(), |angles| angles.rotate(token, &row, -1.0));
        let each = |f: &dyn Fn(usize) -> Vec<f64>| (0..tokens).flat_map(f).collect::<Vec<f64>>();
        [
            each(&|i| back(i, combine(&by_scores[i], &self.rows[1]))),
            each(&|j| back(j, combine(&column(&by_scores, j), &self.rows[0]))),
            each(&|j| combine(&column(&self.probabilities, j), &above)),
        ]
    }
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn combine(weights: &[f64], rows: &[Vec<f64>]) -> Vec<f64> {
    (0..rows[0].len()).map(|c| weights.iter().zip(rows).map(|(weight, row)| weight * row[c]).sum()).collect()
}

/// From `[N, heads, tokens, d]` to `[N, tokens, heads, d]`, or back with `heads` and `tokens` exchanged.
fn exchange<T: Copy>(values: &[T], heads: usize, tokens: usize, dim: usize) -> Vec<T> {
    let mut result = Vec::new();
    for image in values.chunks(heads * tokens * dim) {
        for token in 0..tokens {
            for head in 0..heads {
                result.extend_from_slice(&image[(head * tokens + token) * dim..][..dim]);
            }
        }
    }
    result
}

/// `[N, tokens, 3 * heads * d]` of three times `[N, heads, tokens, d]`.
fn interleave(operands: &[Vec<f32>; 3], shape: AttentionShape) -> Vec<f32> {
    let AttentionShape { heads, tokens, head_dim } = shape;
    let row = heads * head_dim;
    let operands = operands.each_ref().map(|operand| exchange(operand, heads, tokens, head_dim));
    let rows = operands[0].len() / row;
    (0..rows).flat_map(|i| operands.iter().flat_map(move |operand| operand[i * row..(i + 1) * row].to_vec())).collect()
}

fn check(images: usize, shape: AttentionShape, angles: Option<&Angles>) {
    let AttentionShape { heads, tokens, head_dim } = shape;
    let head_len = tokens * head_dim;
    let len = images * heads * head_len;
    // Large enough for probabilities that differ.
    let operands = [1, 2, 3].map(|seed| values(len, seed).iter().map(|v| 2.0 * v).collect::<Vec<f32>>());
    let above = values(len, 4);
    let above_heads = wide(&exchange(&above, tokens, heads, head_dim));
    let wide_operands = operands.each_ref().map(|operand| wide(operand));
    let (mut output, mut gradients) = (Vec::new(), [const { Vec::new() }; 3]);
    for start in (0..len).step_by(head_len) {
        let part = wide_operands.each_ref().map(|operand| &operand[start..start + head_len]);
        let head = Head::new(part, head_dim, angles);
        output.extend(head.output());
        let above = &above_heads[start..start + head_len];
        let by_operands = head.gradients(above, angles);
        if head_len < 20 && start == 0 {
            for which in 0..3 {
                let numeric = numeric_gradient(part[which], |x| {
                    let mut part = part;
                    part[which] = x;
                    product(above, &Head::new(part, head_dim, angles).output())
                });
                assert!(numeric.iter().zip(&by_operands[which]).all(|(a, b)| (a - b).abs() < 1e-7), "{shape:?}");
            }
        }
        for (all, one) in gradients.iter_mut().zip(by_operands) {
            all.extend(one);
        }
    }
    let output = exchange(&output, heads, tokens, head_dim);

    on_every_isa(
        |isa| {
            let attention = Attention::new(isa, shape).unwrap();
            let rotary = angles.map(Angles::rotary);
            let [queries, keys, values] = &operands;
            let separate = Qkv::Separate { queries, keys, values };
            let mut y = vec![f32::NAN; len];
            attention.forward(separate, rotary, &mut y).unwrap();
            let mut by_operands = [(); 3].map(|()| vec![f32::NAN; len]);
            let [queries, keys, values] = &mut by_operands;
            let destinations = QkvGradient::Separate { queries, keys, values };
            attention.backward(separate, rotary, &above, destinations).unwrap();

            let packed = interleave(&operands, shape);
            let (mut same, mut by_packed) = (vec![f32::NAN; len], vec![f32::NAN; 3 * len]);
            attention.forward(Qkv::Packed(&packed), rotary, &mut same).unwrap();
            assert!(same == y, "{isa} {shape:?}: the layout changes the output");
            attention.backward(Qkv::Packed(&packed), rotary, &above, QkvGradient::Packed(&mut by_packed)).unwrap();
            assert!(by_packed == interleave(&by_operands, shape), "{isa} {shape:?}: the layout changes the gradients");
            (y, by_operands)
        },
        |isa, (y, by_operands)| {
            let what = (isa, images, shape, angles.map(|angles| angles.pairs));
            assert_close(y, &output, 4e-6, &what);
            for (got, want) in by_operands.iter().zip(&gradients) {
                // Each is a sum of one term for each token.
                assert_close(got, want, 3e-6 * (tokens as f64).sqrt() + 1e-5, &what);
            }
        },
    );
}

#[test]
fn values_and_gradients() {
    for (images, heads, tokens, head_dim) in
        [(1, 1, 1, 1), (2, 1, 3, 2), (1, 2, 4, 4), (2, 3, 17, 6), (1, 2, 42, 33), (2, 2, 33, 64)]
    {
        let shape = AttentionShape { heads, tokens, head_dim };
        check(images, shape, None);
        if head_dim.is_multiple_of(2) {
            for pairs in [RotaryPairs::Adjacent, RotaryPairs::Halves] {
                check(images, shape, Some(&Angles::new(shape, pairs)));
            }
        }
    }
}

#[test]
fn several_blocks_of_queries() {
    check(1, AttentionShape { heads: 2, tokens: 301, head_dim: 8 }, None);
}

#[test]
fn a_scale_of_zero_averages_the_values() {
    let shape = AttentionShape { heads: 1, tokens: 3, head_dim: 2 };
    for isa in Isa::available() {
        let attention = Attention::new(isa, shape).unwrap().with_scale(0.0);
        let (operand, mut output) = ([5.0, 1.0, 2.0, 2.0, -1.0, 3.0], [0.0; 6]);
        let qkv = Qkv::Separate { queries: &operand, keys: &operand, values: &operand };
        attention.forward(qkv, None, &mut output).unwrap();
        assert_close(&output, &[2.0; 6], 1e-6, &isa);
    }
}

#[test]
fn shapes_are_checked() {
    let shape = AttentionShape { heads: 2, tokens: 3, head_dim: 2 };
    let attention = Attention::new(Isa::Portable, shape).unwrap();
    let error = attention.forward(Qkv::Packed(&[0.0; 37]), None, &mut [0.0; 12]).unwrap_err();
    assert_eq!(error, TrainingError::Batch { what: "the queries, keys and values", each: 36, found: 37 });
    let qkv = Qkv::Packed(&[0.0; 36]);
    let error = attention.forward(qkv, None, &mut [0.0; 11]).unwrap_err();
    assert_eq!(error, TrainingError::Length { what: "the output", expected: 12, found: 11 });
    let rotary = Rotary { cos: &[1.0; 3], sin: &[0.0; 2], pairs: RotaryPairs::Halves };
    let error = attention.forward(qkv, Some(rotary), &mut [0.0; 12]).unwrap_err();
    assert_eq!(error, TrainingError::Length { what: "the sines", expected: 3, found: 2 });
    let error = Attention::new(Isa::Portable, AttentionShape { heads: 0, ..shape }).unwrap_err();
    assert_eq!(error, TrainingError::ZeroSize { what: "the number of heads" });
}
