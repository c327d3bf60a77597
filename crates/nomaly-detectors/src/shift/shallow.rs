//! The distance of the pooled features of an image from those of the training images.
//!
//! Channels are divided by their standard deviation, and their correlations are shrunk towards zero by the
//! oracle-approximating formula, so that some tens of images suffice. The distance of a training image is that from all
//! others, by the Sherman–Morrison formula; the shrinkage is that of all images.

use nomaly_backbones::OutputLayout;
use nomaly_methods::FeatureBatch;
use serde::{Deserialize, Serialize};

use super::distribution::Distribution;

/// The most channels to compare, evenly chosen.
pub const MOST_CHANNELS: usize = 32;
/// The fewest images for a distance.
const FEWEST_IMAGES: usize = 8;
/// The least standard deviation of a channel, as a share of the root mean square of all channels' means.
const LEAST_DEVIATION: f64 = 1e-3;

/// The pooled features of the training images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShallowFeatures {
    /// The name of the tap.
    tap: String,
    mean: Vec<f32>,
    /// The lower triangle, row by row, of the matrix that turns deviations from the mean into uncorrelated values of
    /// variance 1.
    whitening: Vec<f32>,
    /// The logarithms of the distances of the training images from the others.
    distances: Distribution,
}

impl ShallowFeatures {
    /// Fits the distance to one row of pooled features per image; `None` for too few images, and for rows of different
    /// lengths or with values that are not finite.
    pub(super) fn of(tap: &str, rows: &[&[f32]]) -> Option<Self> {
        let n = rows.len();
        let dim = rows.first()?.len();
        let usable = |row: &&[f32]| row.len() == dim && row.iter().all(|value| value.is_finite());
        if n < FEWEST_IMAGES || dim == 0 || !rows.iter().all(usable) {
            return None;
        }
        let mean: Vec<f64> =
            (0..dim).map(|c| rows.iter().map(|row| f64::from(row[c])).sum::<f64>() / n as f64).collect();
        let least = LEAST_DEVIATION * (mean.iter().map(|mean| mean * mean).sum::<f64>() / dim as f64).sqrt();
        let deviation = |c: usize| {
            let squares: f64 = rows.iter().map(|row| (f64::from(row[c]) - mean[c]).powi(2)).sum();
            (squares / (n - 1) as f64).sqrt().max(least).max(f64::MIN_POSITIVE)
        };
        let scale: Vec<f64> = (0..dim).map(deviation).collect();
        let standard: Vec<Vec<f64>> =
            rows.iter().map(|row| (0..dim).map(|c| (f64::from(row[c]) - mean[c]) / scale[c]).collect()).collect();
        let (shrunk, shrinkage) = shrunk_correlations(&standard, dim);
        let inverse = inverse_factor(shrunk, dim)?;
        let own = n as f64 / (n - 1) as f64;
        let left_out = |row: &Vec<f64>| {
            let q = norm_squared(&inverse, row) / (n - 1) as f64;
            let rest = (1.0 - (1.0 - shrinkage) * own * q).max(1e-6);
            log_distance(own * own * (n - 2) as f64 * q / rest)
        };
        let distances = Distribution::of(&standard.iter().map(left_out).collect::<Vec<_>>())?;
        let mut whitening = inverse;
        for row in 0..dim {
            for column in 0..=row {
                whitening[packed(row, column)] /= scale[column];
            }
        }
        let whitening: Vec<f32> = whitening.iter().map(|value| *value as f32).collect();
        let mean: Vec<f32> = mean.iter().map(|value| *value as f32).collect();
        // Features that are all 0 cannot be scaled.
        let finite = mean.iter().chain(&whitening).all(|value| value.is_finite());
        finite.then(|| Self { tap: tap.to_owned(), mean, whitening, distances })
    }

    /// The distances of the training images.
    pub(super) fn distances(&self) -> &Distribution {
        &self.distances
    }

    /// The logarithm of the distance of an image; `None` for a row of another length.
    pub(super) fn log_distance(&self, row: &[f32]) -> Option<f64> {
        if row.len() != self.mean.len() {
            return None;
        }
        let deviations: Vec<f64> = row.iter().zip(&self.mean).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect();
        let whitening: Vec<f64> = self.whitening.iter().map(|value| f64::from(*value)).collect();
        let distance = log_distance(norm_squared(&whitening, &deviations));
        distance.is_finite().then_some(distance)
    }

