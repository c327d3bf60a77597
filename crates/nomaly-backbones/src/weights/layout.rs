//! Tensor names of different libraries.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use nomaly_nn::weights::Weights;

use super::vit;

/// The naming scheme of a weight file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Layout {
    /// torchvision: `layer1.0.conv1.weight`, `features.1.0.block.0.0.weight`.
    Torchvision,
    /// Ji Lin's `pytorch-mobilenet-v2`: as torchvision's MobileNetV2, but with all layers of a block in one sequence,
    /// `features.1.conv.3.weight`.
    PytorchMobilenet,
    /// `efficientnet_pytorch` and its Lite variant: `_conv_stem.weight`, `_blocks.0._expand_conv.weight`.
    EfficientnetPytorch,
    /// timm (pytorch-image-models): `conv_stem.weight`, `blocks.1.0.conv_pw.weight`.
    Timm,
    /// DINOv2's own vision transformers, and those of timm without registers: `cls_token`, `blocks.0.attn.qkv.weight`.
    Dinov2,
    /// timm's vision transformers with registers: `reg_token`.
    TimmRegisters,
    /// DINOv2 in transformers: `embeddings.cls_token`, `encoder.layer.0.attention.attention.query.weight`.
    Transformers,
}

impl Layout {
    /// The layout of a set of tensors, if it is one of these.
    pub fn of(weights: &Weights) -> Option<Self> {
        let has = |name: &str| weights.contains_key(name);
        if has("_conv_stem.weight") {
            Some(Self::EfficientnetPytorch)
        } else if has("conv_stem.weight") {
            Some(Self::Timm)
        } else if has("features.0.0.weight") && has("features.1.conv.0.weight") {
            Some(Self::PytorchMobilenet)
        } else if has("features.0.0.weight") || has("layer1.0.conv1.weight") {
            Some(Self::Torchvision)
        } else if has("reg_token") {
            Some(Self::TimmRegisters)
        } else if has("cls_token") {
            Some(Self::Dinov2)
        } else if weights.keys().any(|name| vit::is_of_transformers(name)) {
            Some(Self::Transformers)
        } else {
            None
        }
    }

    /// Renames timm's EfficientNets, flat MobileNets and vision transformers of other libraries to the names that the
    /// architectures here use (those of `efficientnet_pytorch`, of torchvision and of DINOv2), and leaves all others as
    /// they are.
    pub(super) fn normalize(weights: Weights) -> Weights {
        match Self::of(&weights) {
            Some(Self::Timm) => timm(weights),
            Some(Self::PytorchMobilenet) => flat_mobilenet(weights),
            Some(Self::TimmRegisters) => vit::from_timm(weights),
            Some(Self::Transformers) => vit::from_transformers(weights),
            _ => weights,
        }
    }
}

/// The stage and the block of `blocks.STAGE.BLOCK.rest`, and the rest.
fn block(name: &str) -> Option<((usize, usize), &str)> {
    let mut parts = name.strip_prefix("blocks.")?.splitn(3, '.');
    let stage = parts.next()?.parse().ok()?;
    let block = parts.next()?.parse().ok()?;
    Some(((stage, block), parts.next()?))
}

/// timm numbers blocks within stages, and calls the parts of blocks with and without expansion differently.
fn timm(weights: Weights) -> Weights {
    let blocks: BTreeSet<(usize, usize)> = weights.keys().filter_map(|name| block(name).map(|(at, _)| at)).collect();
    let numbers: BTreeMap<(usize, usize), usize> = blocks.into_iter().zip(0..).collect();
    let expanded: BTreeSet<(usize, usize)> = weights
        .keys()
        .filter_map(|name| block(name))
        .filter(|(_, rest)| rest.starts_with("conv_pwl."))
        .map(|(at, _)| at)
        .collect();
    weights
        .into_iter()
        .map(|(name, tensor)| {
            let renamed = match block(&name) {
                Some((at, rest)) => {
                    let part = rename(rest, if expanded.contains(&at) { &EXPANDED } else { &PLAIN });
                    format!("_blocks.{}.{part}", numbers[&at])
                }
                None => rename(&name, &OUTSIDE),
            };
            (renamed, tensor)
        })
        .collect()
}

/// Puts the layers of a MobileNet's blocks, `features.BLOCK.conv.LAYER.rest`, into the sequences in which torchvision
/// has them: a convolution with its norm is one entry, except for the last two.
fn flat_mobilenet(weights: Weights) -> Weights {
    let expanded = |block: &str| weights.contains_key(&format!("features.{block}.conv.6.weight"));
    let renamed = |name: &str| {
        let (block, rest) = name.strip_prefix("features.")?.split_once(".conv.")?;
        let part = rename(rest, if expanded(block) { &FLAT_EXPANDED } else { &FLAT_PLAIN });
        Some(format!("features.{block}.conv.{part}"))
    };
    let names: Vec<String> = weights.keys().map(|name| renamed(name).unwrap_or_else(|| name.clone())).collect();
    names.into_iter().zip(weights.into_values()).collect()
}

/// Replaces the module that a name begins with.
fn rename(name: &str, table: &[(&str, &str)]) -> String {
    for (from, to) in table {
        if let Some(rest) = name.strip_prefix(from).filter(|rest| rest.starts_with('.')) {
            return format!("{to}{rest}");
        }
    }
    name.to_owned()
}

const OUTSIDE: [(&str, &str); 5] =
    [("conv_stem", "_conv_stem"), ("bn1", "_bn0"), ("conv_head", "_conv_head"), ("bn2", "_bn1"), ("classifier", "_fc")];

