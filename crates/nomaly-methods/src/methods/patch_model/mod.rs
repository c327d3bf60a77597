//! Models of image patches: any scorer on patches of pixels.
//!
//! # What it computes
//! An image is cut into overlapping patches. Each becomes a row of features: its pixels (`raw`), their projection on
//! the principal components of normal patches (`pca`), expert features (`expert`: mean, variance and total variation),
//! or the error and sparsity of their code in a dictionary of normal patches (`sparse`:
//! [`SparseCoding::log_features`](nomaly_scorers::sparse::SparseCoding::log_features)). A
//! [scorer](nomaly_scorers::SCORERS) is fitted on a random sample of patches of the training images. The map has at
//! each pixel the mean score of all patches over it, and is then blurred; the score of an image is the largest value of
//! its map.
//!
//! # When to use
//! For textures with small defects (fibers, fabric, metal under a microscope), without a pretrained network, and with
//! as few as a handful of images. For images with distinct parts, or varying light and pose, use `patchcore` or
//! `padim`.
//!
//! # Parameters
//! `patch`, `step`, `feature`, `mean`, `colour`, `reduce`, `dictionary`, `sparsity`, `max_patches`, `scorer`, `sigma`,
//! and the parameters of the scorer (`nomaly list scorers`).
//!
//! # Reference
//! Carrera, Manganini, Boracchi and Lanzarone, *Defect detection in SEM images of nanofibrous materials*, 2017 (patches
//! of 15 × 15 pixels, sparse features, a density of them); Boracchi, Carrera and Wohlberg, *Novelty detection in
//! images by sparse representations*, 2014.

mod grid;
mod model;
mod parameters;

use nomaly_backbones::{OutputLayout, TapRequest};
use nomaly_nn::runtime::Executor;
use nomaly_scorers::State;
use nomaly_settings::{Assignments, SettingsTable};
use nomaly_store::Progress;

pub use self::model::FittedPatchModel;
use self::model::{Embedding, Sampler};
pub use self::parameters::{ComponentCount, PatchFeature, PatchModelParams};
use super::scoring::{ChosenScorer, scorer_table};
use crate::MethodError;
use crate::features::FeatureSource;
use crate::groups::Split;
use crate::input::InputParams;
use crate::method::{Cost, FitContext, FittedMethod, Method, MethodEntry, MethodFit, MethodParams, Sees};
use crate::score::{HeldOut, MethodScore};
use crate::workspace::MethodWorkspace;

const NAME: &str = "patches";
/// One image to fit on and one to hold out.
const MIN_IMAGES: usize = 2;
/// Folds for held-out scores; each costs as much as the final fit.
const FOLDS: usize = 5;

/// The registry's entry.
pub(crate) const ENTRY: MethodEntry = MethodEntry {
    name: NAME,
    summary: "any scorer on patches of pixels; locates defects of textures without a network",
    paper: "Carrera, Manganini, Boracchi, Lanzarone: Defect Detection in SEM Images of Nanofibrous Materials (2017)",
    maps: true,
    min_images: MIN_IMAGES,
    cost: Cost {
        fit: "two passes over the images, and six fits of the scorer on at most `max_patches` rows",
        predict: "one pass, and the scorer on every patch",
        memory: "`max_patches` rows to fit; what the scorer keeps afterwards",
    },
    table: SettingsTable::of::<PatchModelParams>,
    more: Some(scorer_table),
    sees: Sees::Pixels,
    input: InputParams::default,
    classes: false,
    trains: false,
    published: &[],
    one_vs_all: &[],
    build: |given, _| Ok(Box::new(PatchModel::new(given)?)),
};

/// A patch model with checked parameters.
#[derive(Clone, Debug)]
pub struct PatchModel {
    params: PatchModelParams,
    scorer: ChosenScorer,
    taps: [TapRequest; 1],
}

impl PatchModel {
    fn new(given: &Assignments) -> Result<Self, MethodError> {
        let (scorer, own) = ChosenScorer::part(given)?;
        Ok(Self { params: own.read()?, scorer, taps: [TapRequest::pixels(OutputLayout::Rows)] })
    }
}

impl MethodParams for PatchModelParams {
    const METHOD: &'static str = NAME;
}

impl Method for PatchModel {
    fn name(&self) -> &'static str {
        NAME
    }

    fn taps(&self) -> &[TapRequest] {
        &self.taps
    }

    fn settings(&self) -> Assignments {
        Assignments::of(&self.params).or(self.scorer.settings())
    }

    fn check_input(&self, input: [usize; 2]) -> Result<(), MethodError> {
        self.params.check_input(input)
    }

    fn fit(&self, source: &dyn FeatureSource, context: &FitContext<'_>) -> Result<MethodFit, MethodError> {
        let FitContext { seed, progress, .. } = *context;
        let mut sampler = Sampler::new(&self.params, source.images() * source.views(), seed);
        let images = source.visit(progress, &mut |batch| sampler.take(batch))?;
        if images < MIN_IMAGES {
            return Err(MethodError::TooFew {
                of: NAME.to_owned(),
                items: "training images",
                needed: MIN_IMAGES,
                found: images,
            });
        }
        let sampled = sampler.finish(images);

        let mut held_out: Vec<Option<HeldOut>> = vec![None; images];
        let groups = source.groups()?;
        let groups = groups.leaving(1);
        let wanted = groups.choose(context.most_held_out(images), seed);
        for test in groups.folds(FOLDS, seed) {
            let Split { train, test } = Split::holding_out(test, images);
            let fitted = self.fit_rows(sampled.rows_of(&train), seed, progress)?;
            let mut next = test.iter().copied();
            source.visit_some(&test, progress, &mut |batch| {
                let mut views = fitted.score(batch, &mut MethodWorkspace::default())?.into_iter();
                for image in next.by_ref().take(batch.images) {
                    let of_image: Vec<MethodScore> = views.by_ref().take(batch.views).collect();
                    if wanted.binary_search(&image).is_ok() {
                        held_out[image] = Some(context.held_out(image, source.combine(of_image)?));
                    }
                }
                Ok(())
            })?;
        }
        let all: Vec<usize> = (0..images).collect();
        let fitted = self.fit_rows(sampled.rows_of(&all), seed, progress)?;
        let notes = vec![format!(
            "{} patches of {} images learned from, {} numbers each",
            sampled.patches(),
            images,
            fitted.dim()
        )];
        let held_out = held_out.into_iter().flatten().collect();
        Ok(MethodFit { notes, ..MethodFit::new(Box::new(fitted), held_out, images) })
    }

    fn revisits(&self) -> bool {
        true
    }

    fn restore(&self, states: Vec<(String, State)>, _: &Executor) -> Result<Box<dyn FittedMethod>, MethodError> {
        Ok(Box::new(FittedPatchModel::restore(&self.params, self.scorer.name(), states)?))
    }
}

impl PatchModel {
    /// Fits embedding and scorer on sampled patches.
    fn fit_rows(
        &self,
        patches: ndarray::Array2<f32>,
        seed: u64,
        progress: &dyn Progress,
    ) -> Result<FittedPatchModel, MethodError> {
        progress.start("fitting the scorer of patches", None);
        let fitted = Embedding::fit(&self.params, patches, seed, progress)
            .and_then(|(embedding, rows)| Ok((self.scorer.fit(rows.view(), seed, progress)?, embedding)));
        progress.finish();
        let (scorer, embedding) = fitted?;
        Ok(FittedPatchModel::new(&self.params, embedding, scorer))
    }
}
