//! Taps: the places in a backbone where features are taken.

use nomaly_kernels::geometry::OutputLayout;
use serde::Serialize;

use nomaly_nn::graph::Graph;

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
    /// Whether it is a classifier's result, which names a known class instead of describing the image.
    pub fn is_classifier(&self) -> bool {
        self.name.rsplit(PREFIX_SEPARATOR).next() == Some(LOGITS)
    }
}

/// The name of the tap that is the input itself, which needs no network: red, green and blue, normalized as the
/// backbone takes them, or in [0, 1] without a network.
pub const PIXELS: &str = "pixels";

/// The name of a classifier's tap.
pub(crate) const LOGITS: &str = "logits";

/// The separator between a network's name and those of its taps and tensors, if several are joined.
pub(crate) const PREFIX_SEPARATOR: char = '/';

/// A tap and the layout of its features.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapRequest {
    /// Name of the tap.
    pub name: String,
    /// The order of the values, or their mean over all positions.
    pub layout: OutputLayout,
}

impl TapRequest {
    /// Requests the tap `name` in `layout`.
    pub fn new(name: impl Into<String>, layout: OutputLayout) -> Self {
        Self { name: name.into(), layout }
    }

    /// Requests the [pixels](PIXELS) in `layout`.
    pub fn pixels(layout: OutputLayout) -> Self {
        Self::new(PIXELS, layout)
    }

    /// Whether it is the input itself.
    pub fn is_pixels(&self) -> bool {
        self.name == PIXELS
    }
}

/// The taps of a graph, from the shallowest to the deepest.
pub fn tap_infos(graph: &Graph) -> impl Iterator<Item = TapInfo> {
    graph.taps().iter().map(|tap| {
        let node = &graph.nodes()[tap.node];
        TapInfo { name: tap.name.clone(), channels: node.channels, stride: node.stride }
    })
}
