//! The arithmetic limit of this machine, measured.
//!
//! **The problem.** The throughput of a kernel says little until it is compared with the peak of the machine. The
//! nominal figure (clock x units x lanes) is wrong wherever the clock deviates: turbo, the lower clock of wide vectors,
//! virtual machines that share a core.
//!
//! **The measurement.** Multiply-adds on registers alone, in more independent chains than are needed for no unit to
//! wait for a result or for memory. The fastest of several short runs counts, because other load can only make a run
//! slower.
//!
//! **Eligible** is every instruction set that this processor has. [`Isa::Portable`] has no fused form: its chains
//! multiply and add, as its kernels do.
//!
//! ```
//! use nomaly_kernels::{Isa, peak};
//!
//! let peak = peak::fma(Isa::best()?)?;
//! assert!(peak.one_thread > 1e8 && peak.all_threads > 0.0);
//! # Ok::<(), nomaly_kernels::IsaError>(())
//! ```

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::isa::{Isa, IsaError};
use crate::simd::{Kernel, Simd, Token};

/// Number of runs; the fastest counts.
const RUNS: usize = 20;
/// Approximate duration of a run: long compared with waking a thread, short compared with disturbances.
const RUN: Duration = Duration::from_millis(4);
/// Steps of the trial run that calibrates the number of steps for [`RUN`].
const TRIAL_STEPS: u64 = 10_000;

/// Floating-point operations per second; a multiply-add counts as two.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Peak {
    /// What one thread reaches while the others rest.
    pub one_thread: f64,
    /// What all threads of the current rayon pool reach together.
    pub all_threads: f64,
}

/// Measures the peak of `isa` on the current rayon pool, in about a fifth of a second.
///
/// # Errors
/// When this processor does not have the instruction set.
pub fn fma(isa: Isa) -> Result<Peak, IsaError> {
    let chains = Chains::of(isa)?;
    let trial = (0..RUNS).map(|_| timed(|| chains.run(TRIAL_STEPS))).min().unwrap_or(RUN);
    let steps = (RUN.as_secs_f64() / trial.as_secs_f64().max(1e-9) * TRIAL_STEPS as f64).ceil().max(1.0) as u64;
    let fastest = |run: &dyn Fn()| (0..RUNS).map(|_| timed(run)).min().unwrap_or(RUN).as_secs_f64().max(1e-9);

    let work = steps as f64 * chains.flops_per_step;
    let one_thread = work / fastest(&|| chains.run(steps));
    let threads = rayon::current_num_threads();
    let all_threads = if threads == 1 {
        one_thread
    } else {
        let together = || {
            rayon::broadcast(|_| chains.run(steps));
        };
        work * threads as f64 / fastest(&together)
    };
    Ok(Peak { one_thread, all_threads })
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// The chains that keep the units of an instruction set busy.
#[derive(Clone, Copy)]
struct Chains {
    token: Token,
    isa: Isa,
    flops_per_step: f64,
}

impl Chains {
    fn of(isa: Isa) -> Result<Self, IsaError> {
        let chains = match isa {
            Isa::Avx512 | Isa::Avx2 => X86,
            Isa::Neon => NEON,
            Isa::Portable => ARRAYS,
        };
        Ok(Self { token: Token::new(isa)?, isa, flops_per_step: (2 * chains * isa.lanes()) as f64 })
    }

    fn run(&self, steps: u64) {
        let end = match self.isa {
            Isa::Avx512 | Isa::Avx2 => self.token.dispatch(Chain::<X86, true> { steps }),
            Isa::Neon => self.token.dispatch(Chain::<NEON, true> { steps }),
            Isa::Portable => self.token.dispatch(Chain::<ARRAYS, false> { steps }),
        };
        black_box(end);
    }
}

/// Chains on x86-64: two units with a latency of up to five cycles ask for ten; with the factors they fill 14 of AVX2's
/// 16 registers.
const X86: usize = 12;
/// Chains on AArch64: up to four units with a latency of four cycles.
const NEON: usize = 16;
/// Chains of [`Isa::Portable`], each of two registers of the x86-64 baseline; with the factors they fill all 16.
const ARRAYS: usize = 6;

/// `N` chains of `steps` multiply-adds. A fused chain accumulates, as convolutions do; in an unfused one the product
/// must depend on the chain, or the compiler would hoist it out of the loop.
struct Chain<const N: usize, const FUSED: bool> {
    steps: u64,
}

impl<const N: usize, const FUSED: bool> Kernel for Chain<N, FUSED> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        // Hidden from the compiler, and of sizes that neither overflow nor become subnormal.
        let (x, y) = (s.splat(black_box(0.999)), s.splat(black_box(0.001)));
        let mut chains = [s.splat(0.0); N];
        for (index, chain) in chains.iter_mut().enumerate() {
            *chain = s.splat(black_box(index as f32));
        }
        for _ in 0..self.steps {
            for chain in &mut chains {
                *chain = if FUSED { s.fma(x, y, *chain) } else { s.fma(*chain, x, y) };
            }
        }
        let mut sum = s.splat(0.0);
        for chain in chains {
            sum = s.add(sum, chain);
        }
        let mut lanes = [0.0f32; 16];
        // SAFETY: `lanes` holds the longest vector.
        unsafe { s.store(lanes.as_mut_ptr(), sum) };
        lanes[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_has_a_peak() {
        for isa in Isa::available() {
            let peak = fma(isa).unwrap();
            // From a slow emulator to beyond any processor.
            for rate in [peak.one_thread, peak.all_threads] {
                assert!(rate > 1e7 && rate < 1e15, "{isa}: {peak:?}");
            }
        }
    }

    #[test]
    fn the_chains_compute_what_they_say() {
        for isa in Isa::available() {
            let token = Token::new(isa).unwrap();
            let starts = |n: usize| (0..n).sum::<usize>() as f32;
            let fused = token.dispatch(Chain::<X86, true> { steps: 1000 });
            assert!((fused - (starts(X86) + 12.0 * 0.999)).abs() < 1e-2, "{isa}: {fused}");
            let scaled = token.dispatch(Chain::<ARRAYS, false> { steps: 1 });
            assert!((scaled - (starts(ARRAYS) * 0.999 + 6.0 * 0.001)).abs() < 1e-4, "{isa}: {scaled}");
        }
    }

    #[test]
    fn a_set_of_another_machine_is_refused() {
        for isa in [Isa::Avx512, Isa::Avx2, Isa::Neon] {
            assert_eq!(fma(isa).is_ok(), isa.is_available(), "{isa}");
        }
    }
}
