//! Published weights: manifests, names of other libraries, the embedded default, and the cache of this machine.
//!
//! Published weights are described by manifests (`datasets/weights/*.toml`, [`manifests`]), fetched with
//! [`cache::get`](crate::cache::get) and kept as safetensors in the cache. EfficientNet-Lite0 is part of the library
//! ([`embedded`]).
//!
//! ```
//! let weights = nomaly_backbones::weights::embedded()?;
//! assert_eq!(weights["_conv_stem.weight"].shape, [32, 3, 3, 3]);
//! # Ok::<(), nomaly_nn::weights::WeightsError>(())
//! ```

mod cached;
mod error;
mod layout;
mod manifest;
mod vit;

use std::path::Path;

use nomaly_nn::weights::{Weights, WeightsError, from_safetensors};

pub(crate) use cached::path_in;
pub use cached::{find, load};
pub use error::CacheError;
pub use layout::Layout;
pub use manifest::{WeightsManifest, manifest, manifests};

/// Reads a weight file with [`nomaly_nn::weights::read`], and converts its names to those of the architectures, see
/// [`Layout`].
///
/// # Errors
/// As [`nomaly_nn::weights::read`].
pub fn read(path: &Path) -> Result<Weights, WeightsError> {
    nomaly_nn::weights::read(path).map(Layout::normalize)
}

/// Reads the bytes of a weight file, see [`read`].
///
/// # Errors
/// As [`nomaly_nn::weights::from_bytes`].
pub fn from_bytes(bytes: &[u8]) -> Result<Weights, WeightsError> {
    nomaly_nn::weights::from_bytes(bytes).map(Layout::normalize)
}

/// The weights of EfficientNet-Lite0 that are part of the library: convolutions in half precision, the rest in single.
///
/// # Errors
/// None in practice: a test reads the very bytes.
pub fn embedded() -> Result<Weights, WeightsError> {
    Ok(from_safetensors(embedded_bytes())?.0)
}

/// The name of the backbone whose weights are [`embedded`].
pub const EMBEDDED: &str = "efficientnet-lite0";

/// The safetensors file of the [`embedded`] weights, with licence and source in its metadata.
pub fn embedded_bytes() -> &'static [u8] {
    // A static is in the binary once; a constant would be in every unit of code that this function is inlined into.
    static FILE: &[u8] =
        include_bytes!("../../../../datasets/embedded/efficientnet-lite0/efficientnet_lite0.safetensors");
    FILE
}
