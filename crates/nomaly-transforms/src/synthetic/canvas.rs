//! Coverage and blending, for drawing all kinds of defects.

use image::{GrayImage, Luma, Rgb, RgbImage};

pub(super) use crate::dice::Dice;
use crate::dice::unit;

impl Dice<'_> {
    /// A point of the image, at least `margin` (a share of each side) away from its border.
    pub(super) fn point(&mut self, canvas: &Coverage, margin: f32) -> [f32; 2] {
        [canvas.width, canvas.height].map(|side| self.between(margin, 1.0 - margin) * side as f32)
    }
}

/// A direction rotated by about `angle` radians (exactly, by the angle with that tangent).
pub(super) fn turned(v: [f32; 2], angle: f32) -> [f32; 2] {
    unit([v[0] - angle * v[1], v[1] + angle * v[0]])
}

/// The coverage of each pixel by a defect, 0 to 1.
#[derive(Debug)]
pub(super) struct Coverage {
    pub(super) width: u32,
    pub(super) height: u32,
    values: Vec<f32>,
}

/// Pixels with less coverage belong to the background.
const VISIBLE: f32 = 0.1;

impl Coverage {
    pub(super) fn new(image: &RgbImage) -> Self {
        let (width, height) = image.dimensions();
        Self { width, height, values: vec![0.0; width as usize * height as usize] }
    }

    /// The shorter side, in pixels; sizes are relative to it.
    pub(super) fn scale(&self) -> f32 {
        self.width.min(self.height) as f32
    }

    /// Sets the coverage by a function of the pixel's centre, within a rectangle (left, top, right, bottom); where
    /// shapes overlap, the larger coverage counts.
    pub(super) fn cover(&mut self, bounds: [f32; 4], value: impl Fn([f32; 2]) -> f32) {
        let clamp = |v: f32, side: u32| v.clamp(0.0, side as f32) as u32;
        let (left, right) = (clamp(bounds[0], self.width), clamp(bounds[2] + 1.0, self.width));
        let (top, bottom) = (clamp(bounds[1], self.height), clamp(bounds[3] + 1.0, self.height));
        for y in top..bottom {
            for x in left..right {
                let at = y as usize * self.width as usize + x as usize;
                let value = value([x as f32 + 0.5, y as f32 + 0.5]).clamp(0.0, 1.0);
                self.values[at] = self.values[at].max(value);
            }
        }
    }

    /// An anti-aliased line with round ends whose half width goes from `from_radius` to `to_radius`.
    pub(super) fn stroke(&mut self, from: [f32; 2], to: [f32; 2], from_radius: f32, to_radius: f32) {
        let reach = from_radius.max(to_radius) + 1.0;
        let bounds = [
            from[0].min(to[0]) - reach,
            from[1].min(to[1]) - reach,
            from[0].max(to[0]) + reach,
            from[1].max(to[1]) + reach,
        ];
        let along = [to[0] - from[0], to[1] - from[1]];
        let squared = along[0] * along[0] + along[1] * along[1];
        self.cover(bounds, |p| {
            let offset = [p[0] - from[0], p[1] - from[1]];
            let t = if squared > 0.0 {
                ((offset[0] * along[0] + offset[1] * along[1]) / squared).clamp(0.0, 1.0)
            } else {
                0.0
            };
            let d = [offset[0] - t * along[0], offset[1] - t * along[1]];
            from_radius + t * (to_radius - from_radius) + 0.5 - (d[0] * d[0] + d[1] * d[1]).sqrt()
        });
    }

    /// A soft blob with an irregular outline: a disc whose edge is pushed in and out by noise. `softness` is the width
    /// of the edge as a share of the radius.
    pub(super) fn blob(&mut self, center: [f32; 2], radius: f32, softness: f32, dice: &mut Dice<'_>) {
        let stretch = dice.between(0.7, 1.4);
        let axis = dice.direction();
        let noise = Noise::new(dice);
        let reach = 2.2 * radius;
        let bounds = [center[0] - reach, center[1] - reach, center[0] + reach, center[1] + reach];
        self.cover(bounds, |p| {
            let d = [p[0] - center[0], p[1] - center[1]];
            let (u, v) = ((d[0] * axis[0] + d[1] * axis[1]) * stretch, (d[1] * axis[0] - d[0] * axis[1]) / stretch);
            let distance = (u * u + v * v).sqrt() / radius;
            let edge = 1.0 + 0.7 * (noise.at([d[0] / reach, d[1] / reach]) - 0.5);
            smooth((edge - distance) / softness + 0.5)
        });
    }

