//! A second model that decides together with the first one, in `nomaly score`.

use std::path::Path;

use nomaly::calibration::DEFAULT_MAX_FPR;
use nomaly::evaluation::Hybrid;
use nomaly::{DetectorError, FittedDetector, Outcome, PredictOptions, Prediction, Sample, Skipped, StreamOptions};

use crate::console::Console;
use crate::failure::Failure;
use crate::output::percent;
use crate::progress::{Bars, Unit};

/// The second model's scores of all images, and their combination with the first model's.
pub(crate) struct HybridRun {
    hybrid: Hybrid,
    methods: [String; 2],
    /// The score of each image, in order.
    scores: Vec<Result<f64, Skipped>>,
    max_fpr: f64,
}

impl HybridRun {
    /// Scores `samples` with the model in `path`. An image is anomalous if its combined p-value is at most the rate of
    /// `options`, or of the first model.
    pub(crate) fn score(
        path: &Path,
        first: &FittedDetector,
        samples: &[Sample],
        options: &PredictOptions,
        console: &Console,
    ) -> anyhow::Result<Self> {
        let second = FittedDetector::load_on(path, first.executor())?;
        if [first, &second].iter().any(|detector| detector.classes().is_some()) {
            let hint = "leave out --with, or fit models of one kind of normal images";
            return Err(Failure::new("models of classes do not decide together with others", hint).into());
        }
        let hybrid = Hybrid::new([first, &second])?;
        let rule = options.rule.unwrap_or(first.info().decision);
        let mut scores = Vec::with_capacity(samples.len());
        // Without a separate rule, and without pictures.
        let quietly = PredictOptions { rule: None, stream: StreamOptions { preview: None, ..options.stream } };
        second
            .predict(samples, &quietly, &Bars::new(console, Unit::Images), |outcome| {
                scores.push(outcome.result.map(|prediction| prediction.score));
                Ok(())
            })
            .map_err(|error: DetectorError| {
                Failure::if_cancelled(error, "interrupted while the second model looked", "nothing was written")
            })?;
        let methods = [first, &second].map(|detector| detector.info().method.name.clone());
        Ok(Self { hybrid, methods, scores, max_fpr: rule.rate().unwrap_or(DEFAULT_MAX_FPR) })
    }

    /// The decision in words.
    pub(crate) fn rule(&self) -> String {
        let [first, second] = &self.methods;
        format!("anomalous where {first} and {second} together have a p-value of at most {}", percent(self.max_fpr))
    }

    /// The score above which an image is anomalous.
    pub(crate) fn threshold(&self) -> f64 {
        -self.max_fpr.ln()
    }

    /// The outcome of the `index`-th image with the combined decision. Its score is −ln of the combined p-value; maps
    /// stay those of the first model.
    pub(crate) fn join<'a>(&self, outcome: Outcome<'a>, index: usize) -> Outcome<'a> {
        let result = match (outcome.result, &self.scores[index]) {
            (Ok(prediction), Ok(second)) => {
                let p_value = self.hybrid.p_value(&[prediction.score, *second]);
                Ok(Prediction {
                    score: -p_value.ln(),
                    deviation: None,
                    p_value,
                    anomalous: Some(p_value <= self.max_fpr || p_value.is_nan()),
                    parts: Vec::new(),
                    terms: Vec::new(),
                    ..prediction
                })
            }
            (Ok(_), Err(skipped)) => Err(skipped.clone()),
            (Err(skipped), _) => Err(skipped),
        };
        Outcome { result, ..outcome }
    }
}
