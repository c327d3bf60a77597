//! Softmax cross-entropy.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};
use nomaly_kernels::training;

use super::{is_served, slice, wrap};

struct CrossEntropy {
    classes: usize,
    labels: Vec<u32>,
    /// The gradient of the logits, which the forward pass computes anyway.
    gradient: OnceLock<Vec<f32>>,
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let logits = slice(storage, layout)?;
        let mut gradient = vec![0.0; logits.len()];
        let loss = training::cross_entropy(logits, self.classes, &self.labels, &mut gradient).map_err(wrap)?;
        // Each operation is applied once.
        let _ = self.gradient.set(gradient);
        Ok((CpuStorage::F32(vec![loss]), Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let lacking = || candle_core::Error::Msg("cross-entropy has not been run".to_owned()).bt();
        let own = Tensor::from_slice(self.gradient.get().ok_or_else(lacking)?, logits.shape(), logits.device())?;
        own.broadcast_mul(gradient).map(Some)
    }
}

/// The mean over samples of `-log softmax(logits)[label]`, a scalar; `logits` are `[N, classes]`, `labels` `[N]` of
/// u32.
///
/// # Errors
/// For labels that are not classes, shapes that do not fit, and errors of candle.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let (_, classes) = logits.dims2()?;
    if is_served(&[logits]) {
        let op = CrossEntropy { classes, labels: labels.to_vec1()?, gradient: OnceLock::new() };
        return logits.contiguous()?.apply_op1(op);
    }
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
    let log_total = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    shifted.broadcast_sub(&log_total)?.gather(&labels.unsqueeze(1)?, 1)?.mean_all()?.neg()
}
