//! The grid of patches, their features, and maps from their scores.

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Weights of red, green and blue in luma, ITU-R BT.601.
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// The channels of a patch's pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Color {
    /// The luma.
    Grey,
    /// Red, green and blue.
    Rgb,
}

impl Color {
    /// Values per pixel.
    pub(super) fn channels(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Rgb => 3,
        }
    }

    /// The planes `[channels, height, width]` of pixels `[height, width, 3]`.
    pub(super) fn planes(self, pixels: &[f32]) -> Vec<f32> {
        match self {
            Self::Grey => {
                pixels.chunks_exact(3).map(|rgb| rgb.iter().zip(LUMA).map(|(value, luma)| value * luma).sum()).collect()
            }
            Self::Rgb => (0..3).flat_map(|channel| pixels.iter().skip(channel).step_by(3).copied()).collect(),
        }
    }
}

/// Square patches at regular positions; the last of a row or column ends at the border of the image, so that every
/// pixel is covered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PatchGrid {
    /// Height and width of the image.
    image: [usize; 2],
    side: usize,
    tops: Vec<usize>,
    lefts: Vec<usize>,
}

impl PatchGrid {
    /// Patches of `side` × `side` pixels, `step` apart, on an image of `[height, width]` that is at least as large;
    /// `step` is at least 1 and at most `side`.
    pub(super) fn new(image: [usize; 2], side: usize, step: usize) -> Self {
        let places = |length: usize| {
            let last = length - side;
            let mut places: Vec<usize> = (0..last).step_by(step).collect();
            places.push(last);
            places
        };
        Self { image, side, tops: places(image[0]), lefts: places(image[1]) }
    }

    /// The upper left corner (row, column) of each patch, row by row.
    pub(super) fn corners(&self) -> Vec<[usize; 2]> {
        self.tops.iter().flat_map(|&top| self.lefts.iter().map(move |&left| [top, left])).collect()
    }

    /// One row of `width` values for each patch of `planes` `[channels, height, width]` at `corners`: `describe` fills
    /// it from the pixels `[channels, side, side]` of the patch.
    pub(super) fn rows(
        &self,
        planes: &[f32],
        corners: &[[usize; 2]],
        width: usize,
        describe: impl Fn(&[f32], &mut [f32]) + Sync,
    ) -> Vec<f32> {
        let [height, row_length] = self.image;
        let channels = planes.len() / (height * row_length);
        let mut rows = vec![0.0; corners.len() * width];
        rows.par_chunks_exact_mut(width).zip(corners).with_min_len(32).for_each_init(
            || Vec::with_capacity(channels * self.side * self.side),
            |patch, (row, &[top, left])| {
                patch.clear();
                for channel in 0..channels {
                    for y in top..top + self.side {
                        let from = (channel * height + y) * row_length + left;
                        patch.extend_from_slice(&planes[from..from + self.side]);
                    }
                }
                describe(patch, row);
            },
        );
        rows
    }

    /// The mean score of all patches over each pixel, `[height, width]`, from one score for each of
    /// [`corners`](Self::corners).
    pub(super) fn averaged(&self, scores: &[f64]) -> Vec<f32> {
        let [height, width] = self.image;
        // First the sums over each row of patches, as differences along the columns.
        let columns = self.lefts.len();
        let mut covers = vec![0u32; width];
        for &left in &self.lefts {
            covers[left..left + self.side].iter_mut().for_each(|count| *count += 1);
        }
        let lines: Vec<Vec<f64>> = scores
            .chunks_exact(columns)
            .map(|scores| {
                let mut line = vec![0.0; width];
                for (&left, score) in self.lefts.iter().zip(scores) {
                    line[left..left + self.side].iter_mut().for_each(|sum| *sum += score);
                }
                line.iter_mut().zip(&covers).for_each(|(sum, count)| *sum /= f64::from(*count));
                line
            })
            .collect();
        let mut map = Vec::with_capacity(height * width);
        for y in 0..height {
            let over = self.tops.iter().zip(&lines).filter(|(top, _)| (**top..**top + self.side).contains(&y));
            let over: Vec<&Vec<f64>> = over.map(|(_, line)| line).collect();
            map.extend((0..width).map(|x| {
                let sum: f64 = over.iter().map(|line| line[x]).sum();
                (sum / over.len() as f64) as f32
            }));
        }
        map
    }
}

/// The number of expert features per channel: the mean, the variance and the total variation.
pub(super) const EXPERT_FEATURES: usize = 3;

