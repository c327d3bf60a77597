//! Optimizer steps against the published formulas in double precision.

use nomaly_kernels::training::{
    AdamState, AdamStep, NAdamStep, RmsPropState, RmsPropStep, SgdStep, StableAdamWStep, StableForm, TrainingError,
    WeightDecay,
};
use nomaly_kernels::{Isa, IsaError};

use super::{on_every_isa, wide};
use crate::oracle::{assert_close, values};

/// Long enough to be shared and to end within a vector.
const LEN: usize = 300_007;
const STEPS: u64 = 4;

/// The third is large, so that maxima and clipped updates matter.
fn gradient(step: u64) -> Vec<f32> {
    let factor = if step == 3 { 4.0 } else { 1.0 };
    values(LEN, 100 + step).into_iter().map(|value| factor * value).collect()
}

/// Runs a step in single precision from zero state and compares the parameters after all steps with `want`.
fn check(
    want: &[f64],
    slack: f64,
    what: &(impl std::fmt::Debug + Sync),
    step: impl Fn(Isa, u64, &mut [f32], &[f32], [&mut [f32]; 3]) -> Result<(), TrainingError> + Sync,
) {
    let start = values(LEN, 1);
    on_every_isa(
        |isa| {
            let [mut p, mut a, mut b, mut c] = [start.clone(), vec![0.0; LEN], vec![0.0; LEN], vec![0.0; LEN]];
            for number in 1..=STEPS {
                step(isa, number, &mut p, &gradient(number), [&mut a, &mut b, &mut c]).unwrap();
            }
            p
        },
        |isa, got| assert_close(got, want, slack, &(isa, what)),
    );
}

/// Moves parameters by a formula of one value: parameter, gradient, three states, number of the step.
fn reference(formula: impl Fn(&mut f64, f64, &mut [f64; 3], u64)) -> Vec<f64> {
    let mut parameters = wide(&values(LEN, 1));
    let mut states = vec![[0.0; 3]; LEN];
    for step in 1..=STEPS {
        for ((p, state), g) in parameters.iter_mut().zip(&mut states).zip(wide(&gradient(step))) {
            formula(p, g, state, step);
        }
    }
    parameters
}

const RATE: f64 = 0.01;
const BETAS: [f64; 2] = [0.9, 0.999];
const EPSILON: f64 = 1e-8;
const WEIGHT_DECAY: f64 = 0.05;

/// The gradient with weight decay, after which decoupled decay has shrunk the parameter.
fn decayed(decay: WeightDecay, p: &mut f64, g: f64) -> f64 {
    match decay {
        WeightDecay::Gradient => g + WEIGHT_DECAY * *p,
        WeightDecay::Decoupled => {
            *p -= RATE * WEIGHT_DECAY * *p;
            g
        }
    }
}

/// Both moments without bias, and the maximum if `amsgrad`.
fn moments([m, v, maximum]: &mut [f64; 3], g: f64, amsgrad: bool, step: u64) -> [f64; 2] {
    *m = BETAS[0] * *m + (1.0 - BETAS[0]) * g;
    *v = BETAS[1] * *v + (1.0 - BETAS[1]) * g * g;
    *maximum = maximum.max(*v);
    let second = if amsgrad { *maximum } else { *v };
    [*m / (1.0 - BETAS[0].powi(step as i32)), second / (1.0 - BETAS[1].powi(step as i32))]
}

#[test]
fn adam_and_adamw() {
    for (decay, amsgrad) in
        [(WeightDecay::Gradient, false), (WeightDecay::Decoupled, false), (WeightDecay::Gradient, true)]
    {
        let want = reference(|p, g, state, step| {
            let g = decayed(decay, p, g);
            let [first, second] = moments(state, g, amsgrad, step);
            *p -= RATE * first / (second.sqrt() + EPSILON);
        });
        // Four steps of at most 0.01, each with a few roundings of values below 1.
        check(&want, 1e-6, &(decay, amsgrad), |isa, step, p, g, [first, second, maximum]| {
            let (betas, epsilon, weight_decay) = (BETAS, EPSILON, WEIGHT_DECAY);
            let adam = AdamStep { rate: RATE, betas, epsilon, weight_decay, decay, amsgrad, step };
            adam.apply(isa, p, g, AdamState { first, second, maximum })
        });
    }
}

