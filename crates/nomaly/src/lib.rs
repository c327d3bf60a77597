//! Visual anomaly detection: learn what normal looks like, find what is not
#![forbid(unsafe_code)]
#![deny(missing_docs)]
