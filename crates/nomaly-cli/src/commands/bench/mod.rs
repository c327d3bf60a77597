//! `nomaly bench`: the speed of the kernels on this machine, relative to its peak arithmetic.

mod backbone;
mod kernels;

use std::time::Duration;

use anyhow::Context;
use nomaly::kernels::Isa;
use nomaly::kernels::peak::{self, Peak};
use serde::Serialize;

use super::Status;
use crate::args::BenchCommand;
use crate::console::Console;
use crate::output::{percent, significant};
use crate::progress;

/// Calls before the timed ones: they fault the memory in and bring the clock up.
const WARM_UP: usize = 2;

pub(crate) fn run(command: &BenchCommand, console: &Console) -> anyhow::Result<Status> {
    match command {
        BenchCommand::Backbone(args) => backbone::run(args, console)?,
        BenchCommand::Kernels(args) => kernels::run(args)?,
    }
    Ok(Status::Done)
}

/// The times of repeated calls, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    /// The spread of at least one time.
    fn of(times: &[Duration]) -> Self {
        let mut ms: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        ms.sort_by(f64::total_cmp);
        let middle = ms.len() / 2;
        let median = if ms.len() % 2 == 1 { ms[middle] } else { f64::midpoint(ms[middle - 1], ms[middle]) };
        Self { min: ms[0], median, max: ms[ms.len() - 1] }
    }
}

/// Repeats `call`, which returns its own time, until there are `repeats` times after the warm-up.
fn repeated<T>(repeats: u32, mut call: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<Vec<T>> {
    for _ in 0..WARM_UP {
        call()?;
    }
    (0..repeats)
        .map(|_| {
            progress::check_interrupted("the benchmark")?;
            call()
        })
        .collect()
}

/// The peak throughput of this machine's multiply-add units, in 10⁹ operations per second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct PeakReport {
    one_thread: f64,
    all_threads: f64,
}

impl PeakReport {
    fn measure(isa: Isa) -> anyhow::Result<Self> {
        let Peak { one_thread, all_threads, .. } = peak::fma(isa).context("cannot measure the peak")?;
        Ok(Self { one_thread: one_thread / 1e9, all_threads: all_threads / 1e9 })
    }

    /// The higher of this and another measurement, because other load may lower one of them.
    fn or_higher(self, isa: Isa) -> anyhow::Result<Self> {
        let again = Self::measure(isa)?;
        Ok(Self {
            one_thread: self.one_thread.max(again.one_thread),
            all_threads: self.all_threads.max(again.all_threads),
        })
    }

    fn in_words(self, threads: usize) -> String {
        let one = format!("{} GFLOP/s with one thread", significant(self.one_thread, 4));
        if threads == 1 { one } else { format!("{} GFLOP/s, {one}", significant(self.all_threads, 4)) }
    }
}

/// A rate of arithmetic, and its share of the peak if that is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Rate {
    gflop_per_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    share_of_peak: Option<f64>,
}

impl Rate {
    fn new(flops: u64, ms: f64, peak: Option<PeakReport>) -> Self {
        // A step without work may take no measurable time.
        let gflop_per_s = if flops == 0 { 0.0 } else { flops as f64 / 1e6 / ms.max(1e-6) };
        Self { gflop_per_s, share_of_peak: peak.map(|peak| gflop_per_s / peak.all_threads) }
    }

    /// The cells of a table: GFLOP/s, and percent of the peak.
    fn cells(self) -> [String; 2] {
        [format!("{:.1}", self.gflop_per_s), self.share_of_peak.map_or_else(String::new, percent)]
    }
}

/// Reproducible pseudorandom numbers between −`scale` and `scale`.
fn values(count: usize, scale: f32) -> Vec<f32> {
    // Knuth's multiplicative hash of the index; its upper bits are the best mixed.
    (0..count as u32).map(|i| ((i.wrapping_mul(2_654_435_761) >> 16) as f32 / 32768.0 - 1.0) * scale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_summed_up_in_any_order_and_number() {
        let ms = |times: &[u64]| Spread::of(&times.iter().map(|&ms| Duration::from_millis(ms)).collect::<Vec<_>>());
        assert_eq!(ms(&[7, 1, 3]), Spread { min: 1.0, median: 3.0, max: 7.0 });
        assert_eq!(ms(&[4, 2]), Spread { min: 2.0, median: 3.0, max: 4.0 });
        assert_eq!(ms(&[5]), Spread { min: 5.0, median: 5.0, max: 5.0 });
    }

    #[test]
    fn rates_follow_from_work_time_and_peak() {
        let peak = Some(PeakReport { one_thread: 50.0, all_threads: 100.0 });
        assert_eq!(Rate::new(2_000_000_000, 80.0, peak), Rate { gflop_per_s: 25.0, share_of_peak: Some(0.25) });
        assert_eq!(Rate::new(0, 0.0, peak).cells(), ["0.0", "0.0 %"]);
        assert!(Rate::new(1, 0.0, peak).gflop_per_s.is_finite());
    }

    #[test]
    fn only_calls_after_the_warm_up_count() {
        let mut calls = 0;
        let times = repeated(3, || {
            calls += 1;
            Ok(calls)
        });
        assert_eq!(times.unwrap(), [3, 4, 5]);
    }
}
