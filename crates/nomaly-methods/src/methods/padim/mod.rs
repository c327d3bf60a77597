//! Patch distribution modeling: a Gaussian for every position of the image.
//!
//! # What it computes
//! Feature maps of several layers, brought to the finest one's grid by nearest neighbors, give each position one
//! vector, reduced to a random choice of channels. At each position a Gaussian is fitted to the vectors of the good
//! images: their mean, and their covariance plus a small multiple of the identity. The map is the Mahalanobis distance
//! at each position, upsampled bilinearly and blurred; the score of the image is the map's maximum.
//!
//! # When to use
//! For aligned items, with some tens of good images or more: each position has its own model of normality. A fit makes
//! one pass over the images, in memory independent of their number, and a second one for held-out scores.
//!
//! # Parameters
//! `layers`, `features`, `regularization`, `sigma`, `max_memory`; see [`PadimParams`].
//!
//! # Held-out scores
//! Each training image is scored by the Gaussians of all images of other groups, exactly and without refitting: leaving
//! out an image changes a covariance by one outer product, which the Sherman–Morrison formula carries over to the
//! distance; for a group the Woodbury formula does the same.
//!
//! # Reference
//! Defard, Setkov, Loesch and Audigier, *PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and
//! Localization*, 2020, section III. The paper's backbones are ResNet-18 with 100 and Wide-ResNet-50-2 with 550
//! channels, its regularization is 0.01, its view a center crop of 224² (`view=center`). anomalib sees the whole image
//! at 256² (`input_size=256`).

mod positions;
mod sums;

use std::collections::BTreeSet;

use nomaly_backbones::{Backbone, TapRequest};
use nomaly_data::subset::{Choice, choose};
use nomaly_kernels::Isa;
use nomaly_kernels::linalg::{PositionGaussians, PositionStatistics, packed_len};
use nomaly_nn::runtime::Executor;
use nomaly_scorers::{State, Tensor};
use nomaly_settings::{Assignments, Auto, Memory, Names, SettingError, Settings, SettingsTable};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::positions::Positions;
use self::sums::{SUMS, Sums};
use super::grid::layer_taps;
use super::pooled::tap_names;
use crate::MethodError;
use crate::features::{FeatureBatch, FeatureSource};
use crate::groups::Groups;
use crate::input::InputParams;
use crate::map_maker::DEFAULT_SIGMA;
use crate::method::{
    Cost, FitContext, FittedMethod, Method, MethodEntry, MethodFit, MethodParams, Published, Sees, Updates,
};
use crate::score::{HeldOut, MethodScore};
use crate::stage::Stage;
use crate::state::{only, take};
use crate::workspace::MethodWorkspace;

const NAME: &str = "padim";
/// The fewest images: leaving one out then leaves the two that a covariance needs, and one to spare.
const MIN_IMAGES: usize = 4;
/// The paper's numbers of channels: for ResNet-18 with 448, and for Wide-ResNet-50-2 with 1792.
const FEW_FEATURES: usize = 100;
const MANY_FEATURES: usize = 550;
/// Backbones with more channels than this get [`MANY_FEATURES`].
const WIDE: usize = 1000;

/// The registry's entry.
pub(crate) const ENTRY: MethodEntry = MethodEntry {
    name: NAME,
    summary: "Mahalanobis distance from a Gaussian at every position",
    paper: "Defard, Setkov, Loesch, Audigier: PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization (2020)",
    maps: true,
    min_images: MIN_IMAGES,
    cost: Cost {
        fit: "two passes over the images",
        predict: "one pass, and a small matrix product a position",
        memory: "positions × features², whatever the number of images",
    },
    table: SettingsTable::of::<PadimParams>,
    more: None,
    sees: Sees::Taps,
    input: InputParams::default,
    classes: false,
    trains: false,
    published: &[
        Published { pixel_auroc: Some(96.7), ..Published::image("MVTec AD, ResNet-18", 90.5) },
        Published { pixel_auroc: Some(97.3), ..Published::image("MVTec AD, Wide-ResNet-50-2", 95.5) },
    ],
    one_vs_all: &[],
    build: |given, backbone| Ok(Box::new(given.read::<PadimParams>()?.on(backbone)?)),
};

