//! Safetensors files with a checksum.
//!
//! The last tensor of a sealed file is called `sha256` and holds, as 32 bytes, the SHA-256 of everything before it: the
//! length of the header, the header, and the numbers of all other tensors. So every bit of the file is covered, a file
//! is written in one pass, and it stays a safetensors file that any reader opens.
//!
//! A checksum detects accidents. An attacker can seal a modified file again, so readers must still check everything.

use std::collections::BTreeMap;
use std::io::{self, Write};

use nomaly_store::{HashingWriter, sha256};

use super::safetensors_file::{from_safetensors, header, wide_first, write_parts};
use super::{DType, Metadata, TensorSource, WeightTensor, Weights, WeightsError};

/// The name of the tensor that holds the checksum.
pub const CHECKSUM: &str = "sha256";
/// Bytes of a SHA-256.
const LENGTH: usize = 32;

/// Writes a sealed safetensors file: the same tensors and metadata always give the same bytes.
///
/// # Errors
/// As [`write_safetensors`](super::write_safetensors); the name [`CHECKSUM`] is reserved too.
pub fn write_sealed(
    out: &mut impl Write,
    tensors: &BTreeMap<String, TensorSource<'_>>,
    metadata: &Metadata,
) -> Result<(), WeightsError> {
    if tensors.contains_key(CHECKSUM) {
        return Err(WeightsError::Safetensors { reason: format!("a tensor is called {CHECKSUM}") });
    }
    let place = WeightTensor { shape: vec![LENGTH], dtype: DType::U8, bytes: vec![0; LENGTH] };
    let mut order = wide_first(tensors);
    order.push((CHECKSUM, TensorSource::Stored(&place)));
    let header = header(&order, metadata)?;
    let write = |out: &mut _| -> io::Result<()> {
        let mut hashing = HashingWriter::new(out);
        write_parts(&mut hashing, &header, &order[..order.len() - 1])?;
        let (out, digest) = hashing.finish();
        Write::write_all(out, &digest)
    };
    write(out).map_err(|error| WeightsError::Write { reason: error.to_string() })
}

/// Reads the tensors and the metadata of a sealed file; the checksum is not among the tensors.
///
/// # Errors
/// [`WeightsError::Checksum`] if the bytes have changed or the file is not sealed, before anything else is read, and
/// those of [`from_safetensors`].
pub fn from_sealed(bytes: &[u8]) -> Result<(Weights, Metadata), WeightsError> {
    let (content, digest) = bytes.split_last_chunk::<LENGTH>().ok_or(WeightsError::Checksum)?;
    if sha256(content) != *digest {
        return Err(WeightsError::Checksum);
    }
    let (mut weights, metadata) = from_safetensors(bytes)?;
    match weights.remove(CHECKSUM) {
        Some(tensor) if tensor.dtype == DType::U8 && tensor.bytes == digest => Ok((weights, metadata)),
        _ => Err(WeightsError::Checksum),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> (Weights, Metadata, Vec<u8>) {
        let weights = Weights::from([
            ("a".to_owned(), WeightTensor::from_f32(vec![3], &[1.0, -2.0, 0.5])),
            ("b".to_owned(), WeightTensor { shape: vec![5], dtype: DType::U8, bytes: vec![1, 2, 3, 4, 5] }),
            ("z".to_owned(), WeightTensor { shape: vec![0], dtype: DType::U8, bytes: vec![] }),
        ]);
        let metadata = Metadata::from([("key".to_owned(), "value \"quoted\"".to_owned())]);
        let tensors = weights.iter().map(|(name, tensor)| (name.clone(), TensorSource::Stored(tensor))).collect();
        let mut bytes = Vec::new();
        write_sealed(&mut bytes, &tensors, &metadata).unwrap();
        (weights, metadata, bytes)
    }

    #[test]
    fn a_sealed_file_is_read_and_is_a_safetensors_file() {
        let (weights, metadata, bytes) = sealed();
        assert_eq!(from_sealed(&bytes).unwrap(), (weights.clone(), metadata.clone()));
        let (mut plain, found) = from_safetensors(&bytes).unwrap();
        assert_eq!(plain.remove(CHECKSUM).unwrap().bytes, sha256(&bytes[..bytes.len() - 32]));
        assert_eq!((plain, found), (weights, metadata));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (_, _, mut bytes) = sealed();
        for bit in 0..8 * bytes.len() {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(from_sealed(&bytes), Err(WeightsError::Checksum)), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(from_sealed(&bytes).is_ok());
    }

    #[test]
    fn files_that_end_early_or_were_not_sealed_are_refused() {
        let (weights, metadata, bytes) = sealed();
        for length in 0..bytes.len() {
            assert!(matches!(from_sealed(&bytes[..length]), Err(WeightsError::Checksum)), "{length} bytes");
        }
        let plain = super::super::to_safetensors(&weights, &metadata).unwrap();
        assert!(matches!(from_sealed(&plain), Err(WeightsError::Checksum)));
        // The right digest after the file instead of in its last tensor.
        let appended = [plain.as_slice(), &sha256(&plain)].concat();
        assert!(matches!(from_sealed(&appended), Err(WeightsError::Safetensors { .. })));
    }

    #[test]
    fn the_checksum_s_name_is_reserved() {
        let tensor = WeightTensor::from_f32(vec![1], &[1.0]);
        let tensors = BTreeMap::from([(CHECKSUM.to_owned(), TensorSource::Stored(&tensor))]);
        let refused = write_sealed(&mut Vec::new(), &tensors, &Metadata::new());
        assert!(matches!(refused, Err(WeightsError::Safetensors { .. })), "{refused:?}");
    }
}
