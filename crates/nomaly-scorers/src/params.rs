//! Parameters of scorers as text, so that a command line, a file and a program set them in the same way.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use nomaly_registry::UnknownName;

use crate::ScorerError;

/// A row of a scorer's table of parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The name, as in `--set NAME=VALUE`.
    pub name: &'static str,
    /// The value where none is given.
    pub default: &'static str,
    /// What it may be, for example "a whole number from 1".
    pub values: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
}

/// Values for the parameters of a scorer; the ones left out keep their defaults.
///
/// ```
/// use nomaly_scorers::Params;
/// let params = Params::new().with("k", 5).with("distance", "cosine");
/// assert_eq!(params.iter().collect::<Vec<_>>(), [("distance", "cosine"), ("k", "5")]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(BTreeMap<String, String>);

impl Params {
    /// No values: every parameter at its default.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one more value.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Display) -> Self {
        self.set(name, value);
        self
    }

    /// Sets a value, in place of an earlier one of that name.
    pub fn set(&mut self, name: &str, value: impl Display) {
        self.0.insert(name.to_owned(), value.to_string());
    }

    /// The values by name, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Fails on the first name that is not in `table`.
    pub(crate) fn check(&self, table: &[Parameter]) -> Result<(), ScorerError> {
        match self.0.keys().find(|name| table.iter().all(|parameter| parameter.name != **name)) {
            Some(name) => Err(UnknownName::new("parameter", name, table.iter().map(|parameter| parameter.name)).into()),
            None => Ok(()),
        }
    }

    /// Reads the parameter `name`, or its default from `table`, and asks that it satisfy `valid`.
    pub(crate) fn read<T: FromStr>(
        &self,
        table: &[Parameter],
        name: &str,
        valid: impl Fn(&T) -> bool,
    ) -> Result<T, ScorerError> {
        let parameter = table
            .iter()
            .find(|parameter| parameter.name == name)
            .ok_or_else(|| UnknownName::new("parameter", name, table.iter().map(|parameter| parameter.name)))?;
        let text = self.0.get(name).map_or(parameter.default, String::as_str);
        text.parse().ok().filter(valid).ok_or_else(|| ScorerError::Parameter {
            name: name.to_owned(),
            value: text.to_owned(),
            expected: parameter.values.to_owned(),
        })
    }
}

impl<K: AsRef<str>, V: Display> FromIterator<(K, V)> for Params {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(values: I) -> Self {
        let mut params = Self::new();
        for (name, value) in values {
            params.set(name.as_ref(), value);
        }
        params
    }
}

/// An enum whose values have names, for parameters and stored configurations alike.
macro_rules! named_choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant),+
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(Self::$variant => $text),+ })
            }
        }

        impl std::str::FromStr for $name {
            type Err = nomaly_registry::UnknownName;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(nomaly_registry::UnknownName::new(stringify!($name), text, [$($text),+])),
                }
            }
        }
    };
}
pub(crate) use named_choice;

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Parameter] = &[Parameter { name: "k", default: "9", values: "a whole number from 1", summary: "" }];

    #[test]
    fn defaults_values_and_refusals() {
        let read = |params: &Params| params.read::<usize>(TABLE, "k", |k| *k > 0);
        assert_eq!(read(&Params::new()).unwrap(), 9);
        assert_eq!(read(&Params::new().with("k", 2)).unwrap(), 2);
        let error = read(&Params::new().with("k", 0)).unwrap_err();
        assert_eq!(error.to_string(), "parameter `k` is `0`, expected a whole number from 1");
        assert!(read(&Params::new().with("k", "two")).is_err());
    }

    #[test]
    fn an_unknown_name_is_refused() {
        assert!(Params::new().with("k", 1).check(TABLE).is_ok());
        assert!(matches!(Params::new().with("kk", 1).check(TABLE), Err(ScorerError::UnknownName(_))));
    }
}
