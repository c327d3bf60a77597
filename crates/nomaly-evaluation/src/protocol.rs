//! The one-against-all protocol: each class of a data set is the normal one in turn.
//!
//! # What it computes
//! For each class and each seed a detector is fitted on the class's training images and scores all test images, those
//! of other classes being anomalous. The figure of a class is the mean AUROC over the seeds with its standard error,
//! that of the data set the mean over the classes (Ruff et al., *Deep One-Class Classification*, ICML 2018, section 4).
//!
//! # When to use
//! To compare with published tables of methods that are trained on whole classes of small images.
//!
//! A protocol takes hours. Completed runs are stored in a [`Log`] on disk and not repeated.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nomaly_detectors::DetectorError;
use nomaly_methods::{METHODS, MethodError, PublishedClasses};
use nomaly_metrics::{CurvePoints, RocCurve, roc_curve};
use nomaly_settings::Assignments;
use nomaly_store::{create_folder, sha256_hex, write_atomic};
use serde::{Deserialize, Serialize};

use crate::error::EvaluationError;
use crate::images::{Evaluated, LabelledPrediction};
use nomaly_wire::TestCounts;

/// Everything that determines the figures of a protocol, except the class and the seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    /// The data set, without its normal class.
    pub dataset: String,
    /// The method.
    pub method: String,
    /// The backbone, if given.
    pub backbone: Option<String>,
    /// The given settings.
    pub settings: Assignments,
    /// The most training images of a class, if limited.
    pub max_train: Option<usize>,
    /// The most test images, if limited.
    pub max_test: Option<usize>,
}

/// One class with one seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The normal class.
    pub class: String,
    /// The seed of the fit and of the choice of images.
    pub seed: u64,
    /// Training images.
    pub n_train: usize,
    /// Test images.
    pub n_test: TestCounts,
    /// AUROC over whole images, in [0, 1].
    pub auroc: f64,
    /// AUROC of each part of the score.
    pub by_part: BTreeMap<String, f64>,
    /// Points of the ROC curve of the score, under the name `score`, and of each part: false and true positive rates.
    pub roc: BTreeMap<String, Vec<[f64; 2]>>,
    /// Seconds of the fit.
    pub fit_s: Option<f64>,
    /// Images scored per second.
    pub images_per_s: f64,
    /// The peak memory of the process so far, in MiB.
    pub peak_rss_mib: Option<f64>,
}

impl Run {
    /// Summarizes an evaluation.
    ///
    /// # Errors
    /// Scores that are not finite, and test images without an anomalous one.
    pub fn new(class: &str, evaluated: &Evaluated) -> Result<Self, EvaluationError> {
        let Evaluated { figures, predictions, .. } = evaluated;
        let image = figures.image.ok_or_else(|| EvaluationError::CannotEvaluate {
            dataset: figures.dataset.clone(),
            reason: "it has no anomalous test image".to_owned(),
        })?;
        let labels: Vec<bool> = predictions.iter().map(|image| image.anomalous_label).collect();
        let curve = |score: &dyn Fn(&LabelledPrediction) -> f64| -> Result<_, EvaluationError> {
            let scores: Vec<f64> = predictions.iter().map(score).collect();
            let RocCurve { fpr, tpr, .. } = roc_curve(&scores, &labels, CurvePoints::Thinned(CURVE_STEPS))?;
            Ok(fpr.into_iter().zip(tpr).map(|(fpr, tpr)| [fpr, tpr]).collect())
        };
        let mut roc = BTreeMap::from([("score".to_owned(), curve(&|image| image.prediction.score)?)]);
        for (part, (name, _)) in figures.by_part.iter().enumerate() {
            roc.insert(name.clone(), curve(&|image| image.prediction.parts[part])?);
        }
        Ok(Self {
            class: class.to_owned(),
            seed: figures.seed,
            n_train: figures.n_train,
            n_test: figures.n_test,
            auroc: image.auroc,
            by_part: figures.by_part.iter().map(|(part, ranking)| (part.clone(), ranking.auroc)).collect(),
            fit_s: figures.timing.fit_s,
            images_per_s: figures.timing.images_per_s,
            roc,
            peak_rss_mib: figures.peak_rss_mib,
        })
    }
}

/// The resolution of curves: a point whenever a rate has moved by one part in this many.
const CURVE_STEPS: usize = 64;

/// The runs of a protocol, kept in a file.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    content: Content,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    /// The version of the program, because another one may give different figures.
    nomaly: String,
    protocol: Protocol,
    runs: Vec<Run>,
}

