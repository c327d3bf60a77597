//! Sequential minimal optimization for `min ½ βᵀKβ + pᵀβ` with `Σ β = total` and `0 <= β <= 1`.
//!
//! Each step changes two coefficients: the one whose growth gains most by the gradient, and the partner that gains most
//! by the second-order model of the step (working set selection 2 of Fan, Chen and Lin, *Working set selection using
//! second order information for training SVM*, 2005). Rows that sit at a bound and would move beyond it are temporarily
//! excluded (shrinking); their gradients are updated when the rest is nearly solved and when it is solved, as in LIBSVM
//! (Chang and Lin, *LIBSVM: a library for support vector machines*, 2011, section 5). The start is LIBSVM's too: the
//! first coefficients are 1 until the total is reached.
//!
//! Kernel rows are computed several at a time: together with a missing row, those that the next steps will most likely
//! need, because a block of rows costs little more than one. The result depends only on the problem: every choice is by
//! value, then by index.

use std::ops::Range;

use rayon::prelude::*;

use super::kernel::{KernelBank, Points, Space};
use super::rows_cache::RowsCache;
use crate::{ScorerError, Watch};

/// Rows of the kernel matrix that are computed together; a multiple of the height of the vector kernels' tiles.
const TOGETHER: usize = 12;

/// Coefficients that one task scans.
const CHUNK: usize = 16_384;

/// Queries whose gradients are computed between two checks for cancellation.
const STRETCH: usize = 4096;

/// The most steps between two attempts to shrink.
const SHRINK_EVERY: usize = 1000;

/// The least curvature of a step, as in LIBSVM: two rows may be equal.
const CURVATURE: f64 = 1e-12;

/// The minimization problem.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Problem<'a> {
    pub(crate) space: &'a Space,
    pub(crate) points: &'a Points,
    /// `K_ii`.
    pub(crate) diagonal: &'a [f64],
    /// `p`.
    pub(crate) linear: &'a [f64],
    /// Above 0 and at most the number of points.
    pub(crate) total: f64,
}

/// The tolerance and the memory limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The largest violation of the optimality conditions, relative to the mean of the diagonal, and to the total if
    /// that is below 1.
    pub(crate) tolerance: f64,
    /// For kernel rows.
    pub(crate) cache_bytes: usize,
}

/// A minimum.
#[derive(Clone, Debug)]
pub(crate) struct Solution {
    /// `β`.
    pub(crate) coefficients: Vec<f64>,
    /// The value of the gradient `Kβ + p` where `β` is between its bounds.
    pub(crate) level: f64,
}

/// Solves the problem.
///
/// # Errors
/// [`ScorerError::Cancelled`], [`ScorerError::Numerical`] after a hundred steps for each row and ten million in all.
pub(crate) fn solve(problem: Problem<'_>, limits: Limits, watch: Watch<'_>) -> Result<Solution, ScorerError> {
    let mut solver = Solver::new(problem, limits, watch)?;
    solver.run()?;
    let level = level(&solver.gradient, &solver.coefficients);
    Ok(Solution { coefficients: solver.coefficients, level })
}

struct Solver<'a> {
    problem: Problem<'a>,
    limits: Limits,
    watch: Watch<'a>,
    /// The violation at which the solver stops.
    gap: f64,
    /// Those of rows in the working problem are stale.
    coefficients: Vec<f64>,
    /// The gradient at `known`, for rows out of the working problem.
    gradient: Vec<f64>,
    known: Vec<f64>,
}

impl<'a> Solver<'a> {
    fn new(problem: Problem<'a>, limits: Limits, watch: Watch<'a>) -> Result<Self, ScorerError> {
        let count = problem.diagonal.len();
        let whole = (problem.total.floor() as usize).min(count);
        let mut coefficients = vec![0.0; count];
        coefficients[..whole].fill(1.0);
        if whole < count {
            coefficients[whole] = problem.total - whole as f64;
        }
        let mean = problem.diagonal.iter().sum::<f64>() / count as f64;
        let mut solver = Self {
            problem,
            limits,
            watch,
            gap: limits.tolerance * mean * problem.total.min(1.0),
            known: vec![0.0; count],
            coefficients,
            gradient: problem.linear.to_vec(),
        };
        solver.update_gradient(&[])?;
        Ok(solver)
    }

