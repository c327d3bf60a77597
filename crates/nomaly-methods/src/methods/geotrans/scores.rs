//! Scores from the network's predictions for all transformations of an image.
//!
//! A *table* describes an image: for each transformation, a row with the network's log-probabilities of all
//! transformations. A score is the mean over the rows of a *term*.

use std::fmt;

use nomaly_scorers::dirichlet::{Dirichlet, SimplexStatistics};
use nomaly_scorers::{State, Tensor};
use rayon::prelude::*;

use crate::MethodError;
use crate::state::take_f64;

/// The scores of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableScore {
    /// −Σⱼ (αᵢⱼ − 1) ln yⱼ, the paper's normality score with its sign turned.
    Dirichlet,
    /// The Dirichlet terms, weighted by how well each distinguishes its transformation from the others.
    Weighted,
    /// The negative log-density of the Dirichlet distribution, its constant included.
    LogLikelihood,
    /// The Shannon entropy of the row; needs no fit.
    Entropy,
    /// 1 minus the probability of the right transformation.
    Simple,
}

impl TableScore {
    /// All scores, in the order of a score's parts.
    pub const ALL: [Self; 5] = [Self::Dirichlet, Self::Weighted, Self::LogLikelihood, Self::Entropy, Self::Simple];

    /// The name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dirichlet => "dirichlet",
            Self::Weighted => "weighted",
            Self::LogLikelihood => "log-likelihood",
            Self::Entropy => "entropy",
            Self::Simple => "simple",
        }
    }

    /// Its index in [`TableScore::ALL`].
    pub(super) fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for TableScore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Name and kind of the state of a [`Normality`].
pub(super) const STATE: &str = "normality";

/// The distribution of rows of normal images, per transformation.
#[derive(Clone, Debug, PartialEq)]
pub struct Normality {
    dirichlets: Vec<Dirichlet>,
    /// Weights of the transformations, with mean 1.
    weights: Vec<f64>,
}

/// Fits a [`Normality`] on tables of normal images.
pub(super) struct NormalityBuilder {
    statistics: Vec<SimplexStatistics>,
    /// Tables for fitting the weights.
    kept: Vec<Vec<f64>>,
}

/// The most tables kept for fitting the weights.
const MOST_KEPT: usize = 64;

impl NormalityBuilder {
    pub(super) fn new(transformations: usize) -> Self {
        Self { statistics: vec![SimplexStatistics::new(transformations); transformations], kept: Vec::new() }
    }

