//! The forward and the backward pass.

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use nomaly_kernels::training::{
    NormBackward, TrainingError, add_assign, global_average, global_average_gradient, relu, relu_gradient,
};

use super::Network;
use super::buffers::Buffers;
use super::error::{TrainableError, in_layer};
use super::steps::{Kind, Slot, Step};

/// The mode of batch norm and dropout in a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// Statistics of the batch, a mask for each image.
    #[default]
    Train,
    /// Running statistics, no dropout.
    Evaluate,
    /// Running statistics, one mask for all images.
    Sample,
}

impl Mode {
    /// The period of a mask in values, for `images` of `each` values; none without dropout.
    fn period(self, images: usize, each: usize) -> Option<usize> {
        match self {
            Self::Train => Some((images * each).max(1)),
            Self::Sample => Some(each),
            Self::Evaluate => None,
        }
    }
}

/// The result of a step, which exists by the plan.
fn present(values: &[Option<Vec<f32>>], step: usize) -> &[f32] {
    values[step].as_deref().expect("a result lives until its last reader")
}

pub(super) fn forward(network: &mut Network, images: &[f32], mode: Mode) -> Result<(), TrainableError> {
    let each = network.steps[0].len();
    if !images.len().is_multiple_of(each) {
        return Err(TrainableError::Images { each, found: images.len() });
    }
    let count = images.len() / each;
    network.mode = mode;
    if mode != Mode::Evaluate {
        // A generator for each pass: the masks of shallow layers do not depend on whether deeper ones are computed.
        let mut keys = ChaCha8Rng::seed_from_u64(network.dropout.next_u64());
        for step in &mut network.steps {
            if let Kind::Dropout { key, .. } = &mut step.kind {
                *key = keys.next_u64();
            }
        }
    }
    for value in &mut network.values {
        if let Some(buffer) = value.take() {
            network.buffers.give(buffer);
        }
    }
    if count != network.images {
        network.buffers.clear();
        network.images = count;
    }
    for index in 0..network.steps.len() {
        let result = if index == 0 {
            let mut copy = network.buffers.take(images.len());
            copy.copy_from_slice(images);
            copy
        } else {
            compute(network, index)?
        };
        network.values[index] = Some(result);
        for position in 0..network.steps[index].inputs.len() {
            let input = network.steps[index].inputs[position];
            let step = &network.steps[input];
            if step.last_use == index
                && !step.kept
                && let Some(buffer) = network.values[input].take()
            {
                network.buffers.give(buffer);
            }
        }
    }
    Ok(())
}

/// The result of one step.
fn compute(network: &mut Network, index: usize) -> Result<Vec<f32>, TrainableError> {
    let Network { steps, slots, values, buffers, images, momentum, isa, mode, .. } = network;
    match &steps[index].kind {
        Kind::Add => return sum(steps, values, buffers, index),
        Kind::Dropout { plan, key } => {
            let mut result = reuse(steps, values, buffers, steps[index].inputs[0], index);
            if let Some(period) = mode.period(*images, steps[index].len()) {
                plan.apply(*key, period, &mut result).map_err(in_layer(&steps[index].name))?;
            }
            return Ok(result);
        }
        _ => {}
    }
    let Step { kind, name, inputs, slots: own, shape, .. } = &mut steps[index];
    let x = present(values, inputs[0]);
    let mut result = buffers.take(*images * shape.iter().product::<usize>());
    let bias = own.get(1).copied();
    let mut run = || -> Result<(), TrainingError> {
        match kind {
            Kind::Input | Kind::Add | Kind::Dropout { .. } => Ok(()),
            Kind::Conv(plan) | Kind::Linear(plan) => {
                let bias = bias.map(|slot| slots[slot].values.as_slice());
                plan.forward(x, &slots[own[0]].values, bias, &mut result)
            }
            Kind::Norm { plan, .. } if *mode != Mode::Train => {
                let [weight, bias, mean, variance] = [0, 1, 2, 3].map(|part| slots[own[part]].values.as_slice());
                plan.evaluate(x, Some(weight), Some(bias), mean, variance, &mut result)
            }
            Kind::Norm { plan, batch: [mean, variance] } => {
                let [weight, bias] = [0, 1].map(|part| Some(slots[own[part]].values.as_slice()));
                plan.forward(x, weight, bias, mean, variance, &mut result)?;
                let [Slot { values: running_mean, .. }, Slot { values: running_variance, .. }] =
                    slots.get_disjoint_mut([own[2], own[3]]).expect("two different statistics");
                plan.update_running(*images, *momentum, [mean, variance], [running_mean, running_variance])
            }
            Kind::Relu => relu(x, &mut result),
            Kind::MaxPool { plan, places } => {
                places.resize(result.len(), 0);
                plan.max(x, &mut result, places)
            }
            Kind::GlobalAverage(plane) => global_average(*isa, *plane, x, &mut result),
        }
    };
    run().map_err(in_layer(name))?;
    Ok(result)
}

