//! What is said on stderr: notes, warnings, errors, and the progress bar that they must not tear apart.

use std::fmt::{Arguments, Display};
use std::io::Write;
use std::sync::Mutex;

use indicatif::ProgressBar;

use crate::failure;
use crate::output::style::{ERROR, HINT, WARNING};

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// Errors only.
    Quiet,
    /// What was done, warnings, progress.
    Normal,
    /// Details too.
    Verbose,
}

/// The stderr of one run.
#[derive(Debug)]
pub(crate) struct Console {
    verbosity: Verbosity,
    bar: Mutex<Option<ProgressBar>>,
}

impl Console {
    pub(crate) fn new(verbosity: Verbosity) -> Self {
        Self { verbosity, bar: Mutex::new(None) }
    }

    /// Whether progress bars, notes and warnings are wanted.
    pub(crate) fn talks(&self) -> bool {
        self.verbosity >= Verbosity::Normal
    }

    pub(crate) fn is_verbose(&self) -> bool {
        self.verbosity >= Verbosity::Verbose
    }

    /// Says what was done.
    pub(crate) fn note(&self, text: impl Display) {
        if self.talks() {
            self.line(format_args!("{text}"));
        }
    }

    /// Says what only `--verbose` asks for.
    pub(crate) fn detail(&self, text: impl Display) {
        if self.is_verbose() {
            self.line(format_args!("{text}"));
        }
    }

    pub(crate) fn warn(&self, text: impl Display) {
        if self.talks() {
            self.line(format_args!("{WARNING}warning:{WARNING:#} {text}"));
        }
    }

    pub(crate) fn hint(&self, text: impl Display) {
        if self.talks() {
            self.line(format_args!("{HINT}hint:{HINT:#} {text}"));
        }
    }

    /// Says why the program fails, whatever the verbosity.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        self.show_bar(None);
        self.line(format_args!("{ERROR}error:{ERROR:#} {}", failure::chain(error)));
        if let Some(hint) = failure::hint(error) {
            self.line(format_args!("{HINT}hint:{HINT:#} {hint}"));
        }
    }

    /// Runs `write` while no progress bar is on the screen.
    pub(crate) fn aside<R>(&self, write: impl FnOnce() -> R) -> R {
        let bar = self.lock().clone();
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Puts a bar in the place of the one shown so far.
    pub(crate) fn show_bar(&self, bar: Option<ProgressBar>) {
        let before = std::mem::replace(&mut *self.lock(), bar);
        if let Some(before) = before {
            before.finish_and_clear();
        }
    }

    pub(crate) fn advance_bar(&self, amount: u64) {
        if let Some(bar) = &*self.lock() {
            bar.inc(amount);
        }
    }

    fn line(&self, text: Arguments<'_>) {
        self.aside(|| {
            // Nobody is left to be told when stderr is closed.
            let _ = writeln!(anstream::stderr(), "{text}");
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<ProgressBar>> {
        self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
