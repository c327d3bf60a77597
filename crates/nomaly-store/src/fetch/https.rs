//! Resumable downloads.

use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, StatusCode, header};

use super::FetchOptions;
use super::part::Part;
use crate::source::is_loopback;
use crate::{Check, Progress, StoreError};

/// The interval between checks for cancellation while no data arrive.
const TICK: Duration = Duration::from_millis(50);

/// The limit on a download without a declared size.
const CEILING: u64 = 256 << 30;

pub(super) struct Download<'a> {
    pub(super) url: &'a str,
    pub(super) check: &'a Check,
    pub(super) bytes: Option<u64>,
    pub(super) target: &'a Path,
}

/// Why one request did not complete the file.
enum Failure {
    /// A retry may succeed.
    Transient(StoreError),
    /// A retry is pointless.
    Final(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Final(error)
    }
}

/// Downloads into `target`, which is written only if size and SHA-256 match.
pub(super) fn download(
    download: &Download<'_>,
    progress: &dyn Progress,
    options: &FetchOptions,
) -> Result<(), StoreError> {
    let mut part = Part::open(download.target)?;
    // Bytes of an earlier call may belong to another version of the file, so a mismatch restarts the download.
    let mut resumed = part.length() > 0;
    let mut failures = 0;
    loop {
        let before = part.length();
        match request(download, &mut part, progress, options) {
            Ok(()) => {
                let found = part.sha256();
                if download.check.accepts(&found) {
                    return part.finish(download.target);
                }
                if resumed {
                    resumed = false;
                    part.clear()?;
                    continue;
                }
                part.remove()?;
                let (what, expected) = (download.url.to_owned(), download.check.to_string());
                return Err(StoreError::HashMismatch { what, expected, found });
            }
            Err(Failure::Transient(error)) => {
                failures = if part.length() > before { 1 } else { failures + 1 };
                if failures >= options.attempts {
                    return give_up(part, error);
                }
                let pause = options.backoff.saturating_mul(1 << (failures - 1).min(10));
                if let Err(error) = wait(pause, download, progress) {
                    return give_up(part, error);
                }
            }
            Err(Failure::Final(error)) => return give_up(part, error),
        }
    }
}

/// Keeps a nonempty part for a later call to resume.
fn give_up(part: Part, error: StoreError) -> Result<(), StoreError> {
    if part.length() == 0 {
        part.remove()?;
    }
    Err(error)
}

fn cancelled(download: &Download<'_>) -> StoreError {
    StoreError::Cancelled { what: format!("the download of {}", download.url) }
}

fn wait(pause: Duration, download: &Download<'_>, progress: &dyn Progress) -> Result<(), StoreError> {
    let end = Instant::now() + pause;
    loop {
        if progress.cancelled() {
            return Err(cancelled(download));
        }
        match end.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => thread::sleep(left.min(TICK)),
            _ => return Ok(()),
        }
    }
}

/// An event from the thread that waits for the server.
enum Event {
    Head(StatusCode, HeaderMap),
    Bytes(Vec<u8>),
    End,
    Failed { reason: String, transient: bool },
}

/// One request: requests the missing bytes and appends those that arrive.
///
/// The connection has its own thread, because a blocking read cannot be cancelled. A thread without a receiver ends
/// with its next event or timeout.
fn request(
    download: &Download<'_>,
    part: &mut Part,
    progress: &dyn Progress,
    options: &FetchOptions,
) -> Result<(), Failure> {
    if progress.cancelled() {
        return Err(cancelled(download).into());
    }
    if download.bytes.is_some_and(|bytes| part.length() > bytes) {
        part.clear()?;
    }
    if part.length() > 0 && download.bytes == Some(part.length()) {
        return Ok(());
    }
    let (sender, events) = sync_channel(4);
    let (url, offset, timeout) = (download.url.to_owned(), part.length(), options.timeout);
    thread::Builder::new()
        .name("nomaly-download".to_owned())
        .spawn(move || converse(&url, offset, timeout, &sender))
        .map_err(|error| transfer(download, error.to_string()))?;

    let total = match next(&events, download, progress)? {
        Event::Head(status, headers) => accept(status, &headers, download, part)?,
        Event::Failed { reason, transient } => return Err(failure(download, reason, transient)),
        Event::Bytes(_) | Event::End => return Err(Failure::Transient(transfer(download, "no answer".to_owned()))),
    };
    if part.length() > 0 && total == Some(part.length()) {
        return Ok(());
    }
    if let (Some(found), Some(expected)) = (total, download.bytes)
        && found != expected
    {
        return Err(StoreError::SizeMismatch { what: download.url.to_owned(), expected, found }.into());
    }
    let name = download.target.file_name().unwrap_or_default().to_string_lossy();
    progress.start(&name, total.or(download.bytes));
    progress.advance(part.length());
    let result = receive(&events, total, download, part, progress);
    progress.finish();
    result
}

