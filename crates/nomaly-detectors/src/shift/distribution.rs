//! The distribution of a statistic over the training images.

use serde::{Deserialize, Serialize};

use super::student::two_sided;

/// The most values of a distribution; more are reduced to quantiles.
pub const MOST_QUANTILES: usize = 200;
/// The fewest values to test a further one against.
const FEWEST: usize = 3;
/// The allowance for unobserved excess kurtosis, to be divided by the number of values.
const UNSEEN_EXCESS: f64 = 30.0;
/// The margin beyond the range, as a share of the range.
const MARGIN: f64 = 0.2;

/// The distribution of a statistic over the training images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distribution {
    /// The number of values.
    count: usize,
    mean: f64,
    /// The standard deviations of the symmetric distributions with the deviations below and above the mean: √2 times
    /// the root mean square of one side over all values.
    below: f64,
    above: f64,
    /// The excess kurtosis, 0 for a normal distribution.
    excess: f64,
    /// The values, ascending, or their quantiles at even probabilities including both ends.
    quantiles: Vec<f32>,
}

/// The side of a distribution on which a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Below,
    Above,
}

impl Distribution {
    /// The distribution of values; `None` without values, or if one is not finite.
    pub fn of(values: &[f64]) -> Option<Self> {
        Self::weighted(values.iter().map(|&value| (value, 1.0)).collect(), values.len())
    }

    /// Merges two distributions.
    pub(super) fn joined(&self, other: &Self) -> Option<Self> {
        let weighted = |part: &Self| {
            let weight = part.count as f64 / part.quantiles.len() as f64;
            part.quantiles.iter().map(|&value| (f64::from(value), weight)).collect::<Vec<_>>()
        };
        Self::weighted([weighted(self), weighted(other)].concat(), self.count + other.count)
    }

    /// The distribution of `count` values, given as representatives of `weight` values each.
    fn weighted(mut values: Vec<(f64, f64)>, count: usize) -> Option<Self> {
        if values.is_empty() || values.iter().any(|(value, _)| !value.is_finite()) {
            return None;
        }
        values.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total: f64 = values.iter().map(|(_, weight)| weight).sum();
        let average =
            |of: &dyn Fn(f64) -> f64| values.iter().map(|&(value, weight)| weight * of(value)).sum::<f64>() / total;
        let mean = average(&|value| value);
        // A sample has n − 1 degrees of freedom.
        let free = total / (total - 1.0).max(1.0);
        let side = |keep: fn(f64) -> bool| {
            let squares = average(&|value| if keep(value - mean) { (value - mean).powi(2) } else { 0.0 });
            (2.0 * free * squares).sqrt()
        };
        let (second, fourth) = (average(&|value| (value - mean).powi(2)), average(&|value| (value - mean).powi(4)));
        let excess = if second > 0.0 { fourth / (second * second) - 3.0 } else { 0.0 };
        let quantiles = quantiles(&values, total);
        let (below, above) = (side(|deviation| deviation < 0.0), side(|deviation| deviation > 0.0));
        Some(Self { count, mean, below, above, excess, quantiles })
    }

    /// Whether [`of`](Self::of) could have made it.
    pub(super) fn is_sound(&self) -> bool {
        let numbers = [self.mean, self.below, self.above, self.excess];
        numbers.iter().all(|number| number.is_finite())
            && self.below >= 0.0
            && self.above >= 0.0
            && (1..=MOST_QUANTILES.min(self.count)).contains(&self.quantiles.len())
            && self.quantiles.iter().all(|value| value.is_finite())
            && self.quantiles.is_sorted()
    }

    /// Whether this value is one of the values; `false` if only quantiles are kept.
    pub(super) fn holds(&self, value: f64) -> bool {
        let exact = self.quantiles.len() == self.count;
        exact && self.quantiles.binary_search_by(|other| other.total_cmp(&(value as f32))).is_ok()
    }

    /// How many values there were.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The smallest and the largest value.
    pub fn range(&self) -> [f64; 2] {
        [self.quantiles[0], self.quantiles[self.quantiles.len() - 1]].map(f64::from)
    }

    /// The median.
    pub fn median(&self) -> f64 {
        let (low, high) = (self.quantiles[(self.quantiles.len() - 1) / 2], self.quantiles[self.quantiles.len() / 2]);
        (f64::from(low) + f64::from(high)) / 2.0
    }

    /// The share of values below `value`, counting equal ones half.
    pub(super) fn share_below(&self, value: f64) -> f64 {
        let below = self.quantiles.partition_point(|&other| f64::from(other) < value);
        let up_to = self.quantiles.partition_point(|&other| f64::from(other) <= value);
        (below + up_to) as f64 / (2 * self.quantiles.len()) as f64
    }

    /// The side on which `value` exceeds the range by more than its margin and `floor`, with its two-sided p-value;
    /// `None` within the range, and for too few values.
    pub(super) fn beyond(&self, value: f64, floor: f64) -> Option<(Side, f64)> {
        if self.count < FEWEST {
            return None;
        }
        let [low, high] = self.range();
        let margin = MARGIN * (high - low) + floor;
        let side = match value {
            value if value < low - margin => Side::Below,
            value if value > high + margin => Side::Above,
            _ => return None,
        };
        Some((side, self.p_value(value, floor)))
    }

