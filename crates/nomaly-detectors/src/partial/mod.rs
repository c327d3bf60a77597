//! Exact fits divided over processes or machines.
//!
//! Most of the time of a fit goes into running images through a frozen network.
//! [`Detector::absorb`](crate::Detector::absorb) does so for one [`Shard`] of the images and writes a *partial*: their
//! features and all other data that a fit takes from images. [`merge`] reads the partials of all shards and fits the
//! method without reading any image. The model equals that of [`Detector::fit`](crate::Detector::fit) on all images,
//! byte for byte.
//!
//! Every process must get the same samples and options. Each derives whatever depends on all images (the aspect ratio,
//! groups by name, the order) from the whole list. Methods that train a network cannot be divided.
//!
//! # Format, version 1
//!
//! | what | length in bytes |
//! |---|---|
//! | `nomaly partial` and a line feed | 15 |
//! | the version of the format, little-endian | 4 |
//! | the length of the header, little-endian | 8 |
//! | the header: JSON | as it says |
//! | the backbone's weights up to the deepest tap, a safetensors file; in the first shard | as the header says |
//! | the region of interest, if any: 0 or 255 per pixel of the frame | as the header says |
//! | for each usable image, each size and each tap: its values, F32, little-endian | from the shapes of the taps |
//! | the list of images, usable or not: JSON | |
//! | the length of that list, little-endian | 8 |
//! | the SHA-256 of everything before it | 32 |
//!
//! A partial is written and read image by image, so that neither takes more memory than a fit. Reading checks the
//! checksum first, and every size before allocating. The content does not depend on the time or the number of threads.

mod absorb;
mod header;
mod images;
mod merge;
mod reader;
mod replay;
mod shard;
mod writer;

pub use self::absorb::Absorbed;
pub use self::header::FORMAT_VERSION;
pub use self::merge::{MergeOptions, Merged, merge};
pub use self::shard::Shard;
