//! Median filter of maps.
//!
//! **The design.** The window of each pixel is gathered from a map padded by its border and its middle value selected,
//! in time proportional to the pixels of the window. Rows are filtered in parallel. Useful windows are small (a few
//! pixels wide): the median removes specks that are thinner than half its side and keeps edges in place.

use rayon::prelude::*;

use super::{Border, FilterError};

/// A median filter with a square window, as `scipy.ndimage.median_filter` computes it.
///
/// ```
/// use nomaly_kernels::filter::{Border, MedianFilter};
///
/// let mut map = vec![1.0f32; 5 * 5];
/// map[12] = 9.0; // a speck
/// assert_eq!(MedianFilter::new(3, Border::Reflect)?.apply(&map, 5, 5)?, vec![1.0; 25]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MedianFilter {
    radius: usize,
    border: Border,
}

impl MedianFilter {
    /// The largest side of a window.
    pub const MAX_SIDE: usize = 63;

    /// A window of `side` × `side` pixels, an odd number from 1 to [`MAX_SIDE`](Self::MAX_SIDE).
    ///
    /// # Errors
    /// [`FilterError::Window`].
    pub fn new(side: usize, border: Border) -> Result<Self, FilterError> {
        if side.is_multiple_of(2) || side > Self::MAX_SIDE {
            return Err(FilterError::Window { side });
        }
        Ok(Self { radius: side / 2, border })
    }

    /// Filters `maps` `[maps, height, width]` of finite numbers.
    ///
    /// # Errors
    /// [`FilterError::Ragged`].
    pub fn apply(&self, maps: &[f32], height: usize, width: usize) -> Result<Vec<f32>, FilterError> {
        let size = height.saturating_mul(width);
        if size == 0 || !maps.len().is_multiple_of(size) {
            return Err(FilterError::Ragged { len: maps.len(), height, width });
        }
        let rows = self.places(height);
        let columns = self.places(width);
        let side = 2 * self.radius + 1;
        let mut filtered = vec![0.0f32; maps.len()];
        filtered.par_chunks_exact_mut(width).enumerate().for_each_init(
            || vec![0.0f32; side * side],
            |window, (at, filtered)| {
                let map = &maps[at / height * size..][..size];
                let rows = &rows[at % height..][..side];
                for (x, median) in filtered.iter_mut().enumerate() {
                    let columns = &columns[x..x + side];
                    for (window, row) in window.chunks_exact_mut(side).zip(rows) {
                        let row = &map[row * width..][..width];
                        window.iter_mut().zip(columns).for_each(|(value, column)| *value = row[*column]);
                    }
                    let middle = side * side / 2;
                    *median = *window.select_nth_unstable_by(middle, f32::total_cmp).1;
                }
            },
        );
        Ok(filtered)
    }

    /// The index within `0..len` for each position from `-radius` to `len + radius`.
    fn places(&self, len: usize) -> Vec<usize> {
        let before = (1..=self.radius).rev().map(|at| self.border.before(at, len));
        let after = (1..=self.radius).map(|at| self.border.after(at, len));
        before.chain(0..len).chain(after).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scipy.ndimage.median_filter(map, 3, mode=...)` of `[[1, 5, 2, 8], [7, 3, 9, 4], [6, 0, 11, 10]]` (SciPy 1.17).
    #[test]
    fn medians_are_those_of_scipy() {
        let map = [1.0, 5.0, 2.0, 8.0, 7.0, 3.0, 9.0, 4.0, 6.0, 0.0, 11.0, 10.0];
        let cases = [(Border::Reflect, REFLECT), (Border::Nearest, REFLECT), (Border::Mirror, MIRROR)];
        for (border, want) in cases {
            let got = MedianFilter::new(3, border).unwrap().apply(&[map, map].concat(), 3, 4).unwrap();
            assert_eq!(got, [want, want].concat(), "{border:?}");
        }
        let same = MedianFilter::new(1, Border::Mirror).unwrap().apply(&map, 3, 4).unwrap();
        assert_eq!(same, map);
    }

    const REFLECT: [f32; 12] = [3.0, 3.0, 5.0, 8.0, 5.0, 5.0, 5.0, 8.0, 6.0, 6.0, 9.0, 10.0];
    const MIRROR: [f32; 12] = [3.0, 5.0, 4.0, 8.0, 3.0, 5.0, 5.0, 9.0, 3.0, 7.0, 4.0, 9.0];

    #[test]
    fn windows_wider_than_the_map_and_wrong_ones() {
        let filter = MedianFilter::new(7, Border::Reflect).unwrap();
        assert_eq!(filter.apply(&[3.0], 1, 1).unwrap(), [3.0]);
        for side in [0, 2, 65] {
            assert_eq!(MedianFilter::new(side, Border::Reflect), Err(FilterError::Window { side }));
        }
        assert!(filter.apply(&[0.0; 5], 2, 2).is_err());
    }
}
