//! The exponential, and the activations based on it.

use super::Simd;

/// Adding and subtracting it rounds a magnitude below 2^22 to an integer: at 1.5 · 2^23, a float has no fractional
/// bits.
const ROUNDER: f32 = 12_582_912.0;

/// exp(-x) within two units in the last place for x in [-87, 87]; x is clamped to that range.
///
/// -x = n ln 2 + r with |r| <= ln 2 / 2; exp(r) is the polynomial of degree 6 with the least relative error on that
/// interval (below a unit in the last place when evaluated in f32), here of -r, and 2^n goes into the exponent.
#[inline(always)]
pub(crate) fn exp_of_negative<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.min(s.splat(87.0), s.max(s.splat(-87.0), x));
    let n = s.sub(s.fma(x, s.splat(-std::f32::consts::LOG2_E), s.splat(ROUNDER)), s.splat(ROUNDER));
    // ln 2 in two parts: the first has so few bits that its product with n is exact.
    let r = s.fma(n, s.splat(0.693_359_4), x);
    let r = s.fma(n, s.splat(-2.121_944_4e-4), r);
    let mut p = s.splat(1.400_582_4e-3);
    for coefficient in [-8.369_24e-3, 4.166_560_2e-2, -0.166_665_21, 0.5, -1.0, 1.0] {
        p = s.fma(p, r, s.splat(coefficient));
    }
    s.scale(p, n)
}

/// 1 / (1 + exp(-x)).
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    s.reciprocal(s.add(s.splat(1.0), exp_of_negative(s, x)))
}

/// x * sigmoid(x).
#[inline(always)]
pub(crate) fn silu<S: Simd>(s: S, x: S::V) -> S::V {
    s.mul(x, sigmoid(s, x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::simd::{Kernel, Token};

    struct Curves<'a>(&'a [f32]);

    impl Kernel for Curves<'_> {
        type Output = Vec<[f32; 3]>;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let mut lane = [0.0f32; 16];
            let mut out = Vec::new();
            for x in self.0 {
                let mut row = [0.0; 3];
                let v = s.splat(*x);
                for (i, y) in [exp_of_negative(s, v), sigmoid(s, v), silu(s, v)].into_iter().enumerate() {
                    // SAFETY: `lane` holds the longest vector.
                    unsafe { s.store(lane.as_mut_ptr(), y) };
                    row[i] = lane[0];
                }
                out.push(row);
            }
            out
        }
    }

    #[test]
    fn curves_agree_with_double_precision() {
        let xs: Vec<f32> = (-8700..=8700).map(|i| i as f32 * 0.01).collect();
        // Two units in the last place for exp; sigmoid adds the rounding of a sum and a reciprocal, SiLU of a product.
        let tolerance = [2.5, 4.5, 5.0].map(|units| units * f64::from(f32::EPSILON));
        for isa in Isa::available() {
            let out = Token::new(isa).expect("available").dispatch(Curves(&xs));
            for (x, got) in xs.iter().zip(out) {
                let e = (-f64::from(*x)).exp();
                let s = 1.0 / (1.0 + (-f64::from(*x)).exp());
                for (i, want) in [e, s, f64::from(*x) * s].into_iter().enumerate() {
                    let error = (f64::from(got[i]) - want).abs();
                    assert!(error <= tolerance[i] * want.abs(), "{isa}: curve {i} at {x}: {} against {want}", got[i]);
                }
            }
        }
    }

    #[test]
    fn the_ends_are_finite_and_not_a_number_stays() {
        for isa in Isa::available() {
            let out = Token::new(isa).expect("available").dispatch(Curves(&[-1e30, 1e30, f32::NAN]));
            assert!(out[0][1] < 1e-30 && out[0][2].abs() < 1e-6 && out[1][1] == 1.0 && out[1][2] == 1e30, "{isa}");
            assert!(out[2].iter().all(|v| v.is_nan()), "{isa}");
        }
    }
}
