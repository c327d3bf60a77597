//! The argument that says what a model keeps beside what scoring needs.

use clap::Args;

/// What a model keeps.
#[derive(Debug, Args)]
pub(crate) struct KeepArgs {
    /// Keep in the model what `nomaly update` needs. `padim`, `mvg` and `features` need it and the file grows;
    /// `patchcore`, `spade` and `dn2` can be updated anyway
    #[arg(long)]
    pub(crate) updatable: bool,
}
