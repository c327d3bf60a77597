//! Running the programs that fetch packages.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::{Progress, StoreError};

/// The number of lines of a failed program's output in an error.
const TAIL_LINES: usize = 8;
/// Bytes at the end of a failed program's output that are read.
const TAIL_BYTES: u64 = 16 << 10;

/// How a program ended.
pub(super) enum Outcome {
    Done,
    /// It failed: its exit status and the last lines of its output.
    Failed {
        status: String,
        tail: String,
    },
}

/// Runs a program to its end, or kills it when the work is cancelled. Its output goes to a file in `scratch`.
pub(super) fn run(
    command: &mut Command,
    what: &str,
    scratch: &Path,
    progress: &dyn Progress,
) -> Result<Outcome, StoreError> {
    let mut output = tempfile::tempfile_in(scratch).map_err(StoreError::io("create a file in", scratch))?;
    let handle = || output.try_clone().map(Stdio::from).map_err(StoreError::io("write", scratch));
    command.stdin(Stdio::null()).stdout(handle()?).stderr(handle()?);
    let mut child = command.spawn().map_err(StoreError::io("run", Path::new(command.get_program())))?;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if progress.cancelled() => {
                // A child that has already ended cannot be killed and need not be.
                let _ = child.kill();
                let _ = child.wait();
                return Err(StoreError::Cancelled { what: format!("fetching {what}") });
            }
            Ok(None) => thread::sleep(Duration::from_millis(50)),
            Err(error) => return Err(StoreError::io("wait for", Path::new(command.get_program()))(error)),
        }
    };
    if status.success() {
        return Ok(Outcome::Done);
    }
    let tail = tail(&mut output).map_err(StoreError::io("read", scratch))?;
    Ok(Outcome::Failed { status: status.to_string(), tail })
}

fn tail(output: &mut std::fs::File) -> std::io::Result<String> {
    let length = output.seek(SeekFrom::End(0))?;
    output.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    output.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::Silent;

    struct Impatient;

    impl Progress for Impatient {
        fn start(&self, _what: &str, _total: Option<u64>) {}
        fn advance(&self, _amount: u64) {}
        fn finish(&self) {}
        fn cancelled(&self) -> bool {
            true
        }
    }

    fn shell(script: &str, progress: &dyn Progress) -> Result<Outcome, StoreError> {
        let scratch = tempfile::tempdir().unwrap();
        run(Command::new("sh").args(["-c", script]), "a test", scratch.path(), progress)
    }

    #[test]
    fn an_error_shows_the_last_lines() {
        let Outcome::Failed { status, tail } =
            shell("for i in 1 2 3 4 5 6 7 8 9; do echo $i; echo; done; echo last >&2; exit 3", &Silent).unwrap()
        else {
            panic!("the script fails");
        };
        assert!(status.contains('3'), "{status}");
        assert_eq!(tail, "3\n4\n5\n6\n7\n8\n9\nlast");
        assert!(matches!(shell("true", &Silent), Ok(Outcome::Done)));
    }

    #[test]
    fn a_cancelled_program_is_killed() {
        let begin = std::time::Instant::now();
        assert!(shell("sleep 60", &Impatient).is_err_and(|error| error.is_cancelled()));
        assert!(begin.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_program_that_cannot_be_started_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        let outcome = run(&mut Command::new("/nomaly-no-such-program"), "a test", scratch.path(), &Silent);
        assert!(matches!(
            outcome,
            Err(StoreError::Io { action: "run", path, .. }) if path == Path::new("/nomaly-no-such-program")
        ));
    }
}
