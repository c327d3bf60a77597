//! Feature pyramids: the maps of several layers on one grid, one vector per position, without neighborhoods.

use nomaly_kernels::Isa;
use nomaly_kernels::resample::{Bilinear, Grid};
use rayon::prelude::*;

use super::patches::bins;
use crate::MethodError;

/// The feature maps of all layers at the positions of `grid`, `[views · positions, channels of all layers]`.
///
/// `layers` are rows of positions, `[views, h · w, C]` each, of the `shapes` `[C, h, w]`. Finer layers are averaged
/// over each position of the grid, coarser ones interpolated bilinearly.
///
/// # Errors
/// An empty grid, or layers that do not match their shapes.
pub(super) fn pyramid(layers: &[Vec<f32>], shapes: &[[usize; 3]], grid: [usize; 2]) -> Result<Vec<f32>, MethodError> {
    let joined = layers.iter().zip(shapes).map(|(values, &shape)| {
        let [channels, height, width] = shape;
        Ok(match (height * width).cmp(&(grid[0] * grid[1])) {
            _ if [height, width] == grid => values.clone(),
            std::cmp::Ordering::Greater => averaged(values, shape, grid),
            _ => Bilinear::new([height, width], grid, Grid::default(), Isa::best()?)?.rows(values, channels)?,
        })
    });
    let joined: Vec<Vec<f32>> = joined.collect::<Result<_, MethodError>>()?;

    let dim: usize = shapes.iter().map(|[channels, ..]| channels).sum();
    let mut rows = vec![0.0; joined.iter().map(Vec::len).sum()];
    rows.par_chunks_exact_mut(dim).with_min_len(64).enumerate().for_each(|(position, row)| {
        let mut rest = row;
        for (values, [channels, ..]) in joined.iter().zip(shapes) {
            let (own, after) = rest.split_at_mut(*channels);
            own.copy_from_slice(&values[position * channels..(position + 1) * channels]);
            rest = after;
        }
    });
    Ok(rows)
}

/// Adaptive average pooling to a coarser grid, as PyTorch's `adaptive_avg_pool2d`.
fn averaged(values: &[f32], [channels, height, width]: [usize; 3], grid: [usize; 2]) -> Vec<f32> {
    let (lines, columns) = (bins(height, grid[0]), bins(width, grid[1]));
    let views = values.len() / (channels * height * width);
    let mut means = vec![0.0; views * grid[0] * grid[1] * channels];
    means.par_chunks_exact_mut(grid[1] * channels).enumerate().for_each(|(at, means)| {
        let (view, lines) = (at / grid[0], &lines[at % grid[0]]);
        for (mean, columns) in means.chunks_exact_mut(channels).zip(&columns) {
            for y in lines.clone() {
                for x in columns.clone() {
                    let position = (view * height + y) * width + x;
                    let features = &values[position * channels..(position + 1) * channels];
                    mean.iter_mut().zip(features).for_each(|(mean, value)| *mean += value);
                }
            }
            let count = (lines.len() * columns.len()) as f32;
            mean.iter_mut().for_each(|mean| *mean /= count);
        }
    });
    means
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_come_one_after_another_at_each_position() {
        let fine: Vec<f32> = (0..16).map(|value| value as f32).collect(); // one channel of 4 × 4
        let coarse = vec![10.0, -10.0, 20.0, -20.0, 30.0, -30.0, 40.0, -40.0]; // two of 2 × 2
        let shapes = [[1, 4, 4], [2, 2, 2]];
        let rows = pyramid(&[fine.clone(), coarse.clone()], &shapes, [2, 2]).unwrap();
        assert_eq!(rows, [2.5, 10.0, -10.0, 4.5, 20.0, -20.0, 10.5, 30.0, -30.0, 12.5, 40.0, -40.0]);

        let rows = pyramid(&[fine.clone(), coarse], &shapes, [4, 4]).unwrap();
        let channel = |channel: usize| rows.iter().skip(channel).step_by(3).copied().collect::<Vec<_>>();
        assert_eq!(channel(0), fine);
        assert_eq!(channel(1)[..4], [10.0, 12.5, 17.5, 20.0]);
        assert!(channel(1).iter().zip(channel(2)).all(|(a, b)| *a == -b));
    }

    #[test]
    fn sides_that_are_no_multiples_share_positions() {
        let values = [1.0, 2.0, 4.0, 8.0, 16.0];
        assert_eq!(averaged(&values, [1, 1, 5], [1, 2]), [7.0 / 3.0, 28.0 / 3.0]);
    }
}
