//! k-means, for the start of mixtures and for clustering scorers.
//!
//! The start is the greedy k-means++ of scikit-learn: of `2 + ln k` rows drawn with a probability proportional to their
//! squared distance from the centers so far, the one that lowers the sum of squares most becomes the next center. Then
//! Lloyd's iteration; a group that loses all its rows takes the row that is farthest from its own center.
//!
//! Rows are compared and added up in chunks whose borders depend on the shape alone.
//!
//! # Reference
//! Arthur and Vassilvitskii, *k-means++: the advantages of careful seeding* (2007); Lloyd, *Least squares quantization
//! in PCM* (1982).

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use ndarray::{Array2, ArrayView2};
use nomaly_settings::SettingError;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::blocks::BlockRows;
use crate::scorer::check_finite;
use crate::{ScorerError, Watch, linalg};

/// Rows in one matrix product.
const BLOCK: usize = 128;

/// The fewest rows that one task sums.
const CHUNK: usize = 1024;

/// The settings of [`KMeans`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct KMeansOptions {
    /// Iterations of each start, at most.
    pub(crate) max_iterations: usize,
    /// The iteration ends once the squares of the centers' movements sum up to at most this share of the mean variance
    /// of the columns.
    pub(crate) tolerance: f64,
    /// The number of starts; the one with the smallest inertia is kept.
    pub(crate) starts: usize,
    /// The random seed.
    pub(crate) seed: u64,
}

impl Default for KMeansOptions {
    /// One start of at most 300 iterations with the tolerance 1e-4, as scikit-learn.
    fn default() -> Self {
        Self { max_iterations: 300, tolerance: 1e-4, starts: 1, seed: 0 }
    }
}

/// Rows in groups, each with its mean.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KMeans {
    /// `[k, dim]`.
    pub(crate) centers: Array2<f64>,
    /// The group of each row of the fit, below `k`.
    pub(crate) labels: Vec<u32>,
    /// The sum of the squared distances of the rows of the fit from their centers.
    pub(crate) inertia: f64,
}

impl KMeans {
    /// Partitions the rows `[n, dim]` into `k` groups, or into as many as there are distinct rows if those are fewer.
    ///
    /// # Errors
    /// [`ScorerError::TooFewRows`] for fewer rows than groups and for no rows, [`ScorerError::Setting`] without groups
    /// or starts, [`ScorerError::NonFiniteFeature`], [`ScorerError::Cancelled`].
    pub(crate) fn fit(
        rows: ArrayView2<'_, f32>,
        k: usize,
        options: &KMeansOptions,
        watch: Watch<'_>,
    ) -> Result<Self, ScorerError> {
        check_finite(rows)?;
        for (name, value) in [("k", k), ("starts", options.starts)] {
            if value == 0 {
                return Err(SettingError::value(name, value, "a whole number from 1").into());
            }
        }
        if rows.nrows() < k {
            return Err(ScorerError::TooFewRows { what: "k-means", needed: k, got: rows.nrows() });
        }
        let rows = BlockRows::new(rows, linalg::mean(rows));
        let mut random = ChaCha8Rng::seed_from_u64(options.seed);
        let mut best: Option<(Centers, Assignment)> = None;
        for _ in 0..options.starts {
            let seeds = plus_plus(&rows, k, &mut random, watch)?;
            let found = lloyd(&rows, seeds, options, watch)?;
            if best.as_ref().is_none_or(|(_, best)| found.1.inertia < best.inertia) {
                best = Some(found);
            }
        }
        let Some((centers, assignment)) = best else { unreachable!("there is at least one start") };
        let mut values = centers.values;
        for row in values.chunks_exact_mut(rows.dim()) {
            row.iter_mut().zip(rows.center()).for_each(|(value, center)| *value += center);
        }
        let k = centers.squares.len();
        let centers = Array2::from_shape_fn((k, rows.dim()), |(i, j)| values[i * rows.dim() + j]);
        Ok(Self { centers, labels: assignment.labels, inertia: assignment.inertia })
    }