    /// Adds the distances of further images outside the fit.
    pub(super) fn with_rows(&self, rows: &[&[f32]]) -> Option<Self> {
        let distances: Option<Vec<f64>> = rows.iter().map(|row| self.log_distance(row)).collect();
        let distances = self.distances.joined(&Distribution::of(&distances?)?)?;
        Some(Self { distances, ..self.clone() })
    }

    pub(super) fn is_sound(&self) -> bool {
        let dim = self.mean.len();
        (1..=MOST_CHANNELS).contains(&dim)
            && self.whitening.len() == packed(dim, 0)
            && self.mean.iter().chain(&self.whitening).all(|value| value.is_finite())
            && self.distances.is_sound()
    }
}

/// The index of a value of a lower triangle stored row by row.
fn packed(row: usize, column: usize) -> usize {
    row * (row + 1) / 2 + column
}

fn log_distance(squared: f64) -> f64 {
    0.5 * (squared + 1e-6).ln()
}

/// The squared norm of a lower triangle times a vector.
fn norm_squared(triangle: &[f64], vector: &[f64]) -> f64 {
    (0..vector.len())
        .map(|row| {
            let values = &triangle[packed(row, 0)..packed(row + 1, 0)];
            values.iter().zip(vector).map(|(a, b)| a * b).sum::<f64>().powi(2)
        })
        .sum()
}

/// The lower triangle of the shrunk correlations of standardized rows, and how far they are shrunk, in [0, 1].
fn shrunk_correlations(rows: &[Vec<f64>], dim: usize) -> (Vec<f64>, f64) {
    let (n, p) = (rows.len() as f64, dim as f64);
    let mut lower = vec![0.0; packed(dim, 0)];
    for row in 0..dim {
        for column in 0..=row {
            lower[packed(row, column)] = rows.iter().map(|x| x[row] * x[column]).sum::<f64>() / (n - 1.0);
        }
    }
    let trace: f64 = (0..dim).map(|c| lower[packed(c, c)]).sum();
    let on_diagonal: f64 = (0..dim).map(|c| lower[packed(c, c)].powi(2)).sum();
    let squared = 2.0 * lower.iter().map(|value| value * value).sum::<f64>() - on_diagonal;
    let above = (1.0 - 2.0 / p) * squared + trace * trace;
    let below = (n + 1.0 - 2.0 / p) * (squared - trace * trace / p);
    let shrinkage = if below > 0.0 { (above / below).clamp(0.0, 1.0) } else { 1.0 };
    let target = trace / p;
    for row in 0..dim {
        for column in 0..=row {
            let value = &mut lower[packed(row, column)];
            *value = (1.0 - shrinkage) * *value + if row == column { shrinkage * target } else { 0.0 };
        }
        // Constant channels get a variance that keeps the factor finite.
        lower[packed(row, row)] += 1e-6;
    }
    (lower, shrinkage)
}

/// The inverse of the Cholesky factor, also a lower triangle; `None` if the matrix is not positive definite.
fn inverse_factor(mut lower: Vec<f64>, dim: usize) -> Option<Vec<f64>> {
    for row in 0..dim {
        for column in 0..=row {
            let dot: f64 = (0..column).map(|k| lower[packed(row, k)] * lower[packed(column, k)]).sum();
            let rest = lower[packed(row, column)] - dot;
            lower[packed(row, column)] = if row == column {
                if rest <= 0.0 || !rest.is_finite() {
                    return None;
                }
                rest.sqrt()
            } else {
                rest / lower[packed(column, column)]
            };
        }
    }
    let mut inverse = vec![0.0; lower.len()];
    for column in 0..dim {
        for row in column..dim {
            let dot: f64 = (column..row).map(|k| lower[packed(row, k)] * inverse[packed(k, column)]).sum();
            let unit = if row == column { 1.0 } else { 0.0 };
            inverse[packed(row, column)] = (unit - dot) / lower[packed(row, row)];
        }
    }
    Some(inverse)
}

