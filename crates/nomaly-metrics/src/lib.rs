//! Metrics of anomaly detection: ROC, AUROC, AP, F1-max, EER, AUPRO
#![forbid(unsafe_code)]
#![deny(missing_docs)]
