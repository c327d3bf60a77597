//! PatchCore: the distance of every patch to the nearest of a memory bank of normal patches.
//!
//! # What it computes
//! Patch features of two layers, each joined with its neighbourhood, are collected from all good images, and a coreset of
//! them, chosen greedily so that every patch is near one that was kept, becomes the memory bank. The map is each patch's
//! distance to the nearest of the bank, enlarged bilinearly and blurred. The score of the image is the largest distance,
//! weighted down where the nearest patch of the bank is itself far from its neighbours.
//!
//! # When to use
//! Where accuracy counts more than time to fit: items need not be aligned, and few good images suffice. Scoring compares
//! every patch with the bank; `index=inverted` looks at a part of it only.
//!
//! # Parameters
//! `layers`, `variant`, `coreset`, `projection`, `neighbours`, `reweighting`, `index`, `probes`, `sigma`, `held_out`,
//! `max_memory`; see [`PatchCoreParams`].
//!
//! # Variants
//! `anomalib` averages each channel over its neighbourhood and takes plain distances; `official` averages the
//! neighbourhood's values into 1024 bins, takes squared distances and no weights, as the authors' program does.
//!
//! # Memory
//! Fitting stays within `max_memory`: where the patches of all images do not fit, they are taken in parts of as many images
//! as do, and each part gives its share of the bank. Where even the bank does not fit, it is made smaller. Both are told.
//!
//! # Held-out scores
//! A training image is compared with the bank without the patches of its whole group. At most `held_out` images, chosen
//! by the seed, are. The comparison is exact with every `index`: what an inverted index returns is hardly farther away,
//! and how much is told.
//!
//! # Reference
//! Roth, Pemula, Zepeda, Schölkopf, Brox and Gehler, *Towards Total Recall in Industrial Anomaly Detection*, 2022, section 3.

mod bank;
mod builder;

use std::collections::BTreeMap;

use nomaly_backbones::{Backbone, TapRequest};
use nomaly_kernels::Isa;
use nomaly_kernels::neighbours::{InvertedIndex, InvertedOptions, InvertedParts, Metric};
use nomaly_scorers::{Parameter, State, Tensor};
use nomaly_store::Progress;
use serde::{Deserialize, Serialize};

use self::bank::{MemoryBank, Piece, describe_recall};
use self::builder::BankBuilder;
use super::grid::{layer_taps, layers_setting};
use super::patches::{Joining, PatchShape};
use crate::features::{FeatureBatch, FeatureSource};
use crate::maps::{DEFAULT_SIGMA, MapMaker};
use crate::method::{Cost, FitContext, FittedMethod, HeldOut, Method, MethodEntry, MethodFit, MethodScore, Published};
use crate::settings::{Memory, SIGMA};
use crate::state::{only, take, take_f64};
use crate::{DetectorError, Settings};

const NAME: &str = "patchcore";
/// An image to leave out, one to compare it with, and one to spare.
const MIN_IMAGES: usize = 3;
/// Of `max_memory`, what the process takes beside patches and bank: network, images, program.
const RESERVE: u64 = 256 << 20;
/// Images whose patches tell how much an inverted index finds.
const RECALL_IMAGES: usize = 4;
/// Numbers a patch in the authors' program.
const OFFICIAL_SIZE: usize = 1024;

