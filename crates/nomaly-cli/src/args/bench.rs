//! The arguments of `nomaly bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use nomaly::DEFAULT_BACKBONE;

use super::{DeviceArgs, Format};

/// Arguments of `nomaly bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
}

const BACKBONE_HELP: &str = "\
Calls are timed as a whole first, then layer by layer in calls of their own. Times are of the network alone: no \
decoding, no packing of weights. Shares are of the peak that this machine's multiply-add units reach in the same run. \
Of a layer that is computed by Winograd's algorithm, the operations of the direct convolution are counted, so that its \
share can be above 100 %.

Where the weights of the backbone are not here, random ones take their place: the speed does not depend on them.

Examples:
  nomaly bench backbone
  nomaly bench backbone --backbone resnet18 --batch 8 --threads 2
  NOMALY_ISA=avx2 nomaly bench backbone --format json

--format json prints one object:
  {\"backbone\", \"weights\", \"random_weights\": bool, \"tap\", \"isa\", \"threads\", \"batch\", \"input\": [C, H, W], \"repeats\",
   \"ms\": {\"min\", \"median\", \"max\"}       time of a call, the whole batch
   \"images_per_s\"                       at the median time
   \"gflop_per_image\", \"gflop_per_s\", \"share_of_peak\"   at the shortest time; a multiply-add is two operations
   \"peak_gflop_per_s\": {\"one_thread\", \"all_threads\"}
   \"workspace_bytes\"                    memory for the intermediate results
   \"device\"                             cpu, cuda, metal
   \"layers\": [{\"description\", \"algorithm\", \"ms\", \"gflop_per_s\", \"share_of_peak\"}]}
ms of a layer is the shortest time, for the whole batch; with --no-layers there are none. Of other devices than the CPU, \
neither layers nor peaks are measured, and memory is not counted.";

const KERNELS_HELP: &str = "\
Each layer is timed alone, without the conversions into and out of the kernels' layout, for one image. Shares are of \
the peak that this machine's multiply-add units reach in the same run; of Winograd's algorithm the operations of the \
direct convolution are counted. NOMALY_ISA chooses another instruction set than the widest.

Examples:
  nomaly bench kernels
  NOMALY_ISA=portable nomaly bench kernels --threads 1 --format json

--format json prints one object:
  {\"isa\", \"threads\", \"batch\", \"repeats\",
   \"peak_gflop_per_s\": {\"one_thread\", \"all_threads\"},
   \"layers\": [{\"description\", \"algorithm\", \"ms\": {\"min\", \"median\", \"max\"}, \"gflop_per_s\", \"share_of_peak\"}]}
gflop_per_s and share_of_peak are at the shortest time.";

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Time a backbone on this machine: whole calls, and each layer
    #[command(after_help = BACKBONE_HELP)]
    Backbone(BenchBackboneArgs),
    /// Time single layers with the shapes of real networks
    #[command(after_help = KERNELS_HELP)]
    Kernels(BenchKernelsArgs),
}

/// Arguments of `nomaly bench backbone`.
#[derive(Debug, Args)]
pub(crate) struct BenchBackboneArgs {
    /// The backbone, or several joined as A+B; see `nomaly list backbones`
    #[arg(long, value_name = "NAME", default_value = DEFAULT_BACKBONE)]
    pub(crate) backbone: String,
    /// The last layer to compute: a tap, averaged over its positions [default: the last before the classifier]
    #[arg(long, value_name = "NAME")]
    pub(crate) tap: Option<String>,
    /// Images in a call
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) batch: u32,
    /// Height and width of the images [default: the size for which the backbone is known]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) input_size: Option<u32>,
    /// Timed calls
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = repeats())]
    pub(crate) repeats: u32,
    /// Time whole calls only, not each layer
    #[arg(long)]
    pub(crate) no_layers: bool,
    /// A file of weights to use
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// How to print the figures
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

/// Arguments of `nomaly bench kernels`.
#[derive(Debug, Args)]
pub(crate) struct BenchKernelsArgs {
    /// Timed runs of each layer
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = repeats())]
    pub(crate) repeats: u32,
    /// How to print the figures
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

fn repeats() -> clap::builder::RangedU64ValueParser<u32> {
    clap::builder::RangedU64ValueParser::new().range(1..=100_000)
}
