//! CutPaste.
//!
//! # What it computes
//! A rectangle of the image, its colours jittered slightly, pasted at another position in the same image.
//!
//! # When to use
//! For misplaced and doubled parts, and as the augmentation that CutPaste is trained with.
//!
//! # Parameters
//! Area 2–15 % of the image; aspect ratio 0.3–1 or 1–3.3; jitter of ±10 % in brightness and contrast.
//!
//! # Reference
//! Li, Sohn, Yoon, Pfister, *CutPaste: Self-Supervised Learning for Anomaly Detection and Localization*, CVPR 2021,
//! section 2.2 and appendix A.

use image::{GrayImage, RgbImage};

use super::Kind;
use super::canvas::{Coverage, Dice, jitter};

pub(crate) const KIND: Kind =
    Kind { name: "cut-paste", summary: "a rectangle of the image pasted elsewhere (CutPaste)", draw };

fn draw(image: &RgbImage, dice: &mut Dice<'_>) -> (RgbImage, GrayImage) {
    let mut canvas = Coverage::new(image);
    let (width, height) = image.dimensions();
    let area = dice.between(0.02, 0.15) * width as f32 * height as f32;
    let aspect = if dice.chance(0.5) { dice.between(0.3, 1.0) } else { dice.between(1.0, 3.3) };
    let patch_width = ((area * aspect).sqrt() as u32).clamp(1, width);
    let patch_height = ((area / aspect).sqrt() as u32).clamp(1, height);
    let mut place = || [dice.below(width - patch_width + 1), dice.below(height - patch_height + 1)];
    let from = place();
    // A position too close to the original would hardly be a defect; a tiny image may have no other.
    let mut to = place();
    for _ in 0..16 {
        let far = |axis: usize, size: u32| from[axis].abs_diff(to[axis]) * 4 >= size;
        if far(0, patch_width) || far(1, patch_height) {
            break;
        }
        to = place();
    }
    let jitter = jitter(dice);
    let (left, top) = (to[0] as f32, to[1] as f32);
    let (right, bottom) = (left + patch_width as f32, top + patch_height as f32);
    canvas.cover([left, top, right, bottom], |[x, y]| {
        if (left..right).contains(&x) && (top..bottom).contains(&y) { 1.0 } else { 0.0 }
    });
    canvas.blend(image, |x, y, _| jitter(image.get_pixel(x - to[0] + from[0], y - to[1] + from[1]).0.map(f32::from)))
}
