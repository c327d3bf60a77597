//! Sums over the pixels of cells of an image.

use image::RgbImage;

use super::{CELL, GREY, ImageStatistics};

/// Units of a luma of 1. Luma has four fractional bits, so that rounding is negligible and squares fit 32 bits.
const UNITS: i32 = 255 * LEVEL;
/// Units of a grey level.
const LEVEL: i32 = 16;
/// The unit of the Laplacian, so that its squares stay as small as those of differences.
const LAPLACIAN_UNIT: i32 = 4;
/// The side of a cell with its neighbours.
const WITH_NEIGHBORS: usize = CELL as usize + 2;
/// The side of a JPEG block.
const BLOCK: usize = 8;
/// The largest response of the noise filter, in grey levels, and zero.
const RESPONSES: usize = 8 * 255 + 1;
/// Added to energies, in squared grey levels, so that the logarithm of a flat image exists.
const ENERGY_OFFSET: f64 = 0.25;
/// Added to mean differences, in grey levels, for the same reason.
const DIFFERENCE_OFFSET: f64 = 0.25;
/// The norm of the noise filter, and the median of the magnitude of a standard normal variable.
const FILTER_NORM: f64 = 6.0;
const NORMAL_MEDIAN: f64 = 0.6745;

/// The sums behind the statistics.
pub(super) struct Sums {
    pixels: u64,
    luma: i64,
    luma_squared: i64,
    saturation: u64,
    red_green: i64,
    blue_green: i64,
    most_color: u8,
    /// Pixels with neighbours on all sides.
    inner: u64,
    laplacian: i64,
    /// Energies of horizontal and vertical differences.
    gradient: [i64; 2],
    /// Sums and counts of absolute differences to the previous neighbour, by position in the block.
    by_phase: [(i64, u64); BLOCK],
    /// Histogram of the magnitude of the noise filter's response, in whole grey levels.
    responses: Box<[u32; RESPONSES]>,
}

impl Default for Sums {
    fn default() -> Self {
        Self {
            pixels: 0,
            luma: 0,
            luma_squared: 0,
            saturation: 0,
            red_green: 0,
            blue_green: 0,
            most_color: 0,
            inner: 0,
            laplacian: 0,
            gradient: [0; 2],
            by_phase: [(0, 0); BLOCK],
            responses: Box::new([0; RESPONSES]),
        }
    }
}

impl Sums {
    /// Adds the cell whose first pixel is at (`x`, `y`).
    pub(super) fn add(&mut self, image: &RgbImage, x: u32, y: u32) {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let (x, y) = (x as usize, y as usize);
        let (x_end, y_end) = ((x + CELL as usize).min(width), (y + CELL as usize).min(height));
        // The cell with its neighbours, if any.
        let (left, top) = (x.saturating_sub(1), y.saturating_sub(1));
        let (right, bottom) = ((x_end + 1).min(width), (y_end + 1).min(height));
        let mut luma = [[0i32; WITH_NEIGHBORS]; WITH_NEIGHBORS];
        for (row, line) in (top..bottom).zip(&mut luma) {
            let pixels = &image.as_raw()[3 * (row * width + left)..3 * (row * width + right)];
            let (pixels, _) = pixels.as_chunks::<3>();
            for (value, pixel) in line.iter_mut().zip(pixels) {
                let [r, g, b] = pixel.map(i32::from);
                *value = (77 * r + 150 * g + 29 * b) / (256 / LEVEL);
            }
            if (y..y_end).contains(&row) {
                let own = x - left..x_end - left;
                self.add_colors(&pixels[own.clone()]);
                self.add_luma(&line[own]);
            }
        }
        if right - left < 3 || bottom - top < 3 {
            return;
        }
        let inner = right - left - 2;
        let mut columns = [0i32; CELL as usize];
        for row in 1..bottom - top - 1 {
            let lines = [&luma[row - 1][..inner + 2], &luma[row][..inner + 2], &luma[row + 1][..inner + 2]];
            self.add_differences(lines, top + row, &mut columns);
        }
        let rows = (bottom - top - 2) as u64;
        for (place, sum) in columns[..inner].iter().enumerate() {
            let (total, count) = &mut self.by_phase[(left + 1 + place) % BLOCK];
            *total += i64::from(*sum);
            *count += rows;
        }
    }

    fn add_colors(&mut self, pixels: &[[u8; 3]]) {
        let (mut saturation, mut red_green, mut blue_green, mut most) = (0u32, 0i32, 0i32, 0u8);
        for &[r, g, b] in pixels {
            let spread = r.max(g).max(b) - r.min(g).min(b);
            most = most.max(spread);
            saturation += u32::from(spread);
            red_green += i32::from(r) - i32::from(g);
            blue_green += i32::from(b) - i32::from(g);
        }
        self.most_color = self.most_color.max(most);
        self.saturation += u64::from(saturation);
        self.red_green += i64::from(red_green);
        self.blue_green += i64::from(blue_green);
    }

