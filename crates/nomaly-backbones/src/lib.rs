//! Backbones with feature taps: ResNet, Wide ResNet, EfficientNet, their weights and their CPU plans
#![forbid(unsafe_code)]
#![deny(missing_docs)]
