//! Downloads that succeed, break off, send wrong data and stall.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nomaly_store::{FetchOptions, Progress, Silent, Source, StoreError, fetch_any, fetch_with, sha256_hex};

use crate::server::{Request, Server, send, serve};

/// 300 000 bytes without a period of any block size in use.
fn body() -> Vec<u8> {
    (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn source(server: &Server, name: &str, body: &[u8], more: &str) -> Source {
    let address = &server.address;
    toml::from_str(&format!("kind='https'\nurl='{address}/{name}'\nsha256='{}'\n{more}", sha256_hex(body))).unwrap()
}

fn quick() -> FetchOptions {
    FetchOptions { attempts: 4, backoff: Duration::from_millis(5), timeout: Duration::from_secs(10) }
}

/// The names in a folder, without lock files.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.ends_with(".lock"));
    names.sort();
    names
}

fn ranges(server: &Server) -> Vec<Option<usize>> {
    server.requests().into_iter().map(|request| request.from).collect()
}

/// Fetches `body()` from a server and returns the server's requests.
#[track_caller]
fn check(
    left_over: &[u8],
    more: &str,
    answer: impl Fn(usize, &Request, &mut std::net::TcpStream) + Send + Sync + 'static,
) -> Vec<Option<usize>> {
    let folder = tempfile::tempdir().unwrap();
    if !left_over.is_empty() {
        fs::write(folder.path().join("a.bin.part"), left_over).unwrap();
    }
    let server = Server::start(answer);
    let path = fetch_with(&source(&server, "a.bin", &body(), more), folder.path(), &Silent, &quick()).unwrap();
    assert_eq!(path, folder.path().join("a.bin"));
    assert!(fs::read(path).unwrap() == body(), "the file differs");
    assert_eq!(names(folder.path()), ["a.bin"]);
    ranges(&server)
}

#[test]
fn a_plain_download_happens_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request, stream| serve(stream, request, &body()));
    let source = source(&server, "a.bin", &body(), "bytes = 300000");
    for _ in 0..2 {
        let path = fetch_with(&source, &folder.path().join("below"), &Silent, &quick()).unwrap();
        assert!(fs::read(path).unwrap() == body());
    }
    assert_eq!(server.requests(), [Request { path: "/a.bin".to_owned(), from: None }]);
}

#[test]
fn a_wrong_file_in_the_cache_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.bin"), b"rotten").unwrap();
    let server = Server::start(|_, request, stream| serve(stream, request, &body()));
    let path = fetch_with(&source(&server, "a.bin", &body(), ""), folder.path(), &Silent, &quick()).unwrap();
    assert!(fs::read(path).unwrap() == body());
}

#[test]
fn a_cut_connection_is_resumed() {
    let asked = check(b"", "", |number, request, stream| match number {
        0 => send(stream, "200 OK", "Content-Length: 300000\r\n", &body()[..100_000]),
        _ => serve(stream, request, &body()),
    });
    assert_eq!(asked.len(), 2);
    assert!(asked[1].is_some_and(|from| from > 0 && from <= 100_000), "{asked:?}");
}

#[test]
fn an_earlier_call_s_part_is_used() {
    let asked = check(&body()[..1234], "bytes = 300000", |_, request, stream| serve(stream, request, &body()));
    assert_eq!(asked, [Some(1234)]);
}

#[test]
fn a_part_that_is_complete_needs_no_more() {
    let asked = check(&body(), "", |_, request, stream| serve(stream, request, &body()));
    assert_eq!(asked, [Some(300_000)]);
    assert_eq!(check(&body(), "bytes = 300000", |_, _, _| panic!("not asked")), []);
}

#[test]
fn a_server_without_ranges_starts_over() {
    let asked =
        check(&body()[..1234], "", |_, _, stream| send(stream, "200 OK", "Content-Length: 300000\r\n", &body()));
    assert_eq!(asked, [Some(1234)]);
}

