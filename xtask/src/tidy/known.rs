//! What the checks know and let stand. These lists only shrink: an entry that is no longer true is a finding.

/// Modules of a crate that import each other in a circle.
pub(super) struct KnownCircle {
    pub(super) crate_name: &'static str,
    /// All modules that reach each other, in alphabetical order.
    pub(super) modules: &'static [&'static str],
    /// What holds them together.
    pub(super) reason: &'static str,
}

/// Every known circle.
pub(super) const CIRCLES: &[KnownCircle] = &[];

/// Re-exports of whole crates of the workspace: the crate that re-exports, and the one that it shows.
pub(super) const RE_EXPORTS: &[(&str, &str)] = &[("nomaly-backbones", "nomaly-kernels")];

/// Names of public types that several crates have, each its own.
pub(super) const TYPE_NAMES: &[&str] = &["Batch", "Choice", "Outcome", "Score", "Table"];
