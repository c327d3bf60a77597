//! A gallery of training images: retrieves the images nearest to a query by pooled features, and their positions
//! nearest to each of its positions.

use nomaly_kernels::Isa;
use nomaly_kernels::neighbours::{Bank, Metric};

use crate::MethodError;

/// The shape of a gallery's images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GalleryShape {
    /// Views per image.
    pub(super) views: usize,
    /// Height and width of the grid of the pyramids.
    pub(super) grid: [usize; 2],
    /// Values per position.
    pub(super) dim: usize,
    /// Values of a view's pooled features.
    pub(super) pooled: usize,
}

impl GalleryShape {
    /// Positions per view.
    pub(super) fn positions(self) -> usize {
        self.grid[0] * self.grid[1]
    }

    /// Values of the pyramids of an image.
    fn of_image(self) -> usize {
        self.views * self.positions() * self.dim
    }

    /// The bytes of `images` images: `f32` values, and the scale and squared length of each row.
    pub(super) fn bytes(self, images: usize) -> u64 {
        let Self { views, dim, pooled, .. } = self;
        let view = self.positions() as u64 * (4 * dim as u64 + 8) + (4 * pooled as u64 + 8);
        (images as u64).saturating_mul(views as u64 * view)
    }
}

/// The pooled features and pyramids of training images.
#[derive(Debug)]
pub(super) struct Gallery {
    shape: GalleryShape,
    /// For each view, one row per image.
    pooled: Vec<Bank<'static>>,
    /// For each view of each image, one row per position.
    pyramids: Vec<Bank<'static>>,
}

/// The training images nearest to a query.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Retrieved {
    /// Their numbers, the nearest first.
    pub(super) images: Vec<usize>,
    /// The mean L2 distance of their pooled features.
    pub(super) distance: f64,
}

impl Gallery {
    /// An empty gallery.
    pub(super) fn new(shape: GalleryShape) -> Result<Self, MethodError> {
        let isa = Isa::best()?;
        let pooled = (0..shape.views).map(|_| Bank::new(Vec::new(), shape.pooled, Metric::SquaredL2, isa));
        Ok(Self { shape, pooled: pooled.collect::<Result<_, _>>()?, pyramids: Vec::new() })
    }

    /// Appends images: `pooled` `[images, views, pooled]` and `pyramids` `[images, views, positions, dim]`.
    ///
    /// # Errors
    /// Values that are not finite, or too large to square.
    pub(super) fn add(&mut self, pooled: &[f32], pyramids: &[f32]) -> Result<(), MethodError> {
        let GalleryShape { views, dim, pooled: width, .. } = self.shape;
        let isa = Isa::best()?;
        for view in pyramids.chunks_exact(self.shape.positions() * dim) {
            self.pyramids.push(Bank::new(view.to_vec(), dim, Metric::SquaredL2, isa)?);
        }
        for (at, row) in pooled.chunks_exact(width).enumerate() {
            self.pooled[at % views].append(row)?;
        }
        Ok(())
    }

    /// Appends the images of another gallery of the same shape.
    pub(super) fn append(&mut self, mut other: Self) -> Result<(), MethodError> {
        for (own, other) in self.pooled.iter_mut().zip(&other.pooled) {
            own.append(other.rows())?;
        }
        self.pyramids.append(&mut other.pyramids);
        Ok(())
    }

    pub(super) fn shape(&self) -> GalleryShape {
        self.shape
    }

    /// The number of images.
    pub(super) fn images(&self) -> usize {
        self.pooled.first().map_or(0, Bank::len)
    }

    /// All pooled features, `[images, views, pooled]`.
    pub(super) fn pooled(&self) -> Vec<f32> {
        let mut rows = Vec::with_capacity(self.images() * self.shape.views * self.shape.pooled);
        for image in 0..self.images() {
            for bank in &self.pooled {
                rows.extend_from_slice(&bank.rows()[image * self.shape.pooled..(image + 1) * self.shape.pooled]);
            }
        }
        rows
    }

    /// All pyramids, `[images, views, positions, dim]`.
    pub(super) fn pyramids(&self) -> Vec<f32> {
        let mut rows = Vec::with_capacity(self.images() * self.shape.of_image());
        self.pyramids.iter().for_each(|bank| rows.extend_from_slice(bank.rows()));
        rows
    }

