//! Builds the preprocessing from settings; reads and stores the region of interest.

use std::path::Path;

use image::GrayImage;
use nomaly_backbones::Backbone;
use nomaly_data::{MaskSource, Sample};
use nomaly_methods::maps::RegionOfInterest;
use nomaly_methods::{Aspect, INPUT_SIDES, InputParams, MethodError, Tiles, View};
use nomaly_scorers::{Tensor, TensorData};
use nomaly_settings::{Auto, Settings};
use nomaly_transforms::{CenterCrop, Limits, Normalize, Pipeline, Resize, ResizeMode, Tiling, Views};
use rayon::prelude::*;

use crate::DetectorError;

/// Rejects invalid sides of a median filter.
pub(super) fn checked_median(side: Option<usize>) -> Result<Option<usize>, DetectorError> {
    InputParams { median: side, ..InputParams::default() }.check()?;
    Ok(side)
}

/// The white pixels of an image file, in the frame of `pipeline`.
pub(super) fn read_region(path: &Path, pipeline: &Pipeline) -> Result<GrayImage, DetectorError> {
    let refuse = |reason: String| {
        DetectorError::from(MethodError::File { what: "region of interest", path: path.to_owned(), reason })
    };
    let source = MaskSource::File { path: path.to_owned(), above: 127 };
    let mask = source.load(&Limits::default()).map_err(|error| refuse(error.to_string()))?;
    let region = pipeline.apply_mask(&mask)?;
    if region.iter().all(|value| *value == 0) {
        return Err(refuse("no pixel is white, so nothing would count".to_owned()));
    }
    Ok(region)
}

/// The region of the frame in each view.
pub(super) fn views_of(region: &GrayImage, pipeline: &Pipeline) -> Result<RegionOfInterest, DetectorError> {
    let views = pipeline.split_mask(region)?;
    Ok(RegionOfInterest::new(views.iter().map(|view| view.iter().map(|value| *value != 0).collect()).collect()))
}

/// Sides of inputs that keep the aspect ratio are multiples of this: of the stride of every convolutional network.
const SIDE_STEP: usize = 32;

/// The number of which the sides of inputs that keep the aspect ratio are multiples: for transformers, whole patches.
fn side_step(backbone: &Backbone) -> usize {
    let step = |multiple: usize| if multiple == 1 { SIDE_STEP } else { multiple };
    let steps = backbone.entries().map(|entry| step(entry.architecture.size_multiple()));
    // The least common multiple of joined networks; pixels have no network and take the usual step.
    steps
        .reduce(|all, step| (all..).step_by(all).find(|both| both.is_multiple_of(step)).unwrap_or(all))
        .unwrap_or(SIDE_STEP)
}

/// The requested sizes, ascending.
fn sizes(input: &InputParams, native: usize) -> Result<Vec<u32>, DetectorError> {
    match (&input.sizes, input.input_size) {
        (Some(_), Auto::Value(size)) => {
            Err(DetectorError::setting("input_size", &size.to_string(), "no value where there are `sizes`"))
        }
        (Some(sizes), Auto::Auto) => Ok(sizes.clone()),
        (None, size) => Ok(vec![size.unwrap_or(native as u32)]),
    }
}

/// Widths and heights of images, from their headers, the tallest shape first.
#[derive(Debug)]
pub(super) struct Shapes(Vec<[f64; 2]>);

