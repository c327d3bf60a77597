//! Writes partials image by image.

use std::io::{BufWriter, Write};
use std::path::Path;

use nomaly_methods::{FeatureBatch, MethodError};
use nomaly_store::{AtomicFile, HashingWriter, StoreError};

use super::header::{FORMAT_VERSION, Header, MAGIC};
use super::images::ImageRecord;
use crate::error::DetectorError;

/// The write buffer in bytes.
const BUFFER: usize = 1 << 20;

/// A partial being written; the file appears on [`finish`](Self::finish).
pub(super) struct PartialWriter<'a> {
    path: &'a Path,
    out: BufWriter<HashingWriter<AtomicFile>>,
    images: Vec<ImageRecord>,
    bytes: u64,
    /// A buffer for the bytes of one tap of an image.
    tap: Vec<u8>,
}

impl<'a> PartialWriter<'a> {
    /// Writes the header, the weights and the region.
    pub(super) fn create(
        path: &'a Path,
        header: &Header,
        weights: &[u8],
        region: &[u8],
    ) -> Result<Self, DetectorError> {
        let json = encoded(header)?;
        let file = AtomicFile::create(path)?;
        let out = BufWriter::with_capacity(BUFFER, HashingWriter::new(file));
        let mut writer = Self { path, out, images: Vec::new(), bytes: 0, tap: Vec::new() };
        for part in [
            MAGIC.as_slice(),
            &FORMAT_VERSION.to_le_bytes(),
            &(json.len() as u64).to_le_bytes(),
            &json,
            weights,
            region,
        ] {
            writer.write(part)?;
        }
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DetectorError> {
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes).map_err(failed(self.path))
    }

    /// Adds an image to the list; [`values`](Self::values) adds the values of usable ones.
    pub(super) fn image(&mut self, image: ImageRecord) {
        self.images.push(image);
    }

    /// Adds the values of the usable images of a batch, given at each size.
    pub(super) fn values(&mut self, sizes: &[FeatureBatch<'_>]) -> Result<(), DetectorError> {
        let images = sizes.first().map_or(0, |batch| batch.images);
        for image in 0..images {
            for values in sizes.iter().flat_map(|batch| batch.values) {
                let each = values.len() / images;
                let mut tap = std::mem::take(&mut self.tap);
                tap.clear();
                tap.extend(values[image * each..(image + 1) * each].iter().flat_map(|value| value.to_le_bytes()));
                self.write(&tap)?;
                self.tap = tap;
            }
        }
        Ok(())
    }

    /// Finishes the file and moves it to its path; returns its size in bytes.
    pub(super) fn finish(mut self) -> Result<u64, DetectorError> {
        let json = encoded(&self.images)?;
        self.write(&json)?;
        self.write(&(json.len() as u64).to_le_bytes())?;
        let failed = failed(self.path);
        let hashing = self.out.into_inner().map_err(|error| failed(error.into_error()))?;
        let (mut file, digest) = hashing.finish();
        file.write_all(&digest).map_err(failed)?;
        file.commit()?;
        Ok(self.bytes + digest.len() as u64)
    }
}

fn encoded(value: &impl serde::Serialize) -> Result<Vec<u8>, DetectorError> {
    serde_json::to_vec(value).map_err(|error| MethodError::Encode { reason: error.to_string() }.into())
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> DetectorError + Copy + '_ {
    move |source| StoreError::Io { action: "write", path: path.to_owned(), source }.into()
}
