//! Backbones against the reference implementations.

mod embedded;
mod explain;
#[path = "../../../nomaly-nn/tests/it/formula.rs"]
mod formula;
mod joined;
mod loading;
mod modes;
mod parity;
mod runtimes;
mod tokens;
mod trainable;
#[cfg(feature = "candle")]
mod training;

use nomaly_backbones::Backbone;
use nomaly_backbones::registry::BACKBONES;

/// A backbone with weights by the formula.
fn backbone(name: &str) -> Backbone {
    let graph = BACKBONES.get(name).expect("a known name").graph();
    Backbone::from_tensors(name, formula::weights(&graph)).expect("weights made from the graph fit it")
}
