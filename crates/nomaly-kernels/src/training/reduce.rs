//! Sums over planes: f32 lanes within a plane, f64 between planes, always in the same order.

use crate::parallel::for_each;
use crate::simd::{Kernel, Simd, Token};

use super::memory::{Shared, threads_for};

/// The sum of `f` over vectors of two slices of the same length; `f` returns two terms per vector.
///
/// `f` must treat lanes independently: values beyond the last whole vector are passed one by one, in all lanes.
#[inline(always)]
pub(super) fn sum_pairs<S: Simd>(s: S, a: &[f32], b: &[f32], f: impl Fn(S::V, S::V) -> [S::V; 2]) -> [f64; 2] {
    let zero = s.splat(0.0);
    let mut sums = [[zero; 2]; 2];
    let mut lanes = [[0.0f32; 16]; 2];
    let step = S::LANES;
    let whole = a.len() - a.len() % step;
    let b = &b[..a.len()];
    // SAFETY: both slices hold `whole` values; `lanes` holds the longest vector.
    unsafe {
        let mut i = 0;
        // Two sums of each kind, because a single one would wait for its previous addition.
        while i + 2 * step <= whole {
            for half in 0..2 {
                let at = i + half * step;
                let terms = f(s.load(a.as_ptr().add(at)), s.load(b.as_ptr().add(at)));
                sums[half][0] = s.add(sums[half][0], terms[0]);
                sums[half][1] = s.add(sums[half][1], terms[1]);
            }
            i += 2 * step;
        }
        if i < whole {
            let terms = f(s.load(a.as_ptr().add(i)), s.load(b.as_ptr().add(i)));
            sums[0][0] = s.add(sums[0][0], terms[0]);
            sums[0][1] = s.add(sums[0][1], terms[1]);
        }
        let mut totals = [0.0f64; 2];
        for term in 0..2 {
            s.store(lanes[0].as_mut_ptr(), s.add(sums[0][term], sums[1][term]));
            totals[term] = lanes[0][..step].iter().map(|v| f64::from(*v)).sum();
        }
        // The rest, one value per vector: rare and short.
        for i in whole..a.len() {
            let terms = f(s.splat(a[i]), s.splat(b[i]));
            for term in 0..2 {
                s.store(lanes[term].as_mut_ptr(), terms[term]);
                totals[term] += f64::from(lanes[term][0]);
            }
        }
        totals
    }
}

/// Mean and variance of values that come slice by slice.
///
/// Variances are taken around the mean of each slice and combined (Chan, Golub & LeVeque 1983), so that a large mean
/// loses no precision.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moments {
    count: f64,
    mean: f64,
    /// Sum of the squared deviations from the mean.
    squares: f64,
}

impl Moments {
    /// Of one slice.
    #[inline(always)]
    pub(super) fn of<S: Simd>(s: S, values: &[f32]) -> Self {
        let mut moments = Self::default();
        moments.add(s, values);
        moments
    }

    /// Takes in a slice.
    #[inline(always)]
    pub(super) fn add<S: Simd>(&mut self, s: S, values: &[f32]) {
        let each = values.len() as f64;
        let zero = s.splat(0.0);
        let center = (sum_pairs(s, values, values, |x, _| [x, zero])[0] / each) as f32;
        let centers = s.splat(center);
        let [rest, squares] = sum_pairs(s, values, values, |x, _| {
            let centered = s.sub(x, centers);
            [centered, s.mul(centered, centered)]
        });
        // The center differs from the mean by the rounding of a sum of large values, which the sum of small ones
        // reveals. It would enter the variance through the differences between the means of slices.
        let mean = f64::from(center) + rest / each;
        let squares = squares - rest * rest / each;
        let difference = mean - self.mean;
        let total = self.count + each;
        self.mean += difference * each / total;
        self.squares += squares + difference * difference * self.count * each / total;
        self.count = total;
    }

    /// Mean and biased variance.
    pub(super) fn mean_and_variance(&self) -> [f64; 2] {
        [self.mean, (self.squares / f64::max(self.count, 1.0)).max(0.0)]
    }

    /// The mean, and 1 / sqrt(variance + `epsilon`).
    pub(super) fn normalizer(&self, epsilon: f64) -> [f32; 2] {
        let [mean, variance] = self.mean_and_variance();
        [mean as f32, (1.0 / (variance + epsilon).sqrt()) as f32]
    }
}

struct PlaneSum<'a>(&'a [f32]);

impl Kernel for PlaneSum<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        sum_pairs(s, self.0, self.0, |a, _| [a, s.splat(0.0)])[0]
    }
}

/// Sums each channel of `[N, C, plane]` over images and positions.
pub(super) fn channel_sums(token: Token, values: &[f32], plane: usize, sums: &mut [f32]) {
    let channels = sums.len();
    let to = Shared::new(sums);
    for_each(channels, threads_for(values.len()), |channel| {
        let planes = values.chunks_exact(plane).skip(channel).step_by(channels);
        let sum: f64 = planes.map(|values| token.dispatch(PlaneSum(values))).sum();
        // SAFETY: each channel has a place of its own.
        unsafe { to.at(channel, 1).write(sum as f32) };
    });
}

/// Means of planes: global average pooling.
pub(super) fn plane_means(token: Token, values: &[f32], plane: usize, means: &mut [f32]) {
    let planes = means.len();
    // A few hundred planes are a unit of work.
    let unit = (64 << 10 >> plane.ilog2().min(16)).max(1);
    let to = Shared::new(means);
    for_each(planes.div_ceil(unit), threads_for(values.len()), |index| {
        for index in index * unit..((index + 1) * unit).min(planes) {
            let sum = token.dispatch(PlaneSum(&values[index * plane..(index + 1) * plane]));
            // SAFETY: each plane has a place of its own.
            unsafe { to.at(index, 1).write((sum / plane as f64) as f32) };
        }
    });
}
