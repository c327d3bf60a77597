//! Parameters with constants of their own, and clipping.

use std::fmt;

use nomaly_kernels::Isa;
use nomaly_kernels::training::{Gradient, TrainingError, global_norm, norm_factor};

use super::rule::Rule;
use crate::trainable::error::TrainableError;

/// Parameters of a network by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParameterNames {
    /// Those whose names begin so, for example a part of the network.
    Prefix(String),
    /// Those whose names end so, for example `.bias`.
    Suffix(String),
    /// Those with these names.
    Listed(Vec<String>),
}

impl ParameterNames {
    /// Whether this parameter is among them.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::Prefix(prefix) => name.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => name.ends_with(suffix.as_str()),
            Self::Listed(names) => names.iter().any(|listed| listed == name),
        }
    }
}

impl fmt::Display for ParameterNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) => write!(f, "`{prefix}*`"),
            Self::Suffix(suffix) => write!(f, "`*{suffix}`"),
            Self::Listed(names) => write!(f, "`{}`", names.join("`, `")),
        }
    }
}

/// Parameters with a learning rate or a weight decay of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterGroup {
    /// Which parameters.
    pub names: ParameterNames,
    /// Factor of the rule's learning rate; 1 leaves it.
    pub rate_factor: f64,
    /// Weight decay instead of the rule's.
    pub weight_decay: Option<f64>,
}

impl ParameterGroup {
    /// The rule of these parameters.
    pub(super) fn rule(&self, rule: Rule) -> Rule {
        let rule = rule.with_rate(rule.rate() * self.rate_factor);
        self.weight_decay.map_or(rule, |weight_decay| rule.with_weight_decay(weight_decay))
    }
}

/// How gradients are limited before a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clip {
    /// The norm of all of them together is at most this, as by `torch.nn.utils.clip_grad_norm_`.
    Norm(f64),
    /// The magnitude of each value is at most this, as by `torch.nn.utils.clip_grad_value_`.
    Value(f64),
}

/// What an optimizer does besides its rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OptimizerOptions {
    /// Parameters with constants of their own. A parameter belongs to the first group that names it; each group must
    /// name one.
    pub groups: Vec<ParameterGroup>,
    /// How gradients are limited before each step.
    pub clip: Option<Clip>,
}

impl OptimizerOptions {
    /// The rule of a parameter with the constants of its group.
    pub fn rule_of(&self, rule: Rule, parameter: &str) -> Rule {
        let group = self.groups.iter().find(|group| group.names.contains(parameter));
        group.map_or(rule, |group| group.rule(rule))
    }

    /// Rejects groups without a member among the `parameters`.
    pub(crate) fn check<'a>(&self, parameters: impl Iterator<Item = &'a str> + Clone) -> Result<(), TrainableError> {
        match self.groups.iter().find(|group| !parameters.clone().any(|name| group.names.contains(name))) {
            Some(group) => Err(TrainableError::EmptyGroup { names: group.names.to_string() }),
            None => Ok(()),
        }
    }
}

/// What the step does to each value of the gradients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clipping {
    factor: f32,
    limit: f32,
}

impl Clipping {
    /// The clipping of these gradients, which are all of one step.
    pub(super) fn new(clip: Option<Clip>, isa: Isa, gradients: &[&[f32]]) -> Result<Self, TrainingError> {
        Ok(match clip {
            None => Self { factor: 1.0, limit: f32::INFINITY },
            Some(Clip::Value(limit)) => Self { factor: 1.0, limit: limit as f32 },
            Some(Clip::Norm(max_norm)) => {
                let factor = norm_factor(global_norm(isa, gradients)?, max_norm) as f32;
                Self { factor, limit: f32::INFINITY }
            }
        })
    }

    /// A gradient that the step clips as it reads it.
    pub(super) fn of(self, values: &[f32]) -> Gradient<'_> {
        let Self { factor, limit } = self;
        Gradient { values, factor, limit }
    }
}
