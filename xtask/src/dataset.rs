//! `cargo xtask dataset`: fetches named data sets into the cache.

use anyhow::Context;

use crate::weights::Lines;

/// Fetch a named data set into the cache and print its folder.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The data set (`datasets/NAME.toml`).
    name: String,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let folder =
        nomaly_data::get(&args.name, &Lines).with_context(|| format!("cannot get the data set {}", args.name))?;
    println!("{}", folder.display());
    Ok(())
}
