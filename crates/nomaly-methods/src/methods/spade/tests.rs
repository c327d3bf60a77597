use nomaly_backbones::OutputLayout;
use nomaly_nn::runtime::Executor;
use nomaly_scorers::TensorData;
use nomaly_store::{Progress, Silent};

use super::*;
use crate::workspace::MethodWorkspace;
use crate::{AnomalyMap, Groups, HeldOut};

/// Distances are sums of some ten squares of numbers below 4 in f32, after interpolation in f32; the reference has 6
/// digits after the point.
const TOLERANCE: f64 = 5e-6;

#[derive(Clone, Deserialize)]
struct Case {
    name: String,
    input: [usize; 2],
    shapes: Vec<[usize; 3]>,
    /// For each layer `[images, h, w, C]`, in 64ths.
    layers: Vec<Vec<i32>>,
    width: usize,
    /// `[images, width]`, in 64ths.
    pooled: Vec<i32>,
    /// The number of leading images that form the gallery.
    train: usize,
    k: usize,
    sigma: f64,
    grids: Vec<Expected>,
}

#[derive(Clone, Deserialize)]
struct Expected {
    stride: usize,
    /// Scores of all images; those of the gallery against all others.
    scores: Vec<f64>,
    maxima: Vec<f64>,
    last_map: Vec<f64>,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("../../../tests/fixtures/spade.json")).unwrap()
}

impl Case {
    fn images(&self) -> usize {
        self.pooled.len() / self.width
    }

    fn method(&self, stride: Option<usize>) -> Spade {
        let layers = self.shapes.len();
        let mut taps: Vec<TapRequest> =
            (0..layers).map(|layer| TapRequest::new(format!("layer{layer}"), OutputLayout::Rows)).collect();
        taps.push(TapRequest::new("pooled".to_owned(), OutputLayout::Mean));
        Spade {
            params: SpadeParams {
                k: self.k,
                grid: stride.map_or(Auto::Auto, Auto::Value),
                sigma: self.sigma,
                ..SpadeParams::default()
            },
            taps,
            strides: vec![4, 8, 16],
            dim: self.shapes.iter().map(|shape| shape[0]).sum(),
            pooled: self.width,
        }
    }

    /// Images in batches of `batch`, with identical `views`.
    fn source(&self, images: std::ops::Range<usize>, batch: usize, views: usize) -> Memories {
        let mut shapes = self.shapes.clone();
        shapes.push([self.width, 1, 1]);
        let taps = self.method(None).taps;
        let values = self.layers.iter().chain([&self.pooled]).map(|values| {
            let of_image = values.len() / self.images();
            images
                .clone()
                .map(|image| {
                    let one: Vec<f32> = values[image * of_image..(image + 1) * of_image]
                        .iter()
                        .map(|step| *step as f32 / 64.0)
                        .collect();
                    one.repeat(views)
                })
                .collect()
        });
        let values = values.collect();
        Memories { images: images.len(), views, batch, input: self.input, taps, shapes, values }
    }
}

/// Precomputed features of images.
struct Memories {
    images: usize,
    views: usize,
    batch: usize,
    input: [usize; 2],
    taps: Vec<TapRequest>,
    shapes: Vec<[usize; 3]>,
    /// For each tap and each image.
    values: Vec<Vec<Vec<f32>>>,
}

type Visit<'a> = dyn FnMut(&FeatureBatch<'_>) -> Result<(), MethodError> + Send + 'a;

impl FeatureSource for Memories {
    fn images(&self) -> usize {
        self.images
    }

    fn views(&self) -> usize {
        self.views
    }

    fn held_bytes(&self) -> u64 {
        0
    }

    fn groups(&self) -> Result<Groups, MethodError> {
        Ok(Groups::singletons(self.images))
    }

    fn kinds(&self) -> Vec<String> {
        vec!["good".to_owned(); self.images]
    }

    fn visit(&self, progress: &dyn Progress, visit: &mut Visit<'_>) -> Result<usize, MethodError> {
        self.visit_some(&(0..self.images).collect::<Vec<_>>(), progress, visit)?;
        Ok(self.images)
    }

