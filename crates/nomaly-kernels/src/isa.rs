//! Selection of the vector instructions that the kernels use.
//!
//! The choice is made once, at run time, when a plan is built: [`Isa::best`] takes the widest set that the processor
//! has, and the environment variable `NOMALY_ISA` forces one (to compare, or to reproduce a result of another machine).

use std::fmt;
use std::str::FromStr;

/// A family of vector instructions that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// x86-64 with AVX-512F: 16 lanes.
    Avx512,
    /// x86-64 with AVX2 and FMA: 8 lanes.
    Avx2,
    /// AArch64 Advanced SIMD: 4 lanes.
    Neon,
    /// Plain Rust that runs everywhere: 8 lanes in an array, vectorised as far as the target's baseline goes.
    Portable,
}

/// Why an instruction set cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IsaError {
    /// An unknown name.
    #[error("unknown instruction set \"{name}\": expected avx512, avx2, neon or portable")]
    Unknown {
        /// The name as given.
        name: String,
    },
    /// This processor (or this build) does not have it.
    #[error("instruction set {isa} is not supported by this processor; available: {}", names(.available))]
    Unsupported {
        /// The requested instruction set.
        isa: Isa,
        /// The instruction sets available here, fastest first.
        available: Vec<Isa>,
    },
}

fn names(isas: &[Isa]) -> String {
    isas.iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ")
}

impl Isa {
    const ALL: [Isa; 4] = [Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];

    /// The environment variable that forces an instruction set.
    pub const VARIABLE: &'static str = "NOMALY_ISA";

    /// The fastest set of this processor, or the one that `NOMALY_ISA` names.
    ///
    /// # Errors
    /// When `NOMALY_ISA` holds an unknown name, or a set that this processor does not have.
    pub fn best() -> Result<Isa, IsaError> {
        match std::env::var_os(Self::VARIABLE) {
            Some(name) if !name.is_empty() => Isa::choose(Some(&name.to_string_lossy())),
            _ => Isa::choose(None),
        }
    }

    /// [`Isa::best`] with the forced name as an argument.
    fn choose(forced: Option<&str>) -> Result<Isa, IsaError> {
        match forced {
            Some(name) => {
                let isa: Isa = name.parse()?;
                isa.require()?;
                Ok(isa)
            }
            None => Ok(Self::ALL.into_iter().find(|isa| isa.is_available()).unwrap_or(Isa::Portable)),
        }
    }

    /// Every set that this processor has, fastest first; [`Isa::Portable`] is always the last.
    pub fn available() -> Vec<Isa> {
        Self::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// Whether this processor has the instructions.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => std::arch::is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            Isa::Portable => true,
            #[allow(unreachable_patterns)] // The list above is complete on no single architecture.
            _ => false,
        }
    }

    /// An error unless the processor has the instructions.
    pub(crate) fn require(self) -> Result<(), IsaError> {
        if self.is_available() { Ok(()) } else { Err(IsaError::Unsupported { isa: self, available: Isa::available() }) }
    }

    /// f32 values in a vector, which is also the number of channels in a block of the blocked layout.
    pub const fn lanes(self) -> usize {
        match self {
            Isa::Avx512 => 16,
            Isa::Avx2 | Isa::Portable => 8,
            Isa::Neon => 4,
        }
    }

    /// The name as `NOMALY_ISA` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Neon => "neon",
            Isa::Portable => "portable",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = IsaError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|isa| isa.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| IsaError::Unknown { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse::<Isa>(), Ok(isa));
        }
        assert_eq!("AVX2".parse::<Isa>(), Ok(Isa::Avx2));
    }

    #[test]
    fn a_wrong_name_is_an_error_that_lists_the_right_ones() {
        let error = Isa::choose(Some("sse9")).unwrap_err();
        assert_eq!(error.to_string(), "unknown instruction set \"sse9\": expected avx512, avx2, neon or portable");
    }

    #[test]
    fn a_set_of_another_machine_is_refused() {
        let absent = Isa::ALL.into_iter().find(|isa| !isa.is_available()).expect("no processor has all four");
        let error = Isa::choose(Some(absent.name())).unwrap_err();
        assert_eq!(error, IsaError::Unsupported { isa: absent, available: Isa::available() });
        assert!(error.to_string().contains("portable"), "{error}");
    }

    #[test]
    fn the_default_is_the_first_available() {
        assert_eq!(Isa::choose(None), Ok(Isa::available()[0]));
        assert_eq!(Isa::available().last(), Some(&Isa::Portable));
    }
}
