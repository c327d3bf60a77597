//! Expectation–maximization, from k-means or from a given start.

use ndarray::{Array2, ArrayView2};
use nomaly_settings::{Auto, SettingError};

use super::density::{Density, normalize};
use super::moments::{Spread, moments};
use super::{Mixture, MixtureCovariance, MixtureOptions, bic};
use crate::blocks::BlockRows;
use crate::entry::check_settings;
use crate::gaussian::GaussianStatistics;
use crate::kmeans::{KMeans, KMeansOptions};
use crate::scorer::check_finite;
use crate::{Scorer, ScorerError, Watch, linalg};

/// The most components that `auto` tries.
const AUTO: usize = 8;

/// The start of EM.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum MixtureStart<'a> {
    /// The parameters that follow from these responsibilities `[n, k]` of the rows: nonnegative, with the sum 1 in each
    /// row and a positive sum for each component.
    Responsibilities(ArrayView2<'a, f64>),
    /// This mixture.
    Mixture(&'a Mixture),
}

/// Rows, and statistics that every start needs.
struct Prepared<'a> {
    view: ArrayView2<'a, f32>,
    rows: BlockRows<'a>,
    spread: Spread,
}

impl Mixture {
    /// Fits a mixture on the rows `[n, dim]`.
    ///
    /// # Errors
    /// [`ScorerError::Setting`] for settings out of range, [`ScorerError::TooFewRows`] for fewer than 2 rows and for
    /// fewer rows than components, [`ScorerError::ConstantRows`], [`ScorerError::NonFiniteFeature`],
    /// [`ScorerError::Numerical`] where a covariance is not positive definite, which can only happen with a floor near
    /// 0, and [`ScorerError::Cancelled`].
    pub fn fit(rows: ArrayView2<'_, f32>, options: MixtureOptions, watch: Watch<'_>) -> Result<Self, ScorerError> {
        let prepared = Prepared::new(rows, &options)?;
        match options.components {
            Auto::Value(count) => prepared.fit_count(count, &options, watch),
            Auto::Auto => {
                let mut best: Option<(f64, Self)> = None;
                for count in 1..=most_components(rows.dim(), options.covariance) {
                    let mixture = prepared.fit_count(count, &options, watch)?;
                    let log_likelihood = mixture.log_likelihood * rows.nrows() as f64;
                    let criterion = bic(mixture.free_parameters(), rows.nrows(), log_likelihood);
                    if best.as_ref().is_none_or(|(best, _)| criterion < *best) {
                        best = Some((criterion, mixture));
                    }
                }
                let Some((_, mixture)) = best else { unreachable!("one component is always tried") };
                Ok(mixture)
            }
        }
    }

    /// Fits a mixture on the rows `[n, dim]` from a given start; the start determines the number of components, and
    /// `components`, `starts` and `seed` of the options are not used.
    ///
    /// # Errors
    /// As [`fit`](Self::fit), [`ScorerError::Dimension`] where the start has other columns than the rows, and
    /// [`ScorerError::Setting`] for invalid responsibilities.
    pub fn fit_from(
        rows: ArrayView2<'_, f32>,
        start: MixtureStart<'_>,
        options: MixtureOptions,
        watch: Watch<'_>,
    ) -> Result<Self, ScorerError> {
        let prepared = Prepared::new(rows, &options)?;
        match start {
            MixtureStart::Mixture(mixture) if mixture.dim() != rows.ncols() => {
                Err(ScorerError::Dimension { expected: mixture.dim(), got: rows.ncols() })
            }
            MixtureStart::Mixture(mixture) => {
                let start = Self::new(mixture.weights.clone(), mixture.means.clone(), mixture.covariances.clone())?;
                prepared.iterate(start, &options, watch)
            }
            MixtureStart::Responsibilities(shares) => {
                check_responsibilities(shares, rows.nrows())?;
                let near = vec![0.0; shares.ncols() * rows.ncols()];
                let fill = |first: usize, count: usize, target: &mut [f64]| {
                    for (at, target) in target.chunks_exact_mut(shares.ncols()).take(count).enumerate() {
                        target.iter_mut().zip(shares.row(first + at)).for_each(|(target, share)| *target = *share);
                    }
                };
                let start = prepared.first_step(&near, fill, &options, watch)?;
                prepared.iterate(start, &options, watch)
            }
        }
    }
}

/// The largest number of components that `auto` tries.
fn most_components((rows, dim): (usize, usize), covariance: MixtureCovariance) -> usize {
    let supported = match covariance {
        MixtureCovariance::Full => rows / (dim + 1),
        MixtureCovariance::Tied => rows.saturating_sub(dim) / 2,
        MixtureCovariance::Diagonal | MixtureCovariance::Spherical => rows / 2,
    };
    supported.clamp(1, AUTO)
}

fn check_responsibilities(shares: ArrayView2<'_, f64>, rows: usize) -> Result<(), ScorerError> {
    let refused = |value: String, expected: &str| Err(SettingError::value("responsibilities", value, expected).into());
    if shares.nrows() != rows || shares.ncols() == 0 {
        return refused(
            format!("of shape {:?}", shares.dim()),
            &format!("a row of shares for each of the {rows} rows"),
        );
    }
    for (row, shares) in shares.outer_iter().enumerate() {
        if !shares.iter().all(|share| *share >= 0.0) || (shares.sum() - 1.0).abs() > 1e-6 {
            return refused(format!("{shares} for row {row}"), "shares from 0 with the sum 1");
        }
    }
    match shares.columns().into_iter().position(|column| column.sum() <= 0.0) {
        Some(component) => refused(format!("0 everywhere for component {component}"), "a positive share somewhere"),
        None => Ok(()),
    }
}

