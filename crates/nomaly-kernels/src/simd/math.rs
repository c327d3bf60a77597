//! The exponential, and the activations based on it.

use super::Simd;

/// Adding and subtracting it rounds a magnitude below 2^22 to an integer: at 1.5 · 2^23, a float has no fractional
/// bits.
const ROUNDER: f32 = 12_582_912.0;

/// n and r with -x = n ln 2 - r and |r| <= ln 2 / 2, for x in [-87, 87]; x is clamped to that range.
#[inline(always)]
fn reduce<S: Simd>(s: S, x: S::V) -> [S::V; 2] {
    let x = s.min(s.splat(87.0), s.max(s.splat(-87.0), x));
    let n = s.sub(s.fma(x, s.splat(-std::f32::consts::LOG2_E), s.splat(ROUNDER)), s.splat(ROUNDER));
    // ln 2 in two parts: the first has so few bits that its product with n is exact.
    let r = s.fma(n, s.splat(0.693_359_4), x);
    [n, s.fma(n, s.splat(-2.121_944_4e-4), r)]
}

/// (exp(-r) - 1) / r for |r| <= ln 2 / 2: 1 + r · this is the polynomial of degree 6 with the least relative error
/// from exp(-r) (below a unit in the last place when evaluated in f32).
#[inline(always)]
fn slope_of_exp<S: Simd>(s: S, r: S::V) -> S::V {
    let mut p = s.splat(1.400_582_4e-3);
    for coefficient in [-8.369_24e-3, 4.166_560_2e-2, -0.166_665_21, 0.5, -1.0] {
        p = s.fma(p, r, s.splat(coefficient));
    }
    p
}

/// exp(-x) within two units in the last place for x in [-87, 87]; x is clamped to that range.
///
/// With -x = n ln 2 - r, exp(-r) is a polynomial, and 2^n goes into the exponent.
#[inline(always)]
pub(crate) fn exp_of_negative<S: Simd>(s: S, x: S::V) -> S::V {
    let [n, r] = reduce(s, x);
    s.scale(s.fma(slope_of_exp(s, r), r, s.splat(1.0)), n)
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

/// x where it is positive, elsewhere slope * x.
#[inline(always)]
pub(crate) fn leaky_relu<S: Simd>(s: S, slope: S::V, x: S::V) -> S::V {
    let zero = s.splat(0.0);
    s.fma(slope, s.min(zero, x), s.max(zero, x))
}

/// The hyperbolic tangent within four units in the last place, and never beyond -1 and 1.
///
/// It is -m / (m + 2) with m = exp(-2x) - 1, which keeps the accuracy of a small x.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    // From 9.02 on, the result rounds to one.
    let x = s.min(s.splat(9.1), s.max(s.splat(-9.1), x));
    let [n, r] = reduce(s, s.add(x, x));
    let power = s.pow2(n);
    let m = s.fma(power, s.mul(slope_of_exp(s, r), r), s.sub(power, s.splat(1.0)));
    // A correctly rounded quotient of two numbers cannot exceed one if the first is not the larger.
    s.div(s.sub(s.splat(0.0), m), s.add(m, s.splat(2.0)))
}

/// c in [`normal`].
const TAIL_RATE: f32 = 0.28;

/// The polynomial in [`normal`], from t⁶ to t.
const TAIL: [f32; 6] = [-0.106_328_69, 0.392_067_55, -0.240_670_27, 0.271_972_96, 0.066_229_28, 0.116_729_16];

