//! A class, and what held-out items that are taken for it got.

use serde::{Deserialize, Serialize};

use crate::error::MethodError;

/// What an item of none of the known classes is called; no class may have this name.
pub const UNKNOWN: &str = "unknown";

/// What an item is called that the model could not decide on, for the class that it is closest to has no threshold; no
/// class may have this name.
pub const UNDECIDED: &str = "undecided";

/// A class that a model knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownClass {
    /// Its name.
    pub name: String,
    /// Training items of the class that were used.
    pub items: usize,
}

/// What the training items that are taken for one class got from fits that had not seen them.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldOutClass {
    /// The class.
    pub class: KnownClass,
    /// The score under the class of each item that is likeliest under it, whichever class it is of.
    pub scores: Vec<f64>,
    /// The number of the group of each of these items, where some depend on each other.
    pub groups: Option<Vec<u32>>,
}

/// The place of the least of at least one score, the first of equal ones.
pub fn closest(scores: &[f64]) -> usize {
    (1..scores.len()).fold(0, |least, class| if scores[class] < scores[least] { class } else { least })
}

/// Refuses names that no class can have.
///
/// # Errors
/// An empty name, and [`UNKNOWN`] or [`UNDECIDED`] in any case of their letters.
pub fn check_name(name: &str) -> Result<(), MethodError> {
    let refuse = |reason: &str| Err(MethodError::Class { class: name.to_owned(), reason: reason.to_owned() });
    if name.is_empty() {
        refuse("a class needs a name")
    } else if name.eq_ignore_ascii_case(UNKNOWN) {
        refuse("the name is reserved for what belongs to no class; give the class another one")
    } else if name.eq_ignore_ascii_case(UNDECIDED) {
        refuse("the name is reserved for what the model cannot decide on; give the class another one")
    } else {
        Ok(())
    }
}
