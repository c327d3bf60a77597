//! One process of a divided fit: writes the partial of a shard.

use std::path::Path;

use nomaly_data::{Sample, with_changes};
use nomaly_methods::groups::GroupFacts;
use nomaly_methods::{GroupBy, InputParams, METHODS, MethodError, Skipped};
use nomaly_nn::weights::{TensorSource, write_sealed};
use nomaly_settings::Auto;
use nomaly_store::{Progress, sha256_hex};

use super::header::{FitIdentity, Header, list_hash};
use super::images::ImageRecord;
use super::shard::Shard;
use super::writer::PartialWriter;
use crate::detector::{Detector, FitOptions};
use crate::error::DetectorError;
use crate::images::FeatureExtractor;

/// The result of a shard.
#[derive(Clone, Debug)]
pub struct Absorbed {
    /// Usable images, without changed copies.
    pub images: usize,
    /// Unusable images.
    pub skipped: Vec<Skipped>,
    /// The size of the file in bytes.
    pub bytes: u64,
    /// The bytes of the features of one image or copy.
    pub image_bytes: u64,
}

impl Detector {
    /// Runs the images of `shard` through the network, and writes the partial to `path`, atomically.
    ///
    /// `samples` are those of all shards; every process of a fit must get the same samples and options.
    ///
    /// # Errors
    /// [`MethodError::NotSplittable`] for methods that train a network, cancellation, an unusable image in
    /// [strict](crate::StreamOptions::strict) mode, and a path that cannot be written.
    pub fn absorb(
        self,
        dataset: &str,
        samples: &[Sample],
        shard: Shard,
        options: &FitOptions,
        path: &Path,
        progress: &dyn Progress,
    ) -> Result<Absorbed, DetectorError> {
        let name = self.method().name();
        if METHODS.get(name)?.trains {
            return Err(MethodError::NotSplittable { method: name.to_owned() }.into());
        }
        options.rule.checked()?;
        if matches!(options.group_by, GroupBy::Pattern(_)) {
            // Fail now rather than after all shards are done.
            options.group_by.by_name(&samples.iter().collect::<Vec<_>>())?;
        }
        let detector = self.shaped_for(samples)?;
        let weights = detector.sealed_weights()?;
        let region = detector.region().map_or(&[][..], |region| region.as_raw());
        let fit = detector.identity(dataset, samples, options, &weights);
        let (weights, region) = if shard.index() == 1 { (&*weights, region) } else { (&[][..], &[][..]) };
        let header = Header {
            nomaly: env!("CARGO_PKG_VERSION").to_owned(),
            isa: detector.executor().arithmetic(),
            fit,
            shard: [shard.index(), shard.count()],
            backbone: detector.backbone_info(),
            notes: detector.notes(samples),
            weight_bytes: weights.len() as u64,
            region_bytes: region.len() as u64,
        };
        let own = with_changes(&samples[shard.of(samples.len())], &options.changes);
        let mut writer = PartialWriter::create(path, &header, weights, region)?;
        let (mut images, mut skipped) = (0, Vec::new());
        let stream = detector.stream(&own, options.stream).measuring();
        stream.run(progress, "reading images", &mut |batch| -> Result<(), DetectorError> {
            for image in batch.images {
                let sample = &own[image.index];
                let original = !sample.source.is_changed();
                let record = match image.failure {
                    Some(failure) => {
                        skipped.extend(original.then(|| failure.clone()));
                        let facts = GroupFacts { id: sample.id.clone(), times: None };
                        ImageRecord::failed(sample, facts, failure)
                    }
                    None => {
                        images += usize::from(original);
                        let look = image.decoded.and_then(|decoded| decoded.look);
                        ImageRecord::usable(sample, options.group_by.facts(sample), look)
                    }
                };
                writer.image(record);
            }
            writer.values(&batch.features)
        })?;
        Ok(Absorbed { images, skipped, bytes: writer.finish()?, image_bytes: image_bytes(detector.extractors()) })
    }

    /// The weights up to the deepest tap, as a safetensors file.
    fn sealed_weights(&self) -> Result<Vec<u8>, DetectorError> {
        let taps: Vec<&str> = self.method().taps().iter().map(|tap| tap.name.as_str()).collect();
        let weights = self.backbone().export(&taps)?;
        let tensors = weights.iter().map(|(name, tensor)| (name.clone(), TensorSource::Stored(tensor))).collect();
        let mut bytes = Vec::new();
        write_sealed(&mut bytes, &tensors, &std::collections::BTreeMap::new())
            .map_err(|error| MethodError::Encode { reason: error.to_string() })?;
        Ok(bytes)
    }

    /// The identity of the fit, common to all partials.
    fn identity(&self, dataset: &str, samples: &[Sample], options: &FitOptions, weights: &[u8]) -> FitIdentity {
        FitIdentity {
            method: self.method_info(),
            // The same file may have different paths on different machines.
            input: InputParams { weights: Auto::Auto, roi: None, ..self.input().clone() },
            backbone: self.backbone().name().to_owned(),
            weights: sha256_hex(weights),
            pipelines: self.extractors().iter().map(|extractor| *extractor.pipeline()).collect(),
            region: self.region().map(|region| sha256_hex(region.as_raw())),
            dataset: dataset.to_owned(),
            images: samples.len(),
            list: list_hash(samples.iter().map(|sample| (sample.id.as_str(), sample.kind.as_str()))),
            seed: options.seed,
            rule: options.rule,
            group_by: options.group_by.to_string(),
            changes: options.changes.0.iter().map(ToString::to_string).collect(),
        }
    }
}

/// The bytes of the values of an image at all sizes.
pub(super) fn image_bytes(extractors: &[FeatureExtractor]) -> u64 {
    extractors.iter().flat_map(FeatureExtractor::lengths).map(|length| 4 * length as u64).sum()
}
