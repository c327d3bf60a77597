//! Tiles and flips: the contents of each view, and how their maps are combined.

use image::{GrayImage, Luma, Rgb, RgbImage};
use nomaly_transforms::{
    CenterCrop, Filter, Flips, Footprint, Normalize, Pipeline, Resize, ResizeMode, Tiling, TransformError, Views,
};
use proptest::prelude::*;

fn exact(height: u32, width: u32) -> Pipeline {
    let resize = Resize { mode: ResizeMode::Exact { height, width }, filter: Filter::Bilinear };
    Pipeline::new(resize, None, Normalize::IMAGENET).unwrap()
}

fn views(rows: u32, columns: u32, height: u32, width: u32, flips: Flips) -> Views {
    Views { tiling: Some(Tiling { rows, columns, height, width }), flips }
}

/// The pixel of the frame that each pixel of each view shows, `[views, H, W]`, written from the definition.
fn positions(pipeline: &Pipeline) -> Vec<usize> {
    let [frame_height, frame_width] = pipeline.frame_size();
    let [height, width] = pipeline.output_size();
    let (rows, columns) = pipeline.views.tiling.map_or((1, 1), |tiling| (tiling.rows, tiling.columns));
    let start = |number: u32, count: u32, tile: usize, frame: usize| {
        let spacing = (frame - tile) as f64 / f64::from((count - 1).max(1));
        (f64::from(number) * spacing + 0.5).floor() as usize
    };
    let flips: &[(bool, bool)] = match pipeline.views.flips {
        Flips::None => &[(false, false)],
        Flips::Horizontal => &[(false, false), (true, false)],
        Flips::Vertical => &[(false, false), (false, true)],
        Flips::Both => &[(false, false), (true, false), (false, true), (true, true)],
    };
    let mut positions = Vec::new();
    for &(horizontal, vertical) in flips {
        for row in 0..rows {
            for column in 0..columns {
                let top = start(row, rows, height, frame_height);
                let left = start(column, columns, width, frame_width);
                for y in 0..height {
                    for x in 0..width {
                        let y = if vertical { height - 1 - y } else { y };
                        let x = if horizontal { width - 1 - x } else { x };
                        positions.push((top + y) * frame_width + left + x);
                    }
                }
            }
        }
    }
    positions
}

/// A pipeline whose tiles cover its frame; also without tiles.
fn pipelines() -> impl Strategy<Value = Pipeline> {
    let axis = || (1u32..6, 1u32..14, 0.0..=1.0f64);
    let flips = prop::sample::select(Flips::ALL.to_vec());
    (axis(), axis(), flips, any::<bool>()).prop_map(|((rows, height, down), (columns, width, across), flips, tiled)| {
        let frame = |count: u32, tile: u32, part: f64| tile + (f64::from((count - 1) * tile) * part) as u32;
        let tiling = tiled.then_some(Tiling { rows, columns, height, width });
        let pipeline = exact(frame(rows, height, down), frame(columns, width, across));
        pipeline.with_views(Views { tiling, flips }).unwrap()
    })
}