/// Whether the result of `input` is unused after step `index`.
fn is_free(steps: &[Step], input: usize, index: usize) -> bool {
    steps[input].last_use == index && !steps[input].kept
}

/// The result of `input` for step `index` to overwrite: itself if nothing else needs it, otherwise a copy.
fn reuse(
    steps: &[Step],
    values: &mut [Option<Vec<f32>>],
    buffers: &mut Buffers,
    input: usize,
    index: usize,
) -> Vec<f32> {
    if is_free(steps, input, index) {
        return values[input].take().expect("a result lives until its last reader");
    }
    let from = present(values, input);
    let mut copy = buffers.take(from.len());
    copy.copy_from_slice(from);
    copy
}

/// The sum of two results, in the memory of one of them if nothing else needs it.
fn sum(
    steps: &[Step],
    values: &mut [Option<Vec<f32>>],
    buffers: &mut Buffers,
    index: usize,
) -> Result<Vec<f32>, TrainableError> {
    let inputs = &steps[index].inputs;
    let (a, b) = (inputs[0], inputs[inputs.len() - 1]);
    if a == b {
        let mut result = buffers.take(present(values, a).len());
        result.copy_from_slice(present(values, a));
        add_assign(&mut result, present(values, b)).map_err(in_layer(&steps[index].name))?;
        return Ok(result);
    }
    let free = |input: usize| is_free(steps, input, index);
    let (target, other) = if !free(a) && free(b) { (b, a) } else { (a, b) };
    let mut result = reuse(steps, values, buffers, target, index);
    add_assign(&mut result, present(values, other)).map_err(in_layer(&steps[index].name))?;
    Ok(result)
}

pub(super) fn backward(network: &mut Network, gradients: &[&[f32]]) -> Result<(), TrainableError> {
    let expected: Vec<usize> =
        network.outputs.iter().map(|&output| network.images * network.steps[output].len()).collect();
    let found: Vec<usize> = gradients.iter().map(|gradient| gradient.len()).collect();
    if expected != found || network.outputs.iter().any(|&output| network.values[output].is_none()) {
        return Err(TrainableError::Gradients { expected, found });
    }
    let outputs = network.outputs.clone();
    for (&output, gradient) in outputs.iter().zip(gradients) {
        let mut copy = network.buffers.take(gradient.len());
        copy.copy_from_slice(gradient);
        network.buffers.accumulate(&mut network.gradients[output], Arc::new(copy));
    }
    for index in (1..network.steps.len()).rev() {
        // The gradients of all readers of this result are done.
        if !outputs.contains(&index)
            && let Some(buffer) = network.values[index].take()
        {
            network.buffers.give(buffer);
        }
        match network.gradients[index].take() {
            Some(gradient) => differentiate(network, index, gradient)?,
            None => network.steps[index].slots.iter().for_each(|&slot| network.slots[slot].gradient.fill(0.0)),
        }
    }
    if let Some(gradient) = network.gradients[0].take() {
        if network.wants_input_gradient {
            let gradient = network.buffers.make_unique(gradient);
            network.buffers.give(std::mem::replace(&mut network.input_gradient, gradient));
        } else {
            network.buffers.give_shared(gradient);
        }
    }
    Ok(())
}