impl<'a> Prepared<'a> {
    fn new(view: ArrayView2<'a, f32>, options: &MixtureOptions) -> Result<Self, ScorerError> {
        check_settings(options)?;
        check_finite(view)?;
        if view.nrows() < 2 {
            return Err(ScorerError::TooFewRows { what: "a mixture", needed: 2, got: view.nrows() });
        }
        let rows = BlockRows::new(view, linalg::mean(view));
        let mean_variance = rows.mean_variance();
        let largest = view.iter().fold(0.0f64, |largest, value| largest.max(f64::from(value.abs())));
        if mean_variance.sqrt() <= largest * 1e-12 {
            return Err(ScorerError::ConstantRows { rows: view.nrows() as u64 });
        }
        let scatter = if options.covariance == MixtureCovariance::Tied {
            let statistics = GaussianStatistics::from_rows(view)?;
            let dim = view.ncols();
            Some(Array2::from_shape_fn((dim, dim), |(row, column)| statistics.scatter(row, column)))
        } else {
            None
        };
        let spread = Spread { floor: options.floor * mean_variance, scatter };
        Ok(Self { view, rows, spread })
    }

    /// The likeliest of the starts from k-means.
    fn fit_count(&self, count: usize, options: &MixtureOptions, watch: Watch<'_>) -> Result<Mixture, ScorerError> {
        if self.rows.len() < count {
            let what = "a mixture of so many components";
            return Err(ScorerError::TooFewRows { what, needed: count, got: self.rows.len() });
        }
        let mut best: Option<Mixture> = None;
        for start in 0..options.starts {
            let settings = KMeansOptions { seed: options.seed.wrapping_add(start as u64), ..KMeansOptions::default() };
            let groups = KMeans::fit(self.view, count, &settings, watch)?;
            let k = groups.centers.nrows();
            let center = self.rows.center();
            let near: Vec<f64> =
                groups.centers.iter().enumerate().map(|(at, value)| value - center[at % center.len()]).collect();
            let fill = |first: usize, count: usize, target: &mut [f64]| {
                target.fill(0.0);
                for (target, label) in target.chunks_exact_mut(k).zip(&groups.labels[first..first + count]) {
                    target[*label as usize] = 1.0;
                }
            };
            let start = self.first_step(&near, fill, options, watch)?;
            let mixture = self.iterate(start, options, watch)?;
            if best.as_ref().is_none_or(|best| mixture.log_likelihood > best.log_likelihood) {
                best = Some(mixture);
            }
        }
        let Some(mixture) = best else { unreachable!("there is at least one start") };
        Ok(mixture)
    }

    /// The mixture that follows from responsibilities; `near` `[k, dim]` are means, less the center, near its own.
    fn first_step(
        &self,
        near: &[f64],
        fill: impl Fn(usize, usize, &mut [f64]) + Sync,
        options: &MixtureOptions,
        watch: Watch<'_>,
    ) -> Result<Mixture, ScorerError> {
        let given = |first: usize, _: &[f64], count: usize, _: &mut _, shares: &mut [f64]| {
            fill(first, count, shares);
            0.0
        };
        let sums = moments(&self.rows, options.covariance, near, given, watch)?;
        self.mixture(sums.parameters(near, &self.spread))
    }

    fn mixture(
        &self,
        (weights, mut means, covariances): (Vec<f64>, Array2<f64>, super::Covariances),
    ) -> Result<Mixture, ScorerError> {
        for mut mean in means.outer_iter_mut() {
            mean.iter_mut().zip(self.rows.center()).for_each(|(mean, center)| *mean += center);
        }
        Mixture::new(weights, means, covariances)
    }

    /// Iterates EM from `mixture` until the likelihood has converged.
    fn iterate(
        &self,
        mut mixture: Mixture,
        options: &MixtureOptions,
        watch: Watch<'_>,
    ) -> Result<Mixture, ScorerError> {
        let k = mixture.components();
        let count = self.rows.len() as f64;
        let mut before = f64::NEG_INFINITY;
        let (mut iterations, mut converged) = (0, false);
        while iterations < options.max_iterations as u64 && !converged {
            let center = self.rows.center().to_vec();
            let density = Density::new(&mixture.weights, &mixture.means, &mixture.covariances, center)?;
            let evaluated = |_: usize, block: &[f64], count: usize, scratch: &mut _, shares: &mut [f64]| {
                density.weighted_logs(block, scratch, shares);
                shares.chunks_exact_mut(k).take(count).map(normalize).sum()
            };
            let sums = moments(&self.rows, options.covariance, &density.means, evaluated, watch)?;
            let log_likelihood = sums.log_likelihood / count;
            mixture = self.mixture(sums.parameters(&density.means, &self.spread))?;
            iterations += 1;
            converged = (log_likelihood - before).abs() < options.tolerance;
            before = log_likelihood;
        }
        watch.check()?;
        let log_likelihood = mixture.log_likelihood(self.view)?.iter().sum::<f64>() / count;
        if !log_likelihood.is_finite() {
            let reason = format!("the mean log-likelihood of the rows came out as {log_likelihood}");
            return Err(ScorerError::Numerical { what: "the mixture", reason });
        }
        Ok(Mixture { log_likelihood, iterations, converged, ..mixture })
    }
}