    fn run(&mut self) -> Result<(), ScorerError> {
        let count = self.coefficients.len();
        let most_steps = count.saturating_mul(100).max(10_000_000);
        let mut work = Working::new(self, (0..count).collect())?;
        let mut steps = 0usize;
        let mut until_shrink = count.min(SHRINK_EVERY);
        let mut was_near = false;
        let mut restarted_at = None;
        loop {
            if steps.is_multiple_of(64) {
                self.watch.check()?;
            }
            let solved = work.extremes.gap() <= self.gap || !work.step(self.problem)?;
            if solved {
                let all = work.ids.len() == count;
                self.write_back(&work)?;
                // If a working problem of the worst violators cannot move either, rounding allows no further progress.
                let stuck = restarted_at == Some(steps);
                if all || stuck || extremes(&self.gradient, &self.coefficients).gap() <= self.gap {
                    return Ok(());
                }
                restarted_at = Some(steps);
                work = self.restart()?;
                until_shrink = count.min(SHRINK_EVERY);
                continue;
            }
            steps += 1;
            until_shrink -= 1;
            if steps > most_steps {
                let reason = format!("no convergence after {steps} steps; scale the rows or raise the tolerance");
                return Err(ScorerError::Numerical { what: "the solver of the kernel machine", reason });
            }
            if until_shrink == 0 {
                until_shrink = count.min(SHRINK_EVERY);
                if !was_near && work.extremes.gap() <= 10.0 * self.gap {
                    was_near = true;
                    self.write_back(&work)?;
                    work = self.restart()?;
                } else {
                    self.shrink(&mut work)?;
                }
            }
        }
    }

    /// Writes the working problem back and updates the gradients of the excluded rows.
    fn write_back(&mut self, work: &Working) -> Result<(), ScorerError> {
        for (at, id) in work.ids.iter().enumerate() {
            self.coefficients[*id] = work.coefficients[at];
            self.gradient[*id] = work.gradient[at];
        }
        self.update_gradient(&work.ids)
    }

    /// Updates the gradient of all rows except the ascending rows `current`, whose gradient is up to date.
    fn update_gradient(&mut self, current: &[usize]) -> Result<(), ScorerError> {
        let Problem { space, points, linear, .. } = self.problem;
        let dim = space.dim();
        let mut others = Vec::with_capacity(self.coefficients.len() - current.len());
        let mut skip = current.iter().peekable();
        for id in 0..self.coefficients.len() {
            if skip.next_if_eq(&&id).is_none() {
                others.push(id);
            }
        }
        let changed: Vec<usize> =
            (0..self.known.len()).filter(|id| self.known[*id] != self.coefficients[*id]).collect();
        let support: Vec<usize> = (0..self.known.len()).filter(|id| self.coefficients[*id] != 0.0).collect();
        // Computes the change of the gradient or all of it, whichever is shorter.
        let (terms, anew) = if changed.len() <= support.len() { (changed, false) } else { (support, true) };
        let weights: Vec<f64> =
            terms.iter().map(|id| self.coefficients[*id] - if anew { 0.0 } else { self.known[*id] }).collect();
        let bank = space.bank(&points.select(terms.iter().copied(), dim))?;
        for ids in others.chunks(STRETCH) {
            self.watch.check()?;
            let sums = bank.weighted_sums(&weights, points.select(ids.iter().copied(), dim).view())?;
            for (id, sum) in ids.iter().zip(sums) {
                let base = if anew { linear[*id] } else { self.gradient[*id] };
                self.gradient[*id] = base + sum;
            }
        }
        self.known.copy_from_slice(&self.coefficients);
        Ok(())
    }

    /// The working problem of all rows that cannot be excluded.
    fn restart(&self) -> Result<Working, ScorerError> {
        let extremes = extremes(&self.gradient, &self.coefficients);
        let may_stay = |id: &usize| !extremes.beyond(self.gradient[*id], self.coefficients[*id]);
        Working::new(self, (0..self.coefficients.len()).filter(may_stay).collect())
    }

    /// Excludes rows if there are enough of them to pay for moving the others.
    fn shrink(&mut self, work: &mut Working) -> Result<(), ScorerError> {
        let stays = |at: &usize| !work.extremes.beyond(work.gradient[*at], work.coefficients[*at]);
        let kept: Vec<usize> = (0..work.ids.len()).filter(stays).collect();
        if kept.len() * 10 > work.ids.len() * 9 {
            return Ok(());
        }
        for (id, coefficient) in work.ids.iter().zip(&work.coefficients) {
            self.coefficients[*id] = *coefficient;
        }
        fn take<T: Copy>(values: &mut Vec<T>, kept: &[usize]) {
            *values = kept.iter().map(|at| values[*at]).collect();
        }
        take(&mut work.ids, &kept);
        take(&mut work.coefficients, &kept);
        take(&mut work.gradient, &kept);
        take(&mut work.diagonal, &kept);
        work.cache.keep(&kept);
        let Problem { space, points, .. } = self.problem;
        work.bank = space.bank(&points.select(work.ids.iter().copied(), space.dim()))?;
        work.extremes = extremes(&work.gradient, &work.coefficients);
        Ok(())
    }
}

