//! The registry of methods.

use nomaly_registry::Registry;

use crate::method::MethodEntry;
use crate::methods::{adacl, cutpaste, dn2, features, geotrans, mvg, open_set, padim, patch_model, patchcore, spade};

/// All methods.
pub static METHODS: Registry<MethodEntry> = Registry::new(
    "method",
    &[
        mvg::ENTRY,
        dn2::ENTRY,
        padim::ENTRY,
        patchcore::ENTRY,
        spade::ENTRY,
        features::ENTRY,
        patch_model::ENTRY,
        open_set::ENTRY,
        geotrans::ENTRY,
        adacl::ENTRY,
        cutpaste::ENTRY,
    ],
);