const PARAMETERS: &[Parameter] = &[
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

/// The registry's entry.
pub(crate) const ENTRY: MethodEntry = MethodEntry {
    name: NAME,
    summary: "distance of every patch to the nearest in a memory bank of normal ones",
    paper: "Roth, Pemula, Zepeda, Schölkopf, Brox, Gehler: Towards Total Recall in Industrial Anomaly Detection (2022)",
    maps: true,
    min_images: MIN_IMAGES,
    cost: Cost {
        fit: "one pass over the images, the coreset, and a comparison with the bank for up to 200 images",
        predict: "one pass, and patches × bank distances",
        memory: "at most `max_memory` to fit; the bank afterwards",
    },
    parameters: PARAMETERS,
    more_parameters: None,
    backbone: None,
    defaults: &[],
    trains: false,
    published: &[
        Published {
            pixel_auroc: Some(98.1),
            aupro: Some(94.4),
            ..Published::image("MVTec AD, Wide-ResNet-50-2, 10 %", 99.2)
        },
        Published { pixel_auroc: Some(98.0), ..Published::image("MVTec AD, Wide-ResNet-50-2, anomalib", 98.0) },
        Published { pixel_auroc: Some(97.6), ..Published::image("MVTec AD, ResNet-18, anomalib", 97.3) },
    ],
    one_vs_all: &[],
    build: |settings, backbone| Ok(Box::new(PatchCoreParams::from_settings(settings)?.check(settings, backbone)?)),
};

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
    fn joining(self) -> Joining {
        match self {
            Self::Anomalib => Joining::Mean,
            Self::Official => Joining::Bins { size: OFFICIAL_SIZE },
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Anomalib => "anomalib",
            Self::Official => "official",
        }
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
    /// Share of all patches that the memory bank keeps, in (0, 1].
    pub coreset: f64,
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
            coreset: 0.1,
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
    fn from_settings(settings: &Settings) -> Result<Self, DetectorError> {
        let default = Self::default();
        let refuse =
            |key: &str, allowed: &str| Err(DetectorError::setting(key, settings.get(key).unwrap_or_default(), allowed));
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
        let projection = match settings.get("projection") {
            Some("none") => None,
            _ => settings.count("projection")?.or(default.projection),
        };
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
            coreset: settings.share("coreset", default.coreset)?,
            projection,
            reweighting,
            index,
            sigma: settings.sigma(default.sigma)?,
            held_out: settings.count("held_out")?.unwrap_or(default.held_out),
            max_memory,
        })
    }

    /// Checks the layers against the backbone.
    fn check(self, settings: &Settings, backbone: &Backbone) -> Result<PatchCore, DetectorError> {
        Ok(PatchCore { params: self, taps: layer_taps(settings, backbone, 1)? })
    }
}

/// PatchCore with checked parameters.
#[derive(Clone, Debug)]
pub struct PatchCore {
    params: PatchCoreParams,
    taps: Vec<TapRequest>,
}