    pub(super) fn push(&mut self, table: Vec<f64>) -> Result<(), MethodError> {
        for (row, statistics) in table.chunks_exact(self.statistics.len()).zip(&mut self.statistics) {
            statistics.push(row)?;
        }
        if self.kept.len() < MOST_KEPT {
            self.kept.push(table);
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Normality, MethodError> {
        let k = self.statistics.len();
        let dirichlets = self.statistics.iter().map(Dirichlet::fit).collect::<Result<Vec<_>, _>>()?;
        let mut normality = Normality { dirichlets, weights: vec![1.0; k] };
        normality.weights = normality.discriminant(&self.kept)?;
        Ok(normality)
    }
}

impl Normality {
    /// The number of transformations.
    pub fn transformations(&self) -> usize {
        self.dirichlets.len()
    }

    /// The distribution of each transformation's row.
    pub fn dirichlets(&self) -> &[Dirichlet] {
        &self.dirichlets
    }

    /// The weights of [`TableScore::Weighted`], with mean 1.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// How well each transformation's term separates its own rows from those of other transformations of normal images:
    /// `(μ_other − μ_own) / σ²`, the weights of a linear discriminant with independent terms, scaled to mean 1. A
    /// transformation that does not separate has weight 0.
    fn discriminant(&self, tables: &[Vec<f64>]) -> Result<Vec<f64>, MethodError> {
        let k = self.dirichlets.len();
        let discriminant = |(own, dirichlet): (usize, &Dirichlet)| {
            // Count, sum and sum of squares of the terms of its own rows and of the others'.
            let mut moments = [[0.0; 3]; 2];
            for table in tables {
                for (other, row) in table.chunks_exact(k).enumerate() {
                    let term = -dirichlet.normality(row)?;
                    let group = &mut moments[usize::from(other != own)];
                    group.iter_mut().zip([1.0, term, term * term]).for_each(|(sum, value)| *sum += value);
                }
            }
            let mean = moments.map(|[n, sum, _]| sum / n);
            let within = |[n, sum, squares]: [f64; 3]| squares - sum * sum / n;
            let variance = (within(moments[0]) / moments[0][0] + within(moments[1]) / moments[1][0]) / 2.0;
            Ok(((mean[1] - mean[0]) / variance.max(f64::MIN_POSITIVE)).max(0.0))
        };
        let weights = self.dirichlets.par_iter().enumerate().map(discriminant);
        let mut weights = weights.collect::<Result<Vec<f64>, MethodError>>()?;
        let mean = weights.iter().sum::<f64>() / k as f64;
        if mean > 0.0 && mean.is_finite() {
            weights.iter_mut().for_each(|weight| *weight /= mean);
        } else {
            weights.fill(1.0);
        }
        Ok(weights)
    }

    /// The term of each transformation for a table `[k, k]` of logarithms; the score is their mean.
    ///
    /// # Errors
    /// A table of another size.
    pub fn terms(&self, score: TableScore, table: &[f64], terms: &mut [f64]) -> Result<(), MethodError> {
        let k = self.dirichlets.len();
        let rows = table.chunks_exact(k).zip(&self.dirichlets).zip(&self.weights);
        for ((right, ((row, dirichlet), weight)), term) in rows.enumerate().zip(terms) {
            *term = match score {
                TableScore::Dirichlet => -dirichlet.normality(row)?,
                TableScore::Weighted => -weight * dirichlet.normality(row)?,
                TableScore::LogLikelihood => -dirichlet.log_density(row)?,
                TableScore::Entropy => -row.iter().map(|log_p| log_p.exp() * log_p).sum::<f64>(),
                TableScore::Simple => 1.0 - row[right].exp(),
            };
        }
        Ok(())
    }

    /// The state for the model file.
    pub(super) fn state(&self) -> State {
        let k = self.transformations();
        let alpha = self.dirichlets.iter().flat_map(Dirichlet::alpha).copied().collect();
        let tensors = [("alpha", Tensor::f64([k, k], alpha)), ("weights", Tensor::f64([k], self.weights.clone()))];
        State {
            kind: STATE.to_owned(),
            config: serde_json::json!({}),
            tensors: tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect(),
        }
    }

    /// Restores it from a model file, for this number of transformations.
    pub(super) fn restore(mut state: State, k: usize) -> Result<Self, MethodError> {
        let refuse = |reason: &str| MethodError::State { state: STATE.to_owned(), reason: Some(reason.to_owned()) };
        let alpha = take_f64(STATE, &mut state, "alpha")?;
        let weights = take_f64(STATE, &mut state, "weights")?;
        if alpha.len() != k * k || weights.len() != k {
            return Err(refuse("its size is not that of the set of transformations"));
        }
        if weights.iter().any(|weight| !weight.is_finite() || *weight < 0.0) {
            return Err(refuse("a weight is no number from 0 on"));
        }
        let dirichlets = alpha.chunks_exact(k).map(|alpha| Dirichlet::new(alpha.to_vec())).collect::<Result<_, _>>()?;
        Ok(Self { dirichlets, weights })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(rows: &[[f64; 2]; 2]) -> Vec<f64> {
        rows.iter().flatten().map(|p| p.ln()).collect()
    }

    fn fitted() -> Normality {
        let mut builder = NormalityBuilder::new(2);
        // The first transformation is recognized more surely than the second.
        for step in 0..20 {
            let wobble = f64::from(step % 5) * 0.01;
            builder.push(logs(&[[0.95 - wobble, 0.05 + wobble], [0.2 + 2.0 * wobble, 0.8 - 2.0 * wobble]])).unwrap();
        }
        builder.finish().unwrap()
    }

    fn score(normality: &Normality, score: TableScore, table: &[f64]) -> f64 {
        let mut terms = [0.0; 2];
        normality.terms(score, table, &mut terms).unwrap();
        terms.iter().sum::<f64>() / 2.0
    }

    #[test]
    fn every_score_is_higher_for_an_image_that_the_network_is_unsure_of() {
        let normality = fitted();
        let (usual, unsure) = (logs(&[[0.94, 0.06], [0.24, 0.76]]), logs(&[[0.5, 0.5], [0.5, 0.5]]));
        for way in TableScore::ALL {
            assert!(score(&normality, way, &unsure) > score(&normality, way, &usual), "{way}");
        }
    }

    #[test]
    fn terms_are_those_of_the_formulas() {
        let normality = fitted();
        let table = logs(&[[0.9, 0.1], [0.2, 0.8]]);
        assert!((score(&normality, TableScore::Simple, &table) - 0.5 * (0.1 + 0.2)).abs() < 1e-12);
        let entropy = -0.5 * (0.9f64.ln() * 0.9 + 0.1f64.ln() * 0.1 + 0.2f64.ln() * 0.2 + 0.8f64.ln() * 0.8);
        assert!((score(&normality, TableScore::Entropy, &table) - entropy).abs() < 1e-12);
        let by_hand = |right: usize| {
            let alpha = normality.dirichlets()[right].alpha();
            -(alpha[0] - 1.0) * table[2 * right] - (alpha[1] - 1.0) * table[2 * right + 1]
        };
        assert!((score(&normality, TableScore::Dirichlet, &table) - 0.5 * (by_hand(0) + by_hand(1))).abs() < 1e-9);
    }

    #[test]
    fn a_transformation_that_is_told_surely_weighs_more() {
        let mut builder = NormalityBuilder::new(3);
        for step in 0..20 {
            let w = f64::from(step % 5) * 0.01;
            // The second and the third are confused with each other.
            let rows = [[0.9 - w, 0.06 + w, 0.04], [0.05, 0.48 + w, 0.47 - w], [0.05, 0.47 + w, 0.48 - w]];
            builder.push(rows.iter().flatten().map(|p: &f64| p.ln()).collect()).unwrap();
        }
        let weights = builder.finish().unwrap().weights().to_vec();
        assert!((weights.iter().sum::<f64>() - 3.0).abs() < 1e-9, "{weights:?}");
        assert!(weights[0] > 0.0 && weights.iter().all(|weight| *weight >= 0.0), "{weights:?}");
        let unsure = fitted().weights().to_vec();
        assert!(unsure.iter().all(|weight| weight.is_finite()), "{unsure:?}");
    }

    #[test]
    fn a_stored_state_is_checked() {
        let normality = fitted();
        assert_eq!(Normality::restore(normality.state(), 2).unwrap(), normality);
        assert!(Normality::restore(normality.state(), 3).is_err());
        let mut broken = normality.state();
        broken.tensors.insert("alpha".to_owned(), Tensor::f64([2, 2], vec![1.0, -1.0, 1.0, 1.0]));
        assert!(Normality::restore(broken, 2).is_err());
    }
}
