//! Fitted patch models and their training patches.

use ndarray::{Array2, Axis};
use nomaly_scorers::sparse::{SparseCoding, SparseOptions};
use nomaly_scorers::subspace::{KeptComponents, PrincipalComponents};
use nomaly_scorers::{Scorer, State, Watch, restore};
use nomaly_store::Progress;
use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;

use super::grid::{PatchGrid, expert, remove_means};
use super::parameters::{ComponentCount, PatchFeature, PatchMean, PatchModelParams};
use crate::features::FeatureBatch;
use crate::map_maker::finish_maps;
use crate::method::FittedMethod;
use crate::score::MethodScore;
use crate::workspace::MethodWorkspace;
use crate::{AnomalyMap, MethodError};

/// Describes the patches of a batch as rows of values, before the embedding.
#[derive(Clone, Debug)]
struct Describer {
    params: PatchModelParams,
}

impl Describer {
    fn grid(&self, input: [usize; 2]) -> PatchGrid {
        PatchGrid::new(input, self.params.patch, self.params.step())
    }

    /// The patches of one view, pixels `[height, width, 3]`, at `corners`.
    fn rows(&self, grid: &PatchGrid, pixels: &[f32], corners: &[[usize; 2]]) -> Vec<f32> {
        let PatchModelParams { patch: side, feature, mean, .. } = self.params;
        let remove_mean = mean == PatchMean::Remove;
        let planes = self.params.color.planes(pixels);
        grid.rows(&planes, corners, self.params.patch_numbers(), |patch, row| match feature {
            PatchFeature::Expert => expert(patch, side, row),
            PatchFeature::Raw | PatchFeature::Pca | PatchFeature::Sparse => {
                row.copy_from_slice(patch);
                if remove_mean {
                    remove_means(row, side);
                }
            }
        })
    }
}

/// Samples random patches of every view.
pub(super) struct Sampler {
    describer: Describer,
    seed: u64,
    /// Patches per view.
    each: usize,
    view: u64,
    /// The number of sampled patches of each view; fewer only for views with fewer.
    taken: usize,
    rows: Vec<f32>,
}

impl Sampler {
    /// A sampler for up to `views` views.
    pub(super) fn new(params: &PatchModelParams, views: usize, seed: u64) -> Self {
        let each = params.max_patches.div_ceil(views.max(1));
        Self { describer: Describer { params: params.clone() }, seed, each, view: 0, taken: 0, rows: Vec::new() }
    }

    /// Samples the patches of a batch. The choice depends only on the seed and the number of the view.
    pub(super) fn take(&mut self, batch: &FeatureBatch<'_>) -> Result<(), MethodError> {
        let side = self.describer.params.patch;
        self.describer.params.check_input(batch.input)?;
        // Training patches may lie anywhere, not only on the grid.
        let grid = PatchGrid::new(batch.input, side, 1);
        let corners = grid.corners();
        self.taken = self.each.min(corners.len());
        for pixels in batch.values[0].chunks_exact(batch.input[0] * batch.input[1] * 3) {
            let mut random = ChaCha8Rng::seed_from_u64(self.seed);
            random.set_stream(self.view);
            self.view += 1;
            let mut chosen = index::sample(&mut random, corners.len(), self.taken).into_vec();
            chosen.sort_unstable();
            let chosen: Vec<[usize; 2]> = chosen.into_iter().map(|at| corners[at]).collect();
            self.rows.extend(self.describer.rows(&grid, pixels, &chosen));
        }
        Ok(())
    }

    /// The sampled patches of `images` images.
    pub(super) fn finish(self, images: usize) -> Sampled {
        let each = self.taken * self.view as usize / images;
        let width = self.describer.params.patch_numbers();
        let rows = Array2::from_shape_vec((images * each, width), self.rows).expect("views add whole rows");
        Sampled { rows, each }
    }
}

/// Patches of the training images.
pub(super) struct Sampled {
    rows: Array2<f32>,
    /// Patches per image.
    each: usize,
}

impl Sampled {
    /// The number of patches.
    pub(super) fn patches(&self) -> usize {
        self.rows.nrows()
    }

    /// The patches of these images.
    pub(super) fn rows_of(&self, images: &[usize]) -> Array2<f32> {
        let rows: Vec<usize> = images.iter().flat_map(|image| image * self.each..(image + 1) * self.each).collect();
        self.rows.select(Axis(0), &rows)
    }
}

/// The embedding of described patches, applied before scoring.
#[derive(Debug)]
pub(super) enum Embedding {
    /// The identity.
    Identity,
    /// Coordinates along the principal components of normal patches.
    Pca(PrincipalComponents),
    /// Error and sparsity of the code in a dictionary of normal patches.
    Sparse(Box<SparseCoding>),
}

const EMBEDDING_STATE: &str = "embedding";

impl Embedding {
    /// Fits an embedding on described patches `[n, numbers]`; also returns the rows to fit a scorer on.
    pub(super) fn fit(
        params: &PatchModelParams,
        patches: Array2<f32>,
        seed: u64,
        progress: &dyn Progress,
    ) -> Result<(Self, Array2<f32>), MethodError> {
        let stop = || progress.cancelled();
        match params.feature {
            PatchFeature::Raw | PatchFeature::Expert => Ok((Self::Identity, patches)),
            PatchFeature::Pca => {
                let components = match params.reduce {
                    ComponentCount::Components(count) => KeptComponents::Count(count),
                    ComponentCount::Share(share) => KeptComponents::Share(share),
                };
                let found = PrincipalComponents::fit(patches.view(), components, false, Watch::new(&stop))?;
                let rows = found.project(patches.view())?;
                Ok((Self::Pca(found), rows))
            }
            PatchFeature::Sparse => {
                let PatchModelParams { dictionary, sparsity, .. } = *params;
                let options = SparseOptions { atoms: dictionary, lambda: sparsity, seed, ..SparseOptions::default() };
                let coding = SparseCoding::fit(patches.view(), options, Watch::new(&stop))?;
                // A dictionary codes its training patches better than other normal patches.
                let held_out = SparseCoding::held_out_rows(&options, patches.nrows())?;
                let rows = coding.log_features(patches.select(Axis(0), &held_out).view())?;
                Ok((Self::Sparse(Box::new(coding)), rows))
            }
        }
    }

