//! The demonstration set: made in memory, so that it works where there are no files and no network.
//!
//! # What it computes
//! Square crops of one embedded photograph of a texture, at random places. The left half of the photograph is for
//! learning, the right half for testing: no pixel that is tested has been learnt. The anomalous images are further crops
//! of the right half with one synthetic defect each, of every kind in [`nomaly_transforms::synthetic::KINDS`], and come
//! with the defect's exact mask.
//!
//! # When to use
//! To see how a method works and that an installation does. The defects are drawn, not real, and the texture is easy:
//! figures on this set say nothing about other data.
//!
//! # Parameters
//! The texture and a seed; the same seed makes the same images everywhere. As a data set it is called
//! `demo:texture=brick,seed=0`.
//!
//! # Reference
//! The photographs are in the public domain (CC0 1.0).

use std::sync::Arc;

use image::RgbImage;
use nomaly_registry::Entry;
use nomaly_transforms::samples::{TEXTURES, texture};
use nomaly_transforms::synthetic;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::error::hint;
use crate::options::{OptionInfo, Options};
use crate::sample::{ImageSource, Label, MaskSource, Sample};
use crate::subset::below;
use crate::{DataError, Dataset};

/// The texture of the demonstration where none is named.
pub const TEXTURE: &str = "brick";
/// The sides of the images, in pixels.
pub const SIDE: u32 = 128;
/// Normal images to learn from.
pub const TRAIN: usize = 80;
/// Normal images to test with.
pub const TEST_GOOD: usize = 40;
/// Anomalous images to test with, of each kind of defect.
pub const TEST_PER_KIND: usize = 8;

/// The options that the data set `demo` takes.
pub(crate) const OPTIONS: &[OptionInfo] = &[
    OptionInfo {
        name: "texture",
        values: "the photograph to cut images from: brick, grass or gravel",
        choices: &[],
        default: Some(TEXTURE),
    },
    OptionInfo {
        name: "seed",
        values: "seed of the places and defects, a whole number",
        choices: &[],
        default: Some("0"),
    },
];

/// Makes the demonstration set of one texture.
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
/// [`DataError::Unknown`] where no embedded texture has that name.
pub fn dataset(name: &str, seed: u64) -> Result<Dataset, DataError> {
    let photograph = texture(name).map_err(|_| DataError::Unknown {
        kind: "texture",
        name: name.to_owned(),
        dataset: "data set demo".to_owned(),
        hint: hint(name, TEXTURES.names()),
    })?;
    let half = photograph.width() / 2;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let good = |part: &str, number: usize, from: u32, random: &mut ChaCha8Rng| Sample {
        id: format!("{part}/good/{number:03}"),
        source: ImageSource::Memory(Arc::new(cut(&photograph, from, half, random))),
        label: Label::Normal,
        kind: "good".to_owned(),
        mask: None,
    };
    let train = (0..TRAIN).map(|number| good("train", number, 0, &mut random)).collect();
    let mut test: Vec<Sample> = (0..TEST_GOOD).map(|number| good("test", number, half, &mut random)).collect();
    for kind in synthetic::KINDS.iter() {
        for number in 0..TEST_PER_KIND {
            let (image, mask) = synthetic::apply(kind, &cut(&photograph, half, half, &mut random), &mut random);
            test.push(Sample {
                id: format!("test/{}/{number:03}", kind.name()),
                source: ImageSource::Memory(Arc::new(image)),
                label: Label::Anomalous,
                kind: kind.name().to_owned(),
                mask: Some(MaskSource::Memory(Arc::new(mask))),
            });
        }
    }
    Ok(Dataset { name: format!("demo:texture={name},seed={seed}"), train, test, licence: Some("CC0-1.0".to_owned()) })
}

/// The demonstration set as a named data set.
pub(crate) fn open(options: &Options) -> Result<Dataset, DataError> {
    let seed = match options.get("seed") {
        None => 0,
        Some(text) => text.parse().map_err(|_| options.value_error("seed", text, "a whole number"))?,
    };
    dataset(options.get("texture").unwrap_or(TEXTURE), seed)
}

/// A square at a random place in the columns `from..from + width`.
fn cut(photograph: &RgbImage, from: u32, width: u32, random: &mut ChaCha8Rng) -> RgbImage {
    let mut place = |room: u32| below(random, u64::from(room - SIDE) + 1) as u32;
    let (x, y) = (from + place(width), place(photograph.height()));
    image::imageops::crop_imm(photograph, x, y, SIDE, SIDE).to_image()
}

#[cfg(test)]
mod tests {
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
    fn learning_and_testing_share_no_pixel() {
        // In this stand-in for a photograph, the red value is 0 in the left half and 1 in the right one.
        let photograph = RgbImage::from_fn(512, 512, |x, _| image::Rgb([(x / 256) as u8; 3]));
        for seed in 0..200 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            for half in [0, 1] {
                let image = cut(&photograph, 256 * half, 256, &mut random);
                assert_eq!(image.dimensions(), (SIDE, SIDE));
                assert!(image.pixels().all(|pixel| u32::from(pixel.0[0]) == half));
            }
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