    /// Blends the image with the result of `paint` on each covered pixel, and returns the mask of covered pixels.
    pub(super) fn blend(
        &self,
        image: &RgbImage,
        mut paint: impl FnMut(u32, u32, [f32; 3]) -> [f32; 3],
    ) -> (RgbImage, GrayImage) {
        let mut out = image.clone();
        let mut mask = GrayImage::new(self.width, self.height);
        for ((x, y, pixel), &coverage) in out.enumerate_pixels_mut().zip(&self.values) {
            if coverage < VISIBLE {
                continue;
            }
            let old = pixel.0.map(f32::from);
            let new = paint(x, y, old);
            // The cast saturates.
            *pixel = Rgb(std::array::from_fn(|c| (old[c] + coverage * (new[c] - old[c]) + 0.5) as u8));
            mask.put_pixel(x, y, Luma([255]));
        }
        (out, mask)
    }
}

/// Hermite step from 0 at 0 to 1 at 1.
pub(super) fn smooth(t: f32) -> f32 {
    let t = t.clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Smooth noise in \[0, 1\] over \[−1, 1\]²: two octaves of random values on a grid.
struct Noise {
    coarse: [f32; 36],
    fine: [f32; 144],
}

impl Noise {
    fn new(dice: &mut Dice<'_>) -> Self {
        let mut noise = Self { coarse: [0.0; 36], fine: [0.0; 144] };
        for value in noise.coarse.iter_mut().chain(&mut noise.fine) {
            *value = dice.between(0.0, 1.0);
        }
        noise
    }

    fn at(&self, p: [f32; 2]) -> f32 {
        0.65 * lattice(&self.coarse, 6, p) + 0.35 * lattice(&self.fine, 12, p)
    }
}

/// Interpolates `side` × `side` values spread over \[−1, 1\]².
fn lattice(values: &[f32], side: usize, p: [f32; 2]) -> f32 {
    let place = |v: f32| {
        let v = (v * 0.5 + 0.5).clamp(0.0, 1.0) * (side - 1) as f32;
        let cell = (v as usize).min(side - 2);
        (cell, smooth(v - cell as f32))
    };
    let ((x, tx), (y, ty)) = (place(p[0]), place(p[1]));
    let row = |y: usize| {
        let (a, b) = (values[y * side + x], values[y * side + x + 1]);
        a + tx * (b - a)
    };
    let (top, bottom) = (row(y), row(y + 1));
    top + ty * (bottom - top)
}

/// The mean colour of the pixels within `radius` (in x and in y) of a point.
pub(super) fn mean_color(image: &RgbImage, center: [f32; 2], radius: f32) -> [f32; 3] {
    let range = |v: f32, side: u32| {
        let last = side - 1;
        let from = ((v - radius).max(0.0) as u32).min(last);
        from..=((v + radius).max(0.0) as u32).min(last)
    };
    let (mut sum, mut count) = ([0u64; 3], 0u64);
    for y in range(center[1], image.height()) {
        for x in range(center[0], image.width()) {
            for (sum, &value) in sum.iter_mut().zip(&image.get_pixel(x, y).0) {
                *sum += u64::from(value);
            }
            count += 1;
        }
    }
    sum.map(|sum| sum as f32 / count as f32)
}

/// Small changes of brightness, contrast, saturation and hue, as CutPaste's colour jitter of strength 0.1 makes them:
/// factors from 0.9 to 1.1, and up to a tenth of a turn of the hue. Grey stays grey.
pub(super) fn jitter(dice: &mut Dice<'_>) -> impl Fn([f32; 3]) -> [f32; 3] + use<> {
    let [brightness, contrast, saturation]: [f32; 3] = std::array::from_fn(|_| dice.between(0.9, 1.1));
    // The tangent of a tenth of a turn.
    let [cos, sin] = turned([1.0, 0.0], dice.between(-0.7265, 0.7265));
    move |pixel| {
        let [r, g, b] = pixel.map(|value| ((value - 128.0) * contrast + 128.0) * brightness);
        // Y'IQ: the hue is the angle of (I, Q), the saturation its length.
        let y = 0.299 * r + 0.587 * g + 0.114 * b;
        let (i, q) = (0.596 * r - 0.274 * g - 0.322 * b, 0.211 * r - 0.523 * g + 0.312 * b);
        let (i, q) = (saturation * (cos * i - sin * q), saturation * (sin * i + cos * q));
        [y + 0.956 * i + 0.621 * q, y - 0.272 * i - 0.647 * q, y - 1.106 * i + 1.703 * q]
    }
}
