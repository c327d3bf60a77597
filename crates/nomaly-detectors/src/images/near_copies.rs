//! Groups found in features: near-copies, and runs of the file order.
//!
//! # What it computes
//! Each image has a descriptor: the deepest features of the method averaged over all positions, or the image itself on
//! a grid of 8 × 8 for methods on pixels. Two tests use the distances of descriptors.
//!
//! *Near-copies.* With `d_k` the distance of an image to its `k`-th neighbor, `k ln(d_{k+1} / d_k)` is exponentially
//! distributed with mean `1 / m` for independent images in `m` dimensions. A far larger jump between the `k`-th and the
//! next neighbor shows that the `k` nearest are copies; images that find each other are joined. `1 / m` is estimated
//! from the farther half of the neighbors, which are not copies, and the level is one false jump in twenty data sets.
//! If there are copies, further images as near to each other as nine of ten copies join them, provided that all others
//! are at least half as far again.
//!
//! *Runs.* For a window `w`, the mean of `ln` of the distance to the nearest image more than `w` files away is compared
//! with its value under shuffled file orders: holding out the neighbors in time against holding out as many random
//! images. If it exceeds 99 of 100 shuffled orders for some window of at most a tenth of the files, by at least
//! [`SHIFT`] standard deviations, consecutive files depend on each other. The window is long enough once the difference
//! reaches [`WINDOW_SHARE`] of its maximum, or is within chance of it, over windows of up to a quarter of the files.
//! Stretches of four times this window become groups, so that half of the files of a stretch are farther than the
//! window from all others. (If consecutive files are much nearer to each other than to the rest, like shots of one
//! scene, these are joined first. Kinds of items sorted by name do not count as runs: within a tenth of the files there
//! are others of each kind.)
//!
//! # Reference
//! Distances of neighbors: Levina and Bickel, *Maximum likelihood estimation of intrinsic dimension* (2004). Blocked
//! against random hold-out: Roberts et al., *Cross-validation strategies for data with temporal, spatial, hierarchical,
//! or phylogenetic structure* (2017).

use std::hash::Hash;

use nomaly_backbones::OutputLayout;
use nomaly_kernels::Isa;
use nomaly_kernels::neighbours::{Bank, Metric};
use nomaly_methods::groups::GroupInfo;
use nomaly_methods::{FeatureBatch, Groups, MethodError};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// The fewest images for an estimate of the spread.
const FEWEST_IMAGES: usize = 12;
/// The most neighbors of an image to consider.
const MOST_NEIGHBORS: usize = 1024;
/// The most copies of an image to search for.
const MOST_COPIES: usize = 32;
/// Descriptors nearer than this share of their length show the same picture.
const SAME_PICTURE: f64 = 1e-3;
/// The rate of false jumps per data set of independent images.
const LEVEL: f64 = 0.05;
/// The least ratio of distances of a jump.
const LEAST_JUMP: f64 = 1.5;
/// The number of shuffled orders.
const SHUFFLED_ORDERS: usize = 199;
/// The significance level against the shuffled orders.
const RUN_LEVEL: f64 = 0.01;
/// The least relevant difference, in standard deviations of the logarithm of an image's distance.
const SHIFT: f64 = 0.3;
/// A window is long enough at this share of the largest difference.
const WINDOW_SHARE: f64 = 0.95;
/// Runs are detected with windows of at most the files divided by this …
const DETECTION_DIVISOR: usize = 10;
/// … and measured with windows of at most the files divided by this.
const MEASURING_DIVISOR: usize = 4;
/// Further images join if they are as near as this share of the copies.
const NEAR_SHARE: f64 = 0.9;

/// The side of the grid on which pixels are averaged.
const PIXEL_GRID: usize = 8;

/// One descriptor per image, for comparing images.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    rows: Vec<f32>,
    dim: usize,
}

