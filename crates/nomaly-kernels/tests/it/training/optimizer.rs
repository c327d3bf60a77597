//! Optimizer steps against the published formulas in double precision.

use nomaly_kernels::training::{AdamStep, SgdStep, WeightDecay};

use super::{on_every_isa, wide};
use crate::oracle::{assert_close, values};

/// Long enough to be shared and to end within a vector.
const LEN: usize = 300_007;
const STEPS: u64 = 4;

fn gradient(step: u64) -> Vec<f32> {
    values(LEN, 100 + step)
}

#[test]
fn adam_and_adamw() {
    for decay in [WeightDecay::Gradient, WeightDecay::Decoupled] {
        let (rate, betas, epsilon, weight_decay) = (0.01, [0.9, 0.999], 1e-8, 0.05);
        let start = values(LEN, 1);
        let [mut p, mut m, mut v] = [wide(&start), vec![0.0; LEN], vec![0.0; LEN]];
        for step in 1..=STEPS {
            for (i, g) in wide(&gradient(step)).into_iter().enumerate() {
                let mut g = g;
                match decay {
                    WeightDecay::Gradient => g += weight_decay * p[i],
                    WeightDecay::Decoupled => p[i] -= rate * weight_decay * p[i],
                }
                m[i] = betas[0] * m[i] + (1.0 - betas[0]) * g;
                v[i] = betas[1] * v[i] + (1.0 - betas[1]) * g * g;
                let first = m[i] / (1.0 - betas[0].powi(step as i32));
                let second = v[i] / (1.0 - betas[1].powi(step as i32));
                p[i] -= rate * first / (second.sqrt() + epsilon);
            }
        }
        on_every_isa(
            |isa| {
                let [mut p, mut m, mut v] = [start.clone(), vec![0.0; LEN], vec![0.0; LEN]];
                for step in 1..=STEPS {
                    let adam = AdamStep { rate, betas, epsilon, weight_decay, decay, step };
                    adam.apply(isa, &mut p, &gradient(step), [&mut m, &mut v]).unwrap();
                }
                p
            },
            // Four steps of at most 0.01, each with a few roundings of values below 1.
            |isa, got| assert_close(got, &p, 1e-6, &(isa, decay)),
        );
    }
}

#[test]
fn sgd_with_all_its_switches() {
    for (momentum, dampening, weight_decay, nesterov) in [
        (0.0, 0.0, 0.0, false),
        (0.0, 0.0, 0.1, false),
        (0.9, 0.0, 0.1, false),
        (0.9, 0.0, 0.1, true),
        (0.8, 0.3, 0.0, false),
    ] {
        let rate = 0.05;
        let start = values(LEN, 1);
        let [mut p, mut v] = [wide(&start), vec![0.0; LEN]];
        for step in 1..=STEPS {
            for (i, g) in wide(&gradient(step)).into_iter().enumerate() {
                let g = g + weight_decay * p[i];
                v[i] = if step == 1 { g } else { momentum * v[i] + (1.0 - dampening) * g };
                p[i] -= rate
                    * match (momentum == 0.0, nesterov) {
                        (true, _) => g,
                        (false, true) => g + momentum * v[i],
                        (false, false) => v[i],
                    };
            }
        }
        on_every_isa(
            |isa| {
                let [mut p, mut v] = [start.clone(), vec![0.0; LEN]];
                for step in 1..=STEPS {
                    let sgd = SgdStep { rate, momentum, dampening, weight_decay, nesterov, step };
                    sgd.apply(isa, &mut p, &gradient(step), &mut v).unwrap();
                }
                p
            },
            |isa, got| assert_close(got, &p, 2e-6, &(isa, momentum, dampening, weight_decay, nesterov)),
        );
    }
}

#[test]
fn lengths_must_agree() {
    let isa = nomaly_kernels::Isa::Portable;
    let sgd = SgdStep { rate: 0.1, momentum: 0.9, dampening: 0.0, weight_decay: 0.0, nesterov: false, step: 1 };
    let error = sgd.apply(isa, &mut [0.0; 3], &[0.0; 3], &mut []).unwrap_err();
    assert_eq!(error.to_string(), "the velocity has 0 values, expected 3");
}
