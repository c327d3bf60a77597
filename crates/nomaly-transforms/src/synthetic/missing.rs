//! Missing texture.
//!
//! # What it computes
//! A patch with an irregular, rather sharp outline in which the texture is replaced by the mean colour around it, with
//! a little noise.
//!
//! # When to use
//! For misprints, missing coating, holes in a weave, rubbed-off structure.
//!
//! # Parameters
//! Radius 6–15 % of the shorter side; noise of ±4 grey levels.
//!
//! # Reference
//! After the classes `print` and `hole` of MVTec AD (Bergmann et al., CVPR 2019).

use image::{GrayImage, RgbImage};

use super::Kind;
use super::canvas::{Coverage, Dice, mean_color};

pub(crate) const KIND: Kind = Kind { name: "missing", summary: "a patch where the texture is absent", draw };

fn draw(image: &RgbImage, dice: &mut Dice<'_>) -> (RgbImage, GrayImage) {
    let mut canvas = Coverage::new(image);
    let center = dice.point(&canvas, 0.2);
    let radius = (dice.between(0.06, 0.15) * canvas.scale()).max(1.5);
    canvas.blob(center, radius, 0.1, dice);
    let mean = mean_color(image, center, 2.0 * radius);
    canvas.blend(image, |_, _, _| {
        let noise = dice.between(-4.0, 4.0);
        mean.map(|value| value + noise)
    })
}
