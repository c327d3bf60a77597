//! One level of parallelism, on the rayon pool of the caller.

use rayon::prelude::*;

/// Calls `work` for every unit, in parallel when there is more than one thread and more than one unit.
pub(crate) fn for_each(units: usize, threads: usize, work: impl Fn(usize) + Send + Sync) {
    if units <= 1 || threads <= 1 {
        (0..units).for_each(work);
    } else {
        (0..units).into_par_iter().with_max_len(1).for_each(work);
    }
}
