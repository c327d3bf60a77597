use proptest::prelude::*;

use super::*;

/// Pseudorandom values in -1 … 1.
pub(super) fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(step).collect()
}

/// The definition, in double precision: all distances of one query.
fn distances(query: &[f32], bank: &[f32], metric: Metric) -> Vec<f64> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let one = |row: &[f32]| match metric {
        Metric::SquaredL2 => query.iter().zip(row).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum(),
        Metric::Cosine => {
            let lengths = (dot(query, query).sqrt(), dot(row, row).sqrt());
            match lengths {
                (0.0, 0.0) => 0.0,
                (0.0, _) | (_, 0.0) => 1.0,
                // Rounding must not make it negative.
                (own, other) => (1.0 - dot(query, row) / own / other).max(0.0),
            }
        }
    };
    bank.chunks(query.len()).map(one).collect()
}

/// Compares with the definition: every returned distance is that of its row, and no row left out is nearer.
fn check(queries: &[f32], bank: &[f32], dim: usize, k: usize, metric: Metric, isa: Isa) {
    let found = top_k(queries, bank, dim, k, metric, isa).unwrap();
    assert_eq!((found.indices.len(), found.distances.len()), (queries.len() / dim * k, queries.len() / dim * k));
    let largest = queries.iter().chain(bank).fold(0.0f64, |largest, value| largest.max(f64::from(value.abs())));
    for (number, query) in queries.chunks(dim).enumerate() {
        let truth = distances(query, bank, metric);
        // f32 rounding: relative to the distance for sums of squares, and absolute for the factors of the cosine.
        let tolerance = |distance: f64| match metric {
            Metric::SquaredL2 => distance * (dim + 8) as f64 * 6e-8 + largest * largest * 1e-12,
            Metric::Cosine => distance * (dim + 8) as f64 * 6e-8 + distance.sqrt() * 1e-6 + 1e-12,
        };
        let indices = &found.indices[number * k..(number + 1) * k];
        let near = &found.distances[number * k..(number + 1) * k];
        for (index, distance) in indices.iter().zip(near) {
            let want = truth[*index as usize];
            assert!(
                (f64::from(*distance) - want).abs() <= tolerance(want),
                "{isa} {metric:?} row {index}: {distance} for {want}"
            );
        }
        for pair in 0..k - 1 {
            let order = (near[pair], indices[pair]).partial_cmp(&(near[pair + 1], indices[pair + 1]));
            assert_eq!(order, Some(std::cmp::Ordering::Less), "{isa} {metric:?}: neighbours out of order");
        }
        let mut sorted = truth.clone();
        sorted.sort_by(f64::total_cmp);
        for (distance, want) in near.iter().zip(&sorted) {
            assert!(
                (f64::from(*distance) - want).abs() <= 2.0 * tolerance(*want),
                "{isa} {metric:?}: {distance}, best {want}"
            );
        }
    }
}

#[test]
fn every_shape_of_blocks_matches_the_definition() {
    // (queries, rows, dim, k): below and above each block, panel, group and vector length.
    let cases = [
        (1, 1, 1, 1),
        (3, 9, 2, 9),
        (4, 5000, 5, 3),
        (5, 70, 16, 4),
        (14, 33, 31, 33),
        (29, 1030, 64, 9),
        (113, 300, 257, 5),
        (240, 2500, 20, 64),
        (30, 1500, 40, 700),
    ];
    for isa in Isa::available() {
        for (queries, rows, dim, k) in cases {
            let (queries, bank) = (noise(queries * dim, 1), noise(rows * dim, 2));
            for metric in [Metric::SquaredL2, Metric::Cosine] {
                check(&queries, &bank, dim, k, metric, isa);
            }
        }
    }
}

#[test]
fn near_rows_far_from_the_origin_are_told_apart() {
    // The product form would be off by about 1e6 · 2^-24 · 64 = 4, the distances are between 0 and 1.
    let (dim, rows) = (64, 1200);
    let bank: Vec<f32> = noise(rows * dim, 3).iter().map(|value| 1000.0 + value * 0.1).collect();
    let queries: Vec<f32> = noise(40 * dim, 4).iter().map(|value| 1000.0 + value * 0.1).collect();
    for isa in Isa::available() {
        check(&queries, &bank, dim, 9, Metric::SquaredL2, isa);
    }
}

#[test]
fn a_row_is_at_distance_zero_from_itself_and_ties_go_to_the_lower_index() {
    let dim = 37;
    let mut bank = noise(600 * dim, 5);
    let copy = bank[..300 * dim].to_vec();
    bank[300 * dim..].copy_from_slice(&copy);
    for isa in Isa::available() {
        for metric in [Metric::SquaredL2, Metric::Cosine] {
            for queries in [&bank[..50 * dim], &bank[..2 * dim]] {
                let found = top_k(queries, &bank, dim, 2, metric, isa).unwrap();
                for (query, pair) in found.indices.chunks(2).enumerate() {
                    assert_eq!(pair, [query as u32, query as u32 + 300], "{isa} {metric:?}");
                }
                assert!(found.distances.iter().all(|distance| *distance == 0.0), "{isa} {metric:?}");
            }
        }
    }
}

