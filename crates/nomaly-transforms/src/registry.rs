//! The list of transforms, for `nomaly list transforms`.

use nomaly_registry::Registry;

use crate::augment::cut_paste::CUT_PASTE_3_WAY;
use crate::augment::{Listed, adacl};
pub use crate::entry::{Group, TransformEntry};
use crate::synthetic::{Kind, blur, crack, cut_paste, missing, scar, scratch, spot, stain};
use crate::transformations::step::{
    CROP, EQUALIZE, FLIP, JITTER, QUANTILE, ROT90, ROT180, ROT270, StepKind, TX, TY, ZOOM,
};
use crate::transformations::{GEOTRANS, Preset, ROTATIONS, ROTATIONS_FLIPS};

/// All transforms.
pub static TRANSFORMS: Registry<TransformEntry> = Registry::new(
    "transform",
    &[
        TransformEntry {
            name: "resize",
            summary: "antialiased resize, equal to Pillow's",
            group: Group::Geometry,
            parameters: "exact height and width, or short side; filter bilinear or bicubic",
        },
        TransformEntry {
            name: "center-crop",
            summary: "the middle of the image, padded with black where it is smaller",
            group: Group::Geometry,
            parameters: "height, width",
        },
        TransformEntry {
            name: "tiles",
            summary: "a grid of overlapping tiles, each an input of its own; their maps fade into each other",
            group: Group::Geometry,
            parameters: "rows, columns, height and width of a tile",
        },
        TransformEntry {
            name: "flips",
            summary: "mirror images seen beside the image itself; their maps are averaged",
            group: Group::Geometry,
            parameters: "none, horizontal, vertical or both",
        },
        TransformEntry {
            name: "normalize",
            summary: "values in [0, 1] less a mean, divided by a deviation",
            group: Group::Photometry,
            parameters: "mean and std of each channel",
        },
        set(&GEOTRANS),
        set(&ROTATIONS),
        set(&ROTATIONS_FLIPS),
        step(&FLIP),
        step(&TX),
        step(&TY),
        step(&ROT90),
        step(&ROT180),
        step(&ROT270),
        step(&ZOOM),
        step(&CROP),
        step(&JITTER),
        step(&EQUALIZE),
        step(&QUANTILE),
        augmentation(&adacl::CUT_PASTE),
        augmentation(&adacl::PUZZLE),
        augmentation(&adacl::ROTATION),
        augmentation(&adacl::MIX_UP),
        augmentation(&CUT_PASTE_3_WAY),
        synthetic(crack::KIND),
        synthetic(scratch::KIND),
        synthetic(stain::KIND),
        synthetic(spot::KIND),
        synthetic(blur::KIND),
        synthetic(missing::KIND),
        synthetic(cut_paste::KIND),
        synthetic(scar::KIND),
    ],
);

const fn set(preset: &Preset) -> TransformEntry {
    let &Preset { name, summary, parameters, .. } = preset;
    TransformEntry { name, summary, group: Group::Set, parameters }
}

const fn step(kind: &StepKind) -> TransformEntry {
    let &StepKind { name, summary, group, parameters, .. } = kind;
    TransformEntry { name, summary, group, parameters }
}

const fn augmentation(listed: &Listed) -> TransformEntry {
    let &Listed { name, summary, parameters } = listed;
    TransformEntry { name, summary, group: Group::Augmentation, parameters }
}

const fn synthetic(kind: Kind) -> TransformEntry {
    TransformEntry { name: kind.name, summary: kind.summary, group: Group::Synthetic, parameters: "a seed" }
}
