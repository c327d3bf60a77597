//! Fitted GeoTrans.

use ndarray::Array2;
use nomaly_scorers::{Scorer, State};
use nomaly_transforms::transformations::{Transformation, TransformationSet};
use rayon::prelude::*;

use super::objective::{scoring, transform};
use super::passes::{self, Passes};
use super::scores::{self, Normality, TableScore};
use crate::MethodError;
use crate::features::FeatureBatch;
use crate::method::{FittedMethod, MethodNetwork};
use crate::networks::classifier::{INPUTS_PER_RUN, NetworkBuffers, STATE, TrainedNetwork, log_softmax};
use crate::networks::images::views;
use crate::score::MethodScore;
use crate::workspace::MethodWorkspace;

/// The scorer's state in a model file.
pub(super) const SCORER: &str = "scorer";

/// Computes the score of an image.
pub(super) enum ScoreModel {
    /// From the table of all transformations.
    Table { normality: Normality, score: TableScore },
    /// From the features of the untransformed image.
    Features(Box<dyn Scorer>),
    /// From many passes with dropout.
    Passes(Box<Passes>),
}

/// A network that classifies transformations.
pub(super) struct TransformationClassifier {
    pub(super) network: TrainedNetwork,
    pub(super) set: TransformationSet,
    pub(super) size: [usize; 2],
    pub(super) seed: u64,
}

/// Indices of the taps that the network is compiled for.
const LOGITS: usize = 0;
const HEAD: usize = 1;

impl TransformationClassifier {
    /// All transformations of an image as network input, `[k, 3, H, W]`.
    fn inputs(&self, planes: &[f32]) -> Result<Vec<f32>, MethodError> {
        let mut inputs = vec![0.0; self.set.len() * planes.len()];
        inputs.par_chunks_exact_mut(planes.len()).enumerate().try_for_each(|(which, input)| {
            transform(&self.set, which, planes, self.size, &mut scoring(self.seed, which), input)
        })?;
        Ok(inputs)
    }

    /// The table `[k, k]` of an image: log-probabilities of all classes for each of its transformations.
    pub(super) fn table(&self, planes: &[f32], buffers: &mut NetworkBuffers) -> Result<Vec<f64>, MethodError> {
        let k = self.set.len();
        let each = planes.len();
        let inputs = self.inputs(planes)?;
        let mut table = vec![0.0; k * k];
        for (inputs, rows) in inputs.chunks(INPUTS_PER_RUN * each).zip(table.chunks_mut(INPUTS_PER_RUN * k)) {
            let outputs = self.network.run(&[inputs], buffers)?;
            for (logits, row) in outputs[LOGITS].chunks_exact(k).zip(rows.chunks_exact_mut(k)) {
                log_softmax(logits, row);
            }
        }
        Ok(table)
    }

    /// The features before the classifier of untransformed images, `[n, C]`.
    pub(super) fn features(&self, images: &[f32], buffers: &mut NetworkBuffers) -> Result<Array2<f32>, MethodError> {
        let each = 3 * self.size[0] * self.size[1];
        let width = self.network.width(HEAD);
        let mut rows = Vec::with_capacity(images.len() / each * width);
        for chunk in images.chunks(INPUTS_PER_RUN * each) {
            let inputs: Vec<f32> = chunk.iter().map(|value| 2.0 * value - 1.0).collect();
            rows.extend_from_slice(&self.network.run(&[&inputs], buffers)?[HEAD]);
        }
        Ok(Array2::from_shape_vec((images.len() / each, width), rows).expect("every image adds a whole row"))
    }
}

/// Fitted GeoTrans.
pub struct FittedGeoTrans {
    pub(super) classifier: TransformationClassifier,
    pub(super) model: ScoreModel,
}

impl FittedGeoTrans {
    /// Scores one view, given as planes `[3, H, W]` in [0, 1].
    pub(super) fn score_view(
        &self,
        planes: &[f32],
        workspace: &mut MethodWorkspace,
    ) -> Result<MethodScore, MethodError> {
        let network = &self.classifier.network;
        match &self.model {
            ScoreModel::Table { normality, score } => {
                let table = self.classifier.table(planes, workspace.get_or_insert_with(|| network.buffers()))?;
                let k = normality.transformations();
                let mut terms = vec![vec![0.0; k]; TableScore::ALL.len()];
                for (score, terms) in TableScore::ALL.into_iter().zip(&mut terms) {
                    normality.terms(score, &table, terms)?;
                    terms.iter_mut().for_each(|term| *term /= k as f64);
                }
                let parts: Vec<f64> = terms.iter().map(|terms| terms.iter().sum()).collect();
                let terms = terms.swap_remove(score.index());
                Ok(MethodScore { parts: parts.clone(), terms, ..MethodScore::whole(parts[score.index()]) })
            }
            ScoreModel::Features(scorer) => {
                let row = self.classifier.features(planes, workspace.get_or_insert_with(|| network.buffers()))?;
                Ok(MethodScore::whole(scorer.score(row.view())?[0]))
            }
            ScoreModel::Passes(passes) => {
                let network = workspace.get_or_try_insert_with(|| passes.network())?;
                passes.score(&self.classifier.inputs(planes)?, self.classifier.set.len(), network.as_mut())
            }
        }
    }
}

impl FittedMethod for FittedGeoTrans {
    fn score(
        &self,
        batch: &FeatureBatch<'_>,
        workspace: &mut MethodWorkspace,
    ) -> Result<Vec<MethodScore>, MethodError> {
        let views = views(batch, self.classifier.size)?;
        let score = |planes: &[f32], workspace: &mut MethodWorkspace| self.score_view(planes, workspace);
        views.outer_iter().map(|planes| score(planes.as_slice().expect("rows are contiguous"), workspace)).collect()
    }

    fn states(&self) -> Vec<(String, State)> {
        let network = self.classifier.network.state(self.classifier.seed);
        let mut states = vec![(STATE.to_owned(), network)];
        match &self.model {
            ScoreModel::Table { normality, .. } => states.push((scores::STATE.to_owned(), normality.state())),
            ScoreModel::Features(scorer) => states.push((SCORER.to_owned(), scorer.state())),
            ScoreModel::Passes(_) => {}
        }
        states
    }

    fn scores_vary(&self) -> bool {
        matches!(self.model, ScoreModel::Passes(_))
    }

    fn term_names(&self) -> Vec<String> {
        match self.model {
            ScoreModel::Features(_) => Vec::new(),
            ScoreModel::Table { .. } | ScoreModel::Passes(_) => {
                self.classifier.set.iter().map(Transformation::name).collect()
            }
        }
    }

    fn part_names(&self) -> Vec<String> {
        match self.model {
            ScoreModel::Table { .. } => TableScore::ALL.iter().map(ToString::to_string).collect(),
            ScoreModel::Features(_) => Vec::new(),
            ScoreModel::Passes(_) => passes::PARTS.map(str::to_owned).to_vec(),
        }
    }

    fn network(&self) -> Option<MethodNetwork<'_>> {
        let TransformationClassifier { network, set, .. } = &self.classifier;
        let classes = set.iter().map(Transformation::name).collect();
        Some(MethodNetwork { backbone: network.backbone(), input: [2.0, -1.0], classes })
    }
}
