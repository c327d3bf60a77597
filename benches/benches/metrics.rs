//! Metrics of ten million scores and of anomaly maps of the size of a test set.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use nomaly_metrics::{PixelMetrics, auroc, average_precision, f1_max};

/// Uniform numbers in [0, 1) from a linear congruential generator.
fn uniform(count: usize, seed: u64) -> impl Iterator<Item = f32> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    })
    .take(count)
}

fn image_scores(criterion: &mut Criterion) {
    const COUNT: usize = 10_000_000;
    let labels: Vec<bool> = uniform(COUNT, 1).map(|value| value < 0.1).collect();
    let scores: Vec<f32> =
        uniform(COUNT, 2).zip(&labels).map(|(value, &label)| value + 0.3 * f32::from(u8::from(label))).collect();
    let wide: Vec<f64> = scores.iter().map(|&score| f64::from(score).sqrt()).collect();

    let mut group = criterion.benchmark_group("scores");
    group.throughput(Throughput::Elements(COUNT as u64)).sample_size(10);
    group.bench_function("auroc/f32/1e7", |bencher| bencher.iter(|| auroc(black_box(&scores), &labels)));
    group.bench_function("auroc/f64/1e7", |bencher| bencher.iter(|| auroc(black_box(&wide), &labels)));
    group.bench_function("average_precision/f32/1e7", |bencher| {
        bencher.iter(|| average_precision(black_box(&scores), &labels));
    });
    group.bench_function("f1_max/f32/1e7", |bencher| bencher.iter(|| f1_max(black_box(&scores), &labels)));
    group.finish();
}

fn anomaly_maps(criterion: &mut Criterion) {
    const SIDE: usize = 512;
    const IMAGES: usize = 32;
    // A disc of radius 40 px in every image is the defect.
    let inside = |index: usize| {
        let (dx, dy) = ((index % SIDE).abs_diff(SIDE / 2), (index / SIDE).abs_diff(SIDE / 3));
        dx * dx + dy * dy < 40 * 40
    };
    let mask: Vec<u8> = (0..SIDE * SIDE).map(|index| 255 * u8::from(inside(index))).collect();
    let maps: Vec<Vec<f32>> = (0..IMAGES)
        .map(|image| {
            let noise = uniform(SIDE * SIDE, image as u64);
            noise.zip(&mask).map(|(value, &mask)| value + 0.5 * f32::from(u8::from(mask != 0))).collect()
        })
        .collect();
    let push_all = || {
        let mut pixels = PixelMetrics::new();
        for map in &maps {
            pixels.push(map, &mask, SIDE, SIDE).expect("maps and masks have one size");
        }
        pixels
    };

    let mut group = criterion.benchmark_group("pixels");
    group.throughput(Throughput::Elements((IMAGES * SIDE * SIDE) as u64)).sample_size(10);
    group.bench_function("push/32x512x512", |bencher| bencher.iter(push_all));
    group.bench_function("aupro/32x512x512", |bencher| {
        bencher.iter_batched(push_all, |mut pixels| pixels.aupro(0.3), BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, image_scores, anomaly_maps);
criterion_main!(benches);