impl Shapes {
    pub(super) fn of(samples: &[Sample]) -> Self {
        let size = |sample: &Sample| {
            let (width, height) = sample.source.announced()?.size;
            (width > 0 && height > 0).then(|| [width.into(), height.into()])
        };
        let originals = samples.par_iter().filter(|sample| !sample.source.is_changed());
        let mut sizes: Vec<[f64; 2]> = originals.filter_map(size).collect();
        sizes.sort_unstable_by(|a, b| (a[0] / a[1]).total_cmp(&(b[0] / b[1])));
        Self(sizes)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The median of width over height; 1 if no size is known.
    pub(super) fn ratio(&self) -> f64 {
        let ratio = |at: usize| self.0[at][0] / self.0[at][1];
        match self.0.len() {
            0 => 1.0,
            // The geometric mean of the middle two is symmetric in width and height.
            count => (ratio((count - 1) / 2) * ratio(count / 2)).sqrt(),
        }
    }

    /// The median reduction of images to a frame of this height and width: image pixels per frame pixel, along a side;
    /// 0 if no size is known.
    pub(super) fn reduction(&self, [height, width]: [usize; 2]) -> f64 {
        let mut areas: Vec<f64> = self.0.iter().map(|[width, height]| width * height).collect();
        areas.sort_unstable_by(f64::total_cmp);
        areas.get(areas.len() / 2).map_or(0.0, |area| (area / (height * width) as f64).sqrt())
    }

    /// The number of images whose ratio differs from `ratio` by more than a quarter.
    pub(super) fn count_unlike(&self, ratio: f64) -> usize {
        self.0.iter().filter(|[width, height]| !(0.8..=1.25).contains(&(width / height / ratio))).count()
    }
}

/// Height and width of an input of about `size`² pixels with width / height of about `ratio`, in whole steps.
fn shaped(size: u32, ratio: f64, step: usize) -> [usize; 2] {
    let (least, most) = (INPUT_SIDES.start().div_ceil(step), INPUT_SIDES.end() / step);
    let side = |side: f64| {
        let steps = (side / step as f64).round_ties_even();
        step * steps.clamp(least as f64, most as f64) as usize
    };
    let root = ratio.sqrt();
    [side(f64::from(size) / root), side(f64::from(size) * root)]
}

/// The preprocessing at each requested size, the smallest first, for images with width / height of `ratio`.
pub(super) fn pipelines(input: &InputParams, backbone: &Backbone, ratio: f64) -> Result<Vec<Pipeline>, DetectorError> {
    let sizes = sizes(input, backbone.preprocessing().input_size)?;
    if sizes.len() > 1 {
        if input.view != View::Whole {
            let view = if input.view == View::Pad { "pad" } else { "center" };
            return Err(DetectorError::setting("view", view, "`whole` where there are several `sizes`"));
        }
        if input.tiles != Tiles::ONE {
            let tiles = input.tiles.to_string();
            return Err(DetectorError::setting("tiles", &tiles, "`1x1` where there are several `sizes`"));
        }
    }
    let pipelines: Vec<Pipeline> =
        sizes.iter().map(|size| pipeline(input, backbone, *size, ratio)).collect::<Result<_, _>>()?;
    if pipelines.windows(2).any(|pair| pair[0].output_size() == pair[1].output_size()) {
        let sizes = sizes.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let allowed = format!("sizes that differ after rounding to multiples of {}", side_step(backbone));
        return Err(DetectorError::setting("sizes", &sizes, &allowed));
    }
    Ok(pipelines)
}

/// The preprocessing at one size.
fn pipeline(input: &InputParams, backbone: &Backbone, size: u32, ratio: f64) -> Result<Pipeline, DetectorError> {
    let native = backbone.preprocessing();
    let (views, frame) = views(input, size, ratio, side_step(backbone))?;
    let refuse = |allowed: &str| Err(DetectorError::setting("view", "center", allowed));
    let (mode, crop) = match input.view {
        View::Whole => {
            let [height, width] = frame;
            (ResizeMode::Exact { height: height as u32, width: width as u32 }, None)
        }
        View::Pad => {
            let [height, width] = frame.map(|side| side as u32);
            (ResizeMode::AtMost { height, width }, Some(CenterCrop { height, width }))
        }
        View::Center if input.aspect == Aspect::Keep => return refuse("`whole` or `pad` with `aspect=keep`"),
        View::Center if views.tiling.is_some() => return refuse("`whole` where `tiles` are more than one"),
        View::Center => {
            let short_side = (native.resize_short_side * size as usize).div_ceil(native.input_size);
            (ResizeMode::ShortSide(short_side as u32), Some(CenterCrop { height: size, width: size }))
        }
    };
    let normalize = Normalize { mean: native.mean, std: native.std };
    Ok(Pipeline::new(Resize { mode, filter: input.interpolation }, crop, normalize)?.with_views(views)?)
}

/// The requested views, with height and width of their frame; sides that keep the aspect ratio are whole steps.
fn views(input: &InputParams, size: u32, ratio: f64, step: usize) -> Result<(Views, [usize; 2]), DetectorError> {
    let InputParams { overlap, flips, tiles: Tiles { rows, columns }, .. } = *input;
    let tile = if input.aspect == Aspect::Keep {
        // The frame has the aspect ratio and is a whole number of tiles high and wide.
        let side = |count: u32| 1.0 + f64::from(count.saturating_sub(1)) * (1.0 - overlap);
        shaped(size, ratio * side(rows) / side(columns), step)
    } else {
        [size as usize; 2]
    };
    let (tiling, frame) = Tiling::with_overlap(rows, columns, tile, overlap)?;
    // A single tile is the frame.
    let tiling = Some(tiling).filter(|_| input.tiles != Tiles::ONE);
    Ok((Views { tiling, flips }, frame))
}

/// The tensor of a region of interest, for the model file.
pub(super) fn region_tensor(region: &GrayImage) -> Tensor {
    let inside = region.iter().map(|value| if *value == 0 { 0.0 } else { 1.0 }).collect();
    Tensor::f32([region.height() as usize, region.width() as usize], inside)
}

/// Restores a region of interest from a model file.
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
    region.ok_or_else(|| {
        DetectorError::from(MethodError::State {
            state: "region".to_owned(),
            reason: Some(format!(
                "its shape is {:?}, and the frame is {height} x {width}; some pixel counts",
                tensor.shape
            )),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_whole_steps_of_what_looks_at_the_image() {
        let transformer = Backbone::initialized("dinov2-small", 0, 0).unwrap();
        let steps =
            [Backbone::pixels(), Backbone::embedded().unwrap(), transformer].map(|backbone| side_step(&backbone));
        assert_eq!(steps, [32, 32, 14]);
        assert_eq!(shaped(256, 1.5, 32), [224, 320]);
        assert_eq!(shaped(256, 1.5, 14), [210, 308]);
    }
}
