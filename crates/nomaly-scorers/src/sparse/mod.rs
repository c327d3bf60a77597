//! Sparse coding: rows as short sums of the atoms of a dictionary that was learned on normal rows.
//!
//! [`BasisPursuit`] finds the codes of rows for a given dictionary, [`SparseCoding`] learns the dictionary and scores
//! rows by how well and how sparsely it codes them.

mod admm;
mod dictionary;
mod scorer;

pub use admm::BasisPursuit;
pub use scorer::{SparseCoding, SparseOptions};
