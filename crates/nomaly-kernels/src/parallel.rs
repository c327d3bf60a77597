//! One level of parallelism, on the rayon pool of the caller.

use rayon::prelude::*;

use crate::blocked::{Region, View};

/// Values that a step must touch for its sharing to pay: below, waking another thread costs more than it saves.
const SHARED_VALUES: usize = 32 << 10;

/// Calls `work` for every unit, in parallel when there is more than one thread and more than one unit.
pub(crate) fn for_each(units: usize, threads: usize, work: impl Fn(usize) + Send + Sync) {
    if units <= 1 || threads <= 1 {
        (0..units).for_each(work);
    } else {
        (0..units).into_par_iter().with_max_len(1).for_each(work);
    }
}

/// Calls `work` for regions that together cover `images` images of `view` once; `cost` is the number of values read
/// for each value written.
pub(crate) fn for_each_region(
    view: &View,
    images: usize,
    threads: usize,
    cost: usize,
    work: impl Fn(Region) + Send + Sync,
) {
    let planes = images * view.blocks;
    let values = planes * view.height * view.width * view.pixel * cost;
    let threads = if values < SHARED_VALUES { 1 } else { threads };
    let bands = if threads == 1 { 1 } else { (4 * threads).div_ceil(planes).min(view.height) };
    for_each(planes * bands, threads, |unit| {
        let (plane, band) = (unit / bands, unit % bands);
        work(Region {
            image: plane / view.blocks,
            block: plane % view.blocks,
            y0: band * view.height / bands,
            y1: (band + 1) * view.height / bands,
        });
    });
}
