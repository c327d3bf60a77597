//! The levels of methods on feature maps.

use nomaly_backbones::{Backbone, OutputLayout, TapInfo, TapRequest};
use nomaly_registry::UnknownName;
use nomaly_settings::{Auto, Names, SettingError};

use crate::MethodError;

/// Strides of levels that locate defects well: the first three layers of ResNets, the deepest stages of the same
/// resolutions of EfficientNets.
const STRIDES: [usize; 3] = [4, 8, 16];

/// The feature maps of these `layers`, checked against the backbone. `auto` selects, for each network, the deepest
/// levels of strides 4, 8 and 16 without the first `skip`, or of its finest three strides if it lacks those; in a
/// transformer, whose levels have one stride, three that divide them evenly.
pub(super) fn layer_taps(
    layers: &Auto<Names>,
    backbone: &Backbone,
    skip: usize,
) -> Result<Vec<TapRequest>, MethodError> {
    let taps: Vec<TapInfo> = backbone.taps().into_iter().filter(|tap| tap.stride.is_some()).collect();
    let names: Vec<String> = match layers {
        Auto::Auto => backbone.taps_by_network().flat_map(|taps| default_layers(&taps).split_off(skip)).collect(),
        Auto::Value(Names(names)) => names.clone(),
    };
    for (place, name) in names.iter().enumerate() {
        if !taps.iter().any(|tap| tap.name == *name) {
            let known = taps.iter().map(|tap| tap.name.as_str());
            return Err(UnknownName::new("layer", name, known).into());
        }
        if names[..place].contains(name) {
            return Err(SettingError::value("layers", names.join(","), "each layer once").into());
        }
    }
    Ok(names.into_iter().map(|name| TapRequest::new(name, OutputLayout::Rows)).collect())
}

/// The levels of one network, from its taps.
fn default_layers(taps: &[TapInfo]) -> Vec<String> {
    let deepest = |stride: usize| taps.iter().rfind(|tap| tap.stride == Some(stride)).map(|tap| tap.name.clone());
    let usual: Option<Vec<String>> = STRIDES.into_iter().map(deepest).collect();
    let levels: Vec<&TapInfo> = taps.iter().filter(|tap| tap.stride.is_some()).collect();
    if levels.len() > STRIDES.len() && levels.iter().all(|tap| tap.stride == levels[0].stride) {
        let at = |part: usize| part * levels.len() / (STRIDES.len() + 1);
        return (1..=STRIDES.len()).map(|part| levels[at(part)].name.clone()).collect();
    }
    usual.unwrap_or_else(|| {
        let mut strides: Vec<usize> = taps.iter().filter_map(|tap| tap.stride).collect();
        strides.sort_unstable();
        strides.dedup();
        strides.into_iter().take(STRIDES.len()).filter_map(deepest).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::pooled::tap_names;

    fn defaults(backbone: &str) -> Vec<String> {
        let backbone = Backbone::initialized(backbone, 10, 0).unwrap();
        let taps: Vec<TapInfo> = backbone.taps().into_iter().filter(|tap| tap.stride.is_some()).collect();
        default_layers(&taps)
    }

    #[test]
    fn default_layers_have_the_usual_strides() {
        assert_eq!(defaults("resnet18"), ["layer1", "layer2", "layer3"]);
        assert_eq!(defaults("efficientnet-lite0"), ["stage2", "stage3", "stage5"]);
        assert_eq!(defaults("dinov2-small"), ["block3", "block6", "block9"]);
    }

    #[test]
    fn each_of_joined_networks_has_its_default_layers() {
        let name = "resnet18+mobilenetv2";
        let of = |network: &str| {
            let weights = Backbone::initialized(network, 10, 0).unwrap().export(&["logits"]).unwrap().into_iter();
            weights.map(|(tensor, values)| (format!("{network}/{tensor}"), values)).collect::<Vec<_>>()
        };
        let backbone = Backbone::from_tensors(name, name.split('+').flat_map(of).collect()).unwrap();
        let taps = layer_taps(&Auto::Auto, &backbone, 1).unwrap();
        assert_eq!(
            tap_names(&taps).to_string(),
            "resnet18/layer2,resnet18/layer3,mobilenetv2/stage3,mobilenetv2/stage5"
        );
    }

    #[test]
    fn layers_are_checked_against_the_backbone() {
        let backbone = Backbone::initialized("resnet18", 10, 0).unwrap();
        let layers = |list: &str| {
            let names = Names(list.split(',').map(str::to_owned).collect());
            let layers = if list == "auto" { Auto::Auto } else { Auto::Value(names) };
            Ok::<_, MethodError>(tap_names(&layer_taps(&layers, &backbone, 1)?).to_string())
        };
        assert_eq!(layers("auto").unwrap(), "layer2,layer3");
        assert_eq!(layers("layer3,layer1").unwrap(), "layer3,layer1");
        assert!(layers("layer5").unwrap_err().to_string().contains("did you mean"));
        assert!(layers("layer1,layer1").is_err());
        assert!(layers("logits").is_err());
    }
}
