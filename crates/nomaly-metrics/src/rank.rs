//! Scores in ranked order, as groups of equal score, from which every figure is computed.

use crate::MetricError;
use crate::error::both_classes;
use crate::radix::{self, RadixKey};

/// A type of score: `f32` or `f64`.
///
/// Sealed, because the ranking relies on order-preserving bit patterns.
pub trait Score: Sealed {}
impl Score for f32 {}
impl Score for f64 {}

mod sealed {
    /// The operations that the ranking needs.
    pub trait Sealed: Copy + Send + Sync {
        /// Unsigned integer in the order of the scores.
        type Key: super::ScoreKey;
        /// The key of this score.
        fn key(self) -> Self::Key;
        /// Whether this is NaN.
        fn is_nan(self) -> bool;
        /// The value in double precision (exact).
        fn to_f64(self) -> f64;
    }
}
pub(crate) use sealed::Sealed;

/// The key of a score: unsigned, ordered as the scores are.
pub trait ScoreKey: RadixKey + Keyed<Key = Self> {
    /// The score that has this key.
    fn score(self) -> f64;
}

macro_rules! float_keys {
    ($float:ty, $key:ty) => {
        impl Sealed for $float {
            type Key = $key;
            #[inline]
            fn key(self) -> $key {
                const SIGN: $key = 1 << (<$key>::BITS - 1);
                // Adding zero maps -0.0 to 0.0. The bits of negative numbers sort in reverse.
                let bits = (self + 0.0).to_bits();
                if bits & SIGN == 0 { bits | SIGN } else { !bits }
            }
            #[inline]
            fn is_nan(self) -> bool {
                <$float>::is_nan(self)
            }
            #[inline]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
        }
        impl ScoreKey for $key {
            #[inline]
            fn score(self) -> f64 {
                const SIGN: $key = 1 << (<$key>::BITS - 1);
                let bits = if self & SIGN == 0 { !self } else { self & !SIGN };
                f64::from(<$float>::from_bits(bits))
            }
        }
    };
}
float_keys!(f32, u32);
float_keys!(f64, u64);

/// A ranked positive: its score key, optionally with more data in the lower bits.
pub trait Keyed: Copy {
    /// The type of the key.
    type Key: ScoreKey;
    /// The key.
    fn key(self) -> Self::Key;
}

impl Keyed for u32 {
    type Key = u32;
    #[inline]
    fn key(self) -> u32 {
        self
    }
}

impl Keyed for u64 {
    type Key = u64;
    #[inline]
    fn key(self) -> u64 {
        self
    }
}

/// The keys of each class, ascending. Owned; [`Ranking`] is the view for computing figures.
pub(crate) struct Ranked<K> {
    positives: Vec<K>,
    negatives: Vec<K>,
}

impl<K: ScoreKey> Ranked<K> {
    /// Checks and ranks scores.
    pub(crate) fn new<S: Sealed<Key = K>>(scores: &[S], labels: &[bool]) -> Result<Self, MetricError> {
        check(scores, labels)?;
        let total = labels.iter().filter(|&&label| label).count();
        both_classes(total, labels.len() - total)?;
        // Each key is written to the end of both classes and only one end advances, because labels are random to the
        // branch predictor. The extra slot takes the last writes.
        let mut positives = vec![K::default(); total + 1];
        let mut negatives = vec![K::default(); labels.len() - total + 1];
        let (mut p, mut n) = (0, 0);
        for (&score, &label) in scores.iter().zip(labels) {
            let key = score.key();
            positives[p] = key;
            negatives[n] = key;
            p += usize::from(label);
            n += usize::from(!label);
        }
        positives.truncate(p);
        negatives.truncate(n);
        rayon::join(|| radix::sort(&mut positives), || radix::sort(&mut negatives));
        Ok(Self { positives, negatives })
    }

    pub(crate) fn view(&self) -> Ranking<'_, K> {
        Ranking { positives: &self.positives, negatives: &self.negatives }
    }
}

