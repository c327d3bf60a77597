//! Settings with a single definition.
//!
//! The parameters of a unit (a scorer, a method, a data set) are one plain struct with `serde` and `schemars` derives.
//! Everything else is derived from it: the default, the text form of `--set NAME=VALUE`, the range and its description
//! in errors, the tables of `nomaly list` and of the docs, the typed values in a model file, and a JSON Schema.
//!
//! ```
//! use nomaly_settings::{Assignments, Settings, SettingsTable};
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
//! struct BankParams {
//!     /// share of all patches that the bank keeps
//!     #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1))]
//!     coreset: f64,
//!     /// the most patches that a fit keeps
//!     #[schemars(extend("minimum" = 1))]
//!     bank: Option<usize>,
//! }
//!
//! impl Default for BankParams {
//!     fn default() -> Self {
//!         Self { coreset: 0.1, bank: None }
//!     }
//! }
//!
//! impl Settings for BankParams {}
//!
//! let given = Assignments::parse(&["bank=500"])?;
//! assert_eq!(given.read::<BankParams>()?, BankParams { coreset: 0.1, bank: Some(500) });
//!
//! let error = Assignments::parse(&["coreset=2"])?.read::<BankParams>().unwrap_err();
//! assert_eq!(error.to_string(), "setting `coreset` is `2`; it takes a number above 0 and at most 1");
//! let error = Assignments::parse(&["coresets=1"])?.read::<BankParams>().unwrap_err();
//! assert_eq!(error.to_string(), "unknown setting `coresets`; did you mean `coreset`?");
//!
//! let table = SettingsTable::of::<BankParams>();
//! let bank = table.get("bank").unwrap();
//! assert_eq!((bank.default.as_str(), bank.values.as_str()), ("none", "a whole number from 1 or `none`"));
//! # Ok::<(), nomaly_settings::SettingError>(())
//! ```
//!
//! # Types of fields
//! | type | text | JSON |
//! |---|---|---|
//! | `bool`, integers, `f64` | the number, `true`, `false` | the same |
//! | `Option<T>` | `none`, or that of `T` | `null`, or that of `T` |
//! | [`Auto<T>`] | `auto`, or that of `T` | `"auto"`, or that of `T` |
//! | an enum of unit variants | its name by `serde` | the same |
//! | an enum by [`word_or_value!`] | a word, or a value | the same |
//! | [`Names`], `Vec<T>` | items with commas between them | an array |
//! | a type by [`written_as_text!`] | its `Display` | the same, a string |
//!
//! Bounds are those of JSON Schema, as `#[schemars(extend("minimum" = 1))]`. There are four further keys: `x-unit`, a
//! plural noun for the description ("pixels"); `x-values`, a description that replaces that of the type; `x-needed`,
//! for a required value; and `x-formerly`, a list of former names, for which an error names the present one.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod assignments;
mod auto;
mod choice;
mod domain;
mod error;
mod memory;
mod names;
mod table;

pub use assignments::Assignments;
pub use auto::Auto;
pub use error::SettingError;
pub use memory::Memory;
pub use names::Names;
pub use table::{Setting, SettingsTable};

#[doc(hidden)]
pub mod private {
    //! Items used by the macros of this crate.
    pub use schemars;
    pub use serde;
    pub use serde_json;
}

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A struct whose fields are settings.
///
/// Its doc comments are the summaries, its `Default` the defaults, its schema the ranges.
pub trait Settings: Clone + Default + Serialize + DeserializeOwned + JsonSchema {
    /// Rejects combinations of values.
    ///
    /// # Errors
    /// The setting that contradicts the others.
    fn check(&self) -> Result<(), SettingError> {
        Ok(())
    }
}