    fn add_luma(&mut self, line: &[i32]) {
        // A line of 32 squares of 12 bits fits 32 bits.
        self.luma += i64::from(line.iter().sum::<i32>());
        self.luma_squared += i64::from(line.iter().map(|value| value * value).sum::<i32>());
        self.pixels += line.len() as u64;
    }

    /// Adds line `y` with the lines above and below, each with a neighbour on both sides. Magnitudes of horizontal
    /// differences are added to `columns`.
    fn add_differences(&mut self, [above, line, below]: [&[i32]; 3], y: usize, columns: &mut [i32; CELL as usize]) {
        let inner = line.len() - 2;
        let (left, center, right) = (&line[..inner], &line[1..=inner], &line[2..]);
        let (up, down) = (&above[1..=inner], &below[1..=inner]);
        // All sums are of a line of 32 values: of squares of at most 4080, they fit 32 bits.
        let (mut horizontal, mut vertical, mut laplacian, mut over_rows) = (0i32, 0i32, 0i32, 0i32);
        for place in 0..inner {
            let (dx, dy) = (center[place] - left[place], center[place] - up[place]);
            horizontal += dx * dx;
            vertical += dy * dy;
            over_rows += dy.abs();
            columns[place] += dx.abs();
        }
        let mut responses = [0i32; CELL as usize];
        for place in 0..inner {
            let sides = left[place] + right[place] + up[place] + down[place];
            let corners = above[place] + above[place + 2] + below[place] + below[place + 2];
            let second = (4 * center[place] - sides) / LAPLACIAN_UNIT;
            laplacian += second * second;
            responses[place] = ((4 * center[place] - 2 * sides + corners).abs() + LEVEL / 2) / LEVEL;
        }
        self.inner += inner as u64;
        self.gradient[0] += i64::from(horizontal);
        self.gradient[1] += i64::from(vertical);
        self.laplacian += i64::from(laplacian);
        let (sum, count) = &mut self.by_phase[y % BLOCK];
        *sum += i64::from(over_rows);
        *count += inner as u64;
        for response in &responses[..inner] {
            self.responses[*response as usize] += 1;
        }
    }

    pub(super) fn statistics(&self) -> ImageStatistics {
        let pixels = self.pixels.max(1) as f64;
        let mean = self.luma as f64 / pixels;
        let variance = (self.luma_squared as f64 / pixels - mean * mean).max(0.0);
        let channel = |sum: f64| (sum / pixels / 255.0) as f32;
        let level = f64::from(LEVEL);
        let energy = |sum: i64, unit: f64| sum as f64 / self.inner.max(1) as f64 * unit * unit + ENERGY_OFFSET;
        let [horizontal, vertical] = self.gradient.map(|sum| energy(sum, 1.0 / level));
        let laplacian = energy(self.laplacian, f64::from(LAPLACIAN_UNIT) / level);
        ImageStatistics {
            brightness: (mean / f64::from(UNITS)) as f32,
            contrast: (variance.sqrt() / f64::from(UNITS)) as f32,
            sharpness: (laplacian / (horizontal + vertical)).ln() as f32,
            noise: (self.median_response() / (FILTER_NORM * NORMAL_MEDIAN) / 255.0) as f32,
            saturation: channel(self.saturation as f64),
            red_green: channel(self.red_green as f64),
            blue_green: channel(self.blue_green as f64),
            blockiness: self.blockiness() as f32,
            orientation: (horizontal / vertical).ln() as f32,
            grey: self.most_color <= GREY,
        }
    }

    fn blockiness(&self) -> f64 {
        let mean = |of: &[(i64, u64)]| {
            let (sum, count) = of.iter().fold((0, 0), |(sum, count), part| (sum + part.0, count + part.1));
            sum as f64 / count.max(1) as f64 / f64::from(LEVEL) + DIFFERENCE_OFFSET
        };
        (mean(&self.by_phase[..1]) / mean(&self.by_phase[1..])).ln()
    }

    /// The median magnitude of the noise filter's response in grey levels, assuming that responses are evenly spread
    /// between the integers that they are rounded to.
    fn median_response(&self) -> f64 {
        let half = self.inner as f64 / 2.0;
        let mut below = 0.0;
        for (response, &count) in self.responses.iter().enumerate() {
            let count = f64::from(count);
            if count > 0.0 && below + count >= half {
                let (from, width) = if response == 0 { (0.0, 0.5) } else { (response as f64 - 0.5, 1.0) };
                return from + width * (half - below) / count;
            }
            below += count;
        }
        0.0
    }
}
