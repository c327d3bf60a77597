//! The image itself, for methods that work on pixels.
//!
//! # What it computes
//! Nothing: the tap `pixels` (3 channels, stride 1) gives the image as it comes out of the preprocessing, red, green
//! and blue in [0, 1].
//!
//! # When to use
//! With methods that compute their own features from pixels, such as models of patches. It has no weights, so a model
//! file stays small.
//!
//! # Parameters
//! None.

use nomaly_kernels::geometry::Activation::Identity;

use nomaly_nn::graph::{Graph, GraphBuilder};

/// The name of the only tap.
pub const TAP: &str = "pixels";

/// The graph, which has no classifier.
pub(super) fn graph() -> Graph {
    let mut g = GraphBuilder::new(3);
    let pixels = g.activation(0, Identity);
    g.tap(TAP, pixels);
    g.finish().expect("the architecture is consistent")
}

#[cfg(test)]
mod tests {
    use nomaly_kernels::geometry::OutputLayout;
    use nomaly_nn::runtime::Executor;

    use crate::{Backbone, OpenOptions, TapRequest};

    #[test]
    fn what_goes_in_comes_out() {
        let backbone = Backbone::open("pixels", &OpenOptions::default()).unwrap();
        let taps = [OutputLayout::Nchw, OutputLayout::Rows].map(|layout| TapRequest::new(super::TAP, layout));
        let extractor = backbone.compile([3, 5], &taps, &Executor::cpu().unwrap()).unwrap();
        let image: Vec<f32> = (0..2 * 3 * 15).map(|value| value as f32 / 90.0).collect();
        let mut outputs = vec![Vec::new(); 2];
        extractor.run(&image, 2, &mut extractor.workspace(2), &mut outputs).unwrap();
        assert_eq!(outputs[0], image);
        assert_eq!(outputs[1][..6], [image[0], image[15], image[30], image[1], image[16], image[31]]);
        assert!(backbone.export(&[super::TAP]).unwrap().is_empty());
    }
}
