//! `cargo xtask bench`: nomaly and other programs in one run.
//!
//! The other programs are in Python; `benches/compare` has the scripts, each with its requirements.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};
use clap::Subcommand;

use crate::build::{DeviceArgs, cargo, target_folder};
use crate::{repro, workspace_root};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Every scorer beside scikit-learn and PyOD on the same rows: AUROC, seconds, memory
    Scorers(ScorersArgs),
    /// A published experiment from benches/repro, with the published figures beside ours; goes on where it was
    /// interrupted
    Repro(repro::Args),
}

#[derive(clap::Args)]
struct ScorersArgs {
    /// Python with numpy, scikit-learn, scipy and pyod
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: PathBuf,
    /// A data set in MVTec layout whose pooled features are compared on as well
    #[arg(long, value_name = "DATA")]
    images: Option<String>,
    /// Rows of the timings, 64 columns each
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "10000")]
    rows: Vec<usize>,
    /// Columns of the timings
    #[arg(long, value_name = "N", default_value_t = 64)]
    columns: usize,
    /// Only these scorers
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Threads of each side
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
    /// Only the rows for timing
    #[arg(long)]
    sizes_only: bool,
    /// nomaly without the other programs
    #[arg(long)]
    alone: bool,
    /// Seconds after which a program is given up
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    limit: u64,
    /// Where the figures go as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::Scorers(args) => scorers(args),
        What::Repro(args) => repro::run(args),
    }
}

fn scorers(args: &ScorersArgs) -> anyhow::Result<()> {
    let target = target_folder();
    cargo(&["build", "--release", "--locked", "--package", "nomaly-scorers", "--example", "time_scorer"])?;
    let mut command = Command::new(&args.python);
    command.arg("benches/compare/scorers.py").arg("--nomaly").arg(target.join("release/examples/time_scorer"));
    if let Some(images) = &args.images {
        args.device.build("nomaly-bench", &["--bin", "pooled_features"])?;
        command.arg("--device").arg(args.device.name());
        command.arg("--images").arg(images).arg("--features").arg(target.join("release/pooled_features"));
    }
    let rows: Vec<String> = args.rows.iter().map(ToString::to_string).collect();
    command.arg("--rows").arg(rows.join(",")).arg("--columns").arg(args.columns.to_string());
    command.arg("--threads").arg(args.threads.to_string()).arg("--limit").arg(args.limit.to_string());
    if !args.only.is_empty() {
        command.arg("--only").arg(args.only.join(","));
    }
    for (flag, is_given) in [("--sizes-only", args.sizes_only), ("--alone", args.alone)] {
        if is_given {
            command.arg(flag);
        }
    }
    if let Some(json) = &args.json {
        command.arg("--json").arg(json);
    }
    let status = command
        .current_dir(workspace_root())
        .status()
        .with_context(|| format!("cannot start {}", args.python.display()))?;
    if !status.success() {
        bail!("benches/compare/scorers.py ended with {status}");
    }
    Ok(())
}
