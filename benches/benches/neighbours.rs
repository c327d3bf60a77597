//! Exact nearest neighbours at the sizes of memory-bank methods: patches of two images against a coreset, and pooled
//! features of single images against a training set.
//!
//! `patches` are generated rows like those of PatchCore: see [`patches`]. `NOMALY_ROWS=BANK,QUERIES`, two files of f32
//! in native byte order with 152 numbers per row, uses other rows instead.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nomaly_kernels::isa::Isa;
use nomaly_kernels::neighbours::{Bank, Metric};
use std::hint::black_box;

/// Rows of pseudorandom values in 0 … 1.
fn rows(count: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..count * dim).map(step).collect()
}

/// Rows like the patches of EfficientNet-Lite0: 152 numbers with few degrees of freedom, in clusters of unequal size.
///
/// A row is the centre of one of 60 clusters plus 12 normal numbers, mixed by a matrix with decaying columns, and a
/// tenth of noise. Columns differ in scale by up to 20, like the channels of two layers, and are cut off at 0, as after
/// an activation. The byte filter leaves about seven rows per query, as for patches of magnetic tiles.
fn patches(count: usize, seed: u64) -> Vec<f32> {
    const DIM: usize = 152;
    const FACTORS: usize = 12;
    const CLUSTERS: usize = 60;
    // The sum of twelve uniform numbers is nearly normal.
    let normal = |count: usize, seed: u64| -> Vec<f32> {
        rows(count, 12, seed).chunks_exact(12).map(|values| values.iter().sum::<f32>() - 6.0).collect()
    };
    let (centres, mixing) = (normal(CLUSTERS * FACTORS, 1), normal(FACTORS * DIM, 2));
    let (factors, noise, cluster) =
        (normal(count * FACTORS, seed), normal(count * DIM, seed + 1), rows(count, 1, seed + 2));
    let mut patches = vec![0.0; count * DIM];
    for (row, patch) in patches.chunks_exact_mut(DIM).enumerate() {
        let centre = ((cluster[row] * cluster[row] * CLUSTERS as f32) as usize).min(CLUSTERS - 1);
        for (column, value) in patch.iter_mut().enumerate() {
            let mixed = (0..FACTORS).map(|factor| {
                let own = 2.0 * centres[centre * FACTORS + factor] + factors[row * FACTORS + factor];
                own * mixing[factor * DIM + column] / (1 + factor) as f32
            });
            let scale = (column % 20 + 1) as f32;
            *value = scale * (mixed.sum::<f32>() + 0.1 * noise[row * DIM + column]).max(-1.0);
        }
    }
    patches
}

/// The first `count` rows of the file at this index in the variable, or generated ones.
fn patches_or_file(count: usize, part: usize) -> Vec<f32> {
    let Ok(paths) = std::env::var("NOMALY_ROWS") else { return patches(count, 10 + 10 * part as u64) };
    let path = paths.split(',').nth(part).expect("NOMALY_ROWS is BANK,QUERIES");
    let bytes = std::fs::read(path).expect("a file that NOMALY_ROWS names");
    let values = bytes.as_chunks::<4>().0.iter().map(|value| f32::from_ne_bytes(*value));
    values.take(count * 152).collect()
}

fn neighbours_of_patches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("patches");
    group.sample_size(10);
    for (queries, rows_of_bank, k) in [(784, 25_000, 1), (784, 25_000, 9), (1024, 10_000, 1)] {
        let (bank_rows, query_rows) = (patches_or_file(rows_of_bank, 0), patches_or_file(queries, 1));
        group.throughput(Throughput::Elements((queries * rows_of_bank * 152) as u64));
        for isa in Isa::available() {
            let bank = Bank::new(&*bank_rows, 152, Metric::SquaredL2, isa).expect("finite rows of one length");
            let id = BenchmarkId::new(isa.name(), format!("{queries}x{rows_of_bank}x152 k={k}"));
            group.bench_function(id, |bencher| {
                bencher.iter(|| bank.top_k(black_box(&query_rows), k));
            });
        }
    }
    group.finish();
}

fn neighbours(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("neighbours");
    group.sample_size(10);
    // (queries, rows of the bank, dim, k)
    for (queries, rows_of_bank, dim, k) in
        [(1568, 20_000, 512, 9), (784, 5_000, 384, 1), (64, 5_000, 1280, 2), (1, 5_000, 1280, 2)]
    {
        let (query_rows, bank_rows) = (rows(queries, dim, 1), rows(rows_of_bank, dim, 2));
        group.throughput(Throughput::Elements((queries * rows_of_bank * dim) as u64));
        for isa in Isa::available() {
            let bank = Bank::new(&*bank_rows, dim, Metric::SquaredL2, isa).expect("finite rows of one length");
            let id = BenchmarkId::new(isa.name(), format!("{queries}x{rows_of_bank}x{dim} k={k}"));
            group.bench_function(id, |bencher| {
                bencher.iter(|| bank.top_k(black_box(&query_rows), k));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, neighbours, neighbours_of_patches);
criterion_main!(benches);