impl Log {
    /// Opens the log of `protocol` in `folder`, with its existing runs. The folder need not exist.
    ///
    /// # Errors
    /// A file that cannot be read, or with another format.
    pub fn open(folder: &Path, protocol: Protocol) -> Result<Self, EvaluationError> {
        let content = Content { nomaly: env!("CARGO_PKG_VERSION").to_owned(), protocol, runs: Vec::new() };
        let identity = serde_json::to_vec(&content)
            .map_err(|error| DetectorError::from(MethodError::Encode { reason: error.to_string() }))?;
        let path = folder.join(format!("one-vs-all-{}.json", &sha256_hex(&identity)[..16]));
        let refuse =
            |reason: String| DetectorError::from(MethodError::File { what: "log", path: path.clone(), reason });
        match std::fs::read(&path) {
            Ok(bytes) => {
                let found: Content =
                    serde_json::from_slice(&bytes).map_err(|error| refuse(format!("is damaged: {error}")))?;
                if found.nomaly != content.nomaly || found.protocol != content.protocol {
                    return Err(refuse("is of another protocol".to_owned()).into());
                }
                Ok(Self { path, content: found })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self { path, content }),
            Err(error) => Err(refuse(format!("cannot be read: {error}")).into()),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The completed run of a class with a seed, if any.
    pub fn find(&self, class: &str, seed: u64) -> Option<&Run> {
        self.content.runs.iter().find(|run| run.class == class && run.seed == seed)
    }

    /// Adds a run, and writes the file.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn push(&mut self, run: Run) -> Result<(), EvaluationError> {
        self.content.runs.push(run);
        let mut json = serde_json::to_vec_pretty(&self.content)
            .map_err(|error| DetectorError::from(MethodError::Encode { reason: error.to_string() }))?;
        json.push(b'\n');
        if let Some(folder) = self.path.parent() {
            create_folder(folder)?;
        }
        Ok(write_atomic(&self.path, &json)?)
    }
}

/// A mean with its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// The standard error of the mean, `s / √n`; `None` for a single value.
    pub sem: Option<f64>,
}

impl Mean {
    /// The mean of some values; `None` without values.
    ///
    /// ```
    /// use nomaly_evaluation::protocol::Mean;
    ///
    /// let mean = Mean::of([0.8, 0.9, 1.0]).unwrap();
    /// assert!((mean.mean - 0.9).abs() < 1e-12 && (mean.sem.unwrap() - 0.1 / 3f64.sqrt()).abs() < 1e-12);
    /// assert_eq!(Mean::of([0.5]).unwrap().sem, None);
    /// ```
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (n > 0.0).then_some(Self { mean, sem: (n > 1.0).then(|| (variance / n).sqrt()) })
    }
}

/// One line of the table of a protocol.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassFigures {
    /// The normal class.
    pub class: String,
    /// Runs that have ended.
    pub runs: usize,
    /// AUROC in [0, 1] over the runs.
    pub auroc: Mean,
    /// The same for each part of the score.
    pub by_part: BTreeMap<String, Mean>,
    /// The published AUROC in percent, if any.
    pub published: Option<f64>,
}

/// The table of a protocol.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProtocolTable {
    /// Every run.
    pub runs: Vec<Run>,
    /// The protocol.
    pub protocol: Protocol,
    /// One line per class.
    pub classes: Vec<ClassFigures>,
    /// The mean over the classes of the mean AUROC, in [0, 1].
    pub mean: f64,
    /// The same for each part of the score.
    pub by_part: BTreeMap<String, f64>,
    /// The published mean over the same classes in percent, and its data set.
    pub published: Option<(String, f64)>,
}

