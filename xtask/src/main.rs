//! Automation of the workspace: `cargo xtask <command>`.
//!
//! One module per subcommand. `ci` is the whole gate, exactly as run by continuous integration.
#![forbid(unsafe_code)]

mod bench;
mod build;
mod ci;
mod dataset;
mod repro;
mod tidy;
mod weights;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Automation of the nomaly workspace")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything that must be green: fmt, clippy, tests, doctests, docs, tidy
    Ci(ci::Args),
    /// Compare with other programs in one run, and print tables
    Bench(bench::Args),
    /// Check the rules no compiler knows: layering, circles of modules, names, unsafe code, unfinished code
    Tidy,
    /// Fetch, verify and convert the weights of a backbone into the cache
    Weights(weights::Args),
    /// Fetch, verify and unpack a data set into the cache
    Dataset(dataset::Args),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Ci(args) => ci::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Tidy => tidy::run(),
        Command::Weights(args) => weights::run(args),
        Command::Dataset(args) => dataset::run(args),
    }
}

/// The folder of the workspace's `Cargo.toml`.
fn workspace_root() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}
