//! Where the network of a model looks.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::{DeviceArgs, ReadingArgs};

const EXPLAIN_HELP: &str = "\
Grad-CAM of the network behind a model. Models whose method trained a network show which places of an image speak for a \
class. Models that judge by pooled features (mvg, dn2, features) show which places raise the anomaly score; those that make \
anomaly maps of their own, where the image excites the features that they judge by. Colours go from nothing to the greatest value of each image; \
what is bright speaks for the class or for the score, of a normal image too.

With --average, where each layer is active on the average of all images, with an outline of the most important positions.

Examples:
  nomaly explain img.png -m part.nomaly
  nomaly explain camera/ -m part.nomaly --tap layer2 --output cam/
  nomaly explain img.png -m shirts.nomaly --class 0           a geotrans model: what says that it was not transformed?
  nomaly explain good/ -m part.nomaly --average --important 0.9";

/// Arguments of `nomaly explain`.
#[derive(Debug, Args)]
#[command(after_help = EXPLAIN_HELP)]
pub(crate) struct ExplainArgs {
    /// Image files, and folders that are searched to any depth
    #[arg(value_name = "IMAGES|DIRS", required = true)]
    pub(crate) images: Vec<PathBuf>,
    /// The model file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) model: PathBuf,
    /// The folder to write the pictures into
    #[arg(short, long, value_name = "DIR", default_value = "nomaly-explain")]
    pub(crate) output: PathBuf,
    /// The layer to look at; without it the deepest that has positions, and with --average all of them
    #[arg(long, value_name = "NAME")]
    pub(crate) tap: Option<String>,
    /// The class to look for, counted from 0; without it the one that the network takes the image for
    #[arg(long, value_name = "N", conflicts_with = "average")]
    pub(crate) class: Option<usize>,
    /// Average the activations of each layer over all images
    #[arg(long)]
    pub(crate) average: bool,
    /// Outline the positions whose average is beyond this quantile
    #[arg(long, value_name = "Q", default_value_t = 0.8, value_parser = quantile, requires = "average")]
    pub(crate) important: f64,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// A share in [0, 1].
fn quantile(given: &str) -> anyhow::Result<f64> {
    match given.parse() {
        Ok(quantile) if (0.0..=1.0).contains(&quantile) => Ok(quantile),
        _ => bail!("a quantile is a number from 0 to 1"),
    }
}
