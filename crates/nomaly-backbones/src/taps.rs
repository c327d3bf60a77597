//! Taps: the places in a backbone where features are taken.

use nomaly_kernels::geometry::OutputLayout;
use serde::Serialize;

use crate::graph::Graph;

/// A place where features can be taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TapInfo {
    /// The name that users type.
    pub name: String,
    /// Channels of the features.
    pub channels: usize,
    /// Pixels of the input between neighbouring positions; `None` for `logits`, which have one position.
    pub stride: Option<usize>,
}

impl TapInfo {
    /// Whether it is a classifier's result, which says which of the known classes an image is rather than how it looks.
    pub fn is_classifier(&self) -> bool {
        self.name.rsplit(OF).next() == Some(LOGITS)
    }
}

/// The name of a classifier's tap.
pub(crate) const LOGITS: &str = "logits";

/// What stands between a network's name and those of its taps and tensors, where several are joined.
pub(crate) const OF: char = '/';

/// Features to take, and the order of their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapRequest {
    /// Name of the tap.
    pub name: String,
    /// Order of the numbers, or their mean over all positions.
    pub layout: OutputLayout,
}

impl TapRequest {
    /// Asks for the tap `name` in `layout`.
    pub fn new(name: impl Into<String>, layout: OutputLayout) -> Self {
        Self { name: name.into(), layout }
    }
}

/// The taps of a graph, from the shallowest to the deepest.
pub fn tap_infos(graph: &Graph) -> impl Iterator<Item = TapInfo> {
    graph.taps().iter().map(|tap| {
        let node = &graph.nodes()[tap.node];
        TapInfo { name: tap.name.clone(), channels: node.channels, stride: node.stride }
    })
}
