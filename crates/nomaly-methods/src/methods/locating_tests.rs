//! PaDiM and PatchCore against PyTorch and SciPy, on features of two small layers.

use nomaly_backbones::{OutputLayout, TapRequest};
use nomaly_nn::runtime::Executor;
use nomaly_store::{Progress, Silent};
use serde::Deserialize;

use crate::features::{FeatureBatch, FeatureSource};
use crate::groups::Groups;
use crate::method::{FitContext, FittedMethod, Method, MethodFit};
use crate::score::MethodScore;
use crate::workspace::MethodWorkspace;
use crate::{AnomalyMap, METHODS, MethodError};

/// A fixture written by `tests/fixtures/gen_locating.py`.
#[derive(Deserialize)]
pub(super) struct Fixture {
    train: usize,
    input: usize,
    pub(super) sigma: f64,
    pub(super) regularization: f64,
    pub(super) neighbours: usize,
    pub(super) channels: Vec<usize>,
    shapes: Vec<[usize; 3]>,
    /// Rows of positions of all images, layer by layer.
    layers: Vec<Vec<f32>>,
    pub(super) padim: Padim,
    pub(super) patchcore: PatchCore,
    /// The group of each training image.
    #[serde(skip)]
    pub(super) groups: Option<Vec<u32>>,
}

#[derive(Deserialize)]
pub(super) struct Padim {
    pub(super) maps: Vec<Vec<f64>>,
    pub(super) held_out: Vec<f64>,
}

#[derive(Deserialize)]
pub(super) struct PatchCore {
    pub(super) anomalib: Patches,
    pub(super) official: Patches,
}

#[derive(Deserialize)]
pub(super) struct Patches {
    pub(super) scores: Vec<f64>,
    pub(super) held_out: Vec<f64>,
    pub(super) maps: Vec<Vec<f64>>,
}

impl Fixture {
    pub(super) fn load() -> Self {
        serde_json::from_str(include_str!("../../tests/fixtures/locating.json")).unwrap()
    }

    pub(super) fn taps(&self) -> Vec<TapRequest> {
        (0..self.shapes.len()).map(|layer| TapRequest::new(format!("layer{layer}"), OutputLayout::Rows)).collect()
    }

    /// Positions of the finest layer.
    pub(super) fn positions(&self) -> usize {
        self.shapes.iter().map(|[_, height, width]| height * width).max().unwrap()
    }

    /// Channels of each layer.
    pub(super) fn layer_channels(&self) -> Vec<usize> {
        self.shapes.iter().map(|[channels, ..]| *channels).collect()
    }

    fn images(&self) -> usize {
        self.layers[0].len() / self.shapes[0].iter().product::<usize>()
    }

