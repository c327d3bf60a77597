//! Benchmarks of nomaly; run them with `cargo bench -p nomaly-bench`.
#![forbid(unsafe_code)]

pub mod networks;
