//! Package clients in a folder with hostile files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nomaly_store::{Silent, Source, fetch};

/// Set in the process that fetches: the cache folder.
const CACHE: &str = "NOMALY_TEST_CACHE";
/// The requested package, which no index has.
const MANIFEST: &str = "kind='pypi'\npackage='nomaly-no-such-package'\nversion='1.0'\n\
                        file='nomaly_no_such_package-1.0-py3-none-any.whl'\n\
                        sha256='ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'";

/// Not a test by itself: [`fetch_from`] runs it in a separate process with its own working folder.
#[test]
fn fetches_where_a_test_asks_for_it() {
    let Some(cache) = std::env::var_os(CACHE) else { return };
    let source: Source = toml::from_str(MANIFEST).unwrap();
    let error = fetch(&source, Path::new(&cache), &Silent).expect_err("there is no such package");
    println!("fetching ended: {error}");
}

/// Fetches a package that does not exist with the working folder `folder`; returns the output.
fn fetch_from(folder: &Path, path: &str, cache: &Path) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "packages::fetches_where_a_test_asks_for_it", "--nocapture"])
        .current_dir(folder)
        .env("PATH", path)
        .env(CACHE, cache)
        .env("PYTHONPATH", folder)
        .env("PYTHONSTARTUP", folder.join("pip.py"))
        // Nothing listens there, and there are no retries.
        .env("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        .env("PIP_RETRIES", "0")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("fetching ended: "), "{text}");
    text
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A folder in which every file creates `SPRUNG` when it is run.
fn trap() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let sprung = folder.path().join("SPRUNG");
    let python = format!("open({:?}, 'w')\n", sprung.to_str().unwrap());
    for name in ["pip.py", "sitecustomize.py", "usercustomize.py", "runpy.py", "json.py"] {
        fs::write(folder.path().join(name), &python).unwrap();
    }
    fs::create_dir(folder.path().join("below")).unwrap();
    for name in ["python3", "python", "apt-get", "below/python3"] {
        script(&folder.path().join(name), &format!("#!/bin/sh\n: > '{}'\n", sprung.display()));
    }
    folder
}

#[test]
fn nothing_in_the_working_folder_is_run() {
    let (trap, cache) = (trap(), tempfile::tempdir().unwrap());
    let path = std::env::var("PATH").unwrap_or_default();
    let here = trap.path().display();
    let text = fetch_from(trap.path(), &format!(":.:below:{here}:{path}"), cache.path());
    assert!(!trap.path().join("SPRUNG").exists(), "{text}");
    assert_eq!(fs::read_dir(cache.path()).unwrap().filter(|entry| !is_lock(entry)).count(), 0);

    let text = fetch_from(trap.path(), &format!(":.:below:{here}"), cache.path());
    assert!(text.contains("python3 was not found"), "{text}");
    assert!(!trap.path().join("SPRUNG").exists(), "{text}");
}

fn is_lock(entry: &std::io::Result<fs::DirEntry>) -> bool {
    entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".lock")
}

#[test]
fn python_is_isolated_and_builds_nothing() {
    let (trap, cache, bin) = (trap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = bin.path().join("log");
    // An interpreter that prints its arguments.
    let report = "echo \"$*\"; pwd; env | grep '^PYTHON' | grep -v '^PYTHONPATH=$'; exit 7";
    script(&bin.path().join("python3"), &format!("#!/bin/sh\n{{ {report}; }} > '{}'\nexit 7\n", log.display()));
    let text = fetch_from(trap.path(), &format!("{}:/usr/bin:/bin", bin.path().display()), cache.path());
    assert!(text.contains("pip download failed (exit status: 7)"), "{text}");

    let log = fs::read_to_string(log).unwrap();
    let mut lines = log.lines();
    let arguments = lines.next().unwrap();
    assert!(arguments.starts_with("-I -m pip download --no-deps --only-binary=:all: --require-hashes "), "{arguments}");
    let folder = lines.next().unwrap();
    assert!(Path::new(folder).starts_with(fs::canonicalize(cache.path()).unwrap()), "{folder}");
    assert_eq!(lines.collect::<Vec<_>>(), [""; 0], "variables that change what Python runs");
}
