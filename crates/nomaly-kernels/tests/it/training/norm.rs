//! Batch norm.

use nomaly_kernels::Isa;
use nomaly_kernels::geometry::Slope;
use nomaly_kernels::training::{AfterNorm, BatchNorm, NormBackward};
use proptest::prelude::*;

use super::{dot, numeric_gradient, on_every_isa, wide};
use crate::oracle::{assert_close, values};

const EPSILON: f64 = 1e-5;

/// Mean and biased variance of each channel of `[N, C, P]`.
fn moments(x: &[f64], channels: usize, plane: usize) -> [Vec<f64>; 2] {
    let of = |c: usize| x.chunks(plane).skip(c).step_by(channels).flatten().copied();
    let count = (x.len() / channels) as f64;
    let means: Vec<f64> = (0..channels).map(|c| of(c).sum::<f64>() / count).collect();
    let variances = (0..channels).map(|c| of(c).map(|v| (v - means[c]).powi(2)).sum::<f64>() / count).collect();
    [means, variances]
}

const AFTER: [AfterNorm; 3] = [AfterNorm::Nothing, AfterNorm::Relu, AfterNorm::LeakyRelu(Slope::new(0.2))];

fn activate(after: AfterNorm, y: f64) -> f64 {
    match after {
        AfterNorm::Nothing => y,
        AfterNorm::Relu => y.max(0.0),
        AfterNorm::LeakyRelu(slope) => y.max(0.0) + f64::from(slope.value()) * y.min(0.0),
    }
}

fn reference(x: &[f64], weight: &[f64], bias: &[f64], plane: usize, after: AfterNorm) -> Vec<f64> {
    let channels = weight.len();
    let [means, variances] = moments(x, channels, plane);
    let value = |(i, x): (usize, &f64)| {
        let c = i / plane % channels;
        activate(after, (x - means[c]) / (variances[c] + EPSILON).sqrt() * weight[c] + bias[c])
    };
    x.iter().enumerate().map(value).collect()
}

type Pass = [Vec<f32>; 6];

/// Output, mean, variance, and the gradients of input, weight and bias.
fn run(isa: Isa, [x, w, b, g]: [&[f32]; 4], plane: usize, after: AfterNorm) -> Pass {
    let norm = BatchNorm::new(isa, w.len(), plane, EPSILON, after).unwrap();
    let [mut mean, mut variance, mut dw, mut db] = [(); 4].map(|()| vec![f32::NAN; w.len()]);
    let [mut output, mut dx] = [(); 2].map(|()| vec![f32::NAN; x.len()]);
    norm.forward(x, Some(w), Some(b), &mut mean, &mut variance, &mut output).unwrap();
    norm.backward(NormBackward {
        input: x,
        weight: Some(w),
        bias: Some(b),
        mean: &mean,
        variance: &variance,
        output_gradient: g,
        input_gradient: &mut dx,
        weight_gradient: Some(&mut dw),
        bias_gradient: Some(&mut db),
    })
    .unwrap();
    [output, mean, variance, dx, dw, db]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn values_and_gradients(channels in 1usize..6, plane in 1usize..40, images in 2usize..4, after in 0usize..3) {
        let after = AFTER[after];
        let x = values(images * channels * plane, 1);
        let (w, b) = (values(channels, 2), values(channels, 3));
        let g = values(x.len(), 4);
        let (wide_x, wide_w, wide_b) = (wide(&x), wide(&w), wide(&b));
        let want = reference(&wide_x, &wide_w, &wide_b, plane, after);
        // Near the kink of a ReLU, finite differences do not approximate the derivative.
        let unclamped = reference(&wide_x, &wide_w, &wide_b, plane, AfterNorm::Nothing);
        prop_assume!(after == AfterNorm::Nothing || unclamped.iter().all(|v| v.abs() > 1e-3));
        let loss = |x: &[f64], w: &[f64], b: &[f64]| dot(&reference(x, w, b, plane, after), &g);
        let by_input = numeric_gradient(&wide_x, |x| loss(x, &wide_w, &wide_b));
        let by_weight = numeric_gradient(&wide_w, |w| loss(&wide_x, w, &wide_b));
        let by_bias = numeric_gradient(&wide_b, |b| loss(&wide_x, &wide_w, b));
        let [means, variances] = moments(&wide_x, channels, plane);
        // Rounding relative to the largest factor, 1 / deviation.
        let gain = variances.iter().map(|v| (v + EPSILON).powf(-0.5)).fold(1.0, f64::max);
        on_every_isa(|isa| run(isa, [&x, &w, &b, &g], plane, after), |isa, got| {
            for (got, want, slack) in [
                (&got[0], &want, 1e-6 * gain),
                (&got[1], &means, 1e-6),
                (&got[2], &variances, 1e-6),
                (&got[3], &by_input, 2e-5 * gain * gain),
                (&got[4], &by_weight, 2e-5 * gain),
                (&got[5], &by_bias, 2e-5),
            ] {
                assert_close(got, want, slack, &(isa, channels, plane, images, after));
            }
        });
    }
}