    /// The nearest center of each of the rows `[n, dim]` and the squared distance from it. The result for a row does
    /// not depend on the other rows. The rows must be finite and have the columns of the fit.
    pub(crate) fn assign(&self, rows: ArrayView2<'_, f32>) -> Vec<(u32, f64)> {
        let dim = self.centers.ncols();
        let count = self.centers.nrows() as f64;
        let middle: Vec<f64> = self.centers.columns().into_iter().map(|column| column.sum() / count).collect();
        let shifted = self
            .centers
            .rows()
            .into_iter()
            .flat_map(|row| row.iter().zip(&middle).map(|(value, middle)| value - middle).collect::<Vec<_>>());
        let centers = Centers::new(shifted.collect(), dim);
        let rows = BlockRows::new(rows, middle);
        let mut nearest = vec![(0u32, 0.0f64); rows.len()];
        nearest.par_chunks_mut(BLOCK).enumerate().for_each(|(block, nearest)| {
            let mut compare = Compare::new(&rows, &centers);
            compare.block(block * BLOCK, nearest.len(), |at, _, distances| nearest[at] = smallest(distances));
        });
        nearest
    }
}

/// Centers in the form for comparison with rows.
#[derive(Clone)]
struct Centers {
    /// `[k, dim]`, row-major.
    values: Vec<f64>,
    /// `‖center‖²`.
    squares: Vec<f64>,
}

impl Centers {
    fn new(values: Vec<f64>, dim: usize) -> Self {
        let squares = values.chunks_exact(dim).map(square).collect();
        Self { values, squares }
    }
}

/// Squared distances between a block of rows and all centers.
struct Compare<'a, 'r> {
    rows: &'a BlockRows<'r>,
    centers: &'a Centers,
    block: Vec<f64>,
    /// Column-major `[k, BLOCK]`.
    products: Vec<f64>,
}

impl<'a, 'r> Compare<'a, 'r> {
    fn new(rows: &'a BlockRows<'r>, centers: &'a Centers) -> Self {
        let block = vec![0.0; BLOCK * rows.dim()];
        Self { rows, centers, block, products: vec![0.0; centers.squares.len() * BLOCK] }
    }

    /// Passes to `visit` the index in the block, the centered row and its squared distances from the centers, for each
    /// of the `count` rows from `first` on, at most [`BLOCK`].
    fn block(&mut self, first: usize, count: usize, mut visit: impl FnMut(usize, &[f64], &[f64])) {
        let (dim, k) = (self.rows.dim(), self.centers.squares.len());
        self.rows.load(first, &mut self.block);
        matmul(
            MatMut::from_column_major_slice_mut(&mut self.products, k, BLOCK),
            Accum::Replace,
            MatRef::from_row_major_slice(&self.centers.values, k, dim),
            MatRef::from_column_major_slice(&self.block, dim, BLOCK),
            1.0,
            Par::Seq,
        );
        let columns = self.block.chunks_exact(dim).zip(self.products.chunks_exact_mut(k));
        for (at, (row, products)) in columns.take(count).enumerate() {
            let norm = square(row);
            for (product, square) in products.iter_mut().zip(&self.centers.squares) {
                *product = (norm + square - 2.0 * *product).max(0.0);
            }
            visit(at, row, products);
        }
    }
}

/// The assignment of rows to their nearest centers.
struct Assignment {
    labels: Vec<u32>,
    distances: Vec<f64>,
    inertia: f64,
    /// The sum of the rows of each group, `[k, dim]`.
    sums: Vec<f64>,
    counts: Vec<usize>,
}

/// The rows of a chunk: more where there are many centers, so that the sums of all chunks together take no more memory
/// than the rows.
fn chunk_rows(k: usize) -> usize {
    CHUNK.max(4 * k).next_multiple_of(BLOCK)
}

