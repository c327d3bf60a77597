//! Anomaly scorers for rows of features, and decision rules
#![forbid(unsafe_code)]
#![deny(missing_docs)]