#[test]
fn another_range_than_asked_for_starts_over() {
    let asked = check(&body()[..1234], "", |number, request, stream| match number {
        0 => send(
            stream,
            "206 Partial Content",
            "Content-Length: 299999\r\nContent-Range: bytes 1-299999/300000\r\n",
            &body()[1..],
        ),
        _ => serve(stream, request, &body()),
    });
    assert_eq!(asked, [Some(1234), None]);
}

#[test]
fn a_part_longer_than_the_file_starts_over() {
    let asked = check(&[7; 300_001], "", |_, request, stream| serve(stream, request, &body()));
    assert_eq!(asked, [Some(300_001), None]);
    let asked = check(&[7; 300_001], "bytes = 300000", |_, request, stream| serve(stream, request, &body()));
    assert_eq!(asked, [None]);
}

#[test]
fn a_part_of_another_file_starts_over() {
    let asked = check(&[7; 1000], "", |_, request, stream| serve(stream, request, &body()));
    assert_eq!(asked, [Some(1000), None]);
}

#[test]
fn a_body_of_unknown_length_is_taken_to_its_end() {
    check(b"", "", |_, _, stream| send(stream, "200 OK", "", &body()));
}

#[test]
fn a_server_in_trouble_is_asked_again() {
    let asked = check(b"", "", |number, request, stream| match number {
        0 => send(stream, "503 Service Unavailable", "Content-Length: 0\r\n", b""),
        1 => send(stream, "429 Too Many Requests", "Content-Length: 0\r\n", b""),
        _ => serve(stream, request, &body()),
    });
    assert_eq!(asked, [None, None, None]);
}

#[test]
fn wrong_bytes_are_removed_and_both_hashes_shown() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request, stream| serve(stream, request, b"something else"));
    let error =
        fetch_with(&source(&server, "a.bin", &body(), ""), folder.path(), &Silent, &quick()).unwrap_err().to_string();
    for part in [server.address.as_str(), &sha256_hex(&body()), &sha256_hex(b"something else")] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_prefix_is_enough_where_no_more_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request, stream| serve(stream, request, &body()));
    let with = |prefix: &str| {
        let address = &server.address;
        toml::from_str::<Source>(&format!("kind='https'\nurl='{address}/a.bin'\nsha256_prefix='{prefix}'")).unwrap()
    };
    let wrong = fetch_with(&with("00000000"), folder.path(), &Silent, &quick());
    assert!(matches!(wrong, Err(StoreError::HashMismatch { .. })), "{wrong:?}");
    fetch_with(&with(&sha256_hex(&body())[..8]), folder.path(), &Silent, &quick()).unwrap();
}

#[test]
fn a_wrong_size_is_noticed_before_the_bytes_come() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request, stream| serve(stream, request, &body()));
    let source = source(&server, "a.bin", &body(), "bytes = 299999");
    let error = fetch_with(&source, folder.path(), &Silent, &quick());
    assert!(matches!(error, Err(StoreError::SizeMismatch { expected: 299_999, found: 300_000, .. })), "{error:?}");
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_missing_file_is_not_asked_for_twice() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _, stream| send(stream, "404 Not Found", "Content-Length: 0\r\n", b""));
    let error = fetch_with(&source(&server, "a.bin", b"", ""), folder.path(), &Silent, &quick());
    assert!(matches!(error, Err(StoreError::Http { status: 404, .. })), "{error:?}");
    assert_eq!(server.requests().len(), 1);
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_loopback_address_is_not_redirected() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _, stream| {
        send(stream, "302 Found", "Location: http://127.0.0.1:1/b\r\nContent-Length: 0\r\n", b"");
    });
    let error = fetch_with(&source(&server, "a.bin", b"", ""), folder.path(), &Silent, &quick());
    assert!(matches!(error, Err(StoreError::Http { status: 302, .. })), "{error:?}");
}

