//! The demonstration set: created in memory, so that it works without files and network.
//!
//! # What it computes
//! One embedded photograph of a texture is cut into a grid of square tiles that share no pixel. The seed assigns them:
//! [`TRAIN`] for training, [`TEST_GOOD`] for testing. Each test tile occurs unchanged, and again with one synthetic
//! defect and its exact mask, as often as needed for [`TEST_PER_KIND`] images of every kind in
//! [`nomaly_transforms::synthetic::KINDS`].
//!
//! Because the assignment is random, training and test tiles have the same distribution, which the promised rate of
//! false alarms requires. Because no two tiles overlap, a held-out training tile is as unknown to the model as a test
//! tile; overlapping crops would make held-out scores, and so the threshold, too low.
//!
//! # When to use
//! To try a method and to check an installation. The defects are synthetic and the texture is easy: figures on this set
//! say nothing about other data.
//!
//! # Parameters
//! The texture and a seed; the same seed gives the same images everywhere. Its name as a data set is
//! `demo:texture=brick,seed=0`.
//!
//! # Reference
//! The photographs are in the public domain (CC0 1.0).

use std::sync::Arc;

use image::RgbImage;
use nomaly_registry::Entry;
use nomaly_settings::Settings;
use nomaly_transforms::samples::{TEXTURES, texture};
use nomaly_transforms::synthetic;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::hint;
use crate::options::Options;
use crate::sample::{ImageSource, Label, MaskSource, Sample};
use crate::subset::shuffle_front;
use crate::{DataError, Dataset};

/// The default texture of the demonstration.
pub const TEXTURE: &str = "brick";
/// The sides of the images, in pixels.
pub const SIDE: u32 = 64;
/// Normal images to learn from.
pub const TRAIN: usize = 40;
/// Normal images to test with.
pub const TEST_GOOD: usize = 24;
/// Anomalous images to test with, of each kind of defect.
pub const TEST_PER_KIND: usize = 9;

/// The options that the data set `demo` takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct DemoOptions {
    /// The photograph to cut into images.
    #[schemars(extend("x-values" = "`brick`, `grass` or `gravel`"))]
    texture: String,
    /// Seed of the split and the defects.
    seed: u64,
}

impl Default for DemoOptions {
    fn default() -> Self {
        Self { texture: TEXTURE.to_owned(), seed: 0 }
    }
}

impl Settings for DemoOptions {}

/// Creates the demonstration set of one texture.
///
/// ```
/// let demo = nomaly_data::demo::dataset("gravel", 0)?;
/// assert_eq!(demo.train.len(), nomaly_data::demo::TRAIN);
/// assert_eq!(demo.count(nomaly_data::Label::Normal), nomaly_data::demo::TEST_GOOD);
/// assert!(demo.has_masks() && demo.missing_masks() == 0);
/// # Ok::<(), nomaly_data::DataError>(())
/// ```
///
/// # Errors
/// [`DataError::Unknown`] if no embedded texture has that name.
pub fn dataset(name: &str, seed: u64) -> Result<Dataset, DataError> {
    let photograph = texture(name).map_err(|_| DataError::Unknown {
        kind: "texture",
        name: name.to_owned(),
        dataset: "data set demo".to_owned(),
        hint: hint(name, TEXTURES.names()),
    })?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (learnt, tested) = split_tiles(tiles(&photograph), &mut random);
    let good = |part: &str, number: usize, image: &RgbImage| Sample {
        id: format!("{part}/good/{number:03}"),
        source: ImageSource::Memory(Arc::new(image.clone())),
        label: Label::Normal,
        kind: "good".to_owned(),
        mask: None,
    };
    let train = learnt.iter().enumerate().map(|(number, tile)| good("train", number, tile)).collect();
    let mut test: Vec<Sample> = tested.iter().enumerate().map(|(number, tile)| good("test", number, tile)).collect();
    let mut next = tested.iter().cycle();
    for kind in synthetic::KINDS.iter() {
        for (number, tile) in next.by_ref().take(TEST_PER_KIND).enumerate() {
            let (image, mask) = synthetic::apply(kind, tile, &mut random);
            test.push(Sample {
                id: format!("test/{}/{number:03}", kind.name()),
                source: ImageSource::Memory(Arc::new(image)),
                label: Label::Anomalous,
                kind: kind.name().to_owned(),
                mask: Some(MaskSource::Memory(Arc::new(mask))),
            });
        }
    }
    let name = format!("demo:texture={name},seed={seed}");
    Ok(Dataset { name, train, test, licence: Some("CC0-1.0".to_owned()), classes: Vec::new() })
}

/// The demonstration set as a named data set.
pub(crate) fn open(options: &Options) -> Result<Dataset, DataError> {
    let DemoOptions { texture, seed } = options.read()?;
    dataset(&texture, seed)
}

/// The squares of a grid over the photograph, row by row; the remainder at its right and lower edges is not used.
fn tiles(photograph: &RgbImage) -> Vec<RgbImage> {
    let (columns, rows) = (photograph.width() / SIDE, photograph.height() / SIDE);
    (0..rows * columns)
        .map(|place| (place % columns * SIDE, place / columns * SIDE))
        .map(|(x, y)| image::imageops::crop_imm(photograph, x, y, SIDE, SIDE).to_image())
        .collect()
}

