//! Errors of backbones.

use nomaly_kernels::network::NetworkError;
use nomaly_registry::UnknownName;

use nomaly_nn::CompileError;
use nomaly_nn::inference::InferenceError;
use nomaly_nn::runtime::{Device, RuntimeError};
use nomaly_nn::weights::WeightsError;

use crate::weights::CacheError;

/// Why a backbone cannot be opened or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackboneError {
    /// No backbone of that name.
    #[error(transparent)]
    UnknownBackbone(#[from] UnknownName),
    /// A former name of a backbone that is none.
    #[error("`{name}` is no backbone: {instead}")]
    NoBackbone {
        /// The name.
        name: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// An operation on a network, without one.
    #[error("{what} is of a network, and there is none")]
    NoNetwork {
        /// The requested operation.
        what: &'static str,
    },
    /// Networks that cannot be joined.
    #[error("{backbone} cannot be joined: {network} {reason}")]
    NotJoinable {
        /// The names with `+` between them.
        backbone: String,
        /// The network that does not fit.
        network: &'static str,
        /// The reason, as a predicate of the network.
        reason: &'static str,
    },
    /// An operation that only a single network supports.
    #[error("{backbone} is several networks joined, and {what} is for one: name one of them alone")]
    OneNetwork {
        /// The names with `+` between them.
        backbone: String,
        /// The requested operation.
        what: &'static str,
    },
    /// The architecture has no tap of that name.
    #[error("{backbone}: {source}")]
    UnknownTap {
        /// The backbone.
        backbone: String,
        /// The unknown name and the available ones.
        source: UnknownName,
    },
    /// The architecture has the tap, but the weights end before it.
    #[error(
        "the weights of {backbone} have no `{tensor}`, which the tap `{tap}` needs; the deepest tap they serve is `{deepest}`"
    )]
    TapNotServed {
        /// The backbone.
        backbone: String,
        /// The requested tap.
        tap: String,
        /// The first tensor that is missing.
        tensor: String,
        /// The deepest tap that these weights serve.
        deepest: String,
    },
    /// A tensor is missing that every tap needs.
    #[error("the weights of {backbone} have no `{tensor}`, without which no tap can be computed")]
    MissingTensor {
        /// The backbone.
        backbone: String,
        /// The tensor.
        tensor: String,
    },
    /// Weights with the names of another network or another library.
    #[error("no tensor of the weights, such as `{found}`, has a name of {backbone}: expected those of {expected}")]
    ForeignNames {
        /// The backbone.
        backbone: String,
        /// The naming schemes that are known.
        expected: &'static str,
        /// The name of a tensor.
        found: String,
    },
    /// Weights of a similar network, which would compute something else with them.
    #[error("the weights have `{tensor}`, so they are of another network than {backbone}")]
    OtherNetwork {
        /// The backbone.
        backbone: String,
        /// The tensor that it does not have.
        tensor: &'static str,
    },
    /// Sides of an image that are not divided into whole patches.
    #[error(
        "{backbone} takes images whose sides are multiples of {multiple}, not {} x {}: the next size that fits is {} x {}",
        size[0], size[1], next[0], next[1]
    )]
    InputSize {
        /// The backbone.
        backbone: String,
        /// Height and width of the image.
        size: [usize; 2],
        /// Side of a patch.
        multiple: usize,
        /// The next larger height and width that fit.
        next: [usize; 2],
    },
    /// Weights that are published, but whose hash is not known here.
    #[error(
        "there are no weights for {backbone} here: download those of {publisher}, then name the file, or import it with \
         `nomaly weights import`"
    )]
    NotImported {
        /// The backbone.
        backbone: String,
        /// Their publisher and licence.
        publisher: &'static str,
    },
    /// The shape of a tensor differs from the architecture.
    #[error("`{tensor}` is {found:?} in the weights, but {expected:?} in {backbone}")]
    Shape {
        /// The backbone.
        backbone: String,
        /// The tensor.
        tensor: String,
        /// Shape in the architecture.
        expected: Vec<usize>,
        /// Shape in the weights.
        found: Vec<usize>,
    },
    /// A tensor holds an invalid number: infinite, NaN, or a negative variance.
    #[error("`{tensor}` of the weights of {backbone} holds {value} at index {index}")]
    BadValue {
        /// The backbone.
        backbone: String,
        /// The tensor.
        tensor: String,
        /// The row-major index in the tensor.
        index: usize,
        /// The number.
        value: f32,
    },
    /// Nothing to compute.
    #[error("no tap was asked for; {backbone} has {taps}")]
    NoTaps {
        /// The backbone.
        backbone: String,
        /// The available taps.
        taps: String,
    },
    /// The architecture is known, but its weights are not on this machine.
    #[error("there are no weights for {backbone} here; fetch them with `nomaly weights get {backbone}` or name a file")]
    NoWeights {
        /// The backbone.
        backbone: String,
    },
    /// The architecture is known, and it is one that is trained from scratch.
    #[error("{backbone} has no published weights: it is trained from the start, or read from a file")]
    Untrained {
        /// The backbone.
        backbone: String,
    },
    /// The workspace belongs to another extractor.
    #[error("the workspace belongs to another extractor")]
    OtherWorkspace,
    /// Something that only the processor does.
    #[error("the device {device} has not {what}: use the device cpu")]
    NotOnDevice {
        /// The device.
        device: Device,
        /// What it cannot do.
        what: &'static str,
    },
    /// The network cannot be prepared or run on a device other than the processor.
    #[error("{device}: {source}")]
    OnDevice {
        /// The device.
        device: Device,
        /// The cause.
        source: Box<RuntimeError>,
    },
    /// The graph cannot be compiled.
    #[error("{backbone} cannot be compiled: {reason}")]
    Uncompilable {
        /// The backbone.
        backbone: String,
        /// The reason.
        reason: String,
    },
    /// A weight file cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Weights in the cache cannot be found or read.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The network cannot be compiled for the input, or run on it.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A layer cannot be run.
    #[error(transparent)]
    Run(InferenceError),
    /// The network cannot be loaded onto a candle device.
    #[cfg(feature = "candle")]
    #[error(transparent)]
    Module(#[from] nomaly_nn::module::ModuleError),
}

impl From<InferenceError> for BackboneError {
    fn from(error: InferenceError) -> Self {
        match error {
            InferenceError::Network(error) => Self::Network(error),
            other => Self::Run(other),
        }
    }
}

impl BackboneError {
    /// An error of a device.
    pub(crate) fn on_device(device: Device, error: RuntimeError) -> Self {
        Self::OnDevice { device, source: Box::new(error) }
    }

    /// An error of compilation as one of this backbone.
    pub(crate) fn compile(backbone: &str, error: CompileError) -> Self {
        match error {
            CompileError::MissingTensor { tensor } => Self::MissingTensor { backbone: backbone.to_owned(), tensor },
            CompileError::Weights(error) => error.into(),
            CompileError::Network(error) => error.into(),
            other => Self::Uncompilable { backbone: backbone.to_owned(), reason: other.to_string() },
        }
    }
}
