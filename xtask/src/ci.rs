//! `cargo xtask ci`: the whole gate, step by step, stopping at the first failure.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::ValueEnum;

use crate::{tidy, workspace_root};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only these steps
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    Fmt,
    Tidy,
    Clippy,
    Test,
    Doctest,
    Doc,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let began = Instant::now();
    for step in Step::value_variants() {
        if args.only.is_empty() || args.only.contains(step) {
            let at = Instant::now();
            eprintln!("== {step:?}");
            step.run().with_context(|| format!("step `{step:?}` failed"))?;
            eprintln!("== {step:?} passed in {:.0} s", at.elapsed().as_secs_f64());
        }
    }
    eprintln!("== all green in {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

impl Step {
    fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Fmt => run_cargo(&["fmt", "--all", "--check"], &[]),
            Self::Tidy => tidy::run(),
            Self::Clippy => cargo("clippy", &["--all-targets", "--", "--deny", "warnings"], &[]),
            Self::Test => cargo("test", &["--lib", "--bins", "--tests", "--no-fail-fast"], &[]),
            Self::Doctest => cargo("test", &["--doc", "--no-fail-fast"], &[]),
            Self::Doc => cargo("doc", &["--no-deps"], &[("RUSTDOCFLAGS", "--deny warnings")]),
        }
    }
}

/// Runs a command of cargo over the whole workspace, with every feature that needs no special hardware.
fn cargo(command: &str, args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<()> {
    let everything = [command, "--workspace", "--locked", "--features", "nomaly-backbones/candle,nomaly-cli/candle"];
    run_cargo(&[&everything, args].concat(), env)
}

fn run_cargo(args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<()> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(program)
        .args(args)
        .envs(env.iter().copied())
        .current_dir(workspace_root())
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("`cargo {}` ended with {status}", args.join(" "));
    }
    Ok(())
}
