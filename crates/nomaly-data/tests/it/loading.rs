//! The streaming loader.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nomaly_data::loader::{Frames, Inspected, LoadSummary, LoaderOptions, stream, stream_inspected};
use nomaly_data::{DataError, FrameCache, ImageSource, Label, Sample, images_under};
use nomaly_transforms::{Filter, Flips, Limits, Normalize, Pipeline, Resize, ResizeMode, Tiling, Views};
use rayon::prelude::*;

use crate::fixture::Fixture;

fn pipeline() -> Pipeline {
    let resize = Resize { mode: ResizeMode::Exact { height: 5, width: 7 }, filter: Filter::Bilinear };
    Pipeline::new(resize, None, Normalize::IMAGENET).unwrap()
}

/// Twenty samples; number 3 is not an image and number 17 does not exist.
fn samples(fixture: &Fixture) -> Vec<Sample> {
    let names: Vec<String> = (0..20).map(|number| format!("{number:02}.png")).collect();
    fixture.images(&names.iter().map(String::as_str).collect::<Vec<_>>());
    fixture.file("03.png", b"not an image");
    let samples = images_under(&[fixture.path().to_owned()]).unwrap();
    std::fs::remove_file(fixture.path().join("17.png")).unwrap();
    samples
}

type Collected = (Vec<usize>, Vec<f32>, Vec<usize>, LoadSummary);