/// Interprets a response, and returns the size of the whole file if the server sends it.
fn accept(
    status: StatusCode,
    headers: &HeaderMap,
    download: &Download<'_>,
    part: &mut Part,
) -> Result<Option<u64>, Failure> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let again = |reason: &str| Failure::Transient(transfer(download, reason.to_owned()));
    match status {
        StatusCode::OK => {
            // The server ignores the requested range and sends the whole file.
            part.clear()?;
            Ok(text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok()))
        }
        StatusCode::PARTIAL_CONTENT => match text(header::CONTENT_RANGE).and_then(content_range) {
            Some((Some(start), total)) if start == part.length() => Ok(total),
            _ => {
                part.clear()?;
                Err(again("the server sent another range than the one asked for"))
            }
        },
        StatusCode::RANGE_NOT_SATISFIABLE if part.length() > 0 => {
            match text(header::CONTENT_RANGE).and_then(content_range) {
                Some((None, Some(total))) if total == part.length() => Ok(Some(total)),
                _ => {
                    part.clear()?;
                    Err(again("the server does not have the rest of the file"))
                }
            }
        }
        _ => {
            let error = StoreError::Http { url: download.url.to_owned(), status: status.as_u16() };
            let transient = status.is_server_error()
                || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
            Err(if transient { Failure::Transient(error) } else { Failure::Final(error) })
        }
    }
}

/// Reads `bytes START-END/TOTAL` and `bytes */TOTAL`; an unknown total is `*`.
fn content_range(value: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    let start = match range.trim() {
        "*" => None,
        range => Some(range.split_once('-')?.0.parse().ok()?),
    };
    Some((start, total))
}

fn receive(
    events: &Receiver<Event>,
    total: Option<u64>,
    download: &Download<'_>,
    part: &mut Part,
    progress: &dyn Progress,
) -> Result<(), Failure> {
    let limit = total.or(download.bytes).unwrap_or(CEILING);
    loop {
        match next(events, download, progress)? {
            Event::Bytes(bytes) => {
                let found = part.length() + bytes.len() as u64;
                if found > limit {
                    part.clear()?;
                    return Err(
                        StoreError::SizeMismatch { what: download.url.to_owned(), expected: limit, found }.into()
                    );
                }
                part.append(&bytes)?;
                progress.advance(bytes.len() as u64);
            }
            Event::End => {
                return match total.or(download.bytes) {
                    Some(expected) if part.length() < expected => {
                        let reason = format!("the connection ended after {} of {expected} bytes", part.length());
                        Err(Failure::Transient(transfer(download, reason)))
                    }
                    _ => Ok(()),
                };
            }
            Event::Failed { reason, transient } => return Err(failure(download, reason, transient)),
            Event::Head(..) => {}
        }
    }
}

fn next(events: &Receiver<Event>, download: &Download<'_>, progress: &dyn Progress) -> Result<Event, Failure> {
    loop {
        if progress.cancelled() {
            return Err(cancelled(download).into());
        }
        match events.recv_timeout(TICK) {
            Ok(event) => return Ok(event),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::Transient(transfer(download, "the connection was lost".to_owned())));
            }
        }
    }
}

fn transfer(download: &Download<'_>, reason: String) -> StoreError {
    StoreError::Transfer { url: download.url.to_owned(), reason }
}

fn failure(download: &Download<'_>, reason: String, transient: bool) -> Failure {
    let error = transfer(download, reason);
    if transient { Failure::Transient(error) } else { Failure::Final(error) }
}

/// Talks to the server until the body has ended or the receiver is gone.
fn converse(url: &str, offset: u64, timeout: Duration, events: &SyncSender<Event>) {
    let loopback = is_loopback(url);
    let mut config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .https_only(!loopback)
        .user_agent(concat!("nomaly/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(timeout))
        .timeout_connect(Some(timeout))
        .timeout_recv_response(Some(timeout))
        .timeout_per_read(Some(timeout));
    if loopback {
        // A server on this machine is never reached through a proxy and must not redirect the request.
        config = config.proxy(None).max_redirects(0).max_redirects_will_error(false);
    }
    let agent = ureq::Agent::new_with_config(config.build());
    // Compressed transfer would change the meaning of sizes and ranges.
    let mut request = agent.get(url).header(header::ACCEPT_ENCODING, "identity");
    if offset > 0 {
        request = request.header(header::RANGE, format!("bytes={offset}-"));
    }
    let response = match request.call() {
        Ok(response) => response,
        Err(error) => {
            let event = Event::Failed { transient: is_transient(&error), reason: error.to_string() };
            // Nobody needs the event if the receiver is gone; likewise below.
            let _ = events.send(event);
            return;
        }
    };
    let (head, body) = response.into_parts();
    if events.send(Event::Head(head.status, head.headers)).is_err() {
        return;
    }
    let mut reader = body.into_reader();
    loop {
        let mut bytes = vec![0; 1 << 16];
        let event = match reader.read(&mut bytes) {
            Ok(0) => Event::End,
            Ok(count) => {
                bytes.truncate(count);
                Event::Bytes(bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Event::Failed { reason: error.to_string(), transient: true },
        };
        let last = !matches!(event, Event::Bytes(_));
        if events.send(event).is_err() || last {
            return;
        }
    }
}

fn is_transient(error: &ureq::Error) -> bool {
    matches!(
        error,
        ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed | ureq::Error::Protocol(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_writes_them() {
        assert_eq!(content_range("bytes 5-9/10"), Some((Some(5), Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((Some(5), None)));
        assert_eq!(content_range("bytes */10"), Some((None, Some(10))));
        for wrong in ["", "bytes", "bytes 5/10", "lines 5-9/10", "bytes 5-9", "bytes -9/10", "bytes 5-9/x"] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }
}
