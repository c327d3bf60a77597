//! Errors of weight files.

use std::io;
use std::path::{Path, PathBuf};

use nomaly_store::StoreError;

/// Why weights could not be read, converted or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// A file cannot be written.
    #[error("cannot be written: {reason}")]
    Write {
        /// The system's message.
        reason: String,
    },
    /// The operating system refused to read a file.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Something is wrong with a certain file.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<WeightsError>,
    },
    /// Neither a safetensors file nor one written by `torch.save`.
    #[error("it is neither a safetensors file nor a PyTorch checkpoint")]
    UnknownFormat,
    /// A safetensors file is malformed.
    #[error("it is not a valid safetensors file: {reason}")]
    Safetensors {
        /// What is wrong.
        reason: String,
    },
    /// The checksum of a file does not match.
    #[error("its checksum does not match: the file was damaged or changed")]
    Checksum,
    /// The element type of a tensor is not supported.
    #[error("the tensor `{tensor}` has elements of the type {dtype}, which is not supported")]
    UnsupportedDType {
        /// The tensor.
        tensor: String,
        /// The type, as the file names it.
        dtype: String,
    },
    /// A pickle is damaged or uses opcodes that `torch.save` does not write.
    #[error("its pickle cannot be read at byte {at}: {reason}")]
    Pickle {
        /// Offset in the pickle.
        at: usize,
        /// What is wrong.
        reason: String,
    },
    /// A pickle asks for a Python object that a file of plain tensors does not need. Nothing was run.
    #[error(
        "its pickle refers to `{module}.{name}`, which is not allowed here; save a plain state dict \
         (`torch.save(model.state_dict(), ...)`) or a safetensors file"
    )]
    ForbiddenGlobal {
        /// The Python module.
        module: String,
        /// The name in it.
        name: String,
    },
    /// A PyTorch checkpoint contradicts itself.
    #[error("it is not a valid PyTorch checkpoint: {reason}")]
    Torch {
        /// What is wrong.
        reason: String,
    },
    /// The contents of a file exceed its memory budget.
    #[error("reading it would take more than {limit} bytes of memory, which no weights in a file of its size need")]
    Memory {
        /// The budget.
        limit: usize,
    },
    /// A checkpoint without tensors.
    #[error("it holds no tensors")]
    NoTensors,
    /// Bytes and shape of a tensor disagree.
    #[error("a tensor of the shape {shape:?} and the type {dtype} cannot have {bytes} bytes")]
    Size {
        /// The shape.
        shape: Vec<usize>,
        /// The type.
        dtype: &'static str,
        /// The number of bytes.
        bytes: usize,
    },
    /// A number is too large for half precision.
    #[error("the tensor `{tensor}` holds {value}, which half precision cannot represent")]
    Overflow {
        /// The tensor.
        tensor: String,
        /// The number.
        value: f32,
    },
    /// The file system refused something, or the caller stopped the work.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl WeightsError {
    pub(super) fn torch(reason: impl Into<String>) -> Self {
        Self::Torch { reason: reason.into() }
    }

    /// The same error with the file that it is about, unless it names one.
    #[must_use]
    pub fn in_file(self, path: &Path) -> Self {
        match self {
            named @ (Self::Read { .. } | Self::InFile { .. }) => named,
            source => Self::InFile { path: path.to_owned(), source: Box::new(source) },
        }
    }

    /// Whether the caller stopped the work.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_cancelled())
    }
}
