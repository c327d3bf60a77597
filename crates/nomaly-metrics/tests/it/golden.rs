//! AUPRO against MVTec's own evaluation code, on generated maps.

use nomaly_metrics::PixelMetrics;
use nomaly_metrics::components::{Components, Connectivity};

const IMAGES: usize = 6;
const SIDE: usize = 24;

/// The linear congruential generator of Knuth's MMIX, as numbers in [0, 1): the same in any language.
struct Lcg(u64);

impl Lcg {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn below(&mut self, limit: f64) -> usize {
        (self.uniform() * limit) as usize
    }
}

/// Three good images and three with 1, 2 and 3 rectangles, the last also with two pixels that touch at a corner; scores
/// rounded to three decimals, so that there are ties.
fn maps_and_masks() -> (Vec<Vec<f32>>, Vec<Vec<u8>>) {
    let mut random = Lcg(42);
    let mut masks = vec![vec![0u8; SIDE * SIDE]; IMAGES];
    for image in 3..IMAGES {
        for _ in 0..image - 2 {
            let (y, x) = (random.below(18.0), random.below(18.0));
            let (height, width) = (2 + random.below(4.0), 2 + random.below(4.0));
            for row in y..y + height {
                masks[image][row * SIDE + x..][..width].fill(1);
            }
        }
    }
    masks[5][0] = 1;
    masks[5][SIDE + 1] = 1;
    let mut values = || -> Vec<f64> { (0..IMAGES * SIDE * SIDE).map(|_| random.uniform()).collect() };
    let (noise, signal) = (values(), values());
    let maps = (0..IMAGES)
        .map(|image| {
            let pixel = |index: usize| {
                let at = image * SIDE * SIDE + index;
                let value = noise[at] * 0.7 + 0.5 * f64::from(masks[image][index]) * signal[at];
                ((value * 1000.0).round_ties_even() / 1000.0) as f32
            };
            (0..SIDE * SIDE).map(pixel).collect()
        })
        .collect();
    (maps, masks)
}

fn pushed(order: impl Iterator<Item = usize>) -> PixelMetrics {
    let (maps, masks) = maps_and_masks();
    let mut metrics = PixelMetrics::new();
    for image in order {
        if masks[image].iter().all(|&pixel| pixel == 0) {
            metrics.push_normal(&maps[image], SIDE, SIDE).unwrap();
        } else {
            metrics.push(&maps[image], &masks[image], SIDE, SIDE).unwrap();
        }
    }
    metrics
}

#[test]
fn the_generated_input_is_the_one_of_the_reference() {
    let (maps, masks) = maps_and_masks();
    let sum: f64 = maps.iter().flatten().map(|&value| f64::from(value)).sum();
    assert!((sum - 1230.697).abs() < 1e-4, "{sum}"); // 3456 values, each within 3e-8 of its decimal
    assert_eq!(masks.iter().flatten().filter(|&&pixel| pixel != 0).count(), 66);
    let regions = |connectivity| -> usize {
        masks.iter().map(|mask| Components::find(mask, SIDE, connectivity).sizes.len()).sum()
    };
    assert_eq!((regions(Connectivity::Eight), regions(Connectivity::Four)), (6, 7));
}

#[test]
fn aupro_is_that_of_the_official_evaluation() {
    let mut metrics = pushed(0..IMAGES);
    assert_eq!((metrics.images(), metrics.regions()), (6, 6));
    for (limit, expected) in
        [(0.3, 0.473_581_066_317_054_6), (0.05, 0.354_455_734_003_423_34), (1.0, 0.717_489_711_934_156_4)]
    {
        let found = metrics.aupro(limit).unwrap();
        // The order of a sum of a few hundred shares of regions differs.
        assert!((found - expected).abs() < 1e-14, "limit {limit}: {found} but expected {expected}");
    }
}

#[test]
fn the_curve_has_the_area() {
    let mut metrics = pushed(0..IMAGES);
    let curve = metrics.pro_curve().unwrap();
    assert_eq!((curve.fpr[0], curve.pro[0]), (0.0, 0.0));
    assert_eq!((curve.fpr.last(), curve.pro.last()), (Some(&1.0), Some(&1.0)));
    assert_eq!((curve.fpr.len(), curve.pro.len()), (curve.thresholds.len(), curve.thresholds.len()));
    assert!(curve.thresholds.windows(2).all(|pair| pair[0] > pair[1]));
    let area: f64 =
        (1..curve.fpr.len()).map(|i| 0.5 * (curve.pro[i] + curve.pro[i - 1]) * (curve.fpr[i] - curve.fpr[i - 1])).sum();
    assert!((area - metrics.aupro(1.0).unwrap()).abs() < 1e-14);
}

#[test]
fn figures_do_not_depend_on_the_order_of_images_or_on_when_they_are_asked_for() {
    let (maps, masks) = maps_and_masks();
    let mut forward = pushed(0..IMAGES);
    let mut backward = pushed((0..IMAGES).rev());
    let mut interrupted = pushed(0..4);
    interrupted.aupro(0.3).unwrap();
    for image in 4..IMAGES {
        interrupted.push(&maps[image], &masks[image], SIDE, SIDE).unwrap();
    }
    for other in [&mut backward, &mut interrupted] {
        assert_eq!(forward.aupro(0.3), other.aupro(0.3));
        assert_eq!(forward.auroc(), other.auroc());
        assert_eq!(forward.f1_max(), other.f1_max());
        assert_eq!(forward.average_precision(), other.average_precision());
    }
}
