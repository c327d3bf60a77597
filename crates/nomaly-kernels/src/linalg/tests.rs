use proptest::prelude::*;

use super::*;
use crate::isa::Isa;

/// Pseudorandom values in -1 … 1.
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(step).collect()
}

/// The definition in double precision, by elimination without pivoting: `(x - μ)ᵀ Σ⁻¹ (x - μ)` as the sum of
/// squares of the forward substitution. `images` is `[images, positions, dim]`.
fn distances(images: &[f32], queries: &[f32], positions: usize, dim: usize, ridge: f64) -> Vec<f64> {
    let count = images.len() / (positions * dim);
    let mut distances = vec![0.0; queries.len() / dim];
    for position in 0..positions {
        let value = |rows: &[f32], image: usize, at: usize| f64::from(rows[(image * positions + position) * dim + at]);
        let mean: Vec<f64> =
            (0..dim).map(|at| (0..count).map(|image| value(images, image, at)).sum::<f64>() / count as f64).collect();
        let mut lower = vec![vec![0.0f64; dim]; dim];
        for i in 0..dim {
            for j in 0..=i {
                let product = |image| (value(images, image, i) - mean[i]) * (value(images, image, j) - mean[j]);
                let mut sum = (0..count).map(product).sum::<f64>() / (count - 1) as f64;
                sum += if i == j { ridge } else { 0.0 };
                sum -= (0..j).map(|k| lower[i][k] * lower[j][k]).sum::<f64>();
                lower[i][j] = if i == j { sum.sqrt() } else { sum / lower[j][j] };
            }
        }
        for query in 0..queries.len() / (positions * dim) {
            let mut solved = vec![0.0; dim];
            for i in 0..dim {
                let sum: f64 = (0..i).map(|k| lower[i][k] * solved[k]).sum();
                solved[i] = (value(queries, query, i) - mean[i] - sum) / lower[i][i];
            }
            distances[query * positions + position] = solved.iter().map(|value| value * value).sum::<f64>().sqrt();
        }
    }
    distances
}

fn check(positions: usize, dim: usize, images: usize, offset: f32, ridge: f64) {
    let data: Vec<f32> = noise(images * positions * dim, 1).into_iter().map(|value| value + offset).collect();
    let queries: Vec<f32> = noise(11 * positions * dim, 2).into_iter().map(|value| value + offset).collect();
    let want = distances(&data, &queries, positions, dim, ridge);
    for isa in Isa::available() {
        let mut statistics = PositionStatistics::new(positions, dim, isa).unwrap();
        // Batches of several sizes.
        let (first, rest) = data.split_at(3 * positions * dim);
        statistics.add(first).unwrap();
        statistics.add(rest).unwrap();
        assert_eq!(statistics.count(), images as u64);
        let got = statistics.gaussians(ridge).unwrap().mahalanobis(&queries).unwrap();
        for (got, want) in got.iter().zip(&want) {
            // Scatter and factors are f32; the condition number of these covariances is at most about 1 / ridge. Values
            // and means are rounded to f32 before they are subtracted, which matters where they nearly agree.
            let tolerance = want * (2e-6 + 4e-7 / ridge) + (1.0 + f64::from(offset.abs())) * 1e-6;
            assert!((f64::from(*got) - want).abs() <= tolerance, "{isa} {positions}x{dim}: {got} for {want}");
        }
    }
}

