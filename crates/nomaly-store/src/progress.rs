//! Progress reports and cancellation of long work.

/// An observer of long work: a progress bar, a log, a cancel button.
///
/// The methods take `&self`, so an implementation keeps its state in atomics or behind a lock. They are called by one
/// thread at a time, not necessarily the caller's.
pub trait Progress: Sync {
    /// A piece of work starts: `what` names it, `total` is its size in bytes (or items) if known.
    ///
    /// Called again, after [`Progress::finish`], when a transfer restarts.
    fn start(&self, what: &str, total: Option<u64>);
    /// Renames the piece of work that was started last to `what`.
    fn describe(&self, _what: &str) {}
    /// `amount` more bytes (or items) are done.
    fn advance(&self, amount: u64);
    /// The piece of work that was started last has ended, successfully or not.
    fn finish(&self);
    /// Whether the work should stop. Called at least ten times per second while a transfer waits.
    fn cancelled(&self) -> bool;
}

/// A [`Progress`] that shows nothing and never cancels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _what: &str, _total: Option<u64>) {}
    fn advance(&self, _amount: u64) {}
    fn finish(&self) {}
    fn cancelled(&self) -> bool {
        false
    }
}
