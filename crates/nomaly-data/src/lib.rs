//! Data sets of good and bad images: readers, manifests, a streaming loader
#![forbid(unsafe_code)]
#![deny(missing_docs)]
