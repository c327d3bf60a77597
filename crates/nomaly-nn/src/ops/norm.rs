//! Batch, instance and layer normalization.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, Var};
use nomaly_kernels::training::{AfterNorm, BatchNorm, GroupNorm, LayerNorm, NormBackward, RowNormBackward};

use super::elementwise::leaky_relu;
use super::{Done, is_served, isa, slice, wrap};

/// The constants of batch norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// Added to the variance.
    pub epsilon: f64,
    /// The share of a batch's statistics in the running ones, in [0, 1].
    pub momentum: f64,
    /// The activation of the result.
    pub after: AfterNorm,
}

impl Default for Norm {
    fn default() -> Self {
        Self { epsilon: 1e-5, momentum: 0.1, after: AfterNorm::Nothing }
    }
}

/// Means and biased variances of a batch.
type Statistics = [Vec<f32>; 2];

/// All kinds of normalization.
enum Plan {
    Batch(BatchNorm),
    Instance(GroupNorm),
    Layer(LayerNorm),
}

impl Plan {
    fn name(&self) -> &'static str {
        match self {
            Self::Batch(_) => "batch-norm",
            Self::Instance(_) => "instance-norm",
            Self::Layer(_) => "layer-norm",
        }
    }

    /// The result is written to `output`; means and variances of a batch to `statistics`.
    fn forward(&self, [x, weight, bias]: [&[f32]; 3], statistics: &mut Statistics, output: &mut [f32]) -> Done {
        let [mean, variance] = statistics;
        match self {
            Self::Batch(plan) => plan.forward(x, Some(weight), Some(bias), mean, variance, output),
            Self::Instance(plan) => plan.forward(x, Some(weight), Some(bias), output),
            Self::Layer(plan) => plan.forward(x, Some(weight), Some(bias), output),
        }
    }

    fn backward(&self, tensors: NormBackward<'_>) -> Done {
        let of_rows = |tensors| {
            let NormBackward { input, weight, output_gradient, input_gradient, .. } = tensors;
            let NormBackward { weight_gradient, bias_gradient, .. } = tensors;
            RowNormBackward { input, weight, output_gradient, input_gradient, weight_gradient, bias_gradient }
        };
        match self {
            Self::Batch(plan) => plan.backward(tensors),
            Self::Instance(plan) => plan.backward(of_rows(tensors)),
            Self::Layer(plan) => plan.backward(of_rows(tensors)),
        }
    }
}

struct Normalize {
    plan: Plan,
    statistics: Arc<OnceLock<Statistics>>,
}

impl CustomOp3 for Normalize {
    fn name(&self) -> &'static str {
        self.plan.name()
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight, bias) = (slice(s1, l1)?, slice(s2, l2)?, slice(s3, l3)?);
        let mut output = vec![0.0; x.len()];
        let mut statistics = [(); 2].map(|()| vec![0.0; weight.len()]);
        self.plan.forward([x, weight, bias], &mut statistics, &mut output).map_err(wrap)?;
        // Each operation is applied once.
        let _ = self.statistics.set(statistics);
        Ok((CpuStorage::F32(output), l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let lacking = || candle_core::Error::Msg("a norm has not been run".to_owned()).bt();
        let [mean, variance] = self.statistics.get().ok_or_else(lacking)?;
        let channels = mean.len();
        let results = Arc::new(OnceLock::new());
        let op = Backward {
            plan: &self.plan,
            statistics: [mean, variance],
            gradient: gradient.contiguous()?.flatten_all()?.to_vec1()?,
            by_parameters: Arc::clone(&results),
        };
        let by_input = x.apply_op3_no_bwd(weight, bias, &op)?;
        let [by_weight, by_bias] = results.get().cloned().ok_or_else(lacking)?;
        let parameter = |values: Vec<f32>| Tensor::from_vec(values, channels, x.device());
        Ok((Some(by_input), Some(parameter(by_weight)?), Some(parameter(by_bias)?)))
    }
}

/// All three gradients at once: that of the input is the result, the others are stored in the operation.
struct Backward<'a> {
    plan: &'a Plan,
    statistics: [&'a [f32]; 2],
    gradient: Vec<f32>,
    by_parameters: Arc<OnceLock<[Vec<f32>; 2]>>,
}

impl CustomOp3 for Backward<'_> {
    fn name(&self) -> &'static str {
        "norm-gradient"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (input, weight, bias) = (slice(s1, l1)?, slice(s2, l2)?, slice(s3, l3)?);
        let [mut weight_gradient, mut bias_gradient] = [(); 2].map(|()| vec![0.0; weight.len()]);
        let mut by_input = vec![0.0; input.len()];
        self.plan
            .backward(NormBackward {
                input,
                weight: Some(weight),
                bias: Some(bias),
                mean: self.statistics[0],
                variance: self.statistics[1],
                output_gradient: &self.gradient,
                input_gradient: &mut by_input,
                weight_gradient: Some(&mut weight_gradient),
                bias_gradient: Some(&mut bias_gradient),
            })
            .map_err(wrap)?;
        let _ = self.by_parameters.set([weight_gradient, bias_gradient]);
        Ok((CpuStorage::F32(by_input), l1.shape().clone()))
    }
}

