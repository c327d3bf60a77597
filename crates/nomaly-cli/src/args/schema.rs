//! Arguments of `nomaly schema`.

use clap::{Args, ValueEnum};

const HELP: &str = "\
Examples:
  nomaly schema score                    One image or row of `nomaly score --format json`
  nomaly schema settings patchcore       The settings of a method, with those of its input
  nomaly schema settings kde             The settings of a scorer
  nomaly schema settings rows            The settings of models of rows, besides those of their scorer

Schemas are JSON Schema, draft 2020-12. Fields are only ever added to a record; `x-version` rises then.";

/// Arguments of `nomaly schema`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct SchemaArgs {
    /// Of what
    #[arg(value_enum, value_name = "WHAT")]
    pub(crate) what: SchemaKind,
    /// With `settings`: the method, the scorer, or `rows`
    #[arg(value_name = "NAME", required_if_eq("what", "settings"))]
    pub(crate) name: Option<String>,
}

/// The kinds of schemas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaKind {
    /// A record of `nomaly score --format json` (an array of them) and `jsonl`
    Score,
    /// `nomaly eval --format json`
    Eval,
    /// `nomaly inspect --format json`
    Inspect,
    /// What a method, a scorer or a model of rows can be set to
    Settings,
}
