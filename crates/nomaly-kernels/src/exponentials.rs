//! Sums of many exponentials.
//!
//! Densities of kernels and of mixtures add up `exp(-x)` for every pair of rows; a scalar exponential takes most of
//! their time. Here the exponents go through the polynomial of [`rbf`](crate::rbf) as whole vectors.

use crate::isa::{Isa, IsaError};
use crate::simd::{Kernel, Simd, Token, exp_of_negative};

/// Exponents that are converted to single precision at a time. A multiple of the widest vector.
const BLOCK: usize = 128;

/// Exponents from here on count as infinite: their `exp` is subnormal in single precision.
const LARGEST: f64 = 87.0;

/// Adds up exponentials on one instruction set.
///
/// ```
/// use nomaly_kernels::exponentials::ExponentialSum;
/// use nomaly_kernels::isa::Isa;
///
/// let sum = ExponentialSum::new(Isa::best()?)?.sum(&[2.0, 4.0], 0.5, 1.0); // exp(0) + exp(-1)
/// assert!((sum - 1.367_879).abs() < 1e-6);
/// # Ok::<(), nomaly_kernels::IsaError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ExponentialSum {
    token: Token,
}

impl ExponentialSum {
    /// On the instruction set `isa`.
    ///
    /// # Errors
    /// [`IsaError`] where this processor does not have it.
    pub fn new(isa: Isa) -> Result<Self, IsaError> {
        Ok(Self { token: Token::new(isa)? })
    }

    /// `Σ exp(least - factor · value)`; no value may make the exponent positive (up to rounding).
    ///
    /// Differences are taken in double precision and rounded to single; terms below `exp(-87)` count as zero, and 128
    /// terms at a time are added up in single precision. With `least` as the smallest `factor · value` the result is
    /// at least 1, and the relative error a few `f32::EPSILON`. The order of the additions depends on the number of
    /// values alone.
    pub fn sum(&self, values: &[f64], factor: f64, least: f64) -> f64 {
        let mut exponents = [0.0f32; BLOCK];
        let mut sum = 0.0f64;
        for values in values.chunks(BLOCK) {
            for (exponent, value) in exponents.iter_mut().zip(values) {
                *exponent = (factor * value - least).min(LARGEST) as f32;
            }
            exponents[values.len()..].fill(LARGEST as f32);
            sum += f64::from(self.token.dispatch(Sum { exponents: &exponents }));
        }
        sum
    }
}

struct Sum<'a> {
    exponents: &'a [f32; BLOCK],
}

impl Kernel for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let mut sums = [simd.splat(0.0); 2];
        let end = simd.splat(LARGEST as f32);
        for at in (0..BLOCK).step_by(2 * S::LANES) {
            for half in 0..2 {
                // SAFETY: `2 * LANES` divides the length of `exponents`.
                let exponent = unsafe { simd.load(self.exponents.as_ptr().add(at + half * S::LANES)) };
                // The largest exponent contributes exp(-87); without it padding adds nothing.
                let term = simd.sub(exp_of_negative(simd, exponent), exp_of_negative(simd, end));
                sums[half] = simd.add(sums[half], term);
            }
        }
        let mut lanes = [0.0f32; 16];
        assert!(S::LANES <= lanes.len() && BLOCK.is_multiple_of(2 * S::LANES));
        // SAFETY: `lanes` holds at least LANES values.
        unsafe { simd.store(lanes.as_mut_ptr(), simd.add(sums[0], sums[1])) };
        lanes[..S::LANES].iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_agree_with_double_precision_on_every_instruction_set() {
        for len in [0, 1, 7, 8, 127, 128, 129, 300] {
            for spread in [0.0, 1e-3, 1.0, 30.0, 1e4] {
                let values: Vec<f64> = (0..len).map(|i| 5.0 + spread * ((i * 37 + 11) % 101) as f64 / 100.0).collect();
                let least = 0.5 * values.iter().copied().fold(f64::INFINITY, f64::min);
                let want: f64 = values.iter().map(|value| (least - 0.5 * value).exp()).sum();
                for isa in Isa::available() {
                    let got = ExponentialSum::new(isa).unwrap().sum(&values, 0.5, least.min(f64::MAX));
                    // A few units in the last place of single precision.
                    assert!((got - want).abs() <= 1e-6 * want, "{isa}, {len} of spread {spread}: {got} for {want}");
                }
            }
        }
    }

    #[test]
    fn far_values_add_nothing_and_infinite_ones_neither() {
        for isa in Isa::available() {
            let sum = ExponentialSum::new(isa).unwrap();
            assert_eq!(sum.sum(&[0.0, 200.0, 1e300, f64::INFINITY], 1.0, 0.0), 1.0, "{isa}");
        }
    }
}
