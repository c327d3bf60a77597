//! Errors of fitting, scoring, restoring and deciding.

use nomaly_kernels::neighbours::NeighboursError;
use nomaly_registry::UnknownName;
use nomaly_settings::SettingError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScorerError {
    /// Rows have another number of columns than the scorer was fitted on.
    #[error("rows have {got} columns, but the scorer was fitted on {expected}")]
    Dimension {
        /// The number of columns of the fit.
        expected: usize,
        /// The number of columns of the rows.
        got: usize,
    },
    /// Rows without columns.
    #[error("rows of features have no columns")]
    NoColumns,
    /// A feature is NaN or infinite.
    #[error("feature {column} of row {row} is not a finite number")]
    NonFiniteFeature {
        /// The row, from 0.
        row: usize,
        /// The column, from 0.
        column: usize,
    },
    /// Too few rows for a fit.
    #[error("{what} needs at least {needed} rows, but there are {got}")]
    TooFewRows {
        /// The fit that needs them.
        what: &'static str,
        /// The least number of rows.
        needed: usize,
        /// The number of rows given.
        got: usize,
    },
    /// All rows are equal, so there is no spread to measure distances by.
    #[error("all {rows} rows are equal: there is no spread to measure distances by")]
    ConstantRows {
        /// The number of rows.
        rows: u64,
    },
    /// The estimate of the covariance has no inverse.
    #[error("the {estimate} covariance of {rows} rows in {dim} dimensions is singular{advice}")]
    SingularCovariance {
        /// The name of the estimate.
        estimate: &'static str,
        /// The number of rows.
        rows: u64,
        /// The number of columns.
        dim: usize,
        /// Advice: the rest of the sentence.
        advice: String,
    },
    /// The singular value decomposition did not converge.
    #[error("the singular value decomposition of {rows} rows in {dim} dimensions did not converge")]
    NoConvergence {
        /// The number of rows.
        rows: usize,
        /// The number of columns.
        dim: usize,
    },
    /// The rows of a class cannot be modelled.
    #[error("class `{class}`: {reason}")]
    Class {
        /// The class.
        class: String,
        /// Why not.
        reason: String,
    },
    /// The caller asked long work to stop.
    #[error("cancelled")]
    Cancelled,
    /// An iteration did not converge, or its numbers left the range of floating point.
    #[error("{what} failed numerically: {reason}")]
    Numerical {
        /// What was computed.
        what: &'static str,
        /// What happened.
        reason: String,
    },
    /// The scorer does not model a probability density.
    #[error("scorer `{kind}` has no likelihood: it does not model a density")]
    NoDensity {
        /// The kind of the scorer.
        kind: String,
    },
    /// A setting that cannot be used, or an argument that does not fit the others.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// No scorer of that name.
    #[error(transparent)]
    UnknownName(#[from] UnknownName),
    /// The neighbour search refused its input.
    #[error(transparent)]
    Neighbours(#[from] NeighboursError),
    /// The requested instruction set is unknown or absent.
    #[error("{0}")]
    InstructionSet(String),
    /// A stored scorer cannot be restored.
    #[error("stored scorer `{kind}`{problem}")]
    Stored {
        /// The kind of the stored scorer.
        kind: String,
        /// What is wrong with it: the rest of the sentence.
        problem: String,
    },
    /// A decision rule was given too few scores.
    #[error("{what} needs at least {needed} held-out scores, but there are {got}")]
    TooFewScores {
        /// The rule.
        what: &'static str,
        /// The least number of scores.
        needed: usize,
        /// The number of scores given.
        got: usize,
    },
    /// Too few different scores in the tail for a model of it.
    #[error("the held-out scores above {initial} take {distinct} different values, and a tail needs at least {needed}")]
    ConstantTail {
        /// The number of different scores.
        distinct: usize,
        /// The score above which they lie.
        initial: f64,
        /// The least number of different scores.
        needed: usize,
    },
    /// All held-out scores are equal, so changes cannot be standardized.
    #[error("all {n} held-out scores are equal: there is no spread to measure changes by")]
    ConstantScores {
        /// The number of scores.
        n: usize,
    },
    /// A held-out score is NaN or infinite.
    #[error("held-out score {index} is {value}, which is not a finite number")]
    NonFiniteScore {
        /// Its index in the list.
        index: usize,
        /// The score.
        value: f64,
    },
}
