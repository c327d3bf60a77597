//! The limit of a chart for a given run length, by simulation.

use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;

use super::ChartKind;
use crate::decision::draw_below;

/// Simulated runs: the mean of run lengths, which are close to geometric, is then known to 1 %.
const RUNS: f64 = 10_000.0;
/// The fewest simulated runs, for 2 %: long runs are fewer, so that their steps stay within bounds.
const FEWEST_RUNS: f64 = 2_000.0;
/// About how many steps are simulated.
const STEPS: f64 = 2e7;
/// A run is truncated at this multiple of the requested length; if that is the mean, one in e²⁰ runs is longer.
const LONGEST: f64 = 20.0;
/// Runs that one task simulates.
const CHUNK: usize = 64;
/// Halvings of the bracket around the limit.
const HALVINGS: usize = 60;

/// A limit and the mean run length that it has in the simulation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Limit {
    pub(super) limit: f64,
    pub(super) arl: f64,
}

/// Standardized scores in contiguous stretches: a simulated sequence consists of whole stretches, which preserves the
/// dependence between consecutive scores.
pub(super) struct Stretches<'a> {
    pub(super) scores: &'a [f64],
    /// The start of each stretch, ascending from 0; `None` if each score is its own stretch.
    pub(super) starts: Option<&'a [usize]>,
}

impl Stretches<'_> {
    /// The scores of a stretch that is drawn at random.
    fn draw(&self, rng: &mut ChaCha8Rng) -> Range<usize> {
        match self.starts {
            None => {
                let at = draw_below(rng, self.scores.len());
                at..at + 1
            }
            Some(starts) => {
                let stretch = draw_below(rng, starts.len());
                starts[stretch]..starts.get(stretch + 1).copied().unwrap_or(self.scores.len())
            }
        }
    }
}

/// One simulated sequence without a limit. The steps with a new maximum of the statistic show when it would have passed
/// *any* limit, so all limits are compared on the same random numbers.
struct Run {
    rng: ChaCha8Rng,
    statistic: f64,
    time: u64,
    /// The rest of the current stretch.
    stretch: Range<usize>,
    /// Time and value of each new maximum; both ascend.
    records: Vec<(u64, f64)>,
}

impl Run {
    fn start(seed: u64, number: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(number);
        Self { rng, statistic: 0.0, time: 0, stretch: 0..0, records: Vec::new() }
    }

    /// Continues until the statistic passes `limit` or the run is `longest` steps long.
    fn extend(&mut self, kind: ChartKind, stretches: &Stretches<'_>, limit: f64, longest: u64) {
        let mut highest = self.records.last().map_or(0.0, |&(_, value)| value);
        while highest <= limit && self.time < longest {
            self.time += 1;
            let at = match self.stretch.next() {
                Some(at) => at,
                None => {
                    let drawn = stretches.draw(&mut self.rng);
                    self.stretch = drawn.start + 1..drawn.end;
                    drawn.start
                }
            };
            self.statistic = kind.step(self.statistic, stretches.scores[at]);
            if self.statistic > highest {
                highest = self.statistic;
                self.records.push((self.time, highest));
            }
        }
    }

    /// The step at which the statistic passes `limit`, or the length of the run if it does not.
    fn length(&self, limit: f64) -> u64 {
        let at = self.records.partition_point(|&(_, value)| value <= limit);
        self.records.get(at).map_or(self.time, |&(time, _)| time)
    }
}

/// The limit whose mean run length on `stretches` of standardized scores is nearest to `arl0` as a ratio; 0 if every
/// limit has a longer one.
///
/// The run length can jump between two limits: one score, from the statistic's most frequent state, passes only the
/// lower one.
pub(super) fn limit_for(kind: ChartKind, stretches: &Stretches<'_>, arl0: f64, seed: u64) -> Limit {
    let count = (STEPS / arl0).clamp(FEWEST_RUNS, RUNS) as u64;
    let longest = (LONGEST * arl0).ceil() as u64;
    let mut runs: Vec<Run> = (0..count).map(|number| Run::start(seed, number)).collect();
    let mean = |runs: &[Run], limit: f64| {
        let total: u64 = runs.iter().map(|run| run.length(limit)).sum();
        total as f64 / count as f64
    };
    // A quarter of the statistic's own spread lengthens runs only slightly, so little simulation is wasted.
    let step = 0.25 * kind.spread();
    let mut high = 0.0;
    loop {
        runs.par_chunks_mut(CHUNK).for_each(|runs| {
            runs.iter_mut().for_each(|run| run.extend(kind, stretches, high, longest));
        });
        if mean(&runs, high) >= arl0 {
            break;
        }
        high = 1.05 * high + step;
    }
    let mut low = 0.0;
    if mean(&runs, low) >= arl0 {
        high = low;
    }
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if mean(&runs, middle) >= arl0 { high = middle } else { low = middle }
    }
    let [below, above] = [low, high].map(|limit| Limit { limit, arl: mean(&runs, limit) });
    if arl0 / below.arl < above.arl / arl0 { below } else { above }
}