const EXPANDED: [(&str, &str); 8] = [
    ("conv_pw", "_expand_conv"),
    ("bn1", "_bn0"),
    ("conv_dw", "_depthwise_conv"),
    ("bn2", "_bn1"),
    ("se.conv_reduce", "_se_reduce"),
    ("se.conv_expand", "_se_expand"),
    ("conv_pwl", "_project_conv"),
    ("bn3", "_bn2"),
];

const PLAIN: [(&str, &str); 6] = [
    ("conv_dw", "_depthwise_conv"),
    ("bn1", "_bn1"),
    ("se.conv_reduce", "_se_reduce"),
    ("se.conv_expand", "_se_expand"),
    ("conv_pw", "_project_conv"),
    ("bn2", "_bn2"),
];

const FLAT_EXPANDED: [(&str, &str); 6] =
    [("0", "0.0"), ("1", "0.1"), ("3", "1.0"), ("4", "1.1"), ("6", "2"), ("7", "3")];

const FLAT_PLAIN: [(&str, &str); 4] = [("0", "0.0"), ("1", "0.1"), ("3", "1"), ("4", "2")];

#[cfg(test)]
mod tests {
    use super::*;
    use nomaly_nn::weights::WeightTensor;

    /// Gives each name a distinct value, so that a swap would show.
    fn weights(names: &[&str]) -> Weights {
        names
            .iter()
            .zip(0_u8..)
            .map(|(name, i)| ((*name).to_owned(), WeightTensor::from_f32(vec![], &[i.into()])))
            .collect()
    }

    #[test]
    fn timm_names_become_those_of_efficientnet_pytorch() {
        let pairs = [
            ("conv_stem.weight", "_conv_stem.weight"),
            ("bn1.running_var", "_bn0.running_var"),
            ("blocks.0.0.conv_dw.weight", "_blocks.0._depthwise_conv.weight"),
            ("blocks.0.0.bn1.bias", "_blocks.0._bn1.bias"),
            ("blocks.0.0.se.conv_reduce.bias", "_blocks.0._se_reduce.bias"),
            ("blocks.0.0.conv_pw.weight", "_blocks.0._project_conv.weight"),
            ("blocks.0.0.bn2.weight", "_blocks.0._bn2.weight"),
            ("blocks.1.0.conv_pw.weight", "_blocks.1._expand_conv.weight"),
            ("blocks.1.0.bn1.weight", "_blocks.1._bn0.weight"),
            ("blocks.1.0.conv_dw.weight", "_blocks.1._depthwise_conv.weight"),
            ("blocks.1.0.bn2.weight", "_blocks.1._bn1.weight"),
            ("blocks.1.0.se.conv_expand.weight", "_blocks.1._se_expand.weight"),
            ("blocks.1.0.conv_pwl.weight", "_blocks.1._project_conv.weight"),
            ("blocks.1.0.bn3.weight", "_blocks.1._bn2.weight"),
            ("blocks.1.1.conv_pwl.weight", "_blocks.2._project_conv.weight"),
            ("blocks.10.0.conv_pwl.weight", "_blocks.4._project_conv.weight"),
            ("blocks.2.0.conv_pwl.weight", "_blocks.3._project_conv.weight"),
            ("conv_head.weight", "_conv_head.weight"),
            ("bn2.weight", "_bn1.weight"),
            ("classifier.bias", "_fc.bias"),
        ];
        let found = Layout::normalize(weights(&pairs.map(|(from, _)| from)));
        assert_eq!(found, weights(&pairs.map(|(_, to)| to)));
        assert_eq!(Layout::of(&found), Some(Layout::EfficientnetPytorch));
    }

    #[test]
    fn the_layers_of_a_flat_mobilenet_become_torchvision_s() {
        let pairs = [
            ("features.0.0.weight", "features.0.0.weight"),
            ("features.0.1.running_var", "features.0.1.running_var"),
            ("features.1.conv.0.weight", "features.1.conv.0.0.weight"),
            ("features.1.conv.1.bias", "features.1.conv.0.1.bias"),
            ("features.1.conv.3.weight", "features.1.conv.1.weight"),
            ("features.1.conv.4.weight", "features.1.conv.2.weight"),
            ("features.12.conv.0.weight", "features.12.conv.0.0.weight"),
            ("features.12.conv.1.weight", "features.12.conv.0.1.weight"),
            ("features.12.conv.3.weight", "features.12.conv.1.0.weight"),
            ("features.12.conv.4.running_mean", "features.12.conv.1.1.running_mean"),
            ("features.12.conv.6.weight", "features.12.conv.2.weight"),
            ("features.12.conv.7.weight", "features.12.conv.3.weight"),
            ("features.18.0.weight", "features.18.0.weight"),
            ("classifier.1.bias", "classifier.1.bias"),
        ];
        let flat = weights(&pairs.map(|(from, _)| from));
        assert_eq!(Layout::of(&flat), Some(Layout::PytorchMobilenet));
        let found = Layout::normalize(flat);
        assert_eq!(found, weights(&pairs.map(|(_, to)| to)));
        assert_eq!(Layout::of(&found), Some(Layout::Torchvision));
        assert_eq!(Layout::normalize(found.clone()), found);
    }

    #[test]
    fn other_layouts_are_left_alone() {
        for names in
            [["layer1.0.conv1.weight", "bn1.weight"], ["features.0.0.weight", "bn1.weight"], ["other", "bn1.weight"]]
        {
            assert_eq!(Layout::normalize(weights(&names)), weights(&names));
        }
        assert_eq!(Layout::of(&weights(&["layer1.0.conv1.weight"])), Some(Layout::Torchvision));
        assert_eq!(Layout::of(&weights(&["other"])), None);
    }
}
