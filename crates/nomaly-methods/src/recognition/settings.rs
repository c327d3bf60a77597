//! The settings of open-set recognition, the same on images and on rows.

use nomaly_scorers::Parameter;
use nomaly_scorers::mixture::{Components, MixtureCovariance, MixtureOptions};

use crate::{MethodError, Settings};

const COMPONENTS: &str = "`auto` or a whole number from 1";
const COVARIANCE: &str = "`auto`, `full`, `diagonal`, `tied` or `spherical`";
const DIMENSIONS: &str = "`auto`, `all` or a whole number from 1";
const FLOOR: &str = "a number from 0";

/// The settings of open-set recognition.
pub const OPEN_SET_PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "dimensions",
        default: "auto",
        values: DIMENSIONS,
        summary: "principal components that features are reduced to; `auto`: from 8 to 64, as many as the smallest class \
                  supports full covariances for",
    },
    Parameter {
        name: "components",
        default: "1",
        values: COMPONENTS,
        summary: "the number of Gaussians of a class; `auto`: the number from 1 to 8 with the smallest BIC",
    },
    Parameter {
        name: "covariance",
        default: "auto",
        values: COVARIANCE,
        summary: "what the Gaussians may look like; `auto`: full where the smallest class has images enough, else diagonal",
    },
    Parameter {
        name: "floor",
        default: "0.01",
        values: FLOOR,
        summary: "the share of the mean variance that is added to every variance",
    },
];

/// How many principal components features are reduced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dimensions {
    Auto,
    All,
    Count(usize),
}

/// What the settings ask for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpenSetSettings {
    dimensions: Dimensions,
    components: Components,
    /// `None` for `auto`.
    covariance: Option<MixtureCovariance>,
    floor: f64,
}

/// The fewest and the most principal components that `auto` chooses.
const AUTO_DIMENSIONS: (usize, usize) = (8, 64);
/// The share of the mean variance that keeps full covariances of few items apart from singular ones.
const DEFAULT_FLOOR: f64 = 0.01;
/// Items for each dimension, and one more, that a full covariance takes: as many as the library asks for.
const ITEMS_A_DIMENSION: usize = 5;

/// Settings with nothing left open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// `None` for features as they are.
    pub dimensions: Option<usize>,
    /// The mixture of Gaussians of a class.
    pub mixture: MixtureOptions,
}

impl OpenSetSettings {
    /// Reads and checks the values of [`OPEN_SET_PARAMETERS`].
    ///
    /// # Errors
    /// A value out of range.
    pub fn from_settings(settings: &Settings) -> Result<Self, MethodError> {
        let dimensions = match settings.get("dimensions").unwrap_or("auto") {
            "auto" => Dimensions::Auto,
            "all" => Dimensions::All,
            given => match given.parse() {
                Ok(count) if count > 0 => Dimensions::Count(count),
                _ => return Err(MethodError::setting("dimensions", given, DIMENSIONS)),
            },
        };
        let components = settings.value("components", Components::Count(1), COMPONENTS)?;
        if components == Components::Count(0) {
            return Err(MethodError::setting("components", "0", COMPONENTS));
        }
        let covariance = match settings.get("covariance").unwrap_or("auto") {
            "auto" => None,
            _ => Some(settings.value("covariance", MixtureCovariance::Full, COVARIANCE)?),
        };
        let floor = settings.value("floor", DEFAULT_FLOOR, FLOOR)?;
        if !(floor.is_finite() && floor >= 0.0) {
            return Err(MethodError::setting("floor", &floor.to_string(), FLOOR));
        }
        Ok(Self { dimensions, components, covariance, floor })
    }

    /// `settings` with all of these.
    pub fn add_to(self, settings: Settings) -> Settings {
        let dimensions = match self.dimensions {
            Dimensions::Auto => "auto".to_owned(),
            Dimensions::All => "all".to_owned(),
            Dimensions::Count(count) => count.to_string(),
        };
        let covariance = self.covariance.map_or("auto".to_owned(), |covariance| covariance.to_string());
        settings
            .with("dimensions", dimensions)
            .with("components", self.components)
            .with("covariance", covariance)
            .with("floor", self.floor)
    }

    /// What follows for rows of `dim` columns of which every fit sees at least `items` of each class and `all` in all.
    ///
    /// The numbers of the smallest fit decide, so that held-out items are scored by models of the same kind as the final
    /// one; that is what makes their scores comparable.
    ///
    /// # Errors
    /// Settings that the items are too few for.
    pub fn plan(&self, dim: usize, items: usize, all: usize, seed: u64) -> Result<Plan, MethodError> {
        let supported = (items / ITEMS_A_DIMENSION).saturating_sub(1);
        let wanted = match self.dimensions {
            Dimensions::All => dim,
            Dimensions::Auto => supported.clamp(AUTO_DIMENSIONS.0, AUTO_DIMENSIONS.1),
            Dimensions::Count(count) if count > dim => {
                let allowed = format!("`auto`, `all` or at most the {dim} columns of the features");
                return Err(MethodError::setting("dimensions", &count.to_string(), &allowed));
            }
            Dimensions::Count(count) => count,
        };
        // So many directions are known from `all` rows.
        let known = wanted.min(all.saturating_sub(1)).max(1);
        let dimensions = (known < dim && self.dimensions != Dimensions::All).then_some(known);
        let enough = supported >= dimensions.unwrap_or(dim);
        let covariance = match self.covariance {
            Some(MixtureCovariance::Full) if !enough => {
                let allowed = format!(
                    "`auto`, `diagonal`, `tied` or `spherical` here: full ones of {} dimensions take {} items of each class \
                     in every fit, and the smallest class has {items}",
                    dimensions.unwrap_or(dim),
                    ITEMS_A_DIMENSION * (dimensions.unwrap_or(dim) + 1),
                );
                return Err(MethodError::setting("covariance", "full", &allowed));
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
    use super::*;

    fn read(pairs: &[&str]) -> Result<OpenSetSettings, MethodError> {
        OpenSetSettings::from_settings(&Settings::parse(pairs).unwrap())
    }

    #[test]
    fn settings_are_read_written_and_refused() {
        for pairs in
            [&[][..], &["dimensions=all", "components=auto"], &["dimensions=9", "covariance=tied", "floor=0.5"]]
        {
            let settings = read(pairs).unwrap();
            let stored = settings.add_to(Settings::default());
            assert_eq!(OpenSetSettings::from_settings(&stored).unwrap(), settings, "{stored:?}");
            let known = OPEN_SET_PARAMETERS.iter().map(|parameter| parameter.name);
            assert!(stored.iter().map(|(name, _)| name).eq({
                let mut names: Vec<_> = known.collect();
                names.sort_unstable();
                names
            }));
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
            assert!(read(&[pair]).is_err(), "{pair}");
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