    fn visit_some(&self, which: &[usize], _: &dyn Progress, visit: &mut Visit<'_>) -> Result<(), MethodError> {
        for which in which.chunks(self.batch) {
            let of = |tap: &Vec<Vec<f32>>| which.iter().flat_map(|image| tap[*image].clone()).collect();
            let values: Vec<Vec<f32>> = self.values.iter().map(of).collect();
            let Self { views, input, ref taps, ref shapes, .. } = *self;
            visit(&FeatureBatch {
                images: which.len(),
                views,
                input,
                map: input,
                taps,
                values: &values,
                shapes,
                region: None,
                median: None,
            })?;
        }
        Ok(())
    }

    fn combine(&self, mut views: Vec<MethodScore>) -> Result<MethodScore, MethodError> {
        assert_eq!(views.len(), self.views);
        assert!(views.windows(2).all(|pair| pair[0] == pair[1]));
        Ok(views.remove(0))
    }
}

fn scores(fitted: &dyn FittedMethod, source: &Memories) -> Vec<MethodScore> {
    let mut scores = Vec::new();
    source
        .visit(&Silent, &mut |batch| {
            scores.extend(fitted.score(batch, &mut MethodWorkspace::default())?);
            Ok(())
        })
        .unwrap();
    scores
}

fn assert_near(found: impl IntoIterator<Item = f64>, expected: &[f64], what: &str) {
    let found: Vec<f64> = found.into_iter().collect();
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < TOLERANCE, "{what}: {found} is not {expected}");
    }
}

#[test]
fn scores_and_maps_are_those_of_the_reference() {
    for case in cases() {
        for expected in &case.grids {
            let what = format!("{}, stride {}", case.name, expected.stride);
            let method = case.method(Some(expected.stride));
            let fit = method
                .fit(&case.source(0..case.train, 4, 1), &FitContext::new(0, &Silent, &Executor::cpu().unwrap()))
                .unwrap();
            assert_eq!((fit.images, fit.held_out.len(), fit.notes.len()), (case.train, case.train, 0), "{what}");
            assert_near(fit.held_out.iter().map(|image| image.score), &expected.scores[..case.train], &what);
            assert_near(fit.held_out.iter().filter_map(|image| image.map_max), &expected.maxima[..case.train], &what);

            let scored = scores(fit.fitted.as_ref(), &case.source(case.train..case.images(), 1, 1));
            assert_near(scored.iter().map(|image| image.score), &expected.scores[case.train..], &what);
            let maps: Vec<_> = scored.into_iter().filter_map(|image| image.map).collect();
            assert_near(maps.iter().map(AnomalyMap::max), &expected.maxima[case.train..], &what);
            let last = maps.last().unwrap();
            assert_eq!([last.height, last.width], case.input, "{what}");
            assert_near(last.values.iter().map(|value| f64::from(*value)), &expected.last_map, &what);
        }
    }
}

#[test]
fn views_are_scored_each_by_itself() {
    let case = cases().remove(1);
    let fit = |views| {
        case.method(None)
            .fit(&case.source(0..case.train, 3, views), &FitContext::new(0, &Silent, &Executor::cpu().unwrap()))
            .unwrap()
    };
    let (one, two) = (fit(1), fit(2));
    assert_eq!(one.held_out, two.held_out);
    let queries = |views| case.source(case.train..case.images(), 2, views);
    let doubled: Vec<MethodScore> =
        scores(one.fitted.as_ref(), &queries(1)).into_iter().flat_map(|score| [score.clone(), score]).collect();
    assert_eq!(scores(two.fitted.as_ref(), &queries(2)), doubled);
    // A model of one view does not take two.
    let refused = queries(2)
        .visit(&Silent, &mut |batch| one.fitted.score(batch, &mut MethodWorkspace::default()).map(drop))
        .unwrap_err();
    assert!(matches!(refused, MethodError::FeatureShape { .. }), "{refused}");
}

