//! What a user can set of a patch model.

use std::fmt::Display;
use std::str::FromStr;

use nomaly_scorers::Parameter;
use nomaly_scorers::sparse::Atoms;

use super::super::scoring::SCORER;
use super::grid::{Colour, EXPERT_NUMBERS};
use crate::settings::SIGMA;
use crate::{MethodError, Settings};

/// Well-posed for any number of patches, and quick.
pub(super) const DEFAULT_SCORER: &str = "gaussian";

const SIDE: &str = "a whole number of pixels from 2 to 64";
const STEP: &str = "`auto`, or a whole number of pixels from 1 to the patch's side";
const FEATURE: &str = "`raw`, `pca`, `expert` or `sparse`";
const DICTIONARY: &str = "`auto` or a whole number from 1";
const SPARSITY: &str = "a number above 0";
const PATCHES: &str = "a whole number from 100";

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter { name: "patch", default: "15", values: SIDE, summary: "side of a patch, in pixels of the input" },
    Parameter {
        name: "step",
        default: "auto (a third of the side)",
        values: STEP,
        summary: "from one patch to the next; every pixel gets the mean of all patches over it",
    },
    Parameter {
        name: "feature",
        default: "raw",
        values: FEATURE,
        summary: "what a patch is described by: pixels, their principal components, mean with variance and total \
                  variation, or error and sparsity of a code over a learned dictionary",
    },
    Parameter {
        name: "mean",
        default: "keep",
        values: "`keep` or `remove`",
        summary: "whether the mean of each patch stays in it (not for `expert`)",
    },
    Parameter { name: "colour", default: "grey", values: "`grey` or `rgb`", summary: "what a pixel is" },
    Parameter {
        name: "reduce",
        default: "0.95",
        values: "a whole number from 1, or a share of the variance below 1",
        summary: "principal components that `feature=pca` keeps",
    },
    Parameter {
        name: "dictionary",
        default: "auto (twice the numbers of a patch, at most 256)",
        values: DICTIONARY,
        summary: "atoms of the dictionary of `feature=sparse`",
    },
    Parameter {
        name: "sparsity",
        default: "1.2",
        values: SPARSITY,
        summary: "weight of sparsity of `feature=sparse`, in units of the root mean square of a pixel less its mean",
    },
    Parameter {
        name: "max_patches",
        default: "20000",
        values: PATCHES,
        summary: "patches of the training images that are learned from, chosen at random by the seed",
    },
    Parameter {
        name: SCORER,
        default: DEFAULT_SCORER,
        values: "a name from `nomaly list scorers`",
        summary: "what scores a patch; its parameters are settings too",
    },
    SIGMA,
];

/// What a patch is described by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchFeature {
    /// Its pixels.
    Raw,
    /// The projection of its pixels on the principal components of normal patches.
    Pca,
    /// Mean, variance and total variation of each channel.
    Expert,
    /// Error and sparsity of the code of its pixels over a dictionary of normal patches.
    Sparse,
}

const FEATURES: [(&str, PatchFeature); 4] = [
    ("raw", PatchFeature::Raw),
    ("pca", PatchFeature::Pca),
    ("expert", PatchFeature::Expert),
    ("sparse", PatchFeature::Sparse),
];

impl Display for PatchFeature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(FEATURES.iter().find(|(_, feature)| feature == self).map_or("", |(name, _)| name))
    }
}

impl FromStr for PatchFeature {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        FEATURES.iter().find(|(name, _)| *name == text).map(|(_, feature)| *feature).ok_or(())
    }
}

/// How many principal components are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kept {
    /// So many, at least 1; as many as there are where those are fewer.
    Components(usize),
    /// The fewest that explain this share of the variance, above 0 and below 1.
    Share(f64),
}

impl Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Components(count) => write!(f, "{count}"),
            Self::Share(share) => write!(f, "{share}"),
        }
    }
}

impl FromStr for Kept {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Ok(count) = text.parse::<usize>() {
            return if count > 0 { Ok(Self::Components(count)) } else { Err(()) };
        }
        text.parse().ok().filter(|share| *share > 0.0 && *share < 1.0).map(Self::Share).ok_or(())
    }
}

/// Parameters of a patch model, each in its range.
#[derive(Clone, Debug, PartialEq)]
pub struct PatchModelParams {
    /// Side of a patch in pixels of the input, 2 to 64.
    pub side: usize,
    /// Pixels from one patch to the next, 1 to `side`.
    pub step: usize,
    /// What a patch is described by.
    pub feature: PatchFeature,
    /// Whether the mean of each channel is subtracted from a patch first (not for [`PatchFeature::Expert`]).
    pub remove_mean: bool,
    /// Whether a pixel is red, green and blue, or their luma.
    pub rgb: bool,
    /// Principal components that [`PatchFeature::Pca`] keeps.
    pub reduce: Kept,
    /// Atoms of the dictionary of [`PatchFeature::Sparse`].
    pub dictionary: Atoms,
    /// Weight of sparsity of [`PatchFeature::Sparse`], above 0; see [`SparseOptions`](nomaly_scorers::sparse::SparseOptions).
    pub sparsity: f64,
    /// Patches that are learned from, at least 100.
    pub max_patches: usize,
    /// The blur of maps in pixels of the input.
    pub sigma: f64,
}

