//! The settings of mixtures.

use std::fmt::Display;
use std::str::FromStr;

use super::MixtureCovariance;
use crate::{Parameter, Params, ScorerError};

/// The most components that are tried where their number is not set.
pub(super) const AUTO: usize = 8;

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "components",
        default: "auto",
        values: "`auto` or a whole number from 1",
        summary: "the number of Gaussians; `auto`: the number from 1 to 8 with the smallest BIC",
    },
    Parameter {
        name: "covariance",
        default: "full",
        values: "`full`, `diagonal`, `tied` or `spherical`",
        summary: "what the Gaussians may look like",
    },
    Parameter {
        name: "floor",
        default: "1e-6",
        values: "a number from 0",
        summary: "the share of the mean variance of the columns that is added to every variance",
    },
    Parameter {
        name: "max_iterations",
        default: "100",
        values: "a whole number from 1",
        summary: "the most steps of EM",
    },
    Parameter {
        name: "seed",
        default: "0",
        values: "a whole number",
        summary: "decides the random choices of the start",
    },
    Parameter {
        name: "starts",
        default: "1",
        values: "a whole number from 1",
        summary: "the number of starts, of which the likeliest is kept",
    },
    Parameter {
        name: "tolerance",
        default: "1e-3",
        values: "a number from 0",
        summary: "EM ends once the mean log-likelihood of a row changes by less",
    },
];

/// How many components a mixture has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Components {
    /// The number from 1 to 8 with the smallest Bayesian information criterion.
    Auto,
    /// So many, from 1.
    Count(usize),
}

impl Display for Components {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Count(count) => count.fmt(f),
        }
    }
}

impl FromStr for Components {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::Count) }
    }
}

/// The settings of a [`Mixture`](super::Mixture).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MixtureOptions {
    /// How many components.
    pub components: Components,
    /// What they may look like.
    pub covariance: MixtureCovariance,
    /// The share, from 0, of the mean variance of the columns that is added to every variance. It keeps covariances
    /// positive definite where a component has few rows, or rows that depend on one another.
    pub floor: f64,
    /// The most steps of EM, from 1.
    pub max_iterations: usize,
    /// Decides the random choices of the start.
    pub seed: u64,
    /// The number of starts, from 1, of which the likeliest is kept.
    pub starts: usize,
    /// EM ends once the mean log-likelihood of a row changes by less.
    pub tolerance: f64,
}

impl Default for MixtureOptions {
    /// As many full Gaussians as the Bayesian information criterion asks for, from one start.
    fn default() -> Self {
        Self {
            components: Components::Auto,
            covariance: MixtureCovariance::Full,
            floor: 1e-6,
            max_iterations: 100,
            seed: 0,
            starts: 1,
            tolerance: 1e-3,
        }
    }
}

impl MixtureOptions {
    /// Reads the parameters of the registry's entry.
    pub(super) fn read(params: &Params) -> Result<Self, ScorerError> {
        params.check(PARAMETERS)?;
        let number = |name| params.read::<f64>(PARAMETERS, name, |value| is_share(*value));
        Ok(Self {
            components: params.read(PARAMETERS, "components", |count| *count != Components::Count(0))?,
            covariance: params.read(PARAMETERS, "covariance", |_| true)?,
            floor: number("floor")?,
            max_iterations: params.read(PARAMETERS, "max_iterations", |count| *count > 0)?,
            seed: params.read(PARAMETERS, "seed", |_| true)?,
            starts: params.read(PARAMETERS, "starts", |count| *count > 0)?,
            tolerance: number("tolerance")?,
        })
    }

    /// Fails where a value is out of its range.
    pub(super) fn check(&self) -> Result<(), ScorerError> {
        let valid = [
            ("components", self.components.to_string(), self.components != Components::Count(0)),
            ("floor", self.floor.to_string(), is_share(self.floor)),
            ("max_iterations", self.max_iterations.to_string(), self.max_iterations > 0),
            ("starts", self.starts.to_string(), self.starts > 0),
            ("tolerance", self.tolerance.to_string(), is_share(self.tolerance)),
        ];
        let Some((name, value, _)) = valid.into_iter().find(|(_, _, valid)| !valid) else { return Ok(()) };
        let expected = PARAMETERS.iter().find(|known| known.name == name).map_or("", |known| known.values);
        Err(ScorerError::Parameter { name: name.to_owned(), value, expected: expected.to_owned() })
    }
}

fn is_share(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}
