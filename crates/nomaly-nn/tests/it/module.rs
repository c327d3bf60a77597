//! The candle module: the training steps of [`crate::steps`] on candle's tape, in single precision by the kernels and
//! in double precision by candle's own operations, and its agreement with `Network` on every node.

use candle_core::{DType, Device, Result, Tensor, Var};
use nomaly_kernels::Isa;
use nomaly_nn::graph::Graph;
use nomaly_nn::module::{Mode, Module, ModuleError};
use nomaly_nn::ops::{self, VarOptimizer};
use nomaly_nn::trainable::{Network, Pass, Rule};
use nomaly_nn::weights::Weights;
use serde_json::Value;

use crate::formula;
use crate::networks::{
    CLOSE, GRADIENT, assert_digest, assert_loss, assert_near, critic, fixture, generator, input, mobile, rest, unet,
};

const DTYPES: [DType; 2] = [DType::F32, DType::F64];

/// All outputs of a graph, all parameters in training.
fn module(graph: &Graph, weights: &Weights, dtype: DType) -> Module {
    let outputs = graph.taps().iter().map(|tap| tap.node).collect();
    let module = Module::trainable(graph.clone(), outputs, weights, &Device::Cpu, |_| true).unwrap();
    module.to_dtype(dtype).unwrap()
}