fn assign(rows: &BlockRows<'_>, centers: &Centers, watch: Watch<'_>) -> Result<Assignment, ScorerError> {
    let (dim, k) = (rows.dim(), centers.squares.len());
    let mut labels = vec![0u32; rows.len()];
    let mut distances = vec![0.0f64; rows.len()];
    let chunk = chunk_rows(k);
    let parts = labels.par_chunks_mut(chunk).zip(distances.par_chunks_mut(chunk)).enumerate();
    let of_chunk = |(index, (labels, distances)): (usize, (&mut [u32], &mut [f64]))| {
        watch.check()?;
        let mut compare = Compare::new(rows, centers);
        let mut sums = vec![0.0f64; k * dim];
        let mut counts = vec![0usize; k];
        let blocks = labels.chunks_mut(BLOCK).zip(distances.chunks_mut(BLOCK));
        for (block, (labels, distances)) in blocks.enumerate() {
            compare.block(index * chunk + block * BLOCK, labels.len(), |at, row, found| {
                let (label, distance) = smallest(found);
                (labels[at], distances[at]) = (label, distance);
                let group = label as usize;
                counts[group] += 1;
                let sum = &mut sums[group * dim..(group + 1) * dim];
                sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            });
        }
        Ok((sums, counts))
    };
    let parts = parts.map(of_chunk).collect::<Result<Vec<_>, ScorerError>>()?;
    let mut sums = vec![0.0f64; k * dim];
    let mut counts = vec![0usize; k];
    for (part, number) in parts {
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        counts.iter_mut().zip(number).for_each(|(count, part)| *count += part);
    }
    let inertia = distances.iter().sum();
    Ok(Assignment { labels, distances, inertia, sums, counts })
}

/// Lloyd's iteration from `centers`.
fn lloyd(
    rows: &BlockRows<'_>,
    mut centers: Centers,
    options: &KMeansOptions,
    watch: Watch<'_>,
) -> Result<(Centers, Assignment), ScorerError> {
    let dim = rows.dim();
    let mut labels = Vec::new();
    let mut allowed = None;
    for _ in 0..options.max_iterations {
        let mut found = assign(rows, &centers, watch)?;
        if found.labels == labels {
            return Ok((centers, found));
        }
        let allowed = *allowed.get_or_insert_with(|| options.tolerance * rows.mean_variance());
        relocate(rows, &mut found);
        let mut moved = centers.values.clone();
        for (group, count) in found.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let range = group * dim..(group + 1) * dim;
            let targets = moved[range.clone()].iter_mut().zip(&found.sums[range]);
            targets.for_each(|(target, sum)| *target = sum / *count as f64);
        }
        let shift: f64 = moved.iter().zip(&centers.values).map(|(a, b)| (a - b) * (a - b)).sum();
        centers = Centers::new(moved, dim);
        labels = found.labels;
        if shift <= allowed {
            break;
        }
    }
    let found = assign(rows, &centers, watch)?;
    Ok((centers, found))
}

/// Gives each empty group the row that is farthest from its own center, taken from a group with other rows.
fn relocate(rows: &BlockRows<'_>, found: &mut Assignment) {
    let empty: Vec<usize> = (0..found.counts.len()).filter(|group| found.counts[*group] == 0).collect();
    if empty.is_empty() {
        return;
    }
    let mut farthest: Vec<usize> = (0..rows.len()).filter(|row| found.distances[*row] > 0.0).collect();
    farthest.sort_by(|a, b| found.distances[*b].total_cmp(&found.distances[*a]).then(a.cmp(b)));
    let mut farthest = farthest.into_iter();
    for group in empty {
        let Some(row) = farthest.find(|row| found.counts[found.labels[*row] as usize] > 1) else { return };
        let (dim, old) = (rows.dim(), found.labels[row] as usize);
        for (at, value) in rows.row(row).into_iter().enumerate() {
            found.sums[old * dim + at] -= value;
            found.sums[group * dim + at] = value;
        }
        found.counts[old] -= 1;
        found.counts[group] = 1;
        found.labels[row] = group as u32;
    }
}

