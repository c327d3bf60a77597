//! Clipping and averages against loops in double precision.

use nomaly_kernels::Isa;
use nomaly_kernels::training::{WeightAverage, clip_norm, clip_value, global_norm, norm_factor};

use super::{on_every_isa, wide};
use crate::oracle::{assert_close, values};

/// Lengths of a network's parameters: together long enough to be shared.
const LENS: [usize; 5] = [400_003, 1, 0, 17, 300_007];

fn gradients() -> Vec<Vec<f32>> {
    LENS.iter().zip(1..).map(|(&len, seed)| values(len, seed)).collect()
}

fn norm_of(gradients: &[Vec<f32>]) -> f64 {
    gradients.iter().flatten().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt()
}

#[test]
fn norms_are_the_same_on_every_instruction_set() {
    let all = gradients();
    let slices: Vec<&[f32]> = all.iter().map(Vec::as_slice).collect();
    let (portable, want) = (global_norm(Isa::Portable, &slices).unwrap(), norm_of(&all));
    on_every_isa(
        |isa| global_norm(isa, &slices).unwrap(),
        |isa, &got| {
            assert_eq!(got, portable, "{isa}");
            assert!((got - want).abs() < 1e-12 * want, "{isa}: {got}, expected {want}");
        },
    );
    assert_eq!(global_norm(Isa::Portable, &[]).unwrap(), 0.0);
    // Squares that single precision cannot hold.
    let large = global_norm(Isa::Portable, &[&[3e30], &[4e30]]).unwrap();
    assert!((large / 5e30 - 1.0).abs() < 1e-7, "{large}");
}

#[test]
fn gradients_are_scaled_and_limited_in_place() {
    let start = gradients();
    let norm = norm_of(&start);
    for (max_norm, factor) in [(0.5 * norm, 0.5), (2.0 * norm, 1.0)] {
        on_every_isa(
            |isa| {
                let mut all = start.clone();
                clip_norm(isa, &mut all.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>(), max_norm).unwrap();
                all.concat()
            },
            |isa, got| {
                let want: Vec<f64> = wide(&start.concat()).iter().map(|value| factor * value).collect();
                assert_close(got, &want, 1e-7, &(isa, max_norm));
            },
        );
    }
    on_every_isa(
        |isa| {
            let mut all = start.clone();
            clip_value(isa, &mut all.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>(), 0.125).unwrap();
            all.concat()
        },
        |isa, got| {
            let want: Vec<f64> = wide(&start.concat()).iter().map(|value| value.clamp(-0.125, 0.125)).collect();
            assert_close(got, &want, 0.0, &isa);
        },
    );
}

#[test]
fn what_is_not_finite_is_not_hidden() {
    for isa in Isa::available() {
        let mut values = [f32::NAN; 20];
        values[..10].copy_from_slice(&[f32::INFINITY, 3.0, -3.0, 0.5, 0.0, f32::NEG_INFINITY, 1.0, 1.0, 1.0, 1.0]);
        clip_value(isa, &mut [&mut values], 1.0).unwrap();
        assert_eq!(values[..6], [1.0, 1.0, -1.0, 0.5, 0.0, -1.0], "{isa}");
        assert!(values[10..].iter().all(|value| value.is_nan()), "{isa}");
        assert!(clip_norm(isa, &mut [&mut values], 1.0).unwrap().is_nan(), "{isa}");
        assert!(values.iter().all(|value| value.is_nan()), "{isa}");
    }
    assert!(norm_factor(f64::NAN, 1.0).is_nan());
    assert_eq!(norm_factor(f64::INFINITY, 1.0), 0.0);
}

#[test]
fn averages_follow_weights() {
    let (start, weights) = (values(600_007, 1), values(600_007, 2));
    for (decay, warm_up) in [(0.0, false), (0.9, false), (0.9, true), (1.0, false)] {
        let mut want = wide(&start);
        for step in 1..=3 {
            let kept =
                if warm_up { f64::min(decay, (1.0 + f64::from(step)) / (10.0 + f64::from(step))) } else { decay };
            want.iter_mut().zip(wide(&weights)).for_each(|(a, w)| *a = kept * *a + (1.0 - kept) * w);
        }
        on_every_isa(
            |isa| {
                let mut average = start.clone();
                for step in 1..=3 {
                    WeightAverage { decay, warm_up, step }.apply(isa, &mut average, &weights).unwrap();
                }
                average
            },
            |isa, got| assert_close(got, &want, 3e-7, &(isa, decay, warm_up)),
        );
    }
}

#[test]
fn the_average_of_constant_weights_is_those_weights() {
    let weights = values(100, 1);
    for isa in Isa::available() {
        let mut average = weights.clone();
        for step in 1..=10_000 {
            WeightAverage { decay: 0.9999, warm_up: true, step }.apply(isa, &mut average, &weights).unwrap();
        }
        assert_eq!(average, weights, "{isa}");
    }
    let error = WeightAverage { decay: 0.5, warm_up: false, step: 1 }.apply(Isa::Portable, &mut [0.0], &[]);
    assert_eq!(error.unwrap_err().to_string(), "the vector of weights has 0 values, expected 1");
}