/// Groups of every size, left out of the Gaussians of all images, against fits on the rest.
#[test]
fn groups_that_are_left_out_get_what_a_fit_on_the_rest_gives() {
    for (positions, dim, images, ridge) in [(3, 4, 24usize, 0.05), (9, 20, 30, 0.02), (5, 37, 60, 0.05)] {
        let size = positions * dim;
        // Images in threes that resemble each other.
        let scenes = noise(images.div_ceil(3) * size, 3);
        let own = noise(images * size, 4);
        let pixel = |at: usize| scenes[at / (3 * size) * size + at % size] + 0.1 * own[at];
        let data: Vec<f32> = (0..images * size).map(pixel).collect();
        for isa in Isa::available() {
            let mut statistics = PositionStatistics::new(positions, dim, isa).unwrap();
            statistics.add(&data).unwrap();
            for group in [1, 2, 3, 7, images - 4] {
                let (left_out, rest) = data.split_at(group * size);
                let want = distances(rest, left_out, positions, dim, ridge);
                let shrink = (images - group - 1) as f64 / (images - 1) as f64;
                let all = statistics.gaussians(ridge * shrink).unwrap();
                let got = all.left_out(left_out, images).unwrap();
                let largest = want.iter().copied().fold(0.0, f64::max);
                for (got, want) in got.iter().zip(&want) {
                    // What is left of a direction that only the group has is a small difference of f32 values.
                    let tolerance = 2e-3 * want + 2e-4 * largest;
                    assert!((f64::from(*got) - want).abs() <= tolerance, "{isa} {dim} {group}: {got} for {want}");
                }
            }
            let all = statistics.gaussians(ridge).unwrap();
            let error = all.left_out(&data[..(images - 1) * size], images).unwrap_err();
            assert!(matches!(error, LinalgError::TooFewImages { count: 1 }), "{error}");
            assert!(matches!(all.left_out(&[], images), Err(LinalgError::Length { .. })));
        }
    }
}

#[test]
fn distances_match_the_definition() {
    // (positions, dim, images): below and above the blocks of 4, panels of 16, groups of 8 positions and batches of 16.
    for (positions, dim, images) in
        [(1, 1, 5), (3, 4, 9), (8, 15, 40), (9, 16, 20), (17, 17, 30), (5, 37, 60), (33, 100, 24)]
    {
        check(positions, dim, images, 0.0, 0.01);
    }
    // A distance near 0, to which the rounding of the values and the mean contributes much.
    check(16, 1, 16, 0.0, 0.1);
}

#[test]
fn large_means_cost_no_digits() {
    check(4, 12, 50, 100.0, 0.01);
}

#[test]
fn merging_gives_the_statistics_of_all_images() {
    let (positions, dim) = (5, 21);
    let size = positions * dim;
    let data: Vec<f32> = noise(40 * size, 3).into_iter().map(|value| value + 3.0).collect();
    for isa in Isa::available() {
        let of = |images: &[f32]| {
            let mut statistics = PositionStatistics::new(positions, dim, isa).unwrap();
            statistics.add(images).unwrap();
            statistics
        };
        let (all, mut merged) = (of(&data), of(&data[..13 * size]));
        merged.merge(&of(&data[13 * size..])).unwrap();
        merged.merge(&PositionStatistics::new(positions, dim, isa).unwrap()).unwrap();
        let mut late = PositionStatistics::new(positions, dim, isa).unwrap();
        late.merge(&all).unwrap();
        assert_eq!((merged.count(), late.scatter()), (40, all.scatter()));
        for (got, want) in merged.mean().iter().zip(all.mean()) {
            assert!((got - want).abs() < 1e-12, "{isa}: mean {got} for {want}");
        }
        for (got, want) in merged.scatter().iter().zip(all.scatter()) {
            // Sums of 40 products below 1, in f32.
            assert!((got - want).abs() < 2e-5, "{isa}: scatter {got} for {want}");
        }
    }
}

#[test]
fn a_factor_times_its_transpose_is_the_matrix() {
    let (positions, dim) = (11, 23);
    let mut matrices = Vec::new();
    for position in 0..positions {
        let a = noise(dim * dim, position as u64);
        for i in 0..dim {
            for j in 0..=i {
                let dot: f32 = (0..dim).map(|k| a[i * dim + k] * a[j * dim + k]).sum();
                matrices.push(dot + if i == j { 0.1 } else { 0.0 });
            }
        }
    }
    for isa in Isa::available() {
        let mut factors = matrices.clone();
        cholesky_in_place(&mut factors, dim, isa).unwrap();
        for (factor, matrix) in factors.chunks(packed_len(dim)).zip(matrices.chunks(packed_len(dim))) {
            for i in 0..dim {
                for j in 0..=i {
                    let at = |i: usize, j: usize| f64::from(factor[packed_len(i) + j]);
                    let got: f64 = (0..=j).map(|k| at(i, k) * at(j, k)).sum();
                    let want = f64::from(matrix[packed_len(i) + j]);
                    // The factor is rounded to f32; its rows have lengths up to 3.
                    assert!((got - want).abs() < 2e-6, "{isa} ({i}, {j}): {got} for {want}");
                }
            }
        }
    }
}

