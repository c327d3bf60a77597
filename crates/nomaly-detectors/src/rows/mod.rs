//! Detectors of rows of numbers: settings → checked detector → fitted detector.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use nomaly_data::tables::{ReadOptions, read};
//! use nomaly_detectors::rows::{RowDetector, RowFitOptions, RowPredictOptions};
//! use nomaly_settings::Assignments;
//! use nomaly_store::Silent;
//! # let folder = std::env::temp_dir();
//! # let path = folder.join(format!("nomaly-rows-{}.csv", std::process::id()));
//! # let lines: Vec<String> = (0..40).map(|i| format!("{},{}", i % 7, (i * 3) % 11)).collect();
//! # std::fs::write(&path, format!("width,height\n{}\n", lines.join("\n")))?;
//! let table = read(&path, &ReadOptions::default())?;
//! # std::fs::remove_file(&path)?;
//! let detector = RowDetector::new(&Assignments::new().with("scorer", "gaussian"))?;
//! let fit = detector.fit(&table, &RowFitOptions::default(), &Silent)?;
//! let outcomes = fit.detector.predict(&table, &RowPredictOptions::default(), &Silent)?;
//! assert!(outcomes[0].result.as_ref().unwrap().p_value > 0.0);
//! # Ok(())
//! # }
//! ```

mod detector;
mod fitted;
mod model;
mod scaling;

pub use detector::{ClassRowParams, DEFAULT_SCORER, RowDetector, RowFit, RowFitOptions, RowParams};
pub use fitted::{FittedRows, ForRows, RowOutcome, RowPredictOptions};
pub use scaling::Standardize;
