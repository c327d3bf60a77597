//! The arguments of every command, with their help.

mod bench;
mod calibrate;
mod decision;
mod doctor;
mod explain;
mod groups;
mod keep;
mod labels;
mod maps;
mod merge;
mod one_vs_all;
mod rows;
mod schema;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use nomaly::devices::{Device, Executor};
use nomaly::shards::Shard;
use nomaly::transforms::Changes;
use nomaly::transforms::TEXTURES;
use nomaly::{GroupBy, Limits, StreamOptions};

pub(crate) use self::bench::{BenchArgs, BenchBackboneArgs, BenchCommand, BenchKernelsArgs};
pub(crate) use self::calibrate::CalibrateArgs;
pub(crate) use self::decision::{RuleArgs, SequenceArgs};
pub(crate) use self::doctor::DoctorArgs;
pub(crate) use self::explain::ExplainArgs;
pub(crate) use self::groups::GroupArgs;
pub(crate) use self::keep::KeepArgs;
pub(crate) use self::labels::LabelsArgs;
pub(crate) use self::maps::{MapArgs, MapFile, MapFormat};
pub(crate) use self::merge::MergeArgs;
pub(crate) use self::one_vs_all::OneVsAllArgs;
pub(crate) use self::rows::RowArgs;
pub(crate) use self::schema::{SchemaArgs, SchemaKind};
use nomaly::AUTO;

use crate::console::Verbosity;

/// The default method.
pub(crate) const DEFAULT_METHOD: &str = AUTO;

const EXAMPLES: &str = "\
Examples:
  nomaly demo                                         see it work; needs no files
  nomaly fit parts/good -o part.nomaly                learn from a folder of good images
  nomaly score camera/ -m part.nomaly                 score a folder of images
  nomaly score img.png -m part.nomaly --fail-on-anomaly && ship
  nomaly eval bottle/ --method mvg --report out/      fit and test on a data set in MVTec layout

Exit status: 0 done, 1 with --fail-on-anomaly when something is anomalous or with --fail-on-shift when images are unlike
the training images, 2 an error, 3 when `score` met something that the model could not decide on (it was fitted on too
little to keep its rate of false alarms), 130 interrupted.
Environment: NOMALY_HOME (folder of downloaded weights and data), NOMALY_ISA (instruction set of the kernels: \
avx512, avx2, neon or portable), NO_COLOR.";

/// Visual anomaly detection: learn what normal looks like from images of good items, and find what is not.
#[derive(Debug, Parser)]
#[command(name = "nomaly", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Common {
    /// Print nothing but results, errors, and the warning that nothing can be decided
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more about what is done and with what
    #[arg(short, long, global = true)]
    verbose: bool,
    /// Use this many threads instead of one per core; results do not depend on it
    #[arg(long, global = true, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
}

