//! Cracks.
//!
//! # What it computes
//! A dark wandering line: a random walk of short steps whose heading drifts with occasional kinks, thickest in the
//! middle and tapering at both ends, with up to two branches.
//!
//! # When to use
//! For brittle surfaces: ceramics, concrete, glass, solar cells.
//!
//! # Parameters
//! Length 25–60 % of the shorter side, half width 0.8–2 pixels at 256 pixels, darkened to 10–35 %.
//!
//! # Reference
//! After the class `crack` of MVTec AD (Bergmann et al., CVPR 2019).

use image::{GrayImage, RgbImage};

use super::Kind;
use super::canvas::{Coverage, Dice, turned};

pub(crate) const KIND: Kind = Kind { name: "crack", summary: "a dark wandering line with branches", draw };

fn draw(image: &RgbImage, dice: &mut Dice<'_>) -> (RgbImage, GrayImage) {
    let mut canvas = Coverage::new(image);
    let start = dice.point(&canvas, 0.25);
    let heading = dice.direction();
    let length = dice.between(0.25, 0.6) * canvas.scale();
    let radius = dice.between(0.8, 2.0) * (canvas.scale() / 256.0).max(1.0);
    let path = walk(&mut canvas, start, heading, length, radius, dice);
    for _ in 0..dice.below(3) {
        let (at, heading) = path[dice.below(path.len() as u32) as usize];
        let side = if dice.chance(0.5) { 1.0 } else { -1.0 };
        let heading = turned(heading, side * dice.between(0.5, 1.2));
        let length = length * dice.between(0.15, 0.4);
        walk(&mut canvas, at, heading, length, 0.7 * radius, dice);
    }
    let darkness = dice.between(0.1, 0.35);
    canvas.blend(image, |_, _, pixel| pixel.map(|value| value * darkness))
}

/// Draws one branch and returns its points, each with the heading there.
fn walk(
    canvas: &mut Coverage,
    start: [f32; 2],
    heading: [f32; 2],
    length: f32,
    radius: f32,
    dice: &mut Dice<'_>,
) -> Vec<([f32; 2], [f32; 2])> {
    const STEP: f32 = 2.5;
    let steps = ((length / STEP) as usize).max(3);
    let (mut at, mut heading) = (start, heading);
    let mut path = vec![(at, heading)];
    let width = |i: usize| {
        let t = 2.0 * i as f32 / steps as f32 - 1.0;
        radius * (0.35 + 0.65 * (1.0 - t * t))
    };
    for i in 0..steps {
        let turn = if dice.chance(0.08) { dice.between(-0.9, 0.9) } else { dice.between(-0.3, 0.3) };
        heading = turned(heading, turn);
        let next = [at[0] + STEP * heading[0], at[1] + STEP * heading[1]];
        canvas.stroke(at, next, width(i), width(i + 1));
        at = next;
        path.push((at, heading));
    }
    path
}
