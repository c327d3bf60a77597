//! Merges the partials of all shards into a fitted detector.

use std::collections::BTreeSet;
use std::path::Path;

use image::GrayImage;
use nomaly_backbones::Backbone;
use nomaly_data::FrameCache;
use nomaly_kernels::Isa;
use nomaly_methods::{FeatureSource, GroupBy, METHODS, MethodError, Stage};
use nomaly_nn::weights::from_sealed;
use nomaly_store::{Progress, sha256_hex};
use nomaly_transforms::Pipeline;

use super::absorb::image_bytes;
use super::header::list_hash;
use super::reader::Partial;
use super::replay::Replay;
use crate::detector::{Detector, DetectorParts, FitResult, Training};
use crate::error::DetectorError;
use crate::shift::InputProfile;
use crate::stored::check_parts;

/// The most missing shards named in an error.
const MOST_NAMED: usize = 10;

/// Options of a merge.
#[derive(Clone, Copy, Debug, Default)]
pub struct MergeOptions {
    /// As [`FitOptions::updatable`](crate::FitOptions::updatable).
    pub updatable: bool,
}

/// A fit on the images of partials.
pub struct Merged {
    /// The fit, equal to that of one process on all images.
    pub fit: FitResult,
    /// The names of all images, indexed by the [held-out scores](FitResult::held_out).
    pub ids: Vec<String>,
}

/// Fits on the images of the partials of all shards, given in any order.
///
/// # Errors
/// [`DetectorError::Partial`] for a file that is damaged, truncated, of another version, of another fit than the first
/// one, or of a shard that another file has too, and for missing shards. The errors of a [fit](Detector::fit).
pub fn merge(
    paths: &[impl AsRef<Path>],
    options: MergeOptions,
    progress: &dyn Progress,
) -> Result<Merged, DetectorError> {
    let partials = open_all(paths, progress)?;
    let [first, ..] = &*partials else {
        return Err(MethodError::Conflict { reason: "there are no partials to merge".to_owned() }.into());
    };
    let fit = &first.header.fit;
    let detector = detector(first)?;
    detector.check_updates(options.updatable)?;
    let each = image_bytes(detector.extractors());
    partials.iter().try_for_each(|partial| partial.check_values(each))?;
    let originals = || partials.iter().flat_map(|partial| &partial.images).filter(|image| !image.changed);
    if list_hash(originals().map(|image| (image.facts.id.as_str(), image.kind.as_str()))) != fit.list {
        return Err(first.refuse("is damaged: its list of images is not that of all partials"));
    }
    let ids = originals().map(|image| image.facts.id.clone()).collect();

    let group_by: GroupBy = fit.group_by.parse().map_err(|reason| first.refuse(format!("is damaged: {reason}")))?;
    let images = partials.iter().map(|partial| partial.images.len()).sum();
    let held_bytes = FrameCache::new(fit.pipelines.clone(), images, detector.frame_bytes()).most_bytes();
    let replay = Replay::new(&partials, detector.extractors(), &group_by, held_bytes);
    let method = detector.method();
    let learned = detector.learn(
        fit.seed,
        options.updatable,
        progress,
        &|size, context| method.fit(&replay.at(size), context),
        || replay.at(0).groups(),
    )?;
    let (streamed, looks) = replay.into_streamed()?;
    let input = InputProfile::of(&looks, detector.extractors()[0].shallowest());
    let training = Training {
        dataset: fit.dataset.clone(),
        seed: fit.seed,
        rule: fit.rule.checked()?,
        copies: fit.changes.len(),
        streamed,
        input,
        notes: first.header.notes.clone(),
    };
    let mut fit = detector.fitted(learned, training)?;
    fit.warnings.extend(warning_of_instruction_sets(&partials)?);
    Ok(Merged { fit, ids })
}

/// A warning about partials computed with different instruction sets.
fn warning_of_instruction_sets(partials: &[Partial]) -> Result<Option<String>, MethodError> {
    let mut found: BTreeSet<&str> = partials.iter().map(|partial| partial.header.isa.as_str()).collect();
    // After another device, one process would have computed the rest on the processor too.
    if found.iter().any(|name| name.parse::<Isa>().is_ok()) {
        found.insert(Isa::best()?.name());
    }
    let names = found.iter().copied().collect::<Vec<_>>().join(" and ");
    Ok((found.len() > 1).then(|| {
        format!(
            "the shards and this merge were computed with {names}, which round differently: the model is not byte for \
             byte that of one process; NOMALY_ISA names one instruction set for all"
        )
    }))
}

