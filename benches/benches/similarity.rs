//! Operations of memory banks and per-position Gaussians besides the search: coresets of 20 000 patches, PaDiM on
//! ResNet-18 (56 by 56 positions, 100 dimensions), blur and resizing of anomaly maps.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nomaly_kernels::Isa;
use nomaly_kernels::coreset::{KCentreGreedy, Projection, RandomProjection};
use nomaly_kernels::filter::{Border, GaussianBlur};
use nomaly_kernels::linalg::PositionStatistics;
use nomaly_kernels::resample::{Bilinear, Grid};

/// Pseudorandom values in 0 … 1.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..count).map(step).collect()
}

fn coreset(criterion: &mut Criterion) {
    let isa = Isa::best().expect("NOMALY_ISA names a set of this processor");
    let mut group = criterion.benchmark_group("coreset");
    group.sample_size(10);
    let (rows, dim) = (20_000, 384);
    let data = noise(rows * dim, 1);
    let projection =
        RandomProjection::new(Projection::Sparse { density: None }, dim, 128, 0, isa).expect("sizes are valid");
    group.bench_function("project 20000x384 to 128", |bencher| {
        bencher.iter(|| projection.apply(black_box(&data)));
    });
    let projected = projection.apply(&data).expect("values are finite");
    group.bench_function("k-centre greedy 20000x128 to 10 %", |bencher| {
        bencher.iter(|| KCentreGreedy::default().select(black_box(&projected), 128, rows / 10, isa));
    });
    group.finish();
}

fn gaussians(criterion: &mut Criterion) {
    let isa = Isa::best().expect("NOMALY_ISA names a set of this processor");
    let mut group = criterion.benchmark_group("gaussians");
    group.sample_size(10);
    let (positions, dim, images) = (56 * 56, 100, 16);
    let data = noise(images * positions * dim, 2);
    let mut statistics = PositionStatistics::new(positions, dim, isa).expect("sizes are valid");
    statistics.add(&data).expect("whole images");
    group.bench_function("add 16 images 3136x100", |bencher| {
        bencher.iter(|| statistics.add(black_box(&data)));
    });
    group.bench_function("factorise and invert 3136 of 100x100", |bencher| {
        bencher.iter(|| statistics.gaussians(0.01));
    });
    let gaussians = statistics.gaussians(0.01).expect("the ridge makes it positive definite");
    for images in [1, 8] {
        group.throughput(Throughput::Elements(images as u64));
        group.bench_function(format!("mahalanobis of {images} images 3136x100"), |bencher| {
            bencher.iter(|| gaussians.mahalanobis(black_box(&data[..images * positions * dim])));
        });
    }
    group.finish();
}

fn maps(criterion: &mut Criterion) {
    let isa = Isa::best().expect("NOMALY_ISA names a set of this processor");
    let mut group = criterion.benchmark_group("maps");
    let small = noise(28 * 28, 3);
    let resize = Bilinear::new([28, 28], [224, 224], Grid::HalfPixel, isa).expect("sizes are valid");
    group.bench_function("resize 28x28 to 224x224", |bencher| bencher.iter(|| resize.maps(black_box(&small))));
    let features = noise(14 * 14 * 256, 4);
    let double = Bilinear::new([14, 14], [28, 28], Grid::HalfPixel, isa).expect("sizes are valid");
    group.bench_function("resize 14x14x256 to 28x28x256", |bencher| {
        bencher.iter(|| double.rows(black_box(&features), 256));
    });
    let map = noise(224 * 224, 5);
    let blur = GaussianBlur::new(4.0, 4.0, Border::Reflect, isa).expect("a valid width");
    group.bench_function("blur 224x224 sigma 4", |bencher| bencher.iter(|| blur.apply(black_box(&map), 224, 224)));
    group.finish();
}

criterion_group!(benches, coreset, gaussians, maps);
criterion_main!(benches);
