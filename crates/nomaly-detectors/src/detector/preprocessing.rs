//! From settings to preprocessing, and the region of interest on its way into the model file and back.

use std::path::Path;

use image::GrayImage;
use nomaly_backbones::Backbone;
use nomaly_data::MaskSource;
use nomaly_kernels::filter::{Border, MedianFilter};
use nomaly_scorers::{Tensor, TensorData};
use nomaly_transforms::{CenterCrop, Filter, Flips, Limits, Normalize, Pipeline, Resize, ResizeMode, Tiling, Views};

use crate::maps::RegionOfInterest;
use crate::stored::INPUT_SIDES;
use crate::{DetectorError, Settings};

/// The side of the median filter that the settings ask for.
pub(super) fn median(settings: &Settings) -> Result<usize, DetectorError> {
    checked_median(settings.value("median", 1, "an odd number of pixels up to 63")?)
}

pub(super) fn checked_median(side: usize) -> Result<usize, DetectorError> {
    MedianFilter::new(side, Border::Reflect)
        .map(|_| side)
        .map_err(|_| DetectorError::setting("median", &side.to_string(), "an odd number of pixels up to 63"))
}

/// The white pixels of an image file, in the frame of `pipeline`.
pub(super) fn read_region(path: &Path, pipeline: &Pipeline) -> Result<GrayImage, DetectorError> {
    let refuse = |reason: String| DetectorError::RegionOfInterest { path: path.to_owned(), reason };
    let source = MaskSource::File { path: path.to_owned(), above: 127 };
    let mask = source.load(&Limits::default()).map_err(|error| refuse(error.to_string()))?;
    let region = pipeline.apply_mask(&mask)?;
    if region.iter().all(|value| *value == 0) {
        return Err(refuse("no pixel is white, so nothing would count".to_owned()));
    }
    Ok(region)
}

/// A region of the frame as each view sees it.
pub(super) fn views_of(region: &GrayImage, pipeline: &Pipeline) -> Result<RegionOfInterest, DetectorError> {
    let views = pipeline.split_mask(region)?;
    Ok(RegionOfInterest::new(views.iter().map(|view| view.iter().map(|value| *value != 0).collect()).collect()))
}

/// The preprocessing that the settings ask for.
pub(super) fn pipeline(settings: &Settings, backbone: &Backbone) -> Result<Pipeline, DetectorError> {
    let native = backbone.preprocessing();
    let allowed = "a number of pixels from 32 to 2048";
    let size: u32 = settings.value("input_size", native.input_size as u32, allowed)?;
    if !INPUT_SIDES.contains(&(size as usize)) {
        return Err(DetectorError::setting("input_size", &size.to_string(), allowed));
    }
    let (views, frame) = views(settings, size)?;
    let (mode, crop) = match settings.get("view").unwrap_or("whole") {
        "whole" => {
            let [height, width] = frame;
            (ResizeMode::Exact { height: height as u32, width: width as u32 }, None)
        }
        "pad" => {
            let [height, width] = frame.map(|side| side as u32);
            (ResizeMode::AtMost { height, width }, Some(CenterCrop { height, width }))
        }
        "center" if views.tiling.is_some() => {
            return Err(DetectorError::setting("view", "center", "`whole` where `tiles` are more than one"));
        }
        "center" => {
            let short_side = (native.resize_short_side * size as usize).div_ceil(native.input_size);
            (ResizeMode::ShortSide(short_side as u32), Some(CenterCrop { height: size, width: size }))
        }
        other => return Err(DetectorError::setting("view", other, "`whole`, `center` or `pad`")),
    };
    let filter = match settings.get("interpolation").unwrap_or("bilinear") {
        "bilinear" => Filter::Bilinear,
        "bicubic" => Filter::Bicubic,
        other => return Err(DetectorError::setting("interpolation", other, "`bilinear` or `bicubic`")),
    };
    let normalize = Normalize { mean: native.mean, std: native.std };
    Ok(Pipeline::new(Resize { mode, filter }, crop, normalize)?.with_views(views)?)
}

/// The views that the settings ask for, and height and width of the frame that they are parts of.
pub(super) fn views(settings: &Settings, size: u32) -> Result<(Views, [usize; 2]), DetectorError> {
    let flips = settings.value("flips", Flips::None, "`none`, `horizontal`, `vertical` or `both`")?;
    let overlap = settings.value("overlap", 0.25, "a share of a tile's side, from 0 to below 0.9")?;
    let tiles = settings.get("tiles").unwrap_or("1x1");
    let grid = tiles.split_once('x').and_then(|(rows, columns)| Some((rows.parse().ok()?, columns.parse().ok()?)));
    let (rows, columns) = grid.ok_or_else(|| DetectorError::setting("tiles", tiles, "ROWSxCOLUMNS, each up to 64"))?;
    let (tiling, frame) = Tiling::with_overlap(rows, columns, [size as usize; 2], overlap)?;
    // A single tile is the frame.
    let tiling = Some(tiling).filter(|_| (rows, columns) != (1, 1));
    Ok((Views { tiling, flips }, frame))
}

/// A region of interest as the model file keeps it.
pub(super) fn region_tensor(region: &GrayImage) -> Tensor {
    let inside = region.iter().map(|value| if *value == 0 { 0.0 } else { 1.0 }).collect();
    Tensor::f32([region.height() as usize, region.width() as usize], inside)
}

/// A region of interest out of a model file.
pub(super) fn stored_region(tensor: &Tensor, pipeline: &Pipeline) -> Result<GrayImage, DetectorError> {
    let [height, width] = pipeline.frame_size();
    let region = match &tensor.data {
        TensorData::F32(inside) if tensor.shape == [height, width] => {
            let inside = inside.iter().map(|value| if *value == 0.0 { 0 } else { u8::MAX }).collect();
            GrayImage::from_raw(width as u32, height as u32, inside)
        }
        _ => None,
    };
    let region = region.filter(|region| region.iter().any(|value| *value != 0));
    region.ok_or_else(|| DetectorError::State {
        state: "region".to_owned(),
        reason: format!("its shape is {:?}, and the frame is {height} x {width}; some pixel counts", tensor.shape),
    })
}
