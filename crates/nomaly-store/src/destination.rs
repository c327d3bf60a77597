//! The kind of destination at the path of a file to be written.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

/// How bytes are written to a path.
#[derive(Debug)]
pub(crate) enum Destination {
    /// A new file replaces `place`, whose current metadata is `old`.
    Replace { place: PathBuf, old: Option<Box<Metadata>> },
    /// A character device or pipe, which is written directly.
    Direct,
}

impl Destination {
    /// Inspects a path without opening it. Symbolic links are followed.
    ///
    /// # Errors
    /// Folders, sockets, block devices, circular links, and folders without search permission.
    pub(crate) fn find(path: &Path) -> io::Result<Self> {
        let old = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self::Replace { place: end_of_links(path), old: None });
            }
            Err(error) => return Err(error),
        };
        if old.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
        }
        if old.is_file() {
            let is_link = fs::symlink_metadata(path)?.is_symlink();
            let place = if is_link { fs::canonicalize(path)? } else { path.to_owned() };
            return Ok(Self::Replace { place, old: Some(Box::new(old)) });
        }
        if let Some(kind) = refused_kind(&old) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is a {kind}")));
        }
        Ok(Self::Direct)
    }
}

/// The most links that are followed in a row, as on Linux.
const MAX_LINKS: usize = 40;

/// The target of a dangling link; the path itself if it is not a link.
fn end_of_links(path: &Path) -> PathBuf {
    let mut end = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&end) {
            Ok(next) => end = parent(&end).join(next),
            Err(_) => break,
        }
    }
    end
}

/// One spelling of the path that a file at `path` has or, once it is written, will have: absolute and without links.
///
/// The path itself if its folder does not exist.
pub fn canonical_place(path: &Path) -> PathBuf {
    let known = || fs::canonicalize(path).ok();
    let created = || {
        let end = end_of_links(path);
        Some(fs::canonicalize(parent(&end)).ok()?.join(end.file_name()?))
    };
    known().or_else(created).unwrap_or_else(|| path.to_owned())
}

/// The folder of a file: `.` for a bare file name.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The kind of a file that must not be written to.
fn refused_kind(metadata: &Metadata) -> Option<&'static str> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let kind = metadata.file_type();
        if kind.is_socket() {
            return Some("socket");
        }
        if kind.is_block_device() {
            return Some("block device, such as a disk");
        }
    }
    let _ = metadata;
    None
}

/// The permissions of a file, without the set-user-ID and set-group-ID bits.
pub(crate) fn mode_of(metadata: &Metadata) -> u32 {
    #[cfg(unix)]
    return std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
    #[cfg(not(unix))]
    {
        let _ = metadata;
        0o666
    }
}

