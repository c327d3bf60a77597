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
//! every patch with the bank.
//!
//! # Parameters
//! `layers`, `variant`, `coreset`, `projection`, `neighbours`, `reweighting`, `sigma`, `held_out`, `max_memory`; see [`PatchCoreParams`].
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
//! A training image is compared with the bank without its own patches. At most `held_out` images, chosen by the seed, are.
//!
//! # Reference
//! Roth, Pemula, Zepeda, Schölkopf, Brox and Gehler, *Towards Total Recall in Industrial Anomaly Detection*, 2022, section 3.

use std::borrow::Cow;
use std::ops::{ControlFlow, Range};

use nomaly_backbones::{Backbone, TapRequest};
use nomaly_data::subset::{Choice, choose};
use nomaly_kernels::Isa;
use nomaly_kernels::coreset::{CoresetError, KCentreGreedy, Projection, RandomProjection, Start};
use nomaly_kernels::neighbours::{Bank, Metric, Neighbours};
use nomaly_scorers::{Parameter, State, Tensor};
use nomaly_store::Progress;
use serde::{Deserialize, Serialize};

use super::grid::{layer_taps, layers_setting};
use super::patches::{Joining, PatchShape};
use crate::features::{FeatureBatch, FeatureSource};
use crate::maps::{DEFAULT_SIGMA, MapMaker};
use crate::method::{Cost, FittedMethod, HeldOut, Method, MethodEntry, MethodFit, MethodScore, Published};
use crate::settings::{Memory, SIGMA};
use crate::state::{only, take};
use crate::{DetectorError, Settings};

const NAME: &str = "patchcore";
/// An image to leave out, one to compare it with, and one to spare.
const MIN_IMAGES: usize = 3;
/// Of `max_memory`, what the process takes beside patches and bank: network, images, program.
const RESERVE: u64 = 256 << 20;
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
    published: &[
        Published {
            pixel_auroc: Some(98.1),
            aupro: Some(94.4),
            ..Published::image("MVTec AD, Wide-ResNet-50-2, 10 %", 99.2)
        },
        Published { pixel_auroc: Some(98.0), ..Published::image("MVTec AD, Wide-ResNet-50-2, anomalib", 98.0) },
        Published { pixel_auroc: Some(97.6), ..Published::image("MVTec AD, ResNet-18, anomalib", 97.3) },
    ],
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
        let max_memory = settings.value("max_memory", default.max_memory, Memory::ALLOWED)?;
        if max_memory.0 < 2 * RESERVE {
            return refuse("max_memory", "at least 512MiB");
        }
        Ok(Self {
            variant,
            coreset: settings.share("coreset", default.coreset)?,
            projection,
            reweighting,
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
        let PatchCoreParams { variant, coreset, projection, reweighting, sigma, held_out, max_memory } = self.params;
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
        match reweighting {
            Some(neighbours) => settings.with("reweighting", "on").with("neighbours", neighbours),
            None => settings.with("reweighting", "off"),
        }
    }

    fn fit(&self, source: &dyn FeatureSource, seed: u64, progress: &dyn Progress) -> Result<MethodFit, DetectorError> {
        let mut builder = BankBuilder::new(self, source, seed, progress);
        let images = source.visit(progress, &mut |batch| builder.add(batch))?;
        if images < MIN_IMAGES {
            return Err(DetectorError::TooFewImages { method: NAME.to_owned(), needed: MIN_IMAGES, found: images });
        }
        let (bank, notes) = builder.finish()?;

        let chosen = choose(images, self.params.held_out, Choice::Seeded(seed));
        let mut held_out = Vec::with_capacity(chosen.len());
        let mut next = chosen.iter();
        source.visit_some(&chosen, progress, &mut |batch| {
            let patches = self.params.variant.joining().patches(batch)?;
            let of_image = patches.len() / batch.images;
            for patches in patches.chunks_exact(of_image) {
                let image = next.next().copied().unwrap_or_default();
                let others = bank.without(image)?;
                let one = FeatureBatch { images: 1, ..*batch };
                let views = self.scores(&one, patches, &others, bank.shape)?;
                held_out.push(HeldOut::from(&source.combine(views)?));
            }
            Ok(())
        })?;
        let fitted = Box::new(FittedPatchCore::new(self.clone(), bank.shape, bank.rows)?);
        Ok(MethodFit { fitted, held_out, images, notes })
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
                held_out.push(HeldOut::from(&source.combine(views.to_vec())?));
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
        Ok(MethodFit { fitted: Box::new(fitted), held_out, images, notes })
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
        FittedPatchCore::new(self.clone(), PatchShape { grid, dim }, rows)
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
                Ok(MethodScore { score, parts: Vec::new(), map: Some(map) })
            })
            .collect()
    }
}

