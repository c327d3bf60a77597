//! Photographs of textures that come with the library.
//!
//! Three grey images of 512 × 512 pixels, in the public domain (CC0 1.0); `datasets/embedded/textures/README.md` names
//! their sources. Demonstrations and examples use them when there are no files.

use image::RgbImage;
use nomaly_registry::{Entry, Registry, UnknownName};

use crate::{Limits, decode_bytes};

/// An embedded photograph.
#[derive(Debug)]
pub struct Texture {
    /// The name users type.
    pub name: &'static str,
    /// One line: what it shows.
    pub summary: &'static str,
    png: &'static [u8],
}

impl Entry for Texture {
    fn name(&self) -> &str {
        self.name
    }

    fn summary(&self) -> &str {
        self.summary
    }
}

/// All embedded textures.
pub static TEXTURES: Registry<Texture> = Registry::new(
    "sample texture",
    &[
        Texture {
            name: "brick",
            summary: "a brick wall, regular",
            png: include_bytes!("../../../datasets/embedded/textures/brick.png"),
        },
        Texture {
            name: "grass",
            summary: "grass, irregular and fine",
            png: include_bytes!("../../../datasets/embedded/textures/grass.png"),
        },
        Texture {
            name: "gravel",
            summary: "gravel, irregular and coarse",
            png: include_bytes!("../../../datasets/embedded/textures/gravel.png"),
        },
    ],
);

/// Decodes an embedded texture: 512 × 512 pixels with equal red, green and blue.
///
/// # Errors
/// [`UnknownName`] if no texture has this name.
pub fn texture(name: &str) -> Result<RgbImage, UnknownName> {
    let sample = TEXTURES.get(name)?;
    Ok(decode_bytes(sample.png, &Limits::default()).expect("the embedded images are valid; a test decodes them all"))
}