fn tensor(values: &[f32], shape: [usize; 4], dtype: DType) -> Tensor {
    Tensor::from_slice(values, &shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn scalar(tensor: &Tensor) -> f64 {
    tensor.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
}

fn optimizer(module: &Module, rule: Rule) -> VarOptimizer {
    VarOptimizer::new(rule, module.variables().map(|(_, variable)| variable.clone()).collect())
}

/// Holds a step's gradients and running statistics against a fixture.
fn assert_step(module: &Module, gradients: &candle_core::backprop::GradStore, want: &Value, dtype: DType) {
    assert_eq!(module.variables().count(), want["gradients"].as_object().unwrap().len());
    for (name, variable) in module.variables() {
        let gradient = gradients.get(variable).unwrap_or_else(|| panic!("no gradient for {name}"));
        assert_digest(&format!("{dtype:?}: {name}"), &values(gradient), &want["gradients"][name], GRADIENT);
    }
    for (name, tensor) in module.export().unwrap().iter().filter(|(name, _)| name.contains("running")) {
        assert_digest(&format!("{dtype:?}: {name}"), &tensor.to_f32().unwrap(), &want["running"][name], 1e-6);
    }
}

/// The module's weights give the network the same outputs, and the network's give another module the same as well.
fn assert_same_network(graph: &Graph, module: &Module, size: usize, dtype: DType) -> Result<()> {
    let taps: Vec<&str> = graph.taps().iter().map(|tap| tap.name.as_str()).collect();
    let channels = graph.nodes()[0].channels;
    let x = input("input", 2 * channels * size * size);
    let mut network = Network::new(graph, &taps, [size; 2], &formula::weights(graph), Isa::best().unwrap()).unwrap();
    network.load(&module.export()?).unwrap();
    network.run(&[&x], Pass::Evaluate).unwrap();
    let mut other = self::module(graph, &formula::weights(graph), dtype);
    other.load(&network.weights()).unwrap();
    let x = tensor(&x, [2, channels, size, size], dtype);
    for module in [module, &other] {
        let outputs = module.forward(&[&x], Mode::Evaluate)?;
        for (place, output) in outputs.iter().enumerate() {
            assert_near(&format!("{dtype:?}: {}", taps[place]), &values(output), network.output(place));
        }
    }
    assert_eq!(other.export()?, network.weights());
    Ok(())
}

#[test]
fn a_step_of_a_network_with_skips_is_that_of_pytorch() -> Result<()> {
    let want = fixture(include_str!("../fixtures/unet-step.json"));
    let graph = unet();
    for dtype in DTYPES {
        let module = module(&graph, &formula::weights(&graph), dtype);
        let x = Var::from_tensor(&tensor(&input("input", 3 * 2 * 256), [3, 2, 16, 16], dtype))?;
        let target: Vec<f32> = formula::values("target", x.elem_count()).map(|u| (0.5 + 0.5 * u) as f32).collect();
        let target = tensor(&target, [3, 2, 16, 16], dtype);
        let loss = || candle_nn::loss::mse(&module.forward(&[&x], Mode::TRAIN)?[0], &target);
        let first = loss()?;
        assert_loss(&format!("{dtype:?}: first loss"), scalar(&first), &want["losses"][0], CLOSE);
        let gradients = first.backward()?;
        assert_step(&module, &gradients, &want, dtype);
        assert_digest("input", &values(gradients.get(&x).unwrap()), &want["input"], GRADIENT);
        optimizer(&module, Rule::adam(0.01)).step(&gradients)?;
        // Adam divides by the root of gradients that may be mere rounding errors.
        assert_loss(&format!("{dtype:?}: second loss"), scalar(&loss()?), &want["losses"][1], 1e-3);
        assert_same_network(&graph, &module, 16, dtype)?;
    }
    Ok(())
}

#[test]
fn steps_of_an_inverted_bottleneck_are_those_of_pytorch() -> Result<()> {
    let want = fixture(include_str!("../fixtures/mobile-step.json"));
    let graph = mobile();
    let rule = Rule::Sgd { rate: 0.05, momentum: 0.9, dampening: 0.0, weight_decay: 0.0, nesterov: true };
    let labels = Tensor::new(&[0u32, 1, 2, 3], &Device::Cpu)?;
    for dtype in DTYPES {
        let module = module(&graph, &formula::weights(&graph), dtype);
        let mut optimizer = optimizer(&module, rule);
        let x = tensor(&input("input", 4 * 3 * 256), [4, 3, 16, 16], dtype);
        for step in 0..3 {
            let logits = module.forward(&[&x], Mode::TRAIN)?.remove(0);
            let loss = ops::cross_entropy(&logits.flatten_from(1)?, &labels)?;
            assert_loss(&format!("{dtype:?}: loss {step}"), scalar(&loss), &want["losses"][step], CLOSE);
            let gradients = loss.backward()?;
            if step == 0 {
                assert_step(&module, &gradients, &want, dtype);
            }
            optimizer.step(&gradients)?;
        }
        assert_same_network(&graph, &module, 16, dtype)?;
    }
    Ok(())
}

/// The binary cross-entropy of the critic's verdict on `images`, from logits.
fn judge(critic: &Module, images: &Tensor, label: f64) -> Result<Tensor> {
    let verdict = critic.forward(&[images], Mode::TRAIN)?.remove(0);
    let rest = (verdict.abs()?.neg()?.exp()? + 1.0)?.log()?;
    ((verdict.relu()? - (&verdict * label)?)? + rest)?.mean_all()
}

#[test]
fn ten_alternating_steps_of_two_networks_are_those_of_pytorch() -> Result<()> {
    let want = fixture(include_str!("../fixtures/gan-steps.json"));
    let graphs = [generator(), critic()];
    let mut rule = Rule::adam(0.002);
    if let Rule::Adam { betas, .. } = &mut rule {
        betas[0] = 0.5;
    }
    for dtype in DTYPES {
        let [generator, critic] = [0, 1].map(|i: usize| module(&graphs[i], &formula::weights(&graphs[i]), dtype));
        let [mut moves_generator, mut moves_critic] = [&generator, &critic].map(|module| optimizer(module, rule));
        for step in 0..10 {
            let real: Vec<f32> = input(&format!("real{step}"), 4 * 256).iter().map(|value| value / 2.0).collect();
            let real = tensor(&real, [4, 1, 16, 16], dtype);
            let noise = tensor(&input(&format!("z{step}"), 4 * 6), [4, 6, 1, 1], dtype);
            let made = generator.forward(&[&noise], Mode::TRAIN)?.remove(0);
            let on_real = judge(&critic, &real, 1.0)?;
            let on_made = judge(&critic, &made.detach(), 0.0)?;
            moves_critic.step(&(&on_real + &on_made)?.backward()?)?;
            let loss = judge(&critic, &made, 1.0)?;
            moves_generator.step(&loss.backward()?)?;
            for (part, got) in [on_real, on_made, loss].iter().enumerate() {
                // Rounding grows from step to step.
                let slack = CLOSE.max(1e-5 * 3f64.powi(step));
                let what = format!("{dtype:?}: loss {part} of step {step}");
                assert_loss(&what, scalar(got), &want["losses"][step as usize][part], slack);
            }
        }
        let states = [generator.export()?, critic.export()?].into_iter().flatten();
        let mut count = 0;
        for (name, state) in states {
            count += 1;
            assert_digest(&format!("{dtype:?}: {name}"), &state.to_f32().unwrap(), &want["states"][&name], 1e-3);
        }
        assert_eq!(count, want["states"].as_object().unwrap().len());
        assert_same_network(&graphs[0], &generator, 1, dtype)?;
        assert_same_network(&graphs[1], &critic, 16, dtype)?;
    }
    Ok(())
}

#[test]
fn every_other_node_agrees_with_the_network_in_all_modes() -> Result<()> {
    let graph = rest();
    let weights = formula::weights(&graph);
    let taps: Vec<&str> = graph.taps().iter().map(|tap| tap.name.as_str()).collect();
    let (sizes, shapes) = ([[10, 14], [5, 7]], [[2, 3, 10, 14], [2, 2, 5, 7]]);
    let inputs = [0, 1].map(|i: usize| input(["a", "b"][i], shapes[i].iter().product()));
    for dtype in DTYPES {
        let mut network =
            Network::with_inputs(&graph, &taps, &sizes, &weights, Isa::best().unwrap()).unwrap().with_input_gradient();
        network.seed_dropout(5);
        let module = module(&graph, &weights, dtype);
        module.seed_dropout(5);
        let variables = [0, 1].map(|i: usize| Var::from_tensor(&tensor(&inputs[i], shapes[i], dtype)).unwrap());
        let passes = [(Pass::Train, Mode::TRAIN), (Pass::Evaluate, Mode::Evaluate), (Pass::Sample, Mode::Sample)];
        for (pass, mode) in passes {
            network.run(&[&inputs[0], &inputs[1]], pass).unwrap();
            let outputs = module.forward(&[variables[0].as_tensor(), variables[1].as_tensor()], mode)?;
            let mut loss = Tensor::zeros((), dtype, &Device::Cpu)?;
            let mut probes = Vec::new();
            for (place, output) in outputs.iter().enumerate() {
                let what = format!("{dtype:?} {mode:?}: {}", taps[place]);
                assert_near(&what, &values(output), network.output(place));
                let probe = input(taps[place], output.elem_count());
                let factors = Tensor::from_slice(&probe, output.shape(), &Device::Cpu)?.to_dtype(dtype)?;
                loss = (loss + (output * factors)?.sum_all()?)?;
                probes.push(probe);
            }
            network.backward(&probes.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
            let gradients = loss.backward()?;
            let by_name: std::collections::BTreeMap<&str, &Var> = module.variables().collect();
            assert_eq!(by_name.len(), network.gradients().count());
            for (name, _, want) in network.gradients() {
                let gradient = gradients.get(by_name[name]).unwrap_or_else(|| panic!("no gradient for {name}"));
                assert_near(&format!("{dtype:?} {mode:?}: {name}"), &values(gradient), want);
            }
            for (place, variable) in variables.iter().enumerate() {
                let gradient = gradients.get(variable).expect("a gradient of the input");
                let what = format!("{dtype:?} {mode:?}: input {place}");
                assert_near(&what, &values(gradient), network.input_gradient_of(place));
            }
        }
    }
    Ok(())
}

#[test]
fn what_cannot_be_computed_is_an_error_that_names_the_operation() {
    let graph = critic();
    let mut weights = formula::weights(&graph);
    for dtype in DTYPES {
        let module = module(&graph, &weights, dtype);
        let fails = |inputs: &[&Tensor]| module.forward(inputs, Mode::Evaluate).unwrap_err().to_string();
        let images = |[channels, side]: [usize; 2]| Tensor::zeros((1, channels, side, side), dtype, &Device::Cpu);
        let [wide, small] = [[2, 16], [1, 6]].map(|shape| images(shape).unwrap());
        assert!(fails(&[]).contains("1 inputs, not 0"), "{}", fails(&[]));
        assert!(fails(&[&wide]).contains("`input`"), "{}", fails(&[&wide]));
        assert!(
            fails(&[&small]).contains("`d.second`") || fails(&[&small]).contains("`d.last`"),
            "{}",
            fails(&[&small])
        );
    }
    let mut loaded = module(&graph, &weights, DType::F32);
    let before = loaded.export().unwrap();
    let removed = weights.remove("d.second.weight").unwrap();
    let module = module(&graph, &weights, DType::F32);
    let error = module.forward(&[&tensor(&[0.0; 256], [1, 1, 16, 16], DType::F32)], Mode::Evaluate).unwrap_err();
    assert!(error.to_string().contains("`d.second`"), "{error}");
    assert!(matches!(loaded.load(&weights), Err(ModuleError::MissingTensor { tensor }) if tensor == "d.second.weight"));
    weights.insert("d.second.weight".to_owned(), weights["d.bn2.weight"].clone());
    let expected = removed.shape.clone();
    assert!(matches!(loaded.load(&weights), Err(ModuleError::Shape { expected: shape, .. }) if shape == expected));
    assert_eq!(loaded.export().unwrap(), before);
}
