//! What can be set, and what follows from it.

use std::str::FromStr;

use half::f16;
use nomaly_backbones::Backbone;
use nomaly_kernels::neighbours::InvertedIndex;
use nomaly_scorers::Parameter;

use super::{PatchCore, RESERVE};
use crate::map_maker::DEFAULT_SIGMA;
use crate::methods::grid::layer_taps;
use crate::methods::patches::{Joining, PatchGrid, Patching};
use crate::settings::{Memory, SIGMA};
use crate::{MethodError, Settings};

/// Numbers a patch in the authors' program.
const OFFICIAL_SIZE: usize = 1024;

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "layers",
        default: "auto (strides 8 and 16)",
        values: "`auto`, or names of the backbone's levels joined by commas",
        summary: "layers whose features make a patch",
    },
    Parameter {
        name: "variant",
        default: "anomalib",
        values: "`anomalib` or `official`",
        summary: "how patches are made and compared: channel means and distances, or 1024 bins and squared distances",
    },
    Parameter {
        name: "coreset",
        default: "0.1",
        values: "a share above 0 and at most 1",
        summary: "share of all patches that the memory bank keeps",
    },
    Parameter {
        name: "bank",
        default: "none",
        values: "a whole number from 1, or `none`",
        summary: "the most patches that a fit keeps, and each update adds, so that the time to score has a bound",
    },
    Parameter {
        name: "candidates",
        default: "none",
        values: "a whole number from 1, or `none`",
        summary: "the most patches that the coreset is chosen from: as many at random of each image, one at least",
    },
    Parameter {
        name: "grid",
        default: "finest",
        values: PatchGrid::ALLOWED,
        summary: "layer at whose positions patches lie; `auto` takes the finest of at most 2048 positions",
    },
    Parameter {
        name: "precision",
        default: "single",
        values: "`single` or `half`",
        summary: "precision of the bank's numbers; `half` makes the model file half as large",
    },
    Parameter {
        name: "projection",
        default: "128",
        values: "a whole number from 1, or `none`",
        summary: "numbers a patch is projected to while the coreset is chosen, where that halves it at least",
    },
    Parameter {
        name: "reweighting",
        default: "on (off for `variant=official`)",
        values: "`on` or `off`",
        summary: "whether scores are weighted by the neighbours of the nearest patch (equation 7 of the paper)",
    },
    Parameter {
        name: "neighbours",
        default: "9",
        values: "a whole number from 1",
        summary: "neighbours of the nearest patch that the weight looks at",
    },
    Parameter {
        name: "index",
        default: "exact",
        values: "`exact` or `inverted`",
        summary: "compare patches with the whole bank, or with the nearest of its cells: for large banks; tells its recall",
    },
    Parameter {
        name: "probes",
        default: "16",
        values: "a whole number from 1",
        summary: "cells that `index=inverted` looks into",
    },
    SIGMA,
    Parameter {
        name: "held_out",
        default: "200",
        values: "a whole number from 1",
        summary: "the most training images that are scored to calibrate the decision",
    },
    Parameter {
        name: "max_memory",
        default: "2GiB",
        values: "a number of bytes, with KiB, MiB or GiB",
        summary: "what the process may take while the bank is built; from 512MiB on",
    },
];

/// Which program's patches and distances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Channel means over the neighbourhood, distances.
    #[default]
    Anomalib,
    /// 1024 bins of the neighbourhood, squared distances, no weights.
    Official,
}

impl Variant {
    pub(super) fn joining(self) -> Joining {
        match self {
            Self::Anomalib => Joining::Mean,
            Self::Official => Joining::Bins { size: OFFICIAL_SIZE },
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Anomalib => "anomalib",
            Self::Official => "official",
        }
    }
}

/// Of the numbers of the memory bank, which are compared in single precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32 bits.
    #[default]
    Single,
    /// Rounded to 16 bits.
    Half,
}

impl Precision {
    /// What users may write.
    const ALLOWED: &str = "`single` or `half`";

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Half => "half",
        }
    }

    /// A number of a patch as the bank has it.
    ///
    /// # Errors
    /// A number beyond half precision.
    pub(super) fn of(self, value: f32) -> Result<f32, MethodError> {
        match self {
            Self::Single => Ok(value),
            Self::Half => {
                let rounded = f16::from_f32(value);
                if value.is_finite() && !rounded.is_finite() {
                    let allowed = format!("`single` for features such as {value}");
                    return Err(MethodError::setting("precision", self.name(), &allowed));
                }
                Ok(rounded.to_f32())
            }
        }
    }
}

