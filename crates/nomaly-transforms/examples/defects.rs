//! Draws a contact sheet of every kind of synthetic defect, image above mask:
//!
//! ```text
//! cargo run -p nomaly-transforms --example defects -- sheet.png [SEED]
//! ```

use image::{Rgb, RgbImage, imageops};
use nomaly_transforms::{crop, samples, synthetic};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

const SIDE: u32 = 256;
const GAP: u32 = 4;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("give the file to write")?;
    let seed: u64 = arguments.next().map_or(Ok(1), |seed| seed.parse())?;

    let kinds = synthetic::KINDS.iter().count() as u32;
    let rows = samples::TEXTURES.iter().count() as u32;
    let step = SIDE + GAP;
    let mut sheet = RgbImage::from_pixel(kinds * step, rows * 2 * step, Rgb([40, 60, 120]));
    for (row, texture) in samples::TEXTURES.iter().enumerate() {
        let good =
            crop(&samples::texture(texture.name)?, 128, 128, SIDE, SIDE).ok_or("the textures are 512 pixels wide")?;
        for (column, kind) in synthetic::KINDS.iter().enumerate() {
            let mut rng = ChaCha8Rng::seed_from_u64(seed + row as u64);
            let (bad, mask) = synthetic::apply(kind, &good, &mut rng);
            let mask = image::DynamicImage::ImageLuma8(mask).into_rgb8();
            let (x, y) = (i64::from(column as u32 * step), i64::from(2 * row as u32 * step));
            imageops::replace(&mut sheet, &bad, x, y);
            imageops::replace(&mut sheet, &mask, x, y + i64::from(step));
        }
    }
    sheet.save(&path)?;
    Ok(())
}