fn collect(samples: &[Sample], batch: usize, threads: usize) -> Collected {
    let (mut indices, mut data, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let outcome = pool.install(|| {
        let options = LoaderOptions { batch, ..LoaderOptions::default() };
        stream(samples, &[pipeline()], &options, |mut part| {
            assert!(part.len() + part.failures.len() <= batch);
            assert_eq!(part.data[0].len(), part.len() * 3 * 5 * 7);
            // A consumer that is itself parallel must be able to use the pool.
            let sums: Vec<f32> = (0..100_usize).into_par_iter().map(|value| value as f32).collect();
            assert_eq!(sums.len(), 100);
            indices.append(&mut part.indices);
            data.append(&mut part.data[0]);
            failures.extend(part.failures.iter().map(|failure| failure.index));
            Ok::<(), DataError>(())
        })
        .unwrap()
    });
    (indices, data, failures, outcome)
}

#[test]
fn every_sample_arrives_once_in_order_whatever_the_batches_and_threads() {
    let fixture = Fixture::new();
    let samples = samples(&fixture);
    let expected_indices: Vec<usize> = (0..20).filter(|index| ![3, 17].contains(index)).collect();
    // One image after the other, without the loader.
    let mut expected = Vec::new();
    for &index in &expected_indices {
        let image = samples[index].source.load(&Limits::default()).unwrap();
        expected.extend(pipeline().apply(&image).unwrap());
    }
    for (batch, threads) in [(1, 1), (4, 1), (4, 2), (7, 4), (64, 3)] {
        let (indices, data, failures, outcome) = collect(&samples, batch, threads);
        assert_eq!(indices, expected_indices, "batch {batch}, {threads} threads");
        assert_eq!(failures, [3, 17]);
        assert_eq!(data, expected);
        assert_eq!(outcome, LoadSummary { loaded: 18, failed: 2, cancelled: false });
    }
}

#[test]
fn all_views_of_an_image_follow_each_other() {
    let fixture = Fixture::new();
    let samples = samples(&fixture);
    let tiling = Tiling { rows: 2, columns: 1, height: 3, width: 7 };
    let pipeline = pipeline().with_views(Views { tiling: Some(tiling), flips: Flips::Horizontal }).unwrap();
    let options = LoaderOptions { batch: 6, ..LoaderOptions::default() };
    let outcome = stream(&samples, &[pipeline], &options, |batch| {
        let mut expected = Vec::new();
        for &index in &batch.indices {
            let image = samples[index].source.load(&Limits::default()).unwrap();
            expected.extend(pipeline.apply(&image).unwrap());
        }
        assert_eq!(batch.data[0].len(), batch.len() * 4 * 3 * 3 * 7);
        assert_eq!(batch.data, [expected]);
        Ok::<(), DataError>(())
    });
    assert_eq!(outcome.unwrap(), LoadSummary { loaded: 18, failed: 2, cancelled: false });
}

#[test]
fn several_pipelines_see_what_each_sees_alone_and_frames_spare_the_decoding() {
    let fixture = Fixture::new();
    let samples = samples(&fixture);
    let resize = Resize { mode: ResizeMode::Exact { height: 9, width: 4 }, filter: Filter::Bilinear };
    let tall = Pipeline::new(resize, None, Normalize::IMAGENET).unwrap();
    let pipelines = [pipeline(), tall];
    let alone = pipelines.map(|pipeline| {
        let mut data = Vec::new();
        for sample in &samples {
            if let Ok(image) = sample.source.load(&Limits::default()) {
                data.extend(pipeline.apply(&image).unwrap());
            }
        }
        data
    });
    let image_bytes = 3 * (5 * 7 + 9 * 4);
    // Room for no image, for the first seven and a half (number 3 cannot be read), and for all.
    for (budget, kept) in [(0, 0), (15 * image_bytes / 2, 6), (1 << 20, 18)] {
        let cache = FrameCache::new(pipelines.to_vec(), samples.len(), budget);
        assert_eq!(cache.most_bytes(), budget.min(20 * image_bytes));
        let decoded = AtomicUsize::new(0);
        let count = |_: Inspected| decoded.fetch_add(1, Ordering::SeqCst);
        let run = |pipelines: &[Pipeline]| {
            let frames = Some(Frames { cache: &cache, numbers: None });
            let options = LoaderOptions { batch: 5, frames, ..LoaderOptions::default() };
            let mut all = vec![Vec::new(); pipelines.len()];
            let outcome = stream_inspected(&samples, pipelines, &options, count, |batch| {
                assert_eq!(batch.inspected.len(), batch.len());
                assert!(batch.failures.iter().all(|failure| failure.inspected.is_none()));
                all.iter_mut().zip(&batch.data).for_each(|(all, data)| all.extend_from_slice(data));
                Ok::<(), DataError>(())
            });
            assert_eq!(outcome.unwrap(), LoadSummary { loaded: 18, failed: 2, cancelled: false });
            all
        };
        assert_eq!(run(&pipelines), alone);
        assert_eq!(run(&pipelines), alone);
        // A visitor of decoded images gets all of them, cached or not.
        assert_eq!(decoded.load(Ordering::SeqCst), 36);
        // Deleted files are missed only if their frames are not cached.
        let gone = samples.iter().map(|sample| Sample { source: missing(), ..sample.clone() }).collect::<Vec<_>>();
        let frames = Some(Frames { cache: &cache, numbers: None });
        let options = LoaderOptions { frames, ..LoaderOptions::default() };
        let outcome = stream(&gone, &pipelines[1..], &options, |_| Ok::<(), DataError>(())).unwrap();
        assert_eq!(outcome.loaded, kept, "{budget} bytes");
    }
}

#[test]
fn frames_are_found_by_their_numbers() {
    let fixture = Fixture::new();
    let samples = samples(&fixture);
    let cache = FrameCache::new(vec![pipeline()], samples.len(), 1 << 20);
    let run = |samples: &[Sample], numbers: Option<&[usize]>| {
        let options = LoaderOptions { frames: Some(Frames { cache: &cache, numbers }), ..LoaderOptions::default() };
        let mut all = Vec::new();
        stream(samples, &[pipeline()], &options, |batch| {
            all.extend_from_slice(&batch.data[0]);
            Ok::<(), DataError>(())
        })
        .unwrap();
        all
    };
    let all = run(&samples, None);
    let each = 3 * 5 * 7;
    // Samples 3 and 17 cannot be read, so the 10th is the 9th that can.
    let gone = Sample { source: missing(), ..samples[10].clone() };
    assert_eq!(run(&[gone], Some(&[10])), all[9 * each..10 * each]);
}

fn missing() -> ImageSource {
    ImageSource::File("absent.png".into())
}

#[test]
fn a_failure_says_which_image_and_why() {
    let fixture = Fixture::new();
    let samples = samples(&fixture);
    let mut seen = Vec::new();
    stream(&samples, &[pipeline()], &LoaderOptions::default(), |batch| {
        seen.extend(
            batch.failures.into_iter().map(|failure| (failure.id, failure.error.kind(), failure.error.to_string())),
        );
        Ok::<(), DataError>(())
    })
    .unwrap();
    assert!(seen[0].0.ends_with("03.png") && seen[0].1 == "not-an-image" && seen[0].2.contains("03.png"), "{seen:?}");
    assert!(seen[1].0.ends_with("17.png") && seen[1].1 == "not-found", "{seen:?}");
}

#[test]
fn an_error_of_the_consumer_ends_the_run() {
    let fixture = Fixture::new();
    let samples = samples(&fixture);
    let mut batches = 0;
    let options = LoaderOptions { batch: 2, ..LoaderOptions::default() };
    let result = stream(&samples, &[pipeline()], &options, |_| {
        batches += 1;
        if batches == 3 { Err("enough") } else { Ok(()) }
    });
    assert_eq!((result, batches), (Err("enough"), 3));
}

#[test]
fn cancelling_ends_the_run_after_the_batch_at_hand() {
    let fixture = Fixture::new();
    let samples = samples(&fixture);
    let cancel = AtomicBool::new(false);
    let options = LoaderOptions { batch: 2, cancel: Some(&cancel), ..LoaderOptions::default() };
    let mut batches = 0;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let outcome = pool.install(|| {
        stream(&samples, &[pipeline()], &options, |_| {
            batches += 1;
            cancel.store(true, Ordering::Relaxed);
            Ok::<(), DataError>(())
        })
    });
    assert_eq!(batches, 1);
    assert_eq!(outcome.unwrap(), LoadSummary { loaded: 2, failed: 0, cancelled: true });
}

#[test]
fn no_samples_are_no_batches() {
    let outcome = stream(&[], &[pipeline()], &LoaderOptions::default(), |_| Err("no batch is due"));
    assert_eq!(outcome, Ok(LoadSummary::default()));
}

/// 40 images in memory, 9 x 3 pixels or 81 bytes each.
fn in_memory() -> Vec<Sample> {
    let image = std::sync::Arc::new(image::RgbImage::new(9, 3));
    let sample = |number: usize| Sample {
        id: number.to_string(),
        source: ImageSource::Memory(image.clone()),
        label: Label::Unknown,
        kind: String::new(),
        mask: None,
    };
    (0..40).map(sample).collect()
}

/// Observations of a run over [`in_memory`].
#[derive(Debug, PartialEq)]
struct Seen {
    /// Positions of the visited images.
    images: Vec<usize>,
    /// Images of each batch.
    batches: Vec<usize>,
    /// The most images that were decoded and not yet consumed.
    most_ahead: usize,
}

fn seen(batch: usize, memory: u64) -> Seen {
    let mut images = Vec::new();
    let (decoded, consumed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let most_ahead = AtomicUsize::new(0);
    let inspect = |seen: Inspected| {
        assert_eq!(seen.image.dimensions(), (9, 3));
        assert_eq!(seen.file.map(|file| file.format), None);
        let ahead = decoded.fetch_add(1, Ordering::SeqCst) + 1 - consumed.load(Ordering::SeqCst);
        most_ahead.fetch_max(ahead, Ordering::SeqCst);
        seen.index
    };
    let options = LoaderOptions { batch, memory, ..LoaderOptions::default() };
    let mut batches = Vec::new();
    let outcome = stream_inspected(&in_memory(), &[pipeline()], &options, inspect, |batch| {
        batches.push(batch.len());
        // What the inspection returned travels with its image.
        assert_eq!(batch.inspected, batch.indices);
        images.extend(batch.inspected);
        consumed.fetch_add(batch.indices.len(), Ordering::SeqCst);
        Ok::<(), DataError>(())
    });
    assert_eq!(outcome.unwrap(), LoadSummary { loaded: 40, failed: 0, cancelled: false });
    Seen { images, batches, most_ahead: most_ahead.into_inner() }
}

#[test]
fn decoded_images_can_be_looked_at_and_only_few_wait() {
    let Seen { images, batches, most_ahead } = seen(4, 1 << 20);
    assert_eq!(images, (0..40).collect::<Vec<_>>());
    assert_eq!(batches, [4; 10]);
    assert!(most_ahead <= 8, "{most_ahead} images were decoded ahead of the consumer");
}

#[test]
fn images_share_one_budget_of_memory() {
    let all: Vec<usize> = (0..40).collect();
    // Two batches of two fit, but not two of three.
    for (memory, images, ahead) in
        [(4 * 81, 4, 4), (3 * 81 + 80, 3, 3), (2 * 81, 2, 2), (81, 1, 1), (10, 1, 1), (0, 1, 1)]
    {
        let found = seen(4, memory);
        assert_eq!(found.images, all, "{memory} bytes");
        assert_eq!(found.batches.iter().sum::<usize>(), 40);
        assert!(found.batches[..found.batches.len() - 1].iter().all(|count| *count == images), "{found:?}");
        assert!(found.most_ahead <= ahead, "{memory} bytes: {found:?}");
    }
}

#[test]
fn the_budget_changes_no_value() {
    let fixture = Fixture::new();
    let samples = samples(&fixture);
    let run = |memory: u64| {
        let (mut data, mut indices, mut batches) = (Vec::new(), Vec::new(), 0);
        let options = LoaderOptions { memory, ..LoaderOptions::default() };
        let outcome = stream(&samples, &[pipeline()], &options, |batch| {
            data.extend(batch.data.concat());
            indices.extend(batch.indices);
            batches += 1;
            Ok::<(), DataError>(())
        });
        (data, indices, outcome.unwrap(), batches)
    };
    let (data, indices, outcome, batches) = run(1 << 30);
    let alone = run(1);
    assert_eq!((&alone.0, &alone.1, alone.2), (&data, &indices, outcome));
    assert!(alone.3 > batches, "{} batches", alone.3);
}
