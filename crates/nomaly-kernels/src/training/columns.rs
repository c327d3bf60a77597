//! Sums over rows: the gradients of parameters that all rows share.
//!
//! Rows are cut into parts that the shape alone determines; each part is summed by one thread, and the parts are added
//! in order.

use std::ops::Range;

use crate::parallel::for_each;

use super::correlation::part;
use super::memory::{Shared, with_scratch};

/// The most parts.
const PARTS: usize = 16;

/// Values of a part, unless there are [`PARTS`] already.
const PART: usize = 16 << 10;

/// Calls `work` with the rows of each part and with `K` rows of `width` zeros to add to; writes the totals of those
/// that are wanted.
pub(super) fn column_sums<const K: usize>(
    rows: usize,
    width: usize,
    threads: usize,
    totals: [Option<&mut [f32]>; K],
    work: impl Fn(Range<usize>, &mut [f32]) + Send + Sync,
) {
    let parts = (rows * width).div_ceil(PART).min(PARTS).min(rows.max(1));
    let each = K * width;
    with_scratch(parts * each, |sums| {
        sums.fill(0.0);
        let shared = Shared::new(sums);
        for_each(parts, threads, |index| {
            // SAFETY: no other part has these sums, and they outlive the call.
            let sums = unsafe { std::slice::from_raw_parts_mut(shared.at(index * each, each), each) };
            work(part(rows, parts, index), sums);
        });
        for (k, total) in totals.into_iter().enumerate() {
            let Some(total) = total else { continue };
            for (column, total) in total.iter_mut().enumerate() {
                let parts = sums[k * width + column..].iter().step_by(each);
                *total = parts.map(|sum| f64::from(*sum)).sum::<f64>() as f32;
            }
        }
    });
}
