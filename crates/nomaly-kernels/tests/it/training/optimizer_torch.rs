//! Ten steps of each optimizer, clipping and averages against PyTorch in double precision
//! (`tests/fixtures/gen_optimizers.py`).

use nomaly_kernels::Isa;
use nomaly_kernels::training::{
    AdamState, AdamStep, Gradient, NAdamStep, RmsPropState, RmsPropStep, SgdStep, StableAdamWStep, StableForm,
    WeightAverage, WeightDecay, clip_norm, clip_value, global_norm, norm_factor,
};
use serde_json::Value;

use super::on_every_isa;
use super::torch::{assert_digest, number, values};

const LEN: usize = 37;
const STEPS: u64 = 10;

fn fixture(kind: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../../fixtures/optimizers.json")).expect("a fixture");
    all[kind].as_array().expect("cases").clone()
}

/// The gradient of a step from 1, as in the script.
fn gradient(step: u64) -> Vec<f32> {
    let factor = if step == 6 { 8.0 } else { 0.5f32.powi(step as i32 - 1) };
    values(&format!("gradient{}", step - 1), LEN).into_iter().map(|value| value * factor).collect()
}

/// Parameters after each step, and the RMS that StableAdamW found.
fn steps(case: &Value, isa: Isa) -> (Vec<Vec<f32>>, Vec<f64>) {
    let options = &case["options"];
    let option = |name: &str, default: f64| options.get(name).map_or(default, number);
    let is = |name: &str| options.get(name).is_some_and(|value| value == true);
    let betas = options.get("betas").map_or([0.9, 0.999], |betas| [number(&betas[0]), number(&betas[1])]);
    let (rate, epsilon, weight_decay) = (option("lr", 0.0), option("eps", 1e-8), option("weight_decay", 0.0));
    let (momentum, amsgrad) = (option("momentum", 0.0), is("amsgrad"));
    let mut p = values("parameter", LEN);
    let mut state = [(); 3].map(|()| vec![0.0; LEN]);
    let mut rms = Vec::new();
    let moved = (1..=STEPS).map(|step| {
        let [a, b, c] = &mut state;
        let gradient = &gradient(step);
        let kind = case["kind"].as_str().expect("a name");
        match kind {
            "SGD" => {
                let (dampening, nesterov) = (option("dampening", 0.0), is("nesterov"));
                let sgd = SgdStep { rate, momentum, dampening, weight_decay, nesterov, step };
                sgd.apply(isa, &mut p, gradient, a).unwrap();
            }
            "Adam" | "AdamW" => {
                let decay = if kind == "Adam" { WeightDecay::Gradient } else { WeightDecay::Decoupled };
                let adam = AdamStep { rate, betas, epsilon, weight_decay, decay, amsgrad, step };
                adam.apply(isa, &mut p, gradient, AdamState { first: a, second: b, maximum: c }).unwrap();
            }
            "NAdam" => {
                let decay = if is("decoupled_weight_decay") { WeightDecay::Decoupled } else { WeightDecay::Gradient };
                let momentum_decay = option("momentum_decay", 0.004);
                let nadam = NAdamStep { rate, betas, epsilon, momentum_decay, weight_decay, decay, step };
                nadam.apply(isa, &mut p, gradient, AdamState { first: a, second: b, maximum: &mut [] }).unwrap();
            }
            "RMSprop" => {
                let (alpha, centered) = (option("alpha", 0.99), is("centered"));
                let rule = RmsPropStep { rate, alpha, epsilon, weight_decay, momentum, centered };
                rule.apply(isa, &mut p, gradient, RmsPropState { square: a, mean: b, velocity: c }).unwrap();
            }
            "StableAdamW" => {
                let form = match options["form"].as_str() {
                    Some("published") => StableForm::Published,
                    _ => StableForm::Dinomaly,
                };
                let rule = StableAdamWStep { rate, betas, epsilon, weight_decay, amsgrad, form, step };
                let state = AdamState { first: a, second: b, maximum: c };
                rms.push(rule.apply(isa, &mut p, gradient, state).unwrap());
            }
            kind => panic!("an unknown optimizer {kind}"),
        }
        p.clone()
    });
    (moved.collect(), rms)
}

