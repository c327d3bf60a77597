//! Blurred patches.
//!
//! # What it computes
//! A soft-edged blob in which the texture is smoothed by three box filters, close to a Gaussian. Brightness and colour
//! stay; only fine structure is lost.
//!
//! # When to use
//! For smears, films and worn print: defects without contrast in brightness. A surface without texture does not change.
//!
//! # Parameters
//! Radius 9–18 % of the shorter side; each box filter spans 2–3.5 % of it to either side, at least 2 pixels.
//!
//! # Reference
//! Three box filters for a Gaussian: Wells, *Efficient synthesis of Gaussian filters by cascaded uniform filters*, IEEE
//! TPAMI 8(2), 1986.

use image::{GrayImage, RgbImage};

use super::Kind;
use super::canvas::{Coverage, Dice};

pub(crate) const KIND: Kind = Kind { name: "blur", summary: "a patch whose texture is smoothed away", draw };

fn draw(image: &RgbImage, dice: &mut Dice<'_>) -> (RgbImage, GrayImage) {
    let mut canvas = Coverage::new(image);
    let center = dice.point(&canvas, 0.2);
    let radius = (dice.between(0.09, 0.18) * canvas.scale()).max(2.0);
    canvas.blob(center, radius, 0.15, dice);
    let reach = ((dice.between(0.02, 0.035) * canvas.scale()) as usize).max(2);
    let mut smoothed: Vec<[f32; 3]> = image.pixels().map(|pixel| pixel.0.map(f32::from)).collect();
    let (width, height) = (image.width() as usize, image.height() as usize);
    for _ in 0..3 {
        for row in smoothed.chunks_exact_mut(width) {
            box_filter(row, reach);
        }
        let mut column = Vec::with_capacity(height);
        for x in 0..width {
            column.clear();
            column.extend(smoothed.iter().skip(x).step_by(width));
            box_filter(&mut column, reach);
            for (target, value) in smoothed.iter_mut().skip(x).step_by(width).zip(&column) {
                *target = *value;
            }
        }
    }
    canvas.blend(image, |x, y, _| smoothed[y as usize * width + x as usize])
}

/// Replaces each value by the mean of the existing values up to `reach` away, with running sums.
fn box_filter(line: &mut [[f32; 3]], reach: usize) {
    // f64 sums of values that were bytes are precise enough for an 8-bit image.
    let mut sums = Vec::with_capacity(line.len() + 1);
    let mut sum = [0.0f64; 3];
    sums.push(sum);
    for value in line.iter() {
        for c in 0..3 {
            sum[c] += f64::from(value[c]);
        }
        sums.push(sum);
    }
    let length = line.len();
    for (i, value) in line.iter_mut().enumerate() {
        let (from, to) = (i.saturating_sub(reach), (i + reach + 1).min(length));
        *value = std::array::from_fn(|c| ((sums[to][c] - sums[from][c]) / (to - from) as f64) as f32);
    }
}
