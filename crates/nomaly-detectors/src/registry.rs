//! The methods that can be named.

use nomaly_registry::Registry;

use crate::method::MethodEntry;
use crate::methods::{dn2, mvg, padim, patchcore, spade};

/// Every method.
pub static METHODS: Registry<MethodEntry> =
    Registry::new("method", &[mvg::ENTRY, dn2::ENTRY, padim::ENTRY, patchcore::ENTRY, spade::ENTRY]);
