//! Errors of explanations.

use crate::error::BackboneError;
use nomaly_nn::runtime::RuntimeError;

/// Why there is no map.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// The backbone does not have a tap, or cannot be compiled or run.
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    /// Gradients are needed through operations without gradient, or through layers with missing weights.
    #[error("no gradient of `{output}` reaches `{tap}` of {backbone}: {source}")]
    Gradient {
        /// The backbone.
        backbone: String,
        /// The tap of the requested map.
        tap: String,
        /// The tap whose gradient it needs.
        output: String,
        /// The cause.
        source: Box<RuntimeError>,
    },
    /// The tap has one position.
    #[error("the tap `{tap}` of {backbone} has no positions to make a map of; there are {spatial}")]
    NoPositions {
        /// The backbone.
        backbone: String,
        /// The tap.
        tap: String,
        /// Taps that have positions.
        spatial: String,
    },
    /// The output does not depend on the image through the tap alone.
    #[error("`{output}` of {backbone} does not see the image through `{tap}` alone")]
    Bypassed {
        /// The backbone.
        backbone: String,
        /// The tap.
        tap: String,
        /// The output.
        output: String,
    },
    /// A class was requested, but the weights have no classifier.
    #[error("the weights of {backbone} have no classifier, so there is no class to look for; they end at `{deepest}`")]
    NoClassifier {
        /// The backbone.
        backbone: String,
        /// The deepest tap that the weights serve.
        deepest: String,
    },
    /// A class beyond the last.
    #[error("{backbone} has no class {class}: its {classes} classes are numbered from 0")]
    NoClass {
        /// The backbone.
        backbone: String,
        /// The class.
        class: usize,
        /// The number of classes.
        classes: usize,
    },
    /// A centre or gradient whose length differs from that of the features.
    #[error("the centre or the gradient has {found} values, the features of `{output}` have {expected}")]
    Centre {
        /// The tap of the features.
        output: String,
        /// Channels of the features.
        expected: usize,
        /// Values of the centre.
        found: usize,
    },
    /// The values do not form whole images.
    #[error("{found} values are not a whole number of images of {each} values")]
    Images {
        /// Values of one image.
        each: usize,
        /// Values given.
        found: usize,
    },
    /// A share outside [0, 1].
    #[error("a quantile of {quantile} is not in [0, 1]")]
    Quantile {
        /// The share.
        quantile: f64,
    },
}
