//! Weights: files in and out, manifests of published weights, the embedded default.
//!
//! Three kinds of file are read ([`read`]): safetensors, and both formats of `torch.save`. PyTorch's are pickles, which
//! Python runs as programs; here a small interpreter reads them, knows a dozen harmless names, and refuses all others.
//! A weight file cannot run code, read beyond its own bytes or ask for unbounded memory.
//!
//! Published weights are described by manifests (`datasets/weights/*.toml`, [`manifests`]), fetched with
//! [`cache::get`](crate::cache::get) and kept as safetensors in the cache. EfficientNet-Lite0 is part of the library
//! ([`embedded`]).
//!
//! ```
//! let weights = nomaly_backbones::weights::embedded()?;
//! assert_eq!(weights["_conv_stem.weight"].shape, [32, 3, 3, 3]);
//! # Ok::<(), nomaly_backbones::weights::WeightsError>(())
//! ```

mod budget;
mod cached;
mod error;
mod layout;
mod manifest;
mod pickle;
mod safetensors_file;
mod sealed;
mod tensor;
mod torch;
mod torch_legacy;
mod torch_objects;
mod torch_zip;

use std::path::Path;

use nomaly_store::StoreError;

pub(crate) use cached::path_in;
pub use cached::{find, load};
pub use error::WeightsError;
pub use layout::Layout;
pub use manifest::{WeightsManifest, manifest, manifests};
pub use safetensors_file::{
    Metadata, TensorSource, from_safetensors, safetensors_metadata, to_safetensors, write_safetensors,
};
pub use sealed::{CHECKSUM, from_sealed, write_sealed};
pub use tensor::{DType, WeightTensor, Weights};

/// The largest file that is read; the largest published weights here have 300 MB.
const MAX_FILE: u64 = 8 << 30;

/// Reads a weight file: safetensors, `.pth`, `.pt` or `.bin` from `torch.save`. The first bytes determine the kind.
///
/// Names are converted to the layout of the architectures, see [`Layout`].
///
/// # Errors
/// [`WeightsError::Read`] or [`WeightsError::InFile`], both of which name the file.
pub fn read(path: &Path) -> Result<Weights, WeightsError> {
    from_bytes(&read_file(path)?).map_err(|error| error.in_file(path))
}

/// Reads the bytes of a weight file, see [`read`].
///
/// # Errors
/// [`WeightsError::UnknownFormat`], and those of the formats.
pub fn from_bytes(bytes: &[u8]) -> Result<Weights, WeightsError> {
    let weights = match bytes {
        [b'P', b'K', 3, 4, ..] => torch_zip::read(bytes)?,
        [0x80, ..] if bytes.get(8) != Some(&b'{') => torch_legacy::read(bytes)?,
        _ if bytes.get(8) == Some(&b'{') => from_safetensors(bytes)?.0,
        _ => return Err(WeightsError::UnknownFormat),
    };
    Ok(Layout::normalize(weights))
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
    include_bytes!("../../../../datasets/embedded/efficientnet-lite0/efficientnet_lite0.safetensors")
}

pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, WeightsError> {
    nomaly_store::read_regular(path, MAX_FILE).map_err(|error| match error {
        StoreError::Io { source, .. } => WeightsError::Read { path: path.to_owned(), source },
        error => error.into(),
    })
}

#[cfg(test)]
mod bomb_tests;
#[cfg(test)]
mod tests;
