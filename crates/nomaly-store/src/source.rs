//! Sources of files in manifests.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Check, Sha256Digest, Sha256Prefix, StoreError};

/// The source of a file and its checksum.
///
/// In manifests it is a table whose `kind` is `pypi`, `debian` or `https`:
///
/// ```
/// let source: nomaly_store::Source = toml::from_str(
///     r#"
///     kind = "https"
///     url = "https://example.org/weights.pth"
///     sha256_prefix = "f37072fd"
///     bytes = 46830571
///     "#,
/// )?;
/// assert_eq!(source.file_name(), "weights.pth");
/// # Ok::<(), toml::de::Error>(())
/// ```
///
/// An unknown field, a name that is not a plain file name, an address that is not `https://` (`http://` is for servers
/// on this machine only) and a missing or malformed checksum are errors when the manifest is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub enum Source {
    /// A file of a release on the Python package index, fetched by `pip download`.
    PyPi {
        /// The project's name.
        package: String,
        /// The release, exactly.
        version: String,
        /// The file of that release, a wheel (`.whl`): `pip` runs code from source archives.
        file: String,
        /// The file's SHA-256. `pip` compares it too, before it opens the file.
        sha256: Sha256Digest,
    },
    /// A Debian package, fetched by `apt-get download` from the machine's configured sources.
    Debian {
        /// The package's name.
        package: String,
        /// The version, exactly; without it the one that `apt-get` prefers.
        version: Option<String>,
        /// The name of the stored package file.
        file: String,
        /// The package file's SHA-256.
        sha256: Sha256Digest,
    },
    /// A file on the web.
    Https {
        /// Its address.
        url: String,
        /// The name of the stored file.
        file: String,
        /// Its SHA-256 or a prefix.
        check: Check,
        /// Its size in bytes, if known.
        bytes: Option<u64>,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum Raw {
    PyPi {
        package: String,
        version: String,
        file: String,
        sha256: Sha256Digest,
    },
    Debian {
        package: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        file: String,
        sha256: Sha256Digest,
    },
    Https {
        url: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        file: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        sha256: Option<Sha256Digest>,
        #[serde(skip_serializing_if = "Option::is_none")]
        sha256_prefix: Option<Sha256Prefix>,
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
    },
}

impl TryFrom<Raw> for Source {
    type Error = StoreError;

    fn try_from(raw: Raw) -> Result<Self, StoreError> {
        let source = match raw {
            Raw::PyPi { package, version, file, sha256 } => Self::PyPi { package, version, file, sha256 },
            Raw::Debian { package, version, file, sha256 } => Self::Debian { package, version, file, sha256 },
            Raw::Https { url, file, sha256, sha256_prefix, bytes } => {
                let check = match (sha256, sha256_prefix) {
                    (Some(digest), None) => Check::Sha256(digest),
                    (None, Some(prefix)) => Check::Prefix(prefix),
                    _ => {
                        let reason = "it needs either sha256 or sha256_prefix".to_owned();
                        return Err(StoreError::InvalidSource { what: url, reason });
                    }
                };
                let file = file.unwrap_or_else(|| last_segment(&url).to_owned());
                Self::Https { url, file, check, bytes }
            }
        };
        source.validate()?;
        Ok(source)
    }
}

impl From<Source> for Raw {
    fn from(source: Source) -> Self {
        match source {
            Source::PyPi { package, version, file, sha256 } => Self::PyPi { package, version, file, sha256 },
            Source::Debian { package, version, file, sha256 } => Self::Debian { package, version, file, sha256 },
            Source::Https { url, file, check, bytes } => {
                let (sha256, sha256_prefix) = match check {
                    Check::Sha256(digest) => (Some(digest), None),
                    Check::Prefix(prefix) => (None, Some(prefix)),
                };
                Self::Https { url, file: Some(file), sha256, sha256_prefix, bytes }
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PyPi { package, version, .. } => write!(formatter, "PyPI package {package} {version}"),
            Self::Debian { package, version: Some(version), .. } => {
                write!(formatter, "Debian package {package} {version}")
            }
            Self::Debian { package, version: None, .. } => write!(formatter, "Debian package {package}"),
            Self::Https { url, .. } => formatter.write_str(url),
        }
    }
}

impl Source {
    /// The name of the fetched file.
    pub fn file_name(&self) -> &str {
        match self {
            Self::PyPi { file, .. } | Self::Debian { file, .. } | Self::Https { file, .. } => file,
        }
    }

    /// The file's SHA-256 or a prefix.
    pub fn check(&self) -> Check {
        match self {
            Self::PyPi { sha256, .. } | Self::Debian { sha256, .. } => Check::Sha256(sha256.clone()),
            Self::Https { check, .. } => check.clone(),
        }
    }

    /// Checks what the types cannot: names in paths and command lines, and the scheme of the address.
    ///
    /// # Errors
    /// [`StoreError::InvalidSource`].
    pub fn validate(&self) -> Result<(), StoreError> {
        let invalid = |reason: String| StoreError::InvalidSource { what: self.to_string(), reason };
        if !is_file_name(self.file_name()) {
            return Err(invalid(format!("{:?} is not a plain file name", self.file_name())));
        }
        match self {
            Self::PyPi { file, .. } if !file.ends_with(".whl") => {
                Err(format!("{file:?} is not a wheel (.whl), and pip runs code from source archives"))
            }
            Self::PyPi { package, version, .. } => word(package, "._-").and_then(|()| word(version, "._-+!")),
            Self::Debian { package, version, .. } => {
                word(package, ".+-").and_then(|()| version.as_deref().map_or(Ok(()), |version| word(version, ".+-:~")))
            }
            Self::Https { url, .. } => {
                if url.starts_with("https://") || is_loopback(url) {
                    Ok(())
                } else {
                    Err("only https:// addresses are fetched".to_owned())
                }
            }
        }
        .map_err(invalid)
    }
}

/// Whether an address is plain HTTP on this machine, which tests use.
pub(crate) fn is_loopback(url: &str) -> bool {
    ["http://127.0.0.1", "http://localhost", "http://[::1]"].iter().any(|host| {
        url.strip_prefix(host).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || is_port(rest))
    })
}

/// Whether the rest of an address after its host is `:port` and optionally a path.
fn is_port(rest: &str) -> bool {
    let Some(rest) = rest.strip_prefix(':') else { return false };
    let port = rest.split('/').next().unwrap_or_default();
    port.parse::<u16>().is_ok()
}

fn last_segment(url: &str) -> &str {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default()
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.starts_with(['.', '-'])
        && name.chars().all(|letter| !letter.is_control() && !"/\\:*?\"<>|".contains(letter))
}

/// A word that starts with a letter or digit and cannot be mistaken for an option.
fn word(text: &str, punctuation: &str) -> Result<(), String> {
    let fits = text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || punctuation.contains(letter));
    if fits { Ok(()) } else { Err(format!("{text:?} is not a package name or version")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let text = text.replace("HASH", HASH);
        match (toml::from_str::<Source>(&text), expected) {
            (Ok(source), Ok(name)) => {
                assert_eq!(source.file_name(), name);
                let again = toml::Value::try_from(&source).unwrap();
                assert_eq!(again.try_into::<Source>().unwrap(), source);
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, _) => panic!("{text}: {found:?}"),
        }
    }

    #[test]
    fn manifests_say_what_they_mean() {
        let pypi = "kind='pypi'\npackage='a-b'\nversion='1.0'\nfile='a_b-1.0.whl'\nsha256='HASH'";
        check(pypi, Ok("a_b-1.0.whl"));
        check(&pypi.replace("a-b", "--index"), Err("not a package name"));
        check(&pypi.replace("a_b-1.0.whl", "../a.whl"), Err("not a plain file name"));
        check(&pypi.replace("a_b-1.0.whl", "a-b-1.0.tar.gz"), Err("is not a wheel"));
        check(&format!("{pypi}\nmirror='x'"), Err("unknown field"));
        check(&pypi.replace("HASH", "12"), Err("64 lower-case"));
        check("kind='debian'\npackage='data+x'\nfile='d.deb'\nsha256='HASH'", Ok("d.deb"));
        check("kind='debian'\npackage='d'\nversion='1:2~3-4'\nfile='d.deb'\nsha256='HASH'", Ok("d.deb"));
        check("kind='ftp'\nurl='ftp://x/y'", Err("unknown variant"));
    }

    #[test]
    fn addresses_are_https_or_this_machine() {
        let at = |url: &str| format!("kind='https'\nurl='{url}'\nsha256='HASH'");
        check(&at("https://x.org/a/b.pth?download=1"), Ok("b.pth"));
        check(&at("http://127.0.0.1:80/b"), Ok("b"));
        check(&at("http://localhost/b"), Ok("b"));
        check(&at("http://[::1]:9/b"), Ok("b"));
        for url in ["http://x.org/b", "http://127.0.0.1.x.org/b", "http://127.0.0.1:80@x.org/b", "file:///etc/b"] {
            check(&at(url), Err("only https://"));
        }
        check(&at("https://x.org/"), Err("not a plain file name"));
        check("kind='https'\nurl='https://x.org/b'", Err("either sha256 or sha256_prefix"));
        check("kind='https'\nurl='https://x.org/b'\nsha256_prefix='f37072fd'\nfile='c'", Ok("c"));
    }
}
