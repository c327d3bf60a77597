//! What can be wrong with the question where a network looks.

use crate::error::BackboneError;
use crate::trainable::TrainableError;

/// Why there is no map.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// The backbone does not have a tap, or cannot be compiled or run.
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    /// Gradients were asked for through operations that have none here, or for which the weights lack something.
    #[error("no gradient of `{output}` reaches `{tap}` of {backbone}: {source}")]
    Gradient {
        /// The backbone.
        backbone: String,
        /// The tap whose map was asked for.
        tap: String,
        /// The tap whose gradient it needs.
        output: String,
        /// Why.
        source: Box<TrainableError>,
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
    /// The output does not see the image through the tap alone.
    #[error("`{output}` of {backbone} does not see the image through `{tap}` alone")]
    Bypassed {
        /// The backbone.
        backbone: String,
        /// The tap.
        tap: String,
        /// The output.
        output: String,
    },
    /// A class was asked for, and the weights have no classifier.
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
        /// How many there are.
        classes: usize,
    },
    /// A centre, or a gradient, of another length than the features.
    #[error("the centre or the gradient has {found} values, the features of `{output}` have {expected}")]
    Centre {
        /// The tap whose features are meant.
        output: String,
        /// Channels of the features.
        expected: usize,
        /// Values of the centre.
        found: usize,
    },
    /// The images are no whole number of images.
    #[error("{found} values are no whole number of images of {each} values")]
    Images {
        /// Values of one image.
        each: usize,
        /// Values given.
        found: usize,
    },
    /// A share that is none.
    #[error("a quantile of {quantile} is not in [0, 1]")]
    Quantile {
        /// The share.
        quantile: f64,
    },
}