/// Greedy k-means++: at most `k` distinct rows.
fn plus_plus(
    rows: &BlockRows<'_>,
    k: usize,
    random: &mut ChaCha8Rng,
    watch: Watch<'_>,
) -> Result<Centers, ScorerError> {
    let trials = 2 + (k as f64).ln() as usize;
    let first = (random.random::<f64>() * rows.len() as f64) as usize;
    let mut chosen = rows.row(first.min(rows.len() - 1));
    let mut distances = vec![f64::INFINITY; rows.len()];
    let candidate = Centers::new(chosen.clone(), rows.dim());
    lower_distances(rows, &candidate, &mut distances, watch)?;
    for _ in 1..k {
        let mut cumulated = Vec::with_capacity(rows.len());
        let mut total = 0.0;
        for distance in &distances {
            total += distance;
            cumulated.push(total);
        }
        if total <= 0.0 {
            break;
        }
        let mut candidates = Vec::with_capacity(trials * rows.dim());
        for _ in 0..trials {
            let target = random.random::<f64>() * total;
            // A row at distance 0 adds nothing, so the first sum above the target is never its own.
            let row = cumulated.partition_point(|sum| *sum <= target).min(rows.len() - 1);
            candidates.extend(rows.row(row));
        }
        let candidates = Centers::new(candidates, rows.dim());
        let best = smallest(&potentials(rows, &candidates, &distances, watch)?).0 as usize;
        let best = Centers::new(candidates.values[best * rows.dim()..(best + 1) * rows.dim()].to_vec(), rows.dim());
        lower_distances(rows, &best, &mut distances, watch)?;
        chosen.extend(best.values);
    }
    Ok(Centers::new(chosen, rows.dim()))
}

