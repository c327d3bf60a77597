//! Shared parts of methods that train a network on pixels: images in memory, examples, the trained network.

pub(crate) mod classification;
pub(crate) mod classifier;
pub(crate) mod examples;
pub(crate) mod images;
pub(crate) mod set;
