//! Products with a factor per channel.

use nomaly_kernels::Isa;
use nomaly_kernels::training::{ChannelScale, ScalePer, TrainingError};

use super::{dot, numeric_gradient, on_every_isa, wide};
use crate::oracle::{assert_close, values};

#[test]
fn values_and_gradients() {
    // Planes of one position are rows; the last two shapes are above the threshold for sharing.
    for [images, channels, plane] in
        [[2, 3, 5], [3, 5, 1], [2, 33, 1], [1, 2, 40], [2, 9, 16], [700, 300, 1], [6, 40, 961]]
    {
        for per in [ScalePer::Plane, ScalePer::Channel] {
            let count = if per == ScalePer::Plane { images * channels } else { channels };
            let (x, factors, g) =
                (values(images * channels * plane, 1), values(count, 2), values(images * channels * plane, 3));
            let factor = |i: usize| i / plane % count;
            let forward = |x: &[f64], factors: &[f64]| -> Vec<f64> {
                x.iter().enumerate().map(|(i, x)| x * factors[factor(i)]).collect()
            };
            let want = forward(&wide(&x), &wide(&factors));
            let by_input: Vec<f64> = forward(&wide(&g), &wide(&factors));
            let mut by_factor = vec![0.0; count];
            for (i, (x, g)) in x.iter().zip(&g).enumerate() {
                by_factor[factor(i)] += f64::from(*x) * f64::from(*g);
            }
            if x.len() < 100 {
                let loss = |factors: &[f64]| dot(&forward(&wide(&x), factors), &g);
                let numeric = numeric_gradient(&wide(&factors), loss);
                assert!(numeric.iter().zip(&by_factor).all(|(a, b)| (a - b).abs() < 1e-6));
            }
            on_every_isa(
                |isa| {
                    let plan = ChannelScale::new(isa, per, channels, plane).unwrap();
                    let mut output = vec![f32::NAN; x.len()];
                    plan.forward(&x, &factors, &mut output).unwrap();
                    let (mut dx, mut df) = (vec![f32::NAN; x.len()], vec![f32::NAN; count]);
                    plan.backward(&x, &factors, &g, &mut dx, &mut df).unwrap();
                    [output, dx, df]
                },
                |isa, [output, dx, df]| {
                    let what = (isa, per, images, channels, plane);
                    assert_close(output, &want, 1e-7, &what);
                    assert_close(dx, &by_input, 1e-7, &what);
                    // Sums of some thousand products of values in [-1, 1).
                    assert_close(df, &by_factor, 1e-4, &what);
                },
            );
        }
    }
}

#[test]
fn factors_must_match_the_batch() {
    let isa = Isa::Portable;
    let gate = ChannelScale::new(isa, ScalePer::Plane, 2, 3).unwrap();
    let error = gate.forward(&[0.0; 12], &[0.0; 2], &mut [0.0; 12]).unwrap_err();
    assert_eq!(error, TrainingError::Length { what: "the factors", expected: 4, found: 2 });
    let error = gate.forward(&[0.0; 7], &[0.0; 2], &mut [0.0; 7]).unwrap_err();
    assert_eq!(error, TrainingError::Batch { what: "the input", each: 6, found: 7 });
    let error = ChannelScale::new(isa, ScalePer::Channel, 0, 3).unwrap_err();
    assert_eq!(error, TrainingError::ZeroSize { what: "the number of channels" });
}