    /// Passes these images to `visit` in one batch.
    fn batch<T>(&self, images: &[usize], visit: impl FnOnce(&FeatureBatch<'_>) -> T) -> T {
        let select = |(values, shape): (&Vec<f32>, &[usize; 3])| {
            let size: usize = shape.iter().product();
            images.iter().flat_map(|image| &values[image * size..(image + 1) * size]).copied().collect()
        };
        let values: Vec<Vec<f32>> = self.layers.iter().zip(&self.shapes).map(select).collect();
        visit(&FeatureBatch {
            images: images.len(),
            views: 1,
            input: [self.input; 2],
            map: [self.input; 2],
            taps: &self.taps(),
            values: &values,
            shapes: &self.shapes,
            region: None,
            median: None,
        })
    }

    /// Fits on the training images.
    pub(super) fn fit(&self, method: &dyn Method, seed: u64) -> MethodFit {
        method.fit(self, &FitContext::new(seed, &Silent, &Executor::cpu().unwrap())).unwrap()
    }

    /// Scores the test images.
    pub(super) fn score(&self, fitted: &dyn FittedMethod) -> Vec<MethodScore> {
        let test: Vec<usize> = (self.train..self.images()).collect();
        self.batch(&test, |batch| fitted.score(batch, &mut MethodWorkspace::default())).unwrap()
    }
}

impl Fixture {
    /// Checks that each held-out score of a fit with groups equals that of a fit on all images of other groups, within
    /// `tolerance` times the largest. `fit` makes the fits.
    pub(super) fn check_groups(&self, method: &dyn Method, of: &[u32], tolerance: f64) {
        let mut grouped = Self::load();
        grouped.groups = Some(of.to_vec());
        let held_out = grouped.fit(method, 0).held_out;
        assert_eq!(held_out.iter().map(|image| image.image).collect::<Vec<_>>(), (0..self.train).collect::<Vec<_>>());
        let largest = held_out.iter().map(|image| image.score).fold(0.0, f64::max);
        for group in Groups::of_keys(of).members() {
            let mut rest = Self::load();
            let kept: Vec<usize> = (0..self.train).filter(|image| !group.contains(image)).collect();
            for (values, shape) in rest.layers.iter_mut().zip(&self.shapes) {
                let size: usize = shape.iter().product();
                *values = kept.iter().flat_map(|image| &values[image * size..(image + 1) * size]).copied().collect();
            }
            rest.train = kept.len();
            let fitted = rest.fit(method, 0).fitted;
            let scores = self.batch(group, |batch| fitted.score(batch, &mut MethodWorkspace::default())).unwrap();
            for (image, score) in group.iter().zip(scores) {
                let found = &held_out[*image];
                let wanted = score.map.as_ref().map(AnomalyMap::max);
                assert!((found.score - score.score).abs() <= tolerance * largest, "{image}: {found:?} {}", score.score);
                let maxima = found.map_max.unwrap() - wanted.unwrap();
                assert!(maxima.abs() <= tolerance * largest, "{image}: {found:?} {wanted:?}");
            }
        }
    }
}

impl FeatureSource for Fixture {
    fn images(&self) -> usize {
        self.train
    }

    fn views(&self) -> usize {
        1
    }

    fn held_bytes(&self) -> u64 {
        0
    }

    fn groups(&self) -> Result<Groups, MethodError> {
        Ok(self.groups.clone().map_or_else(|| Groups::singletons(self.train), Groups::of_keys))
    }

    fn kinds(&self) -> Vec<String> {
        vec!["good".to_owned(); self.train]
    }

    fn visit(
        &self,
        progress: &dyn Progress,
        visit: &mut (dyn FnMut(&FeatureBatch<'_>) -> Result<(), MethodError> + Send),
    ) -> Result<usize, MethodError> {
        let all: Vec<usize> = (0..self.train).collect();
        self.visit_some(&all, progress, visit)?;
        Ok(self.train)
    }

    fn visit_some(
        &self,
        which: &[usize],
        _progress: &dyn Progress,
        visit: &mut (dyn FnMut(&FeatureBatch<'_>) -> Result<(), MethodError> + Send),
    ) -> Result<(), MethodError> {
        which.chunks(4).try_for_each(|images| self.batch(images, &mut *visit))
    }

    fn combine(&self, mut views: Vec<MethodScore>) -> Result<MethodScore, MethodError> {
        Ok(views.remove(0))
    }
}

/// Compares values of magnitude `scale`.
pub(super) fn close<'a>(got: impl IntoIterator<Item = f64>, want: impl IntoIterator<Item = &'a f64>, scale: f64) {
    let (got, want): (Vec<f64>, Vec<f64>) = (got.into_iter().collect(), want.into_iter().copied().collect());
    assert_eq!(got.len(), want.len());
    for (at, (got, want)) in got.iter().zip(&want).enumerate() {
        // Features, factors and maps are f32; sums are of some dozen terms.
        assert!((got - want).abs() <= 2e-5 * scale, "number {at}: {got} for {want}");
    }
}

/// The values of the maps of some views.
pub(super) fn map_values(scores: &[MethodScore]) -> impl Iterator<Item = f64> {
    scores.iter().flat_map(|score| &score.map.as_ref().unwrap().values).map(|value| f64::from(*value))
}

#[test]
fn methods_say_truly_whether_they_make_maps() {
    let backbone = nomaly_backbones::Backbone::embedded().unwrap();
    for entry in METHODS.iter() {
        let method = (entry.build)(&nomaly_settings::Assignments::new(), &backbone).unwrap();
        let rows = method.taps().iter().any(|tap| tap.layout == OutputLayout::Rows);
        assert_eq!(rows, entry.maps, "{}", entry.name);
    }
}
