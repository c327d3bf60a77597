//! The families of networks, each defined once as a [`Graph`].

pub mod efficientnet;
pub mod mobilenet;
pub mod resnet;
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
}

impl Architecture {
    /// The name of the family.
    pub fn family(&self) -> &'static str {
        match self {
            Self::ResNet(_) => "resnet",
            Self::WideResNet(_) => "wide-resnet",
            Self::EfficientNet(config) => config.family(),
            Self::MobileNet => "mobilenet",
        }
    }

    /// The same network with dropout of this share of the values, in [0, 1), if its family supports it: between the two
    /// convolutions of a wide residual block. The parameters are the same with dropout and without.
    pub fn with_dropout(self, rate: f32) -> Option<Self> {
        match self {
            Self::WideResNet(config) => Some(Self::WideResNet(config.with_dropout(rate))),
            Self::ResNet(_) | Self::EfficientNet(_) | Self::MobileNet => None,
        }
    }

    /// The network with a classifier of this many `classes`, if it has one.
    pub fn graph(&self, classes: usize) -> Graph {
        match self {
            Self::ResNet(config) => config.graph(classes),
            Self::WideResNet(config) => config.graph(classes),
            Self::EfficientNet(config) => config.graph(classes),
            Self::MobileNet => mobilenet::graph(classes),
        }
    }
}