    /// Embeds patches `[n, numbers]`.
    fn apply(&self, patches: Array2<f32>) -> Result<Array2<f32>, MethodError> {
        match self {
            Self::Identity => Ok(patches),
            Self::Pca(components) => Ok(components.project(patches.view())?),
            Self::Sparse(coding) => Ok(coding.log_features(patches.view())?),
        }
    }

    fn state(&self) -> Option<State> {
        match self {
            Self::Identity => None,
            Self::Pca(components) => Some(components.state()),
            Self::Sparse(coding) => Some(coding.state()),
        }
    }

    /// Restores an embedding from its [`state`](Self::state).
    fn restore(params: &PatchModelParams, state: Option<&State>) -> Result<Self, MethodError> {
        match (params.feature, state) {
            (PatchFeature::Raw | PatchFeature::Expert, None) => Ok(Self::Identity),
            (PatchFeature::Pca, Some(state)) => Ok(Self::Pca(PrincipalComponents::from_state(state)?)),
            (PatchFeature::Sparse, Some(state)) => Ok(Self::Sparse(Box::new(SparseCoding::from_state(state)?))),
            _ => Err(MethodError::State { state: EMBEDDING_STATE.to_owned(), reason: None }),
        }
    }

    /// The input and output width, if fixed.
    fn dims(&self) -> Option<[usize; 2]> {
        match self {
            Self::Identity => None,
            Self::Pca(components) => Some([components.dim(), components.kept()]),
            Self::Sparse(coding) => Some([coding.dim(), 2]),
        }
    }
}

const SCORER_STATE: &str = "scorer";

/// A fitted patch model.
#[derive(Debug)]
pub struct FittedPatchModel {
    describer: Describer,
    embedding: Embedding,
    scorer: Box<dyn Scorer>,
}

impl FittedPatchModel {
    pub(super) fn new(params: &PatchModelParams, embedding: Embedding, scorer: Box<dyn Scorer>) -> Self {
        Self { describer: Describer { params: params.clone() }, embedding, scorer }
    }

    /// Restores a model from its [`states`](FittedMethod::states).
    pub(super) fn restore(
        params: &PatchModelParams,
        scorer: &str,
        states: Vec<(String, State)>,
    ) -> Result<Self, MethodError> {
        let find = |wanted: &str| states.iter().find(|(name, _)| name == wanted).map(|(_, state)| state);
        let missing = |name: &str| MethodError::State { state: name.to_owned(), reason: None };
        let state = find(SCORER_STATE).filter(|state| state.kind == scorer).ok_or_else(|| missing(SCORER_STATE))?;
        let scorer = restore(state)?;
        let embedding = Embedding::restore(params, find(EMBEDDING_STATE))?;
        let numbers = params.patch_numbers();
        let [taken, given] = embedding.dims().unwrap_or([numbers; 2]);
        if (taken, given) != (numbers, scorer.dim()) {
            let reason = format!(
                "patches have {numbers} numbers, the embedding takes {taken} and gives {given}, the scorer takes {}",
                scorer.dim()
            );
            return Err(MethodError::State { state: SCORER_STATE.to_owned(), reason: Some(reason) });
        }
        Ok(Self::new(params, embedding, scorer))
    }

    /// The scored values per patch.
    pub(super) fn dim(&self) -> usize {
        self.scorer.dim()
    }

    /// The mean score of the patches over each pixel of a view.
    fn pixel_scores(&self, grid: &PatchGrid, corners: &[[usize; 2]], pixels: &[f32]) -> Result<Vec<f32>, MethodError> {
        let rows = self.describer.rows(grid, pixels, corners);
        let rows = Array2::from_shape_vec((corners.len(), rows.len() / corners.len()), rows).expect("whole rows");
        let rows = self.embedding.apply(rows)?;
        Ok(grid.averaged(&self.scorer.score(rows.view())?))
    }
}

impl FittedMethod for FittedPatchModel {
    fn score(&self, batch: &FeatureBatch<'_>, _: &mut MethodWorkspace) -> Result<Vec<MethodScore>, MethodError> {
        let grid = self.describer.grid(batch.input);
        let corners = grid.corners();
        let mut values = Vec::with_capacity(batch.images * batch.views * batch.input[0] * batch.input[1]);
        for pixels in batch.values[0].chunks_exact(batch.input[0] * batch.input[1] * 3) {
            values.extend(self.pixel_scores(&grid, &corners, pixels)?);
        }
        let maps = finish_maps(batch, values, self.describer.params.sigma)?;
        let scored = |map: AnomalyMap| MethodScore::located(map.max(), map);
        Ok(maps.into_iter().map(scored).collect())
    }

    fn states(&self) -> Vec<(String, State)> {
        let embedding = self.embedding.state().map(|state| (EMBEDDING_STATE.to_owned(), state));
        embedding.into_iter().chain([(SCORER_STATE.to_owned(), self.scorer.state())]).collect()
    }
}
