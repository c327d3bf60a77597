//! PatchCore: the distance of every patch to the nearest patch of a memory bank.
//!
//! # What it computes
//! Patch features of two layers, aggregated over neighborhoods, are collected from all good images. A greedy coreset of
//! them, such that every patch is near a selected one, becomes the memory bank. The map is each patch's distance to the
//! nearest of the bank, upsampled bilinearly and blurred. The score of the image is the largest distance, weighted down
//! if the nearest patch of the bank is itself far from its neighbors.
//!
//! # When to use
//! When accuracy matters more than the time to fit. Items need not be aligned, and few good images suffice. Scoring
//! compares every patch with the bank; `index=inverted` searches only a part of it.
//!
//! # Parameters
//! `layers`, `variant`, `grid`, `coreset`, `bank`, `candidates`, `precision`, `projection`, `neighbours`,
//! `reweighting`, `index`, `probes`, `sigma`, `held_out`, `max_memory`; see [`PatchCoreParams`].
//!
//! # Variants
//! `anomalib` averages each channel over its neighborhood and uses plain distances; `official` averages the
//! neighborhood's values into 1024 bins and uses squared distances without weights, as the authors' program does.
//!
//! # Memory
//! Fitting stays within `max_memory`: if the patches of all images do not fit, they are processed in parts of as many
//! images as do, and each part contributes its share of the bank. If even the bank does not fit, it is made smaller.
//! Both are noted.
//!
//! # Held-out scores
//! A training image is compared with the bank without the patches of its group; at most `held_out` random images are
//! scored. The search is exact with every `index`, since the distances of an inverted index are hardly larger; a note
//! says by how much.
//!
//! # Reference
//! Roth, Pemula, Zepeda, Schölkopf, Brox and Gehler, *Towards Total Recall in Industrial Anomaly Detection*, 2022,
//! section 3.

mod bank;
mod builder;
mod parameters;

use std::collections::BTreeMap;

use half::f16;
use nomaly_backbones::TapRequest;
use nomaly_kernels::Isa;
use nomaly_kernels::neighbours::{InvertedIndex, InvertedOptions, InvertedParts, Metric};
use nomaly_nn::runtime::Executor;
use nomaly_scorers::{State, Tensor};
use nomaly_settings::{Assignments, Memory, SettingsTable};
use serde::{Deserialize, Serialize};

use self::bank::{MemoryBank, Piece, describe_recall};
use self::builder::BankBuilder;
use self::parameters::Index;
pub use self::parameters::{IndexKind, PatchCoreParams, Precision, Switch, Variant};
pub use super::patches::PatchGrid;
use super::patches::PatchShape;
use super::pooled::tap_names;
use crate::MethodError;
use crate::features::{FeatureBatch, FeatureSource};
use crate::input::InputParams;
use crate::map_maker::MapMaker;
use crate::method::{
    Cost, FitContext, FittedMethod, Method, MethodEntry, MethodFit, MethodParams, Published, Sees, Updates,
};
use crate::score::MethodScore;
use crate::state::{only, take, take_either, take_u32};
use crate::workspace::MethodWorkspace;

const NAME: &str = "patchcore";
/// An image to leave out, one to compare it with, and one to spare.
const MIN_IMAGES: usize = 3;
/// The part of `max_memory` reserved for everything besides patches and bank: network, images, program.
const RESERVE: u64 = 256 << 20;
/// Images whose patches measure the recall of an inverted index.
const RECALL_IMAGES: usize = 4;

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
    table: SettingsTable::of::<PatchCoreParams>,
    more: None,
    sees: Sees::Taps,
    input: InputParams::default,
    classes: false,
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
    build: |given, backbone| Ok(Box::new(given.read::<PatchCoreParams>()?.on(backbone)?)),
};

/// PatchCore with checked parameters.
#[derive(Clone, Debug)]
pub struct PatchCore {
    params: PatchCoreParams,
    taps: Vec<TapRequest>,
}

impl MethodParams for PatchCoreParams {
    const METHOD: &'static str = NAME;
}

