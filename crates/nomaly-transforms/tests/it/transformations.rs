//! Transformation sets: against SciPy, NumPy, scikit-image and Keras' definition, as a grammar, and as a group.

use std::collections::HashSet;

use nomaly_registry::Entry;
use nomaly_transforms::TransformError;
use nomaly_transforms::registry::TRANSFORMS;
use nomaly_transforms::transformations::{MAX_TRANSFORMATIONS, Transformation, TransformationSet};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value;

/// Reference values are rounded to 7 decimals; this is single precision, after at most three roundings of values below
/// 1.
const ROUNDING: f32 = 4e-7;

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(0)
}

fn set(text: &str) -> TransformationSet {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn apply(name: &str, planes: &[f32], size: [usize; 2]) -> Vec<f32> {
    let transformation: Transformation = name.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut out = vec![f32::NAN; planes.len()];
    transformation.apply(planes, size, &mut rng(), &mut out).unwrap_or_else(|error| panic!("{name}: {error}"));
    out
}

fn fixture() -> Value {
    serde_json::from_slice(&std::fs::read(crate::fixture("transformations.json")).unwrap()).unwrap()
}

/// The numbers in arbitrarily nested lists.
fn numbers(value: &Value) -> Vec<f32> {
    match value {
        Value::Array(entries) => entries.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().unwrap() as f32],
    }
}

fn image(value: &Value) -> (Vec<f32>, [usize; 2]) {
    let planes = numbers(&value["planes"]).iter().map(|level| level / 255.0).collect();
    (planes, [0, 1].map(|axis| value["size"][axis].as_u64().unwrap() as usize))
}

#[track_caller]
fn assert_close(actual: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(actual.len(), expected.len());
    for (index, (a, b)) in actual.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance, "at {index}: {a}, expected {b}");
    }
}

#[test]
fn geotrans_moves_pixels_as_keras_and_numpy_do() {
    let fixture = &fixture()["geotrans"];
    let (planes, size) = image(fixture);
    let expected = fixture["expected"].as_array().unwrap();
    let set = set("geotrans");
    assert_eq!((set.len(), expected.len()), (72, 72));
    for (label, (transformation, expected)) in set.iter().zip(expected).enumerate() {
        let mut out = vec![0.0; 64];
        transformation.apply(&planes, size, &mut rng(), &mut out).unwrap();
        let expected: Vec<f32> = numbers(expected).iter().map(|level| level / 255.0).collect();
        assert_eq!(out, expected, "{label}: {transformation}");
    }
}

/// The vectors of `keras_affine` in the reference numbers of the project: 0 to 15 in four rows.
#[test]
fn shifts_take_rows_and_columns_as_keras_does() {
    let planes: Vec<f32> = (0u8..16).map(f32::from).collect();
    assert_eq!(
        apply("tx=0.25", &planes, [4, 4]),
        [4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 12.0, 13.0, 14.0, 15.0]
    );
    assert_eq!(
        apply("ty=-0.25", &planes, [4, 4]),
        [0.0, 0.0, 1.0, 2.0, 4.0, 4.0, 5.0, 6.0, 8.0, 8.0, 9.0, 10.0, 12.0, 12.0, 13.0, 14.0]
    );
}

#[test]
fn zooms_interpolate_as_keras_does() {
    let fixture = fixture();
    let (planes, size) = image(&fixture["colour"]);
    for zoom in fixture["zoom"].as_array().unwrap() {
        let out = apply(&format!("zoom={}", zoom["factor"]), &planes, size);
        assert_close(&out, &numbers(&zoom["expected"]), ROUNDING);
    }
}

#[test]
fn histograms_are_equalised_as_scikit_image_does() {
    let fixture = fixture();
    for case in fixture["equalise"].as_array().unwrap() {
        let (planes, size) = image(&fixture[case["image"].as_str().unwrap()]);
        for (name, step) in [("equalise", "equalise"), ("quantile", "quantile=0.7"), ("equalise", "quantile=1")] {
            // Values are converted to levels and back in single precision: a relative error of a few 1e-7 of 255
            // levels.
            assert_close(&apply(step, &planes, size), &numbers(&case[name]), 2e-5);
        }
    }
    let between = &fixture["between"];
    let planes = numbers(&between["planes"]);
    assert_close(&apply("equalise", &planes, [5, 8]), &numbers(&between["expected"]), 2e-5);
}

