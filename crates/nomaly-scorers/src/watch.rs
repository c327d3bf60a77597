//! Cancellation of long work by the caller.

use crate::ScorerError;

/// A cancellation check for long work.
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use nomaly_scorers::Watch;
///
/// let stop = AtomicBool::new(false);
/// let asked = || stop.load(Ordering::Relaxed);
/// let watch = Watch::new(&asked);
/// assert!(watch.check().is_ok());
/// stop.store(true, Ordering::Relaxed);
/// assert!(watch.check().is_err());
/// ```
#[derive(Clone, Copy)]
pub struct Watch<'a>(Option<&'a (dyn Fn() -> bool + Sync)>);

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Watch").field(&self.0.is_some()).finish()
    }
}

impl<'a> Watch<'a> {
    /// Never stops.
    pub fn none() -> Self {
        Self(None)
    }

    /// Stops once `stop` returns true; several threads call it, at least a few times per second.
    pub fn new(stop: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Self(Some(stop))
    }

    /// Whether to stop.
    pub fn stopped(&self) -> bool {
        self.0.is_some_and(|stop| stop())
    }

    /// Fails if the work should stop.
    ///
    /// # Errors
    /// [`ScorerError::Cancelled`].
    pub fn check(&self) -> Result<(), ScorerError> {
        if self.stopped() { Err(ScorerError::Cancelled) } else { Ok(()) }
    }
}