proptest! {
    #[test]
    fn views_show_what_their_definition_says(pipeline in pipelines(), seed in any::<u32>()) {
        let [height, width] = pipeline.frame_size();
        let value = |x: u32, y: u32, channel: u32| {
            ((y * width as u32 + x) * 3 + channel).wrapping_add(seed).wrapping_mul(2_654_435_761).to_be_bytes()[0]
        };
        let image = RgbImage::from_fn(width as u32, height as u32, |x, y| Rgb([0, 1, 2].map(|c| value(x, y, c))));
        let mask = GrayImage::from_fn(width as u32, height as u32, |x, y| Luma([value(x, y, 0)]));

        let frame = Pipeline { views: Views::default(), ..pipeline }.apply(&image).unwrap();
        let positions = positions(&pipeline);
        let [tile_height, tile_width] = pipeline.output_size();
        let mut expected = Vec::new();
        for view in positions.chunks(tile_height * tile_width) {
            for plane in frame.chunks(height * width) {
                expected.extend(view.iter().map(|&at| plane[at]));
            }
        }
        prop_assert_eq!(pipeline.apply(&image).unwrap(), expected);

        let masks = pipeline.split_mask(&mask).unwrap();
        prop_assert_eq!(masks.len(), pipeline.view_count());
        prop_assert!(masks.iter().all(|mask| mask.dimensions() == (tile_width as u32, tile_height as u32)));
        let split: Vec<u8> = masks.into_iter().flat_map(GrayImage::into_raw).collect();
        prop_assert_eq!(split, positions.iter().map(|&at| mask.as_raw()[at]).collect::<Vec<u8>>());
        prop_assert_eq!(pipeline.view(&image).unwrap(), image);
    }

    #[test]
    fn maps_that_agree_come_together_as_the_map_they_were_cut_from(
        pipeline in pipelines(),
        values in prop::collection::vec(-1e6f32..1e6, 65 * 65),
    ) {
        let maps: Vec<f32> = positions(&pipeline).into_iter().map(|at| values[at]).collect();
        let [height, width] = pipeline.frame_size();
        // The sums are taken in f64, which preserves equal values after rounding to f32.
        prop_assert_eq!(pipeline.assemble(&maps).unwrap(), &values[..height * width]);
    }

    #[test]
    fn an_assembled_value_lies_between_those_of_the_views(
        pipeline in pipelines(),
        seed in any::<u32>(),
    ) {
        let positions = positions(&pipeline);
        let noise = |i: usize| ((i as u32).wrapping_add(seed).wrapping_mul(2_654_435_761) >> 8) as f32;
        let maps: Vec<f32> = (0..positions.len()).map(noise).collect();
        let assembled = pipeline.assemble(&maps).unwrap();
        let mut bounds = vec![(f32::INFINITY, f32::NEG_INFINITY); assembled.len()];
        for (&at, &value) in positions.iter().zip(&maps) {
            bounds[at] = (bounds[at].0.min(value), bounds[at].1.max(value));
        }
        for (value, (low, high)) in assembled.into_iter().zip(bounds) {
            prop_assert!((low..=high).contains(&value), "{} not in {}..={}", value, low, high);
        }
    }
}

#[test]
fn a_smooth_function_comes_back_from_tiles_and_flips() {
    let pipeline = exact(700, 520).with_views(views(4, 3, 224, 224, Flips::Both)).unwrap();
    let smooth = |at: usize| ((at / 520) as f32 / 90.0).sin() * ((at % 520) as f32 / 70.0).cos() + 3.0;
    let maps: Vec<f32> = positions(&pipeline).into_iter().map(smooth).collect();
    let assembled = pipeline.assemble(&maps).unwrap();
    assert_eq!(assembled, (0..700 * 520).map(smooth).collect::<Vec<f32>>());
}

#[test]
fn one_tile_fades_into_the_next_without_a_step() {
    // Two tiles of 224 that share 112 columns; one has value 0, the other 1.
    let pipeline = exact(224, 336).with_views(views(1, 2, 224, 224, Flips::None)).unwrap();
    let mut maps = vec![0.0; 2 * 224 * 224];
    maps[224 * 224..].fill(1.0);
    let map = pipeline.assemble(&maps).unwrap();
    for row in map.chunks(336) {
        assert!(row[..112].iter().all(|&value| value == 0.0));
        assert!(row[224..].iter().all(|&value| value == 1.0));
        for pair in row[111..225].windows(2) {
            // A straight line over 112 pixels, half a step at its ends.
            let step = pair[1] - pair[0];
            assert!(step > 0.0 && step < 1.01 / 112.0, "{step}");
        }
    }
}

#[test]
fn flips_are_averaged() {
    let pipeline = exact(1, 3).with_views(Views { tiling: None, flips: Flips::Horizontal }).unwrap();
    assert_eq!(pipeline.assemble(&[1.0, 2.0, 3.0, 30.0, 20.0, 10.0]).unwrap(), [5.5, 11.0, 16.5]);
}

#[test]
fn the_map_of_a_single_view_comes_back_bit_for_bit() {
    let map = [-0.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE / 2.0, 0.1, f32::MAX];
    for pipeline in [exact(2, 3), exact(2, 3).with_views(views(1, 1, 2, 3, Flips::None)).unwrap()] {
        let bits: Vec<u32> = pipeline.assemble(&map).unwrap().into_iter().map(f32::to_bits).collect();
        assert_eq!(bits, map.map(f32::to_bits));
    }
}

#[test]
fn sizes_tell_the_frame_from_the_input() {
    let pipeline = exact(30, 50).with_views(views(2, 3, 16, 20, Flips::Both)).unwrap();
    assert_eq!(pipeline.frame_size(), [30, 50]);
    assert_eq!(pipeline.output_size(), [16, 20]);
    assert_eq!(pipeline.view_count(), 24);
    assert_eq!(pipeline.output_len(), 24 * 3 * 16 * 20);
    let mask = GrayImage::new(9, 9);
    assert_eq!(pipeline.apply_mask(&mask).unwrap().dimensions(), (50, 30));

    let whole = exact(30, 50);
    assert_eq!((whole.output_size(), whole.view_count(), whole.output_len()), ([30, 50], 1, 3 * 30 * 50));
}

