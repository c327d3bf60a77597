//! The `nomaly` program from the outside: what it prints, writes and exits with.

mod bad_input;
mod bench;
mod checkpoints;
mod classes;
mod decisions;
mod devices;
mod doctor;
mod explain;
mod flow;
mod groups;
mod joined;
mod lists;
mod maps;
mod one_vs_all;
mod outputs;
mod rows;
mod schemas;
mod shards;
mod stdout;
mod support;
