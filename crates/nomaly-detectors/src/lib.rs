//! Methods of visual anomaly detection: fit on good images, score new ones
#![forbid(unsafe_code)]
#![deny(missing_docs)]
