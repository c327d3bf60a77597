//! Parameters of PatchCore.

use half::f16;
use nomaly_backbones::Backbone;
use nomaly_kernels::neighbours::InvertedIndex;
use nomaly_settings::{Auto, Memory, Names, SettingError, Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PatchCore, RESERVE};
use crate::MethodError;
use crate::map_maker::DEFAULT_SIGMA;
use crate::methods::grid::layer_taps;
use crate::methods::patches::{Joining, PatchGrid, Patching};
use crate::methods::pooled::tap_names;

/// Values per patch in the authors' program.
const OFFICIAL_SIZE: usize = 1024;

/// The program whose patches and distances are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// Channel means over the neighborhood, distances.
    #[default]
    Anomalib,
    /// 1024 bins of the neighborhood, squared distances, no weights.
    Official,
}

impl Variant {
    pub(super) fn joining(self) -> Joining {
        match self {
            Self::Anomalib => Joining::Mean,
            Self::Official => Joining::Bins { size: OFFICIAL_SIZE },
        }
    }
}

/// The precision of the memory bank's values. They are compared in single precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32 bits.
    #[default]
    Single,
    /// Rounded to 16 bits.
    Half,
}

impl Precision {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Half => "half",
        }
    }

    /// Rounds a value of a patch to the precision of the bank.
    ///
    /// # Errors
    /// A value beyond half precision.
    pub(super) fn of(self, value: f32) -> Result<f32, MethodError> {
        match self {
            Self::Single => Ok(value),
            Self::Half => {
                let rounded = f16::from_f32(value);
                if value.is_finite() && !rounded.is_finite() {
                    let allowed = format!("`single` for features such as {value}");
                    return Err(SettingError::value("precision", self.name(), &allowed).into());
                }
                Ok(rounded.to_f32())
            }
        }
    }
}

/// The search index of the memory bank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IndexKind {
    /// Exhaustive search.
    #[default]
    Exact,
    /// The bank is grouped into cells, and only the nearest cells are searched.
    Inverted,
}

/// The search index with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Index {
    Exact,
    /// Searches this many cells.
    Inverted {
        probes: usize,
    },
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// Parameters of PatchCore.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PatchCoreParams {
    /// Layers whose features make a patch; `auto`: those of strides 8 and 16.
    #[schemars(extend("x-values" = "`auto` or names of the backbone's levels joined by commas"))]
    pub layers: Auto<Names>,
    /// How patches are made and compared: channel means and distances, or 1024 bins and squared distances.
    pub variant: Variant,
    /// Share of all patches that the memory bank keeps.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1))]
    pub coreset: f64,
    /// The most patches that a fit keeps, and each update adds, so that the time to score has a bound.
    #[schemars(extend("minimum" = 1))]
    pub bank: Option<usize>,
    /// The most patches that the coreset is chosen from: as many at random of each image, one at least.
    #[schemars(extend("minimum" = 1))]
    pub candidates: Option<usize>,
    /// Layer at whose positions patches lie; `auto` takes the finest of at most 2048 positions.
    pub grid: PatchGrid,
    /// Precision of the bank's numbers; `half` makes the model file half as large.
    pub precision: Precision,
    /// Numbers a patch is projected to while the coreset is chosen, where that halves it at least.
    #[schemars(extend("minimum" = 1))]
    pub projection: Option<usize>,
    /// Whether scores are weighted by the neighbors of the nearest patch (equation 7 of the paper); `auto`: yes, but
    /// not for `variant=official`.
    pub reweighting: Auto<Switch>,
    /// Neighbors of the nearest patch that the weight looks at.
    #[schemars(extend("minimum" = 1))]
    pub neighbours: usize,
    /// Compare patches with the whole bank, or with the nearest of its cells: for large banks; tells its recall.
    pub index: IndexKind,
    /// Cells that `index=inverted` looks into.
    #[schemars(extend("minimum" = 1))]
    pub probes: usize,
    /// Standard deviation of the map's blur in pixels of the network's input, the smallest of several `sizes`.
    #[schemars(extend("minimum" = 0, "maximum" = 100, "x-unit" = "pixels"))]
    pub sigma: f64,
    /// The most training images that are scored to calibrate the decision.
    #[schemars(extend("minimum" = 1))]
    pub held_out: usize,
    /// What the process may take while the bank is built; from 512MiB on.
    pub max_memory: Memory,
}

impl Default for PatchCoreParams {
    fn default() -> Self {
        Self {
            layers: Auto::Auto,
            variant: Variant::Anomalib,
            coreset: 0.1,
            bank: None,
            candidates: None,
            grid: PatchGrid::Finest,
            precision: Precision::Single,
            projection: Some(128),
            reweighting: Auto::Auto,
            neighbours: 9,
            index: IndexKind::Exact,
            probes: InvertedIndex::PROBES,
            sigma: DEFAULT_SIGMA,
            held_out: 200,
            max_memory: Memory::gib(2),
        }
    }
}

impl Settings for PatchCoreParams {
    fn check(&self) -> Result<(), SettingError> {
        if self.max_memory.0 < 2 * RESERVE {
            return Err(SettingError::value("max_memory", self.max_memory, "at least 512MiB"));
        }
        Ok(())
    }
}

impl PatchCoreParams {
    /// How patches are made.
    pub(super) fn patching(&self) -> Patching {
        Patching { joining: self.variant.joining(), grid: self.grid }
    }

    /// The number of neighbors of the nearest patch that weight the score; `None` for no weight.
    pub(super) fn reweighting_neighbors(&self) -> Option<usize> {
        let usual = if self.variant == Variant::Official { Switch::Off } else { Switch::On };
        (self.reweighting.unwrap_or(usual) == Switch::On).then_some(self.neighbours)
    }

    /// How the bank is searched.
    pub(super) fn search(&self) -> Index {
        match self.index {
            IndexKind::Exact => Index::Exact,
            IndexKind::Inverted => Index::Inverted { probes: self.probes },
        }
    }

    /// Checks the layers against the backbone.
    pub(super) fn on(self, backbone: &Backbone) -> Result<PatchCore, MethodError> {
        let taps = layer_taps(&self.layers, backbone, 1)?;
        Ok(PatchCore { params: Self { layers: Auto::Value(tap_names(&taps)), ..self }, taps })
    }
}