impl Descriptors {
    /// Adds the `wanted` images of a batch.
    pub(crate) fn add(&mut self, batch: &FeatureBatch<'_>, wanted: &[bool]) {
        let area = |tap: usize| batch.shapes[tap][1] * batch.shapes[tap][2];
        // The deepest tap: the last of several averaged ones.
        let Some(tap) = (0..batch.taps.len()).min_by_key(|&tap| (area(tap), usize::MAX - tap)) else { return };
        let [channels, height, width] = batch.shapes[tap];
        let views = batch.images * batch.views;
        let values = &batch.values[tap];
        let before = self.rows.len();
        match batch.taps[tap].layout {
            OutputLayout::Mean => self.rows.extend_from_slice(values),
            OutputLayout::Nchw => {
                for plane in values.chunks_exact(height * width) {
                    grid_means(plane, [height, width], &mut self.rows);
                }
            }
            OutputLayout::Rows => {
                for view in values.chunks_exact(height * width * channels) {
                    row_means(view, [height, width, channels], &mut self.rows);
                }
            }
        }
        self.dim = (self.rows.len() - before) / views.max(1) * batch.views;
        if wanted.contains(&false) {
            let images = self.rows.split_off(before);
            let kept = images.chunks_exact(self.dim).zip(wanted).filter(|(_, wanted)| **wanted);
            kept.for_each(|(image, _)| self.rows.extend_from_slice(image));
        }
    }

    /// The number of images.
    fn images(&self) -> usize {
        self.rows.len() / self.dim.max(1)
    }

    /// The descriptors of these images.
    fn of(&self, images: &[usize]) -> Vec<f32> {
        images.iter().flat_map(|image| &self.rows[image * self.dim..(image + 1) * self.dim]).copied().collect()
    }
}

/// Means of a plane `[height, width]` over a grid of at most [`PIXEL_GRID`] cells per side.
fn grid_means(plane: &[f32], [height, width]: [usize; 2], means: &mut Vec<f32>) {
    let cells = |length: usize| {
        let count = length.min(PIXEL_GRID);
        (0..count).map(move |cell| cell * length / count..(cell + 1) * length / count)
    };
    for rows in cells(height) {
        for columns in cells(width) {
            let lines = rows.clone().map(|row| &plane[row * width + columns.start..row * width + columns.end]);
            let sum: f32 = lines.map(|line| line.iter().sum::<f32>()).sum();
            means.push(sum / (rows.len() * columns.len()) as f32);
        }
    }
}

