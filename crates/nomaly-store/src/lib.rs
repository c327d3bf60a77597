//! File storage: the cache folder, verified downloads, archives, atomic writes.
//!
//! This crate is independent of images and methods. It answers five questions for the layers above:
//!
//! * **Where are cached files stored?** [`home`].
//! * **How is a file written atomically?** [`write_atomic`], [`AtomicFile`].
//! * **Where does a process put what does not fit in memory?** [`ScratchFile`].
//! * **How is a file in a manifest fetched and verified?** [`Source`], [`fetch`], [`fetch_any`]: HTTPS (with
//!   resumption), a PyPI package through `pip`, a Debian package through `apt-get`. Nothing is used before its SHA-256
//!   has been compared with the manifest's.
//! * **How is an archive extracted?** [`archive`]: zip, wheel, tar, gzip, xz and Debian packages, with limits, and
//!   never a byte outside the target folder.
//!
//! ```
//! # fn main() -> Result<(), nomaly_store::StoreError> {
//! let folder = std::env::temp_dir().join(format!("nomaly-store-doc-{}", std::process::id()));
//! nomaly_store::create_folder(&folder)?;
//! let path = folder.join("threshold.txt");
//! nomaly_store::write_atomic(&path, b"0.25")?;
//! assert_eq!(
//!     nomaly_store::sha256_file(&path)?,
//!     "a30a043314fa89294fa2c1c989a01fbb5329e5c085a5c5a8d27317656de24ae0"
//! );
//! # std::fs::remove_dir_all(&folder).unwrap();
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod archive;
mod atomic;
mod checksum;
mod destination;
mod error;
mod fetch;
mod home;
mod progress;
mod read;
mod scratch;
mod source;

pub use atomic::{AtomicFile, check_writable, create_folder, write_atomic};
pub use checksum::{Check, HashingWriter, Sha256Digest, Sha256Prefix, sha256, sha256_file, sha256_hex};
pub use destination::canonical_place;
pub use error::{Attempt, StoreError};
pub use fetch::{FetchOptions, fetch, fetch_any, fetch_with};
pub use home::home;
pub use progress::{Progress, Silent};
pub use read::read_regular;
pub use scratch::ScratchFile;
pub use source::Source;
