//! What methods share that train a network on pixels: the images in memory, examples made of them, the trained network.

pub(crate) mod classification;
pub(crate) mod classifier;
pub(crate) mod examples;
pub(crate) mod images;
pub(crate) mod set;
