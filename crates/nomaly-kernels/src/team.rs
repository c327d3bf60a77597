//! Sharing the steps of a run among the threads of the caller's rayon pool.
//!
//! **The problem.** A network at batch 1 is some sixty steps of 20 to 500 µs. Forking and joining a rayon task tree
//! for each of them costs several µs, and a worker that was briefly idle has gone to sleep: waking it takes tens of
//! µs, as long as the step.
//!
//! **The design.** A [`Team`] forks once per run. The other threads of the pool join when they are free, and then take
//! units of the current step by one atomic operation, until the run ends. The leading thread never waits for a thread
//! to join, only for units that have been taken, so a busy pool slows a run down but never blocks it.
//!
//! The units of a step are distributed in equal runs of neighbours, and a thread takes units of others, the farthest
//! first, only when its own are done. Steps number their units by image and row, so a thread finds most of what it
//! reads in its own cache: a line that another core has written takes about 20 ns to arrive.
//!
//! The split of the work never changes the order of a sum: see [`network`](crate::network).

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::blocked::{Region, View};

/// Values that a step must touch for sharing to pay off.
const SHARED_VALUES: usize = 8 << 10;

/// Polls of the shared state before an idle thread yields.
const SPINS: u32 = 4096;

/// Bits of the state that count units.
const COUNT: u32 = 24;

/// The most units that are counted one by one.
const MAX_COUNT: usize = (1 << COUNT) - 1;

/// The epoch that ends a run; no step has it.
const END: u64 = (1 << (64 - 2 * COUNT)) - 1;

