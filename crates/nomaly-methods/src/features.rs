//! The features of images, as methods see them.

use nomaly_backbones::TapRequest;
use nomaly_store::Progress;

use crate::MethodError;
use crate::groups::Groups;
use crate::maps::RegionOfInterest;
use crate::score::MethodScore;

/// The features of a batch of images, tap by tap.
///
/// Each image gives one or more *views*: its tiles and their flipped copies, each of the network's input size. All
/// images of a detector have the same views in the same order.
#[derive(Clone, Copy, Debug)]
pub struct FeatureBatch<'a> {
    /// The number of images.
    pub images: usize,
    /// Views per image, at least 1.
    pub views: usize,
    /// Height and width of a view in pixels: the network's input.
    pub input: [usize; 2],
    /// Height and width of the map of a view in pixels: those of the input, or of the smallest input if there are
    /// several sizes.
    pub map: [usize; 2],
    /// The taps, in the requested order.
    pub taps: &'a [TapRequest],
    /// For each tap, row-major values of `images` × `views` × [`shapes`](Self::shapes).
    pub values: &'a [Vec<f32>],
    /// For each tap, the `[C, h, w]` of one view's features, whatever their layout.
    pub shapes: &'a [[usize; 3]],
    /// The region of interest; `None` for the whole image.
    pub region: Option<&'a RegionOfInterest>,
    /// Side of the median filter of maps, in pixels of the input; `None` for no filter.
    pub median: Option<usize>,
}

impl FeatureBatch<'_> {
    /// The features of one image, tap by tap: the [`values`](Self::values) of a batch of that image alone.
    pub fn values_of(&self, image: usize) -> Vec<Vec<f32>> {
        let part = |values: &Vec<f32>| {
            let each = values.len() / self.images;
            values[image * each..(image + 1) * each].to_vec()
        };
        self.values.iter().map(part).collect()
    }

    /// The features of one tap as `[images · views, expected]`.
    ///
    /// # Errors
    /// [`MethodError::FeatureShape`] if a view does not have `expected` values.
    pub fn rows(&self, tap: usize, expected: usize) -> Result<ndarray::ArrayView2<'_, f32>, MethodError> {
        let views = self.images * self.views;
        let found = self.values[tap].len() / views.max(1);
        ndarray::ArrayView2::from_shape((views, expected), &self.values[tap]).map_err(|_| MethodError::FeatureShape {
            tap: self.taps[tap].name.clone(),
            expected,
            found,
        })
    }
}

/// The features of a set of images, which a method can visit repeatedly.
pub trait FeatureSource: Sync {
    /// The number of images, including any that prove unusable.
    fn images(&self) -> usize;

    /// Views per image.
    fn views(&self) -> usize;

    /// The most bytes that the source holds between visits.
    fn held_bytes(&self) -> u64;

    /// The kind of each usable image, as the data set names it. Known after the first [`visit`](Self::visit).
    fn kinds(&self) -> Vec<String>;

    /// The groups of the usable images; held-out scores leave out whole groups. Usable images are numbered in order.
    /// Known after the first [`visit`](Self::visit).
    ///
    /// # Errors
    /// Images that cannot be grouped as requested.
    fn groups(&self) -> Result<Groups, MethodError>;

    /// Visits all usable images in order, batch by batch, and returns their number. The first visit determines which
    /// images are usable.
    ///
    /// # Errors
    /// Errors of `visit`, cancellation, an unusable image in strict mode, and on later visits an image that has become
    /// unusable.
    fn visit(
        &self,
        progress: &dyn Progress,
        visit: &mut (dyn FnMut(&FeatureBatch<'_>) -> Result<(), MethodError> + Send),
    ) -> Result<usize, MethodError>;

    /// Visits the usable images with these numbers, ascending, after an earlier [`visit`](Self::visit).
    ///
    /// # Errors
    /// As [`visit`](Self::visit).
    fn visit_some(
        &self,
        which: &[usize],
        progress: &dyn Progress,
        visit: &mut (dyn FnMut(&FeatureBatch<'_>) -> Result<(), MethodError> + Send),
    ) -> Result<(), MethodError>;

    /// Combines the scores of the views of an image: the highest score of the tiles, the mean over flipped copies, and
    /// one map of all views.
    ///
    /// # Errors
    /// Maps of another size than the views.
    fn combine(&self, views: Vec<MethodScore>) -> Result<MethodScore, MethodError>;
}
