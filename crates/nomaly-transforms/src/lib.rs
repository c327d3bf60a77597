//! Image decoding, resizing, normalisation and synthetic anomalies
#![forbid(unsafe_code)]
#![deny(missing_docs)]
