//! A feature source over partials.

use std::sync::{Mutex, PoisonError};

use nomaly_methods::groups::GroupInfo;
use nomaly_methods::{FeatureBatch, FeatureSource, GroupBy, Groups, MethodError, MethodScore, Stage};
use nomaly_store::Progress;

use super::images::ImageRecord;
use super::reader::{Partial, Values};
use crate::error::DetectorError;
use crate::images::{Descriptors, FeatureExtractor, StreamOptions, Streamed, group, images_per_batch};
use crate::shift::{Look, pooled};

/// A consumer of batches.
type Visit<'a> = dyn FnMut(&FeatureBatch<'_>) -> Result<(), MethodError> + Send + 'a;

/// A consumer of batches and their images.
type VisitPlaces<'a> = dyn FnMut(&[Place<'_>], &FeatureBatch<'_>) -> Result<(), MethodError> + 'a;

/// The images of all partials, in the order of the shards.
pub(super) struct Replay<'a> {
    partials: &'a [Partial],
    extractors: &'a [FeatureExtractor],
    group_by: &'a GroupBy,
    /// Bytes that a fit on images would cache between visits, so that both plan with the same memory.
    held_bytes: u64,
    /// The values per image of each tap at each size.
    lengths: Vec<Vec<usize>>,
    usable: Vec<Place<'a>>,
    first: Mutex<First>,
}

/// A usable image.
#[derive(Clone, Copy)]
struct Place<'a> {
    image: &'a ImageRecord,
    partial: usize,
    /// Its number among the usable images of the partial.
    number: usize,
}

/// The results of the first visit, at the smallest size.
#[derive(Default)]
struct First {
    done: bool,
    looks: Vec<Look>,
    descriptors: Descriptors,
    /// The groups of the usable images, once known.
    groups: Option<(Groups, GroupInfo)>,
}

impl<'a> Replay<'a> {
    /// A source over `partials`, which have been checked against the extractors.
    pub(super) fn new(
        partials: &'a [Partial],
        extractors: &'a [FeatureExtractor],
        group_by: &'a GroupBy,
        held_bytes: u64,
    ) -> Self {
        let places = partials.iter().enumerate().flat_map(|(partial, of)| {
            let usable = of.images.iter().filter(|image| image.is_usable());
            usable.enumerate().map(move |(number, image)| Place { image, partial, number })
        });
        Self {
            partials,
            extractors,
            group_by,
            held_bytes,
            lengths: extractors.iter().map(FeatureExtractor::lengths).collect(),
            usable: places.collect(),
            first: Mutex::default(),
        }
    }

    /// All images, usable or not.
    fn images(&self) -> impl Iterator<Item = &'a ImageRecord> {
        self.partials.iter().flat_map(|partial| &partial.images)
    }

    /// The images at one of the sizes.
    pub(super) fn at(&self, size: usize) -> SizedReplay<'_> {
        SizedReplay { replay: self, size }
    }

    /// Reads images at a size and passes them on in the same batches as a fit on images.
    fn read(
        &self,
        size: usize,
        images: &[Place<'_>],
        progress: &dyn Progress,
        what: &str,
        visit: &mut VisitPlaces<'_>,
    ) -> Result<(), MethodError> {
        let extractor = &self.extractors[size];
        let views = extractor.pipeline().view_count();
        let at_a_time = images_per_batch(StreamOptions::default().batch, views, images.len());
        let bytes = |lengths: &[usize]| 4 * lengths.iter().map(|length| *length as u64).sum::<u64>();
        let image_bytes: u64 = self.lengths.iter().map(|lengths| bytes(lengths)).sum();
        let before: u64 = self.lengths[..size].iter().map(|lengths| bytes(lengths)).sum();
        let lengths = &self.lengths[size];
        let mut open: Option<(usize, Values)> = None;
        let mut taps = vec![Vec::new(); lengths.len()];
        let stage = Stage::start(progress, what, Some(images.len()));
        for batch in images.chunks(at_a_time) {
            if progress.cancelled() {
                return Err(MethodError::Cancelled);
            }
            taps.iter_mut().for_each(Vec::clear);
            for place in batch {
                let values = match &mut open {
                    Some((partial, values)) if *partial == place.partial => values,
                    other => {
                        let values = self.partials[place.partial].values().map_err(into_method)?;
                        &mut other.insert((place.partial, values)).1
                    }
                };
                values.read(place.number as u64 * image_bytes + before, lengths, &mut taps).map_err(into_method)?;
            }
            visit(batch, &extractor.batch(batch.len(), &taps))?;
            stage.advance(batch.len());
        }
        Ok(())
    }

    /// The groups of the usable images, with their description.
    fn grouping(&self) -> Result<(Groups, GroupInfo), MethodError> {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &first.groups {
            return Ok(known.clone());
        }
        let images: Vec<_> = self.usable.iter().map(|place| place.image.grouped()).collect();
        let known = group(Some(self.group_by), &images, &first.descriptors)?;
        first.groups = Some(known.clone());
        Ok(known)
    }

    /// The usable and skipped images with their groups and looks. Skipped images exclude copies.
    ///
    /// # Errors
    /// Images that cannot be grouped as requested.
    pub(super) fn into_streamed(self) -> Result<(Streamed, Vec<Look>), MethodError> {
        let (groups, group_info) = self.grouping()?;
        let usable = self.images().enumerate().filter(|(_, image)| image.is_usable()).map(|(place, _)| place).collect();
        let skipped = self.images().filter(|image| !image.changed).filter_map(ImageRecord::skipped).collect();
        let First { looks, .. } = self.first.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((Streamed { usable, skipped, groups, group_info }, looks))
    }
}

