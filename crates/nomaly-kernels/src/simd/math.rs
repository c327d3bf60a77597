//! The exponential, and the activations that are made of it.

use super::Simd;

/// exp(x) within two units in the last place for x in [-87, 88]; beyond, the value at the end of that range.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2; exp(r) is its Taylor polynomial of degree 7, whose remainder
/// (r^8 / 8! < 5.3e-9) is below half a unit in the last place, and 2^n is written into the exponent bits.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.min(s.splat(88.0), s.max(s.splat(-87.0), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts: the first has so few bits that its product with n is exact.
    let r = s.fma(n, s.splat(-0.693_359_4), x);
    let r = s.fma(n, s.splat(2.121_944_4e-4), r);
    let mut p = s.splat(1.0 / 5040.0);
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = s.fma(p, r, s.splat(coefficient));
    }
    s.mul(p, s.pow2(n))
}

/// 1 / (1 + exp(-x)).
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.splat(0.0), x))))
}

/// x * sigmoid(x).
#[inline(always)]
pub(crate) fn silu<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    s.div(x, s.add(one, exp(s, s.sub(s.splat(0.0), x))))
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
                for (i, y) in [exp(s, v), sigmoid(s, v), silu(s, v)].into_iter().enumerate() {
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
        let xs: Vec<f32> = (-8700..=8800).map(|i| i as f32 * 0.01).collect();
        // Two units in the last place for exp; sigmoid and SiLU add the rounding of a sum and a division.
        let tolerance = [2.5 * f64::from(f32::EPSILON), 3.5 * f64::from(f32::EPSILON), 3.5 * f64::from(f32::EPSILON)];
        for isa in Isa::available() {
            let out = Token::new(isa).expect("available").dispatch(Curves(&xs));
            for (x, got) in xs.iter().zip(out) {
                let e = f64::from(*x).exp();
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