/// Batch norm of `x` `[N, C, H, W]` by its own statistics, with factors and summands `[C]`; moves the `running` mean
/// and (population) variance.
///
/// # Errors
/// For shapes that do not fit, and errors of candle.
pub fn batch_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    running: Option<[&Var; 2]>,
    norm: Norm,
) -> Result<Tensor> {
    let (images, channels, height, width) = x.dims4()?;
    let samples = (images * height * width) as f64;
    if !is_served(&[x, weight, bias]) {
        let mean = x.mean_keepdim((0, 2, 3))?;
        let centered = x.broadcast_sub(&mean)?;
        let variance = centered.sqr()?.mean_keepdim((0, 2, 3))?;
        move_running(running, [&mean, &variance], samples, norm.momentum)?;
        let scale = per_channel(weight)?.div(&(variance + norm.epsilon)?.sqrt()?)?;
        let y = centered.broadcast_mul(&scale)?.broadcast_add(&per_channel(bias)?)?;
        return match norm.after {
            AfterNorm::Nothing => Ok(y),
            AfterNorm::Relu => y.relu(),
            AfterNorm::LeakyRelu(slope) => leaky_relu(&y, slope.value()),
        };
    }
    let plan = BatchNorm::new(isa()?, channels, height * width, norm.epsilon, norm.after).map_err(wrap)?;
    let statistics = Arc::new(OnceLock::new());
    let op = Normalize { plan: Plan::Batch(plan), statistics: Arc::clone(&statistics) };
    let y = x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)?;
    if let (Some(_), Some([mean, variance])) = (running, statistics.get()) {
        let [mean, variance] = [mean, variance].map(|values| Tensor::from_slice(values, channels, x.device()));
        move_running(running, [&mean?, &variance?], samples, norm.momentum)?;
    }
    Ok(y)
}

/// Batch norm of `x` `[N, C, H, W]` by a given mean and variance `[C]`, which are constants, with factors and summands
/// `[C]`.
///
/// # Errors
/// For shapes that do not fit, and errors of candle.
pub fn batch_norm_fixed(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    [mean, variance]: [&Tensor; 2],
    epsilon: f64,
) -> Result<Tensor> {
    let centered = x.broadcast_sub(&per_channel(&mean.detach())?)?;
    let scale = per_channel(weight)?.div(&(per_channel(&variance.detach())? + epsilon)?.sqrt()?)?;
    centered.broadcast_mul(&scale)?.broadcast_add(&per_channel(bias)?)
}

/// Instance norm of `x` `[N, C, H, W]`: each plane by its own mean and biased variance, with factors and summands
/// `[C]`.
///
/// # Errors
/// For shapes that do not fit, and errors of candle.
pub fn instance_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, epsilon: f64) -> Result<Tensor> {
    if is_served(&[x, weight, bias]) {
        let (_, channels, height, width) = x.dims4()?;
        let plan = GroupNorm::instance(isa()?, channels, height * width, epsilon).map_err(wrap)?;
        let op = Normalize { plan: Plan::Instance(plan), statistics: Arc::default() };
        return x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, op);
    }
    let centered = x.broadcast_sub(&x.mean_keepdim((2, 3))?)?;
    let deviation = (centered.sqr()?.mean_keepdim((2, 3))? + epsilon)?.sqrt()?;
    centered.broadcast_div(&deviation)?.broadcast_mul(&per_channel(weight)?)?.broadcast_add(&per_channel(bias)?)
}

/// Layer norm by the kernel of each row of `x`, with factors and summands.
pub(super) fn normalize_rows(x: &Tensor, weight: &Tensor, bias: &Tensor, plan: LayerNorm) -> Result<Tensor> {
    let op = Normalize { plan: Plan::Layer(plan), statistics: Arc::default() };
    x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)
}

/// `[C]` as `[1, C, 1, 1]`.
fn per_channel(x: &Tensor) -> Result<Tensor> {
    x.reshape((1, (), 1, 1))
}

/// Moves the running statistics towards those of a batch with this many values per channel.
fn move_running(running: Option<[&Var; 2]>, batch: [&Tensor; 2], samples: f64, momentum: f64) -> Result<()> {
    let Some(running) = running else { return Ok(()) };
    // The running variance is that of the population, the batch is normalized by its own.
    let factors = [1.0, samples / (samples - 1.0).max(1.0)];
    for ((running, batch), factor) in running.into_iter().zip(batch).zip(factors) {
        let batch = batch.detach().flatten_all()?;
        running.set(&((running.detach() * (1.0 - momentum))? + (batch * (momentum * factor))?)?)?;
    }
    Ok(())
}
