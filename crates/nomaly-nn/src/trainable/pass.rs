//! The forward and the backward pass.

use std::sync::Arc;

use nomaly_kernels::Isa;
use nomaly_kernels::training::{
    NormBackward, RowNormBackward, TrainingError, activate_in_place, activation_gradient, add_assign, global_average,
    global_average_gradient, softmax, softmax_gradient,
};

use super::Network;
use super::buffers::Buffers;
use super::error::{TrainableError, in_layer};
use super::steps::{Kind, Slot, Step};

/// The mode of batch norm and dropout in a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pass {
    /// As in training: batch norm normalizes by the statistics of the batch and moves the running ones, dropout has a
    /// separate mask for each image.
    #[default]
    Train,
    /// As the inference plan does: batch norm normalizes by the running statistics, there is no dropout, and nothing is
    /// changed. An image's results do not depend on the others.
    Evaluate,
    /// With the running statistics and with dropout: one pass of Monte Carlo dropout (Gal & Ghahramani, *Dropout as a
    /// Bayesian Approximation*, 2016, section 4). A pass is a draw of the network's weights, so all images share the
    /// same mask: an image's results do not depend on the others, and the passes of one seed are the same networks for
    /// each batch.
    Sample,
}

impl Pass {
    /// The period of a mask in values, for `images` of `each` values; none without dropout.
    pub(crate) fn period(self, images: usize, each: usize) -> Option<usize> {
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

/// The number of images in `inputs`, one slice for each input of the network.
fn images_in(network: &Network, inputs: &[&[f32]]) -> Result<usize, TrainableError> {
    if inputs.len() != network.inputs.len() {
        return Err(TrainableError::Inputs { expected: network.inputs.len(), found: inputs.len() });
    }
    let mut count = None;
    for (values, &step) in inputs.iter().zip(&network.inputs) {
        let each = network.steps[step].len();
        let images = values.len() / each;
        if !values.len().is_multiple_of(each) || count.is_some_and(|count| count != images) {
            return Err(TrainableError::Images { each, found: values.len() });
        }
        count = Some(images);
    }
    Ok(count.unwrap_or(0))
}

pub(super) fn forward(network: &mut Network, inputs: &[&[f32]], pass: Pass) -> Result<(), TrainableError> {
    let count = images_in(network, inputs)?;
    network.pass = pass;
    if pass != Pass::Evaluate {
        let dropouts = network.steps.iter_mut().filter_map(|step| match &mut step.kind {
            Kind::Dropout { key, .. } => Some(key),
            _ => None,
        });
        dropouts.zip(network.dropout.next_pass()).for_each(|(key, next)| *key = next);
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
    let mut given = inputs.iter();
    for index in 0..network.steps.len() {
        let result = match network.steps[index].kind {
            Kind::Input => {
                let values = given.next().expect("the inputs were counted");
                let mut copy = network.buffers.take(values.len());
                copy.copy_from_slice(values);
                copy
            }
            _ => compute(network, index)?,
        };
        network.values[index] = Some(result);
        for position in 0..network.steps[index].inputs.len() {
            let input = network.steps[index].inputs[position];
            if is_free(&network.steps, input, index)
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
    let Network { steps, slots, values, buffers, images, momentum, isa, pass, .. } = network;
    let first = steps[index].inputs[0];
    match &steps[index].kind {
        Kind::Add => return sum(steps, values, buffers, index),
        Kind::Reshape => return Ok(reuse(steps, values, buffers, first, index)),
        Kind::Dropout { plan, key } => {
            let mut result = reuse(steps, values, buffers, first, index);
            if let Some(period) = pass.period(*images, steps[index].len()) {
                plan.apply(*key, period, &mut result).map_err(in_layer(&steps[index].name))?;
            }
            return Ok(result);
        }
        Kind::Activation(activation) => {
            let mut result = reuse(steps, values, buffers, first, index);
            activate_in_place(*isa, *activation, &mut result).map_err(in_layer(&steps[index].name))?;
            return Ok(result);
        }
        _ => {}
    }
    let Step { kind, name, inputs, slots: own, shape, .. } = &mut steps[index];
    let x = present(values, inputs[0]);
    let mut result = buffers.take(*images * shape.iter().product::<usize>());
    let mut run = || -> Result<(), TrainingError> {
        match kind {
            Kind::Input | Kind::Add | Kind::Reshape | Kind::Activation(_) | Kind::Dropout { .. } => Ok(()),
            Kind::Conv(plan) | Kind::Linear(plan) => {
                plan.forward(x, &slots[own[0]].values, parameter(slots, own, 1), &mut result)
            }
            Kind::ConvTranspose(plan) => plan.forward(x, &slots[own[0]].values, parameter(slots, own, 1), &mut result),
            Kind::BatchNorm { plan, affine, .. } if *pass != Pass::Train => {
                let [weight, bias] = [0, 1].map(|place| parameter(slots, own, place).filter(|_| *affine));
                let [mean, variance] = statistics(own).map(|slot| slots[slot].values.as_slice());
                plan.evaluate(x, weight, bias, mean, variance, &mut result)
            }
            Kind::BatchNorm { plan, batch: [mean, variance], affine } => {
                let [weight, bias] = [0, 1].map(|place| parameter(slots, own, place).filter(|_| *affine));
                plan.forward(x, weight, bias, mean, variance, &mut result)?;
                let [Slot { values: running_mean, .. }, Slot { values: running_variance, .. }] =
                    slots.get_disjoint_mut(statistics(own)).expect("two different statistics");
                plan.update_running(*images, *momentum, [mean, variance], [running_mean, running_variance])
            }
            Kind::InstanceNorm(plan) => {
                plan.forward(x, parameter(slots, own, 0), parameter(slots, own, 1), &mut result)
            }
            Kind::Concat(plan) => {
                let parts: Vec<&[f32]> = inputs.iter().map(|&input| present(values, input)).collect();
                plan.forward(&parts, &mut result)
            }
            Kind::Pad(plan) => plan.forward(x, &mut result),
            Kind::Upsample(plan) => plan.forward(x, &mut result),
            Kind::MaxPool { plan, places } => {
                places.resize(result.len(), 0);
                plan.max(x, &mut result, places)
            }
            Kind::AvgPool { plan, over } => plan.average(*over, x, &mut result),
            Kind::GlobalAverage(plane) => global_average(*isa, *plane, x, &mut result),
            Kind::Gate(plan) => plan.forward(x, present(values, inputs[1]), &mut result),
            Kind::Softmax(channels) => softmax(*isa, *channels, x, &mut result),
            Kind::Tokens(kind) => {
                let parameters: Vec<&[f32]> = own.iter().map(|&slot| slots[slot].values.as_slice()).collect();
                kind.forward(x, &parameters, &mut result)
            }
        }
    };
    run().map_err(in_layer(name))?;
    Ok(result)
}

/// The values of a step's parameter, if it has that many.
fn parameter<'a>(slots: &'a [Slot], own: &[usize], place: usize) -> Option<&'a [f32]> {
    own.get(place).map(|&slot| slots[slot].values.as_slice())
}

/// The slots of a batch norm's running mean and variance: the last two.
fn statistics(slots: &[usize]) -> [usize; 2] {
    [slots[slots.len() - 2], slots[slots.len() - 1]]
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
    let fits = expected.len() == found.len() && expected.iter().zip(&found).all(|(a, b)| a == b || *b == 0);
    if !fits || network.outputs.iter().any(|&output| network.values[output].is_none()) {
        return Err(TrainableError::Gradients { expected, found });
    }
    let outputs = network.outputs.clone();
    for (&output, gradient) in outputs.iter().zip(gradients).filter(|(_, gradient)| !gradient.is_empty()) {
        let mut copy = network.buffers.take(gradient.len());
        copy.copy_from_slice(gradient);
        network.buffers.accumulate(&mut network.gradients[output], Arc::new(copy));
    }
    let wanted = wanted(network);
    for index in (0..network.steps.len()).rev() {
        match network.gradients[index].take() {
            Some(gradient) => differentiate(network, index, gradient, &wanted)?,
            None if network.frozen || network.accumulates => {}
            None => network.steps[index].slots.iter().for_each(|&slot| network.slots[slot].gradient.fill(0.0)),
        }
        // The gradients of all readers of this result, and its own, are done.
        if !outputs.contains(&index)
            && let Some(buffer) = network.values[index].take()
        {
            network.buffers.give(buffer);
        }
    }
    Ok(())
}

/// For each step, whether a gradient of its result is of use: to parameters of it or below it, or to the inputs.
fn wanted(network: &Network) -> Vec<bool> {
    let mut wanted = Vec::with_capacity(network.steps.len());
    for step in &network.steps {
        let own = match step.kind {
            Kind::Input => network.wants_input_gradient,
            _ => !network.frozen && !step.slots.is_empty(),
        };
        wanted.push(own || step.inputs.iter().any(|&input| wanted[input]));
    }
    wanted
}

/// Computes the gradients of the parameters of one step and passes on those of its inputs.
fn differentiate(
    network: &mut Network,
    index: usize,
    gradient: Arc<Vec<f32>>,
    wanted: &[bool],
) -> Result<(), TrainableError> {
    let Network { steps, slots, values, gradients, buffers, images, isa, frozen, accumulates, pass, .. } = network;
    let Step { kind, name, inputs, slots: own, .. } = &steps[index];
    let fail = in_layer(name);
    if let Kind::Input = kind {
        if wanted[index] {
            let place = network.inputs.iter().position(|&input| input == index).expect("an input is listed");
            let gradient = buffers.make_unique(gradient);
            buffers.give(std::mem::replace(&mut network.input_gradients[place], gradient));
        } else {
            buffers.give_shared(gradient);
        }
        return Ok(());
    }
    let first = inputs[0];
    match kind {
        Kind::Add | Kind::Reshape => {
            // The inputs share the same gradient; it is copied only if one is added to while another is in use.
            for &input in inputs.iter().filter(|&&input| wanted[input]) {
                buffers.accumulate(&mut gradients[input], Arc::clone(&gradient));
            }
            buffers.give_shared(gradient);
            return Ok(());
        }
        Kind::Dropout { .. } | Kind::Activation(_) | Kind::Softmax(_) => {
            let mut gradient = buffers.make_unique(gradient);
            in_place(kind, *isa, values, index, first, pass.period(*images, steps[index].len()), &mut gradient)
                .map_err(fail)?;
            pass_on(buffers, gradients, first, wanted, gradient);
            return Ok(());
        }
        Kind::Concat(plan) => {
            let mut parts: Vec<Vec<f32>> =
                inputs.iter().map(|&input| buffers.take(*images * steps[input].len())).collect();
            plan.split(&gradient, &mut parts.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>()).map_err(fail)?;
            for (&input, part) in inputs.iter().zip(parts) {
                pass_on(buffers, gradients, input, wanted, part);
            }
            buffers.give_shared(gradient);
            return Ok(());
        }
        Kind::Gate(plan) => {
            let [x, gate] = [first, inputs[1]];
            let mut by_input = buffers.take(gradient.len());
            let mut by_gate = buffers.take(*images * steps[gate].len());
            plan.backward(present(values, x), present(values, gate), &gradient, &mut by_input, &mut by_gate)
                .map_err(fail)?;
            pass_on(buffers, gradients, x, wanted, by_input);
            pass_on(buffers, gradients, gate, wanted, by_gate);
            buffers.give_shared(gradient);
            return Ok(());
        }
        _ => {}
    }
    // Gradients of parameters that are added to earlier ones are computed beside them.
    let train = !*frozen;
    let earlier: Vec<Vec<f32>> = match *accumulates && train {
        true => own
            .iter()
            .map(|&slot| {
                let fresh = buffers.take(slots[slot].gradient.len());
                std::mem::replace(&mut slots[slot].gradient, fresh)
            })
            .collect(),
        false => Vec::new(),
    };
    let mut below = wanted[first].then(|| buffers.take(*images * steps[first].len()));
    let mut run = || -> Result<(), TrainingError> {
        let x = values[first].as_deref().unwrap_or(&[]);
        match kind {
            Kind::Conv(plan) | Kind::Linear(plan) => {
                if train {
                    if let [_, bias] = own[..] {
                        plan.bias_gradient(&gradient, &mut slots[bias].gradient)?;
                    }
                    plan.weight_gradient(x, &gradient, &mut slots[own[0]].gradient)?;
                }
                match &mut below {
                    Some(below) => plan.input_gradient(&gradient, &slots[own[0]].values, below),
                    None => Ok(()),
                }
            }
            Kind::ConvTranspose(plan) => {
                if train {
                    if let [_, bias] = own[..] {
                        plan.bias_gradient(&gradient, &mut slots[bias].gradient)?;
                    }
                    plan.weight_gradient(x, &gradient, &mut slots[own[0]].gradient)?;
                }
                match &mut below {
                    Some(below) => plan.input_gradient(&gradient, &slots[own[0]].values, below),
                    None => Ok(()),
                }
            }
            Kind::BatchNorm { plan, batch: [mean, variance], affine } => {
                let [running_mean, running_variance] = statistics(own);
                let fixed = *pass != Pass::Train;
                let mean = if fixed { slots[running_mean].values.clone() } else { mean.clone() };
                let variance = if fixed { slots[running_variance].values.clone() } else { variance.clone() };
                let [weight, bias] = match *affine {
                    true => slots.get_disjoint_mut([own[0], own[1]]).expect("two different tensors").map(Some),
                    false => [None, None],
                };
                let (weight, weight_gradient) = parts(weight, train);
                let (bias, bias_gradient) = parts(bias, train);
                let tensors = NormBackward {
                    input: x,
                    weight,
                    bias,
                    mean: &mean,
                    variance: &variance,
                    output_gradient: &gradient,
                    input_gradient: below.get_or_insert_with(|| buffers.take(gradient.len())),
                    weight_gradient,
                    bias_gradient,
                };
                if fixed { plan.backward_fixed(tensors) } else { plan.backward(tensors) }
            }
            Kind::InstanceNorm(plan) => {
                let [weight, bias] = match own[..] {
                    [weight, bias] => slots.get_disjoint_mut([weight, bias]).expect("two different tensors").map(Some),
                    _ => [None, None],
                };
                let (weight, weight_gradient) = parts(weight, train);
                let (_, bias_gradient) = parts(bias, train);
                plan.backward(RowNormBackward {
                    input: x,
                    weight,
                    output_gradient: &gradient,
                    input_gradient: below.get_or_insert_with(|| buffers.take(gradient.len())),
                    weight_gradient,
                    bias_gradient,
                })
            }
            Kind::Tokens(kind) => {
                // The slots of a step stand side by side.
                let range = own.first().map_or(0..0, |&slot| slot..slot + own.len());
                let trained = slots[range]
                    .iter_mut()
                    .map(|Slot { values, gradient, .. }| (values.as_slice(), train.then_some(gradient.as_mut_slice())));
                let below = below.get_or_insert_with(|| buffers.take(*images * steps[first].len()));
                kind.backward(x, trained.collect(), &gradient, below)
            }
            _ => match &mut below {
                Some(below) => backward_of_input(kind, &gradient, below),
                None => Ok(()),
            },
        }
    };
    run().map_err(fail)?;
    for (&slot, earlier) in own.iter().zip(earlier) {
        let fresh = std::mem::replace(&mut slots[slot].gradient, earlier);
        add_assign(&mut slots[slot].gradient, &fresh).map_err(in_layer(name))?;
        buffers.give(fresh);
    }
    if let Some(below) = below {
        pass_on(buffers, gradients, first, wanted, below);
    }
    buffers.give_shared(gradient);
    Ok(())
}

/// Adds a gradient to that of a step, if it is of use.
fn pass_on(
    buffers: &mut Buffers,
    gradients: &mut [Option<Arc<Vec<f32>>>],
    to: usize,
    wanted: &[bool],
    gradient: Vec<f32>,
) {
    if wanted[to] {
        buffers.accumulate(&mut gradients[to], Arc::new(gradient));
    } else {
        buffers.give(gradient);
    }
}

/// The values of a parameter, and its gradient if it is trained.
fn parts(slot: Option<&mut Slot>, train: bool) -> (Option<&[f32]>, Option<&mut [f32]>) {
    match slot {
        Some(Slot { values, gradient, .. }) => (Some(values), train.then_some(gradient.as_mut_slice())),
        None => (None, None),
    }
}

/// Turns the gradient of an output into that of the input, in place.
fn in_place(
    kind: &Kind,
    isa: Isa,
    values: &[Option<Vec<f32>>],
    index: usize,
    input: usize,
    period: Option<usize>,
    gradient: &mut [f32],
) -> Result<(), TrainingError> {
    match kind {
        Kind::Dropout { plan, key } => match period {
            Some(period) => plan.apply(*key, period, gradient),
            None => Ok(()),
        },
        Kind::Activation(activation) => {
            let read = if kind.keeps_output() { index } else { input };
            activation_gradient(isa, *activation, values[read].as_deref().unwrap_or(&[]), gradient)
        }
        Kind::Softmax(channels) => softmax_gradient(isa, *channels, present(values, index), gradient),
        _ => Ok(()),
    }
}

/// The gradient of the input of a step without parameters.
fn backward_of_input(kind: &Kind, gradient: &[f32], below: &mut [f32]) -> Result<(), TrainingError> {
    match kind {
        Kind::MaxPool { plan, places } => plan.max_gradient(gradient, places, below),
        Kind::AvgPool { plan, over } => plan.average_gradient(*over, gradient, below),
        Kind::GlobalAverage(plane) => global_average_gradient(*plane, gradient, below),
        Kind::Pad(plan) => plan.input_gradient(gradient, below),
        Kind::Upsample(plan) => plan.input_gradient(gradient, below),
        _ => Ok(()),
    }
}
