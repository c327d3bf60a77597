//! Scores and decides on the images of a batch.

use nomaly_kernels::neighbours::NeighboursError;
use nomaly_methods::{FeatureBatch, FittedMethod, MethodError, MethodScore, MethodWorkspace, Skipped};
use nomaly_scorers::ScorerError;

use crate::decider::Decider;
use crate::error::DetectorError;
use crate::fusion::FusedMethod;
use crate::outcome::Prediction;

/// The kind of [`Skipped`] items with a score or map value that is not finite.
const NON_FINITE_SCORE: &str = "non-finite-score";

/// A fitted method with its decider.
pub(crate) struct Judge<'a> {
    pub(crate) fused: FusedMethod<'a>,
    pub(crate) decider: &'a Decider,
}

/// The scores of the views of each image.
type Views = Vec<Result<Vec<MethodScore>, Fault>>;

/// The scores of the views of each image of a batch, or the fault of an image.
fn views_of(
    fitted: &dyn FittedMethod,
    batch: &FeatureBatch<'_>,
    workspace: &mut MethodWorkspace,
) -> Result<Views, MethodError> {
    match fitted.score(batch, workspace) {
        Ok(scores) => {
            let mut scores = scores.into_iter();
            Ok((0..batch.images).map(|_| Ok(scores.by_ref().take(batch.views).collect())).collect())
        }
        // Score the images one by one, so that the fault concerns only one of them.
        Err(error) if is_about_values(&error) => one_by_one(fitted, batch, workspace),
        Err(error) => Err(error),
    }
}

fn one_by_one(
    fitted: &dyn FittedMethod,
    batch: &FeatureBatch<'_>,
    workspace: &mut MethodWorkspace,
) -> Result<Views, MethodError> {
    let image = |image: usize| {
        let values = batch.values_of(image);
        match fitted.score(&FeatureBatch { images: 1, values: &values, ..*batch }, workspace) {
            Ok(views) => Ok(Ok(views)),
            Err(error) if is_about_values(&error) => Ok(Err(Fault(error.to_string()))),
            Err(error) => Err(error),
        }
    };
    (0..batch.images).map(image).collect()
}

impl Judge<'_> {
    /// The prediction for each image of a batch, in order, or the fault of an image without a finite score. `sizes`
    /// holds the batch and `workspaces` the method's workspace at each size.
    ///
    /// # Errors
    /// Features of another shape than the fitted ones.
    pub(crate) fn batch(
        &self,
        sizes: &[FeatureBatch<'_>],
        workspaces: &mut [MethodWorkspace],
    ) -> Result<Vec<Result<Prediction, Fault>>, MethodError> {
        let images = sizes.first().map_or(0, |batch| batch.images);
        let mut all: Vec<Result<Vec<Vec<MethodScore>>, Fault>> = (0..images).map(|_| Ok(Vec::new())).collect();
        for ((fitted, batch), workspace) in self.fused.fitted.iter().zip(sizes).zip(workspaces) {
            for (image, views) in all.iter_mut().zip(views_of(&**fitted, batch, workspace)?) {
                match (&mut *image, views) {
                    (Ok(sizes), Ok(views)) => sizes.push(views),
                    (Ok(_), Err(fault)) => *image = Err(fault),
                    (Err(_), _) => {}
                }
            }
        }
        all.into_iter().map(|sizes| sizes.map_or_else(|fault| Ok(Err(fault)), |sizes| self.image(sizes))).collect()
    }

    /// The prediction for an image from the scores of its views at each size.
    fn image(&self, sizes: Vec<Vec<MethodScore>>) -> Result<Result<Prediction, Fault>, MethodError> {
        // A maximum over views would ignore NaN.
        if let Some(fault) = sizes.iter().flatten().find_map(fault) {
            return Ok(Err(fault));
        }
        let scored = self.fused.join(sizes)?;
        Ok(match fault(&scored) {
            Some(fault) => Err(fault),
            None => Ok(self.decider.decide(scored)),
        })
    }
}

/// The reason why an item has no score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault(pub(crate) String);

impl Fault {
    /// The fault of a score that is not finite.
    pub(crate) fn of_score(score: f64) -> Self {
        Self(format!("the score is {score}, not a finite number: the model is damaged, or does not fit this input"))
    }

    /// The skipped item `id` with this fault.
    pub(crate) fn of(self, id: &str) -> Skipped {
        Skipped { id: id.to_owned(), kind: NON_FINITE_SCORE.to_owned(), message: format!("{id}: {}", self.0) }
    }
}

/// Whether a scorer rejected values rather than a shape or a setting.
pub(crate) fn is_about_values(error: &MethodError) -> bool {
    matches!(
        error,
        MethodError::Scorer(ScorerError::NonFiniteFeature { .. })
            | MethodError::Neighbors(NeighboursError::NotFinite { .. })
    )
}

/// The fault of a score with a value that is not finite.
pub(crate) fn fault(scored: &MethodScore) -> Option<Fault> {
    let numbers = [scored.score].into_iter().chain(scored.deviation);
    let mut all = numbers.chain(scored.parts.iter().copied()).chain(scored.terms.iter().copied());
    if let Some(value) = all.find(|value| !value.is_finite()) {
        return Some(Fault::of_score(value));
    }
    let map = scored.map.as_ref()?;
    let at = map.values.iter().position(|value| !value.is_finite())?;
    let (value, x, y) = (map.values[at], at % map.width, at / map.width);
    Some(Fault(DetectorError::map_value([x, y], value).to_string()))
}

