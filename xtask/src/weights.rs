//! `cargo xtask weights`: published weights as safetensors files, such as the embedded ones.

use std::path::{Path, PathBuf};

use anyhow::Context;
use nomaly_backbones::cache::{WeightsPrecision, fetch_and_convert};
use nomaly_store::Progress;

/// Fetch published weights and convert them to a safetensors file.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A backbone whose weights are published (`datasets/weights/NAME.toml`).
    name: String,
    /// Store tensors of two and more axes in half precision.
    #[arg(long)]
    f16: bool,
    /// The file to write; without it, the place of embedded weights: a file of its own below `datasets/embedded`.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let Args { name, f16, output } = args;
    let output = output.unwrap_or_else(|| embedded(&name));
    if let Some(folder) = output.parent() {
        nomaly_store::create_folder(folder)?;
    }
    let precision = if f16 { WeightsPrecision::Half } else { WeightsPrecision::Source };
    fetch_and_convert(&name, precision, &output, &Lines).with_context(|| format!("cannot make the weights {name}"))?;
    println!("{}  {}", nomaly_store::sha256_file(&output)?, output.display());
    Ok(())
}

/// The path of embedded weights: in the folder of the backbone, a file name with underscores.
fn embedded(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join("datasets").join("embedded");
    root.join(name).join(format!("{}.safetensors", name.replace('-', "_")))
}

/// Progress as a line on stderr at the start of a transfer, for terminals and CI logs. Ctrl-C ends the process, and the
/// received bytes are kept for the next run.
pub(crate) struct Lines;

impl Progress for Lines {
    fn start(&self, what: &str, total: Option<u64>) {
        match total {
            Some(bytes) => eprintln!("{what} ({:.1} MiB)", bytes as f64 / f64::from(1 << 20)),
            None => eprintln!("{what}"),
        }
    }

    fn advance(&self, _amount: u64) {}

    fn finish(&self) {}

    fn cancelled(&self) -> bool {
        false
    }
}