    /// The two-sided p-value of one further value.
    fn p_value(&self, value: f64, floor: f64) -> f64 {
        let n = self.count as f64;
        let own = if value < self.mean { self.below } else { self.above };
        let symmetric = ((self.below.powi(2) + self.above.powi(2)) / 2.0).sqrt();
        let deviation = (value - self.mean).abs() / (1.0 + 1.0 / n).sqrt();
        let scale = own.max(symmetric).max(floor);
        let plain = two_sided(deviation / scale, self.count - 1);
        // Few values hardly show heavy tails: the excess kurtosis of n values is less than n, whatever their
        // distribution.
        let excess = self.excess.max(0.0) + UNSEEN_EXCESS / n;
        // Student's t with ν degrees of freedom has an excess kurtosis of 6 / (ν − 4), and a variance of
        // ν / (ν − 2).
        let degrees = 4.0 + 6.0 / excess;
        let narrowed = scale * ((degrees - 2.0) / degrees).sqrt();
        plain.max(two_sided(deviation / narrowed, (degrees as usize).min(self.count - 1)))
    }
}

/// The values, or quantiles at even probabilities including both ends if there are many.
fn quantiles(sorted: &[(f64, f64)], total: f64) -> Vec<f32> {
    if sorted.len() <= MOST_QUANTILES {
        return sorted.iter().map(|(value, _)| *value as f32).collect();
    }
    let mut quantiles = Vec::with_capacity(MOST_QUANTILES);
    let (mut place, mut up_to) = (0, sorted[0].1);
    for quantile in 0..MOST_QUANTILES {
        let probability = quantile as f64 / (MOST_QUANTILES - 1) as f64;
        while up_to < probability * total && place + 1 < sorted.len() {
            place += 1;
            up_to += sorted[place].1;
        }
        quantiles.push(sorted[place].0 as f32);
    }
    // By rounding, sums of weights may fall short of the total.
    quantiles[MOST_QUANTILES - 1] = sorted[sorted.len() - 1].0 as f32;
    quantiles
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::super::{LEVEL, Statistic};
    use super::*;

    fn normal(random: &mut ChaCha8Rng) -> f64 {
        (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0
    }

    #[test]
    fn a_further_value_of_the_same_kind_is_seldom_beyond() {
        // Each of the twelve statistics may cause a twelfth of 1 % of false warnings. Few values hardly show heavy
        // tails, so that more are allowed there.
        let (share, granted) = (0.01 / 12.0, 0.0125);
        type Draw = fn(&mut ChaCha8Rng) -> f64;
        let draws: [(&str, Draw, f64); 5] = [
            ("normal", normal, share),
            ("uniform", |random| random.random(), share),
            ("exponential", |random| -random.random::<f64>().max(1e-300).ln(), granted),
            (
                "mixture",
                |random| if random.random::<f64>() < 0.1 { 6.0 * normal(random) } else { normal(random) },
                granted,
            ),
            (
                "two-peaked",
                |random| if random.random::<f64>() < 0.2 { 5.0 + normal(random) } else { normal(random) },
                granted,
            ),
        ];
        let level = LEVEL / Statistic::ALL.len() as f64;
        for (name, draw, allowed) in draws {
            for count in [20, 40, 200] {
                let mut random = ChaCha8Rng::seed_from_u64(count as u64);
                let mut beyond = 0;
                for _ in 0..300 {
                    let training: Vec<f64> = (0..count).map(|_| draw(&mut random)).collect();
                    let training = Distribution::of(&training).unwrap();
                    for _ in 0..100 {
                        let found = training.beyond(draw(&mut random), 0.0);
                        beyond += usize::from(found.is_some_and(|(_, p_value)| p_value <= level));
                    }
                }
                let share = f64::from(beyond as u32) / 30_000.0;
                assert!(share <= allowed, "{name}, {count} values: {share}");
            }
        }
    }

    #[test]
    fn far_values_are_beyond_on_their_side() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let training: Vec<f64> = (0..30).map(|_| normal(&mut random)).collect();
        let training = Distribution::of(&training).unwrap();
        for (value, expected) in [(8.0, Side::Above), (-8.0, Side::Below)] {
            let (side, p_value) = training.beyond(value, 0.0).unwrap();
            assert!(side == expected && p_value < 1e-4, "{value}: {side:?} {p_value}");
        }
        assert_eq!(training.beyond(0.0, 0.0), None);
        // Differences below the floor do not count.
        assert_eq!(Distribution::of(&[1.0; 9]).unwrap().beyond(1.01, 0.02), None);
        assert!(Distribution::of(&[1.0; 9]).unwrap().beyond(1.5, 0.02).unwrap().1 < 1e-6);
        assert_eq!(Distribution::of(&[1.0, 1.1]).unwrap().beyond(9.0, 0.0), None);
    }

    #[test]
    fn many_values_are_kept_as_quantiles_and_joined() {
        let all: Vec<f64> = (0..1000).map(|value| f64::from((value * 7919) % 1000)).collect();
        let whole = Distribution::of(&all).unwrap();
        assert_eq!((whole.quantiles.len(), whole.count(), whole.range()), (MOST_QUANTILES, 1000, [0.0, 999.0]));
        assert!((whole.median() - 499.5).abs() < 3.0 && whole.is_sound());
        let (one, other) = (Distribution::of(&all[..300]).unwrap(), Distribution::of(&all[300..]).unwrap());
        let joined = one.joined(&other).unwrap();
        assert_eq!((joined.count(), joined.range()), (1000, [0.0, 999.0]));
        for (found, expected) in [(joined.mean, whole.mean), (joined.above, whole.above), (joined.below, whole.below)] {
            assert!((found / expected - 1.0).abs() < 0.02, "{found}, not {expected}");
        }
        let few = Distribution::of(&[1.0, 2.0]).unwrap().joined(&Distribution::of(&[4.0]).unwrap()).unwrap();
        assert_eq!(few, Distribution::of(&[1.0, 2.0, 4.0]).unwrap());
        assert_eq!((Distribution::of(&[]), Distribution::of(&[f64::NAN])), (None, None));
    }
}