/// Means of rows `[height, width, channels]`: one per channel, or one per cell of a grid if channels are colors.
fn row_means(rows: &[f32], [height, width, channels]: [usize; 3], means: &mut Vec<f32>) {
    if channels <= 3 {
        for channel in 0..channels {
            let plane: Vec<f32> = rows.iter().skip(channel).step_by(channels).copied().collect();
            grid_means(&plane, [height, width], means);
        }
        return;
    }
    let before = means.len();
    means.resize(before + channels, 0.0);
    let sums = &mut means[before..];
    for row in rows.chunks_exact(channels) {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    let count = (height * width) as f32;
    sums.iter_mut().for_each(|sum| *sum /= count);
}

/// The groups of images with these descriptors, in the order of their files. Images of different `kinds` never share a
/// group.
pub(crate) fn find<K: Eq + Hash>(descriptors: &Descriptors, kinds: &[K]) -> Result<(Groups, GroupInfo), MethodError> {
    let images = descriptors.images();
    let of_kinds = Groups::of_keys(kinds.iter());
    let mut keys = vec![(0, 0); images];
    let (mut copies, mut runs) = (0, Vec::new());
    for members in of_kinds.members() {
        let near = Neighborhoods::of(&descriptors.of(members), descriptors.dim)?;
        let same = near.copies();
        // One image represents its copies.
        let of_first = |groups: &Groups| groups.members().iter().map(|group| members[group[0]]).collect::<Vec<_>>();
        let first = Neighborhoods::of(&descriptors.of(&of_first(&same)), descriptors.dim)?;
        let mut run = first.run();
        let mut scenes = same.clone();
        if run.is_some()
            && let Some(shots) = first.shots()
        {
            scenes = Groups::of_keys(same.of().iter().map(|&group| shots.of()[group as usize]));
            run = Neighborhoods::of(&descriptors.of(&of_first(&scenes)), descriptors.dim)?.run();
        }
        copies += scenes.members().iter().filter(|group| group.len() > 1).map(Vec::len).sum::<usize>();
        runs.extend(run);
        for (number, group) in scenes.members().iter().enumerate() {
            let key = number / run.unwrap_or(1);
            group.iter().for_each(|&item| keys[members[item]] = (members[0], key));
        }
    }
    let groups = Groups::of_keys(keys);
    let mut how = Vec::new();
    if copies > 0 {
        how.push(format!("{copies} of them are near-copies of others"));
    }
    if let (Some(least), Some(most)) = (runs.iter().min(), runs.iter().max()) {
        let length = if least == most { least.to_string() } else { format!("{least} to {most}") };
        let of = if copies > 0 { "scenes" } else { "files" };
        how.push(format!("in the order of the files, {of} resemble each other over runs of about {length}"));
    }
    let how = (!groups.is_trivial()).then(|| how.join(", and "));
    let info = GroupInfo { by: "auto".to_owned(), count: groups.count(), how };
    Ok((groups, info))
}

/// The nearest other images of each image.
struct Neighborhoods {
    /// `[images]`: index and distance, ascending by distance.
    near: Vec<Vec<(usize, f64)>>,
    /// The median norm of the rows.
    length: f64,
}

impl Neighborhoods {
    fn of(rows: &[f32], dim: usize) -> Result<Self, MethodError> {
        let images = rows.len() / dim.max(1);
        let square = |row: &[f32]| row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
        let mut lengths: Vec<f64> = rows.chunks_exact(dim.max(1)).map(|row| square(row).sqrt()).collect();
        lengths.sort_by(f64::total_cmp);
        let length = lengths.get(images / 2).copied().unwrap_or(0.0);
        if images < 2 {
            return Ok(Self { near: vec![Vec::new(); images], length });
        }
        let bank = Bank::new(rows, dim, Metric::SquaredL2, Isa::best()?)?;
        let k = images.min(MOST_NEIGHBORS + 1);
        let found = bank.top_k(rows, k)?;
        let lists = found.indices.chunks_exact(k).zip(found.distances.chunks_exact(k)).enumerate();
        let near = lists
            .map(|(own, (others, squares))| {
                let pairs =
                    others.iter().zip(squares).map(|(&other, &square)| (other as usize, f64::from(square).sqrt()));
                pairs.filter(|(other, _)| *other != own).take(k - 1).collect()
            })
            .collect();
        Ok(Self { near, length })
    }

    fn images(&self) -> usize {
        self.near.len()
    }

    /// The lower bound of distances, so that exact copies are not at distance zero.
    fn unit(&self) -> f64 {
        let mut farthest: Vec<f64> = self.near.iter().filter_map(|near| Some(near.last()?.1)).collect();
        farthest.sort_by(f64::total_cmp);
        farthest.get(farthest.len() / 2).copied().unwrap_or(0.0).max(f64::MIN_POSITIVE) * 1e-6
    }

    /// Groups of images that are copies of each other.
    fn copies(&self) -> Groups {
        let images = self.images();
        let mut root: Vec<usize> = (0..images).collect();
        // The same picture, regardless of the others.
        for (own, near) in self.near.iter().enumerate() {
            for &(other, _) in near.iter().take_while(|(_, distance)| *distance <= SAME_PICTURE * self.length) {
                let (a, b) = (find_root(&mut root, own), find_root(&mut root, other));
                root[a.max(b)] = a.min(b);
            }
        }
        let groups = |mut root: Vec<usize>| {
            Groups::of_keys((0..images).map(|image| find_root(&mut root, image)).collect::<Vec<_>>())
        };
        if images < FEWEST_IMAGES {
            return groups(root);
        }
        let unit = self.unit();
        let most = (images / 4).min(MOST_COPIES);
        // `k ln(d_{k+1} / d_k)` for k = 1 … most + 1.
        let jumps = |near: &[(usize, f64)]| -> Vec<f64> {
            let pairs = near.windows(2).take(2 * most).enumerate();
            pairs.map(|(at, pair)| (at + 1) as f64 * (pair[1].1.max(unit) / pair[0].1.max(unit)).ln()).collect()
        };
        let all: Vec<Vec<f64>> = self.near.iter().map(|near| jumps(near)).collect();
        // The median of an exponential distribution is ln 2 of its mean.
        let mut far: Vec<f64> = all.iter().flat_map(|jumps| &jumps[jumps.len().min(most)..]).copied().collect();
        far.sort_by(f64::total_cmp);
        let mean = far.get(far.len() / 2).copied().unwrap_or(0.0) / std::f64::consts::LN_2;
        let needed = mean * ((images * most) as f64 / LEVEL).ln();
        let copies_of = |jumps: &[f64]| {
            let is_jump = |at: usize| jumps[at] > needed && jumps[at] >= (at + 1) as f64 * LEAST_JUMP.ln();
            (0..jumps.len().min(most)).filter(|&at| is_jump(at)).max_by(|&a, &b| jumps[a].total_cmp(&jumps[b]))
        };
        let copies: Vec<&[(usize, f64)]> = all
            .iter()
            .zip(&self.near)
            .map(|(jumps, near)| copies_of(jumps).map_or(&near[..0], |at| &near[..=at]))
            .collect();
        for (own, of_own) in copies.iter().enumerate() {
            for &(other, _) in of_own.iter().filter(|(other, _)| copies[*other].iter().any(|(back, _)| *back == own)) {
                let (a, b) = (find_root(&mut root, own), find_root(&mut root, other));
                root[a.max(b)] = a.min(b);
            }
        }
        self.join_near(&copies, &mut root);
        groups(root)
    }

    /// Joins images that are as near to each other as copies.
    fn join_near(&self, copies: &[&[(usize, f64)]], root: &mut [usize]) {
        let mut lengths: Vec<f64> = copies.iter().flat_map(|of| of.iter().map(|(_, distance)| *distance)).collect();
        lengths.sort_by(f64::total_cmp);
        let Some(near) = lengths.get((NEAR_SHARE * lengths.len() as f64) as usize) else { return };
        for own in 0..self.images() {
            let within = self.near[own].partition_point(|(_, distance)| distance <= near);
            let apart = self.near[own].get(within).is_none_or(|(_, distance)| *distance >= LEAST_JUMP * near);
            for &(other, _) in self.near[own][..within].iter().filter(|_| apart && within <= MOST_COPIES) {
                let (a, b) = (find_root(root, own), find_root(root, other));
                root[a.max(b)] = a.min(b);
            }
        }
    }

    /// The number of consecutive images that depend on each other; `None` if they are independent.
    fn run(&self) -> Option<usize> {
        let images = self.images();
        if images < FEWEST_IMAGES {
            return None;
        }
        let unit = self.unit();
        let longest = (images / MEASURING_DIVISOR).clamp(1, MOST_NEIGHBORS / MEASURING_DIVISOR);
        let windows: Vec<usize> = windows(longest);
        let order: Vec<usize> = (0..images).collect();
        let own: Vec<(f64, f64)> = windows.iter().map(|&window| self.mean_log(&order, window, unit)).collect();
        let seeds: Vec<u64> = (0..SHUFFLED_ORDERS as u64).collect();
        let shuffled: Vec<Vec<f64>> = seeds
            .par_iter()
            .map(|&seed| {
                let mut order = order.clone();
                order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
                windows.iter().map(|&window| self.mean_log(&order, window, unit).0).collect()
            })
            .collect();
        let chance: Vec<(f64, f64)> =
            (0..windows.len()).map(|at| mean_and_deviation(shuffled.iter().map(|means| means[at]))).collect();
        let first = windows.partition_point(|window| *window <= (images / DETECTION_DIVISOR).max(1));
        let most = |means: &dyn Fn(usize) -> f64| {
            let standardized =
                chance[..first].iter().enumerate().map(|(at, (mean, deviation))| (means(at) - mean) / deviation);
            standardized.filter(|z| z.is_finite()).fold(f64::NEG_INFINITY, f64::max)
        };
        let found = most(&|at| own[at].0);
        let as_large = shuffled.iter().filter(|means| most(&|at| means[at]) >= found).count();
        if (1 + as_large) as f64 > RUN_LEVEL * (SHUFFLED_ORDERS + 1) as f64 {
            return None;
        }
        let excess: Vec<f64> = own.iter().zip(&chance).map(|((mean, _), (chance, _))| mean - chance).collect();
        let matters = excess[..first].iter().zip(&own).any(|(excess, (_, deviation))| *excess >= SHIFT * deviation);
        let largest = excess.iter().copied().fold(0.0, f64::max);
        let at_largest = excess.iter().position(|excess| *excess >= largest)?;
        let least = (WINDOW_SHARE * largest).min(largest - 2.0 * chance[at_largest].1);
        let enough = excess.iter().position(|excess| *excess >= least)?;
        matters.then_some((4 * windows[enough]).min(images))
    }

    /// Runs of consecutive images that are nearer to each other than to all images farther in order, like shots of one
    /// scene; `None` without any, or if they are too long for shots.
    fn shots(&self) -> Option<Groups> {
        let images = self.images();
        let window = (images / DETECTION_DIVISOR).max(1);
        let apart = |own: usize| {
            let far = self.near[own].iter().find(|(other, _)| own.abs_diff(*other) > window);
            far.map_or(f64::INFINITY, |(_, distance)| *distance)
        };
        let is_next = |own: usize| {
            let next = self.near[own].iter().find(|(other, _)| *other == own + 1);
            next.is_some_and(|(_, distance)| LEAST_JUMP * distance <= apart(own).min(apart(own + 1)))
        };
        let mut shot = 0;
        let keys = (0..images).map(|image| {
            shot += usize::from(image > 0 && !is_next(image - 1));
            shot
        });
        let shots = Groups::of_keys(keys);
        (!shots.is_trivial() && shots.largest() <= images / MEASURING_DIVISOR).then_some(shots)
    }

    /// Mean and standard deviation over the images of `ln` of the distance to the nearest image that is more than
    /// `window` away in `order`.
    fn mean_log(&self, order: &[usize], window: usize, unit: f64) -> (f64, f64) {
        let logs = self.near.iter().enumerate().filter_map(|(own, near)| {
            let apart = near.iter().find(|(other, _)| order[own].abs_diff(order[*other]) > window);
            apart.or(near.last()).map(|(_, distance)| distance.max(unit).ln())
        });
        mean_and_deviation(logs)
    }
}

/// Windows from 1 to `longest`, each about a third longer than the previous.
fn windows(longest: usize) -> Vec<usize> {
    let longer = |&window: &usize| Some((window * 4).div_ceil(3).max(window + 1));
    std::iter::successors(Some(1), longer).take_while(|window| *window <= longest).collect()
}

fn mean_and_deviation(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let values: Vec<f64> = values.collect();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0)).sqrt())
}

