//! Anomalies to train against: what each kind changes and keeps, and the ranges of random choices.

use std::collections::HashSet;

use image::{Rgb, RgbImage};
use nomaly_registry::Entry;
use nomaly_transforms::augment::{AdaclAugmentation, AdaclKind, CutPasteClass};
use nomaly_transforms::registry::{Group, TRANSFORMS};
use nomaly_transforms::transformations::Transformation;
use nomaly_transforms::{TransformError, crop, samples, synthetic};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Planes of distinct values, so that every output pixel identifies its source.
fn distinct(channels: usize, [height, width]: [usize; 2]) -> Vec<f32> {
    let len = channels * height * width;
    (0..len).map(|at| at as f32 / len as f32).collect()
}

fn made(kind: AdaclKind, planes: &[f32], size: [usize; 2], random: &mut ChaCha8Rng) -> Vec<f32> {
    let mut out = vec![f32::NAN; planes.len()];
    AdaclAugmentation::default().apply_kind(kind, planes, size, random, &mut out).unwrap();
    out
}

/// Where each output pixel comes from.
fn sources(planes: &[f32], out: &[f32]) -> Vec<usize> {
    out.iter().map(|value| planes.iter().position(|p| p == value).expect("values are only moved")).collect()
}

#[test]
fn a_patch_is_copied_to_another_place() {
    let size = [20, 32];
    let planes = distinct(2, size);
    let mut random = rng(1);
    let (mut sides, mut corners) = (HashSet::new(), HashSet::new());
    for _ in 0..300 {
        let out = made(AdaclKind::CutPaste, &planes, size, &mut random);
        let sources = sources(&planes, &out);
        let moved: Vec<usize> = (0..640).filter(|&at| sources[at] != at).collect();
        let rows = || moved.iter().map(|at| at / 32);
        let columns = || moved.iter().map(|at| at % 32);
        let (top, left) = (rows().min().unwrap(), columns().min().unwrap());
        let patch = [rows().max().unwrap() - top + 1, columns().max().unwrap() - left + 1];
        // A rectangle without holes, a quarter to a half of each side, moved as one, in all channels alike.
        assert_eq!(moved.len(), patch[0] * patch[1]);
        assert!((5..=10).contains(&patch[0]) && (8..=16).contains(&patch[1]), "{patch:?}");
        let shift = sources[moved[0]] as isize - moved[0] as isize;
        for &at in &moved {
            assert_eq!(sources[at] as isize - at as isize, shift);
            assert_eq!(sources[at + 640], sources[at] + 640);
        }
        sides.insert(patch);
        corners.insert([top, left]);
    }
    assert!(sides.len() > 40 && corners.len() > 150, "{} sizes at {} places", sides.len(), corners.len());
}

/// Background pasted on background is no anomaly: with one bright pixel in 256, patches are redrawn until one contains
/// or covers it.
#[test]
fn patches_that_would_change_nothing_are_drawn_again() {
    let mut planes = vec![0.0; 784];
    planes[14 * 28 + 13] = 1.0;
    let mut random = rng(2);
    let unchanged = (0..300).filter(|_| made(AdaclKind::CutPaste, &planes, [28, 28], &mut random) == planes).count();
    // Without the rule two thirds would be unchanged, with it (2/3)^16 or less.
    assert!(unchanged <= 5, "{unchanged}");
    assert_eq!(made(AdaclKind::CutPaste, &[0.5; 784], [28, 28], &mut random), [0.5; 784]);
}

#[test]
fn quarters_are_shuffled_in_all_23_ways() {
    // The first pixel of each 3 × 3 quarter in 7 rows of 7 columns.
    let corner = |number: usize| [0, 4, 28, 32][number];
    let planes = distinct(1, [7, 7]);
    let mut random = rng(3);
    let mut orders = HashSet::new();
    for _ in 0..500 {
        let sources = sources(&planes, &made(AdaclKind::Puzzle, &planes, [7, 7], &mut random));
        let order: Vec<usize> =
            (0..4).map(|to| (0..4).find(|&from| sources[corner(to)] == corner(from)).expect("a corner")).collect();
        for row in 0..3 {
            for column in 0..3 {
                for to in 0..4 {
                    let offset = 7 * row + column;
                    assert_eq!(sources[corner(to) + offset], corner(order[to]) + offset);
                }
            }
        }
        for middle in (0..7).map(|at| 21 + at).chain((0..7).map(|at| 7 * at + 3)) {
            assert_eq!(sources[middle], middle);
        }
        orders.insert(order);
    }
    assert_eq!(orders.len(), 23);
    assert!(!orders.contains(&vec![0, 1, 2, 3]));
}

