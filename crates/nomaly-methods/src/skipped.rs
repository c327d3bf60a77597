//! Images and rows that could not be used.

use serde::Serialize;

/// An image that could not be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The image.
    pub id: String,
    /// What is wrong, as one word for programs: `not-found`, `truncated`, …
    pub kind: String,
    /// What is wrong, for people.
    pub message: String,
}
