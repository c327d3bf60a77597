//! Networks against naive loops in double precision, on every instruction set of this machine.

mod errors;
mod invariance;
mod operations;
mod oracle;
mod similarity;
mod training;
