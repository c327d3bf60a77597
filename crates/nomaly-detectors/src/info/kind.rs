//! Common parts of the headers of models of images and rows.

use nomaly_methods::recognition::KnownClass;

use super::history::DecisionHistory;
use super::images::ModelInfo;
use super::rows::RowsInfo;
use crate::calibration::DecisionRule;

/// The description of a model: [`ModelInfo`] or [`RowsInfo`].
#[doc(hidden)]
pub trait Info: Clone {
    /// Whether it describes a model of images.
    const IMAGES: bool;
    /// The message for a file that holds a model of the other kind.
    const OTHER_KIND: &'static str;

    fn classes(&self) -> &[KnownClass];
    fn rule(&self) -> DecisionRule;
    fn set_rule(&mut self, rule: DecisionRule);
    fn history(&mut self) -> &mut DecisionHistory;

    /// The entries of a file's header.
    fn entries(self) -> (Option<ModelInfo>, Option<RowsInfo>);

    /// The description, if it is among the entries.
    fn of_entries(images: Option<ModelInfo>, rows: Option<RowsInfo>) -> Option<Self>;
}

impl Info for ModelInfo {
    const IMAGES: bool = true;
    const OTHER_KIND: &'static str = "is a model of rows, and scores tables (.csv, .tsv, .npy, .parquet), not images";

    fn classes(&self) -> &[KnownClass] {
        &self.classes
    }

    fn rule(&self) -> DecisionRule {
        self.decision
    }

    fn set_rule(&mut self, rule: DecisionRule) {
        self.decision = rule;
    }

    fn history(&mut self) -> &mut DecisionHistory {
        &mut self.history
    }

    fn entries(self) -> (Option<ModelInfo>, Option<RowsInfo>) {
        (Some(self), None)
    }

    fn of_entries(images: Option<ModelInfo>, _: Option<RowsInfo>) -> Option<Self> {
        images
    }
}

impl Info for RowsInfo {
    const IMAGES: bool = false;
    const OTHER_KIND: &'static str = "is a model of images, and scores images, not rows";

    fn classes(&self) -> &[KnownClass] {
        &self.classes
    }

    fn rule(&self) -> DecisionRule {
        self.decision
    }

    fn set_rule(&mut self, rule: DecisionRule) {
        self.decision = rule;
    }

    fn history(&mut self) -> &mut DecisionHistory {
        &mut self.history
    }

    fn entries(self) -> (Option<ModelInfo>, Option<RowsInfo>) {
        (None, Some(self))
    }

    fn of_entries(_: Option<ModelInfo>, rows: Option<RowsInfo>) -> Option<Self> {
        rows
    }
}
