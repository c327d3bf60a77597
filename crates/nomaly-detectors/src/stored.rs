//! Checks of model files: the invariants of a fit.
//!
//! A checksum shows that a file is intact, not that nomaly wrote it: every value of the header may be malicious.

use nomaly_backbones::{Backbone, PIXELS, TapRequest};
use nomaly_methods::{INPUT_SIDES, MOST_SIZES, MethodEntry, MethodError, Sees};
use nomaly_settings::{Assignments, SettingsTable};
use nomaly_transforms::{CenterCrop, Pipeline, ResizeMode};

use crate::DetectorError;
use crate::info::ModelInfo;

/// The largest size of an image before a center crop, as a multiple of the crop; backbones use less than 1.2.
const MOST_BEFORE_CROP: u32 = 2;

/// Rejects settings that a method does not have; `common` are those of all methods.
pub(crate) fn check_names(
    entry: &MethodEntry,
    given: &Assignments,
    common: &SettingsTable,
) -> Result<(), DetectorError> {
    let table = SettingsTable::joined([&entry.settings(given)?, common]);
    Ok(given.iter().try_for_each(|(name, _)| table.find(name).map(drop))?)
}

/// Rejects a backbone for a method that sees pixels, which models of such methods call their backbone.
pub(crate) fn check_backbone(entry: &MethodEntry, backbone: &str) -> Result<(), DetectorError> {
    match entry.sees {
        Sees::Pixels if backbone != PIXELS => Err(DetectorError::from(MethodError::Conflict {
            reason: format!("method {} sees pixels and takes no backbone: leave {backbone} out", entry.name),
        })),
        Sees::Pixels | Sees::Taps => Ok(()),
    }
}

/// Rejects a joined network that a method does not use, which would only cost time.
pub(crate) fn check_networks(method: &str, backbone: &Backbone, taps: &[TapRequest]) -> Result<(), DetectorError> {
    match backbone.unused(taps) {
        Some(network) => {
            let looked_at = taps.iter().map(|tap| tap.name.as_str()).collect::<Vec<_>>().join(", ");
            let reason = format!(
                "method {method} does not look at {network} of {}, but at {looked_at}: name a level of each if it takes \
                 several, or leave that network out",
                backbone.name()
            );
            Err(DetectorError::from(MethodError::Conflict { reason }))
        }
        None => Ok(()),
    }
}

/// Rejects whatever no fit of the method writes, before allocating by it.
///
/// The [`Pipeline`] is checked when it is read, and the method checks its settings when it is built.
pub(crate) fn check_stored(info: &ModelInfo, entry: &MethodEntry) -> Result<(), DetectorError> {
    let Some(fusion) = &info.fusion else {
        return check_parts(entry, &info.method.settings, &info.backbone.name, info.median, &[info.pipeline]);
    };
    fusion.check()?;
    let pipelines: Vec<Pipeline> = fusion.sizes.iter().map(|size| size.pipeline).collect();
    check_parts(entry, &info.method.settings, &info.backbone.name, info.median, &pipelines)?;
    if pipelines[0] == info.pipeline { Ok(()) } else { Err(refuse_sizes("the first size is not that of the model")) }
}

/// Rejects combinations of a method, a backbone and sizes that no fit produces.
pub(crate) fn check_parts(
    entry: &MethodEntry,
    settings: &Assignments,
    backbone: &str,
    median: Option<usize>,
    sizes: &[Pipeline],
) -> Result<(), DetectorError> {
    check_names(entry, settings, &SettingsTable::default())?;
    check_backbone(entry, backbone)?;
    if let Some(median) = median.filter(|_| !entry.maps) {
        let allowed = format!("a method with maps, which {} has not", entry.name);
        return Err(DetectorError::setting("median", &median.to_string(), &allowed));
    }
    sizes.iter().try_for_each(check_pipeline)?;
    let several = match sizes {
        [] => return Err(refuse_sizes("there is no size")),
        [_] => return Ok(()),
        several => several,
    };
    if several.len() > MOST_SIZES {
        return Err(refuse_sizes("there are too many sizes"));
    }
    if entry.trains || entry.classes {
        return Err(refuse_sizes("the method sees images at one size"));
    }
    let area = |size: &Pipeline| size.output_size().iter().product::<usize>();
    if !several.is_sorted_by(|a, b| area(a) < area(b)) {
        return Err(refuse_sizes("its sizes do not ascend"));
    }
    let first = &several[0];
    for size in several {
        // Maps only align for whole images with the same views.
        let whole = matches!(size.resize.mode, ResizeMode::Exact { .. });
        if !whole || size.views != first.views || size.views.tiling.is_some() {
            return Err(refuse_sizes("a size does not show the whole image once"));
        }
        if size.normalize != first.normalize || size.resize.filter != first.resize.filter {
            return Err(refuse_sizes("its sizes are not prepared alike"));
        }
    }
    Ok(())
}

fn refuse_sizes(reason: &str) -> DetectorError {
    DetectorError::from(MethodError::State { state: "fusion".to_owned(), reason: Some(reason.to_owned()) })
}

fn check_pipeline(pipeline: &Pipeline) -> Result<(), DetectorError> {
    let refuse = |reason: String| {
        Err(DetectorError::from(MethodError::State { state: "pipeline".to_owned(), reason: Some(reason) }))
    };
    let [height, width] = pipeline.output_size();
    if ![height, width].iter().all(|side| INPUT_SIDES.contains(side)) {
        let (least, most) = (INPUT_SIDES.start(), INPUT_SIDES.end());
        return refuse(format!("an input of {height} x {width} pixels; sides are from {least} to {most}"));
    }
    if let Some(tiling) = pipeline.views.tiling {
        let [frame_height, frame_width] = pipeline.frame_size();
        let apart = far_apart(tiling.rows as usize, height, frame_height)
            && far_apart(tiling.columns as usize, width, frame_width);
        if !apart {
            let (rows, columns) = (tiling.rows, tiling.columns);
            return refuse(format!("{rows} x {columns} tiles overlap by more than nine tenths of a tile"));
        }
    }
    let made_by_a_fit = match (pipeline.resize.mode, pipeline.crop) {
        (ResizeMode::Exact { .. }, None) => true,
        (ResizeMode::AtMost { height, width }, crop) => crop == Some(CenterCrop { height, width }),
        (ResizeMode::ShortSide(side), Some(crop)) => side <= MOST_BEFORE_CROP * crop.height.min(crop.width),
        _ => false,
    };
    if made_by_a_fit { Ok(()) } else { refuse("a resize that does not go with its crop".to_owned()) }
}

/// Whether each of `count` tiles of `side` pixels in a frame of `length` begins at least a tenth of a tile, rounded
/// down, after the previous one.
fn far_apart(count: usize, side: usize, length: usize) -> bool {
    (count - 1) * (side / 10) <= length - side
}
