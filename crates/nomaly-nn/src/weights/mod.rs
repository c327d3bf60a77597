//! Weights: tensors by name, read from and written to files.
//!
//! Three kinds of file are read ([`read`]): safetensors, and both formats of `torch.save`. PyTorch's are pickles, which
//! Python runs as programs; here a small interpreter reads them, knows a dozen harmless names, and refuses all others.
//! A weight file cannot run code, read beyond its own bytes or ask for unbounded memory.

mod budget;
mod error;
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

pub use error::WeightsError;
pub use safetensors_file::{
    Metadata, TensorSource, from_safetensors, safetensors_metadata, to_safetensors, write_safetensors,
};
pub use sealed::{CHECKSUM, from_sealed, write_sealed};
pub use tensor::{DType, WeightTensor, Weights};

/// The largest file that is read; the largest published weights here have 300 MB.
const MAX_FILE: u64 = 8 << 30;

/// Reads a weight file: safetensors, `.pth`, `.pt` or `.bin` from `torch.save`. The first bytes determine the kind.
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
    match bytes {
        [b'P', b'K', 3, 4, ..] => torch_zip::read(bytes),
        [0x80, ..] if bytes.get(8) != Some(&b'{') => torch_legacy::read(bytes),
        _ if bytes.get(8) == Some(&b'{') => Ok(from_safetensors(bytes)?.0),
        _ => Err(WeightsError::UnknownFormat),
    }
}

/// The bytes of a weight file of at most 8 GiB.
///
/// # Errors
/// [`WeightsError::Read`], which names the file, and for what is not a regular file.
pub fn read_file(path: &Path) -> Result<Vec<u8>, WeightsError> {
    nomaly_store::read_regular(path, MAX_FILE).map_err(|error| match error {
        StoreError::Io { source, .. } => WeightsError::Read { path: path.to_owned(), source },
        error => error.into(),
    })
}

#[cfg(test)]
mod bomb_tests;
#[cfg(test)]
mod tests;
