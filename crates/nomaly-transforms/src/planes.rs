//! Planes of values, `[C, H, W]`, that transformations and augmentations work on.

use crate::error::TransformError;

/// Checks that an image of this height and width has pixels.
pub(crate) fn check_size(size: [usize; 2]) -> Result<(), TransformError> {
    if size.contains(&0) {
        let [height, width] = size.map(|side| u32::try_from(side).unwrap_or(u32::MAX));
        return Err(TransformError::EmptyImage { width, height });
    }
    Ok(())
}

/// Checks that `planes` holds at least one whole plane and that the output has the same length. Returns the pixels per
/// plane.
pub(crate) fn check_planes(planes: &[f32], size: [usize; 2], out: &[f32]) -> Result<usize, TransformError> {
    check_size(size)?;
    let [height, width] = size;
    let pixels = height.checked_mul(width).filter(|&pixels| !planes.is_empty() && planes.len().is_multiple_of(pixels));
    let Some(pixels) = pixels else {
        return Err(TransformError::PlanesLength { height, width, actual: planes.len() });
    };
    if out.len() != planes.len() {
        return Err(TransformError::OutputLength { expected: planes.len(), actual: out.len() });
    }
    Ok(pixels)
}
