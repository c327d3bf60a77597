//! Scratches.
//!
//! # What it computes
//! One to three nearly straight, nearly parallel lines of varying width that are brighter or darker than the surface;
//! the surface's texture stays visible in them.
//!
//! # When to use
//! For metal, plastic, varnish, wood.
//!
//! # Parameters
//! Length 20–60 % of the shorter side, half width 0.5–1.6 pixels at 256 pixels, brightness shifted by 45–95 grey
//! levels, up or down, whichever has more headroom.
//!
//! # Reference
//! After the class `scratch` of MVTec AD (Bergmann et al., CVPR 2019).

use image::{GrayImage, RgbImage};

use super::Kind;
use super::canvas::{Coverage, Dice, mean_color, turned};

pub(crate) const KIND: Kind =
    Kind { name: "scratch", summary: "thin straight lines, brighter or darker than the surface", draw };

fn draw(image: &RgbImage, dice: &mut Dice<'_>) -> (RgbImage, GrayImage) {
    const SEGMENTS: usize = 16;
    let mut canvas = Coverage::new(image);
    let unit = (canvas.scale() / 256.0).max(1.0);
    let center = dice.point(&canvas, 0.3);
    let heading = dice.direction();
    for _ in 0..=dice.below(3) {
        let mut heading = turned(heading, dice.between(-0.08, 0.08));
        let length = dice.between(0.2, 0.6) * canvas.scale();
        let curve = dice.between(-0.02, 0.02);
        let offset = dice.between(-8.0, 8.0) * unit;
        let mut at = [
            center[0] - 0.5 * length * heading[0] - offset * heading[1],
            center[1] - 0.5 * length * heading[1] + offset * heading[0],
        ];
        let mut radius = dice.between(0.5, 1.6) * unit;
        for _ in 0..SEGMENTS {
            heading = turned(heading, curve);
            let step = length / SEGMENTS as f32;
            let next = [at[0] + step * heading[0], at[1] + step * heading[1]];
            let next_radius = (radius * dice.between(0.8, 1.25)).clamp(0.4 * unit, 1.8 * unit);
            canvas.stroke(at, next, radius, next_radius);
            (at, radius) = (next, next_radius);
        }
    }
    let mean = mean_color(image, center, 0.2 * canvas.scale());
    let room_above = mean.iter().sum::<f32>() / 3.0 < 140.0;
    let shift = dice.between(45.0, 95.0) * if room_above { 1.0 } else { -1.0 };
    canvas.blend(image, |_, _, pixel| pixel.map(|value| value + shift))
}
