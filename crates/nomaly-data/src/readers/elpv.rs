//! ELPV: electroluminescence images of solar cells.
//!
//! # What it computes
//! Reads `labels.csv` (path, probability of a defect, `mono` or `poly`, separated by blanks). A probability of 0 is a
//! good cell, 1 a defective one; at ⅓ and ⅔ the experts were uncertain; such cells are left out, unless
//! `labels=all` adds them to the test images, as good below ½ and defective above it.
//!
//! The data set has no split of its own. `datasets/splits/elpv.toml` fixes one: 400 good monocrystalline and 400 good
//! polycrystalline training cells; all other certain cells are test cells (188 good and 313 defective, 520 and 402).
//!
//! # When to use
//! Real inspection images whose defects range from obvious to faint; they have no masks.
//!
//! # Parameters
//! `cells` (`mono`, `poly`, `both`), `labels` (`certain`, `all`).
//!
//! # Reference
//! S. Deitsch et al., *Automatic classification of defective photovoltaic module cells in electroluminescence images*,
//! Solar Energy 185, 2019.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use nomaly_settings::Settings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::options::Options;
use crate::readers::{below, read_text};
use crate::sample::Label;
use crate::walk::file_sample;
use crate::{DataError, Dataset};

/// The options of this layout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ElpvOptions {
    /// Which cells.
    cells: Cells,
    /// Only cells that the experts were certain of, or all.
    labels: Labels,
}

impl Settings for ElpvOptions {}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Cells {
    /// Monocrystalline ones.
    Mono,
    /// Polycrystalline ones.
    Poly,
    /// All images.
    #[default]
    Both,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Labels {
    /// Those that the experts were certain of.
    #[default]
    Certain,
    /// The uncertain ones too, as test images.
    All,
}

const SPLIT: &str = include_str!("../../../../datasets/splits/elpv.toml");

/// The numbers of the training cells.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Split {
    mono: Vec<u32>,
    poly: Vec<u32>,
}

/// The folder, at or below the given one, that holds the list and the images.
pub(crate) fn detect(folder: &Path) -> Option<PathBuf> {
    let candidates = [folder.to_owned(), folder.join("elpv_dataset/data")];
    candidates.into_iter().find(|folder| folder.join("labels.csv").is_file() && folder.join("images").is_dir())
}

/// Reads the folder.
pub(crate) fn open(folder: &Path, name: String, options: &Options) -> Result<Dataset, DataError> {
    let list = folder.join("labels.csv");
    let split: Split =
        toml::from_str(SPLIT).map_err(|error| DataError::damaged("datasets/splits/elpv.toml", error.to_string()))?;
    let learnt: HashSet<u32> = split.mono.into_iter().chain(split.poly).collect();
    let ElpvOptions { cells: wanted, labels } = options.read()?;
    let all = labels == Labels::All;

    let mut dataset = Dataset { name, ..Dataset::default() };
    for (line, row) in read_text(&list)?.lines().enumerate().filter(|(_, row)| !row.trim().is_empty()) {
        let damaged = |reason: String| DataError::damaged(&list, format!("line {}: {reason}", line + 1));
        let fields: Vec<&str> = row.split_whitespace().collect();
        let &[path, probability, cells] = fields.as_slice() else {
            return Err(damaged(format!("{} fields where 3 are due: path, probability, mono or poly", fields.len())));
        };
        let probability = probability
            .parse::<f64>()
            .ok()
            .filter(|value| (0.0..=1.0).contains(value))
            .ok_or_else(|| damaged(format!("`{probability}` is not a probability")))?;
        let cells = match cells {
            "mono" => Cells::Mono,
            "poly" => Cells::Poly,
            _ => return Err(damaged(format!("`{cells}` is neither mono nor poly"))),
        };
        let image = below(folder, &list, path)?;
        if wanted != Cells::Both && wanted != cells {
            continue;
        }
        let (label, kind) = match probability {
            0.0 => (Label::Normal, "good"),
            1.0 => (Label::Anomalous, "defective"),
            _ if !all => continue,
            doubtful if doubtful < 0.5 => (Label::Normal, "perhaps-good"),
            _ => (Label::Anomalous, "perhaps-defective"),
        };
        let is_learnt = probability == 0.0 && cell_number(&image).is_some_and(|number| learnt.contains(&number));
        let part = if is_learnt { &mut dataset.train } else { &mut dataset.test };
        part.push(file_sample(folder, image, label, kind));
    }
    if dataset.train.is_empty() {
        return Err(DataError::damaged(list, "it lists no cells of the training split"));
    }
    Ok(dataset)
}

/// The number in `cell0042.png`.
fn cell_number(image: &Path) -> Option<u32> {
    image.file_stem()?.to_str()?.strip_prefix("cell")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_names_each_of_400_and_400_cells_once() {
        let split: Split = toml::from_str(SPLIT).unwrap();
        assert_eq!((split.mono.len(), split.poly.len()), (400, 400));
        assert!(split.mono.is_sorted() && split.poly.is_sorted());
        let all: HashSet<u32> = split.mono.iter().chain(&split.poly).copied().collect();
        assert_eq!(all.len(), 800);
        assert!(all.iter().all(|&number| (1..=2624).contains(&number)));
    }
}
