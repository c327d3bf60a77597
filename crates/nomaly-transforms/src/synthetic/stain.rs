//! Stains.
//!
//! # What it computes
//! A soft blob with an irregular outline under which the surface is tinted, darker as by a liquid or paler as by
//! bleaching; the texture stays visible.
//!
//! # When to use
//! For textiles, leather, paper, wood, tiles.
//!
//! # Parameters
//! Radius 8–18 % of the shorter side; a dark stain keeps 40–75 % of each colour channel, a pale one moves 35–60 %
//! of the way to white.
//!
//! # Reference
//! After the classes `color`, `oil` and `liquid` of MVTec AD (Bergmann et al., CVPR 2019).

use image::{GrayImage, RgbImage};

use super::Kind;
use super::canvas::{Coverage, Dice, mean_color};

pub(crate) const KIND: Kind = Kind { name: "stain", summary: "a soft tinted blob, darker or paler", draw };

fn draw(image: &RgbImage, dice: &mut Dice<'_>) -> (RgbImage, GrayImage) {
    let mut canvas = Coverage::new(image);
    let center = dice.point(&canvas, 0.2);
    let radius = (dice.between(0.08, 0.18) * canvas.scale()).max(1.5);
    canvas.blob(center, radius, 0.45, dice);

    let mean = mean_color(image, center, radius);
    let brightness = mean.iter().sum::<f32>() / 3.0;
    // A pale stain would not show on white, nor a dark one on black.
    let pale = brightness < 60.0 || (brightness < 170.0 && dice.chance(0.35));
    let depth = if pale { dice.between(0.35, 0.6) } else { dice.between(0.45, 0.7) };
    let tint: [f32; 3] = std::array::from_fn(|_| depth + dice.between(-0.05, 0.05));
    canvas.blend(image, |_, _, pixel| {
        std::array::from_fn(|c| if pale { pixel[c] + tint[c] * (255.0 - pixel[c]) } else { pixel[c] * tint[c] })
    })
}
