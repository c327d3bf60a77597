//! `nomaly completions`: a completion script on stdout.

use std::io::Write;

use clap::CommandFactory;

use super::Status;
use crate::args::{Cli, CompletionsArgs};
use crate::output::stdout;

pub(crate) fn run(args: &CompletionsArgs) -> anyhow::Result<Status> {
    // Written to memory first, because the generator panics if its output is closed early.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "nomaly", &mut script);
    stdout().write_all(&script)?;
    Ok(Status::Done)
}
