//! What is said on stderr: notes, warnings, errors, and the progress bars that they must not tear apart.

use std::fmt::{Arguments, Display};
use std::io::Write;
use std::sync::Mutex;

use indicatif::{MultiProgress, ProgressBar};

use crate::failure;
use crate::output::style::{ERROR, HINT, WARNING};

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// Errors, and what explains an exit status.
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
    /// What the terminal shows: the running bars below each other.
    screen: MultiProgress,
    /// The running bars; each belongs to a piece of the work of the one before.
    bars: Mutex<Vec<ProgressBar>>,
}

impl Console {
    pub(crate) fn new(verbosity: Verbosity) -> Self {
        Self { verbosity, screen: MultiProgress::new(), bars: Mutex::new(Vec::new()) }
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

    /// Warns of what no verbosity may hide, for it explains the exit status or takes the use from the result.
    pub(crate) fn alert(&self, text: impl Display) {
        self.line(format_args!("{WARNING}warning:{WARNING:#} {text}"));
    }

    pub(crate) fn hint(&self, text: impl Display) {
        if self.talks() {
            self.line(format_args!("{HINT}hint:{HINT:#} {text}"));
        }
    }

    /// Says why the program fails, whatever the verbosity.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        while self.finish_bar() {}
        self.line(format_args!("{ERROR}error:{ERROR:#} {}", failure::chain(error)));
        if let Some(hint) = failure::hint(error) {
            self.line(format_args!("{HINT}hint:{HINT:#} {hint}"));
        }
    }

    /// Runs `write` while no progress bar is on the screen.
    pub(crate) fn aside<R>(&self, write: impl FnOnce() -> R) -> R {
        if self.lock().is_empty() { write() } else { self.screen.suspend(write) }
    }

    /// Shows a bar below those that are running.
    pub(crate) fn start_bar(&self, bar: ProgressBar) {
        self.lock().push(self.screen.add(bar));
    }

    /// Names the work of the bar that was started last anew.
    pub(crate) fn describe_bar(&self, what: &str) {
        if let Some(bar) = self.lock().last() {
            bar.set_message(what.to_owned());
        }
    }

    /// Moves the bar that was started last.
    pub(crate) fn advance_bar(&self, amount: u64) {
        if let Some(bar) = self.lock().last() {
            bar.inc(amount);
        }
    }

    /// Takes the bar that was started last off the screen; says whether there was one.
    pub(crate) fn finish_bar(&self) -> bool {
        let last = self.lock().pop();
        if let Some(bar) = &last {
            bar.finish_and_clear();
            self.screen.remove(bar);
        }
        last.is_some()
    }

    fn line(&self, text: Arguments<'_>) {
        self.aside(|| {
            // Nobody is left to be told when stderr is closed.
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