impl Common {
    pub(crate) fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show everything on embedded images and weights: no files, no network
    Demo(DemoArgs),
    /// Learn what normal looks like, and write a model file
    Fit(FitArgs),
    /// Make a model of what `fit --shard` wrote in several processes
    Merge(MergeArgs),
    /// Let a model learn from further images of good items
    Update(UpdateArgs),
    /// Give a model a new decision: from new good images, at another rate, or a number
    Calibrate(CalibrateArgs),
    /// Score images with a model file
    Score(ScoreArgs),
    /// Measure how good a model or a method is on labelled images
    Eval(EvalArgs),
    /// Show where the network of a model looks, as pictures
    Explain(ExplainArgs),
    /// Say whether images suit a model, what a model expects, or what images are
    Doctor(DoctorArgs),
    /// Show what is in a model file
    Inspect(InspectArgs),
    /// List methods, backbones, scorers, transforms, data sets or metrics
    List(ListArgs),
    /// Backbone weights beyond the embedded ones
    Weights(WeightsArgs),
    /// Named data sets
    Data(DataArgs),
    /// Time backbones and kernels on this machine
    Bench(BenchArgs),
    /// Print a JSON Schema of what leaves the program, or of what can be set
    Schema(SchemaArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

const DEMO_HELP: &str = "\
The images are photographs of a real texture; the defects in the test images are synthetic (painted scratches, \
spots, patches), so the figures show that everything works, not how good it is on your parts.

Examples:
  nomaly demo
  nomaly demo --texture gravel --report gravel.html";

/// Arguments of `nomaly demo`.
#[derive(Debug, Args)]
#[command(after_help = DEMO_HELP)]
pub(crate) struct DemoArgs {
    /// The texture to learn
    #[arg(long, value_name = "NAME", default_value = nomaly::data::TEXTURE, value_parser = textures())]
    pub(crate) texture: String,
    /// Where to write the report
    #[arg(long, value_name = "FILE.html", default_value = "nomaly-demo.html")]
    pub(crate) report: PathBuf,
    /// Decides every random choice
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
}

const FIT_HELP: &str = "\
DATA is one of
  a folder of good images (searched to any depth),
  a data set in MVTec layout (only train/good is used), or
  a named data set with options: fashion-mnist:normal=3, cifar10:normal=dog, elpv:cells=mono, or
  a table of numbers (.csv, .tsv, .npy, .parquet), which is learned from without images: --set scorer=NAME.

The model file holds everything: the weights of the backbone, what was learned and the decision rule.

Examples:
  nomaly fit parts/good -o part.nomaly
  nomaly fit bottle/ -o bottle.nomaly --method dn2 --set k=5
  nomaly fit bottle/ -o bottle.nomaly --max-fpr 0.01
  nomaly fit bottle/ -o bottle.nomaly --time-budget 30
  nomaly fit parts/ -o part.nomaly --group-by folder          a part a folder, photographed several times
  nomaly fit parts/ -o part.nomaly --group-by '(part[0-9]+)_' the same by file names
  nomaly fit parts/good --method padim --shard 1/2 -o 1.partial   the first of two processes; see `nomaly merge`
  nomaly fit rows.csv -o rows.nomaly --set scorer=gaussian
  nomaly fit parts/ --labels -o kinds.nomaly          a class a sub-folder: a label for each image, or unknown
  nomaly list methods                                 what --method and --set accept";

/// Arguments of `nomaly fit`.
#[derive(Debug, Args)]
#[command(after_help = FIT_HELP)]
pub(crate) struct FitArgs {
    /// Images of good items: a folder or a named data set; or a table of numbers
    #[arg(value_name = "DATA")]
    pub(crate) data: String,
    /// The model file to write; with --shard, the partial
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Run only the I-th of N shares of the images through the network, and write a partial in place of a model;
    /// `nomaly merge` makes a model of the partials of all N, the same as of one process
    #[arg(long, value_name = "I/N")]
    pub(crate) shard: Option<Shard>,
    /// Write a self-contained HTML page of the training images, those that look least like the others first
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// Leave out training images that look unlike the others, with a p-value of at most P (0.001, say), and fit again;
    /// up to P of good images may be flagged besides the rate that is asked for
    #[arg(long, value_name = "P", value_parser = decision::rate)]
    pub(crate) drop_suspicious: Option<f64>,
    #[command(flatten)]
    pub(crate) keep: KeepArgs,
    #[command(flatten)]
    pub(crate) method: MethodArgs,
    #[command(flatten)]
    pub(crate) labels: LabelsArgs,
    #[command(flatten)]
    pub(crate) rows: RowArgs,
    #[command(flatten)]
    pub(crate) rule: RuleArgs,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
}

const UPDATE_HELP: &str = "\
DATA is what `nomaly fit` takes. The model keeps its settings and its decision rule; the images join those that it \
has learned from, and its held-out scores. `padim`, `mvg` and `features` need a model that was fitted with --updatable; \
methods that train a network cannot do this.

A model does not remember its images: those that it has learned from already are taken for new ones. They score low, as \
it knows them, and with their scores the threshold sinks. Exact copies are told in \
a warning, as long as the model has at most 200 images.

Examples:
  nomaly update parts/more -m part.nomaly             replaces the model
  nomaly update parts/more -m part.nomaly -o next.nomaly";

/// Arguments of `nomaly update`.
#[derive(Debug, Args)]
#[command(after_help = UPDATE_HELP)]
pub(crate) struct UpdateArgs {
    /// Further images of good items: a folder or a named data set
    #[arg(value_name = "DATA")]
    pub(crate) data: String,
    /// The model file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) model: PathBuf,
    /// The model file to write, in place of replacing the one that was read
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Which of the images depend on each other, as in `nomaly fit` [default: the rule of the model]
    #[arg(long, value_name = "HOW", help_heading = "Decision")]
    pub(crate) group_by: Option<GroupBy>,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

const SCORE_HELP: &str = "\
Every image gets a score (higher = more anomalous), a p-value (the share of good images that score at least as \
high) and a decision. Images come out in the order in which they went in; folders are sorted. An image that cannot \
be read is reported and skipped.

Examples:
  nomaly score camera/ -m part.nomaly
  nomaly score camera/ -m part.nomaly --format jsonl | jq -r 'select(.anomalous) | .path'
  nomaly score camera/ -m part.nomaly --max-fpr 0.01 --report camera.html
  nomaly score camera/ -m part.nomaly --rule extreme-value --max-fpr 0.0001
  nomaly score camera/ -m part.nomaly --sequence cusum --arl0 1000   has something changed, and since when
  nomaly score camera/ -m part.nomaly --heatmaps heat/ --masks masks/     where it is anomalous
  nomaly score img.png -m part.nomaly --quiet --fail-on-anomaly || echo stop";

/// Arguments of `nomaly score`.
#[derive(Debug, Args)]
#[command(after_help = SCORE_HELP)]
pub(crate) struct ScoreArgs {
    /// Image files, and folders that are searched to any depth; or one table of numbers
    #[arg(value_name = "IMAGES|DIRS", required = true)]
    pub(crate) images: Vec<PathBuf>,
    /// The model file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) model: PathBuf,
    /// Let a second model decide together with the first one, through p-values of both; the score is −ln of the
    /// combined p-value
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sequence", "rule", "threshold"])]
    pub(crate) with: Option<PathBuf>,
    /// How to print the results
    #[arg(long, value_enum, default_value_t = ScoreFormat::Table)]
    pub(crate) format: ScoreFormat,
    /// Write a self-contained HTML report
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// Exit with status 1 when any image is anomalous
    #[arg(long)]
    pub(crate) fail_on_anomaly: bool,
    #[command(flatten)]
    pub(crate) maps: MapArgs,
    #[command(flatten)]
    pub(crate) rows: RowArgs,
    #[command(flatten)]
    pub(crate) rule: RuleArgs,
    #[command(flatten)]
    pub(crate) sequence: SequenceArgs,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

const EVAL_HELP: &str = "\
DATA is a data set in MVTec layout (train/good, test/good, test/<kind>, ground_truth/<kind>) or a named data set \
with options: fashion-mnist:normal=3, cifar10:normal=dog, elpv:cells=mono.

Without a model file, a method is fitted on the training images first. Test images never influence the threshold: \
it comes from held-out training images.

Examples:
  nomaly eval bottle/ -m bottle.nomaly
  nomaly eval bottle/ --method mvg --report out/
  nomaly eval elpv:cells=mono --method dn2 --set k=2 --format json
  nomaly eval bottle/ --method mvg --max-train 50 --seed 1
  nomaly eval kinds/ --labels -m kinds.nomaly         is each image given its class, and strangers called unknown?
  nomaly eval bottle/ --method mvg --supervised-reference
  nomaly eval bottle/ -m geotrans.nomaly --with mvg.nomaly
  nomaly eval fashion-mnist --one-vs-all --method geotrans --max-train 200 --max-test 500 --seeds 3";

/// Arguments of `nomaly eval`.
#[derive(Debug, Args)]
#[command(after_help = EVAL_HELP)]
pub(crate) struct EvalArgs {
    /// Labelled images: a folder in MVTec layout or a named data set; or a table of numbers, with --label
    #[arg(value_name = "DATA")]
    pub(crate) data: String,
    /// The model file; without it a method is fitted
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["method", "time_budget", "backbone", "set", "epochs", "seed", "max_train"])]
    pub(crate) model: Option<PathBuf>,
    /// Fit on at most this many training images, chosen at random by the seed
    #[arg(long, value_name = "N")]
    pub(crate) max_train: Option<NonZeroUsize>,
    /// Test on at most this many images, chosen at random, the same for every seed: half of them normal where there are
    /// enough of both
    #[arg(long, value_name = "N")]
    pub(crate) max_test: Option<NonZeroUsize>,
    #[command(flatten)]
    pub(crate) one_vs_all: OneVsAllArgs,
    /// For comparison, also measure a classifier that sees the labels of the test images: logistic regression on their
    /// pooled features, cross-validated; it is no anomaly detector
    #[arg(long)]
    pub(crate) supervised_reference: bool,
    /// Also let this model decide together with the first one, through p-values of both
    #[arg(long, value_name = "FILE", conflicts_with_all = ["one_vs_all", "labels"])]
    pub(crate) with: Option<PathBuf>,
    /// How to print the figures
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// Write report.html, scores.csv and evaluation.json into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) method: MethodArgs,
    #[command(flatten)]
    pub(crate) labels: LabelsArgs,
    #[command(flatten)]
    pub(crate) rows: RowArgs,
    #[command(flatten)]
    pub(crate) rule: RuleArgs,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
}

/// What to fit.
#[derive(Debug, Args)]
#[command(next_help_heading = "Method")]
pub(crate) struct MethodArgs {
    /// The method, or `auto` for a choice by the number of images; see `nomaly list methods`
    #[arg(long, value_name = "NAME", default_value = DEFAULT_METHOD)]
    pub(crate) method: String,
    /// Let `auto` choose a method that fits in this many seconds on this machine
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    pub(crate) time_budget: Option<f64>,
    /// The backbone, or several joined as A+B; see `nomaly list backbones` [default: efficientnet-lite0;
    /// methods that see pixels take none]
    #[arg(long, value_name = "NAME")]
    pub(crate) backbone: Option<String>,
    /// Passes over the training examples, for methods that train: the setting `epochs`
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<NonZeroUsize>,
    /// A setting of the method or of the backbone's input; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Decides every random choice
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Learn from changed copies of every image too, so that the model bears such changes: gain=P for light that is
    /// darker and brighter by a share P, jpeg=Q for images stored as JPEG of that quality; each costs as much as the
    /// images
    #[arg(long, value_name = "CHANGES")]
    pub(crate) bear: Option<Changes>,
    #[command(flatten)]
    pub(crate) groups: GroupArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Where to compute.
#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    /// Where networks run and learn: cpu, cuda or cuda:N for a GPU of NVIDIA, metal for Apple's; GPUs need a program
    /// built with the feature `cuda` or `metal`, and their scores differ in the last digits
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Cpu)]
    device: Device,
}