/// Normal patches to compare with, in one or more pieces.
#[derive(Debug)]
struct MemoryBank<'a> {
    /// None of them empty.
    pieces: Vec<Bank<'a>>,
}

impl<'a> MemoryBank<'a> {
    fn new(pieces: Vec<impl Into<Cow<'a, [f32]>>>, dim: usize) -> Result<Self, DetectorError> {
        let isa = Isa::best()?;
        let banks = pieces.into_iter().map(|rows| Bank::new(rows, dim, Metric::SquaredL2, isa));
        let pieces = banks.filter(|bank| bank.as_ref().map_or(true, |bank| !bank.is_empty()));
        Ok(Self { pieces: pieces.collect::<Result<_, _>>()? })
    }

    fn len(&self) -> usize {
        self.pieces.iter().map(Bank::len).sum()
    }

    fn row(&self, mut index: usize) -> &[f32] {
        for piece in &self.pieces {
            if index < piece.len() {
                return &piece.rows()[index * piece.dim()..(index + 1) * piece.dim()];
            }
            index -= piece.len();
        }
        &[]
    }

    /// The `k` nearest patches of each query by squared distance, or all where there are fewer.
    fn top_k(&self, queries: &[f32], k: usize) -> Result<Neighbours, DetectorError> {
        let mut found: Option<Neighbours> = None;
        let mut first = 0;
        for piece in &self.pieces {
            let mut part = piece.top_k(queries, k.min(piece.len()))?;
            part.indices.iter_mut().for_each(|index| *index += first);
            first += piece.len() as u32;
            found = Some(match found {
                None => part,
                Some(before) => merged(&before, &part, k),
            });
        }
        Ok(found.unwrap_or(Neighbours { k: 0, indices: Vec::new(), distances: Vec::new() }))
    }

    /// The weight of a patch's score: 1 minus the share of `nearest` in the soft maximum of the patch's distances to the
    /// `neighbours` nearest of `nearest`, itself among them.
    fn weight(&self, patch: &[f32], nearest: usize, neighbours: usize) -> Result<f64, DetectorError> {
        let support = self.top_k(self.row(nearest), neighbours)?;
        let to = |row: &[f32]| {
            let squares = patch.iter().zip(row).map(|(a, b)| f64::from(a - b).powi(2));
            squares.sum::<f64>().sqrt()
        };
        let distances: Vec<f64> = support.indices.iter().map(|&index| to(self.row(index as usize))).collect();
        let largest = distances.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = distances.iter().map(|distance| (distance - largest).exp()).sum();
        Ok(1.0 - (to(self.row(nearest)) - largest).exp() / sum)
    }
}

/// The `k` nearest of two lists a query, or all where there are fewer; those of `before` first where distances are equal.
fn merged(before: &Neighbours, after: &Neighbours, k: usize) -> Neighbours {
    let k = k.min(before.k + after.k);
    let mut merged = Neighbours { k, indices: Vec::new(), distances: Vec::new() };
    let list = |found: &Neighbours, query: usize| {
        let own = query * found.k..(query + 1) * found.k;
        let pairs = found.distances[own.clone()].iter().copied().zip(found.indices[own].iter().copied());
        pairs.collect::<Vec<(f32, u32)>>()
    };
    for query in 0..before.indices.len() / before.k {
        let mut both = [list(before, query), list(after, query)].concat();
        both.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (distances, indices): (Vec<f32>, Vec<u32>) = both.into_iter().take(k).unzip();
        merged.distances.extend(distances);
        merged.indices.extend(indices);
    }
    merged
}

