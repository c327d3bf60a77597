//! Softmax, its logarithm, and losses value by value.

use nomaly_kernels::Isa;
use nomaly_kernels::training::{
    TrainingError, binary_cross_entropy, log_softmax, log_softmax_gradient, mean_absolute_error, mean_squared_error,
    smooth_l1, softmax, softmax_gradient, weighted_binary_cross_entropy,
};

use super::{dot, numeric_gradient, on_every_isa, wide};
use crate::oracle::{assert_close, values};

fn reference_softmax(x: &[f64], width: usize, logarithm: bool) -> Vec<f64> {
    let mut y = Vec::new();
    for row in x.chunks(width) {
        let high = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|x| (x - high).exp()).sum();
        y.extend(row.iter().map(|x| if logarithm { x - high - sum.ln() } else { (x - high).exp() / sum }));
    }
    y
}

#[test]
fn softmax_and_its_logarithm() {
    // The last is above the threshold for sharing.
    for (rows, width) in [(3, 1), (4, 2), (2, 17), (3, 40), (900, 150)] {
        let x: Vec<f32> = values(rows * width, 1).iter().map(|v| 20.0 * v).collect();
        let g = values(x.len(), 2);
        for logarithm in [false, true] {
            let want = reference_softmax(&wide(&x), width, logarithm);
            on_every_isa(
                |isa| {
                    let (mut y, mut gradient) = (vec![f32::NAN; x.len()], g.clone());
                    if logarithm {
                        log_softmax(isa, width, &x, &mut y).unwrap();
                        log_softmax_gradient(isa, width, &y, &mut gradient).unwrap();
                    } else {
                        softmax(isa, width, &x, &mut y).unwrap();
                        softmax_gradient(isa, width, &y, &mut gradient).unwrap();
                    }
                    [y, gradient]
                },
                |isa, [y, gradient]| {
                    let what = (isa, rows, width, logarithm);
                    // Logarithms reach -40.
                    assert_close(y, &want, if logarithm { 8e-6 } else { 1e-6 }, &what);
                    if x.len() < 200 {
                        let by_input =
                            numeric_gradient(&wide(&x), |x| dot(&reference_softmax(x, width, logarithm), &g));
                        assert_close(gradient, &by_input, 3e-6, &what);
                    }
                },
            );
        }
    }
}

#[test]
fn distant_logits_neither_overflow_nor_hide_nan() {
    for isa in Isa::available() {
        let mut y = [0.0; 3];
        softmax(isa, 3, &[1000.0, -1000.0, f32::NEG_INFINITY], &mut y).unwrap();
        assert!(y[0] == 1.0 && y[1] < 1e-30 && y[2] < 1e-30, "{isa}: {y:?}");
        for row in [[f32::NAN, 0.0, 1.0], [0.0, 1.0, f32::NAN]] {
            softmax(isa, 3, &row, &mut y).unwrap();
            assert!(y.iter().all(|y| y.is_nan()), "{isa}: {y:?}");
        }
        let error = softmax(isa, 2, &[0.0; 3], &mut y).unwrap_err();
        assert_eq!(error, TrainingError::Batch { what: "the input", each: 2, found: 3 });
    }
}

type Loss = fn(Isa, &[f32], &[f32], &mut [f32]) -> Result<f32, TrainingError>;

#[test]
fn losses_and_their_gradients() {
    let smooth: Loss = |isa, x, t, g| smooth_l1(isa, 0.7, x, t, g);
    type Reference = fn(f64, f64) -> f64;
    let weighted: Loss = |isa, x, t, g| weighted_binary_cross_entropy(isa, 3.5, x, t, g);
    let losses: [(&str, Loss, Reference); 5] = [
        ("weighted cross-entropy", weighted, |x, t| {
            let probability = 1.0 / (1.0 + (-x).exp());
            -3.5 * t * probability.ln() - (1.0 - t) * (1.0 - probability).ln()
        }),
        ("binary cross-entropy", binary_cross_entropy, |x, t| x.max(0.0) - x * t + (-x.abs()).exp().ln_1p()),
        ("squared error", mean_squared_error, |x, t| (x - t).powi(2)),
        ("absolute error", mean_absolute_error, |x, t| (x - t).abs()),
        ("smooth L1", smooth, |x, t| {
            let d = (x - t).abs();
            if d < 0.7 { d * d / 1.4 } else { d - 0.35 }
        }),
    ];
    // The last is above the threshold for sharing, with a rest.
    for count in [0, 1, 37, 200_003] {
        let x: Vec<f32> = values(count, 1).iter().map(|v| 4.0 * v).collect();
        let t: Vec<f32> = values(count, 2).iter().map(|v| 0.5 + 0.5 * v).collect();
        let n = count.max(1) as f64;
        for (name, loss, reference) in losses {
            let pairs = || x.iter().zip(&t).map(|(x, t)| (f64::from(*x), f64::from(*t)));
            let want = pairs().map(|(x, t)| reference(x, t)).sum::<f64>() / n;
            let slope = |(x, t)| (reference(x + 1e-6, t) - reference(x - 1e-6, t)) / 2e-6;
            let by_input: Vec<f64> = pairs().map(slope).collect();
            on_every_isa(
                |isa| {
                    let mut gradient = vec![f32::NAN; count];
                    let loss = loss(isa, &x, &t, &mut gradient).unwrap();
                    (loss, gradient)
                },
                |isa, (got, gradient)| {
                    assert!((f64::from(*got) - want).abs() <= 1e-6 * want, "{isa} {name}: {got}, expected {want}");
                    let scaled: Vec<f32> = gradient.iter().map(|g| g * n as f32).collect();
                    assert_close(&scaled, &by_input, 3e-6, &(isa, name, count));
                },
            );
        }
    }
}

#[test]
fn losses_check_what_they_are_given() {
    for isa in Isa::available() {
        let mut gradient = [f32::NAN; 2];
        assert_eq!(mean_absolute_error(isa, &[1.0, 3.0], &[1.0, 2.0], &mut gradient).unwrap(), 0.5);
        assert_eq!(gradient, [0.0, 0.5], "{isa}");
        let loss = binary_cross_entropy(isa, &[1e30, -1e30], &[1.0, 0.0], &mut gradient).unwrap();
        assert!(loss < 1e-30 && gradient.iter().all(|g| g.abs() < 1e-30), "{isa}: {loss} {gradient:?}");
        let error = mean_squared_error(isa, &[0.0; 2], &[0.0; 3], &mut gradient).unwrap_err();
        assert_eq!(error, TrainingError::Length { what: "the targets", expected: 2, found: 3 });
        let loss = weighted_binary_cross_entropy(isa, 8.0, &[1e30, -1e30], &[1.0, 0.0], &mut gradient).unwrap();
        assert!(loss < 1e-30 && gradient.iter().all(|g| g.abs() < 1e-30), "{isa}: {loss} {gradient:?}");
        let loss = weighted_binary_cross_entropy(isa, 8.0, &[-2e3, 2e3], &[1.0, 0.0], &mut gradient).unwrap();
        assert_eq!((loss, gradient), (9e3, [-4.0, 0.5]), "{isa}");
        for weight in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let error = weighted_binary_cross_entropy(isa, weight, &[0.0; 2], &[0.0; 2], &mut gradient).unwrap_err();
            assert_eq!(error, TrainingError::PositiveWeight { weight: weight.to_string() });
        }
        for beta in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let error = smooth_l1(isa, beta, &[0.0; 2], &[0.0; 2], &mut gradient).unwrap_err();
            assert_eq!(error, TrainingError::SmoothL1Beta { beta: beta.to_string() });
        }
    }
}
