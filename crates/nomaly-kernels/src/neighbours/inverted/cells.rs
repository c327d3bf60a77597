//! The centres of the cells: Lloyd's algorithm on a sample.

use std::cmp::Reverse;

use rayon::prelude::*;

use super::super::bank::Bank;
use super::super::nearest::Near;
use super::super::rows::{Rows, View};
use super::super::{Metric, NeighboursError};
use crate::isa::Isa;
use crate::random;

/// Rows of the sample per cell, if there are that many: the mean of fewer is noise, and more cost only time.
const SAMPLE: usize = 32;

/// Rounds of assigning and averaging: later ones move the centres little; on patches of ResNet-18, twice as many rounds
/// improved the recall by less than 1 %.
const ROUNDS: usize = 3;

/// Rows that are assigned at a time, so that the search's copy of them stays small.
const ASSIGN: usize = 8192;

/// `cells` centres `[cells, dim]`, by Lloyd's algorithm on a sample of the rows.
pub(super) fn centres(
    rows: &Rows<'_>,
    cells: usize,
    seed: u64,
    metric: Metric,
    isa: Isa,
) -> Result<Vec<f32>, NeighboursError> {
    let dim = rows.dim;
    let mut sample = Rows::default();
    rows.view().gather(&stratified(rows.len(), rows.len().min(cells.saturating_mul(SAMPLE)), seed), &mut sample);
    let sample = sample.view();
    let mut centres = vec![0.0f32; cells * dim];
    for (centre, row) in centres.chunks_exact_mut(dim).zip(stratified(sample.len(), cells, !seed)) {
        copy_scaled(sample, row as usize, centre);
    }
    let mut cell_of = Vec::new();
    for _ in 0..ROUNDS {
        let nearest = assign(sample, &Bank::new(&*centres, dim, metric, isa)?);
        let before = std::mem::replace(&mut cell_of, nearest.iter().map(|near| near.index).collect());
        if cell_of == before {
            break;
        }
        average(sample, &nearest, &mut centres);
    }
    Ok(centres)
}

/// The nearest centre of each row.
pub(super) fn assign(rows: View<'_>, centres: &Bank<'_>) -> Vec<Near> {
    let mut nearest = Vec::with_capacity(rows.len());
    for start in (0..rows.len()).step_by(ASSIGN) {
        let some = rows.slice(start..rows.len().min(start + ASSIGN));
        nearest.extend(centres.nearest(some, 1).into_iter().flatten());
    }
    nearest
}

/// The members of each group, by counting sort: their numbers, group by group and ascending, and the start of each
/// group followed by the end of the last.
pub(super) fn group(groups: usize, group_of: impl Iterator<Item = u32> + Clone) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0u32; groups + 1];
    group_of.clone().for_each(|group| starts[group as usize + 1] += 1);
    for group in 0..groups {
        starts[group + 1] += starts[group];
    }
    let mut next = starts.clone();
    let mut members = vec![0u32; starts[groups] as usize];
    for (member, group) in (0u32..).zip(group_of) {
        let place = &mut next[group as usize];
        members[*place as usize] = member;
        *place += 1;
    }
    (members, starts)
}

/// Moves each centre to the mean of its rows; a centre without rows moves to the row farthest from its own centre.
fn average(sample: View<'_>, nearest: &[Near], centres: &mut [f32]) {
    let dim = sample.dim;
    let (members, starts) = group(centres.len() / dim, nearest.iter().map(|near| near.index));
    centres.par_chunks_exact_mut(dim).zip(starts.par_windows(2)).for_each_init(Vec::new, |sums, (centre, range)| {
        let members = &members[range[0] as usize..range[1] as usize];
        if members.is_empty() {
            return;
        }
        sums.clear();
        sums.resize(dim, 0.0f64);
        for member in members {
            let (row, scale) = sample.scaled(*member as usize);
            let scale = f64::from(scale);
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += scale * f64::from(*value));
        }
        let count = members.len() as f64;
        centre.iter_mut().zip(&*sums).for_each(|(value, sum)| *value = (sum / count) as f32);
    });
    let empty: Vec<usize> = (0..starts.len() - 1).filter(|cell| starts[*cell] == starts[cell + 1]).collect();
    if empty.is_empty() {
        return;
    }
    let mut farthest: Vec<(Reverse<Near>, usize)> =
        nearest.iter().enumerate().map(|(row, near)| (Reverse(Near { index: 0, ..*near }), row)).collect();
    farthest.sort_unstable();
    for (cell, (_, row)) in empty.into_iter().zip(farthest) {
        copy_scaled(sample, row, &mut centres[cell * dim..(cell + 1) * dim]);
    }
}

fn copy_scaled(rows: View<'_>, row: usize, into: &mut [f32]) {
    let (row, scale) = rows.scaled(row);
    into.iter_mut().zip(row).for_each(|(value, from)| *value = scale * from);
}

/// `count` distinct numbers below `total`, ascending: a random one from each of `count` equal parts.
///
/// Rows come image by image and, within an image, position by position: parts of equal length cover both evenly.
fn stratified(total: usize, count: usize, seed: u64) -> Vec<u32> {
    let width = total as f64 / count as f64;
    let bound = |part: usize| (part as u64 * total as u64 / count as u64) as u32;
    (0..count)
        .map(|part| {
            let within = (random::unit(seed, part as u64) * width) as u32;
            (bound(part) + within).min(bound(part + 1) - 1)
        })
        .collect()
}
