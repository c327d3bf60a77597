//! What fitted detectors have in common, whether they score images or rows.

use std::path::Path;

use nomaly_methods::MethodError;

use crate::calibration::{Calibration, DecisionRule};
use crate::classes::Classes;
use crate::decider::Decider;
use crate::error::DetectorError;
use crate::info::Info;
use crate::model_file::{self, Stored};

/// A detector that has learned what is normal: a [`FittedDetector`](crate::FittedDetector) scores images, a
/// [`FittedRows`](crate::rows::FittedRows) rows of a table.
pub struct Fitted<M: Model> {
    pub(crate) info: M::Info,
    pub(crate) decider: Decider,
    pub(crate) model: M,
}

/// What was learned, of images or of rows; no other type is one.
pub trait Model: Sized + sealed::Ours {
    /// What it is made of and what it was fitted on.
    type Info: Info;

    /// What a model file keeps of it.
    ///
    /// # Errors
    /// Weights that cannot be exported.
    #[doc(hidden)]
    fn stored(&self) -> Result<Stored, DetectorError>;

    /// Brings back what [`stored`](Self::stored) gave.
    ///
    /// # Errors
    /// Anything that no fit writes.
    #[doc(hidden)]
    fn restore(info: &Self::Info, stored: Stored) -> Result<Self, DetectorError>;

    /// The classes that it tells apart, ascending; empty where it knows none.
    #[doc(hidden)]
    fn class_names(&self) -> &[String];
}

pub(crate) mod sealed {
    /// Keeps other crates from models of their own.
    pub trait Ours {}
}

impl<M: Model> Fitted<M> {
    /// What it is made of and what it was fitted on.
    pub fn info(&self) -> &M::Info {
        &self.info
    }

    /// How it decides.
    pub fn decider(&self) -> &Decider {
        &self.decider
    }

    /// How it decides under `rule`, or its own rule where that is `None`.
    ///
    /// # Errors
    /// A [rule](DecisionRule::checked) out of range.
    pub fn decider_under(&self, rule: Option<DecisionRule>) -> Result<Decider, DetectorError> {
        rule.map_or_else(|| Ok(self.decider.clone()), |rule| self.decider.with_rule(rule))
    }

    /// Its decision rule and held-out scores, as [`Decider::calibration`].
    pub fn calibration(&self) -> &Calibration {
        self.decider.calibration()
    }

    /// The classes that it knows, with the decision for each; `None` for models of normal items alone.
    pub fn classes(&self) -> Option<&Classes> {
        self.decider.classes()
    }

    /// The same model with another rule on the same held-out scores.
    ///
    /// # Errors
    /// A [rule](DecisionRule::checked) out of range.
    pub fn with_decision(mut self, rule: DecisionRule) -> Result<Self, DetectorError> {
        let decider = self.decider.with_rule(rule)?;
        let calibrated_on = self.info.history().calibrated_on.clone();
        self.decide_by(decider, calibrated_on);
        Ok(self)
    }

    /// Replaces the decision, and remembers the one before. `calibrated_on` names the data that the held-out scores are
    /// of; `None` is the training data.
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
    /// A place that cannot be written to.
    pub fn save(&self, path: &Path) -> Result<(), DetectorError> {
        model_file::write(path, &self.info, &self.model.stored()?, &self.decider)
    }

    /// Reads a model file; nothing in it is executed, and everything in it is checked.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged, holds a model of the other kind, or comes from a version that this one
    /// does not know.
    pub fn load(path: &Path) -> Result<Self, DetectorError> {
        Self::restore(model_file::read(path)?, path)
    }

    /// As [`load`](Self::load), from the bytes of a model file.
    ///
    /// # Errors
    /// As [`load`](Self::load), under the name of `bytes`.
    pub fn load_bytes(bytes: &[u8]) -> Result<Self, DetectorError> {
        let path = Path::new("bytes");
        Self::restore(model_file::parse(bytes, path)?, path)
    }

    fn restore(parts: model_file::Parts<M::Info>, path: &Path) -> Result<Self, DetectorError> {
        let model_file::Parts { info, stored, held_out, class_scores } = parts;
        let build = || {
            let calibration = held_out.calibration(info.rule())?;
            let classes = model_file::stored_classes(info.classes(), class_scores, info.rule())?;
            let model = M::restore(&info, stored)?;
            model_file::check_classes(model.class_names(), info.classes())?;
            Ok(Self { info, decider: Decider::new(calibration, classes), model })
        };
        build().map_err(|error| match error {
            // A fault of the machine or of the environment is not one of the file.
            DetectorError::Method(MethodError::Isa(_)) => error,
            error => DetectorError::ModelFile { path: path.to_owned(), reason: error.to_string() },
        })
    }
}
