//! What methods on feature maps share: which levels they look at, and how levels of several resolutions become one grid.

use nomaly_backbones::{Backbone, OutputLayout, TapInfo, TapRequest};
use nomaly_registry::UnknownName;

use crate::{MethodError, Settings};

/// Strides of the levels that locate defects well: of ResNets the first three layers, of EfficientNets the deepest stages of
/// the same resolutions.
const STRIDES: [usize; 3] = [4, 8, 16];

/// The feature maps named by the setting `layers`, checked against the backbone; without it, of each network, the
/// deepest levels of the strides 4, 8 and 16 but for the first `skip`, or of its finest three strides where it lacks
/// those.
pub(super) fn layer_taps(
    settings: &Settings,
    backbone: &Backbone,
    skip: usize,
) -> Result<Vec<TapRequest>, MethodError> {
    let taps: Vec<TapInfo> = backbone.taps().into_iter().filter(|tap| tap.stride.is_some()).collect();
    let names: Vec<String> = match settings.get("layers") {
        None | Some("auto") => {
            backbone.taps_by_network().flat_map(|taps| default_layers(&taps).split_off(skip)).collect()
        }
        Some(list) => list.split(',').map(|name| name.trim().to_owned()).collect(),
    };
    for (place, name) in names.iter().enumerate() {
        if !taps.iter().any(|tap| tap.name == *name) {
            let known = taps.iter().map(|tap| tap.name.as_str());
            return Err(UnknownName::new("layer", name, known).into());
        }
        if names[..place].contains(name) {
            return Err(MethodError::setting("layers", name, "each layer once"));
        }
    }
    Ok(names.into_iter().map(|name| TapRequest::new(name, OutputLayout::Rows)).collect())
}

/// The levels of one network, by its taps.
fn default_layers(taps: &[TapInfo]) -> Vec<String> {
    let deepest = |stride: usize| taps.iter().rfind(|tap| tap.stride == Some(stride)).map(|tap| tap.name.clone());
    let usual: Option<Vec<String>> = STRIDES.into_iter().map(deepest).collect();
    usual.unwrap_or_else(|| {
        let mut strides: Vec<usize> = taps.iter().filter_map(|tap| tap.stride).collect();
        strides.sort_unstable();
        strides.dedup();
        strides.into_iter().take(STRIDES.len()).filter_map(deepest).collect()
    })
}

/// The setting `layers` as the model file keeps it.
pub(super) fn layers_setting(taps: &[TapRequest]) -> String {
    taps.iter().map(|tap| tap.name.as_str()).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults(backbone: &str) -> Vec<String> {
        let backbone = Backbone::initialised(backbone, 10, 0).unwrap();
        let taps: Vec<TapInfo> = backbone.taps().into_iter().filter(|tap| tap.stride.is_some()).collect();
        default_layers(&taps)
    }

    #[test]
    fn default_layers_have_the_usual_strides() {
        assert_eq!(defaults("resnet18"), ["layer1", "layer2", "layer3"]);
        assert_eq!(defaults("efficientnet-lite0"), ["stage2", "stage3", "stage5"]);
    }

    #[test]
    fn each_of_joined_networks_has_its_default_layers() {
        let name = "resnet18+mobilenetv2";
        let of = |network: &str| {
            let weights = Backbone::initialised(network, 10, 0).unwrap().export(&["logits"]).unwrap().into_iter();
            weights.map(|(tensor, values)| (format!("{network}/{tensor}"), values)).collect::<Vec<_>>()
        };
        let backbone = Backbone::from_tensors(name, name.split('+').flat_map(of).collect()).unwrap();
        let taps = layer_taps(&Settings::default(), &backbone, 1).unwrap();
        assert_eq!(layers_setting(&taps), "resnet18/layer2,resnet18/layer3,mobilenetv2/stage3,mobilenetv2/stage5");
    }

    #[test]
    fn layers_are_checked_against_the_backbone() {
        let backbone = Backbone::initialised("resnet18", 10, 0).unwrap();
        let layers = |list: &str| {
            let taps = layer_taps(&Settings::default().with("layers", list), &backbone, 1)?;
            Ok::<_, MethodError>(layers_setting(&taps))
        };
        assert_eq!(layers("auto").unwrap(), "layer2,layer3");
        assert_eq!(layers("layer3, layer1").unwrap(), "layer3,layer1");
        assert!(layers("layer5").unwrap_err().to_string().contains("did you mean"));
        assert!(layers("layer1,layer1").is_err());
        assert!(layers("logits").is_err());
    }
}
