//! Named units of one kind, looked up by name.
//!
//! Every pluggable layer of nomaly (scorers, backbones, data sets, methods, metrics, transforms) lists its units in one
//! [`Registry`]. Lists on the command line, tables in the docs and error messages all follow from it, so that adding a
//! unit is one new file and one line in the registry.
//!
//! ```
//! use nomaly_registry::{Entry, Registry};
//!
//! struct Metric(&'static str, &'static str);
//! impl Entry for Metric {
//!     fn name(&self) -> &str {
//!         self.0
//!     }
//!     fn summary(&self) -> &str {
//!         self.1
//!     }
//! }
//! static METRICS: Registry<Metric> = Registry::new("metric", &[
//!     Metric("auroc", "area under the ROC curve"),
//!     Metric("aupro", "area under the per-region overlap curve"),
//! ]);
//!
//! assert_eq!(METRICS.get("auroc").unwrap().0, "auroc");
//! let error = METRICS.get("auroq").err().unwrap();
//! assert_eq!(error.to_string(), "unknown metric `auroq`; did you mean `auroc`?");
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

/// A unit that a [`Registry`] can hold.
pub trait Entry {
    /// The name users type: lower case, words joined by hyphens.
    fn name(&self) -> &str;
    /// One line that says what the unit is.
    fn summary(&self) -> &str;
}

/// The units of one layer, in the order in which they are listed.
#[derive(Debug)]
pub struct Registry<T: 'static> {
    kind: &'static str,
    entries: &'static [T],
}

impl<T: Entry> Registry<T> {
    /// Makes a registry of units of one `kind` (a singular noun for messages: "scorer").
    pub const fn new(kind: &'static str, entries: &'static [T]) -> Self {
        Self { kind, entries }
    }

    /// Looks a unit up.
    ///
    /// # Errors
    /// [`UnknownName`] with the nearest known name, or with all of them where none is near.
    pub fn get(&self, name: &str) -> Result<&'static T, UnknownName> {
        self.entries
            .iter()
            .find(|entry| entry.name() == name)
            .ok_or_else(|| UnknownName::new(self.kind, name, self.names()))
    }

    /// All units in listing order.
    pub fn iter(&self) -> std::slice::Iter<'static, T> {
        self.entries.iter()
    }

    /// The names in listing order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + use<T> {
        self.entries.iter().map(Entry::name)
    }
}

/// A name that no unit of its kind has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownName {
    /// What was looked for, as a singular noun.
    pub kind: String,
    /// The name that was asked for.
    pub name: String,
    /// The nearest known name, where one is near.
    pub suggestion: Option<String>,
    /// Every known name.
    pub known: Vec<String>,
}

impl UnknownName {
    /// Describes a failed look-up of `name` among `known`.
    pub fn new<'a>(kind: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<String> = known.into_iter().map(String::from).collect();
        let suggestion = suggest(name, known.iter().map(String::as_str)).map(String::from);
        Self { kind: kind.to_owned(), name: name.to_owned(), suggestion, known }
    }
}

impl std::fmt::Display for UnknownName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unknown {} `{}`", self.kind, self.name)?;
        match &self.suggestion {
            Some(near) => write!(f, "; did you mean `{near}`?"),
            None => write!(f, "; known: {}", self.known.join(", ")),
        }
    }
}

impl std::error::Error for UnknownName {}

/// The candidate nearest to `name`, if any is near enough to be a slip of the finger; the first of equally near ones.
pub fn suggest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const NEAR: f64 = 0.8; // Jaro–Winkler similarity; one or two wrong letters in a word of six to ten
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= NEAR)
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Unit(&'static str);
    impl Entry for Unit {
        fn name(&self) -> &str {
            self.0
        }
        fn summary(&self) -> &str {
            ""
        }
    }
    static UNITS: Registry<Unit> = Registry::new("method", &[Unit("patchcore"), Unit("padim"), Unit("mvg")]);

    #[test]
    fn finds_by_exact_name_only() {
        assert_eq!(UNITS.get("padim").unwrap().0, "padim");
        assert!(UNITS.get("PaDiM").is_err());
    }

    #[test]
    fn a_slip_gets_a_suggestion_and_nonsense_gets_the_list() {
        let slip = UNITS.get("pachcore").err().unwrap();
        assert_eq!(slip.suggestion.as_deref(), Some("patchcore"));
        let nonsense = UNITS.get("zzz").err().unwrap();
        assert_eq!(suggest("lite", ["lite0", "lite1", "lite2"]), Some("lite0"));
        assert_eq!(nonsense.to_string(), "unknown method `zzz`; known: patchcore, padim, mvg");
    }
}