#[test]
fn attempts_without_progress_end() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _, stream| send(stream, "500 Internal Server Error", "Content-Length: 0\r\n", b""));
    let error = fetch_with(&source(&server, "a.bin", b"", ""), folder.path(), &Silent, &quick());
    assert!(matches!(error, Err(StoreError::Http { status: 500, .. })), "{error:?}");
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn a_stalled_server_times_out() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _, stream| {
        send(stream, "200 OK", "Content-Length: 300000\r\n", &body()[..10]);
        thread::sleep(Duration::from_secs(20));
    });
    let options = FetchOptions { attempts: 1, timeout: Duration::from_millis(200), ..quick() };
    let begin = Instant::now();
    let error = fetch_with(&source(&server, "a.bin", &body(), ""), folder.path(), &Silent, &options);
    assert!(matches!(error, Err(StoreError::Transfer { .. })), "{error:?}");
    assert!(begin.elapsed() < Duration::from_secs(15));
    assert_eq!(fs::read(folder.path().join("a.bin.part")).unwrap(), &body()[..10]);
}

/// Cancels once some bytes have arrived, and counts calls.
#[derive(Default)]
struct Watch {
    cancel: AtomicBool,
    bytes: AtomicU64,
    log: Mutex<Vec<String>>,
}

impl Progress for Watch {
    fn start(&self, what: &str, total: Option<u64>) {
        self.log.lock().unwrap().push(format!("start {what} {total:?}"));
    }
    fn advance(&self, amount: u64) {
        self.bytes.fetch_add(amount, Ordering::Relaxed);
    }
    fn finish(&self) {
        self.log.lock().unwrap().push("finish".to_owned());
    }
    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed) && self.bytes.load(Ordering::Relaxed) > 0
    }
}

#[test]
fn cancelling_does_not_wait_for_a_slow_server() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _, stream| {
        send(stream, "200 OK", "Content-Length: 300000\r\n", &body()[..5000]);
        thread::sleep(Duration::from_secs(20));
    });
    let watch = Watch { cancel: true.into(), ..Watch::default() };
    let begin = Instant::now();
    let error = fetch_with(&source(&server, "a.bin", &body(), ""), folder.path(), &watch, &quick()).unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(8));
    assert_eq!(names(folder.path()), ["a.bin.part"]);
}

#[test]
fn progress_counts_every_byte() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.bin.part"), &body()[..1000]).unwrap();
    let server = Server::start(|_, request, stream| serve(stream, request, &body()));
    let watch = Watch::default();
    fetch_with(&source(&server, "a.bin", &body(), ""), folder.path(), &watch, &quick()).unwrap();
    assert_eq!(watch.bytes.load(Ordering::Relaxed), 300_000);
    assert_eq!(*watch.log.lock().unwrap(), ["start a.bin Some(300000)", "finish"]);
}

#[test]
fn two_at_once_download_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request, stream| {
        thread::sleep(Duration::from_millis(100));
        serve(stream, request, &body());
    });
    let source = source(&server, "a.bin", &body(), "");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| fetch_with(&source, folder.path(), &Silent, &quick()).unwrap());
        }
    });
    assert_eq!(server.requests().len(), 1);
    assert_eq!(names(folder.path()), ["a.bin"]);
}

#[test]
fn the_first_source_that_works_is_used_and_all_errors_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request, stream| match request.path.as_str() {
        "/a.bin" => serve(stream, request, &body()),
        _ => send(stream, "404 Not Found", "Content-Length: 0\r\n", b""),
    });
    let at = |name| source(&server, name, &body(), "");
    let sources = [at("gone"), at("a.bin"), at("never")];
    let (path, used) = fetch_any("the weights", &sources, folder.path(), &Silent).unwrap();
    assert_eq!((path, used), (folder.path().join("a.bin"), &sources[1]));
    assert_eq!(server.requests().len(), 2);

    let sources = [at("gone"), at("also-gone")];
    let error = fetch_any("the weights", &sources, folder.path(), &Silent).unwrap_err().to_string();
    assert!(error.starts_with("no source of the weights worked"), "{error}");
    assert!(error.contains("/gone: ") && error.contains("/also-gone: "), "{error}");
}
