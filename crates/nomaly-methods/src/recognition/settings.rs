//! The settings of open-set recognition, the same on images and on rows.

use nomaly_scorers::mixture::{MixtureCovariance, MixtureOptions};
use nomaly_settings::{Auto, SettingError, Settings, word_or_value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::MethodError;

word_or_value! {
    /// The number of principal components of the features.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Dimensions {
        /// As many as the smallest class supports full covariances for.
        Auto = "auto",
        /// All: features are not reduced.
        All = "all",
        ;
        /// This number.
        Count(usize) { "minimum": 1 },
    }
}

/// The settings of open-set recognition, the same on images and on rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OpenSetParams {
    /// Principal components that features are reduced to; `auto`: from 8 to 64, as many as the smallest class supports
    /// full covariances for.
    pub dimensions: Dimensions,
    /// The number of Gaussians of a class; `auto`: the number from 1 to 8 with the smallest BIC.
    #[schemars(extend("minimum" = 1))]
    pub components: Auto<usize>,
    /// What the Gaussians may look like; `auto`: full where the smallest class has images enough, else diagonal.
    pub covariance: Auto<MixtureCovariance>,
    /// The share of the mean variance that is added to every variance.
    #[schemars(extend("minimum" = 0))]
    pub floor: f64,
}

impl Default for OpenSetParams {
    fn default() -> Self {
        // The floor keeps full covariances of few items from being singular.
        Self { dimensions: Dimensions::Auto, components: Auto::Value(1), covariance: Auto::Auto, floor: 0.01 }
    }
}

impl Settings for OpenSetParams {}

/// The range of principal components that `auto` chooses from.
const AUTO_DIMENSIONS: (usize, usize) = (8, 64);
/// A full covariance needs this many items per dimension, plus one.
const ITEMS_PER_DIMENSION: usize = 5;

/// Settings with every `auto` resolved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// `None` for unreduced features.
    pub dimensions: Option<usize>,
    /// The mixture of Gaussians of a class.
    pub mixture: MixtureOptions,
}

impl OpenSetParams {
    /// Resolves the settings for rows of `dim` columns, where every fit has at least `items` of each class and `all` in
    /// total.
    ///
    /// The smallest fit decides, so that held-out items are scored by models of the same kind as the final one, which
    /// makes their scores comparable.
    ///
    /// # Errors
    /// Settings that need more items.
    pub fn plan(&self, dim: usize, items: usize, all: usize, seed: u64) -> Result<Plan, MethodError> {
        let supported = (items / ITEMS_PER_DIMENSION).saturating_sub(1);
        let wanted = match self.dimensions {
            Dimensions::All => dim,
            Dimensions::Auto => supported.clamp(AUTO_DIMENSIONS.0, AUTO_DIMENSIONS.1),
            Dimensions::Count(count) if count > dim => {
                let allowed = format!("`auto`, `all` or at most the {dim} columns of the features");
                return Err(SettingError::value("dimensions", count, &allowed).into());
            }
            Dimensions::Count(count) => count,
        };
        // `all` rows span at most this many directions.
        let known = wanted.min(all.saturating_sub(1)).max(1);
        let dimensions = (known < dim && self.dimensions != Dimensions::All).then_some(known);
        let enough = supported >= dimensions.unwrap_or(dim);
        let covariance = match self.covariance.value() {
            Some(MixtureCovariance::Full) if !enough => {
                let allowed = format!(
                    "`auto`, `diagonal`, `tied` or `spherical` here: full ones of {} dimensions take {} items of each class \
                     in every fit, and the smallest class has {items}",
                    dimensions.unwrap_or(dim),
                    ITEMS_PER_DIMENSION * (dimensions.unwrap_or(dim) + 1),
                );
                return Err(SettingError::value("covariance", "full", &allowed).into());
            }
            Some(covariance) => covariance,
            None if enough => MixtureCovariance::Full,
            None => MixtureCovariance::Diagonal,
        };
        let mixture = MixtureOptions {
            components: self.components,
            covariance,
            floor: self.floor,
            seed,
            ..MixtureOptions::default()
        };
        Ok(Plan { dimensions, mixture })
    }
}

#[cfg(test)]
mod tests {
    use nomaly_settings::Assignments;

    use super::*;

    fn read(pairs: &[&str]) -> Result<OpenSetParams, SettingError> {
        Assignments::parse(pairs).unwrap().read()
    }

    #[test]
    fn settings_are_read_written_and_refused() {
        for pairs in
            [&[][..], &["dimensions=all", "components=auto"], &["dimensions=9", "covariance=tied", "floor=0.5"]]
        {
            let settings = read(pairs).unwrap();
            let stored = Assignments::of(&settings);
            assert_eq!(stored.read::<OpenSetParams>().unwrap(), settings, "{stored:?}");
        }
        for pair in [
            "dimensions=0",
            "dimensions=x",
            "components=0",
            "components=-1",
            "covariance=round",
            "floor=-1",
            "floor=inf",
        ] {
            let name = pair.split('=').next().unwrap();
            assert!(matches!(read(&[pair]), Err(SettingError::Value { name: at, .. }) if at == name), "{pair}");
        }
    }

    #[test]
    fn the_smallest_class_decides_what_is_fitted() {
        let plan = |pairs: &[&str], dim, items| read(pairs).unwrap().plan(dim, items, 3 * items, 0).unwrap();
        let kind = |plan: Plan| (plan.dimensions, plan.mixture.covariance);
        assert_eq!(kind(plan(&[], 1280, 1000)), (Some(64), MixtureCovariance::Full));
        assert_eq!(kind(plan(&[], 1280, 200)), (Some(39), MixtureCovariance::Full));
        assert_eq!(kind(plan(&[], 1280, 84)), (Some(15), MixtureCovariance::Full));
        assert_eq!(kind(plan(&[], 1280, 44)), (Some(8), MixtureCovariance::Diagonal));
        assert_eq!(kind(plan(&[], 1280, 3)), (Some(8), MixtureCovariance::Diagonal));
        assert_eq!(kind(plan(&[], 4, 1000)), (None, MixtureCovariance::Full));
        assert_eq!(kind(plan(&["dimensions=all"], 1280, 1000)), (None, MixtureCovariance::Diagonal));
        let refused = |pairs: &[&str]| read(pairs).unwrap().plan(30, 100, 300, 0).unwrap_err().to_string();
        assert!(refused(&["dimensions=31"]).contains("at most the 30"));
        let message = refused(&["covariance=full", "dimensions=20"]);
        assert!(message.contains("take 105 items") && message.contains("has 100"), "{message}");
    }
}
