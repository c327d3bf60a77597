//! CutPaste's scar.
//!
//! # What it computes
//! A long thin rectangle of the image, its colours jittered slightly, rotated and pasted at another position.
//!
//! # When to use
//! For small elongated defects, and as the second augmentation that CutPaste is trained with.
//!
//! # Parameters
//! 2–16 by 10–25 pixels at 256 pixels (the sizes grow with the shorter side); turned by up to 45° either way;
//! jitter of ±10 % in brightness and contrast.
//!
//! # Reference
//! Li, Sohn, Yoon, Pfister, *CutPaste: Self-Supervised Learning for Anomaly Detection and Localization*, CVPR 2021,
//! section 2.3 and appendix A.

use image::{GrayImage, RgbImage};

use super::Kind;
use super::canvas::{Coverage, Dice, jitter};

pub(crate) const KIND: Kind = Kind { name: "scar", summary: "a thin turned strip of the image pasted elsewhere", draw };

fn draw(image: &RgbImage, dice: &mut Dice<'_>) -> (RgbImage, GrayImage) {
    let mut canvas = Coverage::new(image);
    let unit = (canvas.scale() / 256.0).max(0.25);
    let half_width = 0.5 * dice.between(2.0, 16.0) * unit;
    let half_height = 0.5 * dice.between(10.0, 25.0) * unit;
    // Within 45° of vertical: the second component of the direction dominates and points down.
    let axis = loop {
        let v = dice.direction();
        if v[1] >= v[0].abs() {
            break v;
        }
    };
    let source = dice.point(&canvas, 0.1);
    let center = dice.point(&canvas, 0.15);
    // Coordinates of a pixel in the strip: across and along.
    let local = |p: [f32; 2]| {
        let d = [p[0] - center[0], p[1] - center[1]];
        [d[0] * axis[1] - d[1] * axis[0], d[0] * axis[0] + d[1] * axis[1]]
    };
    let reach = half_width + half_height + 1.0;
    canvas.cover([center[0] - reach, center[1] - reach, center[0] + reach, center[1] + reach], |p| {
        let [across, along] = local(p);
        (half_width + 0.5 - across.abs()).min(half_height + 0.5 - along.abs())
    });
    let jitter = jitter(dice);
    let (last_x, last_y) = ((image.width() - 1) as f32, (image.height() - 1) as f32);
    canvas.blend(image, |x, y, _| {
        let [across, along] = local([x as f32 + 0.5, y as f32 + 0.5]);
        let from = [(source[0] + across).clamp(0.0, last_x), (source[1] + along).clamp(0.0, last_y)];
        jitter(image.get_pixel(from[0] as u32, from[1] as u32).0.map(f32::from))
    })
}
