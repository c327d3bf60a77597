//! Fits that are divided over processes or machines, exactly.
//!
//! Most of a fit is spent on running images through a frozen network. [`Detector::absorb`](crate::Detector::absorb)
//! does that for one [`Shard`] of the images and writes a *partial*: what the network says of them, and whatever else a
//! fit takes from images. [`merge`] reads the partials of all shards and fits the method on them, which looks at no
//! image again. The model is byte for byte the one that [`Detector::fit`](crate::Detector::fit) makes of all images.
//!
//! Every process is given the same samples and the same options. What depends on all images (the aspect ratio, groups
//! by name, the order) is taken from the whole list by each of them. Methods that train a network cannot be divided.
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
//! | the region of interest, 0 or 255 a pixel of the frame; where there is one | as the header says |
//! | for each usable image, each size and each tap: its values, F32, little-endian | from the shapes of the taps |
//! | the list of images, usable or not: JSON | |
//! | the length of that list, little-endian | 8 |
//! | the SHA-256 of everything before it | 32 |
//!
//! A partial is written as images come, and read image by image: neither takes more memory than a fit. Reading checks
//! the checksum first, and every size before it allocates. Nothing in it depends on when, or with how many threads, it
//! was made.

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
