//! Draws the pictures of `docs/transformations.md`: contact sheets of transformation sets and of anomalies to train
//! against.
//!
//! ```text
//! cargo run -p nomaly-transforms --example transformations -- docs/images
//! ```

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{Rgb, RgbImage, imageops};
use nomaly_transforms::augment::{AdaclAugmentation, AdaclKind, CutPasteClass};
use nomaly_transforms::transformations::{Transformation, TransformationSet};
use nomaly_transforms::{Filter, crop, resize, samples};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Pixels between two tiles.
const GAP: u32 = 2;
/// Grey levels per channel of a picture, so that the files stay small.
const LEVELS: u16 = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let folder: PathBuf = std::env::args().nth(1).ok_or("give the folder to write to")?.into();
    std::fs::create_dir_all(&folder)?;
    for (text, columns) in [("geotrans", 12), ("rotations-flips", 4)] {
        let set: TransformationSet = text.parse()?;
        let transformations: Vec<Transformation> = set.iter().cloned().collect();
        sheet(&transformations, columns, if columns == 12 { 44 } else { 64 }, &folder.join(file(text)))?;
    }
    let extras = [
        ["identity", "zoom=1.3", "crop=0.8", "crop=0.8", "crop=0.5", "crop=0.5"],
        ["equalise", "quantile=0.7", "jitter=0.4", "jitter=0.4", "jitter=0.4", "equalise+zoom=1.3+flip+rot90"],
    ];
    let extras: Vec<Transformation> = extras.iter().flatten().map(|text| text.parse()).collect::<Result<_, _>>()?;
    sheet(&extras, 6, 72, &folder.join(file("extras")))?;
    adacl(&folder.join("augmentations-adacl.png"))?;
    cut_paste(&folder.join("augmentations-cutpaste.png"))
}

fn file(name: &str) -> String {
    format!("transformations-{name}.png")
}

/// The transformed images, row by row.
fn sheet(transformations: &[Transformation], columns: u32, side: u32, path: &Path) -> Result<(), Box<dyn Error>> {
    let planes = planes(&sample(side)?);
    let mut random = ChaCha8Rng::seed_from_u64(9);
    let mut tiles = Vec::new();
    for transformation in transformations {
        let mut out = vec![0.0; planes.len()];
        transformation.apply(&planes, [side as usize; 2], &mut random, &mut out)?;
        tiles.push(out);
    }
    save(&tiles, columns, side, path)
}

/// Two of each of ADACL's kinds.
fn adacl(path: &Path) -> Result<(), Box<dyn Error>> {
    const SIDE: u32 = 72;
    let planes = planes(&sample(SIDE)?);
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let mut tiles = Vec::new();
    for kind in AdaclKind::ALL.into_iter().flat_map(|kind| [kind; 2]) {
        let mut out = vec![0.0; planes.len()];
        AdaclAugmentation::default().apply_kind(kind, &planes, [SIDE as usize; 2], &mut random, &mut out)?;
        tiles.push(out);
    }
    save(&tiles, 8, SIDE, path)
}

/// The image itself, one with a patch and two with scars, which would be too small to see on small tiles.
fn cut_paste(path: &Path) -> Result<(), Box<dyn Error>> {
    const SIDE: u32 = 146;
    let planes = planes(&sample(SIDE)?);
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let mut tiles = Vec::new();
    for class in [CutPasteClass::Normal, CutPasteClass::CutPaste, CutPasteClass::Scar, CutPasteClass::Scar] {
        let mut out = vec![0.0; planes.len()];
        class.apply(&planes, [SIDE as usize; 2], &mut random, &mut out)?;
        tiles.push(out);
    }
    save(&tiles, 4, SIDE, path)
}

fn save(tiles: &[Vec<f32>], columns: u32, side: u32, path: &Path) -> Result<(), Box<dyn Error>> {
    let rows = (tiles.len() as u32).div_ceil(columns);
    let step = side + GAP;
    let mut sheet = RgbImage::from_pixel(columns * step - GAP, rows * step - GAP, Rgb([255; 3]));
    for (index, tile) in (0u32..).zip(tiles) {
        let (column, row) = (index % columns, index / columns);
        imageops::replace(&mut sheet, &picture(tile, side), i64::from(column * step), i64::from(row * step));
    }
    // Few levels compress best without a filter.
    let file = BufWriter::new(File::create(path)?);
    sheet.write_with_encoder(PngEncoder::new_with_quality(file, CompressionType::Best, FilterType::NoFilter))?;
    println!("{} {}", path.display(), std::fs::metadata(path)?.len());
    Ok(())
}

/// Gravel with a coloured letter F, which no turn and no mirror image maps to itself.
fn sample(side: u32) -> Result<RgbImage, Box<dyn Error>> {
    let part = crop(&samples::texture("gravel")?, 40, 200, 160, 160).ok_or("the textures are 512 pixels wide")?;
    let mut image = resize(&part, side, side, Filter::Bilinear)?;
    let bars = [[0.30, 0.15, 0.42, 0.85], [0.30, 0.15, 0.75, 0.27], [0.30, 0.43, 0.62, 0.55]];
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        let at = [x, y].map(|place| (f64::from(place) + 0.5) / f64::from(side));
        // The photograph's contrast is lowered, so that equalisation has an effect.
        let level = f64::from(pixel.0[0]) * 0.6 + 50.0;
        let inside = bars
            .iter()
            .any(|&[left, top, right, bottom]| (left..right).contains(&at[0]) && (top..bottom).contains(&at[1]));
        *pixel =
            Rgb(if inside { [0.5 * level + 110.0, 0.4 * level + 60.0, 0.3 * level] } else { [level; 3] }
                .map(|v| v as u8));
    }
    Ok(image)
}

fn planes(image: &RgbImage) -> Vec<f32> {
    (0..3).flat_map(|channel| image.pixels().map(move |pixel| f32::from(pixel.0[channel]) / 255.0)).collect()
}

fn picture(planes: &[f32], side: u32) -> RgbImage {
    let pixels = (side * side) as usize;
    RgbImage::from_fn(side, side, |x, y| {
        Rgb([0, 1, 2].map(|channel| {
            let value = planes[channel * pixels + (y * side + x) as usize];
            let level = (value * f32::from(LEVELS - 1)).round() as u16;
            (level * 255 / (LEVELS - 1)) as u8
        }))
    })
}