/// For each candidate, the sum of squared distances if it were chosen.
fn potentials(
    rows: &BlockRows<'_>,
    candidates: &Centers,
    distances: &[f64],
    watch: Watch<'_>,
) -> Result<Vec<f64>, ScorerError> {
    let parts = distances.par_chunks(CHUNK).enumerate().map(|(index, distances)| {
        watch.check()?;
        let mut compare = Compare::new(rows, candidates);
        let mut sums = vec![0.0f64; candidates.squares.len()];
        for (block, distances) in distances.chunks(BLOCK).enumerate() {
            compare.block(index * CHUNK + block * BLOCK, distances.len(), |at, _, found| {
                sums.iter_mut().zip(found).for_each(|(sum, found)| *sum += found.min(distances[at]));
            });
        }
        Ok(sums)
    });
    let parts = parts.collect::<Result<Vec<_>, ScorerError>>()?;
    let mut sums = vec![0.0f64; candidates.squares.len()];
    for part in parts {
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    Ok(sums)
}

/// Lowers the distances of rows that are nearer to `center`, a single one. Differences are taken directly, so that a
/// copy of the center is at distance 0 exactly.
fn lower_distances(
    rows: &BlockRows<'_>,
    center: &Centers,
    distances: &mut [f64],
    watch: Watch<'_>,
) -> Result<(), ScorerError> {
    distances.par_chunks_mut(CHUNK).enumerate().try_for_each(|(index, distances)| {
        watch.check()?;
        let mut row = vec![0.0; rows.dim()];
        for (at, distance) in distances.iter_mut().enumerate() {
            rows.load(index * CHUNK + at, &mut row);
            let found = row.iter().zip(&center.values).map(|(a, b)| (a - b) * (a - b)).sum();
            *distance = distance.min(found);
        }
        Ok(())
    })
}

/// The index and value of the minimum; ties go to the first.
fn smallest(values: &[f64]) -> (u32, f64) {
    let mut best = (0, values[0]);
    for (at, value) in values.iter().enumerate().skip(1) {
        if *value < best.1 {
            best = (at as u32, *value);
        }
    }
    best
}

fn square(row: &[f64]) -> f64 {
    row.iter().map(|value| value * value).sum()
}

#[cfg(test)]
mod tests {
    use ndarray::Axis;
    use rayon::ThreadPoolBuilder;

    use super::*;

    /// Rows around `k` far corners, in turn.
    fn clusters(n: usize, dim: usize, k: usize) -> Array2<f32> {
        Array2::from_shape_fn((n, dim), |(i, j)| {
            let corner = if (i % k) >> (j % 3) & 1 == 1 { 50.0 } else { 0.0 };
            corner + ((i * 37 + j * 101 + i * j) % 97) as f32 / 97.0
        })
    }

    fn fit(rows: &Array2<f32>, k: usize) -> KMeans {
        KMeans::fit(rows.view(), k, &KMeansOptions::default(), Watch::none()).unwrap()
    }

    #[test]
    fn clear_groups_are_found_with_their_means() {
        let rows = clusters(1300, 6, 8);
        let found = fit(&rows, 8);
        let mut inertia = 0.0;
        for group in 0..8 {
            let members: Vec<usize> = (0..1300).filter(|row| row % 8 == group).collect();
            let label = found.labels[group];
            assert!(members.iter().all(|row| found.labels[*row] == label));
            assert_eq!(found.labels.iter().filter(|other| **other == label).count(), members.len());
            for column in 0..6 {
                let value = |row: &usize| f64::from(rows[[*row, column]]);
                let mean = members.iter().map(value).sum::<f64>() / members.len() as f64;
                assert!((found.centers[[label as usize, column]] - mean).abs() < 1e-10);
                inertia += members.iter().map(|row| (value(row) - mean).powi(2)).sum::<f64>();
            }
        }
        assert!((found.inertia - inertia).abs() < 1e-9 * inertia, "{} for {inertia}", found.inertia);
        let nearest = found.assign(rows.view());
        assert!(nearest.iter().map(|(label, _)| *label).eq(found.labels.iter().copied()));
        let alone = found.assign(rows.slice_axis(Axis(0), (700..701).into()));
        assert_eq!(alone[0], nearest[700]);
    }

    #[test]
    fn threads_change_nothing_and_starts_do_not_harm() {
        let rows = Array2::from_shape_fn((2500, 5), |(i, j)| ((i * 7919 + j * 104_729 + i * i) % 1009) as f32);
        let on =
            |threads: usize| ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| fit(&rows, 7));
        assert_eq!(on(1), on(3));
        let options = KMeansOptions { starts: 5, ..KMeansOptions::default() };
        let best = KMeans::fit(rows.view(), 7, &options, Watch::none()).unwrap();
        assert!(best.inertia <= on(1).inertia);
    }

    #[test]
    fn copies_make_no_groups_of_their_own() {
        let rows = Array2::from_shape_fn((30, 2), |(i, j)| (i % 3 * (j + 1)) as f32 + 0.1);
        let found = fit(&rows, 8);
        assert_eq!(found.centers.nrows(), 3);
        assert!(found.inertia < 1e-20);
        assert_eq!(fit(&Array2::from_elem((4, 3), 0.1f32), 2).centers.nrows(), 1);
    }

    #[test]
    fn groups_without_rows_take_the_farthest() {
        let rows = clusters(40, 3, 4);
        let rows = BlockRows::new(rows.view(), vec![0.0; 3]);
        // The second center is too far away to get a row.
        let seeds = Centers::new(vec![0.0, 0.0, 0.0, 1e6, 1e6, 1e6], 3);
        let (centers, found) = lloyd(&rows, seeds, &KMeansOptions::default(), Watch::none()).unwrap();
        assert!(found.counts.iter().all(|count| *count > 0), "{:?}", found.counts);
        assert!(centers.values.iter().all(|value| *value < 60.0));
    }

    #[test]
    fn what_cannot_be_grouped_is_refused() {
        let rows = clusters(5, 2, 2);
        let fit = |k, options: &KMeansOptions, watch| KMeans::fit(rows.view(), k, options, watch);
        let options = KMeansOptions::default();
        assert!(matches!(fit(6, &options, Watch::none()), Err(ScorerError::TooFewRows { needed: 6, got: 5, .. })));
        let none = fit(0, &options, Watch::none());
        assert!(matches!(none, Err(ScorerError::Setting(error)) if error.name() == "k"));
        assert!(matches!(fit(2, &options, Watch::new(&|| true)), Err(ScorerError::Cancelled)));
    }
}
