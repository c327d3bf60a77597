//! The text that names a data set: `PATH`, `PATH:normal=dog`, `elpv:cells=mono,labels=all`.

use crate::DataError;
use crate::error::hint;

/// An option that a data set or layout takes.
#[derive(Clone, Copy, Debug)]
pub struct OptionInfo {
    /// The name before the `=`.
    pub name: &'static str,
    /// What values it takes, for people: "a class by number or name".
    pub values: &'static str,
    /// The values it takes, where they are few and fixed; otherwise empty.
    pub choices: &'static [&'static str],
    /// What holds where the option is not given; `None` where it has to be given.
    pub default: Option<&'static str>,
}

/// The normal class of a data set of classes.
pub(crate) const NORMAL: OptionInfo =
    OptionInfo { name: "normal", values: "the normal class, by number or name", choices: &[], default: None };
/// The category of a data set of several items.
pub(crate) const CATEGORY: OptionInfo =
    OptionInfo { name: "category", values: "the item to inspect", choices: &[], default: None };
/// The share of the normal images to learn from, where a data set has no split of its own.
pub(crate) const TRAIN: OptionInfo = OptionInfo {
    name: "train",
    values: "share of the normal images to learn from, where the data come without a split (between 0 and 1)",
    choices: &[],
    default: Some("0.5"),
};
/// The seed of that split.
pub(crate) const SEED: OptionInfo =
    OptionInfo { name: "seed", values: "seed of that split, a whole number", choices: &[], default: Some("0") };

/// Splits a spec at the colon before its options.
///
/// The last colon that is followed by `key=` counts, so that drive letters and paths with colons stay whole.
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
    /// Who takes them, for messages: "data set elpv".
    owner: String,
    /// What precedes the colon, for examples in messages.
    target: String,
    pairs: Vec<(String, String)>,
}

impl Options {
    /// Reads `key=value` pairs with commas between them.
    pub(crate) fn parse(owner: &str, target: &str, text: Option<&str>) -> Result<Self, DataError> {
        let mut options = Self { owner: owner.to_owned(), target: target.to_owned(), pairs: Vec::new() };
        let Some(text) = text else { return Ok(options) };
        let bad = |reason: String| DataError::OptionSyntax { dataset: owner.to_owned(), text: text.to_owned(), reason };
        for pair in text.split(',') {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| bad(format!("`{pair}` is not of the form key=value")))?;
            let (key, value) = (key.trim(), value.trim());
            if key.is_empty() || value.is_empty() {
                return Err(bad(format!("`{pair}` is not of the form key=value")));
            }
            if options.get(key).is_some() {
                return Err(bad(format!("`{key}` is given twice")));
            }
            options.pairs.push((key.to_owned(), value.to_owned()));
        }
        Ok(options)
    }

    /// Checks every option against those that `owner` takes, and names that owner in later messages.
    pub(crate) fn checked(mut self, owner: &str, allowed: &[OptionInfo]) -> Result<Self, DataError> {
        owner.clone_into(&mut self.owner);
        for (key, value) in &self.pairs {
            let Some(info) = allowed.iter().find(|info| info.name == key) else {
                if allowed.is_empty() {
                    let reason = "it takes no options".to_owned();
                    let text = format!("{key}={value}");
                    return Err(DataError::OptionSyntax { dataset: self.owner, text, reason });
                }
                return Err(self.unknown("option", key, allowed.iter().map(|info| info.name)));
            };
            if !info.choices.is_empty() && !info.choices.contains(&value.as_str()) {
                return Err(self.value_error(info.name, value, &info.choices.join(", ")));
            }
        }
        Ok(self)
    }

    /// The value of an option, where it was given.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The value of an option that has to be given; `example` is a value that would do.
    pub(crate) fn require(&self, name: &str, example: &str) -> Result<&str, DataError> {
        self.get(name).ok_or_else(|| DataError::OptionMissing {
            dataset: self.owner.clone(),
            option: name.to_owned(),
            example: format!("{}:{name}={example}", self.target),
        })
    }

    /// The share of normal images to learn from and the seed of the split.
    pub(crate) fn fraction_and_seed(&self) -> Result<(f64, u64), DataError> {
        let fraction = match self.get(TRAIN.name) {
            None => 0.5,
            Some(text) => match text.parse::<f64>() {
                Ok(value) if value > 0.0 && value < 1.0 => value,
                _ => return Err(self.value_error(TRAIN.name, text, "a number between 0 and 1")),
            },
        };
        let seed = match self.get(SEED.name) {
            None => 0,
            Some(text) => text.parse().map_err(|_| self.value_error(SEED.name, text, "a whole number"))?,
        };
        Ok((fraction, seed))
    }

    /// An error about a value that is not taken.
    pub(crate) fn value_error(&self, option: &str, value: &str, expected: &str) -> DataError {
        DataError::OptionValue {
            dataset: self.owner.clone(),
            option: option.to_owned(),
            value: value.to_owned(),
            expected: expected.to_owned(),
        }
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
        const CELLS: OptionInfo =
            OptionInfo { name: "cells", values: "", choices: &["mono", "poly", "both"], default: Some("both") };
        #[track_caller]
        fn check(text: &str, expected: &str) {
            let error = Options::parse("data set elpv", "elpv", Some(text))
                .and_then(|options| options.checked("data set elpv", &[CELLS, SEED]))
                .expect_err("these options are wrong");
            assert_eq!(error.to_string(), expected);
        }
        check("cell=mono", "unknown option `cell` of data set elpv; did you mean `cells`?");
        check("zzz=mono", "unknown option `zzz` of data set elpv; known: cells, seed");
        check("cells=nomo", "option `cells` of data set elpv is `nomo`; it takes mono, poly, both");
        check(
            "cells=mono,cells=poly",
            "cannot read the options `cells=mono,cells=poly` of data set elpv: `cells` is given twice",
        );
        check("cells=", "cannot read the options `cells=` of data set elpv: `cells=` is not of the form key=value");
        check(
            "cells=mono,x",
            "cannot read the options `cells=mono,x` of data set elpv: `x` is not of the form key=value",
        );
    }

    #[test]
    fn the_split_options_are_checked() {
        #[track_caller]
        fn check(text: &str, expected: Option<(f64, u64)>) {
            let options = Options::parse("x", "x", Some(text)).unwrap();
            assert_eq!(options.fraction_and_seed().ok(), expected);
        }
        check("train=0.25,seed=7", Some((0.25, 7)));
        check("normal=3", Some((0.5, 0)));
        check("train=1", None);
        check("train=nan", None);
        check("seed=-1", None);
    }
}
