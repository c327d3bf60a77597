//! Scores counted in bins.

/// Counts of the finite scores of each class in equal bins.
#[derive(Debug, PartialEq)]
pub(crate) struct Histogram {
    /// Lower end of the first bin.
    pub(crate) low: f64,
    /// Upper end of the last bin.
    pub(crate) high: f64,
    /// One vector of counts per class, all of one length.
    pub(crate) counts: Vec<Vec<usize>>,
    /// Infinite scores, which are in no bin.
    pub(crate) infinite: usize,
}

const FEWEST_BINS: f64 = 16.0;
const MOST_BINS: f64 = 48.0;

impl Histogram {
    /// Counts scores by class; `None` if no score is finite. The width of the bins follows Freedman and Diaconis,
    /// 2·IQR·n^(−1/3), within bounds on their number.
    pub(crate) fn new(classes: &[Vec<f64>]) -> Option<Self> {
        let mut finite: Vec<f64> = classes.iter().flatten().copied().filter(|score| score.is_finite()).collect();
        finite.sort_unstable_by(f64::total_cmp);
        let (&least, &most) = (finite.first()?, finite.last()?);
        let (low, high) = if most - least > f64::EPSILON * most.abs().max(least.abs()) {
            (least, most)
        } else {
            let margin = if least == 0.0 { 0.5 } else { 0.1 * least.abs() };
            (least - margin, most + margin)
        };
        // Halves first, because the difference of two finite scores may overflow.
        let half_span = high / 2.0 - low / 2.0;
        let quartile = |part: usize| finite[part * (finite.len() - 1) / 4] / 2.0;
        let half_width = 2.0 * (quartile(3) - quartile(1)) / (finite.len() as f64).cbrt();
        let bins = if half_width > 0.0 { half_span / half_width } else { MOST_BINS };
        let bins = bins.ceil().clamp(FEWEST_BINS, MOST_BINS) as usize;

        let count = |scores: &Vec<f64>| {
            let mut counts = vec![0; bins];
            for score in scores.iter().filter(|score| score.is_finite()) {
                let part = (score / 2.0 - low / 2.0) / half_span;
                counts[((part * bins as f64) as usize).min(bins - 1)] += 1;
            }
            counts
        };
        let infinite = classes.iter().map(Vec::len).sum::<usize>() - finite.len();
        Some(Self { low, high, counts: classes.iter().map(count).collect(), infinite })
    }

    /// Lower end of a bin (the upper end of the last one for `index` = number of bins).
    pub(crate) fn edge(&self, index: usize) -> f64 {
        let part = index as f64 / self.counts.first().map_or(1, Vec::len) as f64;
        self.low * (1.0 - part) + self.high * part
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_value_has_a_range_around_it() {
        let histogram = Histogram::new(&[vec![5.0; 4]]).unwrap();
        assert!(histogram.low < 5.0 && 5.0 < histogram.high);
        assert_eq!(histogram.counts[0].iter().sum::<usize>(), 4);
        assert!(Histogram::new(&[vec![f64::INFINITY], vec![]]).is_none());
    }

    proptest! {
        #[test]
        fn every_finite_score_is_in_one_bin(
            a in prop::collection::vec(any::<f64>(), 0..50), b in prop::collection::vec(-1.0f64..1.0, 1..50),
        ) {
            let classes: Vec<Vec<f64>> = vec![a.into_iter().filter(|x| !x.is_nan()).collect(), b];
            let histogram = Histogram::new(&classes).unwrap();
            let counted: usize = histogram.counts.iter().flatten().sum();
            let total: usize = classes.iter().map(Vec::len).sum();
            prop_assert_eq!(counted + histogram.infinite, total);
            prop_assert!(histogram.edge(0) == histogram.low);
        }
    }
}
