//! The geometry of a sliding window, for networks and training.

use crate::geometry::Padding;

/// Why a sliding window has no output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WindowError {
    /// A size that must be positive is zero.
    #[error("{what} must not be zero")]
    ZeroSize {
        /// Which size.
        what: &'static str,
    },
    /// The window does not fit into the padded input.
    #[error("kernel {kernel:?} is larger than the padded input {padded:?}")]
    KernelTooLarge {
        /// Height and width of the window.
        kernel: [usize; 2],
        /// Height and width of the input with its padding.
        padded: [usize; 2],
    },
    /// A window could lie entirely in the padding.
    #[error("padding {padding} is not smaller than the kernel size {kernel}")]
    PaddingTooLarge {
        /// The padding of one side.
        padding: usize,
        /// The kernel size of that axis.
        kernel: usize,
    },
}

/// A sliding window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) padding: Padding,
}

impl Window {
    /// Height and width of the padded input; saturates on overflow.
    pub(crate) fn padded(&self, input: [usize; 2]) -> [usize; 2] {
        let Padding { top, bottom, left, right } = self.padding;
        [input[0].saturating_add(top).saturating_add(bottom), input[1].saturating_add(left).saturating_add(right)]
    }

    /// Height and width of the output for an input of this height and width.
    pub(crate) fn output(&self, input: [usize; 2]) -> Result<[usize; 2], WindowError> {
        let sizes = [("the size of the input", input), ("the kernel size", self.kernel), ("the stride", self.stride)];
        if let Some((what, _)) = sizes.into_iter().find(|(_, size)| size.contains(&0)) {
            return Err(WindowError::ZeroSize { what });
        }
        let Padding { top, bottom, left, right } = self.padding;
        for (sides, kernel) in [[top, bottom], [left, right]].into_iter().zip(self.kernel) {
            if let Some(padding) = sides.into_iter().find(|padding| *padding >= kernel) {
                return Err(WindowError::PaddingTooLarge { padding, kernel });
            }
        }
        let padded = self.padded(input);
        if padded[0] < self.kernel[0] || padded[1] < self.kernel[1] {
            return Err(WindowError::KernelTooLarge { kernel: self.kernel, padded });
        }
        Ok([0, 1].map(|axis| (padded[axis] - self.kernel[axis]) / self.stride[axis] + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_that_do_not_fit_are_refused() {
        let window = |kernel, stride, padding| Window { kernel, stride, padding: Padding::symmetric(padding) };
        assert_eq!(window([3, 3], [2, 1], 1).output([7, 7]), Ok([4, 7]));
        assert_eq!(window([3, 3], [1, 1], 0).output([3, 3]), Ok([1, 1]));
        for (window, input, what) in [
            (window([3, 3], [1, 1], 1), [0, 7], "the size of the input"),
            (window([0, 3], [1, 1], 0), [7, 7], "the kernel size"),
            (window([3, 3], [0, 1], 1), [7, 7], "the stride"),
        ] {
            assert_eq!(window.output(input), Err(WindowError::ZeroSize { what }));
        }
        let error = window([3, 3], [1, 1], 3).output([7, 7]);
        assert_eq!(error, Err(WindowError::PaddingTooLarge { padding: 3, kernel: 3 }));
        let error = window([5, 5], [1, 1], 1).output([2, 9]);
        assert_eq!(error, Err(WindowError::KernelTooLarge { kernel: [5, 5], padded: [4, 11] }));
        assert!(window([usize::MAX, 1], [1, 1], 0).output([usize::MAX - 1, 1]).is_err());
    }
}