fn find_root(root: &mut [usize], item: usize) -> usize {
    let mut at = item;
    while root[at] != at {
        root[at] = root[root[at]];
        at = root[at];
    }
    at
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;

    /// `scenes` points of `dim` normally distributed values, each repeated `shots` times with noise of standard
    /// deviation `noise`.
    fn bursts(scenes: usize, shots: usize, dim: usize, noise: f32, seed: u64) -> Descriptors {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut normal = || {
            let uniform: f32 = (0..12).map(|_| random.random::<f32>()).sum();
            uniform - 6.0
        };
        let mut rows = Vec::new();
        for _ in 0..scenes {
            let scene: Vec<f32> = (0..dim).map(|_| normal()).collect();
            for _ in 0..shots {
                rows.extend(scene.iter().map(|value| value + noise * normal()));
            }
        }
        Descriptors { rows, dim }
    }

    fn count(descriptors: &Descriptors) -> usize {
        let kinds = vec!["good".to_owned(); descriptors.images()];
        find(descriptors, &kinds).unwrap().0.count()
    }

    #[test]
    fn independent_images_stay_apart() {
        let mut wrong = Vec::new();
        for (dim, seed) in [2, 5, 20, 100].into_iter().flat_map(|dim| (0..10).map(move |seed| (dim, seed))) {
            let found = count(&bursts(60, 1, dim, 0.0, seed));
            if found < 60 {
                wrong.push((dim, seed, found));
            }
        }
        // A false jump in twenty sets, and one false run in a hundred.
        assert!(wrong.len() <= 5, "{wrong:?}");
        assert!(wrong.iter().all(|(.., found)| *found >= 56), "{wrong:?}");
    }

    #[test]
    fn bursts_are_groups() {
        for shots in [2, 3, 10] {
            for dim in [5, 40] {
                let descriptors = bursts(14, shots, dim, 0.03, 1);
                let kinds = vec!["good".to_owned(); 14 * shots];
                let (groups, info) = find(&descriptors, &kinds).unwrap();
                assert_eq!(groups, Groups::of_keys((0..14 * shots).map(|item| item / shots)), "{shots} {dim}");
                assert!(info.how.unwrap().contains(&format!("{} of them are near-copies", 14 * shots)));
            }
        }
    }

    #[test]
    fn exact_copies_are_groups_among_independent_images() {
        let mut descriptors = bursts(40, 1, 10, 0.0, 3);
        let twin = descriptors.of(&[7]);
        descriptors.rows.extend(twin);
        let (groups, _) = find(&descriptors, &vec![String::new(); 41]).unwrap();
        assert_eq!((groups.count(), groups.group_of(40)), (40, &[7, 40][..]));
    }

    #[test]
    fn the_same_pictures_are_one_however_few_others_there_are() {
        for (scenes, shots) in [(1, 20), (1, 3), (2, 15), (3, 10)] {
            let mut descriptors = bursts(scenes, 1, 10, 0.0, 4);
            let rows = descriptors.rows.chunks(10).flat_map(|row| row.repeat(shots)).collect();
            descriptors.rows = rows;
            assert_eq!(count(&descriptors), scenes, "{scenes} {shots}");
        }
    }

    #[test]
    fn a_slow_walk_is_cut_into_runs() {
        // A random walk: no two images are copies.
        let steps = bursts(120, 1, 30, 0.0, 5);
        let mut walk = steps.rows.clone();
        for at in 30..walk.len() {
            walk[at] = 0.95 * walk[at - 30] + 0.3 * walk[at];
        }
        let kinds = vec!["good".to_owned(); 120];
        let (groups, info) = find(&Descriptors { rows: walk, dim: 30 }, &kinds).unwrap();
        assert!((2..=20).contains(&groups.count()), "{}", groups.count());
        assert!(groups.of().is_sorted() && info.how.unwrap().contains("runs of about"));
        // The same images in another order.
        let mut order: Vec<usize> = (0..120).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(0));
        let shuffled = Descriptors { rows: steps.of(&order), dim: 30 };
        assert_eq!(find(&shuffled, &kinds).unwrap().0.count(), 120);
    }

    #[test]
    fn kinds_that_are_sorted_are_no_runs() {
        // Two kinds far apart, one after the other.
        let mut descriptors = bursts(100, 1, 10, 0.0, 8);
        descriptors.rows[500..].iter_mut().for_each(|value| *value += 20.0);
        assert_eq!(count(&descriptors), 100);
    }

    #[test]
    fn kinds_are_kept_apart() {
        let descriptors = bursts(10, 4, 20, 0.02, 2);
        let kinds: Vec<String> = (0..40).map(|item| if item % 4 < 2 { "a" } else { "b" }.to_owned()).collect();
        let (groups, _) = find(&descriptors, &kinds).unwrap();
        assert_eq!(groups.count(), 20);
        assert!(groups.members().iter().all(|members| members.iter().all(|&item| kinds[item] == kinds[members[0]])));
    }

    #[test]
    fn descriptors_average_positions_and_pixels() {
        use nomaly_backbones::TapRequest;
        let mut descriptors = Descriptors::default();
        let taps = [TapRequest::new("fine", OutputLayout::Rows), TapRequest::new("deep", OutputLayout::Rows)];
        let values = [vec![9.0; 2 * 4 * 5], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 0.0, 0.0]];
        let batch = FeatureBatch {
            images: 2,
            views: 1,
            input: [2; 2],
            map: [2; 2],
            taps: &taps,
            values: &values,
            shapes: &[[5, 2, 2], [5, 1, 1]],
            region: None,
            median: None,
        };
        descriptors.add(&batch, &[true, true]);
        assert_eq!((descriptors.images(), descriptors.dim, &descriptors.rows), (2, 5, &values[1]));
        descriptors.add(&batch, &[false, true]);
        assert_eq!((descriptors.images(), &descriptors.rows[10..]), (3, &values[1][5..]));
        let mut means = Vec::new();
        grid_means(&(0..32).map(|v| v as f32).collect::<Vec<_>>(), [2, 16], &mut means);
        assert_eq!((means.len(), means[0], means[15]), (16, 0.5, 30.5));
    }
}
