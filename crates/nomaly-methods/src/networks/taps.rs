//! Features of the training images in half precision, in memory and beyond that on disk.
//!
//! # Precision
//! The values of a tap in a view are divided by a power of two that brings the largest magnitude into [2¹⁴, 2¹⁵),
//! and rounded to f16. So none overflows, and each is off by at most 2⁻¹¹ of itself, or by 2⁻³⁹ of the largest
//! of its tap and view if it is smaller than 2⁻²⁸ of that.
//!
//! # Place
//! Views up to a limit are kept in memory, the others in a [`ScratchFile`], which is gone when the fit is, however it
//! ends. A disk that is full ends the fit with an error that names the folder and the amount: going on without the
//! cache would take as many passes of the network as there are epochs.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use half::f16;
use half::slice::HalfFloatSliceExt;
use nomaly_scorers::ScorerError;
use nomaly_settings::Memory;
use nomaly_store::{HashingWriter, ScratchFile};

use crate::MethodError;
use crate::features::FeatureBatch;

/// Bytes of a stored value.
const BYTES: usize = size_of::<f16>();

/// The binary exponent of the largest magnitude of a tap in a view, as stored.
const TOP: i32 = 14;

/// The least exponent of a scale, whose inverse is still a normal f32. It only limits values below 10⁻²⁵.
const LEAST_EXPONENT: i32 = -100;

/// Where features are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapLimits {
    /// The most bytes in memory.
    pub memory: u64,
    /// The folder of the temporary file for the others; created if missing.
    pub folder: PathBuf,
}

/// The taps of the views of a set of images, for mini-batches in any order.
#[derive(Debug)]
pub struct TapStore {
    /// Height and width of a view in pixels.
    input: [usize; 2],
    shapes: Vec<[usize; 3]>,
    /// Values of each tap per view.
    lengths: Vec<usize>,
    /// Views in memory, from the first.
    memory: Vec<f16>,
    /// The other views.
    disk: Option<Mutex<ScratchFile>>,
    /// By view and tap, the exponent of the power of two that stored values are multiplied by.
    exponents: Vec<i16>,
    fingerprint: String,
}

impl TapStore {
    /// Views.
    pub fn inputs(&self) -> usize {
        self.exponents.len() / self.lengths.len().max(1)
    }

    /// Height and width of a view in pixels.
    pub fn input_size(&self) -> [usize; 2] {
        self.input
    }

    /// The `[C, h, w]` of each tap in a view, whatever its layout.
    pub fn shapes(&self) -> &[[usize; 3]] {
        &self.shapes
    }

    /// Bytes of the views in memory, and of those on disk.
    pub fn bytes(&self) -> [u64; 2] {
        let disk = |file: &Mutex<ScratchFile>| file.lock().unwrap_or_else(PoisonError::into_inner).len();
        [(BYTES * self.memory.capacity()) as u64, self.disk.as_ref().map_or(0, disk)]
    }

    /// The SHA-256 of all values.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Reads the taps of `views`, in this order: `taps` has a vector for each, which is resized to
    /// `views.len()` × its values per view. The values of a view do not depend on the other views.
    ///
    /// # Errors
    /// Another number of vectors, a view that does not exist, or a temporary file that cannot be read.
    pub fn read(&self, views: &[usize], taps: &mut [Vec<f32>]) -> Result<(), MethodError> {
        if taps.len() != self.lengths.len() {
            return Err(refuse(format!("{} taps are asked for, and there are {}", taps.len(), self.lengths.len())));
        }
        for (tap, length) in taps.iter_mut().zip(&self.lengths) {
            tap.resize(views.len() * length, 0.0);
        }
        let record: usize = self.lengths.iter().sum();
        let mut from_disk = Record::default();
        for (place, &view) in views.iter().enumerate() {
            if view >= self.inputs() {
                return Err(refuse(format!("view {view} is asked for, and there are {}", self.inputs())));
            }
            let stored = match self.memory.get(view * record..(view + 1) * record) {
                Some(stored) => stored,
                None => self.read_from_disk(view, record, &mut from_disk)?,
            };
            let (mut start, exponents) = (0, &self.exponents[view * taps.len()..]);
            for ((tap, &length), &exponent) in taps.iter_mut().zip(&self.lengths).zip(exponents) {
                let values = &mut tap[place * length..(place + 1) * length];
                stored[start..start + length].convert_to_f32_slice(values);
                let scale = power_of_two(exponent.into());
                values.iter_mut().for_each(|value| *value *= scale);
                start += length;
            }
        }
        Ok(())
    }

    fn read_from_disk<'r>(&self, view: usize, length: usize, record: &'r mut Record) -> Result<&'r [f16], MethodError> {
        let Some(file) = &self.disk else { return Err(refuse(format!("view {view} is nowhere"))) };
        let first = self.memory.len() / length.max(1);
        let each = BYTES * length;
        record.bytes.resize(each, 0);
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let read = file.read(((view - first) * each) as u64, &mut record.bytes);
        read.map_err(|error| disk_error(file.folder(), &error, None))?;
        record.values.clear();
        let (pairs, _) = record.bytes.as_chunks();
        record.values.extend(pairs.iter().map(|bytes| f16::from_le_bytes(*bytes)));
        Ok(&record.values)
    }
}

/// The values of a view from the disk.
#[derive(Default)]
struct Record {
    bytes: Vec<u8>,
    values: Vec<f16>,
}

/// Collects the taps of views, batch by batch.
#[derive(Debug)]
pub(crate) struct TapWriter {
    limits: TapLimits,
    /// The most views that come.
    most: usize,
    /// The most views in memory.
    in_memory: usize,
    store: TapStore,
    /// The values of one view, scaled and encoded.
    scaled: Vec<f32>,
    encoded: Vec<f16>,
    bytes: Vec<u8>,
    digest: HashingWriter<io::Sink>,
}