/// The pooled features of each image of a batch at one tap: up to [`MOST_CHANNELS`] channels, evenly chosen, averaged
/// over positions and views.
pub(crate) fn pooled(batch: &FeatureBatch<'_>, tap: usize) -> Vec<Vec<f32>> {
    let [channels, height, width] = batch.shapes[tap];
    let positions = match batch.taps[tap].layout {
        OutputLayout::Mean => 1,
        OutputLayout::Nchw | OutputLayout::Rows => height * width,
    };
    let kept = channels.min(MOST_CHANNELS);
    let image_len = batch.views * positions * channels;
    let mean = |values: &[f32], channel: usize| {
        let sum: f64 = match batch.taps[tap].layout {
            OutputLayout::Nchw => values
                .chunks_exact(channels * positions)
                .flat_map(|view| &view[channel * positions..(channel + 1) * positions])
                .map(|value| f64::from(*value))
                .sum(),
            OutputLayout::Rows | OutputLayout::Mean => {
                values[channel..].iter().step_by(channels).map(|value| f64::from(*value)).sum()
            }
        };
        (sum / (batch.views * positions).max(1) as f64) as f32
    };
    batch.values[tap]
        .chunks_exact(image_len.max(1))
        .map(|values| (0..kept).map(|place| mean(values, place * channels / kept)).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use nomaly_backbones::TapRequest;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Correlated channels of unequal size.
    fn row(dim: usize, random: &mut ChaCha8Rng) -> Vec<f32> {
        let common = random.random::<f32>();
        (0..dim).map(|c| (c + 1) as f32 * (common + 0.5 * random.random::<f32>())).collect()
    }

    fn median(mut values: Vec<f64>) -> f64 {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }

    #[test]
    fn training_images_are_as_far_from_the_others_as_further_images() {
        for (count, dim) in [(12, 16), (30, 16), (300, 4)] {
            let mut random = ChaCha8Rng::seed_from_u64(count as u64);
            let (mut held_out, mut further) = (Vec::new(), Vec::new());
            for _ in 0..20 {
                let rows: Vec<Vec<f32>> = (0..count).map(|_| row(dim, &mut random)).collect();
                let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
                let learned = ShallowFeatures::of("tap", &rows).unwrap();
                assert!(learned.is_sound());
                held_out.push(learned.distances().median());
                further.push(median((0..99).map(|_| learned.log_distance(&row(dim, &mut random)).unwrap()).collect()));
            }
            let (held_out, further) = (median(held_out), median(further));
            assert!((held_out - further).abs() < 0.1, "{count} × {dim}: {held_out} held out, {further} further");
        }
    }

    #[test]
    fn what_does_not_fit_has_no_distance() {
        let mut random = ChaCha8Rng::seed_from_u64(0);
        let rows: Vec<Vec<f32>> = (0..20).map(|_| row(3, &mut random)).collect();
        let mut rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        let learned = ShallowFeatures::of("tap", &rows).unwrap();
        assert_eq!(learned.log_distance(&[1.0, 2.0]), None);
        assert!(learned.log_distance(&[9.0, -9.0, 9.0]).unwrap() > learned.distances().range()[1] + 1.0);
        assert_eq!(ShallowFeatures::of("tap", &rows[..FEWEST_IMAGES - 1]), None);
        rows[3] = &[1.0, 2.0, f32::NAN];
        assert_eq!(ShallowFeatures::of("tap", &rows), None);
    }

    #[test]
    fn every_layout_is_averaged_over_positions_and_views() {
        // Two images of two views, three channels, two positions; the value encodes its position.
        let value = |image: usize, view: usize, channel: usize, position: usize| {
            (1000 * image + 100 * view + 10 * channel + position) as f32
        };
        let places = |order: &dyn Fn(usize) -> (usize, usize)| -> Vec<f32> {
            let cells = (0..2).flat_map(|image| (0..2).map(move |view| (image, view)));
            cells
                .flat_map(|(image, view)| (0..6).map(move |at| (image, view, at)).collect::<Vec<_>>())
                .map(|(image, view, at)| {
                    let (channel, position) = order(at);
                    value(image, view, channel, position)
                })
                .collect()
        };
        let rows = places(&|at| (at % 3, at / 3));
        let planes = places(&|at| (at / 2, at % 2));
        for (layout, values) in [(OutputLayout::Rows, rows), (OutputLayout::Nchw, planes)] {
            let (taps, values) = ([TapRequest::new("tap", layout)], [values]);
            let batch = FeatureBatch {
                images: 2,
                views: 2,
                input: [8, 8],
                map: [8, 8],
                taps: &taps,
                values: &values,
                shapes: &[[3, 1, 2]],
                region: None,
                median: None,
            };
            assert_eq!(pooled(&batch, 0), [[50.5, 60.5, 70.5], [1050.5, 1060.5, 1070.5]], "{layout:?}");
        }
    }
}
