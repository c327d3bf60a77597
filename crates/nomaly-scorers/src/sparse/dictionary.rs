//! Dictionary learning: alternates between codes and atoms.
//!
//! Both steps lower `Σ ½‖Dα - s‖² + λ‖α‖₁` over the rows, with atoms of length at most 1. Codes come
//! from [`BasisPursuit`], started at the codes of the round before; atoms are updated one after the other as in
//! algorithm 2 of Mairal, Bach, Ponce and Sapiro (2010), from `A = Σ ααᵀ` and `B = Σ sαᵀ` over all rows.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use ndarray::ArrayView2;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::admm::{BasisPursuit, TASK};
use crate::{ScorerError, Watch, random};

/// The tolerance of codes while atoms still move.
const TOLERANCE: f64 = 1e-3;

/// Learning ends where a round lowers the objective by less than this share.
const PROGRESS: f64 = 1e-4;

/// Unit vectors whose product is larger than this, up to the sign, are one atom.
const SAME: f64 = 1.0 - 1e-9;

/// An atom that the codes use less than this share of the mean is replaced.
const UNUSED: f64 = 1e-9;

/// A row with less than this share of the mean squared length has no direction.
const EMPTY: f64 = 1e-20;

/// Options of dictionary learning.
#[derive(Clone, Copy)]
pub(crate) struct Learning {
    /// The number of atoms.
    pub(crate) atoms: usize,
    /// The weight of sparsity, above 0.
    pub(crate) lambda: f64,
    /// The most rounds.
    pub(crate) iterations: usize,
}

/// Learns atoms `[atoms, dim]`, row-major, from centered `rows` `[n, dim]`, not all zero.
pub(crate) fn learn(
    rows: &[f64],
    dim: usize,
    learning: Learning,
    random: &mut ChaCha8Rng,
    watch: Watch<'_>,
) -> Result<Vec<f64>, ScorerError> {
    let count = rows.len() / dim;
    let energy = square(rows) / count as f64;
    let mut atoms = initial(rows, dim, learning.atoms, energy, random);
    let mut codes = vec![0.0f64; count * learning.atoms];
    let mut duals = codes.clone();
    let mut before = f64::INFINITY;
    for _ in 0..learning.iterations {
        let view = ArrayView2::from_shape((learning.atoms, dim), &atoms)
            .map_err(|error| ScorerError::Numerical { what: "the dictionary", reason: error.to_string() })?;
        let solver = BasisPursuit::new(view, learning.lambda, TOLERANCE)?;
        let tasks = codes.par_chunks_mut(TASK * learning.atoms).zip(duals.par_chunks_mut(TASK * learning.atoms));
        let parts = tasks.zip(rows.par_chunks(TASK * dim)).map(|((codes, duals), rows)| {
            watch.check()?;
            solver.solve(rows, codes, duals);
            Ok(Sums::of(&solver, rows, codes))
        });
        let parts: Vec<Sums> = parts.collect::<Result<_, ScorerError>>()?;
        let sums = Sums::total(parts);
        update(&mut atoms, &sums, rows, energy, dim);
        if sums.objective >= before * (1.0 - PROGRESS) {
            break;
        }
        before = sums.objective;
    }
    Ok(atoms)
}

/// Sums over rows.
struct Sums {
    /// `A`, `[atoms, atoms]`.
    codes: Vec<f64>,
    /// `B`, column-major `[dim, atoms]`.
    products: Vec<f64>,
    objective: f64,
    /// `‖Dα - s‖²` of each row, in their order.
    errors: Vec<f64>,
}

impl Sums {
    fn of(solver: &BasisPursuit, rows: &[f64], codes: &[f64]) -> Self {
        let (dim, atoms) = (solver.dim(), solver.atoms());
        let count = rows.len() / dim;
        let mut sums = Self {
            codes: vec![0.0; atoms * atoms],
            products: vec![0.0; dim * atoms],
            objective: 0.0,
            errors: Vec::with_capacity(count),
        };
        let by_row = MatRef::from_row_major_slice(codes, count, atoms);
        let target = MatMut::from_column_major_slice_mut(&mut sums.codes, atoms, atoms);
        matmul(target, Accum::Replace, by_row.transpose(), by_row, 1.0, Par::Seq);
        let target = MatMut::from_column_major_slice_mut(&mut sums.products, dim, atoms);
        let of_rows = MatRef::from_column_major_slice(rows, dim, count);
        matmul(target, Accum::Replace, of_rows, by_row, 1.0, Par::Seq);
        for (row, code) in rows.chunks_exact(dim).zip(codes.chunks_exact(atoms)) {
            let cost = solver.cost(&mut row.to_vec(), code);
            sums.objective += solver.objective(cost);
            sums.errors.push(cost.error);
        }
        sums
    }