#[test]
fn maps_masks_and_buffers_of_other_sizes_are_errors() {
    let pipeline = exact(3, 5).with_views(views(1, 2, 3, 3, Flips::None)).unwrap();
    let error = pipeline.assemble(&[0.0; 15]).unwrap_err();
    assert_eq!(error.to_string(), "15 values are not the maps of 2 views of 3×3 pixels");
    let error = pipeline.split_mask(&GrayImage::new(3, 5)).unwrap_err();
    assert_eq!(error.to_string(), "the mask has 3×5 pixels and the frame 5×3");
    let error = pipeline.apply_into(&RgbImage::new(5, 3), &mut [0.0; 45]).unwrap_err();
    assert_eq!(error, TransformError::OutputLength { expected: 54, actual: 45 });
    assert!(pipeline.footprint((0, 4)).is_err());
}

#[test]
fn stored_views_come_back_are_checked_and_may_be_absent() {
    let pipeline = exact(8, 9);
    let json = serde_json::to_string(&pipeline).unwrap();
    assert!(!json.contains("views"), "{json}");
    assert_eq!(serde_json::from_str::<Pipeline>(&json).unwrap(), pipeline);

    let tiled = pipeline.with_views(views(2, 3, 5, 4, Flips::Vertical)).unwrap();
    let tiled_json = serde_json::to_string(&tiled).unwrap();
    let stored = r#","views":{"tiling":{"rows":2,"columns":3,"height":5,"width":4},"flips":"vertical"}}"#;
    assert_eq!(tiled_json, format!("{}{stored}", json.strip_suffix('}').unwrap()));
    assert_eq!(serde_json::from_str::<Pipeline>(&tiled_json).unwrap(), tiled);

    let flipped = tiled_json.replace(r#""tiling":{"rows":2,"columns":3,"height":5,"width":4},"#, "");
    let expected = pipeline.with_views(Views { tiling: None, flips: Flips::Vertical }).unwrap();
    assert_eq!(serde_json::from_str::<Pipeline>(&flipped).unwrap(), expected);

    let rejected = [
        (tiled_json.replace("\"rows\":2", "\"rows\":1"), "1 tile of height 5 does not cover the frame's height of 8"),
        (tiled_json.replace("\"rows\":2", "\"rows\":65"), "65 rows of tiles, expected 1 to 64"),
        (tiled_json.replace("\"width\":4", "\"width\":10"), "the tile's width of 10 is larger than the frame's"),
        (tiled_json.replace("vertical", "diagonal"), "unknown variant `diagonal`"),
        (tiled_json.replace("\"rows\"", "\"stride\":1,\"rows\""), "unknown field `stride`"),
        (tiled_json.replace("\"flips\"", "\"turns\":1,\"flips\""), "unknown field `turns`"),
    ];
    for (text, message) in rejected {
        let error = serde_json::from_str::<Pipeline>(&text).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn footprints_are_the_part_of_the_image_that_the_frame_shows() {
    let check = |mode, crop: Option<(u32, u32)>, image, [x, y, width, height]: [f64; 4]| {
        let resize = Resize { mode, filter: Filter::Bilinear };
        let crop = crop.map(|(height, width)| CenterCrop { height, width });
        let pipeline = Pipeline::new(resize, crop, Normalize::IMAGENET).unwrap();
        assert_eq!(pipeline.footprint(image).unwrap(), Footprint { x, y, width, height }, "{pipeline:?}");
    };
    let exactly = |height, width| ResizeMode::Exact { height, width };
    check(exactly(224, 224), None, (640, 480), [0.0, 0.0, 640.0, 480.0]);
    // 256 of 512 pixels; the crop takes the middle 224.
    check(ResizeMode::ShortSide(256), Some((224, 224)), (512, 1024), [32.0, 288.0, 448.0, 448.0]);
    // Half the size; a margin of 3 is cut as 2 and 1, half to even, as the pixels are.
    check(exactly(50, 53), Some((50, 50)), (106, 100), [4.0, 0.0, 100.0, 100.0]);
    // Doubled to 20 × 20, then padded to 25 × 30: 2 rows above, 3 below, 5 columns on either side.
    check(exactly(20, 20), Some((25, 30)), (10, 10), [-2.5, -1.0, 15.0, 12.5]);
    // The long side of 7 · 4 / 5 is rounded down to 5.
    check(ResizeMode::ShortSide(4), Some((4, 5)), (7, 5), [0.0, 0.0, 7.0, 5.0]);
}
