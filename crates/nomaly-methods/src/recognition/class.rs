//! Classes and their held-out scores.

use serde::{Deserialize, Serialize};

use crate::error::MethodError;

/// The label of an item of none of the known classes; reserved.
pub const UNKNOWN: &str = "unknown";

/// The label of an item without a decision because the closest class has no threshold; reserved.
pub const UNDECIDED: &str = "undecided";

/// A class of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownClass {
    /// Its name.
    pub name: String,
    /// The number of used training items of the class.
    pub items: usize,
}

/// Held-out scores of the training items assigned to one class.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldOutClass {
    /// The class.
    pub class: KnownClass,
    /// The score under this class of each item that is likeliest under it, whatever its true class.
    pub scores: Vec<f64>,
    /// The group number of each of these items; `None` if all are independent.
    pub groups: Option<Vec<u32>>,
}

/// The index of the smallest score, the first of equal ones; there must be a score.
pub fn closest(scores: &[f64]) -> usize {
    (1..scores.len()).fold(0, |least, class| if scores[class] < scores[least] { class } else { least })
}

/// Rejects invalid class names.
///
/// # Errors
/// An empty name, and [`UNKNOWN`] or [`UNDECIDED`] in any letter case.
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
