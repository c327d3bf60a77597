//! Filters of maps: a [`GaussianBlur`] and a [`MedianFilter`].
//!
//! ```
//! use nomaly_kernels::Isa;
//! use nomaly_kernels::filter::{Border, GaussianBlur};
//!
//! let blur = GaussianBlur::new(1.0, 4.0, Border::Reflect, Isa::best()?)?;
//! let mut map = vec![0.0; 9 * 9];
//! map[4 * 9 + 4] = 1.0;
//! let blurred = blur.apply(&map, 9, 9)?;
//! assert!((blurred[4 * 9 + 4] - 0.1592).abs() < 1e-3); // 1 / 2π
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod gaussian;
mod median;

pub use self::gaussian::GaussianBlur;
pub use self::median::MedianFilter;
use crate::isa::IsaError;

/// The largest radius in pixels; a larger one is surely a mistake.
const MAX_RADIUS: f64 = 65_536.0;

/// Values outside a map, with the names of `scipy.ndimage`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Border {
    /// `d c b a | a b c d | d c b a`.
    #[default]
    Reflect,
    /// `a a a a | a b c d | d d d d`.
    Nearest,
    /// `d c b | a b c d | c b a`.
    Mirror,
}

impl Border {
    /// The index within `0..len` for the position `at` places left of the first.
    pub(crate) fn before(self, at: usize, len: usize) -> usize {
        match self {
            Border::Reflect => fold((at - 1) % (2 * len), 2 * len - 1),
            Border::Nearest => 0,
            Border::Mirror if len == 1 => 0,
            Border::Mirror => fold(at % (2 * len - 2), 2 * len - 2),
        }
    }

    /// The index for the position `at` places right of the last.
    pub(crate) fn after(self, at: usize, len: usize) -> usize {
        len - 1 - self.before(at, len)
    }
}

/// The smaller of a position in a period and its mirror image.
fn fold(at: usize, sum: usize) -> usize {
    at.min(sum - at)
}

/// Why a map cannot be filtered.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// The instruction set is not available.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// The width or the truncation of the Gaussian is not valid.
    #[error(
        "a Gaussian of sigma {sigma} cut off at {truncate} sigmas is not a filter: both must be positive, their product at most {MAX_RADIUS}"
    )]
    Sigma {
        /// The standard deviation in pixels.
        sigma: f64,
        /// The radius in standard deviations.
        truncate: f64,
    },
    /// The window of a median filter is even or too large.
    #[error(
        "a median of {side} x {side} pixels is not a filter: the side must be an odd number up to {}",
        MedianFilter::MAX_SIDE
    )]
    Window {
        /// The side in pixels.
        side: usize,
    },
    /// The values do not form whole maps.
    #[error("{len} numbers are not a whole number of maps of {height} x {width}")]
    Ragged {
        /// The numbers.
        len: usize,
        /// Rows of a map.
        height: usize,
        /// Columns of a map.
        width: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_are_those_of_scipy() {
        let inside = |border: Border, len: usize| {
            let before: Vec<usize> = (1..=7).map(|at| border.before(at, len)).collect();
            let after: Vec<usize> = (1..=7).map(|at| border.after(at, len)).collect();
            (before, after)
        };
        assert_eq!(inside(Border::Reflect, 3), (vec![0, 1, 2, 2, 1, 0, 0], vec![2, 1, 0, 0, 1, 2, 2]));
        assert_eq!(inside(Border::Mirror, 3), (vec![1, 2, 1, 0, 1, 2, 1], vec![1, 0, 1, 2, 1, 0, 1]));
        assert_eq!(inside(Border::Nearest, 3), (vec![0; 7], vec![2; 7]));
        assert_eq!(inside(Border::Mirror, 1), (vec![0; 7], vec![0; 7]));
        assert_eq!(inside(Border::Reflect, 1), (vec![0; 7], vec![0; 7]));
    }
}