/// Orders the partials by shard, and checks that they belong to one fit with each shard once.
fn open_all(paths: &[impl AsRef<Path>], progress: &dyn Progress) -> Result<Vec<Partial>, DetectorError> {
    let stage = Stage::start(progress, "checking partials", Some(paths.len()));
    let mut partials: Vec<Partial> = Vec::with_capacity(paths.len());
    for path in paths {
        let partial = Partial::open(path.as_ref(), progress)?;
        if let Some(first) = partials.first() {
            check_same_fit(&partial, first)?;
        }
        if let Some(twin) = partials.iter().find(|other| other.shard == partial.shard) {
            return Err(partial.refuse(format!("is shard {}, as {} is", partial.shard, twin.path.display())));
        }
        partials.push(partial);
        stage.advance(1);
    }
    partials.sort_by_key(|partial| partial.shard.index());
    if let Some(first) = partials.first() {
        let count = first.shard.count();
        let is_there = |index: &usize| partials.binary_search_by_key(index, |partial| partial.shard.index()).is_ok();
        let missing: Vec<String> = (1..=count)
            .filter(|index| !is_there(index))
            .take(MOST_NAMED)
            .map(|index| format!("{index}/{count}"))
            .collect();
        if !missing.is_empty() {
            let (shards, are) = if count - partials.len() == 1 { ("shard", "is") } else { ("shards", "are") };
            let more = if count - partials.len() > missing.len() { " …" } else { "" };
            let all: Vec<String> = partials.iter().map(|partial| partial.path.display().to_string()).collect();
            let reason = format!("{shards} {}{more} {are} missing beside {}", missing.join(", "), all.join(", "));
            return Err(MethodError::Conflict { reason }.into());
        }
    }
    Ok(partials)
}

/// Rejects a partial of another fit.
fn check_same_fit(partial: &Partial, first: &Partial) -> Result<(), DetectorError> {
    let other = first.path.display();
    if let Some(difference) = partial.header.fit.difference(&first.header.fit) {
        return Err(partial.refuse(format!("is of another fit than {other}: they differ in {difference}")));
    }
    let (own, theirs) = (partial.shard.count(), first.shard.count());
    if own != theirs {
        return Err(partial.refuse(format!("is one of {own} shards, and {other} is one of {theirs}")));
    }
    let (own, theirs) = (&partial.header.nomaly, &first.header.nomaly);
    if own != theirs {
        return Err(partial.refuse(format!("was written by nomaly {own}, and {other} by nomaly {theirs}")));
    }
    Ok(())
}

/// Builds the detector described by the first shard.
fn detector(first: &Partial) -> Result<Detector, DetectorError> {
    let fit = &first.header.fit;
    let refuse = |error: DetectorError| match error {
        // Faults of the machine or the environment are not reported as damage of the file.
        DetectorError::Method(MethodError::Isa(_)) => error,
        error => first.refuse(format!("is damaged: {error}")),
    };
    let entry = METHODS.get(&fit.method.name).map_err(|error| refuse(error.into()))?;
    if entry.trains {
        return Err(MethodError::NotSplittable { method: entry.name.to_owned() }.into());
    }
    check_parts(entry, &fit.method.settings, &fit.backbone, fit.input.median, &fit.pipelines).map_err(refuse)?;
    if sha256_hex(&first.weights) != fit.weights {
        return Err(first.refuse("is damaged: its weights are not those that it names"));
    }
    let build = || -> Result<Detector, DetectorError> {
        let (weights, _) = from_sealed(&first.weights).map_err(nomaly_backbones::BackboneError::from)?;
        let known = &first.header.backbone;
        let backbone = Backbone::from_tensors(&fit.backbone, weights)?.with_provenance(&known.source, &known.licence);
        let region = region(first)?;
        let parts = DetectorParts {
            method: entry.name,
            settings: &fit.method.settings,
            backbone,
            input: fit.input.clone(),
            pipelines: &fit.pipelines,
            region,
        };
        Detector::from_parts(parts)
    };
    build().map_err(refuse)
}

/// The region of interest, if any.
fn region(first: &Partial) -> Result<Option<GrayImage>, DetectorError> {
    let Some(hash) = &first.header.fit.region else { return Ok(None) };
    let damaged = || MethodError::State { state: "region".to_owned(), reason: Some("it is not as it was".to_owned()) };
    let frame = first.header.fit.pipelines.first().map(Pipeline::frame_size);
    let [height, width] = frame.ok_or_else(damaged)?;
    let sound = sha256_hex(&first.region) == *hash && first.region.iter().any(|value| *value != 0);
    let image = GrayImage::from_raw(width as u32, height as u32, first.region.clone());
    Ok(Some(image.filter(|_| sound && first.region.len() == height * width).ok_or_else(damaged)?))
}
