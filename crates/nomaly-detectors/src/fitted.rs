//! Fitted detectors, of images or rows.

use std::path::Path;

use nomaly_backbones::BackboneError;
use nomaly_methods::MethodError;
use nomaly_nn::runtime::Executor;
use nomaly_settings::SettingError;

use crate::calibration::{Calibration, DecisionRule};
use crate::classes::Classes;
use crate::decider::Decider;
use crate::error::DetectorError;
use crate::info::Info;
use crate::model_file::{self, Stored};

/// A fitted detector: a [`FittedDetector`](crate::FittedDetector) scores images, a
/// [`FittedRows`](crate::rows::FittedRows) scores rows of a table.
pub struct Fitted<M: Model> {
    pub(crate) info: M::Info,
    pub(crate) decider: Decider,
    pub(crate) model: M,
}

/// The fitted model of images or rows. Sealed.
pub trait Model: Sized + sealed::Ours {
    /// The description of the model and its training data.
    type Info: Info;

    /// The content of the model file.
    ///
    /// # Errors
    /// Weights that cannot be exported.
    #[doc(hidden)]
    fn stored(&self) -> Result<Stored, DetectorError>;

    /// Restores a model from its [`stored`](Self::stored) content; its networks run on `executor`.
    ///
    /// # Errors
    /// Content that no fit writes.
    #[doc(hidden)]
    fn restore(info: &Self::Info, stored: Stored, executor: &Executor) -> Result<Self, DetectorError>;

    /// The known classes, ascending; empty for models without classes.
    #[doc(hidden)]
    fn class_names(&self) -> &[String];
}

pub(crate) mod sealed {
    /// Seals the trait.
    pub trait Ours {}
}

impl<M: Model> Fitted<M> {
    /// The description of the model and its training data.
    pub fn info(&self) -> &M::Info {
        &self.info
    }

    /// The decider.
    pub fn decider(&self) -> &Decider {
        &self.decider
    }

    /// The decider under `rule`, or under the model's own rule if `None`.
    ///
    /// # Errors
    /// A [rule](DecisionRule::checked) out of range.
    pub fn decider_under(&self, rule: Option<DecisionRule>) -> Result<Decider, DetectorError> {
        rule.map_or_else(|| Ok(self.decider.clone()), |rule| self.decider.with_rule(rule))
    }

    /// Its decision rule and held-out scores; see [`Decider::calibration`].
    pub fn calibration(&self) -> &Calibration {
        self.decider.calibration()
    }

    /// The known classes with their calibrations; `None` for models without classes.
    pub fn classes(&self) -> Option<&Classes> {
        self.decider.classes()
    }

    /// The same model with another decision rule on the same held-out scores.
    ///
    /// # Errors
    /// A [rule](DecisionRule::checked) out of range.
    pub fn with_decision(mut self, rule: DecisionRule) -> Result<Self, DetectorError> {
        let decider = self.decider.with_rule(rule)?;
        let calibrated_on = self.info.history().calibrated_on.clone();
        self.decide_by(decider, calibrated_on);
        Ok(self)
    }

    /// Replaces the calibration and adds the previous one to the history. `calibrated_on` names the data of the
    /// held-out scores; `None` for the training data.
    pub(crate) fn decide_by(&mut self, decider: Decider, calibrated_on: Option<String>) {
        let history = self.info.history();
        history.push(self.decider.calibration());
        history.calibrated_on = calibrated_on;
        self.info.set_rule(decider.calibration().rule());
        self.decider = decider;
    }

    /// Writes the model file, atomically.
    ///
    /// # Errors
    /// A path that cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), DetectorError> {
        model_file::write(path, &self.info, &self.model.stored()?, &self.decider)
    }

    /// Reads a model file, to run on the processor. Executes nothing in it and checks all of it.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged, holds a model of the other kind, or has an unknown version.
    pub fn load(path: &Path) -> Result<Self, DetectorError> {
        Self::load_on(path, &Executor::cpu()?)
    }

    /// As [`load`](Self::load), with networks that run on `executor`. A model that was fitted on one device runs on any
    /// other; scores differ in the last digits.
    ///
    /// # Errors
    /// As [`load`](Self::load), and if the device fails.
    pub fn load_on(path: &Path, executor: &Executor) -> Result<Self, DetectorError> {
        Self::restore(model_file::read(path)?, path, executor)
    }

    /// As [`load`](Self::load), from the bytes of a model file.
    ///
    /// # Errors
    /// As [`load`](Self::load); messages name the file `bytes`.
    pub fn load_bytes(bytes: &[u8]) -> Result<Self, DetectorError> {
        Self::load_bytes_on(bytes, &Executor::cpu()?)
    }

    /// As [`load_on`](Self::load_on), from the bytes of a model file.
    ///
    /// # Errors
    /// As [`load_on`](Self::load_on); messages name the file `bytes`.
    pub fn load_bytes_on(bytes: &[u8], executor: &Executor) -> Result<Self, DetectorError> {
        let path = Path::new("bytes");
        Self::restore(model_file::parse(bytes, path)?, path, executor)
    }

    fn restore(parts: model_file::Parts<M::Info>, path: &Path, executor: &Executor) -> Result<Self, DetectorError> {
        let model_file::Parts { info, stored, held_out, class_scores } = parts;
        let build = || {
            let calibration = held_out.calibration(info.rule())?;
            let classes = model_file::stored_classes(info.classes(), class_scores, info.rule())?;
            let model = M::restore(&info, stored, executor)?;
            model_file::check_classes(model.class_names(), info.classes())?;
            Ok(Self { info, decider: Decider::new(calibration, classes), model })
        };
        build().map_err(|error| match error {
            // Faults of the machine or the environment are not reported as damage of the file.
            DetectorError::Method(MethodError::Isa(_) | MethodError::Runtime(_)) => error,
            DetectorError::Method(MethodError::Backbone(ref cause))
                if matches!(**cause, BackboneError::OnDevice { .. }) =>
            {
                error
            }
            DetectorError::Method(MethodError::Setting(SettingError::Renamed { .. })) => {
                let reason = format!("was written by an earlier version: {error}; fit the model again");
                DetectorError::ModelFile { path: path.to_owned(), reason }
            }
            error => DetectorError::ModelFile { path: path.to_owned(), reason: error.to_string() },
        })
    }
}
