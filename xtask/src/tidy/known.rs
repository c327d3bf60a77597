//! What the checks know and let stand. These lists only shrink: an entry that is no longer true is a finding.

/// Modules of a crate that import each other in a circle.
pub(super) struct KnownCircle {
    pub(super) crate_name: &'static str,
    /// All modules that reach each other, in alphabetical order.
    pub(super) modules: &'static [&'static str],
    /// What holds them together.
    pub(super) reason: &'static str,
}

const fn circle(crate_name: &'static str, modules: &'static [&'static str], reason: &'static str) -> KnownCircle {
    KnownCircle { crate_name, modules, reason }
}

/// Every known circle.
pub(super) const CIRCLES: &[KnownCircle] = &[
    circle("nomaly-cli", &["commands", "report"], "the report takes a word of the commands that write it"),
    circle(
        "nomaly-cli",
        &["commands::eval", "commands::one_vs_all"],
        "one-against-all opens its data set as eval does",
    ),
    circle("nomaly-cli", &["commands::inspect", "commands::rows"], "models of rows are shown with parts of inspect"),
];

/// Re-exports of whole crates of the workspace: the crate that re-exports, and the one that it shows.
pub(super) const RE_EXPORTS: &[(&str, &str)] = &[("nomaly-backbones", "nomaly-kernels")];

/// Names of public types that several crates have, each its own.
pub(super) const TYPE_NAMES: &[&str] = &["Batch", "Choice", "Outcome", "Score", "Table"];