#[test]
fn an_extended_model_is_the_one_fitted_on_all_images() {
    let case = cases().remove(0);
    let method = case.method(Some(4));
    let all = method
        .fit(&case.source(0..case.images(), 4, 2), &FitContext::new(0, &Silent, &Executor::cpu().unwrap()))
        .unwrap();
    let part = method.fit(&case.source(0..5, 4, 2), &FitContext::new(0, &Silent, &Executor::cpu().unwrap())).unwrap();
    let rest = case.source(5..case.images(), 2, 2);
    let under_part = scores(part.fitted.as_ref(), &rest);
    let extended =
        method.extend(part.fitted.states(), &rest, &FitContext::new(0, &Silent, &Executor::cpu().unwrap())).unwrap();
    assert_eq!(extended.images, 3);
    let expected: Vec<HeldOut> =
        under_part.iter().step_by(2).enumerate().map(|(image, score)| HeldOut::new(image, score)).collect();
    assert_eq!(extended.held_out, expected);
    let queries = case.source(0..case.images(), 3, 2);
    assert_eq!(scores(extended.fitted.as_ref(), &queries), scores(all.fitted.as_ref(), &queries));
    assert!(
        method
            .extend(
                part.fitted.states(),
                &case.source(0..0, 1, 2),
                &FitContext::new(0, &Silent, &Executor::cpu().unwrap())
            )
            .is_err()
    );

    let mut small = method.clone();
    small.params.max_memory = Memory(RESERVE + 1000);
    let refused = small
        .extend(part.fitted.states(), &rest, &FitContext::new(0, &Silent, &Executor::cpu().unwrap()))
        .map(drop)
        .unwrap_err();
    assert!(refused.to_string().contains("fit again with a coarser `grid`"), "{refused}");
}

#[test]
fn too_large_k_is_noted() {
    let case = cases().remove(0);
    let mut method = case.method(Some(16));
    method.params.k = 50;
    let fit = method.fit(&case.source(0..4, 4, 1), &FitContext::new(0, &Silent, &Executor::cpu().unwrap())).unwrap();
    assert_eq!(fit.notes, ["k=50 is more than the other images: each is compared with 3"]);
    // Asking for 50 of 3 others equals asking for 3.
    method.params.k = 3;
    let three = method.fit(&case.source(0..4, 4, 1), &FitContext::new(0, &Silent, &Executor::cpu().unwrap())).unwrap();
    assert_eq!((three.held_out, three.notes.len()), (fit.held_out, 0));
    let few = method
        .fit(&case.source(0..2, 4, 1), &FitContext::new(0, &Silent, &Executor::cpu().unwrap()))
        .map(drop)
        .unwrap_err();
    assert!(matches!(few, MethodError::TooFew { needed: 3, found: 2, .. }), "{few}");
}

#[test]
fn the_map_may_score_the_image() {
    let case = cases().remove(0);
    let mut method = case.method(Some(8));
    method.params.score = ImageScore::Map;
    let fit =
        method.fit(&case.source(0..case.train, 4, 1), &FitContext::new(0, &Silent, &Executor::cpu().unwrap())).unwrap();
    assert!(fit.held_out.iter().all(|image| Some(image.score) == image.map_max));
}

#[test]
fn the_grid_is_the_finest_that_fits() {
    let case = cases().remove(0);
    let resnet = |max_memory, grid, images, views| {
        let mut method = case.method(grid);
        (method.params.max_memory, method.dim, method.pooled) = (max_memory, 448, 512);
        let batch = FeatureBatch {
            images: 1,
            views,
            input: [224, 224],
            map: [224, 224],
            taps: &method.taps,
            values: &[],
            shapes: &[[64, 56, 56], [128, 28, 28], [256, 14, 14], [512, 1, 1]],
            region: None,
            median: None,
        };
        method.plan(images, &batch, 0)
    };
    let gib = Memory::gib(1);
    for (images, side, notes) in [(10, 56, 0), (71, 56, 0), (72, 28, 1), (284, 28, 1), (285, 14, 1)] {
        let (shape, plan_notes) = resnet(gib, None, images, 1).unwrap();
        assert_eq!((shape.grid, plan_notes.len()), ([side, side], notes), "{images} images");
        assert!(2 * shape.bytes(images) + RESERVE <= gib.0);
    }
    assert_eq!(resnet(gib, None, 71, 4).unwrap().0.grid, [28, 28]);
    let note = resnet(gib, None, 72, 1).unwrap().1.remove(0);
    assert_eq!(
        note,
        "positions are compared at stride 8: at stride 4 the feature maps of 72 images take 388 MiB, \
         and max_memory=1GiB has room for 384 MiB"
    );
    assert_eq!(resnet(Memory::gib(8), Some(16), 69, 1).unwrap(), {
        let shape = GalleryShape { views: 1, grid: [14, 14], dim: 448, pooled: 512 };
        (shape, Vec::new())
    });
    for (grid, images, hint) in [(None, 5000, "`input_size` smaller"), (Some(4), 500, "leave the `grid` to `auto`")] {
        let error = resnet(gib, grid, images, 1).unwrap_err().to_string();
        assert!(error.contains("max_memory is 1GiB") && error.contains(hint), "{error}");
    }
}

