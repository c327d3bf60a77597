//! Connected regions of a binary mask.
//!
//! Two passes over the mask with a union–find forest: the first assigns provisional labels and joins touching ones,
//! the second numbers the regions in raster order of their first pixel.

/// The neighbours of a pixel that belong to its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connectivity {
    /// Those that share an edge.
    Four,
    /// Those that share an edge or a corner.
    Eight,
}

/// The regions of a mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Components {
    /// Row-major, one label per pixel: 0 = background, `k` = region `k` (from 1, in raster order of first pixels).
    pub labels: Vec<u32>,
    /// Number of pixels of each region: `sizes[k - 1]` is that of region `k`.
    pub sizes: Vec<u32>,
}

impl Components {
    /// Finds the regions of the non-zero pixels of a row-major mask of rows of `width` pixels.
    ///
    /// An incomplete last row is padded with background. The mask has at most 2³² − 1 pixels; a `width` of 0 gives
    /// no regions.
    ///
    /// ```
    /// use nomaly_metrics::components::{Components, Connectivity};
    ///
    /// let mask = [1, 0, 0, 1]; // two pixels that touch at a corner
    /// assert_eq!(Components::find(&mask, 2, Connectivity::Eight).sizes, [2]);
    /// assert_eq!(Components::find(&mask, 2, Connectivity::Four).sizes, [1, 1]);
    /// ```
    pub fn find(mask: &[u8], width: usize, connectivity: Connectivity) -> Self {
        let mut labels = vec![0u32; mask.len()];
        if width == 0 {
            return Self { labels, sizes: Vec::new() };
        }
        let mut forest = Forest { parents: vec![0] };
        for (index, _) in mask.iter().enumerate().filter(|(_, value)| **value != 0) {
            let x = index % width;
            let (left, right) = (x > 0, x + 1 < width);
            let above = index.checked_sub(width);
            let mut neighbours = [0u32; 4];
            if left {
                neighbours[0] = labels[index - 1];
            }
            if let Some(above) = above {
                neighbours[1] = labels[above];
                if connectivity == Connectivity::Eight {
                    neighbours[2] = if left { labels[above - 1] } else { 0 };
                    neighbours[3] = if right { labels[above + 1] } else { 0 };
                }
            }
            let joined = neighbours.into_iter().filter(|&label| label != 0).reduce(|a, b| forest.join(a, b));
            labels[index] = joined.unwrap_or_else(|| forest.grow());
        }

        let mut numbers = vec![0u32; forest.parents.len()];
        let mut sizes = Vec::new();
        for label in labels.iter_mut().filter(|label| **label != 0) {
            let number = &mut numbers[forest.root(*label) as usize];
            if *number == 0 {
                sizes.push(0);
                *number = sizes.len() as u32;
            }
            sizes[*number as usize - 1] += 1;
            *label = *number;
        }
        Self { labels, sizes }
    }
}

/// Union–find over provisional labels; a root is its own parent and the smallest label of its tree.
struct Forest {
    parents: Vec<u32>,
}

impl Forest {
    fn grow(&mut self) -> u32 {
        let label = self.parents.len() as u32;
        self.parents.push(label);
        label
    }

    fn root(&mut self, mut label: u32) -> u32 {
        while self.parents[label as usize] != label {
            let grandparent = self.parents[self.parents[label as usize] as usize];
            self.parents[label as usize] = grandparent;
            label = grandparent;
        }
        label
    }

    fn join(&mut self, a: u32, b: u32) -> u32 {
        let (a, b) = (self.root(a), self.root(b));
        let (low, high) = (a.min(b), a.max(b));
        self.parents[high as usize] = low;
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Flood fill from each pixel in raster order: slow but obviously correct.
    fn flood(mask: &[u8], width: usize, connectivity: Connectivity) -> Components {
        let mut labels = vec![0; mask.len()];
        let mut sizes = Vec::new();
        for start in 0..mask.len() {
            if mask[start] == 0 || labels[start] != 0 {
                continue;
            }
            sizes.push(0);
            let mut stack = vec![start];
            while let Some(index) = stack.pop() {
                if mask[index] == 0 || labels[index] != 0 {
                    continue;
                }
                labels[index] = sizes.len() as u32;
                *sizes.last_mut().unwrap() += 1;
                let (x, y) = ((index % width) as isize, (index / width) as isize);
                for (dx, dy) in [(-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)] {
                    let (nx, ny) = (x + dx, y + dy);
                    let inside = nx >= 0 && ny >= 0 && (nx as usize) < width && (ny as usize) * width < mask.len();
                    if inside && (connectivity == Connectivity::Eight || dx == 0 || dy == 0) {
                        stack.push(ny as usize * width + nx as usize);
                    }
                }
            }
        }
        Components { labels, sizes }
    }

    proptest! {
        #[test]
        fn regions_are_those_of_a_flood_fill(
            width in 1usize..12,
            height in 0usize..12,
            noise in prop::collection::vec(prop_oneof![Just(0u8), Just(1u8), Just(255u8)], 144),
        ) {
            let mask = &noise[..width * height];
            for connectivity in [Connectivity::Four, Connectivity::Eight] {
                let found = Components::find(mask, width, connectivity);
                prop_assert_eq!(found, flood(mask, width, connectivity));
            }
        }
    }

    #[test]
    fn a_spiral_that_joins_late_is_one_region() {
        let mask = [
            1, 0, 1, 0, 1, //
            1, 0, 1, 0, 1, //
            1, 0, 1, 0, 1, //
            1, 1, 1, 1, 1,
        ];
        assert_eq!(Components::find(&mask, 5, Connectivity::Four).sizes, [14]);
    }

    #[test]
    fn no_pixels_have_no_regions() {
        assert!(Components::find(&[], 0, Connectivity::Eight).sizes.is_empty());
        assert!(Components::find(&[0; 6], 3, Connectivity::Eight).sizes.is_empty());
    }
}
