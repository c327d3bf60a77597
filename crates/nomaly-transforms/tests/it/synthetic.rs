//! Invariants of all synthetic defects, on the embedded textures.

use image::{Rgb, RgbImage};
use nomaly_registry::Entry;
use nomaly_transforms::registry::{Group, TRANSFORMS};
use nomaly_transforms::{crop, samples, synthetic};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

fn share(mask: &image::GrayImage) -> f64 {
    let marked = mask.pixels().filter(|pixel| pixel.0[0] == 255).count();
    marked as f64 / f64::from(mask.width() * mask.height())
}

#[test]
fn defects_are_visible_and_of_a_sensible_size() {
    let good = crop(&samples::texture("gravel").unwrap(), 100, 100, 256, 256).unwrap();
    for kind in synthetic::KINDS.iter() {
        for seed in 0..20 {
            let (bad, mask) = synthetic::apply(kind, &good, &mut ChaCha8Rng::seed_from_u64(seed));
            let share = share(&mask);
            // A speck of radius 2 is 0.02 %; CutPaste pastes up to 15 %, a blob with bulges may cover 25 %.
            assert!((0.0001..0.25).contains(&share), "{} seed {seed}: {share} of the image", kind.name);
            let (mut difference, mut count) = (0.0, 0.0);
            for ((a, b), mask) in good.pixels().zip(bad.pixels()).zip(mask.pixels()) {
                if mask.0[0] == 255 {
                    difference += f64::from(a.0[0].abs_diff(b.0[0]));
                    count += 1.0;
                }
            }
            assert!(difference / count > 6.0, "{} seed {seed}: {} levels on average", kind.name, difference / count);
        }
    }
}

/// FNV-1a, 64 bits.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The bytes of each kind for one seed. They depend on this crate's arithmetic alone and hold on every platform; an
/// intended change of a defect changes its line.
#[test]
fn a_seed_gives_the_same_bytes_everywhere() {
    let good = crop(&samples::texture("brick").unwrap(), 0, 0, 160, 128).unwrap();
    let actual: Vec<(&str, u64)> = synthetic::KINDS
        .iter()
        .map(|kind| {
            let (bad, mask) = synthetic::apply(kind, &good, &mut ChaCha8Rng::seed_from_u64(42));
            (kind.name, hash(bad.as_raw()) ^ hash(mask.as_raw()).rotate_left(1))
        })
        .collect();
    let expected = [
        ("crack", 0x9f98_17a6_6ea1_5332),
        ("scratch", 0x50c3_6ba9_aeec_d049),
        ("stain", 0xf2b8_19c6_9941_d4a7),
        ("spot", 0xc543_57a9_4cda_3920),
        ("blur", 0x712a_b5b9_290a_e0b3),
        ("missing", 0x3101_7740_2b2c_e5d6),
        ("cut-paste", 0x0b5b_f36d_ee70_46fb),
        ("scar", 0xc1cf_575f_03b0_c785),
    ];
    assert_eq!(actual, expected);
}

proptest! {
    #[test]
    fn pixels_outside_the_mask_are_untouched(
        kind in 0..8usize,
        seed in any::<u64>(),
        (width, height) in (1u32..48, 1u32..48),
    ) {
        let kind = synthetic::KINDS.iter().nth(kind).unwrap();
        let good = RgbImage::from_fn(width, height, |x, y| Rgb([(x * 37 + y * 11) as u8, (x * y) as u8, (y * 91) as u8]));
        let (bad, mask) = synthetic::apply(kind, &good, &mut ChaCha8Rng::seed_from_u64(seed));
        prop_assert_eq!(mask.dimensions(), good.dimensions());
        for ((a, b), mask) in good.pixels().zip(bad.pixels()).zip(mask.pixels()) {
            prop_assert!(mask.0[0] == 255 || mask.0[0] == 0 && a == b);
        }
        if width >= 16 && height >= 16 {
            prop_assert!(share(&mask) > 0.0, "{} marks nothing", kind.name);
        }
    }
}

#[test]
fn images_without_pixels_come_back() {
    for kind in synthetic::KINDS.iter() {
        let (bad, mask) = synthetic::apply(kind, &RgbImage::new(0, 7), &mut ChaCha8Rng::seed_from_u64(0));
        assert_eq!((bad.dimensions(), mask.dimensions()), ((0, 7), (0, 7)));
    }
}

#[test]
fn every_texture_decodes() {
    for sample in samples::TEXTURES.iter() {
        let image = samples::texture(sample.name).unwrap();
        assert_eq!(image.dimensions(), (512, 512), "{}", sample.name);
        let values: Vec<u64> = image.pixels().map(|pixel| u64::from(pixel.0[0])).collect();
        let mean = values.iter().sum::<u64>() / values.len() as u64;
        assert!((60..200).contains(&mean), "{}: mean {mean}", sample.name);
    }
    assert_eq!(samples::texture("gras").unwrap_err().suggestion.as_deref(), Some("grass"));
}

#[test]
fn every_kind_is_listed_among_the_transforms() {
    let listed: Vec<&str> =
        TRANSFORMS.iter().filter(|entry| entry.group == Group::Synthetic).map(Entry::name).collect();
    assert_eq!(listed, synthetic::KINDS.names().collect::<Vec<_>>());
}