/// Splits tiles at random into training and test tiles.
fn split_tiles<T>(mut tiles: Vec<T>, random: &mut ChaCha8Rng) -> (Vec<T>, Vec<T>) {
    let count = tiles.len();
    shuffle_front(&mut tiles, count, random);
    let tested = tiles.split_off(TRAIN);
    (tiles, tested)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use nomaly_transforms::Limits;

    fn pixels(sample: &Sample) -> RgbImage {
        sample.source.load(&Limits::default()).unwrap()
    }

    #[test]
    fn the_same_seed_makes_the_same_images() {
        let [one, same, other] = [0, 0, 1].map(|seed| dataset("brick", seed).unwrap());
        let all = |set: &Dataset| set.train.iter().chain(&set.test).map(pixels).collect::<Vec<_>>();
        assert_eq!(all(&one), all(&same));
        assert_ne!(all(&one), all(&other));
    }

    #[test]
    fn no_two_tiles_share_a_pixel() {
        // In this stand-in for a photograph, all pixels have distinct colors.
        let photograph = RgbImage::from_fn(512, 512, |x, y| {
            let [_, red, green, blue] = (y * 512 + x).to_be_bytes();
            image::Rgb([red, green, blue])
        });
        let tiles = tiles(&photograph);
        let colors: HashSet<[u8; 3]> = tiles.iter().flat_map(RgbImage::pixels).map(|pixel| pixel.0).collect();
        assert_eq!(colors.len(), tiles.len() * (SIDE * SIDE) as usize);
    }

    #[test]
    fn every_tile_is_dealt_out_once_and_by_chance() {
        for name in TEXTURES.names() {
            let demo = dataset(name, 0).unwrap();
            assert_eq!((demo.train.len(), demo.count(Label::Normal)), (TRAIN, TEST_GOOD));
            let in_order: Vec<Vec<u8>> = tiles(&texture(name).unwrap()).into_iter().map(RgbImage::into_raw).collect();
            let good = demo.train.iter().chain(demo.test.iter().filter(|sample| sample.label == Label::Normal));
            let mut dealt: Vec<Vec<u8>> = good.map(|sample| pixels(sample).into_raw()).collect();
            assert_ne!(dealt, in_order);
            let mut sorted = in_order;
            sorted.sort_unstable();
            dealt.sort_unstable();
            assert!(dealt == sorted, "{name}");
        }
        // Over the seeds, the corner tile is a training tile with the expected frequency.
        const SEEDS: u64 = 400;
        let learnt = |seed| {
            let tiles = (0..TRAIN + TEST_GOOD).collect();
            split_tiles(tiles, &mut ChaCha8Rng::seed_from_u64(seed)).0.contains(&0)
        };
        let share = (0..SEEDS).filter(|&seed| learnt(seed)).count() as f64 / SEEDS as f64;
        let expected = TRAIN as f64 / (TRAIN + TEST_GOOD) as f64;
        // Five standard deviations of a binomial share.
        let tolerance = 5.0 * (expected * (1.0 - expected) / SEEDS as f64).sqrt();
        assert!((share - expected).abs() < tolerance, "{share} is far from {expected}");
    }

    #[test]
    fn defects_are_drawn_into_tested_tiles_only() {
        let demo = dataset("gravel", 3).unwrap();
        let (good, bad): (Vec<&Sample>, Vec<&Sample>) = demo.test.iter().partition(|s| s.label == Label::Normal);
        for sample in bad {
            let mask = sample.mask.as_ref().unwrap().load(&Limits::default()).unwrap();
            let image = pixels(sample);
            let outside_is_as_in = |tile: &RgbImage| {
                let mut triples = tile.pixels().zip(image.pixels()).zip(mask.iter());
                triples.all(|((before, after), &marked)| marked == 255 || before == after)
            };
            assert!(good.iter().any(|tile| outside_is_as_in(&pixels(tile))), "{}", sample.id);
        }
    }

    #[test]
    fn every_defect_is_masked_and_every_kind_is_there() {
        for name in TEXTURES.names() {
            let demo = dataset(name, 0).unwrap();
            assert_eq!(demo.kinds().len(), 1 + synthetic::KINDS.iter().len());
            assert_eq!(demo.count(Label::Anomalous), TEST_PER_KIND * synthetic::KINDS.iter().len());
            for sample in demo.test.iter().filter(|sample| sample.label == Label::Anomalous) {
                let mask = sample.mask.as_ref().unwrap().load(&Limits::default()).unwrap();
                assert_eq!(mask.dimensions(), (SIDE, SIDE));
                let marked = mask.iter().filter(|&&value| value == 255).count();
                assert!(marked > 0 && marked < mask.len() / 2, "{}: {marked} pixels marked", sample.id);
            }
        }
    }

    #[test]
    fn an_unknown_texture_is_named() {
        let error = dataset("gras", 0).unwrap_err().to_string();
        assert_eq!(error, "unknown texture `gras` of data set demo; did you mean `grass`?");
    }
}