#[test]
fn rows_of_length_zero_have_a_cosine_distance() {
    let dim = 3;
    let bank = [vec![1.0, 0.0, 0.0], vec![0.0; 3], vec![0.0, 2.0, 0.0], vec![-1.0, 0.0, 0.0]].concat();
    for isa in Isa::available() {
        for repeat in [1, 10] {
            let queries = [vec![0.0; 3], vec![5.0, 0.0, 0.0]].concat().repeat(repeat);
            let found = top_k(&queries, &bank, dim, 4, Metric::Cosine, isa).unwrap();
            for both in found.indices.chunks(8) {
                assert_eq!(both, [1, 0, 2, 3, 0, 1, 2, 3], "{isa}");
            }
            for both in found.distances.chunks(8) {
                assert_eq!(both, [0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 2.0], "{isa}");
            }
        }
    }
}

#[test]
fn neither_threads_nor_company_change_a_bit() {
    let dim = 50;
    let (queries, bank) = (noise(300 * dim, 6), noise(3000 * dim, 7));
    for isa in Isa::available() {
        for metric in [Metric::SquaredL2, Metric::Cosine] {
            let on = |threads: usize, queries: &[f32]| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| top_k(queries, &bank, dim, 7, metric, isa).unwrap())
            };
            let one = on(1, &queries);
            for threads in [2, 3, 16] {
                assert_eq!(on(threads, &queries), one, "{isa} {metric:?} on {threads} threads");
            }
            let alone = on(2, &queries[17 * dim..18 * dim]);
            assert_eq!(alone.indices, one.indices[17 * 7..18 * 7]);
            assert_eq!(alone.distances, one.distances[17 * 7..18 * 7]);
        }
    }
}

#[test]
fn wrong_input_is_an_error_that_names_it() {
    let isa = Isa::Portable;
    let search = |queries: &[f32], bank: &[f32], dim, k| top_k(queries, bank, dim, k, Metric::SquaredL2, isa);
    let message = |queries: &[f32], bank: &[f32], dim, k| search(queries, bank, dim, k).unwrap_err().to_string();
    assert_eq!(search(&[], &[], 0, 1), Err(NeighboursError::NoColumns));
    assert_eq!(
        message(&[1.0], &[1.0; 4], 2, 1),
        "the query block has 1 numbers, which is not a multiple of the dimension 2"
    );
    assert_eq!(
        message(&[1.0; 2], &[1.0; 5], 2, 1),
        "the bank has 5 numbers, which is not a multiple of the dimension 2"
    );
    assert_eq!(search(&[1.0; 2], &[1.0; 4], 2, 0), Err(NeighboursError::Count { k: 0, rows: 2 }));
    assert_eq!(search(&[1.0; 2], &[1.0; 4], 2, 3), Err(NeighboursError::Count { k: 3, rows: 2 }));
    assert_eq!(search(&[1.0; 2], &[], 2, 1), Err(NeighboursError::Count { k: 1, rows: 0 }));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e19] {
        let rows = [0.0, 0.0, 0.0, bad];
        assert_eq!(search(&rows, &[0.0; 2], 2, 1), Err(NeighboursError::NotFinite { side: Side::Queries, row: 1 }));
        assert_eq!(search(&[0.0; 2], &rows, 2, 1), Err(NeighboursError::NotFinite { side: Side::Bank, row: 1 }));
    }
    assert!(search(&[], &[1.0; 4], 2, 1).unwrap().indices.is_empty());
}

#[test]
fn the_smallest_numbers_do_not_confuse_the_bounds() {
    let dim = 9;
    for scale in [1e-20f32, 1e-38, 1e17] {
        let scaled = |seed, rows: usize| noise(rows * dim, seed).iter().map(|value| value * scale).collect::<Vec<_>>();
        for isa in Isa::available() {
            let (queries, bank) = (scaled(8, 20), scaled(9, 200));
            let found = top_k(&queries, &bank, dim, 3, Metric::SquaredL2, isa).unwrap();
            for (number, query) in queries.chunks(dim).enumerate() {
                // A search of one query measures every row directly.
                let direct = top_k(query, &bank, dim, 3, Metric::SquaredL2, isa).unwrap();
                assert_eq!(direct.indices, found.indices[number * 3..number * 3 + 3], "{isa} at scale {scale}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn any_search_matches_the_definition(
        queries in 1usize..40, rows in 1usize..200, dim in 1usize..70, k in 1usize..20,
        coarse in any::<bool>(), offset in -3.0f32..3.0, seed in any::<u64>(), cosine in any::<bool>(),
    ) {
        // Coarse values make many exact ties; whole numbers make their distances exact too.
        let value = |value: f32| if coarse { (value * 2.0).round() } else { value + offset };
        let queries: Vec<f32> = noise(queries * dim, seed).into_iter().map(value).collect();
        let bank: Vec<f32> = noise(rows * dim, seed ^ 1).into_iter().map(value).collect();
        let metric = if cosine { Metric::Cosine } else { Metric::SquaredL2 };
        for isa in Isa::available() {
            check(&queries, &bank, dim, k.min(rows), metric, isa);
        }
    }
}
