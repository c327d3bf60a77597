//! Locally aware patch features of PatchCore.
//!
//! Each position of a feature map is aggregated with its 3 × 3 neighborhood ([`Joining`]), and maps of several layers
//! are interpolated bilinearly to the [`grid`](PatchGrid) of one of them.

use std::ops::Range;

use nomaly_kernels::Isa;
use nomaly_kernels::resample::{Bilinear, Grid};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::MethodError;
use crate::features::FeatureBatch;

/// How positions are aggregated with their neighbors, and layers with each other. The map is padded with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joining {
    /// The mean of each channel over the neighborhood; all channels of all layers concatenated. As in anomalib.
    Mean,
    /// The `C · 9` values of the neighborhood, channel by channel, averaged into `size` bins per layer, then the bins
    /// of all layers averaged into `size` bins again. As in the authors' program, with 1024.
    Bins {
        /// Values per patch.
        size: usize,
    },
}

/// The layer at whose positions patches lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PatchGrid {
    /// The finest layer.
    #[default]
    Finest,
    /// The coarsest layer.
    Coarsest,
    /// The finest layer of at most 2048 positions, or else the coarsest: larger inputs have coarser patches rather than
    /// more.
    Auto,
}

/// The most positions of [`PatchGrid::Auto`].
const MOST_POSITIONS: usize = 2048;

impl PatchGrid {
    /// Height and width of the grid for layers of these shapes `[C, h, w]`.
    pub fn of(self, shapes: &[[usize; 3]]) -> [usize; 2] {
        let grids = shapes.iter().map(|&[_, height, width]| [height, width]);
        let positions = |grid: &[usize; 2]| grid[0] * grid[1];
        let (finest, coarsest) = (grids.clone().max_by_key(positions), grids.clone().min_by_key(positions));
        let chosen = match self {
            Self::Finest => finest,
            Self::Coarsest => coarsest,
            Self::Auto => grids.filter(|grid| positions(grid) <= MOST_POSITIONS).max_by_key(positions).or(coarsest),
        };
        chosen.unwrap_or([0, 0])
    }
}

/// How patches are made: the aggregation and the grid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patching {
    pub(super) joining: Joining,
    pub(super) grid: PatchGrid,
}

/// The shape of patch features: the grid's height and width, and values per patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PatchShape {
    pub(super) grid: [usize; 2],
    pub(super) dim: usize,
}

impl PatchShape {
    /// Patches per view.
    pub(super) fn patches(self) -> usize {
        self.grid[0] * self.grid[1]
    }
}

impl Patching {
    /// The shape of the patches of `batch`.
    pub(super) fn shape(self, batch: &FeatureBatch<'_>) -> PatchShape {
        let dim = match self.joining {
            Joining::Mean => batch.shapes.iter().map(|[channels, ..]| channels).sum(),
            Joining::Bins { size } => size,
        };
        PatchShape { grid: self.grid.of(batch.shapes), dim }
    }

    /// The patches of all views of a batch, `[images · views · patches, dim]`.
    pub(super) fn patches(self, batch: &FeatureBatch<'_>) -> Result<Vec<f32>, MethodError> {
        let PatchShape { grid, dim } = self.shape(batch);
        let positions = batch.images * batch.views * grid[0] * grid[1];
        let layers = batch.shapes.iter().zip(batch.values).map(|(&shape, values)| {
            let [_, height, width] = shape;
            let (joined, channels) = match self.joining {
                Joining::Mean => (neighborhood_means(values, shape), shape[0]),
                Joining::Bins { size } => (neighborhood_bins(values, shape, size), size),
            };
            let joined = if [height, width] == grid {
                joined
            } else {
                Bilinear::new([height, width], grid, Grid::default(), Isa::best()?)?.rows(&joined, channels)?
            };
            Ok((joined, channels))
        });
        let layers: Vec<(Vec<f32>, usize)> = layers.collect::<Result<_, MethodError>>()?;

        let width: usize = layers.iter().map(|(_, channels)| channels).sum();
        let join = |position: usize, patch: &mut [f32]| {
            let mut rest = patch;
            for (values, channels) in &layers {
                let (own, after) = rest.split_at_mut(*channels);
                own.copy_from_slice(&values[position * channels..(position + 1) * channels]);
                rest = after;
            }
        };
        let mut patches = vec![0.0; positions * dim];
        match self.joining {
            Joining::Mean => {
                patches.par_chunks_exact_mut(dim).with_min_len(64).enumerate().for_each(|(at, patch)| join(at, patch));
            }
            Joining::Bins { .. } => {
                let bins = bins(width, dim);
                patches.par_chunks_exact_mut(dim).with_min_len(64).enumerate().for_each_init(
                    || vec![0.0; width],
                    |all, (at, patch)| {
                        join(at, all);
                        average(all, &bins, patch);
                    },
                );
            }
        }
        Ok(patches)
    }
}

