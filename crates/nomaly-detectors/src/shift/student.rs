//! The tails of Student's t.

use std::f64::consts::FRAC_2_PI;

/// The most degrees of freedom; more are treated as these, with slightly wider tails.
const MOST_DEGREES: usize = 200;
/// The smallest p-value that the sums resolve.
const SMALLEST: f64 = 1e-12;

/// P(|T| ≥ |t|) for `degrees` of freedom, at least 1; not below 10⁻¹².
///
/// The finite sums of Abramowitz and Stegun, *Handbook of Mathematical Functions*, 26.7.3 and 26.7.4.
pub(super) fn two_sided(t: f64, degrees: usize) -> f64 {
    let degrees = degrees.clamp(1, MOST_DEGREES);
    let theta = (t.abs() / (degrees as f64).sqrt()).atan();
    let (sin, cos) = theta.sin_cos();
    let odd = degrees % 2 == 1;
    // The terms of the sums: each is the one before times k / (k + 1) · cos², with k = 1, 3, … or 2, 4, …
    let (mut term, mut factor) = if odd { (cos, 2) } else { (1.0, 1) };
    let mut sum = 0.0;
    let terms = if odd { (degrees - 1) / 2 } else { degrees / 2 };
    for _ in 0..terms {
        sum += term;
        term *= factor as f64 / (factor + 1) as f64 * cos * cos;
        factor += 2;
    }
    let inside = if odd { FRAC_2_PI * (theta + sin * sum) } else { sin * sum };
    (1.0 - inside).clamp(SMALLEST, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantiles_of_the_tables() {
        // Two-sided 5 %, 1 % and 0.1 % points, Abramowitz and Stegun, table 26.10.
        let cases = [
            (1, [12.706, 63.657, 636.619]),
            (2, [4.303, 9.925, 31.599]),
            (5, [2.571, 4.032, 6.869]),
            (10, [2.228, 3.169, 4.587]),
            (19, [2.093, 2.861, 3.883]),
            (60, [2.000, 2.660, 3.460]),
        ];
        for (degrees, quantiles) in cases {
            for (t, p) in quantiles.into_iter().zip([0.05, 0.01, 0.001]) {
                let found = two_sided(t, degrees);
                assert!((found / p - 1.0).abs() < 3e-3, "{degrees} degrees, t = {t}: {found}, not {p}");
                assert_eq!(found, two_sided(-t, degrees));
            }
        }
    }

    #[test]
    fn the_ends_are_probabilities() {
        for degrees in [1, 2, 7, 8, 1_000_000] {
            assert_eq!(two_sided(0.0, degrees), 1.0);
            assert!((SMALLEST..1e-3).contains(&two_sided(1e6, degrees)));
            assert_eq!(two_sided(f64::INFINITY, degrees), SMALLEST);
        }
    }
}
