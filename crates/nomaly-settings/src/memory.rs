//! Amounts of memory.

use std::fmt::{self, Display};
use std::str::FromStr;

/// An amount of memory in bytes, written `512MiB`, `2GiB` or as a bare number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory(pub u64);

impl Memory {
    const UNITS: [(&'static str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

    /// This number of GiB.
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    /// The amount in MiB, for messages.
    pub fn rounded(self) -> String {
        format!("{} MiB", self.0.div_ceil(1 << 20))
    }
}

impl FromStr for Memory {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (number, unit) =
            Self::UNITS.iter().find_map(|(name, bytes)| Some((text.strip_suffix(name)?, *bytes))).unwrap_or((text, 1));
        let number: f64 = number.trim().parse().map_err(|_| ())?;
        let bytes = number * unit as f64;
        if bytes >= 1.0 && bytes < u64::MAX as f64 { Ok(Self(bytes as u64)) } else { Err(()) }
    }
}

impl Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::UNITS.iter().find(|(_, bytes)| self.0 >= *bytes && self.0.is_multiple_of(*bytes)) {
            Some((name, bytes)) => write!(f, "{}{name}", self.0 / bytes),
            None => write!(f, "{}", self.0),
        }
    }
}

crate::written_as_text!(Memory, "a number of bytes, with KiB, MiB or GiB");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_and_written_with_units() {
        for (text, bytes) in [("2GiB", 2 << 30), ("1.5 MiB", 3 << 19), ("4096", 4096), ("512KiB", 512 << 10)] {
            assert_eq!(text.parse(), Ok(Memory(bytes)), "{text}");
        }
        for text in ["", "GiB", "-1GiB", "0", "1e30", "two", "2GB"] {
            assert_eq!(text.parse::<Memory>(), Err(()), "{text}");
        }
        for text in ["2GiB", "1.5GiB", "512MiB", "100"] {
            let shown = text.parse::<Memory>().unwrap().to_string();
            assert_eq!(shown.parse::<Memory>(), text.parse(), "{text} became {shown}");
        }
        assert_eq!((Memory(3 << 29).to_string(), Memory::gib(2).to_string()), ("1536MiB".into(), "2GiB".into()));
        assert_eq!(Memory((5 << 20) + 1).rounded(), "6 MiB");
    }
}