#[test]
fn damaged_states_are_refused() {
    let case = cases().remove(0);
    let method = case.method(Some(8));
    let fit =
        method.fit(&case.source(0..case.train, 4, 1), &FitContext::new(0, &Silent, &Executor::cpu().unwrap())).unwrap();
    let refusal = |damage: &dyn Fn(&mut State)| {
        let mut states = fit.fitted.states();
        damage(&mut states[0].1);
        method.restore(states, &Executor::cpu().unwrap()).map(drop).unwrap_err().to_string()
    };
    assert!(method.restore(fit.fitted.states(), &Executor::cpu().unwrap()).is_ok());
    for (key, value) in [("grid", serde_json::json!([3, 2])), ("views", 0.into()), ("k", 0.into()), ("k", 7.into())] {
        let message = refusal(&|state| state.config[key] = value.clone());
        assert!(message.contains("damaged"), "{key}: {message}");
    }
    let huge = serde_json::json!([u64::MAX, u64::MAX]);
    assert!(refusal(&|state| state.config["grid"] = huge.clone()).contains("are no images"));
    assert!(refusal(&|state| state.config["other"] = 1.into()).contains("unknown field"));
    assert!(refusal(&|state| drop(state.tensors.remove("pyramids"))).contains("`pyramids` is missing"));
    let edit = |tensor: &'static str, edit: fn(&mut Vec<f32>)| {
        refusal(&|state| match state.tensors.get_mut(tensor).map(|tensor| &mut tensor.data) {
            Some(TensorData::F32(values)) => edit(values),
            _ => unreachable!("the state has the tensor"),
        })
    };
    assert!(edit("pooled", |values| values[0] = f32::NAN).contains("not finite"));
    assert!(edit("pooled", |values| values.truncate(values.len() - 1)).contains("are no images"));
    assert!(edit("pyramids", |values| values[0] = 1e30).contains("too large to square"));
    assert!(edit("pyramids", Vec::clear).contains("are no images"));
}

#[test]
fn settings_are_read_and_refused() {
    let read = |pairs: &[&str]| Assignments::parse(pairs).unwrap().read::<SpadeParams>();
    assert_eq!(read(&[]).unwrap(), SpadeParams::default());
    assert_eq!(read(&["grid=auto"]).unwrap().grid, Auto::Auto);
    assert_eq!(read(&["score=map"]).unwrap().score, ImageScore::Map);
    for pairs in
        [["k=0"], ["score=max"], ["grid=0"], ["grid=fine"], ["sigma=-1"], ["held_out=0"], ["max_memory=100MiB"]]
    {
        let named = |name: &str| pairs[0].starts_with(name);
        assert!(matches!(read(&pairs), Err(SettingError::Value { name, .. }) if named(&name)), "{pairs:?}");
    }
}

#[test]
fn layers_level_and_grid_are_checked_against_the_backbone() {
    let backbone = Backbone::initialized("resnet18", 10, 0).unwrap();
    let check = |pairs: &[&str]| {
        Assignments::parse(pairs).unwrap().read::<SpadeParams>().map_err(MethodError::from)?.on(&backbone)
    };
    let paper = check(&[]).unwrap();
    assert_eq!((paper.strides.as_slice(), paper.dim, paper.pooled), ([4, 8, 16].as_slice(), 448, 512));
    let settings = paper.settings();
    let text = |name: &str| settings.text(name).unwrap();
    assert_eq!((text("layers"), text("level")), ("layer1,layer2,layer3".to_owned(), "layer4".to_owned()));
    // The states restore the same method.
    let other = check(&["grid=16", "level=layer3", "layers=layer2,layer3", "k=3", "score=map", "held_out=7"]).unwrap();
    let again = other.settings().read::<SpadeParams>().unwrap().on(&backbone).unwrap();
    assert_eq!((&again.params, again.settings()), (&other.params, other.settings()));

    let message = check(&["grid=4", "layers=layer2,layer3"]).unwrap_err().to_string();
    assert!(message.contains("`auto`, or the stride of one of the layers: 8, 16"), "{message}");
    assert!(check(&["level=layer3,layer4"]).is_err());
    assert!(check(&["level=layer9"]).is_err());
    assert!(check(&["layers=pooled"]).is_err());
}
