//! A cache of frames for repeated runs over the same images.
//!
//! A fit that reads its images twice, or at several sizes, would decode each file as often. Frames are small compared
//! with the decoded files, and they are all that the network's input is computed from.

use std::sync::OnceLock;

use image::RgbImage;
use nomaly_transforms::{Pipeline, TransformError};

/// Frames of numbered images under several pipelines: those of as many of the first images as fit into a memory budget.
#[derive(Debug)]
pub struct FrameCache {
    pipelines: Vec<Pipeline>,
    budget: u64,
    /// For each image, one frame per pipeline.
    images: Vec<OnceLock<Vec<RgbImage>>>,
}

impl FrameCache {
    /// Room for the frames of `images` images under each of `pipelines`, at most `budget` bytes.
    pub fn new(pipelines: Vec<Pipeline>, images: usize, budget: u64) -> Self {
        let images = (0..images).map(|_| OnceLock::new()).collect();
        Self { pipelines, budget, images }
    }

    /// The most bytes that it can hold.
    pub fn most_bytes(&self) -> u64 {
        self.budget.min(self.images.len() as u64 * self.image_bytes())
    }

    /// Bytes of the frames of one image.
    fn image_bytes(&self) -> u64 {
        let frame = |pipeline: &Pipeline| pipeline.frame_size().iter().fold(3, |bytes, side| bytes * *side as u64);
        self.pipelines.iter().map(frame).sum()
    }

    /// The frame of an image under a pipeline, if cached.
    pub(crate) fn get(&self, image: usize, pipeline: &Pipeline) -> Option<&RgbImage> {
        let place = self.pipelines.iter().position(|own| own == pipeline)?;
        self.images.get(image)?.get()?.get(place)
    }

    /// Caches the frames of an image if there is room; returns whether it did.
    ///
    /// # Errors
    /// If a pipeline cannot process the image.
    pub(crate) fn keep(&self, number: usize, image: &RgbImage) -> Result<bool, TransformError> {
        let Some(slot) = self.images.get(number) else { return Ok(false) };
        if slot.get().is_some() {
            return Ok(true);
        }
        if (number as u64 + 1).saturating_mul(self.image_bytes()) > self.budget {
            return Ok(false);
        }
        let frames: Result<Vec<RgbImage>, _> = self.pipelines.iter().map(|pipeline| pipeline.view(image)).collect();
        let frames = frames?;
        slot.get_or_init(|| frames);
        Ok(true)
    }
}
