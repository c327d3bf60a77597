//! The arguments for files of anomaly maps.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use nomaly::regions::RegionOptions;
use nomaly::{Calibration, DecisionRule};

/// What is written of anomaly maps, and what counts as a region.
#[derive(Debug, Args)]
#[command(next_help_heading = "Anomaly maps (for methods that make them)")]
pub(crate) struct MapArgs {
    /// Write each image with its anomaly map in colour and an outline of what was found into this folder, as PNG. The
    /// colours mean the same in all images: what is brighter than orange-red is above the threshold of pixels
    #[arg(long, value_name = "DIR")]
    heatmaps: Option<PathBuf>,
    /// Write a mask of what was found in each image into this folder, as black-and-white PNG
    #[arg(long, value_name = "DIR")]
    masks: Option<PathBuf>,
    /// Write the values of each anomaly map into this folder, one for each pixel of the image
    #[arg(long, value_name = "DIR")]
    maps: Option<PathBuf>,
    /// The format of the files of --maps
    #[arg(long, value_enum, default_value_t = MapFormat::Npy, requires = "maps")]
    map_format: MapFormat,
    /// Let regions grow down to the pixel threshold of this higher rate of false alarms (hysteresis): --max-fpr decides
    /// whether there is a defect, and this how far it reaches
    #[arg(long, value_name = "P", value_parser = super::decision::rate)]
    pub(crate) hysteresis: Option<f64>,
    /// Leave out regions with fewer pixels than this
    #[arg(long, value_name = "PIXELS", default_value_t = RegionOptions::default().min_area)]
    min_area: usize,
    /// Leave holes in regions open instead of counting them in
    #[arg(long)]
    keep_holes: bool,
}

impl MapArgs {
    /// The options for regions, with thresholds from the held-out maps of `calibration`.
    pub(crate) fn regions(&self, calibration: &Calibration) -> anyhow::Result<RegionOptions> {
        let low = match self.hysteresis {
            Some(rate) => calibration.with_rule(DecisionRule::MaxFpr(rate))?.map_threshold(),
            None => None,
        };
        Ok(RegionOptions { low, min_area: self.min_area, fill_holes: !self.keep_holes })
    }

    /// Whether heat maps are requested, which are drawn on the images.
    pub(crate) fn wants_heatmaps(&self) -> bool {
        self.heatmaps.is_some()
    }

    /// The requested kinds of files, with their folders.
    pub(crate) fn folders(&self) -> impl Iterator<Item = (MapFile, &PathBuf)> {
        let maps = MapFile::Map(self.map_format);
        [(MapFile::Heatmap, &self.heatmaps), (MapFile::Mask, &self.masks), (maps, &self.maps)]
            .into_iter()
            .filter_map(|(file, folder)| Some((file, folder.as_ref()?)))
    }
}

/// A kind of file made from an anomaly map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapFile {
    /// The map in colour over its image.
    Heatmap,
    /// The pixels above the threshold.
    Mask,
    /// The values.
    Map(MapFormat),
}

impl MapFile {
    /// Its flag.
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::Heatmap => "--heatmaps",
            Self::Mask => "--masks",
            Self::Map(_) => "--maps",
        }
    }

    /// Its file extension.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Heatmap | Self::Mask | Self::Map(MapFormat::Png16) => "png",
            Self::Map(MapFormat::Npy) => "npy",
            Self::Map(MapFormat::Tiff) => "tiff",
        }
    }

    /// Its name in the plural.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Heatmap => "heat maps",
            Self::Mask => "masks",
            Self::Map(_) => "maps",
        }
    }
}

/// The file format of maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MapFormat {
    /// NumPy arrays of 32-bit floating-point numbers
    Npy,
    /// TIFF of 32-bit floating-point numbers
    Tiff,
    /// PNG of 16-bit grey levels: 0 for the value 0, 65535 for ten times the threshold of pixels and beyond
    Png16,
}