/// Fills `row` with [`EXPERT_FEATURES`] values per channel of a patch `[channels, side, side]`: the mean, the variance,
/// and the mean length of the gradient (forward differences inside the patch), which is the total variation over the
/// area.
pub(super) fn expert(patch: &[f32], side: usize, row: &mut [f32]) {
    let area = side * side;
    for (pixels, row) in patch.chunks_exact(area).zip(row.chunks_exact_mut(EXPERT_FEATURES)) {
        let mean = pixels.iter().map(|value| f64::from(*value)).sum::<f64>() / area as f64;
        let squares: f64 = pixels.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum();
        let mut variation = 0.0;
        for y in 0..side - 1 {
            for x in 0..side - 1 {
                let at = y * side + x;
                let right = f64::from(pixels[at + 1]) - f64::from(pixels[at]);
                let down = f64::from(pixels[at + side]) - f64::from(pixels[at]);
                variation += (right * right + down * down).sqrt();
            }
        }
        let gradients = ((side - 1) * (side - 1)) as f64;
        row.copy_from_slice(&[mean as f32, (squares / area as f64) as f32, (variation / gradients) as f32]);
    }
}

/// Subtracts the mean of each channel of a patch `[channels, side, side]`.
pub(super) fn remove_means(patch: &mut [f32], side: usize) {
    for pixels in patch.chunks_exact_mut(side * side) {
        let mean = pixels.iter().map(|value| f64::from(*value)).sum::<f64>() / pixels.len() as f64;
        pixels.iter_mut().for_each(|value| *value = (f64::from(*value) - mean) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_reach_the_border_and_hold_their_pixels() {
        let grid = PatchGrid::new([5, 7], 3, 2);
        assert_eq!((grid.tops.as_slice(), grid.lefts.as_slice()), (&[0, 2][..], &[0, 2, 4][..]));
        assert_eq!((grid.corners().len(), grid.corners()[4]), (6, [2, 2]));
        assert_eq!(PatchGrid::new([6, 3], 3, 2).tops, [0, 2, 3]);
        let planes: Vec<f32> = (0..35).map(|value| value as f32).collect();
        let rows = grid.rows(&planes, &grid.corners()[4..5], 9, |patch, row| row.copy_from_slice(patch));
        assert_eq!(rows, [16.0, 17.0, 18.0, 23.0, 24.0, 25.0, 30.0, 31.0, 32.0]);
    }

    #[test]
    fn a_pixel_gets_the_mean_of_all_patches_over_it() {
        for (image, side, step) in [([5, 7], 3, 2), ([6, 3], 3, 2), ([9, 8], 4, 1), ([8, 8], 8, 8)] {
            let grid = PatchGrid::new(image, side, step);
            let scores: Vec<f64> = (0..grid.corners().len()).map(|at| ((at * 7 + 3) % 11) as f64).collect();
            let map = grid.averaged(&scores);
            for y in 0..image[0] {
                for x in 0..image[1] {
                    let over = grid.corners().into_iter().zip(&scores).filter(|([top, left], _)| {
                        (*top..top + side).contains(&y) && (*left..left + side).contains(&x)
                    });
                    let over: Vec<f64> = over.map(|(_, score)| *score).collect();
                    let want = over.iter().sum::<f64>() / over.len() as f64;
                    assert!((f64::from(map[y * image[1] + x]) - want).abs() < 1e-6, "{image:?} {x} {y}");
                }
            }
        }
    }

    #[test]
    fn expert_numbers_by_hand() {
        // A ramp along the columns: every gradient is 2.
        let patch: Vec<f32> = (0..9).map(|at| 2.0 * (at % 3) as f32).collect();
        let mut row = [0.0; 3];
        expert(&patch, 3, &mut row);
        assert_eq!(row, [2.0, 8.0 / 3.0, 2.0]);
        let mut both = [patch.clone(), vec![5.0; 9]].concat();
        remove_means(&mut both, 3);
        assert_eq!((both[0], both[2], both[9]), (-2.0, 2.0, 0.0));
    }

    #[test]
    fn grey_is_the_luma_and_planes_are_channels() {
        let pixels = [1.0, 0.0, 0.0, 0.0, 1.0, 0.5];
        assert_eq!(Color::Rgb.planes(&pixels), [1.0, 0.0, 0.0, 1.0, 0.0, 0.5]);
        let grey = Color::Grey.planes(&pixels);
        assert!((grey[0] - 0.299).abs() < 1e-6 && (grey[1] - 0.644).abs() < 1e-6, "{grey:?}");
    }
}
