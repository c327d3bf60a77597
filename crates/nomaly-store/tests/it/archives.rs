//! Archives of every kind, valid and hostile.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use lzma_rust2::{XzOptions, XzWriter};
use nomaly_store::archive::{ArchiveLimits, extract, read_member};
use nomaly_store::{Progress, Silent, StoreError};

fn tar(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, text) in entries {
        let mut header = tar::Header::new_gnu();
        // Written into the header directly, because the builder rejects the bad names that these tests need.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        header.set_entry_type(if name.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular });
        header.set_cksum();
        builder.append(&header, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn tar_link(kind: tar::EntryType, target: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(0o644);
    builder.append_link(&mut header, "link", target).unwrap();
    builder.into_inner().unwrap()
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = XzWriter::new(Vec::new(), XzOptions::with_preset(1)).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in entries {
        let options = zip::write::SimpleFileOptions::default();
        if name.ends_with('/') {
            writer.add_directory(*name, options).unwrap();
        } else {
            writer.start_file(*name, options).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
    }
    writer.finish().unwrap().into_inner()
}

fn deb(data_name: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, content) in [("debian-binary", &b"2.0\n"[..]), ("control.tar.xz", b"odd"), (data_name, data)] {
        bytes.extend_from_slice(
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len()).as_bytes(),
        );
        bytes.extend_from_slice(content);
        if content.len() % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    bytes
}

const GOOD: [(&str, &str); 3] = [("./a/", ""), ("./a/one.txt", "one"), ("two.txt", "two two")];

/// Files below a folder with their texts, sorted.
fn tree(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(folder).unwrap().to_owned(), text));
            }
        }
    }
    files.sort();
    files
}

/// Extracts bytes as a file called `name`; on failure checks that nothing was left behind.
fn unpack(name: &str, bytes: &[u8], limits: &ArchiveLimits) -> Result<Vec<(PathBuf, String)>, StoreError> {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join(name);
    fs::write(&archive, bytes).unwrap();
    let target = folder.path().join("out");
    let result = extract(&archive, &target, limits, &Silent).map(|()| tree(&target));
    let left = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, if result.is_ok() { 2 } else { 1 }, "files were left behind");
    result
}

#[test]
fn every_kind_gives_the_same_files() {
    let expected =
        vec![(PathBuf::from("a/one.txt"), "one".to_owned()), (PathBuf::from("two.txt"), "two two".to_owned())];
    let tar = tar(&GOOD);
    let kinds: [(&str, Vec<u8>); 8] = [
        ("x.tar", tar.clone()),
        ("x.tar.gz", gz(&tar)),
        ("x.tar.xz", xz(&tar)),
        ("x.zip", zip(&GOOD)),
        ("x.whl", zip(&GOOD)),
        ("plain.deb", deb("data.tar", &tar)),
        ("gz.deb", deb("data.tar.gz/", &gz(&tar))),
        ("xz.deb", deb("data.tar.xz", &xz(&tar))),
    ];
    for (name, bytes) in kinds {
        assert_eq!(unpack(name, &bytes, &ArchiveLimits::default()).unwrap(), expected, "{name}");
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join(name);
        fs::write(&archive, bytes).unwrap();
        assert_eq!(read_member(&archive, "a/one.txt", 3).unwrap(), b"one", "{name}");
        assert_eq!(read_member(&archive, "./two.txt", 7).unwrap(), b"two two", "{name}");
        assert!(matches!(read_member(&archive, "two.txt", 6), Err(StoreError::LimitExceeded { limit: 6, .. })));
        for absent in ["a", "three.txt", "../x"] {
            assert!(matches!(read_member(&archive, absent, 9), Err(StoreError::MemberMissing { .. })), "{absent}");
        }
    }
}