/// The rows that steps are taken on.
struct Working {
    /// Their numbers, ascending.
    ids: Vec<usize>,
    coefficients: Vec<f64>,
    gradient: Vec<f64>,
    diagonal: Vec<f64>,
    bank: KernelBank,
    cache: RowsCache,
    extremes: Extremes,
}

impl Working {
    fn new(solver: &Solver<'_>, ids: Vec<usize>) -> Result<Self, ScorerError> {
        let Problem { space, points, diagonal, .. } = solver.problem;
        let take = |values: &[f64]| ids.iter().map(|id| values[*id]).collect::<Vec<f64>>();
        let (coefficients, gradient) = (take(&solver.coefficients), take(&solver.gradient));
        Ok(Self {
            extremes: extremes(&gradient, &coefficients),
            diagonal: take(diagonal),
            bank: space.bank(&points.select(ids.iter().copied(), space.dim()))?,
            cache: RowsCache::new(ids.len(), solver.limits.cache_bytes),
            coefficients,
            gradient,
            ids,
        })
    }

    /// Changes two coefficients. Returns `false` if rounding leaves nothing to change.
    fn step(&mut self, problem: Problem<'_>) -> Result<bool, ScorerError> {
        let grows = self.extremes.grows;
        self.fetch(problem, grows, |gradient, coefficient| (coefficient < 1.0).then_some(-gradient))?;
        let Some(falls) = self.partner(grows) else { return Ok(false) };
        self.fetch(problem, falls, |gradient, coefficient| (coefficient > 0.0).then_some(gradient))?;
        let (grows_row, falls_row) = (self.cache.row(grows), self.cache.row(falls));
        let curvature = self.diagonal[grows] + self.diagonal[falls] - 2.0 * f64::from(grows_row[falls]);
        let wanted = (self.gradient[falls] - self.gradient[grows]) / curvature.max(CURVATURE);
        let (room, supply) = (1.0 - self.coefficients[grows], self.coefficients[falls]);
        let (old_grows, old_falls) = (self.coefficients[grows], self.coefficients[falls]);
        // A step that ends at a bound sets the coefficient to the bound itself, which shrinking compares with.
        if wanted < room.min(supply) {
            self.coefficients[grows] = old_grows + wanted;
            self.coefficients[falls] = old_falls - wanted;
        } else if room < supply {
            self.coefficients[grows] = 1.0;
            self.coefficients[falls] = (old_grows + old_falls - 1.0).max(0.0);
        } else {
            self.coefficients[grows] = (old_grows + old_falls).min(1.0);
            self.coefficients[falls] = 0.0;
        }
        let by = (self.coefficients[grows] - old_grows, self.coefficients[falls] - old_falls);
        if by == (0.0, 0.0) {
            return Ok(false);
        }
        let coefficients = &self.coefficients;
        let advance = |gradient: &mut [f64], range: Range<usize>| {
            let rows = grows_row[range.clone()].iter().zip(&falls_row[range.clone()]);
            for (gradient, (grows, falls)) in gradient.iter_mut().zip(rows) {
                *gradient += by.0 * f64::from(*grows) + by.1 * f64::from(*falls);
            }
            Extremes::of(gradient, &coefficients[range.clone()], range.start)
        };
        let len = self.gradient.len();
        self.extremes = if len < 2 * CHUNK {
            advance(&mut self.gradient, 0..len)
        } else {
            let chunks = self.gradient.par_chunks_mut(CHUNK).enumerate();
            let of_chunk = chunks.map(|(chunk, gradient)| {
                let start = chunk * CHUNK;
                let end = start + gradient.len();
                advance(gradient, start..end)
            });
            of_chunk.reduce(Extremes::none, Extremes::join)
        };
        Ok(true)
    }

    /// Ensures that a row of the kernel matrix is cached. `rank` orders the rows that steps of the same kind will need
    /// next, the largest first.
    fn fetch(
        &mut self,
        problem: Problem<'_>,
        position: usize,
        rank: impl Fn(f64, f64) -> Option<f64>,
    ) -> Result<(), ScorerError> {
        if self.cache.contains(position) {
            self.cache.touch(position);
            return Ok(());
        }
        let mut next: Vec<(f64, usize)> = Vec::with_capacity(TOGETHER);
        for (at, (gradient, coefficient)) in self.gradient.iter().zip(&self.coefficients).enumerate() {
            let Some(rank) = rank(*gradient, *coefficient) else { continue };
            let full = next.len() == TOGETHER - 1;
            if full && next.last().is_some_and(|last| last.0 >= rank) || at == position || self.cache.contains(at) {
                continue;
            }
            let place = next.partition_point(|other| other.0 >= rank);
            next.truncate(TOGETHER - 2);
            next.insert(place.min(next.len()), (rank, at));
        }
        let positions: Vec<usize> = std::iter::once(position).chain(next.into_iter().map(|(_, at)| at)).collect();
        let dim = problem.space.dim();
        let queries = problem.points.select(positions.iter().map(|at| self.ids[*at]), dim);
        let bank = &self.bank;
        self.cache.insert(&positions, |rows| bank.values(queries.view(), rows))
    }

