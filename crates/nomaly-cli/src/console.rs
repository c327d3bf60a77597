//! Output on stderr: notes, warnings, errors, and progress bars, which must not interleave.

use std::fmt::{Arguments, Display};
use std::io::Write;
use std::sync::Mutex;

use indicatif::{MultiProgress, ProgressBar};

use crate::failure;
use crate::output::style::{ERROR, HINT, WARNING};

/// The verbosity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// Errors, and warnings that explain the exit status.
    Quiet,
    /// Results, warnings, progress.
    Normal,
    /// Details too.
    Verbose,
}

/// The stderr of one run.
#[derive(Debug)]
pub(crate) struct Console {
    verbosity: Verbosity,
    /// The running bars on the terminal.
    screen: MultiProgress,
    /// The running bars; each is for a part of the previous bar's work.
    bars: Mutex<Vec<ProgressBar>>,
}

impl Console {
    pub(crate) fn new(verbosity: Verbosity) -> Self {
        Self { verbosity, screen: MultiProgress::new(), bars: Mutex::new(Vec::new()) }
    }

    /// Whether progress bars, notes and warnings are shown.
    pub(crate) fn shows_notes(&self) -> bool {
        self.verbosity >= Verbosity::Normal
    }

    pub(crate) fn is_verbose(&self) -> bool {
        self.verbosity >= Verbosity::Verbose
    }

    /// Prints a note.
    pub(crate) fn note(&self, text: impl Display) {
        if self.shows_notes() {
            self.line(format_args!("{text}"));
        }
    }

    /// Prints a detail, with `--verbose` only.
    pub(crate) fn detail(&self, text: impl Display) {
        if self.is_verbose() {
            self.line(format_args!("{text}"));
        }
    }

    pub(crate) fn warn(&self, text: impl Display) {
        if self.shows_notes() {
            self.line(format_args!("{WARNING}warning:{WARNING:#} {text}"));
        }
    }

    /// Prints a warning at any verbosity, because it explains the exit status or invalidates the result.
    pub(crate) fn alert(&self, text: impl Display) {
        self.line(format_args!("{WARNING}warning:{WARNING:#} {text}"));
    }

    pub(crate) fn hint(&self, text: impl Display) {
        if self.shows_notes() {
            self.line(format_args!("{HINT}hint:{HINT:#} {text}"));
        }
    }

    /// Prints the error of the program, at any verbosity.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        while self.finish_bar() {}
        self.line(format_args!("{ERROR}error:{ERROR:#} {}", failure::chain(error)));
        if let Some(hint) = failure::hint(error) {
            self.line(format_args!("{HINT}hint:{HINT:#} {hint}"));
        }
    }

    /// Runs `write` with the progress bars hidden.
    pub(crate) fn suspend_bars<R>(&self, write: impl FnOnce() -> R) -> R {
        if self.lock().is_empty() { write() } else { self.screen.suspend(write) }
    }

    /// Shows a bar below the running ones.
    pub(crate) fn start_bar(&self, bar: ProgressBar) {
        self.lock().push(self.screen.add(bar));
    }

    /// Renames the work of the last started bar.
    pub(crate) fn describe_bar(&self, what: &str) {
        if let Some(bar) = self.lock().last() {
            bar.set_message(what.to_owned());
        }
    }

    /// Advances the last started bar.
    pub(crate) fn advance_bar(&self, amount: u64) {
        if let Some(bar) = self.lock().last() {
            bar.inc(amount);
        }
    }

    /// Removes the last started bar; returns whether there was one.
    pub(crate) fn finish_bar(&self) -> bool {
        let last = self.lock().pop();
        if let Some(bar) = &last {
            bar.finish_and_clear();
            self.screen.remove(bar);
        }
        last.is_some()
    }

    fn line(&self, text: Arguments<'_>) {
        self.suspend_bars(|| {
            // Ignore errors if stderr is closed.
            let _ = writeln!(anstream::stderr(), "{text}");
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<ProgressBar>> {
        self.bars.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_goes_on_when_the_one_inside_it_has_finished() {
        let console = Console::new(Verbosity::Normal);
        let (outer, inner) = (ProgressBar::hidden(), ProgressBar::hidden());
        console.start_bar(outer.clone());
        console.advance_bar(2);
        console.start_bar(inner.clone());
        console.advance_bar(5);
        assert_eq!((outer.position(), inner.position()), (2, 5));
        assert!(console.finish_bar());
        assert!(inner.is_finished() && !outer.is_finished());
        console.advance_bar(1);
        assert_eq!((outer.position(), inner.position()), (3, 5));
        assert!(console.finish_bar());
        assert!(outer.is_finished());
        assert!(!console.finish_bar());
    }
}