#[test]
fn gradients_of_given_statistics_do_not_go_through_them() {
    let (channels, plane, images) = (5, 21, 3);
    let x = values(images * channels * plane, 1);
    let (w, b, g) = (values(channels, 2), values(channels, 3), values(x.len(), 4));
    let mean: Vec<f32> = values(channels, 5);
    let variance: Vec<f32> = values(channels, 6).iter().map(|v| 1.0 + 0.5 * v).collect();
    for after in AFTER {
        let value = |i: usize, x: f64, w: &[f64], b: &[f64]| {
            let c = i / plane % channels;
            let y = (x - f64::from(mean[c])) / (f64::from(variance[c]) + EPSILON).sqrt() * w[c] + b[c];
            activate(after, y)
        };
        let loss = |x: &[f64], w: &[f64], b: &[f64]| -> f64 {
            x.iter().zip(&g).enumerate().map(|(i, (x, g))| value(i, *x, w, b) * f64::from(*g)).sum()
        };
        let (wide_x, wide_w, wide_b) = (wide(&x), wide(&w), wide(&b));
        let by_input = numeric_gradient(&wide_x, |x| loss(x, &wide_w, &wide_b));
        let by_weight = numeric_gradient(&wide_w, |w| loss(&wide_x, w, &wide_b));
        let by_bias = numeric_gradient(&wide_b, |b| loss(&wide_x, &wide_w, b));
        on_every_isa(
            |isa| {
                let norm = BatchNorm::new(isa, channels, plane, EPSILON, after).unwrap();
                let [mut dx, mut dw, mut db] = [x.len(), channels, channels].map(|len| vec![f32::NAN; len]);
                norm.backward_fixed(NormBackward {
                    input: &x,
                    weight: Some(&w),
                    bias: Some(&b),
                    mean: &mean,
                    variance: &variance,
                    output_gradient: &g,
                    input_gradient: &mut dx,
                    weight_gradient: Some(&mut dw),
                    bias_gradient: Some(&mut db),
                })
                .unwrap();
                [dx, dw, db]
            },
            |isa, got| {
                for (got, want) in got.iter().zip([&by_input, &by_weight, &by_bias]) {
                    // Sums of 63 products near 1 in single precision.
                    assert_close(got, want, 2e-5, &(isa, after));
                }
            },
        );
    }
}

#[test]
fn without_parameters_weights_are_one_and_biases_zero() {
    let (channels, plane, images) = (19, 6, 3);
    let (x, g) = (values(images * channels * plane, 1), values(images * channels * plane, 2));
    let (ones, zeros) = (vec![1.0; channels], vec![0.0; channels]);
    for after in AFTER {
        on_every_isa(
            |isa| {
                let with = run(isa, [&x, &ones, &zeros, &g], plane, after);
                let norm = BatchNorm::new(isa, channels, plane, EPSILON, after).unwrap();
                let [mut mean, mut variance] = [(); 2].map(|()| vec![f32::NAN; channels]);
                let [mut y, mut dx] = [(); 2].map(|()| vec![f32::NAN; x.len()]);
                norm.forward(&x, None, None, &mut mean, &mut variance, &mut y).unwrap();
                norm.backward(NormBackward {
                    input: &x,
                    weight: None,
                    bias: None,
                    mean: &mean,
                    variance: &variance,
                    output_gradient: &g,
                    input_gradient: &mut dx,
                    weight_gradient: None,
                    bias_gradient: None,
                })
                .unwrap();
                assert_eq!([&y, &dx], [&with[0], &with[3]], "{isa} {after:?}");
                let mut evaluated = vec![f32::NAN; x.len()];
                norm.evaluate(&x, None, None, &mean, &variance, &mut evaluated).unwrap();
                [y, evaluated]
            },
            // Means and variances are rounded in between.
            |isa, [y, evaluated]| {
                let y: Vec<f64> = wide(y);
                assert_close(evaluated, &y, 2e-6, &(isa, after));
            },
        );
    }
}