#[test]
fn nadam() {
    for decay in [WeightDecay::Gradient, WeightDecay::Decoupled] {
        let momentum_decay = 0.3;
        let momentum = |step: u64| BETAS[0] * (1.0 - 0.5 * 0.96f64.powf(step as f64 * momentum_decay));
        let want = reference(|p, g, state, step| {
            let g = decayed(decay, p, g);
            let [_, second] = moments(state, g, false, step);
            let product: f64 = (1..=step).map(momentum).product();
            let (now, next) = (momentum(step), momentum(step + 1));
            let direction = (1.0 - now) / (1.0 - product) * g + next / (1.0 - product * next) * state[0];
            *p -= RATE * direction / (second.sqrt() + EPSILON);
        });
        check(&want, 1e-6, &decay, |isa, step, p, g, [first, second, maximum]| {
            let (betas, epsilon, weight_decay) = (BETAS, EPSILON, WEIGHT_DECAY);
            let nadam = NAdamStep { rate: RATE, betas, epsilon, momentum_decay, weight_decay, decay, step };
            nadam.apply(isa, p, g, AdamState { first, second, maximum })
        });
    }
}

#[test]
fn a_late_step_of_nadam_is_one_of_constant_momentum() {
    let (rate, betas, weight_decay, decay) = (0.1, [0.9, 0.999], 0.0, WeightDecay::Gradient);
    let nadam = NAdamStep { rate, betas, epsilon: 0.0, momentum_decay: 0.004, weight_decay, decay, step: 100_000_000 };
    let [mut p, mut first, mut second] = [[0.0], [1.0], [1.0]];
    let state = AdamState { first: &mut first, second: &mut second, maximum: &mut [] };
    nadam.apply(Isa::Portable, &mut p, &[1.0], state).unwrap();
    // All products of momenta are 0, and the bias is gone: 0.1 · (0.1 · 1 + 0.9 · 1) / 1.
    assert!((p[0] + 0.1).abs() < 1e-7, "{p:?}");
}

#[test]
fn rmsprop() {
    for (momentum, centered) in [(0.0, false), (0.0, true), (0.9, false), (0.9, true)] {
        let alpha = 0.9;
        let want = reference(|p, g, [square, mean, velocity], _| {
            let g = g + WEIGHT_DECAY * *p;
            *square = alpha * *square + (1.0 - alpha) * g * g;
            *mean = alpha * *mean + (1.0 - alpha) * g;
            let variance = if centered { *square - *mean * *mean } else { *square };
            *velocity = momentum * *velocity + g / (variance.sqrt() + EPSILON);
            *p -= RATE * *velocity;
        });
        // The variance is a difference of values of about its own size.
        check(&want, 2e-6, &(momentum, centered), |isa, _, p, g, [square, mean, velocity]| {
            let (epsilon, weight_decay) = (EPSILON, WEIGHT_DECAY);
            let rule = RmsPropStep { rate: RATE, alpha, epsilon, weight_decay, momentum, centered };
            rule.apply(isa, p, g, RmsPropState { square, mean, velocity })
        });
    }
}

#[test]
fn a_variance_below_zero_counts_as_zero() {
    let (rate, alpha, epsilon, momentum) = (1.0, 0.75, 1.0, 0.0);
    let rule = RmsPropStep { rate, alpha, epsilon, weight_decay: 0.0, momentum, centered: true };
    for isa in Isa::available() {
        let [mut p, mut square, mut mean] = [[0.0; 3], [0.9; 3], [1.0; 3]];
        let state = RmsPropState { square: &mut square, mean: &mut mean, velocity: &mut [] };
        rule.apply(isa, &mut p, &[1.0, 1.0, f32::NAN], state).unwrap();
        assert_eq!(p[..2], [-1.0; 2], "{isa}");
        assert!(p[2].is_nan(), "{isa}");
    }
}

