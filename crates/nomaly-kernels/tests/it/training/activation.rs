//! Activations of tensors and their gradients.

use nomaly_kernels::Isa;
use nomaly_kernels::geometry::Activation;
use nomaly_kernels::training::{Reads, TrainingError, activate, activate_in_place, activation_gradient};

use super::on_every_isa;
use crate::oracle::{self, ACTIVATIONS, assert_close, values};

/// Values on both sides of every kink, at least a step of a finite difference away from it.
fn inputs(count: usize) -> Vec<f32> {
    let away = |v: &f32| if v.abs() < 1e-3 || (v - 6.0).abs() < 1e-3 { v + 0.01 } else { *v };
    values(count, 1).iter().map(|v| 9.0 * v).map(|v| away(&v)).collect()
}

#[test]
fn values_and_gradients() {
    // Less than a vector, with a rest, and more than a unit of work for each of two threads.
    for count in [0, 3, 1000, 200_003] {
        let (x, g) = (inputs(count), values(count, 2));
        for activation in ACTIVATIONS {
            let f = |x: f64| oracle::activate(activation, x);
            let want: Vec<f64> = x.iter().map(|x| f(f64::from(*x))).collect();
            let slope = |x: f64| (f(x + 1e-5) - f(x - 1e-5)) / 2e-5;
            let by_input: Vec<f64> = x.iter().zip(&g).map(|(x, g)| slope(f64::from(*x)) * f64::from(*g)).collect();
            on_every_isa(
                |isa| {
                    let mut output = vec![f32::NAN; count];
                    activate(isa, activation, &x, &mut output).unwrap();
                    let mut in_place = x.clone();
                    activate_in_place(isa, activation, &mut in_place).unwrap();
                    assert_eq!(in_place, output);
                    let gradient = |values: &[f32]| {
                        let mut gradient = g.clone();
                        activation_gradient(isa, activation, values, &mut gradient).unwrap();
                        gradient
                    };
                    let gradients = match activation.gradient_reads() {
                        Reads::Nothing => vec![gradient(&[])],
                        Reads::Input => vec![gradient(&x)],
                        Reads::Output => vec![gradient(&output)],
                        Reads::Either => vec![gradient(&x), gradient(&output)],
                    };
                    (output, gradients)
                },
                |isa, (output, gradients)| {
                    // A few units in the last place of values up to 9.
                    assert_close(output, &want, 4e-6, &(isa, activation, count));
                    for gradient in gradients {
                        assert_close(gradient, &by_input, 2e-6, &(isa, activation, count));
                    }
                },
            );
        }
    }
}

#[test]
fn gradients_stay_finite_far_out() {
    let far = [-1e30, -100.0, 100.0, 1e30];
    for isa in Isa::available() {
        for activation in [Activation::Silu, Activation::Gelu, Activation::GeluTanh] {
            let mut gradient = [2.0; 4];
            activation_gradient(isa, activation, &far, &mut gradient).unwrap();
            for (gradient, want) in gradient.iter().zip([0.0, 0.0, 2.0, 2.0]) {
                assert!((gradient - want).abs() < 1e-6, "{isa} {activation:?}: {gradient}, expected {want}");
            }
        }
    }
}

#[test]
fn a_negative_slope_needs_the_input() {
    let folded = Activation::leaky_relu(-0.5);
    assert_eq!(folded.gradient_reads(), Reads::Input);
    for isa in Isa::available() {
        let (mut output, mut gradient) = ([0.0; 2], [1.0; 2]);
        activate(isa, folded, &[-2.0, 2.0], &mut output).unwrap();
        activation_gradient(isa, folded, &[-2.0, 2.0], &mut gradient).unwrap();
        assert_eq!((output, gradient), ([1.0, 2.0], [-0.5, 1.0]), "{isa}");
    }
}

#[test]
fn nan_stays_and_lengths_must_match() {
    for isa in Isa::available() {
        for activation in ACTIVATIONS {
            let mut output = [0.0; 2];
            activate(isa, activation, &[f32::NAN, 1.0], &mut output).unwrap();
            assert!(output[0].is_nan() && !output[1].is_nan(), "{isa} {activation:?}");
        }
        let error = activate(isa, Activation::Relu, &[0.0; 3], &mut [0.0; 2]).unwrap_err();
        assert_eq!(error, TrainingError::Length { what: "the output", expected: 3, found: 2 });
        let error = activation_gradient(isa, Activation::Tanh, &[0.0; 3], &mut [0.0; 2]).unwrap_err();
        assert_eq!(error, TrainingError::Length { what: "the gradient", expected: 3, found: 2 });
    }
}
