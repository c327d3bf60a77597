//! Coresets, Gaussians, blur and resizing against NumPy, SciPy and PyTorch (`fixtures/gen_similarity.py`).

use nomaly_kernels::Isa;
use nomaly_kernels::coreset::{KCentreGreedy, Start};
use nomaly_kernels::filter::{Border, GaussianBlur};
use nomaly_kernels::linalg::PositionStatistics;
use nomaly_kernels::resample::{Bilinear, Grid};

/// The formula of the generator: pseudorandom values in 0 … 1, exact in f32.
fn values(count: usize, step: usize) -> Vec<f32> {
    (0..count).map(|at| ((at * at * step + at * 31) % 65521) as f32 / 65536.0).collect()
}

fn lines(text: &str) -> Vec<Vec<f64>> {
    text.lines().map(|line| line.split(' ').map(|value| value.parse().expect("a number")).collect()).collect()
}

fn check(got: &[f32], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*got) - want).abs() <= tolerance, "{what}: value {at} is {got}, expected {want}");
    }
}

#[test]
fn coreset_matches_numpy() {
    let want = lines(include_str!("../fixtures/similarity_coreset.txt"));
    let rows = values(300 * 6, 389);
    for isa in Isa::available() {
        let coreset = KCentreGreedy { start: Start::Index(5) }.select(&rows, 6, 40, isa).unwrap();
        let picks: Vec<f32> = coreset.indices.iter().map(|index| *index as f32).collect();
        check(&picks, &want[0], 0.0, isa.name());
        // Distances up to 2 in f32.
        check(&coreset.radii, &want[1], 1e-6, isa.name());
    }
}

#[test]
fn mahalanobis_distances_match_scipy() {
    let want = lines(include_str!("../fixtures/similarity_mahalanobis.txt"));
    let images: Vec<f32> = values(60 * 3 * 20, 6421).iter().map(|value| value * value * 2.0).collect();
    for isa in Isa::available() {
        let mut statistics = PositionStatistics::new(3, 20, isa).unwrap();
        images.chunks(7 * 60).for_each(|batch| statistics.add(batch).unwrap());
        let got = statistics.gaussians(0.01).unwrap().mahalanobis(&values(4 * 3 * 20, 389)).unwrap();
        // Distances of about 5, covariances of condition number up to 100, statistics in f32.
        check(&got, &want[0], 5e-5, isa.name());
    }
}

#[test]
fn blur_matches_scipy() {
    let mut want = lines(include_str!("../fixtures/similarity_blur.txt")).into_iter();
    for border in [Border::Reflect, Border::Nearest, Border::Mirror] {
        for (height, width, sigma) in [(13, 21, 1.5), (5, 37, 4.0)] {
            let want = want.next().expect("a line a case");
            for isa in Isa::available() {
                let blur = GaussianBlur::new(sigma, 4.0, border, isa).unwrap();
                let got = blur.apply(&values(height * width, 7919), height, width).unwrap();
                // Two sums of at most 33 products below 1.
                check(&got, &want, 5e-7, &format!("{isa} {border:?} {height}x{width}"));
            }
        }
    }
}

#[test]
fn resizing_matches_pytorch() {
    let mut want = lines(include_str!("../fixtures/similarity_resize.txt")).into_iter();
    for grid in [Grid::HalfPixel, Grid::AlignCorners] {
        for (from, to) in [([7, 5], [16, 18]), ([14, 14], [9, 30]), ([1, 3], [4, 1])] {
            let want = want.next().expect("a line a case");
            for isa in Isa::available() {
                let got = Bilinear::new(from, to, grid, isa).unwrap().maps(&values(from[0] * from[1], 7919)).unwrap();
                check(&got, &want, 3e-7, &format!("{isa} {grid:?} {from:?} to {to:?}"));
            }
        }
    }
}