#[test]
fn optimizers() {
    for case in fixture("optimizers") {
        on_every_isa(
            |isa| steps(&case, isa),
            |isa, (moved, rms)| {
                let what = (isa, &case["kind"], &case["options"]);
                let results = case["results"].as_array().expect("digests");
                assert_eq!((moved.len(), results.len()), (STEPS as usize, STEPS as usize));
                for (got, want) in moved.iter().zip(results) {
                    // Ten steps, each with a few roundings of values near 1.
                    assert_digest(got, want, 5e-7, &what);
                }
                for (got, want) in rms.iter().zip(case["rms"].as_array().into_iter().flatten()) {
                    let want = number(want);
                    assert!((got - want).abs() <= 1e-5 * want, "{what:?}: an RMS of {got}, expected {want}");
                }
            },
        );
    }
}

#[test]
fn clips() {
    for case in fixture("clips") {
        let compute = |isa| {
            let [mut a, mut b, mut c] =
                [(0, 5), (1, 37), (2, 1)].map(|(index, len)| values(&format!("clipped{index}"), len));
            let norm = global_norm(isa, &[&a, &b, &c]).unwrap();
            let all = &mut [a.as_mut_slice(), &mut b, &mut c];
            match case["max_norm"].as_f64() {
                Some(max_norm) => assert_eq!(clip_norm(isa, all, max_norm).unwrap(), norm),
                None => clip_value(isa, all, number(&case["value"])).unwrap(),
            }
            (norm, [a, b, c])
        };
        on_every_isa(compute, |isa, (norm, clipped)| {
            assert!((norm - number(&case["norm"])).abs() < 1e-12, "{isa}");
            for (got, want) in clipped.iter().zip(case["results"].as_array().expect("digests")) {
                assert_digest(got, want, 1e-7, &(isa, &case["max_norm"], &case["value"]));
            }
        });
    }
}

#[test]
fn a_step_clips_as_clipping_in_place_does() {
    let start = values("parameter", LEN);
    let gradient = values("gradient", LEN);
    let sgd = SgdStep { rate: 0.1, momentum: 0.0, dampening: 0.0, weight_decay: 0.1, nesterov: false, step: 1 };
    on_every_isa(
        |isa| {
            let norm = global_norm(isa, &[&gradient]).unwrap();
            let scaled = Gradient { factor: norm_factor(norm, 0.5) as f32, ..Gradient::from(&gradient) };
            let limited = Gradient { limit: 0.25, ..Gradient::from(&gradient) };
            [scaled, limited].map(|gradient| {
                let mut moved = start.clone();
                sgd.apply(isa, &mut moved, gradient, &mut []).unwrap();
                moved
            })
        },
        |isa, fused| {
            let [mut by_norm, mut by_value] = [gradient.clone(), gradient.clone()];
            clip_norm(isa, &mut [&mut by_norm], 0.5).unwrap();
            clip_value(isa, &mut [&mut by_value], 0.25).unwrap();
            for (clipped, fused) in [by_norm, by_value].iter().zip(fused) {
                let mut moved = start.clone();
                sgd.apply(isa, &mut moved, clipped, &mut []).unwrap();
                assert_eq!(&moved, fused, "{isa}");
            }
        },
    );
}

#[test]
fn averages() {
    for case in fixture("averages") {
        let decay = number(&case["decay"]);
        let compute = |isa| {
            // PyTorch's average starts with the first weights.
            let mut average = values("weights0", LEN);
            let mut all = vec![average.clone()];
            for step in 1..STEPS {
                let weights = values(&format!("weights{step}"), LEN);
                WeightAverage { decay, warm_up: false, step }.apply(isa, &mut average, &weights).unwrap();
                all.push(average.clone());
            }
            all
        };
        on_every_isa(compute, |isa, got| {
            for (got, want) in got.iter().zip(case["results"].as_array().expect("digests")) {
                assert_digest(got, want, 2e-7, &(isa, decay));
            }
        });
    }
}
