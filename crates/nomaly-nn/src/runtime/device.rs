//! Names of devices.

use std::fmt;
use std::str::FromStr;

use nomaly_kernels::IsaError;
use nomaly_registry::UnknownName;

/// A device that networks run on, not yet opened: see [`Executor::on`](super::Executor::on).
///
/// In text `cpu`, `cuda` or `cuda:1`, `metal`, and `candle-cpu`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Device {
    /// The processor, with the kernels of this workspace.
    #[default]
    Cpu,
    /// A GPU of NVIDIA by its number in CUDA, from 0.
    Cuda(usize),
    /// The GPU of an Apple computer.
    Metal,
    /// The processor by way of candle, slower than [`Cpu`](Self::Cpu): for tests of the code that GPUs run.
    CandleCpu,
}

impl Device {
    /// The feature of cargo without which a program does not have the device; none for the processor.
    pub fn feature(self) -> Option<&'static str> {
        match self {
            Self::Cpu => None,
            Self::Cuda(_) => Some("cuda"),
            Self::Metal => Some("metal"),
            Self::CandleCpu => Some("candle"),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(0) => f.write_str("cuda"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Metal => f.write_str("metal"),
            Self::CandleCpu => f.write_str("candle-cpu"),
        }
    }
}

impl FromStr for Device {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let number = text.strip_prefix("cuda:").and_then(|number| number.parse().ok());
        match (text, number) {
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            ("metal", _) => Ok(Self::Metal),
            ("candle-cpu", _) => Ok(Self::CandleCpu),
            (_, Some(number)) => Ok(Self::Cuda(number)),
            _ => Err(UnknownName::new("device", text, ["cpu", "cuda", "cuda:1", "metal"]).into()),
        }
    }
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No device has that name.
    #[error(transparent)]
    Unknown(#[from] UnknownName),
    /// The program was built without the feature that the device needs.
    #[error(
        "this program was built without the device {device}: build it with `cargo build --release --features {feature}`"
    )]
    NotBuilt {
        /// The device.
        device: Device,
        /// The feature.
        feature: &'static str,
    },
    /// The device is not there, or its driver refuses it.
    #[error("the device {device} cannot be opened: {reason}")]
    Unavailable {
        /// The device.
        device: Device,
        /// What candle says.
        reason: String,
    },
    /// The processor lacks the forced instruction set.
    #[error(transparent)]
    Isa(#[from] IsaError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(3), Device::Metal, Device::CandleCpu] {
            assert_eq!(device.to_string().parse::<Device>().unwrap(), device);
        }
        assert_eq!("cuda:0".parse::<Device>().unwrap(), Device::Cuda(0));
        for (text, message) in [
            ("cudaa", "unknown device `cudaa`; did you mean `cuda`?"),
            ("cuda:", "unknown device `cuda:`; did you mean `cuda:1`?"),
            ("cuda:-1", "unknown device `cuda:-1`; did you mean `cuda:1`?"),
        ] {
            assert_eq!(text.parse::<Device>().unwrap_err().to_string(), message);
        }
    }
}
