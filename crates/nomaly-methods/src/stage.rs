//! Stages of work, reported to a [`Progress`].

use nomaly_store::Progress;

/// A stage of work. Closes the stage when dropped.
pub struct Stage<'a>(&'a dyn Progress);

impl<'a> Stage<'a> {
    /// Starts the stage `what`, of `total` items if known.
    pub fn start(progress: &'a dyn Progress, what: &str, total: Option<usize>) -> Self {
        progress.start(what, total.map(|total| total as u64));
        Self(progress)
    }

    /// Adds to the number of finished items.
    pub fn advance(&self, amount: usize) {
        self.0.advance(amount as u64);
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        self.0.finish();
    }
}