/// Rows `[N, C]` are planes of one position: vectors run over channels, in several groups with a rest.
#[test]
fn rows() {
    for (rows, channels) in [(2, 1), (5, 3), (4, 16), (3, 77), (700, 260)] {
        let x: Vec<f32> = values(rows * channels, 1).iter().map(|v| 10.0 + v).collect();
        let (w, b) = (values(channels, 2), values(channels, 3));
        let (wide_x, wide_w, wide_b) = (wide(&x), wide(&w), wide(&b));
        let [means, variances] = moments(&wide_x, channels, 1);
        // Nothing comes from the kink of a ReLU, whose side depends on rounding.
        let before = reference(&wide_x, &wide_w, &wide_b, 1, AfterNorm::Nothing);
        let random = values(x.len(), 4);
        let g: Vec<f32> = random.iter().zip(&before).map(|(g, y)| if y.abs() < 1e-3 { 0.0 } else { *g }).collect();
        let gain = variances.iter().map(|v| (v + EPSILON).powf(-0.5)).fold(1.0, f64::max);
        for after in AFTER {
            let want = reference(&wide_x, &wide_w, &wide_b, 1, after);
            // The formulas of the gradients, which the test above compares with finite differences.
            let inverse: Vec<f64> = variances.iter().map(|v| (v + EPSILON).powf(-0.5)).collect();
            let normalized: Vec<f64> =
                wide_x.iter().enumerate().map(|(i, x)| (x - means[i % channels]) * inverse[i % channels]).collect();
            let slope = |y: f64| {
                activate(after, 1.0) * f64::from(u8::from(y > 0.0))
                    - activate(after, -1.0) * f64::from(u8::from(y <= 0.0))
            };
            let masked: Vec<f64> = g.iter().zip(&before).map(|(g, y)| f64::from(*g) * slope(*y)).collect();
            let over_rows = |f: &dyn Fn(usize) -> f64| -> Vec<f64> {
                (0..channels).map(|c| (0..rows).map(|row| f(row * channels + c)).sum()).collect()
            };
            let by_weight = over_rows(&|i| masked[i] * normalized[i]);
            let by_bias = over_rows(&|i| masked[i]);
            let count = rows as f64;
            let by_input: Vec<f64> = (0..x.len())
                .map(|i| {
                    let c = i % channels;
                    let rest = masked[i] - by_bias[c] / count - normalized[i] * by_weight[c] / count;
                    wide_w[c] * inverse[c] * rest
                })
                .collect();
            on_every_isa(
                |isa| run(isa, [&x, &w, &b, &g], 1, after),
                |isa, got| {
                    for (got, want, slack) in [
                        (&got[0], &want, 4e-6 * gain),
                        (&got[1], &means, 1e-6),
                        (&got[2], &variances, 1e-6),
                        (&got[3], &by_input, 1e-5 * gain * gain),
                        (&got[4], &by_weight, 1e-4 * gain),
                        (&got[5], &by_bias, 1e-4),
                    ] {
                        assert_close(got, want, slack, &(isa, rows, channels, after));
                    }
                },
            );
        }
    }
}

#[test]
fn shared_channels_and_a_large_mean() {
    // 16 channels of 8 images: above the threshold for sharing; the mean is a thousand deviations.
    let (channels, plane, images) = (16, 500, 8);
    let x: Vec<f32> = values(images * channels * plane, 1).iter().map(|v| 1000.0 + v).collect();
    let (w, b, g) = (values(channels, 2), values(channels, 3), values(x.len(), 4));
    let [means, variances] = moments(&wide(&x), channels, plane);
    on_every_isa(
        |isa| run(isa, [&x, &w, &b, &g], plane, AfterNorm::Relu),
        |isa, got| {
            // Half a step of f32 at 1000, and little more.
            assert_close(&got[1], &means, 3.2e-5, &isa);
            // The variance is near 1/3; inputs of 1000 have steps of 6e-5.
            assert_close(&got[2], &variances, 1e-6, &isa);
        },
    );
}

#[test]
fn evaluation_and_running_statistics() {
    let (channels, plane) = (3, 5);
    let x = values(2 * channels * plane, 1);
    let (w, b) = (values(channels, 2), values(channels, 3));
    on_every_isa(
        |isa| {
            let norm = BatchNorm::new(isa, channels, plane, EPSILON, AfterNorm::Relu).unwrap();
            let [mut mean, mut variance] = [vec![0.0; channels], vec![0.0; channels]];
            let [mut trained, mut evaluated] = [vec![0.0; x.len()], vec![0.0; x.len()]];
            norm.forward(&x, Some(&w), Some(&b), &mut mean, &mut variance, &mut trained).unwrap();
            norm.evaluate(&x, Some(&w), Some(&b), &mean, &variance, &mut evaluated).unwrap();
            for (trained, evaluated) in trained.iter().zip(&evaluated) {
                assert!((trained - evaluated).abs() < 1e-5, "{trained} {evaluated}");
            }
            let [mut running_mean, mut running_variance] = [vec![1.0; channels], vec![1.0; channels]];
            let statistics = [mean.as_slice(), variance.as_slice()];
            norm.update_running(2, 0.1, statistics, [&mut running_mean, &mut running_variance]).unwrap();
            [mean, variance, running_mean, running_variance]
        },
        |_, [mean, variance, running_mean, running_variance]| {
            for c in 0..channels {
                assert!((running_mean[c] - (0.9 + 0.1 * mean[c])).abs() < 1e-6);
                // Of ten values: the population's variance is 10/9 of the batch's.
                assert!((running_variance[c] - (0.9 + 0.1 * variance[c] * 10.0 / 9.0)).abs() < 1e-6);
            }
        },
    );
}
