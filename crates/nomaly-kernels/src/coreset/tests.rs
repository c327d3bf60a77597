use proptest::prelude::*;

use super::*;

/// Pseudorandom values in -1 … 1.
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(step).collect()
}

/// The squared distance in the arithmetic of the kernel: four sums over every fourth position.
fn square(a: &[f32], b: &[f32], isa: Isa) -> f32 {
    let mut sums = [0.0f32; 4];
    for (position, (a, b)) in a.iter().zip(b).enumerate() {
        let difference = b - a;
        let sum = &mut sums[position % 4];
        *sum = if isa == Isa::Portable { difference * difference + *sum } else { difference.mul_add(difference, *sum) };
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}

/// The definition: after each pick, compares every row with it; the first of the farthest rows is next.
fn naive(rows: &[f32], dim: usize, count: usize, start: usize, isa: Isa) -> Coreset {
    let mut nearest = vec![f32::INFINITY; rows.len() / dim];
    let (mut coreset, mut pick) = (Coreset::default(), start);
    loop {
        for (nearest, row) in nearest.iter_mut().zip(rows.chunks(dim)) {
            *nearest = nearest.min(square(row, &rows[pick * dim..(pick + 1) * dim], isa));
        }
        let farthest = nearest.iter().fold(0.0f32, |far, near| far.max(*near));
        coreset.indices.push(pick as u32);
        coreset.radii.push(farthest.sqrt());
        if coreset.indices.len() == count || farthest == 0.0 {
            return coreset;
        }
        pick = nearest.iter().position(|near| *near == farthest).expect("it is one of them");
    }
}

fn check(rows: &[f32], dim: usize, count: usize, start: usize) {
    for isa in Isa::available() {
        let got = KCentreGreedy { start: Start::Index(start) }.select(rows, dim, count, isa).unwrap();
        assert_eq!(got, naive(rows, dim, count, start, isa), "{isa}: {count} of {} rows of {dim}", rows.len() / dim);
    }
}

#[test]
fn the_picks_are_those_of_the_naive_loop() {
    // (rows, dim, picks, first): sizes below and above a panel of centres, a chunk of rows and the four sums.
    for (rows, dim, count, start) in
        [(1, 1, 1, 0), (5, 3, 5, 4), (40, 4, 33, 7), (700, 17, 120, 0), (5000, 32, 300, 4999), (300, 130, 300, 128)]
    {
        check(&noise(rows * dim, rows as u64), dim, count, start);
    }
}

#[test]
fn rows_in_groups_are_picked_as_by_the_naive_loop() {
    let (rows, dim) = (6000, 12);
    let (centers, spread) = (noise(25 * dim, 1), noise(rows * dim, 2));
    let value = |at: usize| centers[at / dim * 7919 % 25 * dim + at % dim] + 0.05 * spread[at];
    check(&(0..rows * dim).map(value).collect::<Vec<_>>(), dim, 400, 3);
}

#[test]
fn equal_rows_are_picked_once() {
    let rows = [3.0, 1.0, 3.0, 1.0, 1.0, 2.0];
    for isa in Isa::available() {
        let got = KCentreGreedy { start: Start::Index(0) }.select(&rows, 1, 6, isa).unwrap();
        assert_eq!((got.indices, got.radii), (vec![0, 1, 5], vec![2.0, 1.0, 0.0]));
    }
}

#[test]
fn the_default_begins_farthest_from_the_mean() {
    let rows = [0.0, 1.0, 1.0, 2.0, 9.0, -4.0];
    for isa in Isa::available() {
        let got = KCentreGreedy::default().select(&rows, 1, 2, isa).unwrap();
        assert_eq!(got.indices, [4, 5]);
    }
}

#[test]
fn threads_change_nothing() {
    let dim = 20;
    let rows = noise(9000 * dim, 9);
    for isa in Isa::available() {
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| KCentreGreedy::default().select(&rows, dim, 200, isa).unwrap())
        };
        let one = on(1);
        assert_eq!(on(2), one, "{isa}");
        assert_eq!(on(7), one, "{isa}");
    }
}

