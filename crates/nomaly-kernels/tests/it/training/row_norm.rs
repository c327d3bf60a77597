//! Layer norm, group norm and instance norm.

use nomaly_kernels::Isa;
use nomaly_kernels::training::{GroupNorm, LayerNorm, RowNormBackward, TrainingError};
use proptest::prelude::*;

use super::{dot, numeric_gradient, on_every_isa, wide};
use crate::oracle::{assert_close, values};

const EPSILON: f64 = 1e-5;

/// Normalizes stretches of `len` values; weight and bias of value `i` have the index `parameter(i)`.
fn reference(x: &[f64], len: usize, weight: &[f64], bias: &[f64], parameter: impl Fn(usize) -> usize) -> Vec<f64> {
    let mut y = Vec::new();
    for (index, x) in x.chunks(len).enumerate() {
        let mean = x.iter().sum::<f64>() / len as f64;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / len as f64;
        y.extend(x.iter().enumerate().map(|(i, v)| {
            let parameter = parameter(index * len + i);
            (v - mean) / (variance + EPSILON).sqrt() * weight[parameter] + bias[parameter]
        }));
    }
    y
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Layer,
    Group { plane: usize, groups: usize },
}

/// Output, and the gradients of input, weight and bias.
type Pass = [Vec<f32>; 4];

fn run(isa: Isa, kind: Kind, x: &[f32], affine: Option<[&[f32]; 2]>, parameters: usize, g: &[f32]) -> Pass {
    let [mut y, mut dx] = [(); 2].map(|()| vec![f32::NAN; x.len()]);
    let [mut dw, mut db] = [(); 2].map(|()| vec![f32::NAN; parameters]);
    let (weight, bias) = (affine.map(|[weight, _]| weight), affine.map(|[_, bias]| bias));
    let tensors = RowNormBackward {
        input: x,
        weight,
        output_gradient: g,
        input_gradient: &mut dx,
        weight_gradient: Some(&mut dw),
        bias_gradient: Some(&mut db),
    };
    match kind {
        Kind::Layer => {
            let norm = LayerNorm::new(isa, parameters, EPSILON).unwrap();
            norm.forward(x, weight, bias, &mut y).unwrap();
            norm.backward(tensors).unwrap();
        }
        Kind::Group { plane, groups } => {
            let norm = GroupNorm::new(isa, parameters, plane, groups, EPSILON).unwrap();
            norm.forward(x, weight, bias, &mut y).unwrap();
            norm.backward(tensors).unwrap();
        }
    }
    [y, dx, dw, db]
}

fn check(kind: Kind, samples: usize, parameters: usize, with_affine: bool) {
    let (plane, len) = match kind {
        Kind::Layer => (1, parameters),
        Kind::Group { plane, groups } => (plane, parameters / groups * plane),
    };
    let parameter = |i: usize| i / plane % parameters;
    let x = values(samples * parameters * plane, 1);
    let (w, b) = (values(parameters, 2), values(parameters, 3));
    let g = values(x.len(), 4);
    let wide_x = wide(&x);
    let (wide_w, wide_b) =
        if with_affine { (wide(&w), wide(&b)) } else { (vec![1.0; parameters], vec![0.0; parameters]) };
    let want = reference(&wide_x, len, &wide_w, &wide_b, parameter);
    let loss = |x: &[f64], w: &[f64], b: &[f64]| dot(&reference(x, len, w, b, parameter), &g);
    let by_input = numeric_gradient(&wide_x, |x| loss(x, &wide_w, &wide_b));
    let by_weight = numeric_gradient(&wide_w, |w| loss(&wide_x, w, &wide_b));
    let by_bias = numeric_gradient(&wide_b, |b| loss(&wide_x, &wide_w, b));
    // Rounding relative to the largest factor, 1 / deviation.
    let gain = x.chunks(len).fold(1.0f64, |gain, x| {
        let mean = x.iter().sum::<f32>() / len as f32;
        let variance = x.iter().map(|v| f64::from(v - mean).powi(2)).sum::<f64>() / len as f64;
        gain.max((variance + EPSILON).powf(-0.5))
    });
    let affine = with_affine.then_some([w.as_slice(), b.as_slice()]);
    on_every_isa(
        |isa| run(isa, kind, &x, affine, parameters, &g),
        |isa, got| {
            for (got, want, slack) in [
                (&got[0], &want, 1e-6 * gain),
                (&got[1], &by_input, 2e-5 * gain * gain),
                (&got[2], &by_weight, 2e-5 * gain),
                (&got[3], &by_bias, 2e-5),
            ] {
                assert_close(got, want, slack, &(isa, kind, samples, parameters, with_affine));
            }
        },
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn layers(rows in 1usize..6, width in 1usize..70, affine in any::<bool>()) {
        check(Kind::Layer, rows, width, affine);
    }

    #[test]
    fn groups_and_instances(
        images in 1usize..4, groups in 1usize..4, each in 1usize..4, plane in 1usize..40, affine in any::<bool>(),
    ) {
        check(Kind::Group { plane, groups }, images, groups * each, affine);
        check(Kind::Group { plane, groups: groups * each }, images, groups * each, affine);
    }
}

#[test]
fn shared_rows_and_a_large_mean() {
    // Above the threshold for sharing, in several parts with a rest; the mean is a thousand deviations.
    let (rows, width) = (1501, 300);
    let x: Vec<f32> = values(rows * width, 1).iter().map(|v| 1000.0 + v).collect();
    let (w, b, g) = (values(width, 2), values(width, 3), values(x.len(), 4));
    let want = reference(&wide(&x), width, &wide(&w), &wide(&b), |i| i % width);
    let by_bias: Vec<f64> = (0..width).map(|c| g.iter().skip(c).step_by(width).map(|g| f64::from(*g)).sum()).collect();
    for kind in [Kind::Layer, Kind::Group { plane: 1, groups: 1 }] {
        on_every_isa(
            |isa| run(isa, kind, &x, Some([&w, &b]), width, &g),
            |isa, got| {
                // Deviations from a mean of 1000 have the error of its last place.
                assert_close(&got[0], &want, 1.5e-4, &(isa, kind));
                assert_close(&got[3], &by_bias, 1e-4, &(isa, kind));
            },
        );
    }
}

#[test]
fn shapes_are_checked() {
    let isa = Isa::Portable;
    let error = LayerNorm::new(isa, 0, EPSILON).unwrap_err();
    assert_eq!(error, TrainingError::ZeroSize { what: "the width of a row" });
    let error = GroupNorm::new(isa, 6, 4, 4, EPSILON).unwrap_err();
    assert_eq!(error, TrainingError::Batch { what: "the channels", each: 4, found: 6 });
    let norm = GroupNorm::instance(isa, 2, 3, EPSILON).unwrap();
    let error = norm.forward(&[0.0; 6], Some(&[0.0; 3]), None, &mut [0.0; 6]).unwrap_err();
    assert_eq!(error, TrainingError::Length { what: "the weight", expected: 2, found: 3 });
}
