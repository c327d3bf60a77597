//! Self-contained HTML reports with plots
#![forbid(unsafe_code)]
#![deny(missing_docs)]
