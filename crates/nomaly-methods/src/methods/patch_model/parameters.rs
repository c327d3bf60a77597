//! Parameters of patch models.

use nomaly_settings::{Auto, SettingError, Settings, word_or_value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::scoring::DEFAULT_SCORER;
use super::grid::{Color, EXPERT_FEATURES};
use crate::MethodError;
use crate::map_maker::DEFAULT_SIGMA;

/// The features of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
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

/// The treatment of the mean of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PatchMean {
    /// Kept.
    Keep,
    /// Subtracted per channel.
    Remove,
}

word_or_value! {
    /// The number of principal components.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub enum ComponentCount {
        ;
        /// This number, or all if there are fewer.
        Components(usize) { "minimum": 1 },
        /// The fewest that explain this share of the variance.
        Share(f64) { "exclusiveMinimum": 0, "exclusiveMaximum": 1 },
    }
}

/// Parameters of a patch model, besides those of the scorer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PatchModelParams {
    /// Side of a patch.
    #[schemars(extend("minimum" = 2, "maximum" = 64, "x-unit" = "pixels"))]
    pub patch: usize,
    /// From one patch to the next, at most the side; every pixel gets the mean of all patches over it; `auto`: a third
    /// of the side.
    #[schemars(extend("minimum" = 1, "maximum" = 64, "x-unit" = "pixels"))]
    pub step: Auto<usize>,
    /// What a patch is described by: pixels, their principal components, mean with variance and total variation, or
    /// error and sparsity of a code over a learned dictionary.
    pub feature: PatchFeature,
    /// Whether the mean of each patch stays in it (not for `expert`).
    pub mean: PatchMean,
    /// What a pixel is.
    #[schemars(extend("x-formerly" = ["colour"]))]
    pub color: Color,
    /// Principal components that `feature=pca` keeps, or the share of the variance that they explain.
    pub reduce: ComponentCount,
    /// Atoms of the dictionary of `feature=sparse`; `auto`: twice the numbers of a patch, at most 256.
    #[schemars(extend("minimum" = 1))]
    pub dictionary: Auto<usize>,
    /// Weight of sparsity of `feature=sparse`, in units of the root mean square of a pixel less its mean.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub sparsity: f64,
    /// Patches of the training images that are learned from, chosen at random by the seed.
    #[schemars(extend("minimum" = 100))]
    pub max_patches: usize,
    /// What scores a patch; its settings are settings too.
    #[schemars(extend("x-values" = "a name from `nomaly list scorers`"))]
    pub scorer: String,
    /// Standard deviation of the map's blur in pixels of the network's input, the smallest of several `sizes`.
    #[schemars(extend("minimum" = 0, "maximum" = 100, "x-unit" = "pixels"))]
    pub sigma: f64,
}

impl Default for PatchModelParams {
    /// The patches of Carrera et al. (2017); each pixel lies in nine.
    fn default() -> Self {
        Self {
            patch: 15,
            step: Auto::Auto,
            feature: PatchFeature::Raw,
            mean: PatchMean::Keep,
            color: Color::Grey,
            reduce: ComponentCount::Share(0.95),
            dictionary: Auto::Auto,
            sparsity: 1.2,
            max_patches: 20_000,
            scorer: DEFAULT_SCORER.to_owned(),
            sigma: DEFAULT_SIGMA,
        }
    }
}

impl Settings for PatchModelParams {
    fn check(&self) -> Result<(), SettingError> {
        match self.step {
            Auto::Value(step) if step > self.patch => {
                let allowed = "`auto`, or a whole number of pixels from 1 to the patch's side";
                Err(SettingError::value("step", step, allowed))
            }
            _ => Ok(()),
        }
    }
}

impl PatchModelParams {
    /// The step between patches in pixels, from 1 to the side.
    pub(super) fn step(&self) -> usize {
        self.step.unwrap_or((self.patch / 3).max(1))
    }

    /// Rejects inputs of `[height, width]` pixels that are smaller than a patch.
    pub(super) fn check_input(&self, [height, width]: [usize; 2]) -> Result<(), MethodError> {
        if self.patch <= height.min(width) {
            return Ok(());
        }
        let allowed = format!("at most the input's {height} x {width} pixels");
        Err(SettingError::value("patch", self.patch, &allowed).into())
    }

    /// Values of a patch before the embedding.
    pub(super) fn patch_numbers(&self) -> usize {
        let channels = self.color.channels();
        match self.feature {
            PatchFeature::Expert => EXPERT_FEATURES * channels,
            _ => self.patch * self.patch * channels,
        }
    }
}

#[cfg(test)]
mod tests {
    use nomaly_settings::Assignments;

    use super::*;

    #[test]
    fn settings_are_read_written_and_refused() {
        let read = |pairs: &[&str]| Assignments::parse(pairs).unwrap().read::<PatchModelParams>();
        assert_eq!(read(&[]).unwrap(), PatchModelParams::default());
        let given =
            read(&["patch=9", "feature=pca", "reduce=12", "mean=remove", "color=rgb", "sigma=0", "dictionary=40"])
                .unwrap();
        assert_eq!((given.step(), given.patch_numbers(), given.reduce), (3, 243, ComponentCount::Components(12)));
        assert_eq!(Assignments::of(&given).read::<PatchModelParams>().unwrap(), given);
        for pair in [
            "patch=1",
            "patch=65",
            "step=0",
            "step=16",
            "feature=hog",
            "mean=no",
            "color=red",
            "reduce=0",
            "reduce=1.5",
            "dictionary=0",
            "sparsity=0",
            "sparsity=NaN",
            "max_patches=99",
            "sigma=-1",
        ] {
            let name = pair.split('=').next().unwrap();
            assert!(matches!(read(&[pair]), Err(SettingError::Value { name: at, .. }) if at == name), "{pair}");
        }
        let error = read(&["colour=rgb"]).unwrap_err().to_string();
        assert_eq!(error, "setting `colour` is now called `color`");
    }
}