#[test]
fn stable_adamw() {
    for (form, amsgrad) in [(StableForm::Published, false), (StableForm::Dinomaly, false), (StableForm::Dinomaly, true)]
    {
        let epsilon = 0.01;
        let mut p = wide(&values(LEN, 1));
        let mut states = vec![[0.0; 3]; LEN];
        let mut all_rms = Vec::new();
        for step in 1..=STEPS {
            let g = wide(&gradient(step));
            let corrected: Vec<[f64; 2]> =
                states.iter_mut().zip(&g).map(|(state, g)| moments(state, *g, amsgrad, step)).collect();
            let ratio = |(g, [_, second]): (&f64, &[f64; 2])| match form {
                StableForm::Published => g * g / second.max(epsilon * epsilon),
                StableForm::Dinomaly => (g / (second.sqrt() + epsilon)).powi(2),
            };
            let rms = (g.iter().zip(&corrected).map(ratio).sum::<f64>() / LEN as f64).sqrt();
            let rate = RATE / rms.max(1.0);
            let decay_rate = if form == StableForm::Published { rate } else { RATE };
            for (p, [first, second]) in p.iter_mut().zip(corrected) {
                *p -= decay_rate * WEIGHT_DECAY * *p + rate * first / (second.sqrt() + epsilon);
            }
            all_rms.push(rms);
        }
        assert!(all_rms[0] <= 1.0 && all_rms[2] > 1.2, "both branches: {all_rms:?}");
        check(&p, 1e-6, &(form, amsgrad), |isa, step, p, g, [first, second, maximum]| {
            let (betas, weight_decay) = (BETAS, WEIGHT_DECAY);
            let rule = StableAdamWStep { rate: RATE, betas, epsilon, weight_decay, amsgrad, form, step };
            let rms = rule.apply(isa, p, g, AdamState { first, second, maximum })?;
            let want = all_rms[step as usize - 1];
            assert!((rms - want).abs() < 1e-5 * want, "{isa}, step {step}: {rms}, expected {want}");
            Ok(())
        });
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
        let want = reference(|p, g, [v, ..], step| {
            let g = g + weight_decay * *p;
            *v = if step == 1 { g } else { momentum * *v + (1.0 - dampening) * g };
            *p -= rate
                * match (momentum == 0.0, nesterov) {
                    (true, _) => g,
                    (false, true) => g + momentum * *v,
                    (false, false) => *v,
                };
        });
        let what = (momentum, dampening, weight_decay, nesterov);
        check(&want, 2e-6, &what, |isa, step, p, g, [velocity, ..]| {
            SgdStep { rate, momentum, dampening, weight_decay, nesterov, step }.apply(isa, p, g, velocity)
        });
    }
}

#[test]
fn lengths_must_agree() {
    #[track_caller]
    fn check(result: Result<(), TrainingError>, message: &str) {
        assert_eq!(result.unwrap_err().to_string(), message);
    }
    let isa = Isa::Portable;
    let (p, g) = (&mut [0.0; 3], &[0.0; 3]);
    let sgd = SgdStep { rate: 0.1, momentum: 0.9, dampening: 0.0, weight_decay: 0.0, nesterov: false, step: 1 };
    check(sgd.apply(isa, p, g, &mut []), "the velocity has 0 values, expected 3");
    check(sgd.apply(isa, p, &[0.0; 2], &mut [0.0; 3]), "the gradient has 2 values, expected 3");

    let (rate, betas, epsilon, weight_decay, step) = (0.1, BETAS, 1e-8, 0.0, 1);
    let decay = WeightDecay::Gradient;
    fn state<'a>(first: &'a mut [f32], second: &'a mut [f32], maximum: &'a mut [f32]) -> AdamState<'a> {
        AdamState { first, second, maximum }
    }
    let adam = AdamStep { rate, betas, epsilon, weight_decay, decay, amsgrad: true, step };
    let moments = &mut [[0.0; 3]; 2];
    let [first, second] = moments;
    check(adam.apply(isa, p, g, state(first, second, &mut [])), "the maximum has 0 values, expected 3");
    let nadam = NAdamStep { rate, betas, epsilon, momentum_decay: 0.004, weight_decay, decay, step };
    check(nadam.apply(isa, p, g, state(first, &mut [], &mut [])), "the second moment has 0 values, expected 3");
    let form = StableForm::Published;
    let stable = StableAdamWStep { rate, betas, epsilon, weight_decay, amsgrad: false, form, step };
    let result = stable.apply(isa, p, g, state(&mut [0.0; 2], second, &mut []));
    check(result.map(drop), "the first moment has 2 values, expected 3");
    let rule = RmsPropStep { rate, alpha: 0.9, epsilon, weight_decay, momentum: 0.0, centered: true };
    let state = RmsPropState { square: first, ..RmsPropState::default() };
    check(rule.apply(isa, p, g, state), "the mean gradient has 0 values, expected 3");

    if !Isa::available().contains(&Isa::Neon) {
        let result = rule.apply(Isa::Neon, &mut [], &[], RmsPropState::default());
        assert!(matches!(result, Err(TrainingError::Isa(IsaError::Unsupported { .. }))));
    }
}
