//! Known exceptions to the checks. These lists only shrink: an obsolete entry is a finding.

/// Modules of a crate that import each other in a circle.
pub(super) struct KnownCircle {
    pub(super) crate_name: &'static str,
    /// All modules of the circle, in alphabetical order.
    pub(super) modules: &'static [&'static str],
    /// Why they import each other.
    pub(super) reason: &'static str,
}

/// All known circles.
pub(super) const CIRCLES: &[KnownCircle] = &[];

/// Re-exports of whole crates of the workspace: the re-exporting crate and the re-exported one.
pub(super) const RE_EXPORTS: &[(&str, &str)] = &[];

/// Names of different public types that occur in several crates.
pub(super) const TYPE_NAMES: &[&str] = &[];