impl DeviceArgs {
    /// Opens the device.
    pub(crate) fn open(&self) -> anyhow::Result<Executor> {
        Ok(Executor::on(self.device)?)
    }
}

/// How images are read.
#[derive(Debug, Args)]
#[command(next_help_heading = "Reading images")]
pub(crate) struct ReadingArgs {
    /// Stop at the first image that cannot be read instead of skipping it
    #[arg(long)]
    strict: bool,
    /// Take this many images through the network at a time; results do not depend on it
    #[arg(long, value_name = "N", default_value_t = default_batch())]
    batch: NonZeroUsize,
    /// Refuse images with more pixels than this, in millions
    #[arg(long, value_name = "N", default_value_t = default_megapixels())]
    max_megapixels: NonZeroUsize,
}

const PIXELS_PER_MEGAPIXEL: u64 = 1_000_000;

fn default_batch() -> NonZeroUsize {
    NonZeroUsize::new(StreamOptions::default().batch).unwrap_or(NonZeroUsize::MIN)
}

fn default_megapixels() -> NonZeroUsize {
    let megapixels = Limits::default().max_pixels / PIXELS_PER_MEGAPIXEL;
    usize::try_from(megapixels).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN)
}

impl ReadingArgs {
    /// The options for the library; `preview` is the longer side of the previews in reports.
    pub(crate) fn options(&self, preview: Option<u32>) -> StreamOptions {
        let max_pixels = if self.max_megapixels == default_megapixels() {
            Limits::default().max_pixels
        } else {
            (self.max_megapixels.get() as u64).saturating_mul(PIXELS_PER_MEGAPIXEL)
        };
        StreamOptions {
            batch: self.batch.get(),
            limits: Limits { max_pixels, ..Limits::default() },
            strict: self.strict,
            preview,
        }
    }
}