/// Parameters of PaDiM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PadimParams {
    /// Layers whose features are joined, the finest first; `auto`: those of strides 4, 8 and 16.
    #[schemars(extend("x-values" = "`auto` or names of the backbone's levels joined by commas"))]
    pub layers: Auto<Names>,
    /// Channels kept of all, chosen at random by the seed; `auto`: 100, or 550 for layers of more than 1000 channels.
    #[schemars(extend("minimum" = 1))]
    pub features: Auto<usize>,
    /// Multiple of the identity that is added to every covariance.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub regularization: f64,
    /// Standard deviation of the map's blur in pixels of the network's input, the smallest of several `sizes`.
    #[schemars(extend("minimum" = 0, "maximum" = 100, "x-unit" = "pixels"))]
    pub sigma: f64,
    /// What the covariances may take while they are fitted.
    pub max_memory: Memory,
}

impl Default for PadimParams {
    fn default() -> Self {
        Self {
            layers: Auto::Auto,
            features: Auto::Auto,
            regularization: 0.01,
            sigma: DEFAULT_SIGMA,
            max_memory: Memory::gib(4),
        }
    }
}

impl MethodParams for PadimParams {
    const METHOD: &'static str = NAME;
}

impl Settings for PadimParams {}

impl PadimParams {
    /// Checks the layers and the number of channels against the backbone.
    fn on(self, backbone: &Backbone) -> Result<Padim, MethodError> {
        let taps = layer_taps(&self.layers, backbone, 0)?;
        let known = backbone.taps();
        let channels: Vec<usize> = taps
            .iter()
            .filter_map(|tap| known.iter().find(|info| info.name == tap.name).map(|info| info.channels))
            .collect();
        let total: usize = channels.iter().sum();
        let usual = if total > WIDE { MANY_FEATURES } else { FEW_FEATURES };
        let features = self.features.unwrap_or(usual.min(total));
        if features > total {
            let allowed = format!("at most {total}, the channels of the layers");
            return Err(SettingError::value("features", features, &allowed).into());
        }
        let params = Self { layers: Auto::Value(tap_names(&taps)), features: Auto::Value(features), ..self };
        Ok(Padim { params, features, channels, taps })
    }
}

/// PaDiM with checked parameters.
#[derive(Clone, Debug)]
pub struct Padim {
    params: PadimParams,
    /// The number of kept channels.
    features: usize,
    /// Channels of each layer.
    channels: Vec<usize>,
    taps: Vec<TapRequest>,
}

impl Padim {
    /// The random choice of channels, counted through all layers.
    fn choose_channels(&self, seed: u64) -> Vec<usize> {
        choose(self.channels.iter().sum(), self.features, Choice::Seeded(seed))
    }

    /// Rejects covariances that exceed the memory limit.
    fn check_memory(&self, positions: usize, context: &FitContext<'_>) -> Result<(), MethodError> {
        // The sums, their copy in an updatable model, and the factors, in f32.
        let sets = if context.updatable { 3 } else { 2 };
        let needed =
            |features: usize| Memory(context.occupied + sets * 4 * positions as u64 * packed_len(features) as u64);
        let (features, max_memory) = (self.features, self.params.max_memory);
        if needed(features) <= max_memory {
            return Ok(());
        }
        let fitting = (1..features).rev().find(|&fewer| needed(fewer) <= max_memory);
        let hint = fitting.map_or("allow more, or make `input_size` smaller".to_owned(), |fewer| {
            format!("allow more, or set `features` to at most {fewer}")
        });
        Err(MethodError::memory(NAME, &needed(features).rounded(), &max_memory.to_string(), &hint))
    }
}

