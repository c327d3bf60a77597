//! The number of components of a subspace.

use nomaly_settings::{SettingError, word_or_value};

use crate::ScorerError;

word_or_value! {
    /// How many leading components are kept.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub enum KeptComponents {
        ;
        /// This many; those beyond the numerical rank are no directions of the rows and are not counted.
        Count(usize) { "minimum": 1 },
        /// As few as together explain this share of the variance.
        Share(f64) { "exclusiveMinimum": 0, "exclusiveMaximum": 1 },
    }
}

/// The form in model files.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(remote = "KeptComponents", rename_all = "kebab-case")]
pub(super) enum Stored {
    Count(usize),
    Share(f64),
}

impl KeptComponents {
    /// The number of components to keep, given their variances in descending order; for a share, the fewest that
    /// explain more than it.
    pub(super) fn of(self, variances: &[f64]) -> usize {
        match self {
            Self::Count(count) => count.min(variances.len()),
            Self::Share(share) => {
                let total: f64 = variances.iter().sum();
                let mut cumulated = 0.0;
                let exceeds = |variance: &f64| {
                    cumulated += variance;
                    cumulated / total > share
                };
                // Rounding may leave the sum slightly below the total.
                variances.iter().position(exceeds).map_or(variances.len(), |at| at + 1)
            }
        }
    }

    /// Rejects more than `most` components, the number that the rows have.
    ///
    /// # Errors
    /// [`ScorerError::Setting`].
    pub(super) fn check_at_most(self, most: usize) -> Result<(), ScorerError> {
        let Self::Count(count) = self else { return Ok(()) };
        if count <= most {
            return Ok(());
        }
        let counts = if most == 0 { String::new() } else { format!(" or a whole number from 1 to {most}") };
        let expected = format!("a number above 0 and below 1{counts} for these rows");
        Err(SettingError::value("components", count, &expected).into())
    }
}
