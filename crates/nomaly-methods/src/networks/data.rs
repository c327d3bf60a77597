//! What a training keeps of its images.

use std::ops::Range;

use nomaly_backbones::{OutputLayout, TapRequest};
use nomaly_store::Progress;

use super::images::PixelStore;
use super::taps::{TapLimits, TapStore, TapWriter};
use crate::MethodError;
use crate::features::FeatureSource;

/// The training images as a method sees them, for mini-batches in any order.
///
/// Images are read, and run through a frozen backbone, once. What a mini-batch gets depends neither on its other views
/// nor on the number of threads.
#[derive(Debug)]
pub enum FitData {
    /// The pixels of each view as they come out of the pipeline, for methods whose only tap they are, as planes.
    Pixels(PixelStore),
    /// Taps of the frozen backbone, without augmentation.
    Taps(TapStore),
}

impl FitData {
    /// Reads all images of `source` for a method with these taps.
    ///
    /// # Errors
    /// Values that are not finite, pixels outside [0, 1], a disk that is full or cannot be written, and the errors of
    /// [`FeatureSource::visit`].
    pub fn collect(
        taps: &[TapRequest],
        source: &dyn FeatureSource,
        limits: TapLimits,
        progress: &dyn Progress,
    ) -> Result<Self, MethodError> {
        if let [tap] = taps
            && tap.is_pixels()
            && tap.layout == OutputLayout::Nchw
        {
            return Ok(Self::Pixels(PixelStore::collect(source, progress)?));
        }
        let mut writer = TapWriter::new(limits, source.images() * source.views());
        source.visit(progress, &mut |batch| writer.push(batch))?;
        Ok(Self::Taps(writer.finish()))
    }

    /// The number of views of all images.
    pub fn inputs(&self) -> usize {
        match self {
            Self::Pixels(pixels) => pixels.inputs(),
            Self::Taps(taps) => taps.inputs(),
        }
    }

    /// Height and width of a view in pixels.
    pub fn input_size(&self) -> [usize; 2] {
        match self {
            Self::Pixels(pixels) => pixels.size(),
            Self::Taps(taps) => taps.input_size(),
        }
    }

    /// The `[C, h, w]` of each tap in a view, whatever its layout.
    pub fn shapes(&self) -> Vec<[usize; 3]> {
        match self {
            Self::Pixels(pixels) => vec![[3, pixels.size()[0], pixels.size()[1]]],
            Self::Taps(taps) => taps.shapes().to_vec(),
        }
    }

    /// Reads the taps of `views`, in this order: `taps` has a vector for each, which is resized to the values of all
    /// views, one after another in the layout of the tap.
    ///
    /// # Errors
    /// Another number of vectors, a view that does not exist, or a temporary file that cannot be read.
    pub fn read(&self, views: &[usize], taps: &mut [Vec<f32>]) -> Result<(), MethodError> {
        let pixels = match self {
            Self::Pixels(pixels) => pixels,
            Self::Taps(store) => return store.read(views, taps),
        };
        let [planes] = taps else {
            return Err(MethodError::Conflict { reason: format!("{} taps are asked for, and there is 1", taps.len()) });
        };
        if let Some(view) = views.iter().find(|view| **view >= pixels.inputs()) {
            let reason = format!("view {view} is asked for, and there are {}", pixels.inputs());
            return Err(MethodError::Conflict { reason });
        }
        planes.resize(views.len() * pixels.view_len(), 0.0);
        for (view, planes) in views.iter().zip(planes.chunks_exact_mut(pixels.view_len().max(1))) {
            pixels.unpack(*view, planes);
        }
        Ok(())
    }

    /// The pixels.
    ///
    /// # Errors
    /// Taps of a network.
    pub(crate) fn pixels(&self) -> Result<&PixelStore, MethodError> {
        match self {
            Self::Pixels(pixels) => Ok(pixels),
            Self::Taps(_) => {
                Err(MethodError::Conflict { reason: "pixels are asked for, and there are features".to_owned() })
            }
        }
    }

    /// What determines all values, in words.
    pub(crate) fn fingerprint(&self) -> String {
        match self {
            Self::Pixels(pixels) => pixels.fingerprint(),
            Self::Taps(taps) => format!("{:?} {:?} {}", taps.input_size(), taps.shapes(), taps.fingerprint()),
        }
    }
}

/// The views of an image, where each has this many.
pub(super) fn views_of(image: usize, views: usize) -> Range<usize> {
    image * views..(image + 1) * views
}
