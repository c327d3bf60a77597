//! Regions of anomaly maps against `scipy.ndimage`, and edge cases.

use nomaly_detectors::regions::{Region, RegionOptions, Regions};
use serde::Deserialize;

const UNFILLED: RegionOptions = RegionOptions { low: None, min_area: 0, fill_holes: false };

#[derive(Deserialize)]
struct Case {
    name: String,
    width: usize,
    height: usize,
    /// The map in 64ths.
    steps: Vec<u16>,
    /// In 64ths.
    threshold: u16,
    min_area: usize,
    fill_holes: bool,
    /// `#` for a pixel of a region.
    mask: String,
    regions: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
    area: usize,
    peak: f32,
    peak_x: u32,
    peak_y: u32,
    mean: f64,
}

#[test]
fn equal_those_of_scipy() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../fixtures/regions.json")).unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let map: Vec<f32> = case.steps.iter().map(|&step| f32::from(step) / 64.0).collect();
        let options = RegionOptions { low: None, min_area: case.min_area, fill_holes: case.fill_holes };
        let found = Regions::find(&map, case.width, case.height, f64::from(case.threshold) / 64.0, &options).unwrap();
        let mask: String = found.mask.as_raw().iter().map(|&pixel| if pixel == 255 { '#' } else { '.' }).collect();
        assert_eq!(mask, case.mask, "{}", case.name);
        assert_eq!((found.mask.width() as usize, found.mask.height() as usize), (case.width, case.height));
        // Sums of 64ths are exact in f64, so that the means only differ by rounding to f32.
        let expected: Vec<Region> = case
            .regions
            .into_iter()
            .map(|Expected { x, y, width, height, area, peak, peak_x, peak_y, mean }| {
                let mean = mean as f32;
                Region { x, y, width, height, area, peak, peak_x, peak_y, mean }
            })
            .collect();
        assert_eq!(found.regions, expected, "{}", case.name);
    }
}

#[test]
fn hysteresis_keeps_what_touches_a_high_pixel() {
    let map = [
        0.6, 0.9, 0.1, 0.6, //
        0.1, 0.1, 0.6, 0.1, //
        0.1, 0.1, 0.1, 0.1, //
        0.6, 0.6, 0.1, 0.6,
    ];
    let find = |low| Regions::find(&map, 4, 4, 0.8, &RegionOptions { low, ..UNFILLED }).unwrap();
    let mask =
        |found: &Regions| found.mask.iter().map(|pixel| if *pixel == 255 { '#' } else { '.' }).collect::<String>();
    assert_eq!(mask(&find(Some(0.5))), "##.#..#.........");
    assert_eq!(find(Some(0.5)).regions.len(), 1);
    // Without a lower threshold, and with one that is not lower.
    for low in [None, Some(0.8), Some(0.95)] {
        assert_eq!(mask(&find(low)), ".#..............", "{low:?}");
    }
    // Above minus infinity everything is one region, if any pixel is high.
    assert_eq!(find(Some(f64::NEG_INFINITY)).regions[0].area, 16);
    let options = RegionOptions { low: Some(f64::NAN), ..UNFILLED };
    let nan = Regions::find(&map, 4, 4, 0.8, &options).unwrap_err().to_string();
    assert_eq!(nan, "the threshold of the anomaly map is NaN, expected a number");
}

#[test]
fn a_value_equal_to_the_threshold_is_not_above_it() {
    let found = Regions::find(&[0.5, 0.75], 2, 1, 0.5, &UNFILLED).unwrap();
    assert_eq!(found.mask.as_raw(), &[0, 255]);
    // The threshold is not rounded to f32: just below 0.1f32 there are f64 thresholds that 0.1f32 exceeds.
    let value = 0.1f32;
    let below = f64::from(value).next_down();
    assert_eq!(Regions::find(&[value], 1, 1, below, &UNFILLED).unwrap().regions.len(), 1);
    assert!(Regions::find(&[value], 1, 1, f64::from(value), &UNFILLED).unwrap().regions.is_empty());
}

#[test]
fn all_nothing_and_no_pixels() {
    let map = [0.25f32, 0.5, 0.5, 0.75, 0.0, 0.75];
    let all = Regions::find(&map, 3, 2, f64::NEG_INFINITY, &RegionOptions::default()).unwrap();
    let whole = Region { x: 0, y: 0, width: 3, height: 2, area: 6, peak: 0.75, peak_x: 0, peak_y: 1, mean: 2.75 / 6.0 };
    assert_eq!(all.regions, [whole]);
    assert_eq!(all.mask.as_raw(), &[255; 6]);

    let nothing = Regions::find(&map, 3, 2, f64::INFINITY, &RegionOptions::default()).unwrap();
    assert!(nothing.regions.is_empty());
    assert_eq!(nothing.mask.as_raw(), &[0; 6]);

    for (width, height) in [(0, 0), (0, 5), (5, 0)] {
        let empty = Regions::find(&[], width, height, 0.0, &RegionOptions::default()).unwrap();
        assert!(empty.regions.is_empty());
        assert_eq!(empty.mask.dimensions(), (width as u32, height as u32));
    }
}

#[test]
fn equal_peaks_come_in_raster_order_of_their_boxes() {
    // Two regions of one peak; the right one starts in the upper row.
    let map = [
        0.0, 0.0, 0.0, 0.9, //
        0.9, 0.0, 0.0, 0.9, //
        0.9, 0.0, 0.0, 0.0,
    ];
    let found = Regions::find(&map, 4, 3, 0.5, &UNFILLED).unwrap();
    let places: Vec<_> = found.regions.iter().map(|r| (r.x, r.y, r.peak_x, r.peak_y)).collect();
    assert_eq!(places, [(3, 0, 3, 0), (0, 1, 0, 1)]);
}

#[test]
fn maps_that_were_never_judged_are_errors() {
    let find = |map: &[f32], width, height, threshold| {
        Regions::find(map, width, height, threshold, &RegionOptions::default()).unwrap_err()
    };
    assert_eq!(find(&[0.0; 5], 2, 3, 0.5).to_string(), "5 values are not a map of 2×3 pixels");
    assert!(find(&[0.0; 4], usize::MAX, 4, 0.5).to_string().starts_with("4 values are not a map of"));
    let nan = find(&[0.0, 0.0, 0.0, f32::NAN], 3, 2, 0.5);
    assert!(nan.to_string().contains("not a map of"), "{nan}");
    let nan = find(&[0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0], 3, 2, 0.5);
    assert_eq!(nan.to_string(), "the anomaly map is NaN at column 1 of row 1, expected a finite number");
    assert!(find(&[f32::INFINITY], 1, 1, 0.5).to_string().starts_with("the anomaly map is inf at column 0 of row 0"));
    assert_eq!(find(&[0.0], 1, 1, f64::NAN).to_string(), "the threshold of the anomaly map is NaN, expected a number");
}

#[test]
fn regions_are_written_with_their_names() {
    let found = Regions::find(&[0.0, 0.75], 2, 1, 0.5, &UNFILLED).unwrap();
    assert_eq!(
        serde_json::to_string(&found.regions).unwrap(),
        r#"[{"x":1,"y":0,"width":1,"height":1,"area":1,"peak":0.75,"peak_x":1,"peak_y":0,"mean":0.75}]"#
    );
}