#[test]
fn an_image_of_one_level_is_not_equalised() {
    assert_eq!(apply("equalise", &[0.25; 12], [3, 4]), [0.25; 12]);
    assert_eq!(apply("quantile", &[1.0; 12], [3, 4]), [1.0; 12]);
}

/// Windows and factors derived from the generator's words, as documented; the arithmetic is tested elsewhere.
#[test]
fn random_steps_draw_from_the_generator_alone() {
    let fixture = fixture();
    let (planes, size) = image(&fixture["colour"]);
    for (name, draws) in [("crop", 2), ("jitter", 3), ("crop+jitter=0.1+flip", 5)] {
        let transformation: Transformation = name.parse().unwrap();
        assert!(transformation.is_random());
        let (mut used, mut counted) = (rng(), rng());
        let (mut first, mut second, mut third) = (planes.clone(), planes.clone(), planes.clone());
        transformation.apply(&planes, size, &mut used, &mut first).unwrap();
        for _ in 0..draws {
            counted.next_u32();
        }
        assert_eq!(used, counted, "{name}");
        transformation.apply(&planes, size, &mut rng(), &mut second).unwrap();
        transformation.apply(&planes, size, &mut used, &mut third).unwrap();
        assert!(first == second && first != third && first != planes, "{name}");
    }
    for transformation in &set("geotrans=0.3/zoom/equalise/quantile") {
        let mut random = rng();
        let mut out = vec![0.0; 64];
        transformation.apply(&planes[..64], [8, 8], &mut random, &mut out).unwrap();
        assert!(random == rng() && !transformation.is_random(), "{transformation}");
    }
}

/// Every window lies inside the image: values are within the image's range, and over many draws the first pixel comes
/// from all possible positions.
#[test]
fn crops_lie_anywhere_in_the_image() {
    let size = [40, 40];
    let rows: Vec<f32> = (0..1600).map(|at| (at / 40) as f32 / 39.0).collect();
    let transformation: Transformation = "crop=0.75".parse().unwrap();
    let mut random = rng();
    let mut tops = Vec::new();
    for _ in 0..400 {
        let mut out = vec![0.0; 1600];
        transformation.apply(&rows, size, &mut random, &mut out).unwrap();
        assert!((out[1599] - out[0] - 0.75).abs() < 0.02, "{} to {}", out[0], out[1599]);
        tops.push(out[0]);
    }
    // The top lies uniformly in the first quarter: a mean of 1/8 within 5 standard errors of 0.25/sqrt(12·400).
    let mean = tops.iter().sum::<f32>() / 400.0;
    assert!((mean - 0.125).abs() < 0.018, "{mean}");
    assert!(tops.iter().any(|&top| top < 0.01) && tops.iter().any(|&top| top > 0.24));
}

#[test]
fn factors_of_jitter_fill_their_range() {
    let transformation: Transformation = "jitter=0.2".parse().unwrap();
    let mut random = rng();
    let mut levels = Vec::new();
    for _ in 0..400 {
        let mut out = [0.0; 4];
        transformation.apply(&[0.5; 4], [2, 2], &mut random, &mut out).unwrap();
        levels.push(out[0]); // an even image shows the brightness alone
    }
    assert!(levels.iter().all(|level| (0.4..=0.6).contains(level)));
    let mean = levels.iter().sum::<f32>() / 400.0;
    assert!((mean - 0.5).abs() < 0.015, "{mean}"); // 5 standard errors of 0.2/sqrt(12·400)
    assert!(levels.iter().any(|&level| level < 0.405) && levels.iter().any(|&level| level > 0.595));
}

#[test]
fn sets_have_the_sizes_and_the_order_that_they_are_written_with() {
    for (text, len) in [
        ("geotrans", 72),
        ("rotations", 4),
        ("rotations-flips", 8),
        ("geotrans+zoom", 144),
        ("rotations+equalise+jitter+crop+zoom=2", 64),
        ("geotrans+zoom+crop+jitter+quantile", 1152),
        ("identity", 1),
        ("identity/rot90/flip+rot180", 3),
        ("rotations/zoom/rotations-flips=", 0),
    ] {
        match text.parse::<TransformationSet>() {
            Ok(set) => assert_eq!(set.len(), len, "{text}"),
            Err(error) => assert_eq!(len, 0, "{text}: {error}"),
        }
    }
    let names = |text: &str| set(text).iter().map(Transformation::name).collect::<Vec<_>>();
    assert_eq!(
        names("rotations-flips"),
        ["identity", "rot90", "rot180", "rot270", "flip", "flip+rot90", "flip+rot180", "flip+rot270"]
    );
    assert_eq!(names("geotrans")[71], "flip+tx=0.25+ty=0.25+rot270");
    // Labels without an extra come first; equalisation is applied first, zooms last before the preset's steps.
    let all = names("rotations+quantile+zoom+crop+jitter");
    assert_eq!(all[0], "identity");
    assert_eq!(all[4], "zoom=1.3");
    assert_eq!(all[63], "quantile=0.7+jitter=0.4+crop=0.8+zoom=1.3+rot270");
}