/// The distribution function and the density of the standard normal distribution, Φ and φ.
///
/// With t = 1 / (1 + c|x|), the probability beyond |x| is exp(-x² / 2) times a polynomial in t without constant term;
/// the form is that of Hastings (Abramowitz & Stegun 1964, 26.2.17), the coefficients were fitted to the least error of
/// both Φ and x Φ, 1.1e-8. In f32, Φ is within 2e-7 and x Φ within 1e-7.
#[inline(always)]
pub(crate) fn normal<S: Simd>(s: S, x: S::V) -> [S::V; 2] {
    // The exponential vanishes long before the bound, without which the reciprocal would not be normal.
    let magnitude = s.min(s.splat(1e4), s.max(x, s.sub(s.splat(0.0), x)));
    let exponential = exp_of_negative(s, s.mul(s.mul(x, x), s.splat(0.5)));
    let t = s.reciprocal(s.fma(magnitude, s.splat(TAIL_RATE), s.splat(1.0)));
    let mut p = s.splat(TAIL[0]);
    for coefficient in &TAIL[1..] {
        p = s.fma(p, t, s.splat(*coefficient));
    }
    let tail = s.mul(s.mul(p, t), exponential);
    let rest = s.fma(tail, s.splat(-2.0), s.splat(1.0));
    let below = s.add(tail, s.where_positive(x, rest));
    [below, s.mul(exponential, s.splat(0.398_942_3))]
}

/// x Φ(x).
#[inline(always)]
pub(crate) fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    s.mul(x, normal(s, x)[0])
}

/// x / 2 * (1 + tanh(u)) = x * sigmoid(2u), with u = sqrt(2 / π) * (x + 0.044715 x³).
#[inline(always)]
pub(crate) fn gelu_tanh<S: Simd>(s: S, x: S::V) -> S::V {
    let factor = s.fma(s.mul(x, x), s.splat(GELU_CUBIC), s.splat(GELU_LINEAR));
    s.mul(x, sigmoid(s, s.mul(x, factor)))
}

/// The argument of the sigmoid in [`gelu_tanh`] is `GELU_LINEAR` · x + `GELU_CUBIC` · x³: 2 sqrt(2 / π), and
/// 0.044715 times that.
pub(crate) const GELU_LINEAR: f32 = 1.595_769;
/// See [`GELU_LINEAR`].
pub(crate) const GELU_CUBIC: f32 = 0.071_354_81;

