//! Squared lengths of rows.

/// Above this, the squared distance of two rows could overflow.
const MAX_SQUARE: f64 = f32::MAX as f64 / 16.0;

/// Whether distances can be computed with a row of this squared length. False for NaN.
pub(crate) fn is_measurable(square: f64) -> bool {
    (0.0..=MAX_SQUARE).contains(&square)
}

/// The squared length, in 16 partial sums, so that it runs at the speed of memory.
pub(crate) fn sum_of_squares(row: &[f32]) -> f64 {
    let mut sums = [0.0f64; 16];
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(*value) * f64::from(*value);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>()
}