/// The patches that were kept, in the order of their images.
struct Selected {
    shape: PatchShape,
    rows: Vec<f32>,
    /// The kept patches of each image.
    images: Vec<Range<usize>>,
}

impl Selected {
    /// The bank without the patches of one image.
    fn without(&self, image: usize) -> Result<MemoryBank<'_>, DetectorError> {
        let dim = self.shape.dim;
        let own = &self.images[image];
        MemoryBank::new(vec![&self.rows[..own.start * dim], &self.rows[own.end * dim..]], dim)
    }
}

/// Collects patches in parts that fit into memory, and keeps a coreset of each.
struct BankBuilder<'a> {
    params: PatchCoreParams,
    images: usize,
    seed: u64,
    progress: &'a dyn Progress,
    /// Bytes of `max_memory` that something else takes.
    occupied: u64,
    building: Option<Building>,
}

struct Building {
    plan: Plan,
    selected: Selected,
    /// Patches of the part in hand.
    part: Vec<f32>,
}

/// How the patches of all images are dealt with.
#[derive(Clone, Debug, PartialEq)]
struct Plan {
    shape: PatchShape,
    /// Patches of all views of an image.
    of_image: usize,
    /// Images of a part; all of them where they fit.
    part_images: usize,
    /// Share of a part's patches that are kept.
    share: f64,
    /// Components to project to.
    projection: Option<usize>,
    /// The most patches that are kept in all.
    kept: usize,
    notes: Vec<String>,
}

impl Plan {
    /// For `images` images of `views` views at most, in what is left of the memory beside `occupied` bytes.
    fn new(
        params: &PatchCoreParams,
        images: usize,
        views: usize,
        shape: PatchShape,
        occupied: u64,
    ) -> Result<Self, DetectorError> {
        let budget = params.max_memory.0.saturating_sub(RESERVE + occupied) as f64;
        let of_image = views * shape.patches();
        let total = (images * of_image) as f64;
        let projection = params.projection.filter(|components| 2 * components <= shape.dim);

        // What the kept patches take, once here and once more when they are saved; f32, with length and square.
        let kept_row = (4 * shape.dim + 8) as f64;
        let wanted = (params.coreset * total).ceil();
        let kept = wanted.min((budget / 2.0 / kept_row).floor());
        let share = (kept / total).min(1.0);
        // A patch of a part: itself, its projection, two numbers of the selection, and its share of the chosen centres.
        let numbers = projection.unwrap_or(0) as f64 + shape.dim as f64 + 2.0;
        let centres = share * projection.unwrap_or(shape.dim) as f64;
        let part_row = 4.0 * (numbers + centres);
        let fitting = ((budget - kept * kept_row) / (part_row * of_image as f64)).floor();
        if kept < 1.0 || fitting < 1.0 {
            let least = RESERVE as f64 + occupied as f64 + 2.0 * (part_row * of_image as f64 + kept_row);
            return Err(DetectorError::Memory {
                method: NAME.to_owned(),
                needed: Memory(least as u64).rounded(),
                allowed: params.max_memory.rounded(),
                hint: "allow more, or make `input_size` smaller".to_owned(),
            });
        }
        let parts = images.div_ceil(fitting as usize);
        let mut notes = Vec::new();
        if parts > 1 {
            notes.push(format!(
                "the patches of {images} images do not fit into max_memory={}: the coreset was chosen in {parts} parts",
                params.max_memory
            ));
        }
        if kept < wanted {
            notes.push(format!(
                "the memory bank keeps {:.1} % of the patches: {:.1} % do not fit into max_memory={}",
                100.0 * share,
                100.0 * params.coreset,
                params.max_memory
            ));
        }
        let part_images = images.div_ceil(parts);
        Ok(Self { shape, of_image, part_images, share, projection, kept: kept as usize, notes })
    }
}