/// ln(1 + x) for x in [0, 1], within two units in the last place.
///
/// It is 2 artanh(q) with q = x / (2 + x) <= 1/3: the first eight terms of the series.
#[inline(always)]
pub(crate) fn ln_1p_of_share<S: Simd>(s: S, x: S::V) -> S::V {
    let q = s.div(x, s.add(x, s.splat(2.0)));
    let square = s.mul(q, q);
    let mut p = s.splat(1.0 / 15.0);
    for coefficient in [1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 0.2, 1.0 / 3.0] {
        p = s.fma(p, square, s.splat(coefficient));
    }
    let twice = s.add(q, q);
    s.fma(s.mul(twice, square), p, twice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::simd::{Kernel, Token};

    struct Curves<'a>(&'a [f32]);

    impl Kernel for Curves<'_> {
        type Output = Vec<[f32; 8]>;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let mut lane = [0.0f32; 16];
            let mut out = Vec::new();
            for x in self.0 {
                let mut row = [0.0; 8];
                let v = s.splat(*x);
                let [distribution, density] = normal(s, v);
                let curves = [
                    exp_of_negative(s, v),
                    sigmoid(s, v),
                    silu(s, v),
                    tanh(s, v),
                    distribution,
                    density,
                    gelu(s, v),
                    gelu_tanh(s, v),
                ];
                for (i, y) in curves.into_iter().enumerate() {
                    // SAFETY: `lane` holds the longest vector.
                    unsafe { s.store(lane.as_mut_ptr(), y) };
                    row[i] = lane[0];
                }
                out.push(row);
            }
            out
        }
    }

    const UNIT: f64 = f32::EPSILON as f64;

    #[test]
    fn curves_agree_with_double_precision() {
        let xs: Vec<f32> = (-8700..=8700).map(|i| i as f32 * 0.01).collect();
        // Two units in the last place for exp; sigmoid adds the rounding of a sum and a reciprocal, SiLU of a product.
        let tolerance = [2.5, 4.5, 5.0, 4.0].map(|units| units * UNIT);
        for isa in Isa::available() {
            let out = Token::new(isa).expect("available").dispatch(Curves(&xs));
            for (x, got) in xs.iter().zip(out) {
                let x = f64::from(*x);
                let e = (-x).exp();
                let s = 1.0 / (1.0 + (-x).exp());
                for (i, want) in [e, s, x * s, x.tanh()].into_iter().enumerate() {
                    let error = (f64::from(got[i]) - want).abs();
                    assert!(error <= tolerance[i] * want.abs(), "{isa}: curve {i} at {x}: {} against {want}", got[i]);
                }
            }
        }
    }

    #[test]
    fn tanh_is_accurate_near_zero_and_never_beyond_one() {
        let small = (-120..0).map(|i| 1.2f32.powi(i));
        let xs: Vec<f32> =
            small.clone().chain(small.map(|x| -x)).chain((-2000..=2000).map(|i| i as f32 * 5e-3)).collect();
        for isa in Isa::available() {
            let out = Token::new(isa).expect("available").dispatch(Curves(&xs));
            for (x, got) in xs.iter().zip(out) {
                let want = f64::from(*x).tanh();
                assert!((f64::from(got[3]) - want).abs() <= 4.0 * UNIT * want.abs(), "{isa}: {} at {x}", got[3]);
                assert!(got[3].abs() <= 1.0, "{isa}: {} at {x}", got[3]);
            }
        }
    }

    /// Φ(x), by the series without alternating signs for 1/2 - Φ(-|x|).
    fn distribution(x: f64) -> f64 {
        let (mut term, mut sum, mut odd) = (x, x, 1.0);
        while term.abs() > 1e-18 * sum.abs() {
            odd += 2.0;
            term *= x * x / odd;
            sum += term;
        }
        0.5 + sum * density(x)
    }

    fn density(x: f64) -> f64 {
        (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
    }

    #[test]
    fn the_normal_distribution_and_gelu_agree_with_double_precision() {
        let xs: Vec<f32> = (-1000..=1000).map(|i| i as f32 * 0.01).collect();
        for isa in Isa::available() {
            let out = Token::new(isa).expect("available").dispatch(Curves(&xs));
            for (x, got) in xs.iter().zip(out) {
                let x = f64::from(*x);
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                let want = [distribution(x), density(x), x * distribution(x), 0.5 * x * (1.0 + u.tanh())];
                for (got, want) in got[4..].iter().zip(want) {
                    let error = (f64::from(*got) - want).abs();
                    // As documented, or a unit in the last place of x.
                    assert!(error <= f64::max(2e-7, UNIT * x.abs()), "{isa} at {x}: {got} against {want}");
                }
            }
        }
    }

    struct Logarithms<'a>(&'a [f32]);

    impl Kernel for Logarithms<'_> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Vec<f32> {
            let mut lane = [0.0f32; 16];
            let each = |x: &f32| {
                // SAFETY: `lane` holds the longest vector.
                unsafe { s.store(lane.as_mut_ptr(), ln_1p_of_share(s, s.splat(*x))) };
                lane[0]
            };
            self.0.iter().map(each).collect()
        }
    }

    #[test]
    fn logarithms_agree_with_double_precision() {
        let xs: Vec<f32> = (0..=1000).map(|i| i as f32 * 1e-3).chain((1..80).map(|i| 1.5f32.powi(-i))).collect();
        for isa in Isa::available() {
            let out = Token::new(isa).expect("available").dispatch(Logarithms(&xs));
            for (x, got) in xs.iter().zip(out) {
                let want = f64::from(*x).ln_1p();
                assert!((f64::from(got) - want).abs() <= 2.0 * UNIT * want, "{isa}: {got} at {x}, expected {want}");
            }
        }
    }

    #[test]
    fn the_ends_are_finite_and_not_a_number_stays() {
        for isa in Isa::available() {
            let out = Token::new(isa).expect("available").dispatch(Curves(&[-1e30, 1e30, f32::NAN]));
            assert!(out[0][1] < 1e-30 && out[0][2].abs() < 1e-6 && out[1][1] == 1.0 && out[1][2] == 1e30, "{isa}");
            assert_eq!((out[0][3], out[1][3]), (-1.0, 1.0), "{isa}");
            for gelu in [6, 7] {
                assert!(out[0][gelu].abs() < 1e-6 && out[1][gelu] == 1e30, "{isa}: {out:?}");
            }
            assert!(out[2].iter().all(|v| v.is_nan()), "{isa}");
        }
    }
}
