//! The families of networks, each defined once as a [`Graph`].

pub mod efficientnet;
pub mod mobilenet;
pub mod resnet;
pub mod vision_transformer;
pub mod wide_resnet;

use nomaly_nn::graph::Graph;

/// A family with the parameters of one member.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Architecture {
    /// Residual networks in torchvision's layout.
    ResNet(resnet::ResNet),
    /// Pre-activation wide residual networks for small images.
    WideResNet(wide_resnet::WideResNet),
    /// EfficientNet and EfficientNet-Lite.
    EfficientNet(efficientnet::EfficientNet),
    /// MobileNetV2.
    MobileNet,
    /// Vision transformers of DINOv2.
    VisionTransformer(vision_transformer::VisionTransformer),
}

impl Architecture {
    /// The name of the family.
    pub fn family(&self) -> &'static str {
        match self {
            Self::ResNet(_) => "resnet",
            Self::WideResNet(_) => "wide-resnet",
            Self::EfficientNet(config) => config.family(),
            Self::MobileNet => "mobilenet",
            Self::VisionTransformer(_) => "vision-transformer",
        }
    }

    /// The same network with dropout of this share of the values, in [0, 1), if its family supports it: between the two
    /// convolutions of a wide residual block. The parameters are the same with dropout and without.
    pub fn with_dropout(self, rate: f32) -> Option<Self> {
        match self {
            Self::WideResNet(config) => Some(Self::WideResNet(config.with_dropout(rate))),
            Self::ResNet(_) | Self::EfficientNet(_) | Self::MobileNet | Self::VisionTransformer(_) => None,
        }
    }

    /// The number of which the sides of an image must be multiples; 1 for convolutional networks.
    pub fn size_multiple(&self) -> usize {
        match self {
            Self::VisionTransformer(_) => vision_transformer::PATCH,
            _ => 1,
        }
    }

    /// The naming schemes of weight files that are understood, where a file cannot be told by a single tensor; see
    /// [`Layout`](crate::weights::Layout).
    pub(crate) fn accepted_names(&self) -> Option<&'static str> {
        matches!(self, Self::VisionTransformer(_)).then_some("DINOv2's own files, timm or transformers")
    }

    /// A tensor that only the weights of a similar network have.
    pub(crate) fn foreign_tensor(&self) -> Option<&'static str> {
        match self {
            Self::VisionTransformer(config) if config.registers == 0 => Some("register_tokens"),
            _ => None,
        }
    }

    /// The network with a classifier of this many `classes`, if it has one.
    pub fn graph(&self, classes: usize) -> Graph {
        match self {
            Self::ResNet(config) => config.graph(classes),
            Self::WideResNet(config) => config.graph(classes),
            Self::EfficientNet(config) => config.graph(classes),
            Self::MobileNet => mobilenet::graph(classes),
            Self::VisionTransformer(config) => config.graph(),
        }
    }
}