/// Arguments of `nomaly inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  nomaly inspect part.nomaly\n  nomaly inspect part.nomaly --format json")]
pub(crate) struct InspectArgs {
    /// The model file
    #[arg(value_name = "FILE")]
    pub(crate) model: PathBuf,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

/// Arguments of `nomaly list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  nomaly list methods\n  nomaly list backbones --format json")]
pub(crate) struct ListArgs {
    /// What to list
    #[arg(value_enum, value_name = "KIND")]
    pub(crate) kind: ListKind,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListKind {
    Methods,
    Backbones,
    Scorers,
    Transforms,
    Datasets,
    Metrics,
}

/// Arguments of `nomaly weights`.
#[derive(Debug, Args)]
pub(crate) struct WeightsArgs {
    #[command(subcommand)]
    pub(crate) command: WeightsCommand,
}

const WEIGHTS_GET_HELP: &str = "\
The file is fetched from where its authors publish it, compared with the checksum that nomaly knows, and kept under \
NOMALY_HOME. Its licence is shown by `nomaly weights list`.

Examples:
  nomaly weights get efficientnet-lite4
  nomaly fit parts/good -o part.nomaly --backbone efficientnet-lite4";

const WEIGHTS_IMPORT_HELP: &str = "\
Reads safetensors, and PyTorch files without executing anything in them.

Examples:
  nomaly weights import resnet18-f37072fd.pth --name resnet18";

#[derive(Debug, Subcommand)]
pub(crate) enum WeightsCommand {
    /// List the backbones with the state of their weights
    List {
        /// How to print it
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Fetch the weights of a backbone
    #[command(after_help = WEIGHTS_GET_HELP)]
    Get {
        /// The backbone
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Take the weights of a backbone from a file
    #[command(after_help = WEIGHTS_IMPORT_HELP)]
    Import {
        /// A safetensors, .pth or .pt file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The backbone; found from the file where that is possible
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
}

/// Arguments of `nomaly data`.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    pub(crate) command: DataCommand,
}

const DATA_GET_HELP: &str = "\
The data set is fetched from where its authors publish it, compared with the checksum that nomaly knows, and kept \
under NOMALY_HOME. Its licence is shown by `nomaly data list`.

Examples:
  nomaly data get fashion-mnist
  nomaly eval fashion-mnist:normal=3 --method mvg";

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// List the named data sets
    List {
        /// How to print it
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Fetch a data set
    #[command(after_help = DATA_GET_HELP)]
    Get {
        /// The data set
        #[arg(value_name = "NAME")]
        name: String,
    },
}

const COMPLETIONS_HELP: &str = "\
Examples:
  nomaly completions bash > ~/.local/share/bash-completion/completions/nomaly
  nomaly completions zsh > ~/.zfunc/_nomaly
  nomaly completions fish > ~/.config/fish/completions/nomaly.fish";

/// Arguments of `nomaly completions`.
#[derive(Debug, Args)]
#[command(after_help = COMPLETIONS_HELP)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// The format of a single result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

/// The format of scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScoreFormat {
    /// For people
    Table,
    /// One array of objects
    Json,
    /// One object a line, each as soon as it is known
    Jsonl,
    /// With a header line
    Csv,
}

/// The names of the embedded textures.
fn textures() -> PossibleValuesParser {
    PossibleValuesParser::new(TEXTURES.names())
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value < 1e9 => Ok(value),
        _ => Err("a number above 0 is needed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_of_the_arguments_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_model_and_a_method_to_fit_exclude_each_other() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["nomaly", "eval", "data"], args].concat());
        assert!(parse(&["-m", "x.nomaly"]).is_ok());
        assert!(parse(&["--method", "dn2", "--max-train", "5"]).is_ok());
        assert!(parse(&["-m", "x.nomaly", "--method", "dn2"]).is_err());
        assert!(parse(&["-m", "x.nomaly", "--max-train", "5"]).is_err());
    }

    #[test]
    fn the_default_limits_are_the_library_s() {
        let Command::Fit(args) = Cli::parse_from(["nomaly", "fit", "data", "-o", "x"]).command else { unreachable!() };
        let options = args.reading.options(None);
        assert_eq!(options.limits, Limits::default());
        assert_eq!(options.batch, StreamOptions::default().batch);
        assert!(!options.strict);
    }
}