impl Method for PatchCore {
    fn name(&self) -> &'static str {
        NAME
    }

    fn taps(&self) -> &[TapRequest] {
        &self.taps
    }

    fn settings(&self) -> Assignments {
        Assignments::of(&self.params)
    }

    fn max_memory(&self) -> Memory {
        self.params.max_memory
    }

    fn fit(&self, source: &dyn FeatureSource, context: &FitContext<'_>) -> Result<MethodFit, MethodError> {
        let FitContext { seed, progress, .. } = *context;
        let mut builder = BankBuilder::new(self, source, seed, progress);
        builder.occupied += context.occupied;
        let images = source.visit(progress, &mut |batch| builder.add(batch))?;
        if images < MIN_IMAGES {
            return Err(MethodError::TooFew {
                of: NAME.to_owned(),
                items: "training images",
                needed: MIN_IMAGES,
                found: images,
            });
        }
        let (bank, mut notes) = builder.finish()?;

        let mut queries = Vec::new();
        let groups = source.groups()?;
        let groups = groups.leaving(1);
        let chosen = groups.choose(context.most_held_out(self.params.held_out), seed);
        let mut held_out = Vec::with_capacity(chosen.len());
        let mut next = chosen.iter();
        source.visit_some(&chosen, progress, &mut |batch| {
            let patches = self.params.patching().patches(batch)?;
            let of_image = patches.len() / batch.images;
            for patches in patches.chunks_exact(of_image) {
                let image = next.next().copied().unwrap_or_default();
                let others = bank.without(groups.group_of(image))?;
                if others.pieces.is_empty() {
                    let kept = bank.rows.len() / bank.shape.dim;
                    let allowed = "more patches than one group of images has";
                    return Err(MethodError::setting("bank", &kept.to_string(), allowed));
                }
                let one = FeatureBatch { images: 1, ..*batch };
                let views = self.scores(&one, patches, &others, bank.shape)?;
                held_out.push(context.held_out(image, source.combine(views)?));
                if held_out.len() <= RECALL_IMAGES && self.params.index != IndexKind::Exact {
                    queries.extend_from_slice(patches);
                }
            }
            Ok(())
        })?;
        let nearest = match self.params.search() {
            Index::Exact => None,
            Index::Inverted { .. } => {
                Some(MemoryBank::exact(vec![bank.rows.as_slice()], bank.shape.dim)?.top_k(&queries, 1)?)
            }
        };
        let fitted = FittedPatchCore::new(self.clone(), bank.shape, bank.rows, seed)?;
        if let Some(nearest) = nearest {
            notes.push(describe_recall(&nearest, &fitted.bank.top_k(&queries, 1)?));
        }
        Ok(MethodFit { notes, ..MethodFit::new(Box::new(fitted), held_out, images) })
    }

    fn updates(&self) -> Updates {
        Updates::Always
    }

    fn extend(
        &self,
        states: Vec<(String, State)>,
        source: &dyn FeatureSource,
        context: &FitContext<'_>,
    ) -> Result<MethodFit, MethodError> {
        let FitContext { seed, progress, .. } = *context;
        let mut fitted = self.read(states)?;
        let mut builder = BankBuilder::new(self, source, seed, progress);
        builder.occupied += (fitted.bank.len() * fitted.shape.dim * 4) as u64 + context.occupied;
        let wanted = context.held_out_of(source.images());
        let (mut held_out, mut image) = (Vec::new(), 0);
        let images = source.visit(progress, &mut |batch| {
            for views in fitted.score(batch, &mut MethodWorkspace::default())?.chunks(batch.views) {
                if wanted.binary_search(&image).is_ok() {
                    held_out.push(context.held_out(image, source.combine(views.to_vec())?));
                }
                image += 1;
            }
            builder.add(batch)
        })?;
        if images == 0 {
            return Err(MethodError::TooFew { of: NAME.to_owned(), items: "training images", needed: 1, found: 0 });
        }
        let (more, notes) = builder.finish()?;
        for piece in &mut fitted.bank.pieces {
            piece.append(&more.rows)?;
        }
        Ok(MethodFit { notes, ..MethodFit::new(Box::new(fitted), held_out, images) })
    }

    fn revisits(&self) -> bool {
        true
    }

    fn restore(&self, states: Vec<(String, State)>, _: &Executor) -> Result<Box<dyn FittedMethod>, MethodError> {
        Ok(Box::new(self.read(states)?))
    }
}

impl PatchCore {
    fn read(&self, mut states: Vec<(String, State)>) -> Result<FittedPatchCore, MethodError> {
        let refuse = |reason: String| MethodError::State { state: STATE.to_owned(), reason: Some(reason) };
        let mut state = only(STATE, &mut states)?;
        let Config { grid, dim } =
            serde_json::from_value(state.config.take()).map_err(|error| refuse(error.to_string()))?;
        let (rows, half) = take_either(STATE, &mut state, "bank")?;
        if half != (self.params.precision == Precision::Half) {
            return Err(refuse(format!("the bank is not of {} precision", self.params.precision.name())));
        }
        if dim == 0 || rows.is_empty() || !rows.len().is_multiple_of(dim) {
            return Err(refuse(format!("{} numbers are no patches of {dim}", rows.len())));
        }
        let bank = match self.params.search() {
            Index::Exact => MemoryBank::exact(vec![rows], dim)?,
            Index::Inverted { probes } => {
                let (offsets, order) = (take_u32(STATE, &mut state, "offsets")?, take_u32(STATE, &mut state, "order")?);
                let centres = take(STATE, &mut state, "centres")?;
                let parts = InvertedParts { rows, dim, metric: Metric::SquaredL2, centres, offsets, order };
                let index = InvertedIndex::from_parts(parts, Isa::best()?)?;
                MemoryBank { pieces: vec![Piece::Inverted { index, probes }] }
            }
        };
        Ok(FittedPatchCore { method: self.clone(), shape: PatchShape { grid, dim }, bank })
    }