impl FromStr for Precision {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        [Self::Single, Self::Half].into_iter().find(|precision| precision.name() == name).ok_or(())
    }
}

/// How the memory bank is searched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Index {
    /// Every patch is compared with the whole bank.
    #[default]
    Exact,
    /// The bank is grouped into cells, and a patch is compared with those of the nearest cells only.
    Inverted {
        /// How many cells, at least 1.
        probes: usize,
    },
}

/// Parameters of PatchCore before they are checked against a backbone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PatchCoreParams {
    /// Whose patches and distances.
    pub variant: Variant,
    /// At which positions patches lie.
    pub grid: PatchGrid,
    /// Share of all patches that the memory bank keeps, in (0, 1].
    pub coreset: f64,
    /// The most patches that the memory bank keeps.
    pub bank: Option<usize>,
    /// The most patches that the coreset is chosen from.
    pub candidates: Option<usize>,
    /// Of the numbers of the memory bank.
    pub precision: Precision,
    /// Numbers a patch is projected to while the coreset is chosen; `None` for no projection.
    pub projection: Option<usize>,
    /// Neighbours of the nearest patch that weigh the score; `None` for no weight.
    pub reweighting: Option<usize>,
    /// How the bank is searched.
    pub index: Index,
    /// Standard deviation of the map's blur in pixels of the network's input; 0 for none.
    pub sigma: f64,
    /// The most training images that are scored to calibrate the decision, at least 1.
    pub held_out: usize,
    /// What the process may take while the bank is built.
    pub max_memory: Memory,
}

impl Default for PatchCoreParams {
    fn default() -> Self {
        Self {
            variant: Variant::Anomalib,
            grid: PatchGrid::Finest,
            coreset: 0.1,
            bank: None,
            candidates: None,
            precision: Precision::Single,
            projection: Some(128),
            reweighting: Some(9),
            index: Index::Exact,
            sigma: DEFAULT_SIGMA,
            held_out: 200,
            max_memory: Memory::gib(2),
        }
    }
}

impl PatchCoreParams {
    /// Reads and checks the values that are set.
    ///
    /// # Errors
    /// A value out of range.
    pub fn from_settings(settings: &Settings) -> Result<Self, MethodError> {
        let default = Self::default();
        let refuse =
            |key: &str, allowed: &str| Err(MethodError::setting(key, settings.get(key).unwrap_or_default(), allowed));
        let variant = match settings.get("variant") {
            None | Some("anomalib") => Variant::Anomalib,
            Some("official") => Variant::Official,
            Some(_) => return refuse("variant", "`anomalib` or `official`"),
        };
        let neighbours = settings.count("neighbours")?.or(default.reweighting);
        let reweighting = match (settings.get("reweighting"), variant) {
            (Some("on"), _) | (None, Variant::Anomalib) => neighbours,
            (Some("off"), _) | (None, Variant::Official) => None,
            _ => return refuse("reweighting", "`on` or `off`"),
        };
        let count = |key: &str, default: Option<usize>| match settings.get(key) {
            Some("none") => Ok(None),
            _ => settings.count(key).map(|count| count.or(default)),
        };
        let projection = count("projection", default.projection)?;
        let probes = settings.count("probes")?.unwrap_or(InvertedIndex::PROBES);
        let index = match settings.get("index") {
            None | Some("exact") => Index::Exact,
            Some("inverted") => Index::Inverted { probes },
            Some(_) => return refuse("index", "`exact` or `inverted`"),
        };
        let max_memory = settings.value("max_memory", default.max_memory, Memory::ALLOWED)?;
        if max_memory.0 < 2 * RESERVE {
            return refuse("max_memory", "at least 512MiB");
        }
        Ok(Self {
            variant,
            grid: settings.value("grid", default.grid, PatchGrid::ALLOWED)?,
            coreset: settings.share("coreset", default.coreset)?,
            bank: count("bank", default.bank)?,
            candidates: count("candidates", default.candidates)?,
            precision: settings.value("precision", default.precision, Precision::ALLOWED)?,
            projection,
            reweighting,
            index,
            sigma: settings.sigma(default.sigma)?,
            held_out: settings.count("held_out")?.unwrap_or(default.held_out),
            max_memory,
        })
    }

    /// How patches are made.
    pub(super) fn patching(&self) -> Patching {
        Patching { joining: self.variant.joining(), grid: self.grid }
    }

    /// Checks the layers against the backbone.
    pub(super) fn check(self, settings: &Settings, backbone: &Backbone) -> Result<PatchCore, MethodError> {
        Ok(PatchCore { params: self, taps: layer_taps(settings, backbone, 1)? })
    }
}