/// Computes the gradients of the parameters of one step and passes on that of its inputs.
fn differentiate(network: &mut Network, index: usize, gradient: Arc<Vec<f32>>) -> Result<(), TrainableError> {
    let Network { steps, slots, values, gradients, buffers, images, mode, wants_input_gradient, .. } = network;
    let [input, ..] = steps[index].inputs[..] else {
        buffers.give_shared(gradient);
        return Ok(());
    };
    let Step { kind, name, inputs, slots: own, .. } = &steps[index];
    let fail = in_layer(name);
    match kind {
        Kind::Input => {}
        Kind::Add => {
            // Both inputs share the same gradient; it is copied only if one is added to while the other is in use.
            for &input in inputs {
                buffers.accumulate(&mut gradients[input], Arc::clone(&gradient));
            }
            buffers.give_shared(gradient);
        }
        Kind::Dropout { plan, key } => {
            let mut gradient = buffers.make_unique(gradient);
            if let Some(period) = mode.period(*images, steps[index].len()) {
                plan.apply(*key, period, &mut gradient).map_err(fail)?;
            }
            buffers.accumulate(&mut gradients[input], Arc::new(gradient));
        }
        Kind::Relu => {
            let mut gradient = buffers.make_unique(gradient);
            relu_gradient(present(values, input), &mut gradient).map_err(fail)?;
            buffers.accumulate(&mut gradients[input], Arc::new(gradient));
        }
        _ => {
            let mut below = (input != 0 || *wants_input_gradient).then(|| buffers.take(*images * steps[input].len()));
            let mut run = || -> Result<(), TrainingError> {
                match kind {
                    Kind::Conv(plan) | Kind::Linear(plan) => {
                        if let [_, bias] = own[..] {
                            plan.bias_gradient(&gradient, &mut slots[bias].gradient)?;
                        }
                        let weight = &mut slots[own[0]];
                        plan.weight_gradient(present(values, input), &gradient, &mut weight.gradient)?;
                        match &mut below {
                            Some(below) => plan.input_gradient(&gradient, &weight.values, below),
                            None => Ok(()),
                        }
                    }
                    Kind::Norm { plan, batch: [mean, variance] } => {
                        let [weight, bias, running_mean, running_variance] =
                            slots.get_disjoint_mut([own[0], own[1], own[2], own[3]]).expect("four different tensors");
                        let fixed = *mode != Mode::Train;
                        let tensors = NormBackward {
                            input: present(values, input),
                            weight: Some(&weight.values),
                            bias: Some(&bias.values),
                            mean: if fixed { &running_mean.values } else { mean },
                            variance: if fixed { &running_variance.values } else { variance },
                            output_gradient: &gradient,
                            input_gradient: below.get_or_insert_with(|| buffers.take(gradient.len())),
                            weight_gradient: Some(&mut weight.gradient),
                            bias_gradient: Some(&mut bias.gradient),
                        };
                        if fixed { plan.backward_fixed(tensors) } else { plan.backward(tensors) }
                    }
                    Kind::MaxPool { plan, places } => match &mut below {
                        Some(below) => plan.max_gradient(&gradient, places, below),
                        None => Ok(()),
                    },
                    Kind::GlobalAverage(plane) => match &mut below {
                        Some(below) => global_average_gradient(*plane, &gradient, below),
                        None => Ok(()),
                    },
                    Kind::Input | Kind::Add | Kind::Relu | Kind::Dropout { .. } => Ok(()),
                }
            };
            run().map_err(fail)?;
            if let Some(below) = below {
                buffers.accumulate(&mut gradients[input], Arc::new(below));
            }
            buffers.give_shared(gradient);
        }
    }
    Ok(())
}
