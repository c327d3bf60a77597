//! Spots.
//!
//! # What it computes
//! One to four small round specks of one colour, close together, well darker or brighter than their surroundings.
//!
//! # When to use
//! For contamination, pinholes and pores; the smallest defect of this collection, which tests the resolution of a
//! method.
//!
//! # Parameters
//! Radius 1.2–3.5 % of the shorter side (at least 1.2 pixels), opacity 75–95 %.
//!
//! # Reference
//! After the classes `contamination` and `hole` of MVTec AD (Bergmann et al., CVPR 2019).

use image::{GrayImage, RgbImage};

use super::Kind;
use super::canvas::{Coverage, Dice, mean_color};

pub(crate) const KIND: Kind = Kind { name: "spot", summary: "small round specks, dark or bright", draw };

fn draw(image: &RgbImage, dice: &mut Dice<'_>) -> (RgbImage, GrayImage) {
    let mut canvas = Coverage::new(image);
    let scale = canvas.scale();
    let center = dice.point(&canvas, 0.15);
    for i in 0..=dice.below(4) {
        let radius = (dice.between(0.012, 0.035) * scale).max(1.2);
        let spread = if i == 0 { 0.0 } else { dice.between(0.03, 0.12) * scale };
        let towards = dice.direction();
        let at = [center[0] + spread * towards[0], center[1] + spread * towards[1]];
        // A speck is seldom a perfect disc: two overlapping ones make it oval.
        let stretch = dice.direction().map(|v| v * 0.4 * radius);
        canvas.stroke(at, [at[0] + stretch[0], at[1] + stretch[1]], radius, 0.8 * radius);
    }
    let mean = mean_color(image, center, 0.1 * scale);
    let brightness = mean.iter().sum::<f32>() / 3.0;
    let level = if brightness > 110.0 { dice.between(5.0, 40.0) } else { dice.between(210.0, 250.0) };
    let color: [f32; 3] = std::array::from_fn(|_| level + dice.between(-12.0, 12.0));
    let opacity = dice.between(0.75, 0.95);
    canvas.blend(image, |_, _, pixel| std::array::from_fn(|c| pixel[c] + opacity * (color[c] - pixel[c])))
}