/// Work on units of a step, with its lifetime erased.
type Job = *const (dyn Fn(usize) + Sync + 'static);

/// A counter in a cache line of its own.
#[repr(align(128))]
struct Line<T>(T);

/// What the threads of a run share.
pub(crate) struct Team {
    threads: usize,
    /// Number of the current step, modulo [`END`]; waiting threads poll it.
    epoch: Line<AtomicU64>,
    /// The share of each thread in the current step: its epoch, the end of its units and the first unit left.
    shares: Box<[Line<AtomicU64>]>,
    /// Units of the step that are finished.
    done: Line<AtomicUsize>,
    /// The work of the current step; written only while no unit is available.
    job: UnsafeCell<Option<Job>>,
}

// SAFETY: `job` is written by the leading thread alone, between steps: at that time no share offers a unit and every
// unit that was taken is done. It is read only by a thread that has just taken a unit, and what it points to is `Sync`
// and outlives the step, because `for_each` waits for the units that were taken.
unsafe impl Sync for Team {}

fn pack(epoch: u64, end: usize, first: usize) -> u64 {
    epoch << (2 * COUNT) | (end as u64) << COUNT | first as u64
}

fn unpack(share: u64) -> (u64, usize, usize) {
    let mask = (1 << COUNT) - 1;
    (share >> (2 * COUNT), (share >> COUNT & mask) as usize, (share & mask) as usize)
}

impl Team {
    /// Calls `lead` with a team of all threads of the current pool.
    pub(crate) fn gather(lead: impl FnOnce(&Team) + Send) {
        let threads = rayon::current_num_threads();
        let team = Team {
            threads,
            epoch: Line(AtomicU64::new(0)),
            shares: (0..threads).map(|_| Line(AtomicU64::new(0))).collect(),
            done: Line(AtomicUsize::new(0)),
            job: UnsafeCell::new(None),
        };
        if threads == 1 {
            lead(&team);
            return;
        }
        let team = &team;
        rayon::scope(|scope| {
            // Releases the other threads even if the leading thread panics.
            let _end = Defer(|| team.epoch.0.store(END, Ordering::Release));
            for thread in 1..threads {
                scope.spawn(move |_| team.help(thread));
            }
            lead(team);
        });
    }

    /// Threads that may work at the same time.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `work` for every unit, on as many threads as are free. Only the leading thread calls this, and never from
    /// inside `work`.
    pub(crate) fn for_each(&self, units: usize, work: impl Fn(usize) + Sync) {
        if units <= 1 || self.threads == 1 {
            (0..units).for_each(work);
            return;
        }
        let count = units.min(MAX_COUNT);
        let group = |index: usize| (index * units / count..(index + 1) * units / count).for_each(&work);
        let job: *const (dyn Fn(usize) + Sync + '_) = &group;
        // SAFETY: only the lifetime changes; this function returns after the last use, see below.
        let job = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Job>(job) };
        let epoch = (self.epoch.0.load(Ordering::Relaxed) + 1) % END;
        // SAFETY: no unit is to be had and none is in work, so nobody reads the job.
        unsafe { *self.job.get() = Some(job) };
        self.done.0.store(0, Ordering::Relaxed);
        for (thread, share) in self.shares.iter().enumerate() {
            let bound = |thread: usize| thread * count / self.threads;
            share.0.store(pack(epoch, bound(thread + 1), bound(thread)), Ordering::Release);
        }
        self.epoch.0.store(epoch, Ordering::Release);
        // Even if a unit panics on this thread: offers no more units and waits for those that others have taken.
        let _wait = Defer(|| {
            let withdraw = |share: &Line<AtomicU64>| {
                let (_, end, first) = unpack(share.0.swap(pack(epoch, 0, 0), Ordering::Relaxed));
                end.saturating_sub(first)
            };
            let taken = count - self.shares.iter().map(withdraw).sum::<usize>();
            let mut spins = 0;
            while self.done.0.load(Ordering::Acquire) < taken {
                pause(&mut spins);
            }
        });
        while self.work_on_one(0).is_some() {}
    }

    /// Takes units until the run ends.
    fn help(&self, thread: usize) {
        let (mut spins, mut finished) = (0, 0);
        loop {
            match self.epoch.0.load(Ordering::Acquire) {
                END => return,
                epoch if epoch == finished => pause(&mut spins),
                epoch => {
                    while self.work_on_one(thread).is_some() {
                        spins = 0;
                    }
                    finished = epoch;
                }
            }
        }
    }

    /// Takes a unit of the current step and works on it, if there is one.
    fn work_on_one(&self, thread: usize) -> Option<()> {
        let unit =
            (0..self.threads).find_map(|distance| self.take((thread + distance) % self.threads, distance == 0))?;
        let _done = Defer(|| {
            self.done.0.fetch_add(1, Ordering::Release);
        });
        // SAFETY: the unit just taken belongs to the step whose job this is, and the step does not end before it is
        // done.
        let job = unsafe { (*self.job.get()).map(|job| &*job) };
        if let Some(job) = job {
            job(unit);
        }
        Some(())
    }

    /// Takes the first unit of the thread's own share, or the last of another's.
    fn take(&self, owner: usize, own: bool) -> Option<usize> {
        let share = &self.shares[owner].0;
        let mut state = share.load(Ordering::Acquire);
        loop {
            let (epoch, end, first) = unpack(state);
            if first >= end {
                return None;
            }
            let (rest, unit) =
                if own { (pack(epoch, end, first + 1), first) } else { (pack(epoch, end - 1, first), end - 1) };
            match share.compare_exchange_weak(state, rest, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return Some(unit),
                Err(now) => state = now,
            }
        }
    }

    /// Calls `work` for regions that together cover `images` images of `view` once; `cost` is the number of values read
    /// for each value written.
    pub(crate) fn for_each_region(&self, view: &View, images: usize, cost: usize, work: impl Fn(Region) + Sync) {
        let planes = images * view.blocks;
        let values = planes * view.height * view.width * view.pixel * cost;
        let threads = if values < SHARED_VALUES { 1 } else { self.threads };
        let bands = if threads == 1 { 1 } else { (4 * threads).div_ceil(planes).min(view.height) };
        let region = |unit: usize| {
            let (plane, band) = (unit / bands, unit % bands);
            work(Region {
                image: plane / view.blocks,
                block: plane % view.blocks,
                y0: band * view.height / bands,
                y1: (band + 1) * view.height / bands,
            });
        };
        if threads == 1 {
            (0..planes).for_each(region);
        } else {
            self.for_each(planes * bands, region);
        }
    }
}

/// Spins briefly; yields during long waits.
fn pause(spins: &mut u32) {
    if *spins < SPINS {
        *spins += 1;
        spin_loop();
    } else {
        std::thread::yield_now();
    }
}

/// Calls a function when dropped, also during a panic.
struct Defer<F: FnMut()>(F);

impl<F: FnMut()> Drop for Defer<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::ThreadPoolBuilder;

    fn with_threads(threads: usize, work: impl FnOnce(&Team) + Send) {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| Team::gather(work));
    }

    #[test]
    fn every_unit_of_every_step_is_done_once() {
        for threads in [1, 2, 5] {
            let counts: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
            with_threads(threads, |team| {
                for step in 0..1000 {
                    let units = step % 101;
                    team.for_each(units, |unit| {
                        counts[unit].fetch_add(1, Ordering::Relaxed);
                    });
                    let done: usize = counts[..units].iter().map(|c| c.swap(0, Ordering::Relaxed)).sum();
                    assert_eq!(done, units, "step {step}");
                }
            });
        }
    }

    #[test]
    fn a_pool_whose_other_threads_are_busy_is_only_slower() {
        let pool = ThreadPoolBuilder::new().num_threads(2).build().expect("a pool");
        let (sum, run_is_over) = (AtomicUsize::new(0), std::sync::atomic::AtomicBool::new(false));
        pool.join(
            || {
                Team::gather(|team| {
                    for _ in 0..100 {
                        team.for_each(8, |unit| {
                            sum.fetch_add(unit, Ordering::Relaxed);
                        });
                    }
                });
                run_is_over.store(true, Ordering::Release);
            },
            || {
                // Occupies its thread until the run is over, unless one thread runs all units.
                let start = std::time::Instant::now();
                while !run_is_over.load(Ordering::Acquire) && start.elapsed().as_secs() < 1 {
                    spin_loop();
                }
            },
        );
        assert_eq!(sum.into_inner(), 100 * 28);
    }

    #[test]
    fn a_panic_in_a_unit_ends_the_run() {
        for threads in [1, 3] {
            for bad in [0, 7] {
                let result = std::panic::catch_unwind(|| {
                    with_threads(threads, |team| {
                        team.for_each(8, |unit| assert!(unit != bad, "a bad unit"));
                        team.for_each(8, |_| ());
                    });
                });
                assert!(result.is_err(), "{threads} threads, unit {bad}");
            }
        }
    }
}
