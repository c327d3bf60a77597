//! SHA-256 of files and bytes, and checksums in manifests.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::StoreError;

/// The SHA-256 of some bytes as 64 lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Forwards bytes to a writer and computes their SHA-256.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    hasher: Sha256,
}

impl<W: Write> HashingWriter<W> {
    /// Hashes everything written to `inner` from now on.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::default() }
    }

    /// The writer, and the SHA-256 of the written bytes.
    pub fn finish(self) -> (W, [u8; 32]) {
        (self.inner, self.hasher.finalize().into())
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The SHA-256 of a file as 64 lower-case hexadecimal digits.
///
/// # Errors
/// [`StoreError::Io`] if the file cannot be read.
pub fn sha256_file(path: &Path) -> Result<String, StoreError> {
    let mut file = File::open(path).map_err(StoreError::io("open", path))?;
    let mut hasher = Hasher::default();
    hasher.update_from(&mut file).map_err(StoreError::io("read", path))?;
    Ok(hasher.hex())
}

/// A running SHA-256.
#[derive(Clone, Default)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Hashes a reader to its end; returns the number of bytes.
    pub(crate) fn update_from(&mut self, reader: &mut dyn Read) -> io::Result<u64> {
        let mut buffer = vec![0; 1 << 16];
        let mut total = 0;
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => return Ok(total),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.update(&buffer[..count]);
            total += count as u64;
        }
    }

    pub(crate) fn hex(&self) -> String {
        hex(&self.0.clone().finalize())
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A SHA-256 in a manifest: 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256Digest(String);

/// The first digits of a SHA-256: 8 to 63 lower-case hexadecimal digits.
///
/// Some publishers give only the first eight digits of the hash, in the file's name (`resnet18-f37072fd.pth`; PyTorch's
/// own downloader checks only those). A prefix detects accidents, not forgeries: eight digits can be forged with a few
/// billion attempts. Use the whole digest if it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256Prefix(String);

macro_rules! hexadecimal {
    ($name:ident, $lengths:pat, $message:literal) => {
        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text.len() {
                    $lengths if is_hex(text) => Ok(Self(text.to_owned())),
                    _ => Err(format!(concat!("{:?} is not ", $message), text)),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

hexadecimal!(Sha256Digest, 64, "a SHA-256 (64 lower-case hexadecimal digits)");
hexadecimal!(Sha256Prefix, 8..=63, "the beginning of a SHA-256 (8 to 63 lower-case hexadecimal digits)");

/// The known SHA-256 of a file or its prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// The whole digest.
    Sha256(Sha256Digest),
    /// Its first digits, see [`Sha256Prefix`].
    Prefix(Sha256Prefix),
}

impl Check {
    /// Whether a SHA-256 in the form of [`sha256_hex`] is the expected one.
    pub fn accepts(&self, sha256: &str) -> bool {
        match self {
            Self::Sha256(digest) => digest.0 == sha256,
            Self::Prefix(prefix) => sha256.starts_with(&prefix.0),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => digest.fmt(formatter),
            Self::Prefix(prefix) => write!(formatter, "{prefix}…"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn the_standard_s_example() {
        assert_eq!(sha256_hex(b"abc"), ABC);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(sha256_file(&path).unwrap(), ABC);
        assert!(sha256_file(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
    }

    #[test]
    fn only_digests_are_digests() {
        assert!(ABC.parse::<Sha256Digest>().is_ok());
        for wrong in ["", &ABC[1..], &ABC.to_uppercase(), &format!("g{}", &ABC[1..])] {
            assert!(wrong.parse::<Sha256Digest>().is_err(), "{wrong}");
        }
        assert!("ba7816bf".parse::<Sha256Prefix>().is_ok());
        for wrong in ["ba7816b", ABC, "BA7816BF"] {
            assert!(wrong.parse::<Sha256Prefix>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_prefix_accepts_what_begins_with_it() {
        let whole = Check::Sha256(ABC.parse().unwrap());
        let prefix = Check::Prefix("ba7816bf".parse().unwrap());
        assert!(whole.accepts(ABC) && prefix.accepts(ABC));
        let other = sha256_hex(b"abd");
        assert!(!whole.accepts(&other) && !prefix.accepts(&other));
        assert_eq!(prefix.to_string(), "ba7816bf…");
    }
}