#[test]
fn the_first_position_without_a_factor_is_named() {
    let unit = [1.0, 0.0, 1.0];
    let singular = [1.0, 2.0, 3.0];
    for isa in Isa::available() {
        let mut matrices = unit.repeat(30);
        for position in [12, 25] {
            matrices[position * 3..(position + 1) * 3].copy_from_slice(&singular);
        }
        let error = cholesky_in_place(&mut matrices, 2, isa).unwrap_err();
        assert_eq!(error, LinalgError::NotPositiveDefinite { position: 12, row: 1, pivot: -1.0 });
        let error = cholesky_in_place(&mut [1.0, f32::NAN, 1.0], 2, isa).unwrap_err();
        assert!(matches!(error, LinalgError::NotPositiveDefinite { position: 0, row: 1, .. }), "{error}");
        let mut same = PositionStatistics::new(1, 2, isa).unwrap();
        same.add(&[1.0; 6]).unwrap();
        let error = same.gaussians(0.0).unwrap_err();
        assert_eq!(error, LinalgError::NotPositiveDefinite { position: 0, row: 0, pivot: 0.0 });
    }
}

#[test]
fn neither_threads_nor_company_change_a_bit() {
    let (positions, dim) = (50, 30);
    let size = positions * dim;
    let (data, queries) = (noise(35 * size, 5), noise(13 * size, 6));
    for isa in Isa::available() {
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut statistics = PositionStatistics::new(positions, dim, isa).unwrap();
                statistics.add(&data).unwrap();
                let gaussians = statistics.gaussians(0.1).unwrap();
                (gaussians.mahalanobis(&queries).unwrap(), gaussians)
            })
        };
        let (one, gaussians) = on(1);
        assert_eq!(on(2).0, one, "{isa}");
        assert_eq!(on(7).0, one, "{isa}");
        for (image, want) in queries.chunks(size).zip(one.chunks(positions)) {
            assert_eq!(gaussians.mahalanobis(image).unwrap(), want, "{isa}");
        }
        let (mean, factors) = (gaussians.mean().to_vec(), gaussians.inverse_factors().to_vec());
        let restored = PositionGaussians::from_parts(positions, dim, mean, factors, isa).unwrap();
        assert_eq!(restored.mahalanobis(&queries).unwrap(), one, "{isa}");
    }
}

#[test]
fn wrong_input_is_an_error_that_names_it() {
    let isa = Isa::Portable;
    let empty = PositionStatistics::new(0, 3, isa).unwrap_err();
    assert_eq!(empty, LinalgError::Empty { positions: 0, dim: 3 });
    let mut statistics = PositionStatistics::new(2, 3, isa).unwrap();
    let length = statistics.add(&[0.0; 7]).unwrap_err();
    assert_eq!(length, LinalgError::Length { what: "a batch of images", expected: 6, got: 7 });
    statistics.add(&[0.0; 6]).unwrap();
    assert_eq!(statistics.gaussians(1.0).unwrap_err(), LinalgError::TooFewImages { count: 1 });
    let shape = statistics.merge(&PositionStatistics::new(2, 4, isa).unwrap()).unwrap_err();
    assert_eq!(shape, LinalgError::Shape { own: (2, 3), other: (2, 4) });
    let parts = PositionGaussians::from_parts(1, 2, vec![0.0; 2], vec![0.0; 3], isa).unwrap_err();
    assert_eq!(parts, LinalgError::Length { what: "the inverse factors", expected: 32, got: 3 });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn any_shape_matches_the_definition(positions in 1usize..20, dim in 1usize..40, images in 4usize..40) {
        check(positions, dim, images, 0.0, 0.1);
    }
}
