//! Settings as a user types them: `--set KEY=VALUE`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use nomaly_registry::UnknownName;
use nomaly_scorers::Parameter;
use serde::{Deserialize, Serialize};

use crate::DetectorError;

/// Settings by key, not yet checked: the anything-goes state before a method makes parameters of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    /// Reads `KEY=VALUE` pairs.
    ///
    /// # Errors
    /// A pair without `=` or with an empty key, and a key that is given twice.
    pub fn parse<S: AsRef<str>>(pairs: &[S]) -> Result<Self, DetectorError> {
        let mut settings = BTreeMap::new();
        for pair in pairs {
            let pair = pair.as_ref();
            let (key, value) = pair
                .split_once('=')
                .map(|(key, value)| (key.trim(), value.trim()))
                .filter(|(key, _)| !key.is_empty())
                .ok_or_else(|| DetectorError::SettingSyntax { given: pair.to_owned() })?;
            if settings.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(DetectorError::SettingTwice { name: key.to_owned() });
            }
        }
        Ok(Self(settings))
    }

    /// Sets one value, replacing an earlier one.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Display) -> Self {
        self.0.insert(key.to_owned(), value.to_string());
        self
    }

    /// All settings in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The raw value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The value of `key`, read as a `T`, or `default` where it is not set.
    ///
    /// # Errors
    /// A value that is no `T`; `allowed` says in words what would have been one.
    pub fn value<T: FromStr>(&self, key: &str, default: T, allowed: &str) -> Result<T, DetectorError> {
        match self.get(key) {
            None => Ok(default),
            Some(given) => given.parse().map_err(|_| DetectorError::setting(key, given, allowed)),
        }
    }

    /// Refuses keys that are in none of the lists of parameters.
    ///
    /// # Errors
    /// The first key that nobody knows, with the nearest that somebody does.
    pub fn check_known(&self, lists: &[&[Parameter]]) -> Result<(), DetectorError> {
        let known = || lists.iter().flat_map(|list| list.iter().map(|parameter| parameter.name));
        match self.0.keys().find(|key| !known().any(|name| name == *key)) {
            None => Ok(()),
            Some(key) => Err(UnknownName::new("setting", key, known()).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Parameter] =
        &[Parameter { name: "levels", default: "all", values: "names", summary: "levels to use" }];

    #[test]
    fn pairs_are_split_at_the_first_equals_sign() {
        let settings = Settings::parse(&["weights=a=b.safetensors", " k = 3 "]).unwrap();
        assert_eq!(settings.get("weights"), Some("a=b.safetensors"));
        assert_eq!(settings.value("k", 2usize, "a count").unwrap(), 3);
        assert_eq!(settings.value("absent", 2usize, "a count").unwrap(), 2);
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_a_reason() {
        let message = |result: Result<(), DetectorError>| result.unwrap_err().to_string();
        assert_eq!(message(Settings::parse(&["k"]).map(drop)), "setting `k` is not of the form KEY=VALUE");
        assert!(message(Settings::parse(&["k=1", "k=2"]).map(drop)).contains("twice"));
        let settings = Settings::parse(&["k=two"]).unwrap();
        assert_eq!(
            message(settings.value("k", 2usize, "a whole number of at least 1").map(drop)),
            "setting `k` is `two`; it takes a whole number of at least 1"
        );
    }

    #[test]
    fn a_mistyped_key_is_met_with_the_right_one() {
        let settings = Settings::default().with("level", "all");
        let message = settings.check_known(&[KNOWN]).unwrap_err().to_string();
        assert_eq!(message, "unknown setting `level`; did you mean `levels`?");
    }
}
