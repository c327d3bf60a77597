//! Softmax cross-entropy.

use super::error::{TrainingError, expect, positive, samples};

/// The mean over samples of `-log softmax(logits)[label]`, and its gradient.
///
/// `logits` and `gradient` are `[N, classes]`. Sums are in double precision; a loss over no samples is 0.
///
/// # Errors
/// If the lengths of the slices do not match, and for a label that is not a class.
///
/// ```
/// use nomaly_kernels::training::cross_entropy;
///
/// let mut gradient = [0.0; 2];
/// let loss = cross_entropy(&[0.0, 0.0], 2, &[1], &mut gradient)?;
/// assert!((loss - 2f32.ln()).abs() < 1e-7);
/// assert_eq!(gradient, [0.5, -0.5]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn cross_entropy(
    logits: &[f32],
    classes: usize,
    labels: &[u32],
    gradient: &mut [f32],
) -> Result<f32, TrainingError> {
    positive(&[("the number of classes", classes)])?;
    let count = samples("the logits", logits.len(), classes)?;
    expect("the labels", labels.len(), count)?;
    expect("the gradient", gradient.len(), logits.len())?;
    if let Some(sample) = labels.iter().position(|label| *label as usize >= classes) {
        return Err(TrainingError::Label { label: labels[sample], sample, classes });
    }
    let each = 1.0 / count.max(1) as f64;
    let mut loss = 0.0;
    let rows = logits.chunks_exact(classes).zip(gradient.chunks_exact_mut(classes));
    for ((logits, gradient), label) in rows.zip(labels) {
        let label = *label as usize;
        let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let shifted = |logit: f32| f64::from(logit) - f64::from(greatest);
        let total: f64 = logits.iter().map(|logit| shifted(*logit).exp()).sum();
        loss += total.ln() - shifted(logits[label]);
        for (class, (logit, gradient)) in logits.iter().zip(gradient).enumerate() {
            let target = if class == label { 1.0 } else { 0.0 };
            *gradient = ((shifted(*logit).exp() / total - target) * each) as f32;
        }
    }
    Ok((loss * each) as f32)
}