#[test]
fn rotations_are_quarter_turns_either_way() {
    let planes = distinct(3, [6, 6]);
    let turned = ["rot90", "rot270"].map(|name| {
        let mut out = vec![0.0; planes.len()];
        let turn: Transformation = name.parse().unwrap();
        turn.apply(&planes, [6, 6], &mut rng(0), &mut out).unwrap();
        out
    });
    let mut random = rng(4);
    let mut counts = [0, 0];
    for _ in 0..400 {
        let out = made(AdaclKind::Rotation, &planes, [6, 6], &mut random);
        counts[turned.iter().position(|turned| *turned == out).expect("one of the two")] += 1;
    }
    // Five standard deviations of 400 fair coins.
    assert!((150..=250).contains(&counts[0]), "{counts:?}");

    let mut shares = Vec::new();
    for _ in 0..400 {
        let out = made(AdaclKind::MixUp, &planes, [6, 6], &mut random);
        // The coefficient from one pixel, then all pixels from the coefficient.
        let [share] = turned
            .iter()
            .filter_map(|turned| {
                let share = (out[0] - turned[0]) / (planes[0] - turned[0]);
                let mixed = planes.iter().zip(turned).map(|(own, turned)| share * own + (1.0 - share) * turned);
                mixed.zip(&out).all(|(a, b)| (a - b).abs() < 1e-5).then_some(share)
            })
            .collect::<Vec<_>>()[..]
        else {
            panic!("mixed with one of the two")
        };
        assert!((0.2999..=0.7001).contains(&share), "{share}");
        shares.push(share);
    }
    let mean = shares.iter().sum::<f32>() / 400.0;
    assert!((mean - 0.5).abs() < 0.03, "{mean}"); // 5 standard errors of 0.4/sqrt(12·400)
    assert!(shares.iter().any(|&share| share < 0.31) && shares.iter().any(|&share| share > 0.69));
}

#[test]
fn kinds_are_drawn_equally_often() {
    let planes = distinct(1, [8, 8]);
    let mut random = rng(5);
    let mut counts = [0; 4];
    let mut out = vec![0.0; 64];
    for _ in 0..2000 {
        let kind = AdaclAugmentation::default().apply(&planes, [8, 8], &mut random, &mut out).unwrap();
        assert!(out != planes && out.iter().all(|value| (0.0..=1.0).contains(value)), "{kind:?}");
        counts[AdaclKind::ALL.iter().position(|&known| known == kind).unwrap()] += 1;
    }
    // Five standard deviations: sqrt(2000 · 1/4 · 3/4) is 19.
    assert!(counts.iter().all(|count| (403..=597).contains(count)), "{counts:?}");
}

#[test]
fn settings_of_adacl_are_checked_and_used() {
    let with = |patch, mix| AdaclAugmentation { patch, mix };
    for (adacl, good) in [
        (AdaclAugmentation::default(), true),
        (with([0.1, 0.1], [1.0, 1.0]), true),
        (with([1.0, 1.0], [0.0, 0.0]), true),
        (with([0.0, 0.5], [0.3, 0.7]), false),
        (with([0.5, 0.25], [0.3, 0.7]), false),
        (with([0.5, 1.5], [0.3, 0.7]), false),
        (with([f64::NAN, 0.5], [0.3, 0.7]), false),
        (with([0.25, 0.5], [-0.1, 0.7]), false),
        (with([0.25, 0.5], [0.7, 0.3]), false),
        (with([0.25, 0.5], [0.3, f64::NAN]), false),
    ] {
        assert_eq!(adacl.validate().is_ok(), good, "{adacl:?}");
        let mut out = vec![-1.0; 64];
        let result = adacl.apply(&distinct(1, [8, 8]), [8, 8], &mut rng(0), &mut out);
        assert_eq!(result.is_ok(), good, "{adacl:?}");
        assert!(good || out.iter().all(|&value| value == -1.0));
    }
    let message = with([0.0, 0.5], [0.3, 0.7]).validate().unwrap_err().to_string();
    assert!(message.starts_with("`patch=0..0.5`: expected shares of the side"), "{message}");
    let planes = distinct(1, [8, 8]);
    let mut out = vec![0.0; 64];
    with([0.5, 0.5], [1.0, 1.0]).apply_kind(AdaclKind::MixUp, &planes, [8, 8], &mut rng(0), &mut out).unwrap();
    assert_eq!(out, planes); // nothing of the rotation
}