/// Partials at one of their sizes.
pub(super) struct SizedReplay<'a> {
    replay: &'a Replay<'a>,
    size: usize,
}

impl FeatureSource for SizedReplay<'_> {
    fn images(&self) -> usize {
        self.replay.images().count()
    }

    fn views(&self) -> usize {
        self.replay.extractors[self.size].pipeline().view_count()
    }

    fn held_bytes(&self) -> u64 {
        self.replay.held_bytes
    }

    fn kinds(&self) -> Vec<String> {
        self.replay.usable.iter().map(|place| place.image.kind.clone()).collect()
    }

    fn groups(&self) -> Result<Groups, MethodError> {
        Ok(self.replay.grouping()?.0)
    }

    fn visit(&self, progress: &dyn Progress, visit: &mut Visit<'_>) -> Result<usize, MethodError> {
        let Replay { usable, first, group_by, extractors, .. } = self.replay;
        let known = first.lock().unwrap_or_else(PoisonError::into_inner).done;
        let what = "reading features";
        if known {
            self.replay.read(self.size, usable, progress, what, &mut |_, batch| visit(batch))?;
            return Ok(usable.len());
        }
        let mut found = First { done: true, ..First::default() };
        let tap = extractors[self.size].shallowest_tap();
        self.replay.read(self.size, usable, progress, what, &mut |places, batch| {
            let mut rows = tap.map(|tap| pooled(batch, tap)).into_iter().flatten();
            found.looks.extend(places.iter().filter_map(|place| place.image.look(rows.next())));
            if let GroupBy::Auto = group_by {
                let originals: Vec<bool> = places.iter().map(|place| !place.image.changed).collect();
                found.descriptors.add(batch, &originals);
            }
            visit(batch)
        })?;
        *first.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(usable.len())
    }

    fn visit_some(&self, which: &[usize], progress: &dyn Progress, visit: &mut Visit<'_>) -> Result<(), MethodError> {
        let places: Vec<Place<'_>> = which.iter().map(|&image| self.replay.usable[image]).collect();
        self.replay.read(self.size, &places, progress, "scoring held-out images", &mut |_, batch| visit(batch))
    }

    fn combine(&self, views: Vec<MethodScore>) -> Result<MethodScore, MethodError> {
        self.replay.extractors[self.size].combine(views)
    }
}

/// Converts errors of the source for the method.
fn into_method(error: DetectorError) -> MethodError {
    match error {
        DetectorError::Method(error) => error,
        DetectorError::Partial { path, reason } => MethodError::File { what: "the partial", path, reason },
        error => MethodError::Conflict { reason: error.to_string() },
    }
}