    /// The coefficient whose fall, with the growth of `grows`, gains most by the second-order model.
    fn partner(&self, grows: usize) -> Option<usize> {
        let row = self.cache.row(grows);
        let (most, diagonal) = (self.extremes.most, self.diagonal[grows]);
        let of_range = |range: Range<usize>| {
            let mut best: Option<(f64, usize)> = None;
            for at in range {
                let violation = most + self.gradient[at];
                if self.coefficients[at] > 0.0 && violation > 0.0 {
                    let curvature = (diagonal + self.diagonal[at] - 2.0 * f64::from(row[at])).max(CURVATURE);
                    let gain = violation * violation / curvature;
                    if best.is_none_or(|best| gain > best.0) {
                        best = Some((gain, at));
                    }
                }
            }
            best
        };
        let len = self.gradient.len();
        let best = if len < 2 * CHUNK {
            of_range(0..len)
        } else {
            let chunks = (0..len.div_ceil(CHUNK)).into_par_iter();
            let of_chunk = chunks.map(|chunk| of_range(chunk * CHUNK..len.min((chunk + 1) * CHUNK)));
            of_chunk.reduce(
                || None,
                |left, right| match (left, right) {
                    (Some(one), Some(other)) => Some(if other.0 > one.0 { other } else { one }),
                    (one, other) => one.or(other),
                },
            )
        };
        best.map(|(_, at)| at)
    }
}

/// The violation of the optimality conditions at a point.
#[derive(Clone, Copy, Debug)]
struct Extremes {
    /// The largest `-gradient` of a coefficient that can grow.
    most: f64,
    /// The first such coefficient.
    grows: usize,
    /// The largest gradient of a coefficient that can fall.
    most_falling: f64,
}

impl Extremes {
    fn none() -> Self {
        Self { most: f64::NEG_INFINITY, grows: usize::MAX, most_falling: f64::NEG_INFINITY }
    }

    /// Of coefficients from number `first` on.
    fn of(gradient: &[f64], coefficients: &[f64], first: usize) -> Self {
        let mut found = Self::none();
        for (at, (gradient, coefficient)) in gradient.iter().zip(coefficients).enumerate() {
            if *coefficient < 1.0 && -gradient > found.most {
                (found.most, found.grows) = (-gradient, first + at);
            }
            if *coefficient > 0.0 && *gradient > found.most_falling {
                found.most_falling = *gradient;
            }
        }
        found
    }

    fn join(self, right: Self) -> Self {
        let first = if right.most > self.most { right } else { self };
        Self { most_falling: self.most_falling.max(right.most_falling), ..first }
    }

    /// The violation of the optimality conditions; minus infinity if nothing can move.
    fn gap(self) -> f64 {
        self.most + self.most_falling
    }

    /// Whether a coefficient sits at a bound that every possible partner would push it against.
    fn beyond(self, gradient: f64, coefficient: f64) -> bool {
        (coefficient >= 1.0 && -gradient > self.most) || (coefficient <= 0.0 && gradient > self.most_falling)
    }
}

fn extremes(gradient: &[f64], coefficients: &[f64]) -> Extremes {
    Extremes::of(gradient, coefficients, 0)
}

/// The mean gradient of coefficients between their bounds; where there are none, the middle of the range that the
/// optimality conditions leave, or its end where it has only one.
fn level(gradient: &[f64], coefficients: &[f64]) -> f64 {
    let (mut sum, mut free) = (0.0, 0usize);
    let (mut lowest, mut highest) = (f64::NEG_INFINITY, f64::INFINITY);
    for (gradient, coefficient) in gradient.iter().zip(coefficients) {
        if *coefficient >= 1.0 {
            lowest = lowest.max(*gradient);
        } else if *coefficient <= 0.0 {
            highest = highest.min(*gradient);
        } else {
            (sum, free) = (sum + gradient, free + 1);
        }
    }
    match (free, lowest.is_finite(), highest.is_finite()) {
        (1.., ..) => sum / free as f64,
        (0, true, true) => 0.5 * (lowest + highest),
        (0, true, false) => lowest,
        _ => highest,
    }
}