impl Method for PatchCore {
    fn name(&self) -> &'static str {
        NAME
    }

    fn taps(&self) -> &[TapRequest] {
        &self.taps
    }

    fn settings(&self) -> Settings {
        let PatchCoreParams { variant, coreset, projection, reweighting, index, sigma, held_out, max_memory } =
            self.params;
        let settings = Settings::default()
            .with("layers", layers_setting(&self.taps))
            .with("variant", variant.name())
            .with("coreset", coreset)
            .with("sigma", sigma)
            .with("held_out", held_out)
            .with("max_memory", max_memory);
        let settings = match projection {
            Some(components) => settings.with("projection", components),
            None => settings.with("projection", "none"),
        };
        let settings = match index {
            Index::Exact => settings.with("index", "exact"),
            Index::Inverted { probes } => settings.with("index", "inverted").with("probes", probes),
        };
        match reweighting {
            Some(neighbours) => settings.with("reweighting", "on").with("neighbours", neighbours),
            None => settings.with("reweighting", "off"),
        }
    }

    fn fit(&self, source: &dyn FeatureSource, context: &FitContext<'_>) -> Result<MethodFit, DetectorError> {
        let FitContext { seed, progress, .. } = *context;
        let mut builder = BankBuilder::new(self, source, seed, progress);
        let images = source.visit(progress, &mut |batch| builder.add(batch))?;
        if images < MIN_IMAGES {
            return Err(DetectorError::TooFewImages { method: NAME.to_owned(), needed: MIN_IMAGES, found: images });
        }
        let (bank, mut notes) = builder.finish()?;

        let mut queries = Vec::new();
        let groups = source.groups()?;
        let groups = groups.leaving(1);
        let chosen = groups.choose(self.params.held_out, seed);
        let mut held_out = Vec::with_capacity(chosen.len());
        let mut next = chosen.iter();
        source.visit_some(&chosen, progress, &mut |batch| {
            let patches = self.params.variant.joining().patches(batch)?;
            let of_image = patches.len() / batch.images;
            for patches in patches.chunks_exact(of_image) {
                let image = next.next().copied().unwrap_or_default();
                let others = bank.without(groups.group_of(image))?;
                let one = FeatureBatch { images: 1, ..*batch };
                let views = self.scores(&one, patches, &others, bank.shape)?;
                held_out.push(HeldOut::new(image, &source.combine(views)?));
                if held_out.len() <= RECALL_IMAGES && self.params.index != Index::Exact {
                    queries.extend_from_slice(patches);
                }
            }
            Ok(())
        })?;
        let nearest = match self.params.index {
            Index::Exact => None,
            Index::Inverted { .. } => {
                Some(MemoryBank::exact(vec![bank.rows.as_slice()], bank.shape.dim)?.top_k(&queries, 1)?)
            }
        };
        let fitted = FittedPatchCore::new(self.clone(), bank.shape, bank.rows, seed)?;
        if let Some(nearest) = nearest {
            notes.push(describe_recall(&nearest, &fitted.bank.top_k(&queries, 1)?));
        }
        Ok(MethodFit { fitted: Box::new(fitted), held_out, classes: Vec::new(), images, notes, checkpoint: None })
    }

    fn extend(
        &self,
        states: Vec<(String, State)>,
        source: &dyn FeatureSource,
        seed: u64,
        progress: &dyn Progress,
    ) -> Result<MethodFit, DetectorError> {
        let mut fitted = self.read(states)?;
        let mut builder = BankBuilder::new(self, source, seed, progress);
        builder.occupied = (fitted.bank.len() * fitted.shape.dim * 4) as u64;
        let mut held_out = Vec::new();
        let images = source.visit(progress, &mut |batch| {
            for views in fitted.score(batch)?.chunks(batch.views) {
                held_out.push(HeldOut::new(held_out.len(), &source.combine(views.to_vec())?));
            }
            builder.add(batch)
        })?;
        if images == 0 {
            return Err(DetectorError::TooFewImages { method: NAME.to_owned(), needed: 1, found: 0 });
        }
        let (more, notes) = builder.finish()?;
        for piece in &mut fitted.bank.pieces {
            piece.append(&more.rows)?;
        }
        Ok(MethodFit { fitted: Box::new(fitted), held_out, classes: Vec::new(), images, notes, checkpoint: None })
    }

    fn restore(&self, states: Vec<(String, State)>) -> Result<Box<dyn FittedMethod>, DetectorError> {
        Ok(Box::new(self.read(states)?))
    }
}

impl PatchCore {
    fn read(&self, mut states: Vec<(String, State)>) -> Result<FittedPatchCore, DetectorError> {
        let refuse = |reason: String| DetectorError::State { state: STATE.to_owned(), reason };
        let mut state = only(STATE, &mut states)?;
        let Config { grid, dim } =
            serde_json::from_value(state.config.take()).map_err(|error| refuse(error.to_string()))?;
        let rows = take(STATE, &mut state, "bank")?;
        if dim == 0 || rows.is_empty() || !rows.len().is_multiple_of(dim) {
            return Err(refuse(format!("{} numbers are no patches of {dim}", rows.len())));
        }
        let bank = match self.params.index {
            Index::Exact => MemoryBank::exact(vec![rows], dim)?,
            Index::Inverted { probes } => {
                let mut places = |tensor: &str| {
                    let values = take_f64(STATE, &mut state, tensor)?;
                    let whole = |value: &f64| value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(value);
                    if values.iter().all(whole) {
                        Ok(values.iter().map(|value| *value as u32).collect())
                    } else {
                        Err(refuse(format!("`{tensor}` has a value that is no place")))
                    }
                };
                let (offsets, order) = (places("offsets")?, places("order")?);
                let centres = take(STATE, &mut state, "centres")?;
                let parts = InvertedParts { rows, dim, metric: Metric::SquaredL2, centres, offsets, order };
                let index = InvertedIndex::from_parts(parts, Isa::best()?)?;
                MemoryBank { pieces: vec![Piece::Inverted { index, probes }] }
            }
        };
        Ok(FittedPatchCore { method: self.clone(), shape: PatchShape { grid, dim }, bank })
    }

