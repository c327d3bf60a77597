//! Builds the memory bank within a memory limit.

use std::ops::{ControlFlow, Range};

use nomaly_data::subset::{Choice, choose};
use nomaly_kernels::Isa;
use nomaly_kernels::coreset::{CoresetError, KCentreGreedy, Projection, RandomProjection, Start};
use nomaly_settings::Memory;
use nomaly_store::Progress;

use super::bank::MemoryBank;
use super::{MIN_IMAGES, NAME, PatchCore, PatchCoreParams, RESERVE};
use crate::MethodError;
use crate::features::{FeatureBatch, FeatureSource};
use crate::methods::patches::PatchShape;

/// The kept patches, in the order of their images.
pub(super) struct Selected {
    pub(super) shape: PatchShape,
    pub(super) rows: Vec<f32>,
    /// The number of kept patches of each image.
    images: Vec<Range<usize>>,
}

impl Selected {
    /// The bank without the patches of these images, ascending.
    pub(super) fn without(&self, images: &[usize]) -> Result<MemoryBank<'_>, MethodError> {
        let dim = self.shape.dim;
        let mut pieces = Vec::with_capacity(images.len() + 1);
        let mut start = 0;
        for own in images.iter().map(|&image| &self.images[image]) {
            pieces.push(&self.rows[start * dim..own.start * dim]);
            start = own.end;
        }
        pieces.push(&self.rows[start * dim..]);
        MemoryBank::exact(pieces, dim)
    }
}

/// Collects patches in parts that fit into memory, and selects a coreset of each.
pub(super) struct BankBuilder<'a> {
    params: PatchCoreParams,
    images: usize,
    seed: u64,
    progress: &'a dyn Progress,
    /// Bytes of `max_memory` in use elsewhere.
    pub(super) occupied: u64,
    /// The number of added images.
    added: u64,
    building: Option<Building>,
}

struct Building {
    plan: Plan,
    selected: Selected,
    /// Patches of the current part.
    part: Vec<f32>,
}

/// The plan for the patches of all images.
#[derive(Clone, Debug, PartialEq)]
struct Plan {
    shape: PatchShape,
    /// Candidate patches per image, of all its views.
    of_image: usize,
    /// Images per part; all of them if they fit.
    part_images: usize,
    /// The share of a part's patches that the coreset keeps.
    share: f64,
    /// The dimension of the projection.
    projection: Option<usize>,
    /// The most patches of the bank.
    kept: usize,
    notes: Vec<String>,
}

impl Plan {
    /// Plans for at most `images` images of `views` views, in the memory left beside `occupied` bytes.
    fn new(
        params: &PatchCoreParams,
        images: usize,
        views: usize,
        shape: PatchShape,
        occupied: u64,
    ) -> Result<Self, MethodError> {
        let budget = params.max_memory.0.saturating_sub(RESERVE + occupied) as f64;
        let all_of_image = views * shape.patches();
        let of_image = match params.candidates {
            Some(most) => all_of_image.min((most / images.max(1)).max(1)),
            None => all_of_image,
        };
        let candidates = (images * of_image) as f64;
        let projection = params.projection.filter(|components| 2 * components <= shape.dim);

        // The bytes of a kept patch, here and once more when the model is saved: f32, with length and square.
        let kept_row = (4 * shape.dim + 8) as f64;
        let share_of_all = (params.coreset * (images * all_of_image) as f64).ceil();
        let wanted = share_of_all.min(params.bank.map_or(f64::INFINITY, |most| most as f64)).min(candidates);
        let kept = wanted.min((budget / 2.0 / kept_row).floor());
        let share = kept / candidates;
        // The bytes of a patch of a part: itself, its projection, two values of the selection, and its share of the
        // selected centers.
        let numbers = projection.unwrap_or(0) as f64 + shape.dim as f64 + 2.0;
        let centers = share * projection.unwrap_or(shape.dim) as f64;
        let part_row = 4.0 * (numbers + centers);
        let fitting = ((budget - kept * kept_row) / (part_row * of_image as f64)).floor();
        if kept < 1.0 || fitting < 1.0 {
            let least = RESERVE as f64 + occupied as f64 + 2.0 * (part_row * of_image as f64 + kept_row);
            return Err(MethodError::memory(
                NAME,
                &Memory(least as u64).rounded(),
                &params.max_memory.to_string(),
                "allow more, or make `input_size` smaller",
            ));
        }
        let parts = images.div_ceil(fitting as usize);
        let mut notes = Vec::new();
        if parts > 1 {
            notes.push(format!(
                "the patches of {images} images do not fit into max_memory={}: the coreset was chosen in {parts} parts",
                params.max_memory
            ));
        }
        if kept < wanted {
            notes.push(format!(
                "the memory bank keeps {kept:.0} patches: {wanted:.0} do not fit into max_memory={}",
                params.max_memory
            ));
        }
        let part_images = images.div_ceil(parts);
        Ok(Self { shape, of_image, part_images, share, projection, kept: kept as usize, notes })
    }
}

impl<'a> BankBuilder<'a> {
    pub(super) fn new(method: &PatchCore, source: &dyn FeatureSource, seed: u64, progress: &'a dyn Progress) -> Self {
        let occupied = source.held_bytes();
        Self {
            params: method.params.clone(),
            images: source.images(),
            seed,
            progress,
            occupied,
            added: 0,
            building: None,
        }
    }