impl Method for Padim {
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
        let mut collected: Option<(Positions, Sums)> = None;
        let images = source.visit(context.progress, &mut |batch| {
            let (positions, sums) = match &mut collected {
                Some(collected) => collected,
                None => {
                    let positions = Positions::of(batch, self.choose_channels(context.seed));
                    self.check_memory(positions.count(), context)?;
                    let sums = Sums::new(&positions)?;
                    collected.insert((positions, sums))
                }
            };
            sums.add(&positions.gather(batch)?)
        })?;
        let too_few =
            || MethodError::TooFew { of: NAME.to_owned(), items: "training images", needed: MIN_IMAGES, found: images };
        let (positions, sums) = collected.filter(|_| images >= MIN_IMAGES).ok_or_else(too_few)?;
        let (statistics, sums) =
            if context.updatable { (sums.statistics()?, Some(sums)) } else { (sums.into_statistics()?, None) };
        let held_out = self.held_out(&positions, &statistics, source, context)?;
        let gaussians = self.gaussians(&statistics, context)?;
        let fitted = Box::new(FittedPadim { positions, gaussians, sigma: self.params.sigma, sums });
        Ok(MethodFit::new(fitted, held_out, images))
    }

    fn updates(&self) -> Updates {
        Updates::OptIn
    }

    fn extend(
        &self,
        states: Vec<(String, State)>,
        source: &dyn FeatureSource,
        context: &FitContext<'_>,
    ) -> Result<MethodFit, MethodError> {
        let mut before = self.read(states)?;
        let mut sums = before.sums.take().ok_or_else(|| MethodError::NotUpdatable { method: NAME.to_owned() })?;
        self.check_memory(before.positions.count(), &FitContext { updatable: true, ..*context })?;
        let wanted = context.held_out_of(source.images());
        let (mut held_out, mut image) = (Vec::new(), 0);
        let images = source.visit(context.progress, &mut |batch| {
            let rows = before.positions.gather(batch)?;
            let distances = before.gaussians.mahalanobis(&rows)?;
            let mut views = before.positions.scores(batch, distances, before.sigma)?.into_iter();
            for _ in 0..batch.images {
                let views: Vec<MethodScore> = views.by_ref().take(batch.views).collect();
                if wanted.binary_search(&image).is_ok() {
                    held_out.push(context.held_out(image, source.combine(views)?));
                }
                image += 1;
            }
            sums.add(&rows)
        })?;
        if images == 0 {
            return Err(MethodError::TooFew { of: NAME.to_owned(), items: "training images", needed: 1, found: 0 });
        }
        let gaussians = self.gaussians(&sums.statistics()?, context)?;
        let fitted = Box::new(FittedPadim { gaussians, sums: Some(sums), ..before });
        Ok(MethodFit::new(fitted, held_out, images))
    }

    fn revisits(&self) -> bool {
        true
    }

    fn restore(&self, states: Vec<(String, State)>, _: &Executor) -> Result<Box<dyn FittedMethod>, MethodError> {
        Ok(Box::new(self.read(states)?))
    }
}

impl Padim {
    fn gaussians(
        &self,
        statistics: &PositionStatistics,
        context: &FitContext<'_>,
    ) -> Result<PositionGaussians, MethodError> {
        let _stage = Stage::start(context.progress, "factorising covariances", None);
        Ok(statistics.gaussians(self.params.regularization)?)
    }

    fn read(&self, mut states: Vec<(String, State)>) -> Result<FittedPadim, MethodError> {
        let sums = states.iter().position(|(name, _)| name == SUMS).map(|place| states.remove(place).1);
        let mut state = only(STATE, &mut states)?;
        let positions: Positions = serde_json::from_value(state.config.take())
            .map_err(|error| MethodError::State { state: STATE.to_owned(), reason: Some(error.to_string()) })?;
        positions.check(&self.channels, self.features)?;
        let gaussians = PositionGaussians::from_parts(
            positions.count(),
            self.features,
            take(STATE, &mut state, "mean")?,
            take(STATE, &mut state, "inverse_factors")?,
            Isa::best()?,
        )?;
        let sums = sums.map(|sums| Sums::restore(sums, &positions)).transpose()?;
        Ok(FittedPadim { positions, gaussians, sigma: self.params.sigma, sums })
    }
}

impl Padim {
    /// Scores each image by the Gaussians of all images of other groups.
    fn held_out(
        &self,
        positions: &Positions,
        statistics: &PositionStatistics,
        source: &dyn FeatureSource,
        context: &FitContext<'_>,
    ) -> Result<Vec<HeldOut>, MethodError> {
        let groups = source.groups()?;
        let groups = groups.leaving(MIN_IMAGES - 1);
        let wanted = groups.choose(context.most_held_out(groups.items()), context.seed);
        let (alone, grouped): (Vec<usize>, Vec<usize>) =
            wanted.into_iter().partition(|image| groups.group_of(*image).len() == 1);
        let mut held_out = self.without_one(positions, statistics, source, context, &alone)?;
        held_out.extend(self.without_groups(positions, statistics, source, context, &groups, &grouped)?);
        held_out.sort_unstable_by_key(|held_out| held_out.image);
        Ok(held_out)
    }

