//! Progress bars and interruption of long work.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use nomaly::store::{Progress, StoreError};

use crate::console::Console;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// On the first Ctrl-C (or termination signal) requests running work to stop, on the second ends the program at once.
pub(crate) fn handle_interrupts() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    })
    .context("cannot listen for Ctrl-C")
}

/// Stops work without a bar if the user interrupted it.
pub(crate) fn check_interrupted(what: &str) -> Result<(), StoreError> {
    if INTERRUPTED.load(Ordering::SeqCst) { Err(StoreError::Cancelled { what: what.to_owned() }) } else { Ok(()) }
}

/// The unit of a bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Images,
    Bytes,
}

impl Unit {
    fn template(self, bounded: bool) -> &'static str {
        match (self, bounded) {
            (Self::Images, true) => "{msg} {wide_bar} {pos}/{len}  {rate}  {eta} left",
            (Self::Images, false) => "{spinner} {msg} {pos}  {rate}  {elapsed}",
            (Self::Bytes, true) => "{msg} {wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left",
            (Self::Bytes, false) => "{spinner} {msg} {bytes}  {bytes_per_sec}  {elapsed}",
        }
    }

    fn style(self, bounded: bool) -> ProgressStyle {
        ProgressStyle::with_template(self.template(bounded)).expect("the templates are constant, and tested").with_key(
            "rate",
            |state: &ProgressState, out: &mut dyn fmt::Write| {
                // A bar cannot report a failure.
                let _ = write!(out, "{:.1}/s", state.per_sec());
            },
        )
    }
}

/// Shows work as bars on the console's stderr if that is a terminal, and passes interruptions on to the work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bars<'a> {
    console: &'a Console,
    unit: Unit,
}

impl<'a> Bars<'a> {
    pub(crate) fn new(console: &'a Console, unit: Unit) -> Self {
        Self { console, unit }
    }
}

impl Progress for Bars<'_> {
    fn start(&self, what: &str, total: Option<u64>) {
        if !self.console.shows_notes() {
            return;
        }
        // indicatif draws on stderr, but only if that is a terminal.
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        bar.set_style(self.unit.style(total.is_some()));
        bar.set_message(what.to_owned());
        self.console.start_bar(bar);
    }

    fn describe(&self, what: &str) {
        self.console.describe_bar(what);
    }

    fn advance(&self, amount: u64) {
        self.console.advance_bar(amount);
    }

    fn finish(&self) {
        self.console.finish_bar();
    }

    fn cancelled(&self) -> bool {
        INTERRUPTED.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_valid() {
        for unit in [Unit::Images, Unit::Bytes] {
            for bounded in [false, true] {
                ProgressStyle::with_template(unit.template(bounded)).unwrap();
            }
        }
    }
}