#[test]
fn progress_counts_every_pick_and_may_stop() {
    let rows = noise(100, 4);
    let mut reports = Vec::new();
    let mut progress = |done, total| {
        reports.push((done, total));
        if done == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let result = KCentreGreedy::default().select_with(&rows, 2, 10, Isa::Portable, &mut progress);
    assert_eq!(result, Err(CoresetError::Interrupted { done: 3, total: 10 }));
    assert_eq!(reports, [(1, 10), (2, 10), (3, 10)]);
}

#[test]
fn wrong_input_is_an_error_that_names_it() {
    let select = |rows: &[f32], dim, count, start| {
        KCentreGreedy { start: Start::Index(start) }.select(rows, dim, count, Isa::Portable).unwrap_err()
    };
    assert_eq!(select(&[1.0], 0, 1, 0), CoresetError::NoColumns);
    assert_eq!(select(&[1.0; 3], 2, 1, 0), CoresetError::Ragged { len: 3, dim: 2 });
    assert_eq!(select(&[1.0; 4], 2, 0, 0), CoresetError::Count { count: 0, rows: 2 });
    assert_eq!(select(&[1.0; 4], 2, 3, 0), CoresetError::Count { count: 3, rows: 2 });
    assert_eq!(select(&[1.0; 4], 2, 1, 2), CoresetError::Start { index: 2, rows: 2 });
    for bad in [f32::NAN, f32::INFINITY, 1e19] {
        assert_eq!(select(&[0.0, 0.0, bad, 0.0], 2, 1, 0), CoresetError::NotFinite { row: 1 });
    }
    let sparse = |density| RandomProjection::new(Projection::Sparse { density }, 4, 2, 0, Isa::Portable);
    assert_eq!(sparse(Some(0.0)).unwrap_err(), CoresetError::Density { density: 0.0 });
    assert_eq!(sparse(None).unwrap().apply(&[1.0; 6]).unwrap_err(), CoresetError::Ragged { len: 6, dim: 4 });
}

#[test]
fn projections_are_the_product_with_their_weights_and_keep_lengths() {
    let (rows, dim, components) = (83, 150, 40);
    let data = noise(rows * dim, 11);
    for kind in [Projection::Sparse { density: None }, Projection::Sparse { density: Some(0.3) }, Projection::Gaussian]
    {
        for isa in Isa::available() {
            let projection = RandomProjection::new(kind, dim, components, 5, isa).unwrap();
            let got = projection.apply(&data).unwrap();
            let mut ratio = 0.0;
            for (row, projected) in data.chunks(dim).zip(got.chunks(components)) {
                for (component, got) in projected.iter().enumerate() {
                    let weights = &projection.weights[projection.starts[component]..projection.starts[component + 1]];
                    let want: f64 = weights.iter().map(|(at, w)| f64::from(row[*at as usize]) * f64::from(*w)).sum();
                    // Rounding of at most 150 products below 1.
                    assert!((f64::from(*got) - want).abs() < 2e-5, "{isa} {kind:?}: {got} for {want}");
                }
                let length = |row: &[f32]| row.iter().map(|v| f64::from(v * v)).sum::<f64>();
                ratio += length(projected) / length(row) / rows as f64;
            }
            // The rows share one map of 40 components, so the mean ratio strays by about √(2 / (40 · 150)) · a few.
            assert!((ratio - 1.0).abs() < 0.15, "{kind:?}: lengths grow by {ratio}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    #[test]
    fn any_rows_are_picked_as_by_the_naive_loop(
        rows in 1usize..400, dim in 1usize..20, share in 0.0f64..1.0, coarse in any::<bool>(), seed in any::<u64>(),
    ) {
        // Whole numbers make many exact ties.
        let value = |value: f32| if coarse { (value * 2.0).round() } else { value };
        let data: Vec<f32> = noise(rows * dim, seed).into_iter().map(value).collect();
        check(&data, dim, 1 + (share * (rows - 1) as f64) as usize, seed as usize % rows);
    }
}