impl<'a> BankBuilder<'a> {
    fn new(method: &PatchCore, source: &dyn FeatureSource, seed: u64, progress: &'a dyn Progress) -> Self {
        Self { params: method.params, images: source.images(), seed, progress, occupied: 0, building: None }
    }

    /// Takes in the patches of a batch.
    fn add(&mut self, batch: &FeatureBatch<'_>) -> Result<(), DetectorError> {
        let joining = self.params.variant.joining();
        let patches = joining.patches(batch)?;
        let mut building = match self.building.take() {
            Some(building) => building,
            None => {
                let shape = joining.shape(batch);
                let plan = Plan::new(&self.params, self.images, batch.views, shape, self.occupied)?;
                let part = Vec::with_capacity(plan.part_images * plan.of_image * shape.dim);
                let rows = Vec::with_capacity(plan.kept * shape.dim);
                Building { plan, selected: Selected { shape, rows, images: Vec::new() }, part }
            }
        };
        for image in patches.chunks_exact(patches.len() / batch.images) {
            building.part.extend_from_slice(image);
            if building.part.len() == building.plan.part_images * image.len() {
                self.keep_coreset(&mut building)?;
            }
        }
        self.building = Some(building);
        Ok(())
    }

    /// The memory bank, and what is to be said of it.
    fn finish(mut self) -> Result<(Selected, Vec<String>), DetectorError> {
        let mut building = self.building.take().ok_or_else(|| DetectorError::TooFewImages {
            method: NAME.to_owned(),
            needed: MIN_IMAGES,
            found: 0,
        })?;
        if !building.part.is_empty() {
            self.keep_coreset(&mut building)?;
        }
        Ok((building.selected, building.plan.notes))
    }

    /// Moves the coreset of the part in hand to the kept patches.
    fn keep_coreset(&self, building: &mut Building) -> Result<(), DetectorError> {
        let Building { plan, selected, part } = building;
        let dim = plan.shape.dim;
        let patches = part.len() / dim;
        let count = ((plan.share * patches as f64).ceil() as usize).clamp(1, patches);
        let indices = if count == patches { (0..patches as u32).collect() } else { self.choose(part, plan, count)? };
        let mut indices = indices.into_iter().peekable();
        for image in 0..patches / plan.of_image {
            let start = selected.rows.len() / dim;
            let end = ((image + 1) * plan.of_image) as u32;
            while let Some(index) = indices.next_if(|index| *index < end) {
                selected.rows.extend_from_slice(&part[index as usize * dim..(index as usize + 1) * dim]);
            }
            selected.images.push(start..selected.rows.len() / dim);
        }
        part.clear();
        Ok(())
    }