    /// Scores the views behind `patches` `[images · views · patches, dim]`.
    fn scores(
        &self,
        batch: &FeatureBatch<'_>,
        patches: &[f32],
        bank: &MemoryBank<'_>,
        shape: PatchShape,
    ) -> Result<Vec<MethodScore>, DetectorError> {
        let PatchShape { grid, dim } = shape;
        let nearest = bank.top_k(patches, 1)?;
        let mut distances = nearest.distances;
        let squared = self.params.variant == Variant::Official;
        if !squared {
            distances.iter_mut().for_each(|distance| *distance = distance.sqrt());
        }
        let maker = MapMaker::new(batch, grid, self.params.sigma)?;
        maker.restrict(&mut distances);
        let maps = maker.maps(&distances)?;
        let views = distances.chunks_exact(shape.patches()).zip(maps).enumerate();
        views
            .map(|(view, (distances, map))| {
                let worst = (0..distances.len()).fold(0, |a, b| if distances[b] > distances[a] { b } else { a });
                let mut score = f64::from(distances[worst]);
                if let Some(neighbours) = self.params.reweighting {
                    let at = view * shape.patches() + worst;
                    let patch = &patches[at * dim..(at + 1) * dim];
                    score *= bank.weight(patch, nearest.indices[at] as usize, neighbours)?;
                }
                Ok(MethodScore::located(score, map))
            })
            .collect()
    }
}

const STATE: &str = "patchcore";

/// What a model file says of a bank beside its numbers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Height and width of the patches' grid.
    grid: [usize; 2],
    /// Numbers a patch.
    dim: usize,
}

/// PatchCore that has seen data: the memory bank.
#[derive(Debug)]
pub struct FittedPatchCore {
    method: PatchCore,
    shape: PatchShape,
    bank: MemoryBank<'static>,
}

impl FittedPatchCore {
    fn new(method: PatchCore, shape: PatchShape, rows: Vec<f32>, seed: u64) -> Result<Self, DetectorError> {
        let bank = match method.params.index {
            Index::Exact => MemoryBank::exact(vec![rows], shape.dim)?,
            Index::Inverted { probes } => {
                let options = InvertedOptions { cells: None, seed };
                let index = InvertedIndex::build(rows, shape.dim, Metric::SquaredL2, options, Isa::best()?)?;
                MemoryBank { pieces: vec![Piece::Inverted { index, probes }] }
            }
        };
        Ok(Self { method, shape, bank })
    }
}

impl FittedMethod for FittedPatchCore {
    fn score(&self, batch: &FeatureBatch<'_>) -> Result<Vec<MethodScore>, DetectorError> {
        let joining = self.method.params.variant.joining();
        let found = joining.shape(batch);
        if found != self.shape {
            return Err(DetectorError::FeatureShape {
                tap: layers_setting(batch.taps),
                expected: self.shape.patches() * self.shape.dim,
                found: found.patches() * found.dim,
            });
        }
        self.method.scores(batch, &joining.patches(batch)?, &self.bank, self.shape)
    }

    fn states(&self) -> Vec<(String, State)> {
        let PatchShape { grid, dim } = self.shape;
        let mut tensors = BTreeMap::new();
        // A fitted bank is one piece.
        for piece in &self.bank.pieces {
            let rows = match piece {
                Piece::Exact(bank) => bank.rows(),
                Piece::Inverted { index, .. } => {
                    let places = |places: &[u32]| {
                        Tensor::f64([places.len()], places.iter().map(|place| f64::from(*place)).collect())
                    };
                    tensors.insert("offsets".to_owned(), places(index.offsets()));
                    tensors.insert("order".to_owned(), places(index.order()));
                    let centres = index.centres().to_vec();
                    tensors.insert("centres".to_owned(), Tensor::f32([index.cells(), dim], centres));
                    index.rows()
                }
            };
            tensors.insert("bank".to_owned(), Tensor::f32([rows.len() / dim, dim], rows.to_vec()));
        }
        let config = serde_json::to_value(Config { grid, dim }).unwrap_or_default();
        let state = State { kind: STATE.to_owned(), config, tensors };
        vec![(STATE.to_owned(), state)]
    }
}

#[cfg(test)]
mod tests {
    use nomaly_store::Silent;