    /// The `k` images whose view `view` is nearest to these `pooled` features, except the images `without`, ascending;
    /// all if there are fewer.
    pub(super) fn retrieve(
        &self,
        view: usize,
        pooled: &[f32],
        k: usize,
        without: &[usize],
    ) -> Result<Retrieved, MethodError> {
        let bank = &self.pooled[view];
        let found = bank.top_k(pooled, (k + without.len()).min(bank.len()))?;
        let pairs = found.indices.iter().map(|index| *index as usize).zip(&found.distances);
        let others = pairs.filter(|(image, _)| without.binary_search(image).is_err()).take(k);
        let (images, distances): (Vec<usize>, Vec<f64>) =
            others.map(|(image, square)| (image, f64::from(*square).sqrt())).unzip();
        Ok(Retrieved { distance: distances.iter().sum::<f64>() / images.len() as f64, images })
    }

    /// For each row of `pyramid` `[positions, dim]` its L2 distance to the nearest position of the view `view` of
    /// `images`.
    ///
    /// The images are searched one by one in place, without a copy of their rows.
    pub(super) fn distances(&self, view: usize, images: &[usize], pyramid: &[f32]) -> Result<Vec<f32>, MethodError> {
        let mut nearest = vec![f32::INFINITY; pyramid.len() / self.shape.dim];
        for image in images {
            let found = self.pyramids[image * self.shape.views + view].top_k(pyramid, 1)?;
            nearest.iter_mut().zip(found.distances).for_each(|(nearest, square)| *nearest = nearest.min(square));
        }
        nearest.iter_mut().for_each(|distance| *distance = distance.sqrt());
        Ok(nearest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: GalleryShape = GalleryShape { views: 2, grid: [1, 2], dim: 1, pooled: 1 };

    /// Images at 0, 10, 20, … in the first view and at 0, -1, -2, … in the second; positions 1 and 2 beyond that.
    fn gallery(images: usize) -> Gallery {
        let mut gallery = Gallery::new(SHAPE).unwrap();
        for image in 0..images {
            let (first, second) = (10.0 * image as f32, -(image as f32));
            gallery.add(&[first, second], &[first + 1.0, first + 2.0, second + 1.0, second + 2.0]).unwrap();
        }
        gallery
    }

    #[test]
    fn views_are_compared_with_the_same_view() {
        let gallery = gallery(4);
        let near = gallery.retrieve(0, &[12.0], 2, &[]).unwrap();
        assert_eq!(near, Retrieved { images: vec![1, 2], distance: 5.0 });
        assert_eq!(gallery.retrieve(1, &[-3.0], 1, &[]).unwrap().images, [3]);
        assert_eq!(gallery.distances(0, &[1, 2], &[0.0, 15.0]).unwrap(), [11.0, 3.0]);
        assert_eq!(gallery.distances(1, &[3], &[0.0]).unwrap(), [1.0]);
    }

    #[test]
    fn an_image_that_is_left_out_gives_its_place_to_the_next() {
        let gallery = gallery(3);
        assert_eq!(gallery.retrieve(0, &[10.0], 2, &[1]).unwrap().images, [0, 2]);
        assert_eq!(gallery.retrieve(0, &[10.0], 9, &[1]).unwrap().images.len(), 2);
        assert_eq!(gallery.retrieve(0, &[10.0], 2, &[0, 1]).unwrap().images, [2]);
        // An image that is not among the nearest leaves the others alone, equal ones included.
        let mut twins = Gallery::new(SHAPE).unwrap();
        twins.add(&[5.0; 6], &[0.0; 12]).unwrap();
        assert_eq!(twins.retrieve(0, &[5.0], 1, &[2]).unwrap().images, [0]);
    }

    #[test]
    fn galleries_are_joined_and_written_image_by_image() {
        let (mut first, all) = (gallery(2), gallery(5));
        let mut rest = Gallery::new(SHAPE).unwrap();
        rest.add(&all.pooled()[4..], &all.pyramids()[8..]).unwrap();
        first.append(rest).unwrap();
        assert_eq!((first.images(), first.pooled(), first.pyramids()), (5, all.pooled(), all.pyramids()));
        assert_eq!(all.pooled()[..4], [0.0, 0.0, 10.0, -1.0]);
        assert!(first.add(&[f32::NAN, 0.0], &[0.0; 4]).is_err());
    }
}