    /// The numbers of the patches of a coreset, ascending.
    fn choose(&self, part: &[f32], plan: &Plan, count: usize) -> Result<Vec<u32>, DetectorError> {
        let (isa, dim) = (Isa::best()?, plan.shape.dim);
        let projected = match plan.projection {
            Some(components) => {
                let kind = Projection::Sparse { density: None };
                Some((RandomProjection::new(kind, dim, components, self.seed, isa)?.apply(part)?, components))
            }
            None => None,
        };
        let (rows, dim) = projected.as_ref().map_or((part, dim), |(rows, components)| (rows.as_slice(), *components));
        let start = choose(rows.len() / dim, 1, Choice::Seeded(self.seed))[0];
        self.progress.start("choosing the coreset", Some(count as u64));
        let coreset = KCentreGreedy { start: Start::Index(start) }.select_with(rows, dim, count, isa, &mut |_, _| {
            self.progress.advance(1);
            if self.progress.cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        self.progress.finish();
        let mut indices = match coreset {
            Err(CoresetError::Interrupted { .. }) => return Err(DetectorError::Cancelled),
            coreset => coreset?.indices,
        };
        indices.sort_unstable();
        Ok(indices)
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
    fn new(method: PatchCore, shape: PatchShape, rows: Vec<f32>) -> Result<Self, DetectorError> {
        Ok(Self { method, shape, bank: MemoryBank::new(vec![rows], shape.dim)? })
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
        let rows = self.bank.pieces.iter().map(Bank::rows).collect::<Vec<_>>().concat();
        let state = State {
            kind: STATE.to_owned(),
            config: serde_json::to_value(Config { grid, dim }).unwrap_or_default(),
            tensors: [("bank".to_owned(), Tensor::f32([rows.len() / dim, dim], rows))].into(),
        };
        vec![(STATE.to_owned(), state)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        ] {
            assert!(read(&pairs).is_err(), "{pairs:?}");
        }
    }

    #[test]
    fn patches_are_taken_in_parts_where_they_do_not_fit() {
        let shape = PatchShape { grid: [32, 32], dim: 384 };
        let plan = |images, max_memory| {
            let params = PatchCoreParams { max_memory, ..PatchCoreParams::default() };
            Plan::new(&params, images, 1, shape, 0)
        };
        let all = plan(300, Memory::gib(2)).unwrap();
        assert_eq!((all.part_images, all.share, all.notes.len()), (300, 0.1, 0));
        assert_eq!(all.projection, Some(128));

        let parts = plan(2000, Memory::gib(1)).unwrap();
        assert_eq!((parts.share, parts.notes.len()), (0.1, 1));
        let taken = |plan: &Plan| 4 * (plan.kept * 386 + plan.part_images * 1024 * (384 + 128 + 2));
        assert!(taken(&parts) < (1 << 30) - RESERVE as usize, "{parts:?}");

        let small = plan(20_000, Memory::gib(1)).unwrap();
        assert!(small.share < 0.1 && small.notes.len() == 2, "{small:?}");
        assert!(matches!(plan(20_000, Memory(2 * RESERVE)), Ok(plan) if plan.share < 0.05));
        let huge = Plan::new(&PatchCoreParams::default(), 10, 4096, shape, 0).unwrap_err();
        assert!(huge.to_string().contains("max_memory is 2048 MiB"), "{huge}");
    }

    #[test]
    fn a_bank_in_pieces_gives_what_the_whole_bank_gives() {
        let value = |at: usize| ((at * 7919 + 13) % 101) as f32 / 10.0;
        let rows: Vec<f32> = (0..60 * 4).map(value).collect();
        let queries: Vec<f32> = (0..20 * 4).map(|at| value(at * 3 + 1)).collect();
        let whole = MemoryBank::new(vec![rows.as_slice()], 4).unwrap();
        for cut in [0, 1, 30, 59] {
            let pieces = MemoryBank::new(vec![&rows[..cut * 4], &rows[cut * 4..]], 4).unwrap();
            assert_eq!(pieces.len(), 60);
            for k in [1, 5] {
                assert_eq!(pieces.top_k(&queries, k).unwrap(), whole.top_k(&queries, k).unwrap(), "cut {cut}");
            }
            for patch in queries.chunks(4) {
                let nearest = whole.top_k(patch, 1).unwrap().indices[0] as usize;
                assert_eq!(pieces.row(nearest), whole.row(nearest));
                assert_eq!(pieces.weight(patch, nearest, 9).unwrap(), whole.weight(patch, nearest, 9).unwrap());
            }
        }
        assert_eq!(MemoryBank::new(vec![&rows[..8], &rows[8..12]], 4).unwrap().top_k(&queries, 9).unwrap().k, 3);
    }

    #[test]
    fn the_weight_is_that_of_equation_7() {
        // Distances from the patch: 1 to the nearest, 2 and 3 to its neighbours.
        let bank = MemoryBank::new(vec![vec![1.0f32, 2.0, 3.0, 50.0]], 1).unwrap();
        let soft = 1.0f64.exp() / (1.0f64.exp() + 2.0f64.exp() + 3.0f64.exp());
        let weight = bank.weight(&[0.0], 0, 3).unwrap();
        assert!((weight - (1.0 - soft)).abs() < 1e-12, "{weight}");
    }
}