    /// Scores the images `alone`, ascending, each by the Gaussians of all others.
    ///
    /// With `n` images, scatter `S` and `d` = x − mean, the others have mean distance `d n/(n−1)` and scatter
    /// `S − n/(n−1) d dᵀ`. With `A = S/(n−2) + λ I` and `c = n/((n−1)(n−2))` their covariance is `A − c
    /// d dᵀ`, so that with `q = dᵀ A⁻¹ d` the squared distance is `(n/(n−1))² q / (1 − c q)`.
    fn without_one(
        &self,
        positions: &Positions,
        statistics: &PositionStatistics,
        source: &dyn FeatureSource,
        context: &FitContext<'_>,
        alone: &[usize],
    ) -> Result<Vec<HeldOut>, MethodError> {
        let mut held_out = Vec::with_capacity(alone.len());
        if alone.is_empty() {
            return Ok(held_out);
        }
        let n = statistics.count() as f64;
        // The factors are those of S/(n−1) + λ' I, which is A (n−2)/(n−1).
        let shrink = (n - 2.0) / (n - 1.0);
        let all = statistics.gaussians(self.params.regularization * shrink)?;
        let c = n / ((n - 1.0) * (n - 2.0));
        let mut next = alone.iter().copied();
        source.visit_some(alone, context.progress, &mut |batch| {
            let mut distances = all.mahalanobis(&positions.gather(batch)?)?;
            for distance in &mut distances {
                let q = f64::from(*distance).powi(2) * shrink;
                // For an image far from all others `c q` is near 1, where f32 loses digits.
                let rest = (1.0 - c * q).max(f64::from(f32::EPSILON));
                *distance = ((n / (n - 1.0)).powi(2) * q / rest).sqrt() as f32;
            }
            let mut views = positions.scores(batch, distances, self.params.sigma)?.into_iter();
            for image in next.by_ref().take(batch.images) {
                held_out.push(context.held_out(image, source.combine(views.by_ref().take(batch.views).collect())?));
            }
            Ok(())
        })?;
        Ok(held_out)
    }

    /// Scores the images `wanted`, ascending, of groups of two or more by the Gaussians of all images of other groups.
    fn without_groups(
        &self,
        positions: &Positions,
        statistics: &PositionStatistics,
        source: &dyn FeatureSource,
        context: &FitContext<'_>,
        groups: &Groups,
        wanted: &[usize],
    ) -> Result<Vec<HeldOut>, MethodError> {
        let mut held_out = Vec::with_capacity(wanted.len());
        let count = statistics.count() as usize;
        let left_out: BTreeSet<&[usize]> = wanted.iter().map(|image| groups.group_of(*image)).collect();
        let sizes: BTreeSet<usize> = left_out.iter().map(|group| group.len()).collect();
        for size in sizes {
            // The fit on the rest divides by one less than the rest.
            let shrink = (count - size - 1) as f64 / (count - 1) as f64;
            let all = statistics.gaussians(self.params.regularization * shrink)?;
            for &group in left_out.iter().filter(|group| group.len() == size) {
                let of_image = positions.count() * self.features;
                let mut rows = Vec::with_capacity(size * of_image);
                source.visit_some(group, context.progress, &mut |batch| {
                    rows.extend(positions.gather(batch)?);
                    if rows.len() < size * of_image {
                        return Ok(());
                    }
                    let distances = all.left_out(&rows, count)?;
                    // Maps are made image by image, since they take more memory than distances.
                    let images = group.iter().zip(distances.chunks_exact(positions.count()));
                    for (image, distances) in images.filter(|(image, _)| wanted.binary_search(image).is_ok()) {
                        let one = FeatureBatch { images: 1, ..*batch };
                        let views = positions.scores(&one, distances.to_vec(), self.params.sigma)?;
                        held_out.push(context.held_out(*image, source.combine(views)?));
                    }
                    Ok(())
                })?;
            }
        }
        Ok(held_out)
    }
}

const STATE: &str = "padim";

/// Fitted PaDiM: a Gaussian for every position.
#[derive(Debug)]
pub struct FittedPadim {
    positions: Positions,
    gaussians: PositionGaussians,
    sigma: f64,
    /// Present in updatable models.
    sums: Option<Sums>,
}

impl FittedMethod for FittedPadim {
    fn score(&self, batch: &FeatureBatch<'_>, _: &mut MethodWorkspace) -> Result<Vec<MethodScore>, MethodError> {
        let distances = self.gaussians.mahalanobis(&self.positions.gather(batch)?)?;
        self.positions.scores(batch, distances, self.sigma)
    }

    fn states(&self) -> Vec<(String, State)> {
        let (count, dim) = (self.positions.count(), self.gaussians.dim());
        let factors = self.gaussians.inverse_factors();
        let tensors = [
            ("mean", Tensor::f32([count, dim], self.gaussians.mean().to_vec())),
            ("inverse_factors", Tensor::f32([count, factors.len() / count], factors.to_vec())),
        ];
        let state = State {
            kind: STATE.to_owned(),
            config: serde_json::to_value(&self.positions).unwrap_or_default(),
            tensors: tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into(),
        };
        let sums = self.sums.as_ref().map(|sums| (SUMS.to_owned(), sums.state()));
        [(STATE.to_owned(), state)].into_iter().chain(sums).collect()
    }
}