    /// Scores all views from their `patches` `[images · views · patches, dim]`.
    fn scores(
        &self,
        batch: &FeatureBatch<'_>,
        patches: &[f32],
        bank: &MemoryBank<'_>,
        shape: PatchShape,
    ) -> Result<Vec<MethodScore>, MethodError> {
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
                if let Some(neighbors) = self.params.reweighting_neighbors() {
                    let at = view * shape.patches() + worst;
                    let patch = &patches[at * dim..(at + 1) * dim];
                    score *= bank.weight(patch, nearest.indices[at] as usize, neighbors)?;
                }
                Ok(MethodScore::located(score, map))
            })
            .collect()
    }
}

const STATE: &str = "patchcore";

/// The configuration of a bank in a model file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Height and width of the grid of patches.
    grid: [usize; 2],
    /// Values per patch.
    dim: usize,
}

/// Fitted PatchCore: the memory bank.
#[derive(Debug)]
pub struct FittedPatchCore {
    method: PatchCore,
    shape: PatchShape,
    bank: MemoryBank<'static>,
}

impl FittedPatchCore {
    fn new(method: PatchCore, shape: PatchShape, rows: Vec<f32>, seed: u64) -> Result<Self, MethodError> {
        let bank = match method.params.search() {
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
    fn score(&self, batch: &FeatureBatch<'_>, _: &mut MethodWorkspace) -> Result<Vec<MethodScore>, MethodError> {
        let patching = self.method.params.patching();
        let found = patching.shape(batch);
        if found != self.shape {
            return Err(MethodError::FeatureShape {
                tap: tap_names(batch.taps).to_string(),
                expected: self.shape.patches() * self.shape.dim,
                found: found.patches() * found.dim,
            });
        }
        self.method.scores(batch, &patching.patches(batch)?, &self.bank, self.shape)
    }

    fn states(&self) -> Vec<(String, State)> {
        let PatchShape { grid, dim } = self.shape;
        let mut tensors = BTreeMap::new();
        // A fitted bank is one piece.
        for piece in &self.bank.pieces {
            let rows = match piece {
                Piece::Exact(bank) => bank.rows(),
                Piece::Inverted { index, .. } => {
                    let places = |places: &[u32]| Tensor::u32([places.len()], places.to_vec());
                    tensors.insert("offsets".to_owned(), places(index.offsets()));
                    tensors.insert("order".to_owned(), places(index.order()));
                    let centres = index.centres().to_vec();
                    tensors.insert("centres".to_owned(), Tensor::f32([index.cells(), dim], centres));
                    index.rows()
                }
            };
            let shape = [rows.len() / dim, dim];
            let bank = match self.method.params.precision {
                Precision::Single => Tensor::f32(shape, rows.to_vec()),
                Precision::Half => Tensor::f16(shape, rows.iter().map(|value| f16::from_f32(*value)).collect()),
            };
            tensors.insert("bank".to_owned(), bank);
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
        let read = |pairs: &[&str]| Assignments::parse(pairs).unwrap().read::<PatchCoreParams>();
        assert_eq!(read(&[]).unwrap(), PatchCoreParams::default());
        let official = read(&["variant=official"]).unwrap();
        assert_eq!((official.variant, official.reweighting_neighbors()), (Variant::Official, None));
        assert_eq!(read(&["variant=official", "reweighting=on"]).unwrap().reweighting_neighbors(), Some(9));
        assert_eq!(read(&["neighbours=3"]).unwrap().reweighting_neighbors(), Some(3));
        assert_eq!(read(&["projection=none"]).unwrap().projection, None);
        let capped = read(&["bank=100", "candidates=500", "grid=auto"]).unwrap();
        assert_eq!((capped.bank, capped.candidates, capped.grid), (Some(100), Some(500), PatchGrid::Auto));
        assert_eq!(read(&["bank=none"]).unwrap(), PatchCoreParams::default());
        for pairs in [
            ["coreset=0"],
            ["coreset=1.5"],
            ["coreset=NaN"],
            ["bank=0"],
            ["candidates=-1"],
            ["grid=fine"],
            ["precision=double"],
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
                neighbours: fixture.neighbours,
                sigma: fixture.sigma,
                ..PatchCoreParams::default()
            };
            let largest = |maps: &[Vec<f64>]| maps.iter().flatten().copied().fold(0.0, f64::max);
            for index in [IndexKind::Exact, IndexKind::Inverted] {
                let params = PatchCoreParams { index, probes: usize::MAX, ..params.clone() };
                let method = PatchCore { params, taps: fixture.taps() };
                let fit = fixture.fit(&method, 0);
                assert_eq!((fit.notes.len(), fit.images), (usize::from(index != IndexKind::Exact), fit.held_out.len()));
                let scores = fixture.score(fit.fitted.as_ref());
                close(map_values(&scores), expected.maps.iter().flatten(), largest(&expected.maps));
                let scale = largest(std::slice::from_ref(&expected.scores));
                close(scores.iter().map(|score| score.score), &expected.scores, scale);
                close(fit.held_out.iter().map(|held_out| held_out.score), &expected.held_out, scale);

                let restored = method.restore(fit.fitted.states(), &Executor::cpu().unwrap()).unwrap();
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
    fn a_bank_of_half_precision_is_as_good_and_half_as_large() {
        let fixture = Fixture::load();
        let params = PatchCoreParams { coreset: 0.7, ..PatchCoreParams::default() };
        let of = |precision| {
            let method = PatchCore { params: PatchCoreParams { precision, ..params.clone() }, taps: fixture.taps() };
            let fit = fixture.fit(&method, 0);
            let scores = fixture.score(fit.fitted.as_ref());
            let restored = method.restore(fit.fitted.states(), &Executor::cpu().unwrap()).unwrap();
            assert_eq!(fixture.score(restored.as_ref()), scores, "{precision:?}");
            let other = if precision == Precision::Half { Precision::Single } else { Precision::Half };
            let other =
                PatchCore { params: PatchCoreParams { precision: other, ..params.clone() }, taps: fixture.taps() };
            assert!(other.restore(fit.fitted.states(), &Executor::cpu().unwrap()).is_err());
            (scores, fit.held_out)
        };
        let ((single, single_held_out), (half, half_held_out)) = (of(Precision::Single), of(Precision::Half));
        let near = |a: f64, b: f64| assert!((a - b).abs() < 2e-3 * a.abs() && a != b, "{a}, {b}");
        single.iter().zip(&half).for_each(|(single, half)| near(single.score, half.score));
        single_held_out.iter().zip(&half_held_out).for_each(|(single, half)| near(single.score, half.score));
        assert!(Precision::Half.of(70_000.0).unwrap_err().to_string().contains("`single`"));
    }

    #[test]
    fn a_bank_has_no_more_patches_than_it_may() {
        let fixture = Fixture::load();
        for (bank, candidates) in [(Some(7), None), (None, Some(30)), (Some(10), Some(30)), (Some(1_000_000), None)] {
            let params = PatchCoreParams { coreset: 1.0, bank, candidates, ..PatchCoreParams::default() };
            let method = PatchCore { params, taps: fixture.taps() };
            let fit = fixture.fit(&method, 0);
            let rows = fit.fitted.states()[0].1.tensors["bank"].shape[0];
            let all = fixture.positions() * fit.images;
            // The same number of candidates of each image.
            let chosen = candidates.map_or(all, |most| (most / fit.images).max(1) * fit.images);
            assert_eq!(rows, chosen.min(bank.unwrap_or(all)), "{bank:?} {candidates:?}");
            assert_eq!(fit.held_out.len(), fit.images);
        }
    }

    #[test]
    fn added_images_join_the_bank() {
        let fixture = Fixture::load();
        let params = PatchCoreParams { coreset: 0.5, probes: 4, ..PatchCoreParams::default() };
        for index in [IndexKind::Exact, IndexKind::Inverted] {
            let method = PatchCore { params: PatchCoreParams { index, ..params.clone() }, taps: fixture.taps() };
            let fit = fixture.fit(&method, 0);
            let extended = method
                .extend(fit.fitted.states(), &fixture, &FitContext::new(0, &Silent, &Executor::cpu().unwrap()))
                .unwrap();
            assert_eq!((extended.images, extended.held_out.len()), (fit.images, fit.images));
            let rows = |fitted: &dyn FittedMethod| fitted.states()[0].1.tensors["bank"].shape[0];
            assert_eq!(rows(extended.fitted.as_ref()), 2 * rows(fit.fitted.as_ref()));
            let restored = method.restore(extended.fitted.states(), &Executor::cpu().unwrap()).unwrap();
            assert_eq!(fixture.score(restored.as_ref()), fixture.score(extended.fitted.as_ref()));
        }
    }
}
