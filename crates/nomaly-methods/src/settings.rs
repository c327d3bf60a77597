//! Settings as a user types them: `--set KEY=VALUE`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use nomaly_registry::UnknownName;
use nomaly_scorers::Parameter;
use serde::{Deserialize, Serialize};

use crate::MethodError;

/// The blur of anomaly maps, for the methods that make them.
pub(crate) const SIGMA: Parameter = Parameter {
    name: "sigma",
    default: "4",
    values: "a number of pixels from 0 to 100",
    summary: "standard deviation of the map's blur in pixels of the network's input, the smallest of several `sizes`",
};

/// An amount of memory in bytes, written `512MiB`, `2GiB` or as a bare number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory(pub u64);

impl Memory {
    /// What users may write.
    pub const ALLOWED: &'static str = "a number of bytes, with KiB, MiB or GiB";
    const UNITS: [(&'static str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

    /// So many GiB.
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    /// In MiB, for people.
    pub(crate) fn rounded(self) -> String {
        format!("{} MiB", self.0.div_ceil(1 << 20))
    }
}

impl FromStr for Memory {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (number, unit) =
            Self::UNITS.iter().find_map(|(name, bytes)| Some((text.strip_suffix(name)?, *bytes))).unwrap_or((text, 1));
        let number: f64 = number.trim().parse().map_err(|_| ())?;
        let bytes = number * unit as f64;
        if bytes >= 1.0 && bytes < u64::MAX as f64 { Ok(Self(bytes as u64)) } else { Err(()) }
    }
}

impl Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match Self::UNITS.iter().find(|(_, bytes)| self.0 >= *bytes && self.0.is_multiple_of(*bytes)) {
            Some((name, bytes)) => write!(f, "{}{name}", self.0 / bytes),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Settings by key, not yet checked: the anything-goes state before a method makes parameters of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    /// Reads `KEY=VALUE` pairs.
    ///
    /// # Errors
    /// A pair without `=` or with an empty key, and a key that is given twice.
    pub fn parse<S: AsRef<str>>(pairs: &[S]) -> Result<Self, MethodError> {
        let mut settings = BTreeMap::new();
        for pair in pairs {
            let pair = pair.as_ref();
            let (key, value) = pair
                .split_once('=')
                .map(|(key, value)| (key.trim(), value.trim()))
                .filter(|(key, _)| !key.is_empty())
                .ok_or_else(|| MethodError::SettingSyntax { given: pair.to_owned() })?;
            if settings.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(MethodError::Conflict { reason: format!("setting `{key}` is given twice") });
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

    /// The same settings with values for those of `defaults` that are not set.
    pub fn or(mut self, defaults: &[(&str, &str)]) -> Self {
        for (key, value) in defaults {
            self.0.entry((*key).to_owned()).or_insert_with(|| (*value).to_owned());
        }
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
    pub fn value<T: FromStr>(&self, key: &str, default: T, allowed: &str) -> Result<T, MethodError> {
        match self.get(key) {
            None => Ok(default),
            Some(given) => given.parse().map_err(|_| MethodError::setting(key, given, allowed)),
        }
    }

    /// A number of things from 1 on, where one is set and not `auto`.
    pub(crate) fn count(&self, key: &str) -> Result<Option<usize>, MethodError> {
        let allowed = "a whole number from 1";
        match self.get(key) {
            None | Some("auto") => Ok(None),
            Some(given) => match given.parse() {
                Ok(count) if count > 0 => Ok(Some(count)),
                _ => Err(MethodError::setting(key, given, allowed)),
            },
        }
    }

    /// A share in (0, 1].
    pub(crate) fn share(&self, key: &str, default: f64) -> Result<f64, MethodError> {
        let allowed = "a share above 0 and at most 1";
        let share = self.value(key, default, allowed)?;
        if share > 0.0 && share <= 1.0 {
            Ok(share)
        } else {
            Err(MethodError::setting(key, &share.to_string(), allowed))
        }
    }

    /// The blur of maps, checked.
    pub(crate) fn sigma(&self, default: f64) -> Result<f64, MethodError> {
        let sigma = self.value(SIGMA.name, default, SIGMA.values)?;
        if (0.0..=100.0).contains(&sigma) {
            Ok(sigma)
        } else {
            Err(MethodError::setting(SIGMA.name, &sigma.to_string(), SIGMA.values))
        }
    }

    /// Refuses keys that are in none of the lists of parameters.
    ///
    /// # Errors
    /// The first key that nobody knows, with the nearest that somebody does.
    pub fn check_known(&self, lists: &[&[Parameter]]) -> Result<(), MethodError> {
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
        let message = |result: Result<(), MethodError>| result.unwrap_err().to_string();
        assert_eq!(message(Settings::parse(&["k"]).map(drop)), "setting `k` is not of the form KEY=VALUE");
        assert!(message(Settings::parse(&["k=1", "k=2"]).map(drop)).contains("twice"));
        let settings = Settings::parse(&["k=two"]).unwrap();
        assert_eq!(
            message(settings.value("k", 2usize, "a whole number of at least 1").map(drop)),
            "setting `k` is `two`; it takes a whole number of at least 1"
        );
    }

    #[test]
    fn memory_is_read_and_written_with_units() {
        for (text, bytes) in [("2GiB", 2 << 30), ("1.5 MiB", 3 << 19), ("4096", 4096), ("512KiB", 512 << 10)] {
            assert_eq!(text.parse(), Ok(Memory(bytes)), "{text}");
        }
        for text in ["", "GiB", "-1GiB", "0", "1e30", "two", "2GB"] {
            assert_eq!(text.parse::<Memory>(), Err(()), "{text}");
        }
        for text in ["2GiB", "1.5GiB", "512MiB", "100"] {
            let shown = text.parse::<Memory>().unwrap().to_string();
            assert_eq!(shown.parse::<Memory>(), text.parse(), "{text} became {shown}");
        }
        assert_eq!((Memory(3 << 29).to_string(), Memory::gib(2).to_string()), ("1536MiB".into(), "2GiB".into()));
        assert_eq!(Memory((5 << 20) + 1).rounded(), "6 MiB");
    }

    #[test]
    fn a_mistyped_key_is_met_with_the_right_one() {
        let settings = Settings::default().with("level", "all");
        let message = settings.check_known(&[KNOWN]).unwrap_err().to_string();
        assert_eq!(message, "unknown setting `level`; did you mean `levels`?");
    }
}