/// Rejects empty scores, a different number of labels, and NaN.
pub(crate) fn check<S: Sealed>(scores: &[S], labels: &[bool]) -> Result<(), MetricError> {
    if scores.len() != labels.len() {
        return Err(MetricError::LengthMismatch { scores: scores.len(), labels: labels.len() });
    }
    if scores.is_empty() {
        return Err(MetricError::Empty);
    }
    match scores.iter().position(|score| score.is_nan()) {
        Some(index) => Err(MetricError::NanScore { index }),
        None => Ok(()),
    }
}

/// Items of both classes in ranked order (ascending keys).
pub(crate) struct Ranking<'a, P: Keyed> {
    pub(crate) positives: &'a [P],
    pub(crate) negatives: &'a [P::Key],
}

impl<'a, P: Keyed> Ranking<'a, P> {
    /// The items by distinct score, from the highest score down.
    pub(crate) fn groups(&self) -> Groups<'a, P> {
        Groups { positives: self.positives, negatives: self.negatives }
    }

    /// As [`groups`](Self::groups), with running totals from the top.
    pub(crate) fn steps(&self) -> impl Iterator<Item = Step> + use<'a, P> {
        let mut groups = self.groups();
        let (mut true_positives, mut false_positives) = (0, 0);
        std::iter::from_fn(move || {
            let group = groups.next()?;
            true_positives += group.positives.len() as u64;
            false_positives += group.negatives as u64;
            Some(Step { score: group.key.score(), below: groups.next_score(), true_positives, false_positives })
        })
    }
}

/// The items of one distinct score.
pub(crate) struct Group<'a, P: Keyed> {
    pub(crate) key: P::Key,
    pub(crate) positives: &'a [P],
    pub(crate) negatives: usize,
}

/// The counts when everything from the top down to one distinct score is flagged.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    /// The lowest flagged score.
    pub(crate) score: f64,
    /// The highest score that is not flagged, or -∞: as a threshold it flags exactly these items.
    pub(crate) below: f64,
    pub(crate) true_positives: u64,
    pub(crate) false_positives: u64,
}

/// Merges the two classes from the highest score down.
pub(crate) struct Groups<'a, P: Keyed> {
    positives: &'a [P],
    negatives: &'a [P::Key],
}

impl<P: Keyed> Groups<'_, P> {
    fn next_key(&self) -> Option<P::Key> {
        self.positives.last().map(|item| item.key()).max(self.negatives.last().copied())
    }

    fn next_score(&self) -> f64 {
        self.next_key().map_or(f64::NEG_INFINITY, ScoreKey::score)
    }
}

impl<'a, P: Keyed> Iterator for Groups<'a, P> {
    type Item = Group<'a, P>;

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.next_key()?;
        let positives = self.positives.iter().rev().take_while(|item| item.key() == key).count();
        let negatives = self.negatives.iter().rev().take_while(|&&item| item == key).count();
        let (rest, tied) = self.positives.split_at(self.positives.len() - positives);
        self.positives = rest;
        self.negatives = &self.negatives[..self.negatives.len() - negatives];
        Some(Group { key, positives: tied, negatives })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_the_order_of_floats_and_give_the_score_back() {
        let ascending =
            [f64::NEG_INFINITY, f64::MIN, -1.5, -f64::MIN_POSITIVE, 0.0, 5e-324, 1.0, f64::MAX, f64::INFINITY];
        for pair in ascending.windows(2) {
            assert!(pair[0].key() < pair[1].key(), "{pair:?}");
            assert!((pair[0] as f32).key() <= (pair[1] as f32).key(), "{pair:?}");
        }
        for score in ascending {
            assert_eq!(score.key().score(), score);
            assert_eq!((score as f32).key().score(), f64::from(score as f32));
        }
        assert_eq!((-0.0f64).key(), 0.0f64.key());
        assert_eq!((-0.0f32).key(), 0.0f32.key());
    }

    #[test]
    fn ties_across_classes_form_one_group() {
        let ranked: Ranked<u64> = Ranked::new(&[1.0, 2.0, 2.0, 2.0, 0.5], &[true, true, false, true, false]).unwrap();
        let counts: Vec<_> =
            ranked.view().groups().map(|group| (group.key.score(), group.positives.len(), group.negatives)).collect();
        assert_eq!(counts, [(2.0, 2, 1), (1.0, 1, 0), (0.5, 0, 1)]);
    }
}
