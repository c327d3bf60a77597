//! The methods that can be named.

use nomaly_backbones::Backbone;
use nomaly_registry::{Entry, Registry};

use crate::methods::{dn2, mvg};
use crate::{DetectorError, Method, Parameter, Settings};

/// A published figure of a method.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// The data set, and the backbone where the paper compares several.
    pub on: &'static str,
    /// The image-level AUROC in percent.
    pub image_auroc: f64,
}

/// Makes a checked method of settings and the backbone it is to stand on.
pub type BuildMethod = fn(&Settings, &Backbone) -> Result<Box<dyn Method>, DetectorError>;

/// One method: what it is, and how it is made from settings.
pub struct MethodEntry {
    /// The name users type.
    pub name: &'static str,
    /// One line that says what it does.
    pub summary: &'static str,
    /// Authors, title, year.
    pub paper: &'static str,
    /// Whether it makes anomaly maps.
    pub maps: bool,
    /// The fewest training images it can be fitted on.
    pub min_images: usize,
    /// Its parameters.
    pub parameters: &'static [Parameter],
    /// Figures of its paper.
    pub published: &'static [Published],
    /// Checks the settings against the backbone.
    pub build: BuildMethod,
}

impl Entry for MethodEntry {
    fn name(&self) -> &str {
        self.name
    }
    fn summary(&self) -> &str {
        self.summary
    }
}

/// Every method.
pub static METHODS: Registry<MethodEntry> = Registry::new("method", &[mvg::ENTRY, dn2::ENTRY]);