#[test]
fn images_of_the_wrong_shape_are_refused() {
    let not_square = |step: &str| TransformError::NotSquare { step: step.into(), height: 2, width: 3 };
    for (kind, len, size, out, expected) in [
        (AdaclKind::Rotation, 6, [2, 3], 6, not_square("adacl-rotation")),
        (AdaclKind::MixUp, 6, [2, 3], 6, not_square("adacl-mix-up")),
        (AdaclKind::Puzzle, 0, [0, 3], 0, TransformError::EmptyImage { width: 3, height: 0 }),
        (
            AdaclKind::Puzzle,
            4,
            [1, 4],
            4,
            TransformError::TooSmall { step: "adacl-puzzle".into(), height: 1, width: 4 },
        ),
        (AdaclKind::CutPaste, 5, [2, 2], 5, TransformError::PlanesLength { height: 2, width: 2, actual: 5 }),
        (AdaclKind::CutPaste, 8, [2, 2], 4, TransformError::OutputLength { expected: 8, actual: 4 }),
    ] {
        let (mut random, mut written) = (rng(0), vec![-1.0; out]);
        let error = AdaclAugmentation::default()
            .apply_kind(kind, &vec![0.5; len], size, &mut random, &mut written)
            .unwrap_err();
        assert_eq!(error, expected);
        assert!(random == rng(0) && written.iter().all(|&value| value == -1.0));
    }
    assert_eq!(AdaclAugmentation::default().check([2, 3]), Err(not_square("adacl-rotation")));

    let small = TransformError::TooSmall { step: "scar".into(), height: 8, width: 7 };
    for (len, size, out, expected) in [
        (56, [8, 7], 56, small),
        (128, [8, 8], 128, TransformError::Channels { actual: 2 }),
        (65, [8, 8], 65, TransformError::PlanesLength { height: 8, width: 8, actual: 65 }),
        (64, [8, 8], 65, TransformError::OutputLength { expected: 64, actual: 65 }),
        (0, [8, 0], 0, TransformError::EmptyImage { width: 0, height: 8 }),
    ] {
        let mut written = vec![-1.0; out];
        let error = CutPasteClass::Scar.apply(&vec![0.5; len], size, &mut rng(0), &mut written).unwrap_err();
        assert_eq!(error, expected);
        assert!(written.iter().all(|&value| value == -1.0));
    }
}

fn planes_of(image: &RgbImage) -> Vec<f32> {
    (0..3).flat_map(|channel| image.pixels().map(move |pixel| f32::from(pixel.0[channel]) / 255.0)).collect()
}

#[test]
fn classes_of_cutpaste_are_the_synthetic_defects_on_planes() {
    let image = RgbImage::from_fn(48, 40, |x, y| Rgb([(x * 37 + y * 11) as u8, (x * y) as u8, (y * 91) as u8]));
    let planes = planes_of(&image);
    for (class, name) in [(CutPasteClass::CutPaste, "cut-paste"), (CutPasteClass::Scar, "scar")] {
        for seed in 0..20 {
            let mut out = vec![0.0; planes.len()];
            class.apply(&planes, [40, 48], &mut rng(seed), &mut out).unwrap();
            let (pasted, _) = synthetic::apply(synthetic::KINDS.get(name).unwrap(), &image, &mut rng(seed));
            assert_eq!(out, planes_of(&pasted), "{name} {seed}");
        }
    }
    let mut out = vec![0.0; planes.len()];
    let mut random = rng(0);
    CutPasteClass::Normal.apply(&planes, [40, 48], &mut random, &mut out).unwrap();
    assert!(out == planes && random == rng(0));
    assert_eq!(CutPasteClass::ALL.map(CutPasteClass::label), [0, 1, 2]);
}

/// A coloured patch in grey images would reveal itself to a network.
#[test]
fn what_is_pasted_into_grey_images_is_grey() {
    let photograph = crop(&samples::texture("gravel").unwrap(), 100, 100, 64, 64).unwrap();
    let grey: Vec<f32> = photograph.pixels().map(|pixel| f32::from(pixel.0[0]) / 255.0).collect();
    let planes = grey.repeat(3);
    let mut colours = HashSet::new();
    for class in [CutPasteClass::CutPaste, CutPasteClass::Scar] {
        for seed in 0..50 {
            let mut out = vec![0.0; planes.len()];
            class.apply(&planes, [64, 64], &mut rng(seed), &mut out).unwrap();
            let [red, green, blue] = [0, 1, 2].map(|channel| &out[channel * 4096..][..4096]);
            assert!(out != planes && red == green && green == blue, "{class:?} {seed}");
        }
        // In a coloured image the hue turns.
        let orange = [vec![0.8; 4096], vec![0.5; 4096], vec![0.2; 4096]].concat();
        for seed in 0..50 {
            let mut out = vec![0.0; planes.len()];
            class.apply(&orange, [64, 64], &mut rng(seed), &mut out).unwrap();
            let at = (0..3 * 4096).find(|at| out[*at] != orange[*at]).unwrap() % 4096;
            let [red, green, blue] = [0, 1, 2].map(|channel| out[channel * 4096 + at]);
            assert!(red > blue, "{class:?} {seed}: {red} {green} {blue}");
            colours.insert(green > 0.55 * red + 0.45 * blue);
        }
    }
    assert_eq!(colours.len(), 2, "hues turn both ways");
}

