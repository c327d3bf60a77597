//! How long work tells its caller how far it is, and asks whether to go on.

/// A listener of long work: a progress bar, a log, a cancel button.
///
/// The methods take `&self`, so an implementation keeps its state in atomics or behind a lock. They are called by one
/// thread at a time, not always the one that called the work.
pub trait Progress: Sync {
    /// A piece of work begins: `what` names it, `total` is its size in bytes (or items) where that is known.
    ///
    /// Called again, after [`Progress::finish`], when a transfer has to start over.
    fn start(&self, what: &str, total: Option<u64>);
    /// The piece of work that was started last is at a point worth a word: `what` names it from now on.
    fn describe(&self, _what: &str) {}
    /// `amount` more bytes (or items) are done.
    fn advance(&self, amount: u64);
    /// The piece of work that was started last has ended, well or badly.
    fn finish(&self);
    /// Whether the work should stop. Asked at least ten times a second while a transfer waits.
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