/// Gives `file` the owner of `old`, if permitted, and the same permissions.
pub(crate) fn keep_owner_and_mode(file: &File, old: &Metadata) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
        let new = file.metadata()?;
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            // Only root may change the owner; others may set a group that they belong to.
            let _ = fchown(file, Some(old.uid()), Some(old.gid())).or_else(|_| fchown(file, None, Some(old.gid())));
        }
        file.set_permissions(fs::Permissions::from_mode(mode_of(old)))?;
    }
    #[cfg(not(unix))]
    let _ = (file, old);
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
    use std::process::Command;

    use super::*;
    use crate::{AtomicFile, StoreError, check_writable, write_atomic};

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[track_caller]
    fn is_refused(path: &Path, reason: &str) {
        for result in [check_writable(path), write_atomic(path, b"x"), AtomicFile::create(path).map(drop)] {
            match result {
                Err(StoreError::Io { action: "write", path: named, source }) => {
                    assert_eq!((named.as_path(), source.to_string().contains(reason)), (path, true), "{source}");
                }
                other => panic!("{}: {other:?}", path.display()),
            }
        }
    }

    #[test]
    fn links_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link, chain, dangling] =
            ["below/file", "link", "chain", "dangling"].map(|name| folder.path().join(name));
        fs::create_dir(folder.path().join("below")).unwrap();
        fs::write(&file, b"old").unwrap();
        symlink("below/file", &link).unwrap();
        symlink("link", &chain).unwrap();
        symlink("below/new", &dangling).unwrap();

        check_writable(&chain).unwrap();
        write_atomic(&chain, b"one").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"one");
        check_writable(&dangling).unwrap();
        assert!(!folder.path().join("below/new").exists(), "a check leaves no trace");
        write_atomic(&dangling, b"two").unwrap();
        assert_eq!(fs::read(folder.path().join("below/new")).unwrap(), b"two");
        for path in [&link, &chain, &dangling] {
            assert!(fs::symlink_metadata(path).unwrap().is_symlink(), "{}", path.display());
        }
        assert_eq!(names(folder.path()), ["below", "chain", "dangling", "link"]);
        assert_eq!(names(&folder.path().join("below")), ["file", "new"]);
    }

    #[test]
    fn a_place_has_one_spelling_before_and_after_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("below")).unwrap();
        symlink("below", at("folder")).unwrap();
        symlink("below/file", at("link")).unwrap();
        let spellings = ["below/file", "below/../below/./file", "folder/file", "link"].map(at);
        let expected = fs::canonicalize(at("below")).unwrap().join("file");
        for written in [false, true] {
            for spelling in &spellings {
                assert_eq!(canonical_place(spelling), expected, "{} written: {written}", spelling.display());
            }
            fs::write(&expected, b"x").unwrap();
        }
        assert_ne!(canonical_place(&at("file")), expected);
        assert_eq!(canonical_place(&at("absent/file")), at("absent/file"));
    }

    #[test]
    fn circles_folders_and_sockets_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let [circle, to_folder, socket] = ["circle", "to-folder", "socket"].map(|name| folder.path().join(name));
        symlink("circle", &circle).unwrap();
        symlink(folder.path(), &to_folder).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        is_refused(&circle, "symbolic links");
        is_refused(&to_folder, "it is a folder");
        is_refused(&socket, "it is a socket");
        assert!(fs::symlink_metadata(&socket).unwrap().file_type().is_socket());
        assert_eq!(names(folder.path()), ["circle", "socket", "to-folder"]);
    }

    #[test]
    fn a_file_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for before in [0o600, 0o640, 0o666, 0o444] {
            fs::write(&path, b"old").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(before)).unwrap();
            write_atomic(&path, b"new").unwrap();
            assert_eq!((mode(&path), fs::read(&path).unwrap().as_slice()), (before, &b"new"[..]));
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn nobody_reads_a_private_file_while_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let unfinished = AtomicFile::create(&path).unwrap();
        let temporary = names(folder.path()).into_iter().find(|name| name != "file").unwrap();
        assert_eq!(mode(&folder.path().join(temporary)), 0o600);
        drop(unfinished);
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn a_pipe_takes_the_bytes_and_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        // Opening it for writing would wait for a reader.
        check_writable(&path).unwrap();
        let reader = std::thread::spawn({
            let path = path.clone();
            move || {
                let mut bytes = Vec::new();
                File::open(path).unwrap().read_to_end(&mut bytes).map(|_| bytes)
            }
        });
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"through").unwrap();
        file.commit().unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), b"through");
        assert!(fs::symlink_metadata(&path).unwrap().file_type().is_fifo());
        assert_eq!(names(folder.path()), ["pipe"]);
    }

    #[test]
    fn a_pipe_whose_reader_has_gone_is_an_error_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let reader = std::thread::spawn({
            let path = path.clone();
            move || drop(File::open(path).unwrap())
        });
        let mut file = AtomicFile::create(&path).unwrap();
        reader.join().unwrap();
        let error = file.write_all(b"lost").unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::Other, "its reader has gone"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn devices_are_written_to_and_stay_devices() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("null");
        symlink("/dev/null", &link).unwrap();
        for path in [Path::new("/dev/null"), &link] {
            check_writable(path).unwrap();
            write_atomic(path, b"gone").unwrap();
            assert!(fs::metadata(path).unwrap().file_type().is_char_device());
        }
        check_writable(Path::new("/dev/full")).unwrap();
        match write_atomic(Path::new("/dev/full"), b"x") {
            Err(StoreError::Io { action: "write", path, source }) => {
                assert_eq!((path.as_path(), source.kind()), (Path::new("/dev/full"), io::ErrorKind::StorageFull));
            }
            other => panic!("{other:?}"),
        }
        assert!(fs::metadata("/dev/full").unwrap().file_type().is_char_device());
    }
}