#[test]
fn a_single_compressed_file_loses_its_extension() {
    for (name, bytes) in [("labels.gz", gz(b"text")), ("labels.xz", xz(b"text"))] {
        let files = unpack(name, &bytes, &ArchiveLimits::default()).unwrap();
        assert_eq!(files, [(PathBuf::from("labels"), "text".to_owned())]);
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in ["../evil", "/evil", "a/../../evil", "a\\..\\evil", "C:evil"] {
        for bytes in [tar(&[("good", "x"), (name, "x")]), zip(&[("good", "x"), (name, "x")])] {
            let error = unpack("x", &bytes, &ArchiveLimits::default()).unwrap_err();
            assert!(matches!(&error, StoreError::UnsafeEntry { entry, .. } if entry.contains("evil")), "{error}");
        }
    }
}

#[test]
fn links_and_devices_are_refused() {
    for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Fifo] {
        let error = unpack("x.tar", &tar_link(kind, "/etc/passwd"), &ArchiveLimits::default()).unwrap_err();
        assert!(matches!(&error, StoreError::UnsafeEntry { entry, .. } if entry == "link"), "{error}");
    }
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    writer.add_symlink("link", "/etc/passwd", zip::write::SimpleFileOptions::default()).unwrap();
    let error = unpack("x.zip", &writer.finish().unwrap().into_inner(), &ArchiveLimits::default()).unwrap_err();
    assert!(error.to_string().ends_with("is a link"), "{error}");
}

#[test]
fn an_entry_that_appears_twice_is_refused() {
    let error = unpack("x.tar", &tar(&[("a", "1"), ("a", "2")]), &ArchiveLimits::default()).unwrap_err();
    assert!(matches!(error, StoreError::UnsafeEntry { .. }), "{error}");
}

#[test]
fn limits_hold_while_unpacking() {
    let bomb = gz(&tar(&[("zeros", &"\0".repeat(1 << 20))]));
    let limits = ArchiveLimits { max_bytes: 1 << 16, ..ArchiveLimits::default() };
    let error = unpack("x.tar.gz", &bomb, &limits).unwrap_err();
    assert!(matches!(error, StoreError::LimitExceeded { unit: "bytes", .. }), "{error}");
    let limits = ArchiveLimits { max_entries: 2, ..ArchiveLimits::default() };
    for bytes in [tar(&GOOD), zip(&GOOD)] {
        let error = unpack("x", &bytes, &limits).unwrap_err();
        assert!(matches!(error, StoreError::LimitExceeded { limit: 2, unit: "entries", .. }), "{error}");
    }
    let exact = ArchiveLimits { max_entries: 3, max_bytes: 10 };
    assert_eq!(unpack("x.tar", &tar(&GOOD), &exact).unwrap().len(), 2);
}

#[test]
fn damage_and_foreign_files_are_told_apart() {
    for bytes in [&gz(&tar(&GOOD))[..60], &xz(&tar(&GOOD))[..60], &tar(&GOOD)[..1500], &zip(&GOOD)[..60]] {
        let error = unpack("x", bytes, &ArchiveLimits::default()).unwrap_err();
        assert!(matches!(error, StoreError::DamagedArchive { .. }), "{error}");
    }
    let zstd = deb("data.tar.zst", &[0x28, 0xb5, 0x2f, 0xfd, 0, 0]);
    for (bytes, part) in [
        (&b""[..], "not an archive of a known kind"),
        (b"just text", "not an archive of a known kind"),
        (b"BZh91AY", "bzip2"),
        (&zstd, "zstd"),
        (b"!<arch>\n", "without data.tar"),
    ] {
        let error = unpack("x", bytes, &ArchiveLimits::default()).unwrap_err();
        assert!(matches!(error, StoreError::UnsupportedArchive { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_folder_that_is_there_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("x.tar");
    fs::write(&archive, tar(&GOOD)).unwrap();
    let target = folder.path().join("deep/er/out");
    extract(&archive, &target, &ArchiveLimits::default(), &Silent).unwrap();
    fs::remove_file(target.join("two.txt")).unwrap();
    extract(&archive, &target, &ArchiveLimits::default(), &Silent).unwrap();
    assert_eq!(tree(&target).len(), 1);
}

struct Stopped;

impl Progress for Stopped {
    fn start(&self, _what: &str, _total: Option<u64>) {}
    fn advance(&self, _amount: u64) {}
    fn finish(&self) {}
    fn cancelled(&self) -> bool {
        true
    }
}

#[test]
fn extraction_can_be_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("x.tar");
    fs::write(&archive, tar(&GOOD)).unwrap();
    let error = extract(&archive, &folder.path().join("out"), &ArchiveLimits::default(), &Stopped).unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
