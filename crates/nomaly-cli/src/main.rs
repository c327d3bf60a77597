//! The `nomaly` command line.
//!
//! `main` reads the arguments, runs one [command](commands) and maps the outcome to an exit status:
//!
//! | status | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | something is anomalous, and `--fail-on-anomaly` was given |
//! | 2 | an error (including wrong usage) |
//! | 3 | `score` could not decide on some items, because the model has no threshold |
//! | 130 | interrupted |
//!
//! If several apply, 2 takes precedence over 1, and 1 over 3. Results go to stdout, everything else to stderr. If the
//! reader of stdout closes early, neither the work nor the status changes.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod console;
mod failure;
mod locate;
mod map_files;
mod output;
mod progress;
mod report;
mod writable;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::commands::Status;
use crate::console::Console;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let console = Console::new(cli.common.verbosity());
    match run(&cli, &console) {
        Ok(Status::Done) => ExitCode::SUCCESS,
        Ok(Status::AnomaliesFound | Status::ShiftFound) => ExitCode::from(1),
        Ok(Status::Undecided) => ExitCode::from(3),
        Err(error) => {
            console.error(&error);
            ExitCode::from(if failure::is_interruption(&error) { 130 } else { 2 })
        }
    }
}

fn run(cli: &Cli, console: &Console) -> anyhow::Result<Status> {
    output::check_stdout()?;
    progress::handle_interrupts()?;
    if let Some(threads) = cli.common.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads.get()).build_global()?;
    }
    let status = match &cli.command {
        Command::Demo(args) => commands::demo::run(args, console),
        Command::Fit(args) => commands::fit::run(args, console),
        Command::Merge(args) => commands::merge::run(args, console),
        Command::Update(args) => commands::update::run(args, console),
        Command::Calibrate(args) => commands::calibrate::run(args, console),
        Command::Score(args) => commands::score::run(args, console),
        Command::Eval(args) => commands::eval::run(args, console),
        Command::Explain(args) => commands::explain::run(args, console),
        Command::Doctor(args) => commands::doctor::run(args, console),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::List(args) => commands::list::run(args),
        Command::Weights(args) => commands::weights::run(&args.command, console),
        Command::Data(args) => commands::data::run(&args.command, console),
        Command::Bench(args) => commands::bench::run(&args.command, console),
        Command::Schema(args) => commands::schema::run(args),
        Command::Completions(args) => commands::completions::run(args),
    }?;
    // Unflushed output is silently lost at exit.
    output::stdout().flush()?;
    Ok(status)
}