impl Default for PatchModelParams {
    /// The patches of Carrera et al. (2017), every pixel in nine of them.
    fn default() -> Self {
        Self {
            side: 15,
            step: 5,
            feature: PatchFeature::Raw,
            remove_mean: false,
            rgb: false,
            reduce: Kept::Share(0.95),
            dictionary: Atoms::Auto,
            sparsity: 1.2,
            max_patches: 20_000,
            sigma: crate::map_maker::DEFAULT_SIGMA,
        }
    }
}

impl PatchModelParams {
    pub(super) fn from_settings(settings: &Settings) -> Result<Self, MethodError> {
        let default = Self::default();
        let refuse =
            |key: &str, allowed: &str| MethodError::setting(key, settings.get(key).unwrap_or_default(), allowed);
        let side = settings.value("patch", default.side, SIDE)?;
        if !(2..=64).contains(&side) {
            return Err(refuse("patch", SIDE));
        }
        let step = match settings.get("step") {
            None | Some("auto") => (side / 3).max(1),
            Some(_) => settings.value("step", default.step, STEP)?,
        };
        if !(1..=side).contains(&step) {
            return Err(refuse("step", STEP));
        }
        let choice = |key: &str, [first, second]: [&str; 2], allowed: &str| match settings.get(key) {
            None => Ok(false),
            Some(given) if given == first => Ok(false),
            Some(given) if given == second => Ok(true),
            Some(_) => Err(refuse(key, allowed)),
        };
        let max_patches = settings.value("max_patches", default.max_patches, PATCHES)?;
        if max_patches < 100 {
            return Err(refuse("max_patches", PATCHES));
        }
        let dictionary = match settings.get("dictionary") {
            None => default.dictionary,
            Some(_) => settings.value("dictionary", default.dictionary, DICTIONARY)?,
        };
        if dictionary == Atoms::Count(0) {
            return Err(refuse("dictionary", DICTIONARY));
        }
        let sparsity = settings.value("sparsity", default.sparsity, SPARSITY)?;
        if !(sparsity > 0.0 && sparsity.is_finite()) {
            return Err(refuse("sparsity", SPARSITY));
        }
        Ok(Self {
            side,
            step,
            feature: settings.value("feature", default.feature, FEATURE)?,
            remove_mean: choice("mean", ["keep", "remove"], "`keep` or `remove`")?,
            rgb: choice("colour", ["grey", "rgb"], "`grey` or `rgb`")?,
            reduce: settings.value("reduce", default.reduce, "a whole number from 1, or a share below 1")?,
            dictionary,
            sparsity,
            max_patches,
            sigma: settings.sigma(default.sigma)?,
        })
    }

    pub(super) fn settings(&self) -> Settings {
        Settings::default()
            .with("patch", self.side)
            .with("step", self.step)
            .with("feature", self.feature)
            .with("mean", if self.remove_mean { "remove" } else { "keep" })
            .with("colour", if self.rgb { "rgb" } else { "grey" })
            .with("reduce", self.reduce)
            .with("dictionary", self.dictionary)
            .with("sparsity", self.sparsity)
            .with("max_patches", self.max_patches)
            .with(SIGMA.name, self.sigma)
    }

    pub(super) fn colour(&self) -> Colour {
        if self.rgb { Colour::Rgb } else { Colour::Grey }
    }

    /// Refuses inputs of `[height, width]` pixels that are smaller than a patch.
    pub(super) fn check_input(&self, [height, width]: [usize; 2]) -> Result<(), MethodError> {
        if self.side <= height.min(width) {
            return Ok(());
        }
        let allowed = format!("at most the input's {height} x {width} pixels");
        Err(MethodError::setting("patch", &self.side.to_string(), &allowed))
    }

    /// Numbers that a patch has before it is embedded.
    pub(super) fn patch_numbers(&self) -> usize {
        let channels = self.colour().channels();
        match self.feature {
            PatchFeature::Expert => EXPERT_NUMBERS * channels,
            _ => self.side * self.side * channels,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_written_and_refused() {
        let read = |pairs: &[&str]| PatchModelParams::from_settings(&Settings::parse(pairs).unwrap());
        assert_eq!(read(&[]).unwrap(), PatchModelParams::default());
        let given =
            read(&["patch=9", "feature=pca", "reduce=12", "mean=remove", "colour=rgb", "sigma=0", "dictionary=40"])
                .unwrap();
        assert_eq!((given.step, given.patch_numbers(), given.reduce), (3, 243, Kept::Components(12)));
        assert_eq!(PatchModelParams::from_settings(&given.settings()).unwrap(), given);
        for pair in ["patch=1", "patch=65", "step=0", "step=16", "feature=hog", "mean=no", "colour=red", "reduce=0"] {
            assert!(read(&[pair]).is_err(), "{pair}");
        }
        for pair in ["reduce=1.5", "dictionary=0", "sparsity=0", "sparsity=NaN", "max_patches=99", "sigma=-1"] {
            assert!(read(&[pair]).is_err(), "{pair}");
        }
    }
}
