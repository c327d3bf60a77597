//! Features of images: loader, preprocessing and backbone in one stream.

mod extractor;
mod grouping;
mod memory;
mod near_copies;
mod stream;

pub use self::extractor::{FeatureExtractor, StreamOptions};
pub(crate) use self::extractor::{images_per_batch, size_name};
pub(crate) use self::grouping::{Grouped, group};
pub(crate) use self::memory::NetworkMemory;
pub(crate) use self::near_copies::Descriptors;
pub(crate) use self::stream::ImageStream;
pub use self::stream::Streamed;
