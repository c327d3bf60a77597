//! Pieces of work that are announced to a [`Progress`], and end however they end.

use nomaly_store::Progress;

/// A piece of work that has been announced. Dropping it says that it has ended, well or badly.
pub struct Stage<'a>(&'a dyn Progress);

impl<'a> Stage<'a> {
    /// Announces `what`, of `total` items where their number is known.
    pub fn start(progress: &'a dyn Progress, what: &str, total: Option<usize>) -> Self {
        progress.start(what, total.map(|total| total as u64));
        Self(progress)
    }

    /// So many more items are done.
    pub fn advance(&self, amount: usize) {
        self.0.advance(amount as u64);
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        self.0.finish();
    }
}
