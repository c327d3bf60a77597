//! The settings that every method understands.

use nomaly_methods::{MethodEntry, Settings};
use nomaly_scorers::Parameter;

use crate::DetectorError;

/// The settings that every method understands besides its own.
pub const COMMON_PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "weights",
        default: "the embedded or the cached file",
        values: "the path of a safetensors, .pth or .pt file",
        summary: "weights of the backbone",
    },
    Parameter {
        name: "input_size",
        default: "the backbone's own",
        values: "a number of pixels from 32 to 2048",
        summary: "height and width of the network's input; with `aspect=keep` the side of a square of the same area",
    },
    Parameter {
        name: "sizes",
        default: "one, `input_size`",
        values: "numbers of pixels as for `input_size`, ascending, joined by commas; up to 4",
        summary: "see images at several sizes and add up what is said of them, standardised by held-out images",
    },
    Parameter {
        name: "aspect",
        default: "squash",
        values: "`squash` or `keep`",
        summary: "resize images to a square, or to the median aspect ratio of the training images with sides of multiples \
                  of 32",
    },
    Parameter {
        name: "interpolation",
        default: "bilinear",
        values: "`bilinear` or `bicubic`",
        summary: "how images are resized, antialiased; bilinear is what the methods' papers use",
    },
    Parameter {
        name: "view",
        default: "whole",
        values: "`whole`, `center` or `pad`",
        summary: "resize the whole image, or resize its short side and crop the centre as the backbone was trained; `pad` is \
                  `whole`, but sets images that are smaller than the input on black as they are",
    },
    Parameter {
        name: "tiles",
        default: "1x1",
        values: "ROWSxCOLUMNS, each up to 64",
        summary: "see an image as tiles of the input size, for small defects on large images",
    },
    Parameter {
        name: "overlap",
        default: "0.25",
        values: "a share of a tile's side, from 0 to below 0.9",
        summary: "how far neighbouring tiles overlap; maps are blended over it",
    },
    Parameter {
        name: "flips",
        default: "none",
        values: "`none`, `horizontal`, `vertical` or `both`",
        summary: "see flipped copies of each image too, when fitting and when scoring, and average what they say",
    },
    Parameter {
        name: "median",
        default: "1 (none)",
        values: "an odd number of pixels up to 63",
        summary: "side of a median filter that removes specks from maps of the network's (smallest) input before they are blurred",
    },
    Parameter {
        name: "roi",
        default: "the whole image",
        values: "the path of an image, white where defects matter",
        summary: "region of interest, stretched over each image; what lies outside never counts (methods with maps)",
    },
];

/// The settings of a method for several sizes, whose score is the largest value of the joined map: what else a score of
/// one size is made of is refused where it was asked for, and left off.
pub(super) fn of_several_sizes(entry: &MethodEntry, settings: &Settings) -> Result<Settings, DetectorError> {
    let given = settings.get("sizes").unwrap_or_default();
    if entry.trains || entry.classes {
        let why = if entry.trains { "trains a network" } else { "tells classes apart" };
        return Err(DetectorError::setting("sizes", given, &format!("one size for {}, which {why}", entry.name)));
    }
    let known = |key: &str| entry.parameters.iter().any(|parameter| parameter.name == key);
    let mut settings = settings.clone();
    for (key, only) in [("reweighting", "off"), ("score", "map")].into_iter().filter(|(key, _)| known(key)) {
        match settings.get(key) {
            Some(value) if value != only => {
                return Err(DetectorError::setting(key, value, &format!("`{only}` where there are several `sizes`")));
            }
            _ => settings = settings.with(key, only),
        }
    }
    match settings.get("neighbours").filter(|_| known("reweighting")) {
        Some(value) => Err(DetectorError::setting("neighbours", value, "nothing where there are several `sizes`")),
        None => Ok(settings),
    }
}

#[cfg(test)]
mod tests {
    use nomaly_methods::METHODS;
    use nomaly_scorers::SCORERS;

    use super::*;

    #[test]
    fn no_parameter_of_a_scorer_has_the_name_of_a_setting_beside_it() {
        for method in METHODS.iter().filter(|method| method.more_parameters.is_some()) {
            for scorer in SCORERS.iter() {
                for parameter in scorer.parameters {
                    let beside = method.parameters.iter().chain(COMMON_PARAMETERS);
                    let twice = beside.filter(|setting| setting.name == parameter.name).count();
                    assert_eq!(twice, 0, "`{}` of {} and {}", parameter.name, scorer.name, method.name);
                }
            }
        }
    }
}
