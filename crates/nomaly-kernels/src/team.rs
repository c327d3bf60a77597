//! Sharing the steps of a run among the threads of the caller's rayon pool.
//!
//! **The problem.** A network at batch 1 is some sixty steps of 20 to 500 µs. Forking and joining a rayon task tree for each
//! of them costs several µs, and a worker that found nothing to do for a moment has gone to sleep: waking it takes tens of
//! µs, as long as the step.
//!
//! **The design.** A [`Team`] forks once a run. The other threads of the pool come when they have time, and then take units of
//! whatever step is current by one atomic operation, until the run ends. The thread that leads never waits for somebody
//! to come, only for units that somebody has taken, so a busy pool makes a run slower and never stuck.
//!
//! How the work is cut never changes the order of a sum: see [`network`](crate::network).

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::blocked::{Region, View};

/// Values that a step must touch for its sharing to pay.
const SHARED_VALUES: usize = 8 << 10;

/// Looks at the shared state before a thread that finds nothing to do offers its place to others.
const SPINS: u32 = 4096;

/// Bits of the state that count units.
const COUNT: u32 = 24;

/// The most units that are counted one by one.
const MAX_COUNT: usize = (1 << COUNT) - 1;

/// The epoch that ends a run.
const END: u64 = (1 << (64 - 2 * COUNT)) - 1;

/// Work on units of a step, with its lifetime erased.
type Job = *const (dyn Fn(usize) + Sync + 'static);

/// A counter in a cache line of its own.
#[repr(align(128))]
struct Line<T>(T);

/// What the threads of a run share.
pub(crate) struct Team {
    threads: usize,
    /// The epoch (a number of the step, modulo [`END`]), the units of the step, and those already taken.
    state: Line<AtomicU64>,
    /// Units of the step that are finished.
    done: Line<AtomicUsize>,
    /// The work of the current step; written only while no unit is to be had.
    job: UnsafeCell<Option<Job>>,
}

// SAFETY: `job` is written by the leading thread alone, between steps: at that time `state` offers no unit and every unit
// that was taken is done. It is read only by a thread that has just taken a unit, and what it points to is `Sync` and
// outlives the step, because `for_each` waits for the units that were taken.
unsafe impl Sync for Team {}

fn pack(epoch: u64, units: usize, taken: usize) -> u64 {
    epoch << (2 * COUNT) | (units as u64) << COUNT | taken as u64
}

fn unpack(state: u64) -> (u64, usize, usize) {
    let mask = (1 << COUNT) - 1;
    (state >> (2 * COUNT), (state >> COUNT & mask) as usize, (state & mask) as usize)
}

impl Team {
    /// Calls `lead` with a team of all threads of the current pool.
    pub(crate) fn gather(lead: impl FnOnce(&Team) + Send) {
        let threads = rayon::current_num_threads();
        let team = Team {
            threads,
            state: Line(AtomicU64::new(0)),
            done: Line(AtomicUsize::new(0)),
            job: UnsafeCell::new(None),
        };
        if threads == 1 {
            lead(&team);
            return;
        }
        let team = &team;
        rayon::scope(|scope| {
            // Whatever happens to the leading thread, the others must go home.
            let _end = Defer(|| team.state.0.store(pack(END, 0, 0), Ordering::Release));
            for _ in 1..threads {
                scope.spawn(|_| team.help());
            }
            lead(team);
        });
    }

    /// Threads that may work at the same time.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `work` for every unit, on as many threads as have time. Only the leading thread calls this, and never from
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
        let (epoch, ..) = unpack(self.state.0.load(Ordering::Relaxed));
        // SAFETY: no unit is to be had and none is in work, so nobody reads the job.
        unsafe { *self.job.get() = Some(job) };
        self.done.0.store(0, Ordering::Relaxed);
        self.state.0.store(pack((epoch + 1) % END, count, 0), Ordering::Release);
        // Also when a unit panics on this thread: offer no more, and wait for those that others have taken.
        let _wait = Defer(|| {
            let (epoch, units, _) = unpack(self.state.0.load(Ordering::Relaxed));
            let (_, _, taken) = unpack(self.state.0.swap(pack(epoch, units, units), Ordering::Relaxed));
            let mut spins = 0;
            while self.done.0.load(Ordering::Acquire) < taken {
                pause(&mut spins);
            }
        });
        while self.work_on_one().is_some() {}
    }

    /// Takes units until the run ends.
    fn help(&self) {
        let mut spins = 0;
        loop {
            match self.work_on_one() {
                Some(()) => spins = 0,
                None if unpack(self.state.0.load(Ordering::Relaxed)).0 == END => return,
                None => pause(&mut spins),
            }
        }
    }

    /// Takes a unit of the current step and works on it, if there is one.
    fn work_on_one(&self) -> Option<()> {
        let mut state = self.state.0.load(Ordering::Acquire);
        let unit = loop {
            let (_, units, taken) = unpack(state);
            if taken >= units {
                return None;
            }
            match self.state.0.compare_exchange_weak(state, state + 1, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => break taken,
                Err(now) => state = now,
            }
        };
        let _done = Defer(|| {
            self.done.0.fetch_add(1, Ordering::Release);
        });
        // SAFETY: the unit just taken belongs to the step whose job this is, and the step does not end before it is done.
        let job = unsafe { (*self.job.get()).map(|job| &*job) };
        if let Some(job) = job {
            job(unit);
        }
        Some(())
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

/// Waits a moment; long waits let others run.
fn pause(spins: &mut u32) {
    if *spins < SPINS {
        *spins += 1;
        spin_loop();
    } else {
        std::thread::yield_now();
    }
}

/// Calls a function when it goes out of scope, also by a panic.
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
                // Keeps its thread until the run is over, unless the same thread does one after the other.
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
