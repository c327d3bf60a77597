//! Values of a graph's parameters, looked up by name and folded.

use nomaly_kernels::network::NetworkError;

use crate::error::CompileError;
use crate::weights::Weights;

/// Checks the length of a tensor.
pub(crate) fn expect(what: &'static str, found: usize, expected: usize) -> Result<(), NetworkError> {
    if found == expected { Ok(()) } else { Err(NetworkError::Length { what, expected, found }) }
}

/// The tensors of a network.
pub(crate) struct Parameters<'a>(pub(crate) &'a Weights);

impl Parameters<'_> {
    /// Whether there is a batch norm of that name, rather than one folded before the file was written.
    pub(crate) fn has_norm(&self, name: &str) -> bool {
        self.0.contains_key(&format!("{name}.running_var"))
    }

    /// The values of a tensor that may be absent.
    pub(crate) fn optional(&self, prefix: &str, leaf: &str) -> Result<Option<Vec<f32>>, CompileError> {
        match self.0.get(&format!("{prefix}.{leaf}")) {
            Some(tensor) => Ok(Some(tensor.to_f32()?)),
            None => Ok(None),
        }
    }

    /// The values of a required tensor.
    pub(crate) fn values(&self, prefix: &str, leaf: &str) -> Result<Vec<f32>, CompileError> {
        self.optional(prefix, leaf)?.ok_or_else(|| CompileError::MissingTensor { tensor: format!("{prefix}.{leaf}") })
    }

    /// The values of a required tensor by its whole name.
    pub(crate) fn whole(&self, name: &str) -> Result<Vec<f32>, CompileError> {
        let tensor = self.0.get(name).ok_or_else(|| CompileError::MissingTensor { tensor: name.to_owned() })?;
        Ok(tensor.to_f32()?)
    }

    /// A batch norm as a factor and a summand per channel.
    pub(crate) fn norm(&self, name: &str, epsilon: f64, affine: bool) -> Result<Norm, CompileError> {
        let mean = self.values(name, "running_mean")?;
        let variance = self.values(name, "running_var")?;
        let weight = if affine { self.values(name, "weight")? } else { vec![1.0; mean.len()] };
        let bias = if affine { self.values(name, "bias")? } else { vec![0.0; mean.len()] };
        let mut norm = Norm { scale: Vec::with_capacity(weight.len()), shift: Vec::with_capacity(weight.len()) };
        for (((weight, bias), mean), variance) in weight.into_iter().zip(bias).zip(mean).zip(variance) {
            let scale = f64::from(weight) / (f64::from(variance) + epsilon).sqrt();
            norm.scale.push(scale as f32);
            norm.shift.push((f64::from(bias) - f64::from(mean) * scale) as f32);
        }
        Ok(norm)
    }
}

/// A batch norm in evaluation: `x * scale + shift`.
pub(crate) struct Norm {
    pub(crate) scale: Vec<f32>,
    pub(crate) shift: Vec<f32>,
}

impl Norm {
    /// Multiplies the `weight` `[I, O, k, k]` of a transposed convolution, with `taps` = k², by the factors of its
    /// output channels and returns its bias.
    pub(crate) fn fold_transposed(&self, weight: &mut [f32], taps: usize, bias: Option<&[f32]>) -> Vec<f32> {
        for (row, scale) in weight.chunks_exact_mut(taps.max(1)).zip(self.scale.iter().cycle()) {
            row.iter_mut().for_each(|value| *value *= scale);
        }
        self.fold_bias(bias)
    }

    /// Multiplies the convolution `weight` `[O, ..]` by the factors of its output channels and returns its bias.
    pub(crate) fn fold(&self, weight: &mut [f32], bias: Option<&[f32]>) -> Vec<f32> {
        let each = weight.len() / self.scale.len().max(1);
        for (row, scale) in weight.chunks_exact_mut(each.max(1)).zip(&self.scale) {
            for value in row {
                *value *= scale;
            }
        }
        self.fold_bias(bias)
    }

    fn fold_bias(&self, bias: Option<&[f32]>) -> Vec<f32> {
        match bias {
            Some(bias) => bias.iter().zip(&self.scale).zip(&self.shift).map(|((b, scale), s)| b * scale + s).collect(),
            None => self.shift.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_keeps_a_bias_that_stands_before_the_norm() {
        let norm = Norm { scale: vec![2.0, -1.0], shift: vec![0.5, 1.0] };
        let mut weight = vec![1.0, 2.0, 3.0, 4.0];
        let bias = norm.fold(&mut weight, Some(&[10.0, 20.0]));
        assert_eq!(weight, [2.0, 4.0, -3.0, -4.0]);
        assert_eq!(bias, [20.5, -19.0]);
    }

    #[test]
    fn the_output_channels_of_a_transposed_convolution_are_the_second_axis() {
        let norm = Norm { scale: vec![2.0, -1.0], shift: vec![0.5, 1.0] };
        let mut weight: Vec<f32> = (1..=8).map(|value| value as f32).collect();
        assert_eq!(norm.fold_transposed(&mut weight, 2, None), [0.5, 1.0]);
        assert_eq!(weight, [2.0, 4.0, -3.0, -4.0, 10.0, 12.0, -7.0, -8.0]);
    }
}