    /// Adds the patches of a batch.
    pub(super) fn add(&mut self, batch: &FeatureBatch<'_>) -> Result<(), MethodError> {
        let patching = self.params.patching();
        let patches = patching.patches(batch)?;
        let mut building = match self.building.take() {
            Some(building) => building,
            None => {
                let shape = patching.shape(batch);
                let plan = Plan::new(&self.params, self.images, batch.views, shape, self.occupied)?;
                let part = Vec::with_capacity(plan.part_images * plan.of_image * shape.dim);
                let rows = Vec::with_capacity(plan.kept * shape.dim);
                Building { plan, selected: Selected { shape, rows, images: Vec::new() }, part }
            }
        };
        for image in patches.chunks_exact(patches.len() / batch.images) {
            let dim = building.plan.shape.dim;
            // The choice depends on the image, not on its batch.
            let choice = Choice::Seeded(self.seed.rotate_left(32) ^ self.added);
            self.added += 1;
            for patch in choose(image.len() / dim, building.plan.of_image, choice) {
                building.part.extend_from_slice(&image[patch * dim..(patch + 1) * dim]);
            }
            if building.part.len() == building.plan.part_images * building.plan.of_image * dim {
                self.keep_coreset(&mut building)?;
            }
        }
        self.building = Some(building);
        Ok(())
    }

    /// The memory bank, with notes for the user.
    pub(super) fn finish(mut self) -> Result<(Selected, Vec<String>), MethodError> {
        let mut building = self.building.take().ok_or_else(|| MethodError::TooFew {
            of: NAME.to_owned(),
            items: "training images",
            needed: MIN_IMAGES,
            found: 0,
        })?;
        if !building.part.is_empty() {
            self.keep_coreset(&mut building)?;
        }
        Ok((building.selected, building.plan.notes))
    }

    /// Moves the coreset of the current part to the kept patches.
    fn keep_coreset(&self, building: &mut Building) -> Result<(), MethodError> {
        let Building { plan, selected, part } = building;
        let dim = plan.shape.dim;
        let patches = part.len() / dim;
        let room = plan.kept.saturating_sub(selected.rows.len() / dim);
        let count = ((plan.share * patches as f64).ceil() as usize).min(patches).min(room);
        let indices =
            if count == 0 || count == patches { (0..count as u32).collect() } else { self.choose(part, plan, count)? };
        let mut indices = indices.into_iter().peekable();
        for image in 0..patches / plan.of_image {
            let start = selected.rows.len() / dim;
            let end = ((image + 1) * plan.of_image) as u32;
            while let Some(index) = indices.next_if(|index| *index < end) {
                let patch = &part[index as usize * dim..(index as usize + 1) * dim];
                for value in patch {
                    selected.rows.push(self.params.precision.of(*value)?);
                }
            }
            selected.images.push(start..selected.rows.len() / dim);
        }
        part.clear();
        Ok(())
    }

    /// The indices of the patches of a coreset, ascending.
    fn choose(&self, part: &[f32], plan: &Plan, count: usize) -> Result<Vec<u32>, MethodError> {
        let (isa, dim) = (Isa::best()?, plan.shape.dim);
        let projected = match plan.projection {
            Some(components) => {
                let kind = Projection::Sparse { density: None };
                Some((RandomProjection::new(kind, dim, components, self.seed, isa)?.apply(part)?, components))
            }
            None => None,
        };
        let (rows, dim) = projected.as_ref().map_or((part, dim), |(rows, components)| (rows.as_slice(), *components));
        let start = choose(rows.len() / dim, 1, Choice::Seeded(self.seed))[0];
        self.progress.start("choosing the coreset", Some(count as u64));
        let coreset = KCentreGreedy { start: Start::Index(start) }.select_with(rows, dim, count, isa, &mut |_, _| {
            self.progress.advance(1);
            if self.progress.cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        self.progress.finish();
        let mut indices = match coreset {
            Err(CoresetError::Interrupted { .. }) => return Err(MethodError::Cancelled),
            coreset => coreset?.indices,
        };
        indices.sort_unstable();
        Ok(indices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_taken_in_parts_where_they_do_not_fit() {
        let shape = PatchShape { grid: [32, 32], dim: 384 };
        let plan = |images, max_memory| {
            let params = PatchCoreParams { max_memory, ..PatchCoreParams::default() };
            Plan::new(&params, images, 1, shape, 0)
        };
        let all = plan(300, Memory::gib(2)).unwrap();
        assert_eq!((all.part_images, all.share, all.notes.len()), (300, 0.1, 0));
        assert_eq!(all.projection, Some(128));

        let parts = plan(2000, Memory::gib(1)).unwrap();
        assert_eq!((parts.share, parts.notes.len()), (0.1, 1));
        let taken = |plan: &Plan| 4 * (plan.kept * 386 + plan.part_images * 1024 * (384 + 128 + 2));
        assert!(taken(&parts) < (1 << 30) - RESERVE as usize, "{parts:?}");

        let small = plan(20_000, Memory::gib(1)).unwrap();
        assert!(small.share < 0.1 && small.notes.len() == 2, "{small:?}");
        assert!(matches!(plan(20_000, Memory(2 * RESERVE)), Ok(plan) if plan.share < 0.05));
        let huge = Plan::new(&PatchCoreParams::default(), 10, 4096, shape, 0).unwrap_err();
        assert!(huge.to_string().contains("max_memory is 2GiB"), "{huge}");
    }
}