impl TapWriter {
    /// A writer of at most `most` views.
    pub(crate) fn new(limits: TapLimits, most: usize) -> Self {
        let store = TapStore {
            input: [0; 2],
            shapes: Vec::new(),
            lengths: Vec::new(),
            memory: Vec::new(),
            disk: None,
            exponents: Vec::new(),
            fingerprint: String::new(),
        };
        let digest = HashingWriter::new(io::sink());
        Self { limits, most, in_memory: 0, store, scaled: Vec::new(), encoded: Vec::new(), bytes: Vec::new(), digest }
    }

    /// Adds the views of a batch.
    ///
    /// # Errors
    /// Values that are not finite, and a disk that is full or cannot be written.
    pub(crate) fn push(&mut self, batch: &FeatureBatch<'_>) -> Result<(), MethodError> {
        let views = batch.images * batch.views;
        if self.store.lengths.is_empty() {
            self.begin(batch, views)?;
        }
        for view in 0..views {
            self.encoded.clear();
            self.bytes.clear();
            for tap in 0..self.store.lengths.len() {
                let length = self.store.lengths[tap];
                let values = &batch.values[tap][view * length..(view + 1) * length];
                let exponent = exponent_of(values).ok_or_else(|| {
                    let column = values.iter().position(|value| !value.is_finite()).unwrap_or(0);
                    ScorerError::NonFiniteFeature { row: self.store.exponents.len() / self.store.lengths.len(), column }
                })?;
                self.store.exponents.push(exponent as i16);
                self.scaled.clear();
                let scale = power_of_two(-exponent);
                self.scaled.extend(values.iter().map(|value| value * scale));
                let start = self.encoded.len();
                self.encoded.resize(start + length, f16::ZERO);
                self.encoded[start..].convert_from_f32_slice(&self.scaled);
                let _ = self.digest.write(&(exponent as i16).to_le_bytes());
            }
            self.bytes.extend(self.encoded.iter().flat_map(|value| value.to_le_bytes()));
            // A sink takes everything.
            let _ = self.digest.write_all(&self.bytes);
            self.keep()?;
        }
        Ok(())
    }

    /// Takes the shapes of the first batch, and reserves the memory.
    fn begin(&mut self, batch: &FeatureBatch<'_>, views: usize) -> Result<(), MethodError> {
        self.store.input = batch.input;
        self.store.shapes = batch.shapes.to_vec();
        self.store.lengths = batch.values.iter().map(|values| values.len() / views.max(1)).collect();
        let each: usize = self.store.lengths.iter().sum();
        let fit = self.limits.memory / (BYTES * each).max(1) as u64;
        let views = self.most.min(usize::try_from(fit).unwrap_or(usize::MAX));
        self.in_memory = views;
        self.store.memory.try_reserve_exact(views * each).map_err(|_| MethodError::Limit {
            reason: format!(
                "the features of the training images do not fit in memory: {} cannot be had; a smaller `max_memory` \
                 keeps more of them on disk",
                Memory((BYTES * views * each) as u64).rounded()
            ),
        })
    }

    /// Keeps the encoded view.
    fn keep(&mut self) -> Result<(), MethodError> {
        if self.store.memory.len() < self.in_memory * self.encoded.len() {
            self.store.memory.extend_from_slice(&self.encoded);
            return Ok(());
        }
        let each = self.bytes.len() as u64;
        let file = match &mut self.store.disk {
            Some(file) => file,
            none => none.insert(Mutex::new(ScratchFile::create_in(&self.limits.folder)?)),
        };
        let file = file.get_mut().unwrap_or_else(PoisonError::into_inner);
        let on_disk = each * (self.most - self.in_memory) as u64;
        file.append(&self.bytes).map_err(|error| disk_error(&self.limits.folder, &error, Some(on_disk)))
    }

    /// The store of all views.
    pub(crate) fn finish(mut self) -> TapStore {
        let (_, digest) = self.digest.finish();
        self.store.fingerprint = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        self.store
    }
}

/// The exponent e such that the largest magnitude is in [2¹⁴, 2¹⁵) · 2ᵉ; `None` if a value is not finite.
fn exponent_of(values: &[f32]) -> Option<i32> {
    // The bits of magnitudes have their order, and those of NaN are above all others.
    let largest = values.iter().map(|value| value.to_bits() & 0x7fff_ffff).max().unwrap_or(0);
    match (largest >> 23) as i32 {
        0xff => None,
        0 if largest == 0 => Some(0),
        biased => Some((biased - 127 - TOP).max(LEAST_EXPONENT)),
    }
}

/// 2ᵉ for −126 ≤ e ≤ 127.
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((127 + exponent) as u32) << 23)
}

/// The error of the disk in `folder`, and how many bytes it has to take.
fn disk_error(folder: &Path, error: &io::Error, needed: Option<u64>) -> MethodError {
    if error.kind() == io::ErrorKind::StorageFull {
        let amount = needed.map_or_else(String::new, |bytes| format!(" take {} there and", Memory(bytes).rounded()));
        let reason = format!(
            "the disk of {} is full: the features of the training images{amount} do not fit; free it, or keep more of \
             them in memory with a larger `max_memory`",
            folder.display()
        );
        return MethodError::Limit { reason };
    }
    MethodError::File { what: "temporary file of features in", path: folder.to_owned(), reason: error.to_string() }
}

fn refuse(reason: String) -> MethodError {
    MethodError::Conflict { reason }
}

#[cfg(test)]
#[path = "taps_tests.rs"]
mod tests;
