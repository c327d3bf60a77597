//! An opened device.

use std::sync::Arc;

use nomaly_kernels::{Isa, IsaError};

use super::Runtime;
use super::cpu::CpuRuntime;
use super::device::{Device, DeviceError};

/// What a program computes with: an opened device for networks, and the instruction set of the processor for all else.
///
/// A program opens it once and hands it down; copies share the device. On [`Device::Cpu`] results do not depend on the
/// number of threads or the batch. Results of another device differ in the last digits.
///
/// ```
/// use nomaly_nn::runtime::{Device, DeviceError, Executor};
///
/// let executor = Executor::on("cpu".parse()?)?;
/// assert_eq!(executor.device(), Device::Cpu);
/// # Ok::<(), DeviceError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Executor {
    device: Device,
    isa: Isa,
    runtime: Arc<dyn Runtime>,
}

impl Executor {
    /// The processor with its best instruction set, or the one that `NOMALY_ISA` names.
    ///
    /// # Errors
    /// As for [`Isa::best`].
    pub fn cpu() -> Result<Self, IsaError> {
        Isa::best().map(Self::from)
    }

    /// Opens a device.
    ///
    /// # Errors
    /// A device whose feature the program was built without, one that is not there, and the errors of
    /// [`cpu`](Self::cpu).
    pub fn on(device: Device) -> Result<Self, DeviceError> {
        let isa = Isa::best()?;
        let runtime = match device.feature() {
            None => return Ok(Self::from(isa)),
            Some(feature) => on_candle(device, feature)?,
        };
        Ok(Self { device, isa, runtime })
    }

    /// The device.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The instruction set of what runs on the processor.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// What runs networks on the device.
    pub fn runtime(&self) -> &dyn Runtime {
        &*self.runtime
    }

    /// A name for everything that decides the last digits of results: the instruction set, or the runtime of another
    /// device.
    pub fn arithmetic(&self) -> String {
        match self.device {
            Device::Cpu => self.isa.name().to_owned(),
            _ => self.runtime.name(),
        }
    }
}

/// The processor with this instruction set.
impl From<Isa> for Executor {
    fn from(isa: Isa) -> Self {
        Self { device: Device::Cpu, isa, runtime: Arc::new(CpuRuntime::new(isa)) }
    }
}

/// A runtime of candle for any device but [`Device::Cpu`], which has no feature.
#[cfg(feature = "candle")]
fn on_candle(device: Device, feature: &'static str) -> Result<Arc<dyn Runtime>, DeviceError> {
    use candle_core::Device as Opened;

    let opened = match device {
        Device::Cuda(number) if cfg!(feature = "cuda") => Opened::new_cuda(number),
        Device::Metal if cfg!(feature = "metal") => Opened::new_metal(0),
        Device::CandleCpu => Ok(Opened::Cpu),
        _ => return Err(DeviceError::NotBuilt { device, feature }),
    };
    match opened {
        Ok(opened) => Ok(Arc::new(super::candle::CandleRuntime::new(opened))),
        Err(error) => Err(DeviceError::Unavailable { device, reason: error.to_string() }),
    }
}

#[cfg(not(feature = "candle"))]
fn on_candle(device: Device, feature: &'static str) -> Result<Arc<dyn Runtime>, DeviceError> {
    Err(DeviceError::NotBuilt { device, feature })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_was_not_built_names_its_feature() {
        let check = |device: Device, built: bool, feature: &str| match Executor::on(device) {
            Ok(executor) => assert!(built && executor.device() == device),
            Err(DeviceError::Unavailable { .. }) => assert!(built),
            Err(error) => {
                let expected = format!(
                    "this program was built without the device {device}: build it with `cargo build --release \
                     --features {feature}`"
                );
                assert!(!built && error.to_string() == expected, "{error}");
            }
        };
        check(Device::Cpu, true, "");
        check(Device::Cuda(1), cfg!(feature = "cuda"), "cuda");
        check(Device::Metal, cfg!(feature = "metal"), "metal");
        check(Device::CandleCpu, cfg!(feature = "candle"), "candle");
        assert_eq!(Executor::from(Isa::Portable).arithmetic(), "portable");
    }
}
