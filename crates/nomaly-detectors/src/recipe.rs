//! The user's choice of what to fit: a method or `auto`, and a backbone or the default one.

use std::path::PathBuf;
use std::time::Duration;

use nomaly_backbones::PIXELS;
use nomaly_data::Sample;
use nomaly_methods::{METHODS, MethodError, Sees};
use nomaly_nn::runtime::Executor;
use nomaly_settings::Assignments;
use nomaly_store::Progress;

use crate::auto::choose_method;
use crate::detector::{Detector, FitOptions, FitResult};
use crate::error::DetectorError;
use crate::refit::fit_without_suspicious;

/// The method name that selects a method by the images and the time budget.
pub const AUTO: &str = "auto";
/// The default backbone; its weights are embedded in the library.
pub const DEFAULT_BACKBONE: &str = "efficientnet-lite0";

/// What to fit, and how.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The method, or [`AUTO`].
    pub method: String,
    /// The backbone; `None` for [`DEFAULT_BACKBONE`], or for none where the method sees pixels.
    pub backbone: Option<String>,
    /// Settings of the method and of its input.
    pub settings: Assignments,
    /// Seed, decision rule, groups and image options.
    pub options: FitOptions,
    /// The time budget of the fit for [`AUTO`].
    pub time_budget: Option<Duration>,
    /// The level of suspicion at which training images are dropped.
    pub drop_suspicious: Option<f64>,
    /// The folder for checkpoints of methods that train a network.
    pub checkpoints: Option<PathBuf>,
    /// Runs the networks; `None` for the processor.
    pub executor: Option<Executor>,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            method: AUTO.to_owned(),
            backbone: None,
            settings: Assignments::new(),
            options: FitOptions::default(),
            time_budget: None,
            drop_suspicious: None,
            checkpoints: None,
            executor: None,
        }
    }
}

/// A recipe resolved for given images.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// The method.
    pub method: &'static str,
    /// The backbone; `pixels` for none.
    pub backbone: String,
    /// The given settings with those of the choice.
    pub settings: Assignments,
    /// The reason, in one line, if [`AUTO`] chose.
    pub reason: Option<String>,
}

impl Recipe {
    /// What runs the networks.
    fn executor(&self) -> Result<Executor, DetectorError> {
        self.executor.as_ref().map_or_else(|| Ok(Executor::cpu()?), |executor| Ok(executor.clone()))
    }

    /// Resolves the recipe for `samples`.
    ///
    /// # Errors
    /// An unknown method, a time budget with a named method, and the errors of [`choose_method`].
    pub fn choose(&self, samples: &[Sample]) -> Result<Chosen, DetectorError> {
        if self.method == AUTO {
            let backbone = self.backbone.as_deref().unwrap_or(DEFAULT_BACKBONE);
            let executor = &self.executor()?;
            let choice = choose_method(samples, backbone, &self.settings, &self.options, self.time_budget, executor)?;
            return Ok(Chosen {
                method: choice.method,
                backbone: backbone.to_owned(),
                settings: choice.settings,
                reason: Some(choice.reason),
            });
        }
        if self.time_budget.is_some() {
            let reason = format!("a time budget is for the method auto, and the method is {}", self.method);
            return Err(MethodError::Conflict { reason }.into());
        }
        let entry = METHODS.get(&self.method)?;
        let usual = match entry.sees {
            Sees::Pixels => PIXELS,
            Sees::Taps => DEFAULT_BACKBONE,
        };
        let backbone = self.backbone.as_deref().unwrap_or(usual);
        Ok(Chosen { method: entry.name, backbone: backbone.to_owned(), settings: self.settings.clone(), reason: None })
    }

    /// The chosen detector, not yet fitted.
    ///
    /// # Errors
    /// As [`Detector::new`].
    pub fn detector(&self, chosen: &Chosen) -> Result<Detector, DetectorError> {
        let detector = Detector::new_on(chosen.method, &chosen.backbone, &chosen.settings, &self.executor()?)?;
        let trains = METHODS.get(chosen.method)?.trains;
        Ok(match self.checkpoints.as_ref().filter(|_| trains) {
            Some(folder) => detector.with_checkpoints(folder),
            None => detector,
        })
    }

    /// Fits the chosen detector on `samples`, all treated as good; `dataset` is their name in the model file.
    ///
    /// # Errors
    /// As [`Detector::fit`] and [`fit_without_suspicious`].
    pub fn fit(
        &self,
        chosen: &Chosen,
        dataset: &str,
        samples: &[Sample],
        progress: &dyn Progress,
    ) -> Result<FitResult, DetectorError> {
        match self.drop_suspicious {
            None => self.detector(chosen)?.fit(dataset, samples, &self.options, progress),
            Some(level) => {
                let detector = || self.detector(chosen);
                fit_without_suspicious(&detector, dataset, samples, &self.options, level, progress)
            }
        }
    }
}
