//! Exact nearest neighbours at the sizes of memory-bank methods: patches of two images against a coreset, and pooled
//! features of single images against a training set.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nomaly_kernels::isa::Isa;
use nomaly_kernels::neighbours::{Bank, Metric};
use std::hint::black_box;

/// Rows with values in 0 … 1 that look random.
fn rows(count: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..count * dim).map(step).collect()
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

criterion_group!(benches, neighbours);
criterion_main!(benches);