impl ProtocolTable {
    /// The table of `runs`, whose classes are some of `all`, in the order of `all`.
    ///
    /// # Errors
    /// An unknown method, or no runs.
    pub fn new(protocol: Protocol, runs: &[Run], all: &[String]) -> Result<Self, EvaluationError> {
        let published = published(&protocol, all)?;
        let mut classes = Vec::new();
        for (number, class) in all.iter().enumerate() {
            let of_class: Vec<&Run> = runs.iter().filter(|run| run.class == *class).collect();
            let Some(auroc) = Mean::of(of_class.iter().map(|run| run.auroc)) else { continue };
            let part = |part: &String| {
                let values = of_class.iter().filter_map(|run| run.by_part.get(part)).copied();
                Some((part.clone(), Mean::of(values)?))
            };
            classes.push(ClassFigures {
                class: class.clone(),
                runs: of_class.len(),
                auroc,
                by_part: of_class[0].by_part.keys().filter_map(part).collect(),
                published: published.and_then(|published| published.by_class.get(number).copied()),
            });
        }
        let reason = "no run of it has ended".to_owned();
        let mean = Mean::of(classes.iter().map(|class| class.auroc.mean))
            .ok_or(EvaluationError::CannotEvaluate { dataset: protocol.dataset.clone(), reason })?
            .mean;
        let part = |part: &String| {
            let values = classes.iter().filter_map(|class| class.by_part.get(part)).map(|mean| mean.mean);
            Some((part.clone(), Mean::of(values)?.mean))
        };
        let by_part = classes[0].by_part.keys().filter_map(part).collect();
        let published = published.map(|published| {
            let of_these = Mean::of(classes.iter().filter_map(|class| class.published));
            let of_all = classes.len() == all.len();
            (published.on.to_owned(), of_these.filter(|_| !of_all).map_or(published.mean, |these| these.mean))
        });
        Ok(Self { runs: runs.to_vec(), protocol, classes, mean, by_part, published })
    }
}

/// The published table for a protocol: that of the data set with the same name, or of one with the same class names.
fn published(protocol: &Protocol, classes: &[String]) -> Result<Option<&'static PublishedClasses>, EvaluationError> {
    let tables = METHODS.get(&protocol.method)?.one_vs_all;
    let name = protocol.dataset.split(':').next().unwrap_or_default();
    let same = |table: &&PublishedClasses| {
        table.dataset == name || (!table.classes.is_empty() && table.classes.iter().eq(classes))
    };
    Ok(tables.iter().find(same))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocol() -> Protocol {
        Protocol {
            dataset: "fashion-mnist".to_owned(),
            method: "geotrans".to_owned(),
            backbone: None,
            settings: Assignments::new(),
            max_train: Some(10),
            max_test: None,
        }
    }

    fn run(class: &str, seed: u64, auroc: f64) -> Run {
        Run {
            class: class.to_owned(),
            seed,
            n_train: 10,
            n_test: TestCounts { normal: 1, anomalous: 2 },
            auroc,
            by_part: BTreeMap::from([("entropy".to_owned(), auroc - 0.1)]),
            roc: BTreeMap::from([("score".to_owned(), vec![[0.0, 0.0], [1.0 / 3.0, 0.5], [1.0, 1.0]])]),
            fit_s: None,
            images_per_s: 1.0,
            peak_rss_mib: None,
        }
    }

    #[test]
    fn a_log_goes_on_where_it_was_and_belongs_to_one_protocol() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), protocol()).unwrap();
        assert!(log.find("bag", 0).is_none());
        log.push(run("bag", 0, 0.1 + 0.2)).unwrap();
        let again = Log::open(folder.path(), protocol()).unwrap();
        assert_eq!(again.find("bag", 0), Some(&run("bag", 0, 0.1 + 0.2)));
        let other = Log::open(folder.path(), Protocol { max_train: None, ..protocol() }).unwrap();
        assert!(other.find("bag", 0).is_none());
        std::fs::write(log.path(), "{").unwrap();
        assert!(Log::open(folder.path(), protocol()).unwrap_err().to_string().contains("damaged"));
    }

    #[test]
    fn a_table_has_the_means_of_its_runs_beside_the_published_ones() {
        let classes: Vec<String> = ["t-shirt", "trouser", "pullover"].map(str::to_owned).to_vec();
        let runs = [run("trouser", 0, 0.9), run("t-shirt", 0, 0.7), run("trouser", 1, 0.96)];
        let table = ProtocolTable::new(protocol(), &runs, &classes).unwrap();
        let names: Vec<&str> = table.classes.iter().map(|class| class.class.as_str()).collect();
        assert_eq!(names, ["t-shirt", "trouser"]);
        assert!((table.published.unwrap().1 - 0.5 * (99.4 + 97.6)).abs() < 1e-9);
        assert_eq!((table.classes[1].runs, table.classes[1].published), (2, Some(97.6)));
        assert!((table.mean - 0.5 * (0.7 + 0.93)).abs() < 1e-12);
        assert!((table.by_part["entropy"] - table.mean + 0.1).abs() < 1e-12);
        let all = ProtocolTable::new(protocol(), &[&runs[..], &[run("pullover", 0, 0.8)]].concat(), &classes).unwrap();
        assert_eq!(all.published.unwrap().1, 93.5, "that of all classes as it was published");
        assert!(ProtocolTable::new(protocol(), &[], &classes).is_err());
    }
}
