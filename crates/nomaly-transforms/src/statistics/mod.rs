//! Cheap statistics of a decoded image: brightness, contrast, sharpness, noise and colour.
//!
//! # What it computes
//! [`ImageStatistics`], from the 8-bit RGB image at its own resolution. Luma is ITU-R BT.601's. Large images are
//! sampled by at most [`MAX_CELLS`] cells of [`CELL`]² pixels on an even grid, which bounds the cost.
//!
//! # When to use
//! To check whether images come from the same camera, lighting and processing as others. They do not detect defects.
//!
//! # Reference
//! The noise is Immerkær's (*Fast noise variance estimation*, CVIU 64(2), 1996), with the median in place of the mean,
//! which reduces the influence of edges. The blockiness follows Wang, Sheikh and Bovik, *No-reference perceptual
//! quality assessment of JPEG compressed images*, ICIP 2002: differences over the borders of blocks against those
//! inside.

mod cells;

use image::RgbImage;

use self::cells::Sums;

/// The side of a sampled cell, in pixels: whole JPEG blocks.
pub const CELL: u32 = 32;
/// The most sampled cells: 2¹⁵ pixels, about as many as in an image of 180 × 180.
pub const MAX_CELLS: u32 = 32;

/// The largest difference of a pixel's channels, of 255, in an image without colour. JPEG's colour conversion leaves
/// small differences.
const GREY: u8 = 4;

/// Global statistics of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImageStatistics {
    /// The mean luma, in [0, 1].
    pub brightness: f32,
    /// The standard deviation of the luma, in [0, 0.5].
    pub contrast: f32,
    /// The logarithm of the energy of the Laplacian over that of the gradient: about 1.6 for white noise, below 0 for
    /// blurred images. It does not depend on gain or contrast.
    pub sharpness: f32,
    /// The standard deviation of the noise in luma, on the scale of [0, 1]; fine texture counts as noise.
    pub noise: f32,
    /// The mean difference of a pixel's largest and smallest channel, in [0, 1].
    pub saturation: f32,
    /// The mean of red less green, in [−1, 1].
    pub red_green: f32,
    /// The mean of blue less green, in [−1, 1].
    pub blue_green: f32,
    /// The logarithm of the mean difference of neighbours over the borders of 8 × 8 blocks against that inside: 0
    /// without traces of JPEG, above 0 with them.
    pub blockiness: f32,
    /// The logarithm of the energy of horizontal differences over that of vertical ones: 0 without a preferred
    /// direction, above 0 for vertical stripes.
    pub orientation: f32,
    /// Whether no pixel has colour.
    pub grey: bool,
}

impl ImageStatistics {
    /// Measures an image of any size; one without pixels counts as black.
    pub fn of(image: &RgbImage) -> Self {
        let (columns, rows) = (image.width().div_ceil(CELL), image.height().div_ceil(CELL));
        let mut sums = Sums::default();
        let (across, down) = chosen(columns, rows);
        for row in 0..down {
            for column in 0..across {
                sums.add(image, middle(column, across, columns) * CELL, middle(row, down, rows) * CELL);
            }
        }
        sums.statistics()
    }
}

/// The number of columns and rows of sampled cells, of all cells.
fn chosen(columns: u32, rows: u32) -> (u32, u32) {
    let cells = f64::from(columns) * f64::from(rows);
    if cells <= f64::from(MAX_CELLS) {
        return (columns, rows);
    }
    let share = (f64::from(MAX_CELLS) / cells).sqrt();
    let across = ((f64::from(columns) * share) as u32).clamp(1, columns.min(MAX_CELLS));
    let down = ((f64::from(rows) * share) as u32).clamp(1, rows);
    // For a long strip, the share of the short side is below one cell.
    (across.min(MAX_CELLS / down.min(MAX_CELLS)).max(1), down.min(MAX_CELLS / across).max(1))
}

/// The middle of part `index` when `all` is divided into `parts`.
fn middle(index: u32, parts: u32, all: u32) -> u32 {
    ((2 * u64::from(index) + 1) * u64::from(all) / (2 * u64::from(parts))) as u32
}