    use super::*;
    use crate::methods::locating_tests::{Fixture, close, map_values};

    #[test]
    fn settings_are_read_and_refused() {
        let read = |pairs: &[&str]| PatchCoreParams::from_settings(&Settings::parse(pairs).unwrap());
        assert_eq!(read(&[]).unwrap(), PatchCoreParams::default());
        let official = read(&["variant=official"]).unwrap();
        assert_eq!((official.variant, official.reweighting), (Variant::Official, None));
        assert_eq!(read(&["variant=official", "reweighting=on"]).unwrap().reweighting, Some(9));
        assert_eq!(read(&["neighbours=3"]).unwrap().reweighting, Some(3));
        assert_eq!(read(&["projection=none"]).unwrap().projection, None);
        for pairs in [
            ["coreset=0"],
            ["coreset=1.5"],
            ["coreset=NaN"],
            ["variant=other"],
            ["reweighting=yes"],
            ["neighbours=0"],
            ["max_memory=100MiB"],
            ["sigma=-1"],
            ["held_out=0"],
            ["index=tree"],
        ] {
            assert!(read(&pairs).is_err(), "{pairs:?}");
        }
    }

    #[test]
    fn scores_and_maps_are_those_of_pytorch_and_scipy() {
        let fixture = Fixture::load();
        for (variant, expected) in
            [(Variant::Anomalib, &fixture.patchcore.anomalib), (Variant::Official, &fixture.patchcore.official)]
        {
            let params = PatchCoreParams {
                variant,
                coreset: 1.0,
                reweighting: (variant == Variant::Anomalib).then_some(fixture.neighbours),
                sigma: fixture.sigma,
                ..PatchCoreParams::default()
            };
            let largest = |maps: &[Vec<f64>]| maps.iter().flatten().copied().fold(0.0, f64::max);
            for index in [Index::Exact, Index::Inverted { probes: usize::MAX }] {
                let method = PatchCore { params: PatchCoreParams { index, ..params }, taps: fixture.taps() };
                let fit = fixture.fit(&method, 0);
                assert_eq!((fit.notes.len(), fit.images), (usize::from(index != Index::Exact), fit.held_out.len()));
                let scores = fixture.score(fit.fitted.as_ref());
                close(map_values(&scores), expected.maps.iter().flatten(), largest(&expected.maps));
                let scale = largest(std::slice::from_ref(&expected.scores));
                close(scores.iter().map(|score| score.score), &expected.scores, scale);
                close(fit.held_out.iter().map(|held_out| held_out.score), &expected.held_out, scale);

                let restored = method.restore(fit.fitted.states()).unwrap();
                assert_eq!(fixture.score(restored.as_ref()), scores);
            }
        }
    }

    #[test]
    fn held_out_scores_are_those_of_banks_without_the_group() {
        let fixture = Fixture::load();
        let params = PatchCoreParams { coreset: 1.0, sigma: fixture.sigma, ..PatchCoreParams::default() };
        let method = PatchCore { params, taps: fixture.taps() };
        fixture.check_groups(&method, &[0, 0, 1, 2, 2, 2, 3, 4, 0], 1e-6);
    }

    #[test]
    fn added_images_join_the_bank() {
        let fixture = Fixture::load();
        let params = PatchCoreParams { coreset: 0.5, ..PatchCoreParams::default() };
        for index in [Index::Exact, Index::Inverted { probes: 4 }] {
            let method = PatchCore { params: PatchCoreParams { index, ..params }, taps: fixture.taps() };
            let fit = fixture.fit(&method, 0);
            let extended = method.extend(fit.fitted.states(), &fixture, 0, &Silent).unwrap();
            assert_eq!((extended.images, extended.held_out.len()), (fit.images, fit.images));
            let rows = |fitted: &dyn FittedMethod| fitted.states()[0].1.tensors["bank"].shape[0];
            assert_eq!(rows(extended.fitted.as_ref()), 2 * rows(fit.fitted.as_ref()));
            let restored = method.restore(extended.fitted.states()).unwrap();
            assert_eq!(fixture.score(restored.as_ref()), fixture.score(extended.fitted.as_ref()));
        }
    }
}