/// Values between 8-bit levels outside the patch are kept, and the share that changes is the paper's.
#[test]
fn patches_and_scars_have_the_sizes_of_the_paper() {
    let photograph = crop(&samples::texture("gravel").unwrap(), 100, 100, 256, 256).unwrap();
    let grey: Vec<f32> = photograph.pixels().map(|pixel| (f32::from(pixel.0[0]) + 0.3) / 256.0).collect();
    let share = |class: CutPasteClass, random: &mut ChaCha8Rng| {
        let mut out = vec![0.0; grey.len()];
        class.apply(&grey, [256, 256], random, &mut out).unwrap();
        grey.iter().zip(&out).filter(|(a, b)| a != b).count() as f64 / grey.len() as f64
    };
    let mut random = rng(7);
    let patches: Vec<f64> = (0..60).map(|_| share(CutPasteClass::CutPaste, &mut random)).collect();
    // 2 to 15 %, with sides rounded down.
    assert!(patches.iter().all(|share| (0.0185..=0.15).contains(share)), "{patches:?}");
    assert!(patches.iter().any(|&share| share < 0.04) && patches.iter().any(|&share| share > 0.13));
    let scars: Vec<f64> = (0..60).map(|_| share(CutPasteClass::Scar, &mut random) * 65536.0).collect();
    // 2 × 10 to 16 × 25 pixels, and the soft rim of half a pixel on each side.
    assert!(scars.iter().all(|&area| (20.0..=17.0 * 26.0).contains(&area)), "{scars:?}");
    assert!(scars.iter().any(|&area| area < 100.0) && scars.iter().any(|&area| area > 250.0));
}

/// FNV-1a, 64 bits.
fn hash(values: &[f32]) -> u64 {
    values
        .iter()
        .flat_map(|value| value.to_bits().to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The values of each kind for one seed, on every platform.
#[test]
fn a_seed_gives_the_same_values_everywhere() {
    let planes = distinct(3, [16, 16]);
    let mut actual: Vec<u64> =
        AdaclKind::ALL.iter().map(|&kind| hash(&made(kind, &planes, [16, 16], &mut rng(42)))).collect();
    for class in CutPasteClass::ALL {
        let mut out = vec![0.0; planes.len()];
        class.apply(&planes, [16, 16], &mut rng(42), &mut out).unwrap();
        actual.push(hash(&out));
    }
    let expected = [
        0xdc8d_5af4_eb98_c0cb,
        0x5777_edba_2fe0_042b,
        0xc983_ff88_6459_e9e3,
        0x1351_6c4b_863f_fa43,
        0x4646_9f1c_b5f4_3c73,
        0x2651_af84_b410_f713,
        0x74f4_63ad_2fec_2d7a,
    ];
    assert_eq!(actual, expected, "{actual:#x?}");
}

#[test]
fn augmentations_are_listed_among_the_transforms() {
    let listed: Vec<&str> =
        TRANSFORMS.iter().filter(|entry| entry.group == Group::Augmentation).map(Entry::name).collect();
    assert_eq!(listed, ["adacl-cut-paste", "adacl-puzzle", "adacl-rotation", "adacl-mix-up", "cutpaste-3-way"]);
}

proptest! {
    #[test]
    fn any_image_comes_out_in_range(
        seed in any::<u64>(),
        height in 2usize..24,
        width in 2usize..24,
        channels in prop::sample::select(vec![1usize, 2, 3]),
    ) {
        let planes = distinct(channels, [height, width]);
        let mut random = rng(seed);
        for kind in AdaclKind::ALL {
            let mut out = vec![f32::NAN; planes.len()];
            match AdaclAugmentation::default().apply_kind(kind, &planes, [height, width], &mut random, &mut out) {
                Ok(()) => prop_assert!(out != planes && out.iter().all(|value| (0.0..=1.0).contains(value))),
                Err(error) => {
                    let not_square = matches!(error, TransformError::NotSquare { .. });
                    prop_assert!(not_square && height != width, "{}", error);
                }
            }
        }
        for class in CutPasteClass::ALL {
            let mut out = vec![f32::NAN; planes.len()];
            match class.apply(&planes, [height, width], &mut random, &mut out) {
                Ok(()) => prop_assert!(out.iter().all(|value| (0.0..=1.0).contains(value))),
                Err(_) => prop_assert!(channels == 2 || height < 8 || width < 8),
            }
        }
    }
}