#[cfg(test)]
mod tests {
    use nomaly_backbones::{Backbone, OutputLayout, TapRequest};
    use nomaly_nn::runtime::Executor;
    use nomaly_scorers::State;
    use nomaly_transforms::{Filter, Normalize, Pipeline, Resize, ResizeMode};

    use super::*;
    use crate::{Calibration, DecisionRule, FeatureExtractor};
    use nomaly_methods::AnomalyMap;

    /// Scores each view by its first feature; optionally rejects NaN.
    struct First {
        refuses: bool,
    }

    impl FittedMethod for First {
        fn score(&self, batch: &FeatureBatch<'_>, _: &mut MethodWorkspace) -> Result<Vec<MethodScore>, MethodError> {
            let rows = batch.rows(0, 2)?;
            match rows.outer_iter().position(|row| row[0].is_nan()) {
                Some(row) if self.refuses => Err(ScorerError::NonFiniteFeature { row, column: 0 }.into()),
                _ => Ok(rows.outer_iter().map(|row| MethodScore::whole(row[0].into())).collect()),
            }
        }

        fn states(&self) -> Vec<(String, State)> {
            Vec::new()
        }
    }

    /// The results of images with these features, two views of two features each.
    fn judged(refuses: bool, values: &[f32]) -> Result<Vec<Result<f64, Fault>>, MethodError> {
        let backbone = Backbone::pixels();
        let resize = Resize { mode: ResizeMode::Exact { height: 32, width: 32 }, filter: Filter::Bilinear };
        let normalize = Normalize { mean: [0.0; 3], std: [1.0; 3] };
        let taps = [TapRequest::pixels(OutputLayout::Nchw)];
        let pipeline = Pipeline::new(resize, None, normalize).unwrap();
        let fitted: [Box<dyn FittedMethod>; 1] = [Box::new(First { refuses })];
        let extractors = [FeatureExtractor::new(&backbone, pipeline, &taps, &Executor::cpu().unwrap()).unwrap()];
        let judge = Judge {
            fused: FusedMethod { fitted: &fitted, extractors: &extractors, fusion: None },
            decider: &Decider::new(Calibration::new(vec![1.0], DecisionRule::Threshold(2.0)).unwrap(), None),
        };
        let (values, shapes) = ([values.to_vec()], [[2, 1, 1]]);
        let (taps, values, shapes) = (&taps[..], &values[..], &shapes[..]);
        let images = values[0].len().div_ceil(4);
        let batch = FeatureBatch {
            images,
            views: 2,
            input: [32, 32],
            map: [32, 32],
            taps,
            values,
            shapes,
            region: None,
            median: None,
        };
        let judged = judge.batch(&[batch], &mut judge.fused.workspaces())?;
        Ok(judged.into_iter().map(|image| image.map(|prediction| prediction.score)).collect())
    }

    #[test]
    fn an_image_without_a_score_does_not_spoil_its_batch() {
        let nan = f32::NAN;
        // The second image has a view whose score is NaN; a maximum over its views would hide it.
        let values = [1.0, 0.0, 2.0, 0.0, nan, 0.0, 9.0, 0.0, 3.0, 0.0, 4.0, 0.0];
        for refuses in [false, true] {
            let found = judged(refuses, &values).unwrap();
            let good = |scores: [f32; 4]| judged(refuses, &scores).unwrap().remove(0).unwrap();
            assert_eq!(found[0], Ok(good([1.0, 0.0, 2.0, 0.0])));
            assert!(found[1].is_err(), "{found:?}");
            assert_eq!(found[2], Ok(good([3.0, 0.0, 4.0, 0.0])));
        }
    }

    #[test]
    fn features_of_another_shape_are_no_fault_of_an_image() {
        let error = judged(true, &[1.0; 6]).unwrap_err();
        assert!(matches!(error, MethodError::FeatureShape { expected: 2, .. }), "{error}");
    }

    #[test]
    fn every_number_of_a_score_has_to_be_finite() {
        let map = |value| AnomalyMap { height: 2, width: 2, values: vec![0.0, 1.0, value, 2.0] };
        let good = MethodScore { deviation: Some(0.5), parts: vec![1.0], ..MethodScore::located(1.0, map(0.5)) };
        assert_eq!(fault(&good), None);
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for bad in [
                MethodScore { score: value, ..good.clone() },
                MethodScore { deviation: Some(value), ..good.clone() },
                MethodScore { parts: vec![1.0, value], ..good.clone() },
                MethodScore { terms: vec![value], ..good.clone() },
            ] {
                assert_eq!(fault(&bad), Some(Fault::of_score(value)));
            }
            let located = MethodScore { map: Some(map(value as f32)), ..good.clone() };
            assert!(fault(&located).unwrap().0.contains("at column 0 of row 1"));
        }
        let skipped = Fault::of_score(f64::NAN).of("a.png");
        assert_eq!((skipped.id.as_str(), skipped.kind.as_str()), ("a.png", "non-finite-score"));
        assert!(skipped.message.starts_with("a.png: the score is NaN"), "{}", skipped.message);
    }
}