/// The mean of each channel over the 3 × 3 positions around each one, zeros outside, `[views · h · w, C]`.
fn neighborhood_means(values: &[f32], [channels, height, width]: [usize; 3]) -> Vec<f32> {
    let line = width * channels;
    let mut means = vec![0.0; values.len()];
    means.par_chunks_exact_mut(line).enumerate().for_each_init(
        || vec![0.0f32; line],
        |sums, (at, means)| {
            let (view, y) = (at / height, at % height);
            sums.fill(0.0);
            for y in y.saturating_sub(1)..(y + 2).min(height) {
                let from = (view * height + y) * line;
                sums.iter_mut().zip(&values[from..from + line]).for_each(|(sum, value)| *sum += value);
            }
            for (x, mean) in means.chunks_exact_mut(channels).enumerate() {
                for x in x.saturating_sub(1)..(x + 2).min(width) {
                    let sums = &sums[x * channels..(x + 1) * channels];
                    mean.iter_mut().zip(sums).for_each(|(mean, sum)| *mean += sum);
                }
                mean.iter_mut().for_each(|mean| *mean /= 9.0);
            }
        },
    );
    means
}

/// The 3 × 3 neighborhood of each position, channel by channel with zeros outside, averaged into `size` bins.
fn neighborhood_bins(values: &[f32], [channels, height, width]: [usize; 3], size: usize) -> Vec<f32> {
    let bins = bins(channels * 9, size);
    let mut patches = vec![0.0; values.len() / channels * size];
    patches.par_chunks_exact_mut(width * size).enumerate().for_each_init(
        || vec![0.0f32; channels * 9],
        |around, (at, patches)| {
            let (view, y) = (at / height, at % height);
            for (x, patch) in patches.chunks_exact_mut(size).enumerate() {
                for place in 0..9 {
                    let (from_y, from_x) = (y + place / 3, x + place % 3);
                    let inside = (1..=height).contains(&from_y) && (1..=width).contains(&from_x);
                    let targets = around.iter_mut().skip(place).step_by(9);
                    if inside {
                        let position = (view * height + from_y - 1) * width + from_x - 1;
                        let features = &values[position * channels..(position + 1) * channels];
                        targets.zip(features).for_each(|(target, value)| *target = *value);
                    } else {
                        targets.for_each(|target| *target = 0.0);
                    }
                }
                average(around, &bins, patch);
            }
        },
    );
    patches
}

/// The ranges of `len` values in each of `count` bins, as in PyTorch's `adaptive_avg_pool1d`: bins overlap unless `len`
/// is a multiple of `count`.
pub(super) fn bins(len: usize, count: usize) -> Vec<Range<usize>> {
    (0..count).map(|bin| bin * len / count..((bin + 1) * len).div_ceil(count)).collect()
}

fn average(values: &[f32], bins: &[Range<usize>], means: &mut [f32]) {
    for (bin, mean) in bins.iter().zip(means) {
        let values = &values[bin.clone()];
        *mean = values.iter().sum::<f32>() / values.len() as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_lie_at_the_positions_of_the_layer_that_is_asked_for() {
        let of = |grid: PatchGrid, sides: [[usize; 2]; 2]| grid.of(&sides.map(|[height, width]| [5, height, width]));
        for (grid, expected) in
            [(PatchGrid::Finest, [88, 36]), (PatchGrid::Coarsest, [44, 18]), (PatchGrid::Auto, [44, 18])]
        {
            assert_eq!(of(grid, [[88, 36], [44, 18]]), expected, "{grid:?}");
            assert_eq!(of(grid, [[44, 18], [88, 36]]), expected, "{grid:?}");
        }
        assert_eq!(of(PatchGrid::Auto, [[64, 32], [32, 16]]), [64, 32]);
        assert_eq!(of(PatchGrid::Auto, [[64, 33], [32, 16]]), [32, 16]);
        // The coarsest, even if it has more.
        assert_eq!(of(PatchGrid::Auto, [[128, 128], [64, 64]]), [64, 64]);
        assert_eq!(PatchGrid::Finest.of(&[]), [0, 0]);
    }
}
