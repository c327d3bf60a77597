//! The arguments of `nomaly doctor`.

use std::path::PathBuf;

use clap::Args;

use super::{Format, ReadingArgs};

const DOCTOR_HELP: &str = "\
Compares images with those that a model was fitted on: how they are stored, how large, bright, sharp, noisy and \
coloured they are, and how the network sees them. Nothing is decided on. Without images it says what the model \
expects; without a model, what the images are: sizes, formats, duplicates, unreadable ones.

Examples:
  nomaly doctor camera/ -m part.nomaly                do these images suit the model?
  nomaly doctor camera/ -m part.nomaly --fail-on-shift && nomaly score camera/ -m part.nomaly
  nomaly doctor -m part.nomaly                        what does the model expect?
  nomaly doctor parts/good                            are these images fit to learn from?";

/// Arguments of `nomaly doctor`.
#[derive(Debug, Args)]
#[command(after_help = DOCTOR_HELP)]
pub(crate) struct DoctorArgs {
    /// Image files, and folders that are searched to any depth
    #[arg(value_name = "IMAGES|DIRS", required_unless_present = "model")]
    pub(crate) images: Vec<PathBuf>,
    /// The model file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) model: Option<PathBuf>,
    /// How to print the findings
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// Exit with status 1 when the images as a whole, or more of them than by chance, are unlike the training images
    #[arg(long, requires_all = ["model", "images"])]
    pub(crate) fail_on_shift: bool,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
}
