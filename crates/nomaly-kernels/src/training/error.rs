//! Errors of training kernels.

use crate::isa::IsaError;
use crate::window::WindowError;

/// Why a training kernel cannot be planned or run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrainingError {
    /// The instruction set cannot be used here.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// A window without output.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// A size that must be positive is zero.
    #[error("{what} must not be zero")]
    ZeroSize {
        /// Which size.
        what: &'static str,
    },
    /// A slice has the wrong length.
    #[error("{what} has {found} values, expected {expected}")]
    Length {
        /// Which slice.
        what: &'static str,
        /// Length required by the shapes.
        expected: usize,
        /// Length of the slice.
        found: usize,
    },
    /// A slice does not hold whole samples.
    #[error("{what} has {found} values, which is not a multiple of the {each} values of one sample")]
    Batch {
        /// Which slice.
        what: &'static str,
        /// Values of one sample.
        each: usize,
        /// Length of the slice.
        found: usize,
    },
    /// A tensor too large for memory.
    #[error("{what} is too large")]
    TooLarge {
        /// Which tensor.
        what: &'static str,
    },
    /// A transposed convolution with more padding than output, or with output padding not smaller than the stride.
    #[error("a transposed convolution of {input:?} with output padding {output_padding:?} has no output of that size")]
    TransposedSize {
        /// Height and width of the input.
        input: [usize; 2],
        /// Extra rows and columns of output.
        output_padding: [usize; 2],
    },
    /// Groups that do not divide the channels.
    #[error("{groups} groups do not divide {} input channels and {} output channels", channels[0], channels[1])]
    Groups {
        /// Number of groups.
        groups: usize,
        /// Channels of the input and of the output.
        channels: [usize; 2],
    },
    /// A reflection as wide as the image.
    #[error("a reflection of {padding} is not smaller than the image's {size}")]
    Reflection {
        /// Padding of one side.
        padding: usize,
        /// Size of the image on that axis.
        size: usize,
    },
    /// A crop that reaches beyond the image.
    #[error("a crop of {size:?} from {start:?} on is not within an image of {input:?}")]
    Crop {
        /// Height and width of the image.
        input: [usize; 2],
        /// First row and column.
        start: [usize; 2],
        /// Height and width of the crop.
        size: [usize; 2],
    },
    /// A share of values to drop that is not in [0, 1).
    #[error("a dropout rate of {rate} is not in [0, 1)")]
    DropoutRate {
        /// The share.
        rate: String,
    },
    /// A weight of positives that is not positive.
    #[error("positives cannot weigh {weight} in a cross-entropy: expected a positive number")]
    PositiveWeight {
        /// The weight.
        weight: String,
    },
    /// A bound of the smooth L1 loss that is not positive.
    #[error("a smooth L1 loss with beta = {beta} does not exist: expected a positive number")]
    SmoothL1Beta {
        /// The bound.
        beta: String,
    },
    /// A label that is not a class.
    #[error("label {label} of sample {sample} is not below the {classes} classes")]
    Label {
        /// The label.
        label: u32,
        /// The sample with that label.
        sample: usize,
        /// The number of classes.
        classes: usize,
    },
}

/// Checks the length of a slice.
pub(super) fn expect(what: &'static str, found: usize, expected: usize) -> Result<(), TrainingError> {
    if found == expected { Ok(()) } else { Err(TrainingError::Length { what, expected, found }) }
}

/// Checks the length of a slice that may be absent.
pub(super) fn expect_some(what: &'static str, slice: Option<&[f32]>, expected: usize) -> Result<(), TrainingError> {
    slice.map_or(Ok(()), |slice| expect(what, slice.len(), expected))
}

/// The number of samples of `each` values in a slice.
pub(super) fn samples(what: &'static str, found: usize, each: usize) -> Result<usize, TrainingError> {
    if found.is_multiple_of(each) { Ok(found / each) } else { Err(TrainingError::Batch { what, each, found }) }
}

/// Refuses sizes of zero.
pub(super) fn positive(sizes: &[(&'static str, usize)]) -> Result<(), TrainingError> {
    match sizes.iter().find(|(_, size)| *size == 0) {
        Some((what, _)) => Err(TrainingError::ZeroSize { what }),
        None => Ok(()),
    }
}

/// The product of the sizes, if memory could hold that many values.
pub(super) fn values(what: &'static str, sizes: &[usize]) -> Result<usize, TrainingError> {
    let count = sizes.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    count.filter(|count| *count <= isize::MAX as usize / 8).ok_or(TrainingError::TooLarge { what })
}