    /// The sum of at least one part, in order.
    fn total(parts: Vec<Self>) -> Self {
        let mut total = Self { codes: Vec::new(), products: Vec::new(), objective: 0.0, errors: Vec::new() };
        let add = |total: &mut Vec<f64>, part: Vec<f64>| {
            total.resize(part.len(), 0.0);
            total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
        };
        for part in parts {
            add(&mut total.codes, part.codes);
            add(&mut total.products, part.products);
            total.objective += part.objective;
            total.errors.extend(part.errors);
        }
        total
    }
}

/// Moves each atom to its optimum for the codes and the other atoms. Unused atoms become the directions of the rows
/// with the largest errors.
fn update(atoms: &mut [f64], sums: &Sums, rows: &[f64], energy: f64, dim: usize) {
    let count = atoms.len() / dim;
    let mean_use = (0..count).map(|atom| sums.codes[atom * count + atom]).sum::<f64>() / count as f64;
    let mut unused = Vec::new();
    let mut moved = vec![0.0f64; dim];
    for atom in 0..count {
        let weights = &sums.codes[atom * count..(atom + 1) * count];
        let weight = weights[atom];
        if weight <= UNUSED * mean_use {
            unused.push(atom);
            continue;
        }
        moved.copy_from_slice(&sums.products[atom * dim..(atom + 1) * dim]);
        for (other, weight) in atoms.chunks_exact(dim).zip(weights).filter(|(_, weight)| **weight != 0.0) {
            moved.iter_mut().zip(other).for_each(|(moved, value)| *moved -= weight * value);
        }
        let target = &mut atoms[atom * dim..(atom + 1) * dim];
        target.iter_mut().zip(&moved).for_each(|(value, moved)| *value += moved / weight);
        let norm = square(target).sqrt().max(1.0);
        target.iter_mut().for_each(|value| *value /= norm);
    }
    if unused.is_empty() {
        return;
    }
    let mut worst: Vec<usize> = (0..sums.errors.len()).filter(|row| sums.errors[*row] > EMPTY * energy).collect();
    // The sort is stable: ties keep their order.
    worst.sort_by(|a, b| sums.errors[*b].total_cmp(&sums.errors[*a]));
    let mut worst = worst.into_iter();
    for atom in unused {
        let distinct = worst.find_map(|row| {
            let direction = direction(&rows[row * dim..(row + 1) * dim], energy)?;
            atoms.chunks_exact(dim).all(|other| is_different(other, &direction)).then_some(direction)
        });
        let Some(direction) = distinct else { return };
        atoms[atom * dim..(atom + 1) * dim].copy_from_slice(&direction);
    }
}

/// Distinct directions of rows in random order, and random directions if there are too few.
fn initial(rows: &[f64], dim: usize, count: usize, energy: f64, random: &mut ChaCha8Rng) -> Vec<f64> {
    let mut order: Vec<usize> = (0..rows.len() / dim).collect();
    order.shuffle(random);
    let mut atoms: Vec<f64> = Vec::with_capacity(count * dim);
    for row in order {
        if atoms.len() == count * dim {
            return atoms;
        }
        let found = direction(&rows[row * dim..(row + 1) * dim], energy);
        if let Some(found) = found.filter(|found| atoms.chunks_exact(dim).all(|atom| is_different(atom, found))) {
            atoms.extend(found);
        }
    }
    while atoms.len() < count * dim {
        atoms.extend(direction(&random::normals(random, dim), EMPTY).unwrap_or_else(|| vec![0.0; dim]));
    }
    atoms
}

/// A row scaled to unit length, unless it is negligible.
fn direction(row: &[f64], energy: f64) -> Option<Vec<f64>> {
    let length = square(row);
    (length > EMPTY * energy).then(|| row.iter().map(|value| value / length.sqrt()).collect())
}

fn is_different(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>().abs() < SAME
}

fn square(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atoms_without_use_become_badly_coded_rows() {
        // The first atom codes the first row; the second is unused; the last row is the worst.
        let rows = [3.0, 0.0, 0.0, 1.0, 0.0, -2.0];
        let mut atoms = vec![1.0, 0.0, 0.6, 0.8];
        let sums = Sums {
            codes: vec![9.0, 0.0, 0.0, 0.0],
            products: vec![9.0, 0.0, 0.0, 0.0],
            objective: 5.0,
            errors: vec![0.0, 1.0, 4.0],
        };
        update(&mut atoms, &sums, &rows, 14.0 / 3.0, 2);
        assert_eq!(atoms, [1.0, 0.0, 0.0, -1.0]);
    }

    #[test]
    fn the_first_atoms_are_distinct_directions() {
        let rows = [2.0, 0.0, -4.0, 0.0, 0.0, 0.0, 0.0, 1.0];
        let atoms = initial(&rows, 2, 3, 21.0 / 4.0, &mut random::stream(0, 0));
        for (at, atom) in atoms.chunks_exact(2).enumerate() {
            assert!((square(atom) - 1.0).abs() < 1e-12);
            assert!(atoms.chunks_exact(2).take(at).all(|other| is_different(other, atom)));
        }
        assert_eq!(atoms.len(), 6);
    }
}
