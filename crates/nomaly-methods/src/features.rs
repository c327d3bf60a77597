//! The features of images, as methods see them.

use nomaly_backbones::TapRequest;
use nomaly_store::Progress;

use crate::MethodError;
use crate::groups::Groups;
use crate::maps::RegionOfInterest;
use crate::score::MethodScore;

/// The features of a batch of images, tap by tap.
///
/// An image is seen in one or more *views*: tiles of it, and flipped copies, all of the size of the network's input.
/// Every image of a detector has the same views in the same order.
#[derive(Clone, Copy, Debug)]
pub struct FeatureBatch<'a> {
    /// How many images.
    pub images: usize,
    /// Views an image, at least 1.
    pub views: usize,
    /// Height and width of a view in pixels: the network's input.
    pub input: [usize; 2],
    /// Height and width of the map of a view in pixels: those of the input, or of the smallest of the inputs where
    /// images are seen at several sizes.
    pub map: [usize; 2],
    /// The taps, in the order in which they were asked for.
    pub taps: &'a [TapRequest],
    /// For each tap, row-major values of `images` × `views` × [`shapes`](Self::shapes).
    pub values: &'a [Vec<f32>],
    /// For each tap, the `[C, h, w]` of one view's features, whatever their layout.
    pub shapes: &'a [[usize; 3]],
    /// The pixels that matter, where not all do.
    pub region: Option<&'a RegionOfInterest>,
    /// Side of the median filter that maps go through, in pixels of the input; 1 for none.
    pub median: Option<usize>,
}

impl FeatureBatch<'_> {
    /// The features of one image, tap by tap: what [`values`](Self::values) are for a batch of that image alone.
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
    /// [`MethodError::FeatureShape`] for another number of values a view than `expected`.
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

/// Images as features, as often as a method wants to see them.
pub trait FeatureSource: Sync {
    /// How many images there are; some may turn out to be unusable.
    fn images(&self) -> usize;

    /// How many views an image has.
    fn views(&self) -> usize;

    /// Bytes that the source itself may come to hold between visits.
    fn held_bytes(&self) -> u64;

    /// What each of the images shows that a [`visit`](Self::visit) found usable, as the data set names it.
    fn kinds(&self) -> Vec<String>;

    /// Which of the images that a [`visit`](Self::visit) found usable depend on each other: held-out scores
    /// leave out whole groups. Images are numbered as they were found usable.
    ///
    /// # Errors
    /// Images that cannot be grouped as the user asked for.
    fn groups(&self) -> Result<Groups, MethodError>;

    /// Visits all usable images in order, batch by batch, and says how many there were. Which images are usable is
    /// found on the first visit.
    ///
    /// # Errors
    /// Whatever `visit` fails with, cancellation, a bad image where the source is strict, and on later visits an image
    /// that has become unusable meanwhile.
    fn visit(
        &self,
        progress: &dyn Progress,
        visit: &mut (dyn FnMut(&FeatureBatch<'_>) -> Result<(), MethodError> + Send),
    ) -> Result<usize, MethodError>;

    /// Visits some of the images that an earlier [`visit`](Self::visit) found usable: their numbers among the usable
    /// ones, ascending.
    ///
    /// # Errors
    /// As [`visit`](Self::visit), and an image that has become unusable meanwhile.
    fn visit_some(
        &self,
        which: &[usize],
        progress: &dyn Progress,
        visit: &mut (dyn FnMut(&FeatureBatch<'_>) -> Result<(), MethodError> + Send),
    ) -> Result<(), MethodError>;

    /// What a detector says of an image whose views a method has scored: the highest score of its tiles, the mean over
    /// flipped copies, and the views' maps put together.
    ///
    /// # Errors
    /// Maps of another size than the views.
    fn combine(&self, views: Vec<MethodScore>) -> Result<MethodScore, MethodError>;
}