#[cfg(test)]
mod tests {
    use nomaly_store::Silent;

    use super::*;
    use crate::methods::locating_tests::{Fixture, close, map_values};

    #[test]
    fn maps_and_held_out_scores_are_those_of_numpy() {
        let fixture = Fixture::load();
        let layers = fixture.layer_channels();
        let seed = (0..100_000)
            .find(|&seed| choose(layers.iter().sum(), fixture.channels.len(), Choice::Seeded(seed)) == fixture.channels)
            .unwrap();
        let params =
            PadimParams { regularization: fixture.regularization, sigma: fixture.sigma, ..PadimParams::default() };
        let padim = Padim { params, features: fixture.channels.len(), channels: layers, taps: fixture.taps() };
        let fit = fixture.fit(&padim, seed);
        let scores = fixture.score(fit.fitted.as_ref());
        let largest = fixture.padim.maps.iter().flatten().copied().fold(0.0, f64::max);
        close(map_values(&scores), fixture.padim.maps.iter().flatten(), largest);
        assert!(scores.iter().all(|score| score.score == score.map.as_ref().unwrap().max()));
        // Leaving one of nine images out of five dimensions multiplies rounding errors by some dozens.
        let scale = 30.0 * fixture.padim.held_out.iter().copied().fold(0.0, f64::max);
        close(fit.held_out.iter().map(|held_out| held_out.score), &fixture.padim.held_out, scale);
        assert!(fit.held_out.iter().all(|held_out| held_out.map_max == Some(held_out.score)));

        let restored = padim.restore(fit.fitted.states(), &Executor::cpu().unwrap()).unwrap();
        assert_eq!(fixture.score(restored.as_ref()), scores);
    }

    #[test]
    fn held_out_scores_are_those_of_fits_without_the_group() {
        let fixture = Fixture::load();
        let seed = 0;
        let layers = fixture.layer_channels();
        let features = fixture.channels.len();
        assert_eq!(choose(layers.iter().sum(), features, Choice::Seeded(seed)).len(), features);
        let params = PadimParams { regularization: 0.05, sigma: fixture.sigma, ..PadimParams::default() };
        let padim = Padim { params, features, channels: layers, taps: fixture.taps() };
        // Four or more of nine images are left, which multiplies the rounding errors of f32.
        fixture.check_groups(&padim, &[0, 0, 1, 2, 2, 2, 3, 4, 5], 2e-3);
        fixture.check_groups(&padim, &[0, 1, 0, 1, 0, 1, 0, 1, 0], 2e-3);
    }

    #[test]
    fn covariances_beyond_the_memory_allowed_are_refused_with_a_way_out() {
        let fixture = Fixture::load();
        let params = PadimParams { max_memory: Memory(1 << 20), ..PadimParams::default() };
        let padim = Padim { params, features: 100, channels: vec![448], taps: fixture.taps() };
        let executor = Executor::cpu().unwrap();
        let context = FitContext::new(0, &Silent, &executor);
        let occupied = FitContext { occupied: 1 << 20, ..context };
        let updatable = FitContext { updatable: true, ..context };
        let message = padim.check_memory(3136, &context).unwrap_err().to_string();
        assert_eq!(
            message,
            "padim needs 121 MiB of memory here, and max_memory is 1MiB; allow more, or set `features` to at most 8"
        );
        let small = Padim { features: 8, ..padim };
        assert!(small.check_memory(3136, &context).is_ok());
        for context in [occupied, updatable] {
            let error = small.check_memory(3136, &context).unwrap_err();
            assert!(matches!(error, MethodError::Limit { .. }), "{error}");
        }
    }

    #[test]
    fn settings_are_read_and_refused() {
        let backbone = Backbone::initialized("resnet18", 10, 0).unwrap();
        let check = |pairs: &[&str]| {
            let given = Assignments::parse(pairs).unwrap();
            given.read::<PadimParams>().map_err(MethodError::from)?.on(&backbone)
        };
        let padim = check(&[]).unwrap();
        assert_eq!((padim.features, padim.channels.as_slice()), (100, &[64, 128, 256][..]));
        assert_eq!(check(&["layers=layer1"]).unwrap().features, 64);
        for pair in ["features=449", "features=0", "regularization=0", "sigma=101", "max_memory=x"] {
            let error = check(&[pair]).unwrap_err();
            assert!(matches!(&error, MethodError::Setting(SettingError::Value { name, .. }) if pair.starts_with(name)));
        }
    }
}
