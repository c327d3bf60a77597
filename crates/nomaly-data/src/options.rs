//! The text that names a data set: `PATH`, `PATH:normal=dog`, `elpv:cells=mono,labels=all`.

use nomaly_settings::{Assignments, Settings, SettingsTable};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::DataError;
use crate::error::hint;

/// A layout without options.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct NoOptions {}

impl Settings for NoOptions {}

/// The options of a data set of several items.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct CategoryOptions {
    /// The item to inspect.
    #[schemars(extend("x-needed" = true, "x-values" = "a name"))]
    pub(crate) category: Option<String>,
}

impl Settings for CategoryOptions {}

/// The options of a data set of classes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ClassOptions {
    /// The normal class.
    #[schemars(extend("x-needed" = true, "x-values" = "a number or a name"))]
    pub(crate) normal: Option<String>,
}

impl Settings for ClassOptions {}

/// The options of a data set of classes that may come without a split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct SplitOptions {
    /// The normal class.
    #[schemars(extend("x-needed" = true, "x-values" = "a number or a name"))]
    pub(crate) normal: Option<String>,
    /// Share of the normal images to learn from, where the data come without a split.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub(crate) train: f64,
    /// Seed of that split.
    pub(crate) seed: u64,
}

impl Default for SplitOptions {
    fn default() -> Self {
        Self { normal: None, train: 0.5, seed: 0 }
    }
}

impl Settings for SplitOptions {}

/// Splits a spec at the colon before its options.
///
/// Uses the last colon that is followed by `key=`, so that drive letters and paths with colons are not split.
pub(crate) fn split(spec: &str) -> (&str, Option<&str>) {
    let colons = spec.char_indices().rev().filter(|&(_, c)| c == ':').map(|(at, _)| at);
    for at in colons {
        let tail = &spec[at + 1..];
        let key = tail.split('=').next().unwrap_or("");
        let is_key = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if is_key && tail.contains('=') {
            return (&spec[..at], Some(tail));
        }
    }
    (spec, None)
}

/// The text `spec` with one more option.
///
/// ```
/// assert_eq!(nomaly_data::with_option("mnist", "normal", "3"), "mnist:normal=3");
/// assert_eq!(nomaly_data::with_option("cifar100:labels=coarse", "normal", "0"), "cifar100:labels=coarse,normal=0");
/// ```
pub fn with_option(spec: &str, key: &str, value: &str) -> String {
    // A directory may have a name that looks like options.
    let separator = if split(spec).1.is_some() && !std::path::Path::new(spec).is_dir() { ',' } else { ':' };
    format!("{spec}{separator}{key}={value}")
}

/// The options that were given for one data set.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The owner of the options, for messages: "data set elpv".
    owner: String,
    /// The text before the colon, for examples in messages.
    target: String,
    given: Assignments,
}

impl Options {
    /// Parses comma-separated `key=value` pairs.
    pub(crate) fn parse(owner: &str, target: &str, text: Option<&str>) -> Result<Self, DataError> {
        let pairs: Vec<&str> = text.map(|text| text.split(',').collect()).unwrap_or_default();
        let given = Assignments::parse(&pairs)
            .map_err(|cause| DataError::Setting { dataset: owner.to_owned(), cause: Box::new(cause) })?;
        Ok(Self { owner: owner.to_owned(), target: target.to_owned(), given })
    }

    /// Checks every option against those that `owner` takes, and names that owner in later messages.
    pub(crate) fn checked(mut self, owner: &str, table: &SettingsTable) -> Result<Self, DataError> {
        owner.clone_into(&mut self.owner);
        self.given = self.given.typed(table).map_err(|cause| self.wrong(cause))?;
        Ok(self)
    }

    /// The options as `S`.
    pub(crate) fn read<S: Settings>(&self) -> Result<S, DataError> {
        self.given.read().map_err(|cause| self.wrong(cause))
    }

    /// Whether an option was given.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.given.contains(name)
    }

    /// The value of a required option; `example` is a valid value.
    pub(crate) fn require(&self, name: &str, value: Option<String>, example: &str) -> Result<String, DataError> {
        value.ok_or_else(|| DataError::OptionMissing {
            dataset: self.owner.clone(),
            option: name.to_owned(),
            example: format!("{}:{name}={example}", self.target),
        })
    }

    fn wrong(&self, cause: nomaly_settings::SettingError) -> DataError {
        DataError::Setting { dataset: self.owner.clone(), cause: Box::new(cause) }
    }

    /// An error about a name that the data set does not have.
    pub(crate) fn unknown<'a>(
        &self,
        kind: &'static str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> DataError {
        DataError::Unknown { kind, name: name.to_owned(), dataset: self.owner.clone(), hint: hint(name, known) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_splits_at_the_colon_before_its_options() {
        #[track_caller]
        fn check(spec: &str, expected: (&str, Option<&str>)) {
            assert_eq!(split(spec), expected);
        }
        check("elpv", ("elpv", None));
        check("elpv:cells=mono", ("elpv", Some("cells=mono")));
        check("elpv:cells=mono,labels=all", ("elpv", Some("cells=mono,labels=all")));
        check(r"C:\data\parts", (r"C:\data\parts", None));
        check(r"C:\data\parts:normal=dog", (r"C:\data\parts", Some("normal=dog")));
        check("/data/2024-01-01T10:30/x", ("/data/2024-01-01T10:30/x", None));
        check("/data/a:b/c=d", ("/data/a:b/c=d", None));
        check("mnist:3", ("mnist:3", None));
    }

    #[test]
    fn wrong_options_are_told_apart() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            let error = Options::parse("data set x", "x", Some(text))
                .and_then(|options| options.checked("data set x", &SettingsTable::of::<SplitOptions>()))
                .expect_err("these options are wrong");
            assert_eq!(error.to_string(), expected);
        }
        check("norma=3", "data set x: unknown setting `norma`; did you mean `normal`?");
        check("zzz=mono", "data set x: unknown setting `zzz`; known: normal, seed, train");
        check("seed=-1", "data set x: setting `seed` is `-1`; it takes a whole number from 0");
        for share in ["0", "1", "nan", ""] {
            let message = format!("data set x: setting `train` is `{share}`; it takes a number above 0 and below 1");
            check(&format!("train={share}"), &message);
        }
        check("seed=1,seed=2", "data set x: setting `seed` is given twice");
        check("seed=1,x", "data set x: setting `x` is not of the form KEY=VALUE");
        let options = Options::parse("x", "x", Some("train=0.25,seed=7")).unwrap();
        let expected = SplitOptions { normal: None, train: 0.25, seed: 7 };
        assert_eq!(options.read::<SplitOptions>().unwrap(), expected);
        let error = options.checked("folder y", &SettingsTable::of::<NoOptions>()).unwrap_err().to_string();
        assert_eq!(error, "folder y: setting `seed` was given, but there are none here");
    }
}
