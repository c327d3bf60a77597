//! Files nomaly keeps: the cache folder, verified downloads, archives, atomic writes
#![forbid(unsafe_code)]
#![deny(missing_docs)]
