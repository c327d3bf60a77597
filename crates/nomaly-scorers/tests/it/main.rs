//! Tests of the crate as its users see it.

mod decision;
mod density;
mod determinism;
mod dirichlet;
mod fixtures;
mod hostile;
mod isolation;
mod kernel_machines;
mod local;
mod logistic;
mod merging;
mod mixture;
mod sparse;
mod subspace;
mod support;
