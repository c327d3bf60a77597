//! From images to features: loader, preprocessing and backbone in one stream.

mod extractor;
mod memory;
mod near_copies;
mod stream;

pub(crate) use self::extractor::size_name;
pub use self::extractor::{FeatureExtractor, StreamOptions};
pub(crate) use self::memory::NetworkMemory;
pub(crate) use self::stream::ImageStream;
pub use self::stream::Streamed;
