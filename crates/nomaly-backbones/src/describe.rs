//! Descriptions of backbones for lists.

use serde::Serialize;

use crate::registry::{BACKBONES, BackboneEntry};
use crate::taps::{TapInfo, tap_infos};

/// A backbone in figures, for tables and machine-readable lists.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Description {
    /// The name that users type.
    pub name: &'static str,
    /// The family, for grouping.
    pub family: &'static str,
    /// One line about it.
    pub summary: &'static str,
    /// Trained parameters, classifier included.
    pub parameters: usize,
    /// Side of the square image that it was trained on.
    pub input_size: usize,
    /// Interpolation with which images were resized.
    pub filter: &'static str,
    /// Taps from the shallowest to the deepest.
    pub taps: Vec<TapInfo>,
    /// The origin of the known weights; `None` if there are none.
    pub origin: Option<&'static str>,
    /// Licence of the known weights, as an SPDX identifier.
    pub licence: Option<&'static str>,
    /// Whether the weights are part of the library.
    pub embedded: bool,
}

impl BackboneEntry {
    /// The entry in figures.
    pub fn describe(&self) -> Description {
        let graph = self.graph();
        Description {
            name: self.name,
            family: self.family(),
            summary: self.summary,
            parameters: graph.parameter_count(),
            input_size: self.preprocessing.input_size,
            filter: self.preprocessing.filter.as_str(),
            taps: tap_infos(&graph).collect(),
            origin: self.weights.map(|weights| weights.origin),
            licence: self.weights.map(|weights| weights.licence),
            embedded: self.is_embedded(),
        }
    }
}

/// Every backbone in figures, in the order of the registry.
pub fn describe_all() -> Vec<Description> {
    BACKBONES.iter().map(BackboneEntry::describe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_backbone_is_embedded_and_all_with_weights_have_a_licence() {
        let all = describe_all();
        let embedded: Vec<_> = all.iter().filter(|one| one.embedded).map(|one| one.name).collect();
        assert_eq!(embedded, [crate::weights::EMBEDDED]);
        assert!(all.iter().all(|one| one.origin.is_some() == one.licence.is_some()));
    }

    #[test]
    fn figures_of_resnet18() {
        let resnet = BACKBONES.get("resnet18").unwrap().describe();
        let taps: Vec<_> = resnet.taps.iter().map(|tap| (tap.name.as_str(), tap.channels, tap.stride)).collect();
        assert_eq!(
            taps,
            [
                ("stem", 64, Some(2)),
                ("layer1", 64, Some(4)),
                ("layer2", 128, Some(8)),
                ("layer3", 256, Some(16)),
                ("layer4", 512, Some(32)),
                ("logits", 1000, None),
            ]
        );
        assert_eq!((resnet.parameters, resnet.input_size, resnet.filter), (11_689_512, 224, "bilinear"));
    }
}