#[test]
fn sets_are_displayed_as_they_are_read() {
    for (text, shown) in [
        ("geotrans", "geotrans"),
        ("geotrans=0.25", "geotrans"),
        (" geotrans = 0.2 + quantile + zoom ", "geotrans=0.2+zoom=1.3+quantile=0.7"),
        ("rotations+crop+jitter", "rotations+crop=0.8+jitter=0.4"),
        ("identity/crop=0.50/tx=-2.5e-1+rot90", "identity/crop=0.5/tx=-0.25+rot90"),
        ("rotations/equalise/rotations-flips+equalise", ""),
    ] {
        match text.parse::<TransformationSet>() {
            Ok(set) => assert_eq!(set.to_string(), shown, "{text}"),
            Err(TransformError::Twice { .. }) if shown.is_empty() => {}
            Err(error) => panic!("{text}: {error}"),
        }
    }
    let stored = serde_json::to_string(&set("rotations+zoom")).unwrap();
    assert_eq!(stored, "\"rotations+zoom=1.3\"");
    assert_eq!(serde_json::from_str::<TransformationSet>(&stored).unwrap(), set("rotations+zoom=1.3"));
    assert!(serde_json::from_str::<TransformationSet>("\"rotation\"").is_err());
}

#[test]
fn what_is_wrong_with_a_set_is_said() {
    let many: Vec<String> = (1..=MAX_TRANSFORMATIONS + 1).map(|at| format!("tx=0.{at:05}1")).collect();
    let long = ["flip"; 17].join("+");
    for (text, expected) in [
        ("geotran", "unknown transformation `geotran`; did you mean `geotrans`?"),
        ("rotatoins+zoom", "unknown transformation `rotatoins`; did you mean `rotations`?"),
        ("geotrans+equalize", "unknown extra transformation `equalize`; did you mean `equalise`?"),
        ("geotrans+flip", "unknown extra transformation `flip`; known: zoom, crop, jitter, equalise, quantile"),
        ("identity/flip+rot09", "unknown transformation `rot09`; did you mean `rot90`?"),
        ("", "unknown transformation ``; known: geotrans, "),
        ("flip/", "unknown transformation ``; known: geotrans, "),
        ("flip++rot90", "unknown transformation ``; known: identity, flip, tx, "),
        ("flip+rotations", "`rotations` cannot be a step of a transformation"),
        ("identity+flip", "`identity` cannot be a step of a transformation"),
        ("tx", "`tx`: expected a share of the side"),
        ("tx=1", "`tx=1`: expected a share of the side"),
        ("ty=0", "`ty=0`: expected a share of the side"),
        ("ty=NaN", "`ty=NaN`: expected a share of the side"),
        ("flip=2", "`flip=2`: expected no setting"),
        ("rotations=0.2", "`rotations=0.2`: expected no setting"),
        ("geotrans=-0.2", "`geotrans=-0.2`: expected a share of the side above 0 and less than 1"),
        ("geotrans+zoom=1", "`zoom=1`: expected a factor from 0.25 to 4 and not 1"),
        ("geotrans+zoom=1,3", "`zoom=1,3`: expected a factor"),
        ("geotrans+crop=1", "`crop=1`: expected a share of the sides"),
        ("geotrans+jitter=inf", "`jitter=inf`: expected a change"),
        ("geotrans+quantile=0", "`quantile=0`: expected a value above 0 and up to 1"),
        ("geotrans+zoom=2+zoom=3", "`zoom` is given twice"),
        ("geotrans+equalise+quantile", "`equalise` and `quantile` cannot both be extras"),
        ("rotations/flip/rot90", "`rot90` is given twice"),
        (&many.join("/"), "a set has at most 4096 transformations"),
        (&long, "a transformation has at most 16 steps"),
    ] {
        let error = text.parse::<TransformationSet>().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

#[test]
fn images_of_the_wrong_shape_are_refused_and_nothing_is_written() {
    let square = |step: &str| TransformError::NotSquare { step: step.into(), height: 2, width: 3 };
    let small = |step: &str, [height, width]: [usize; 2]| TransformError::TooSmall { step: step.into(), height, width };
    for (name, len, size, out, expected) in [
        ("flip", 0, [0, 3], 0, TransformError::EmptyImage { width: 3, height: 0 }),
        ("identity", 4, [4, 0], 4, TransformError::EmptyImage { width: 0, height: 4 }),
        ("identity", 0, [2, 3], 0, TransformError::PlanesLength { height: 2, width: 3, actual: 0 }),
        ("identity", 7, [2, 3], 7, TransformError::PlanesLength { height: 2, width: 3, actual: 7 }),
        ("identity", 8, [usize::MAX, 2], 8, TransformError::PlanesLength { height: usize::MAX, width: 2, actual: 8 }),
        ("flip", 6, [2, 3], 12, TransformError::OutputLength { expected: 6, actual: 12 }),
        ("rot90", 6, [2, 3], 6, square("rot90")),
        ("flip+equalise+rot270", 6, [2, 3], 6, square("rot270")),
        ("flip", 3, [3, 1], 3, small("flip", [3, 1])),
        ("rot180", 1, [1, 1], 1, small("rot180", [1, 1])),
        ("tx=0.1", 12, [4, 3], 12, small("tx=0.1", [4, 3])),
        ("ty=-0.16", 12, [4, 3], 12, small("ty=-0.16", [4, 3])),
        ("zoom=1.3", 12, [4, 3], 12, small("zoom=1.3", [4, 3])),
        ("crop=0.8", 12, [3, 4], 12, small("crop=0.8", [3, 4])),
    ] {
        let transformation: Transformation = name.parse().unwrap();
        let mut written = vec![-1.0; out];
        let mut random = rng();
        let error = transformation.apply(&vec![0.5; len], size, &mut random, &mut written).unwrap_err();
        assert_eq!(error, expected, "{name}");
        assert!(written.iter().all(|&value| value == -1.0) && random == rng(), "{name}");
    }
    assert!(set("rotations").check([2, 3]).is_err());
    assert!(set("identity/flip/rot180").check([2, 3]).is_ok());
}

#[test]
fn values_that_are_no_numbers_do_no_harm() {
    let planes = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -3.0, 7.0, 0.5, 0.25, 1e30, 0.0, 1.0, 0.75, -0.0];
    for transformation in &set("flip/rot180/jitter/equalise/quantile/equalise+jitter+flip") {
        let mut out = [0.0; 12];
        transformation.apply(&planes, [2, 2], &mut rng(), &mut out).unwrap();
    }
    // One channel, two, four: only the number of planes differs.
    for channels in [1, 2, 3, 4] {
        let planes = vec![0.3; 64 * channels];
        for transformation in &set("geotrans+zoom+crop+jitter+equalise") {
            let mut out = vec![f32::NAN; planes.len()];
            transformation.apply(&planes, [8, 8], &mut rng(), &mut out).unwrap();
            assert!(out.iter().all(|value| (0.0..=1.0).contains(value)), "{transformation}");
        }
    }
}

#[test]
fn the_72_images_of_an_asymmetric_image_differ() {
    let (planes, size) = image(&fixture()["geotrans"]);
    for text in ["geotrans", "geotrans+zoom+quantile", "rotations-flips+crop+jitter+equalise"] {
        let set = set(text);
        let images: HashSet<Vec<u32>> =
            set.iter().map(|t| apply(&t.name(), &planes, size).iter().map(|value| value.to_bits()).collect()).collect();
        assert_eq!(images.len(), set.len(), "{text}");
    }
}

/// The eight of `rotations-flips` are the symmetries of the square: they are closed under composition.
#[test]
fn turns_and_mirror_images_are_a_group() {
    let planes: Vec<f32> = (0u8..50).map(f32::from).collect(); // two planes
    let set = set("rotations-flips");
    let images: Vec<Vec<f32>> = set.iter().map(|t| apply(&t.name(), &planes, [5, 5])).collect();
    for first in &set {
        let mut after = HashSet::new();
        for second in &set {
            let both = apply(&second.name(), &apply(&first.name(), &planes, [5, 5]), [5, 5]);
            after.insert(images.iter().position(|image| *image == both).expect("composed to one of the eight"));
        }
        assert_eq!(after.len(), 8, "{first}");
    }
    assert_eq!(apply("rot90+rot90", &planes, [5, 5]), apply("rot180", &planes, [5, 5]));
    assert_eq!(apply("rot90+rot180", &planes, [5, 5]), apply("rot270", &planes, [5, 5]));
    assert_eq!(apply("rot90+flip", &planes, [5, 5]), apply("flip+rot270", &planes, [5, 5]));
}

#[test]
fn steps_and_sets_are_listed_among_the_transforms() {
    let listed: HashSet<&str> = TRANSFORMS.iter().map(Entry::name).collect();
    for name in ["geotrans", "rotations", "rotations-flips", "flip", "tx", "ty", "rot90", "rot180", "rot270"] {
        assert!(listed.contains(name), "{name}");
    }
    for name in ["zoom", "crop", "jitter", "equalise", "quantile"] {
        assert!(listed.contains(name), "{name}");
        assert_eq!(set(&format!("rotations+{name}")).len(), 8);
    }
}

proptest! {
    #[test]
    fn an_inverse_undoes_its_transformation(
        steps in prop::collection::vec(prop::sample::select(vec!["flip", "rot90", "rot180", "rot270"]), 1..6),
        side in 2usize..7,
        channels in 1usize..4,
    ) {
        let transformation: Transformation = steps.join("+").parse().unwrap();
        let planes: Vec<f32> = (0..channels * side * side).map(|at| at as f32).collect();
        let inverse = transformation.inverse().unwrap();
        let there = apply(&transformation.name(), &planes, [side, side]);
        prop_assert_eq!(apply(&inverse.name(), &there, [side, side]), &planes[..]);
        prop_assert_eq!(inverse.inverse().unwrap(), transformation);
    }

    /// A composition equals its steps applied one by one, each from its definition.
    #[test]
    fn compositions_are_their_steps_one_after_the_other(
        steps in prop::collection::vec(
            prop::sample::select(vec!["flip", "rot90", "rot180", "rot270", "tx=0.3", "tx=-0.5", "ty=0.9", "ty=-0.2", "zoom=1.5", "equalise"]),
            1..8,
        ),
        side in 4usize..9,
        seed in any::<u64>(),
    ) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let planes: Vec<f32> = (0..2 * side * side).map(|_| (random.next_u32() >> 8) as f32 / (1 << 24) as f32).collect();
        let one_by_one = steps.iter().fold(planes.clone(), |image, step| apply(step, &image, [side, side]));
        prop_assert_eq!(apply(&steps.join("+"), &planes, [side, side]), one_by_one);
    }

    #[test]
    fn shifts_are_what_the_mirrored_border_says(share in -0.99f64..0.99, height in 1usize..12, width in 1usize..12) {
        let by = (share * height as f64).round() as isize;
        prop_assume!(by != 0);
        let planes: Vec<f32> = (0..height * width).map(|at| at as f32).collect();
        let out = apply(&format!("tx={share}"), &planes, [height, width]);
        for y in 0..height {
            // Walk from row to row, turning round at the borders.
            let (mut at, mut step) = (y as isize, by.signum());
            for _ in 0..by.abs() {
                let next = at + step;
                if (0..height as isize).contains(&next) { at = next } else { step = -step }
            }
            prop_assert_eq!(&out[y * width..][..width], &planes[at as usize * width..][..width]);
        }
    }

    /// Parsing any text gives a set or an error, and a parsed set round-trips.
    #[test]
    fn any_text_is_read_or_refused(text in "(geotrans|rotations|flip|zoom|crop|tx|rot90|equalise|=|\\+|/|0\\.5|-|1e-3| |é){0,12}") {
        if let Ok(set) = text.parse::<TransformationSet>() {
            prop_assert_eq!(set.to_string().parse::<TransformationSet>().unwrap(), set.clone());
            let list: Vec<String> = set.iter().map(Transformation::name).collect();
            let listed: TransformationSet = list.join("/").parse().unwrap();
            prop_assert!(listed.iter().eq(set.iter()));
        }
    }
}

/// Only mirror images and turns can be undone.
#[test]
fn lossy_steps_have_no_inverse() {
    let with_inverse = set("geotrans").iter().filter(|t| t.inverse().is_some()).count();
    assert_eq!(with_inverse, 8);
    assert!(set("zoom/crop/jitter/equalise/quantile/flip+zoom").iter().all(|t| t.inverse().is_none()));
    assert_eq!("flip+rot90".parse::<Transformation>().unwrap().inverse().unwrap().name(), "rot270+flip");
}
