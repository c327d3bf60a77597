//! Fits divided into shards: the merged model equals that of one process.

use std::path::{Path, PathBuf};

use nomaly_data::Sample;
use nomaly_detectors::partial::{Absorbed, FORMAT_VERSION, MergeOptions, Shard, merge};
use nomaly_detectors::{DecisionRule, Detector, DetectorError, FitOptions, FitResult, StreamOptions};
use nomaly_methods::{ErrorKind, GroupBy, METHODS, MethodError};
use nomaly_settings::Assignments;
use nomaly_store::{Progress, Silent, sha256};
use nomaly_transforms::augment::{Change, Changes};
use tempfile::TempDir;

use crate::images::{detector, good, missing, quick, settings};

/// A fit in one process and in several.
struct Case {
    method: &'static str,
    settings: Assignments,
    samples: Vec<Sample>,
    options: FitOptions,
    folder: TempDir,
}

impl Case {
    fn new(method: &'static str, settings: Assignments, samples: Vec<Sample>) -> Self {
        Self { method, settings, samples, options: FitOptions::default(), folder: tempfile::tempdir().unwrap() }
    }

    fn detector(&self) -> Detector {
        detector(self.method, &self.settings)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn serial(&self) -> FitResult {
        self.detector().fit("stripes", &self.samples, &self.options, &Silent).unwrap()
    }

    fn absorb(&self, index: usize, count: usize) -> Result<(PathBuf, Absorbed), DetectorError> {
        let path = self.path(&format!("{index}-{count}.partial"));
        let shard = Shard::new(index, count).unwrap();
        let absorbed = self.detector().absorb("stripes", &self.samples, shard, &self.options, &path, &Silent)?;
        assert_eq!(absorbed.bytes, std::fs::metadata(&path).unwrap().len());
        Ok((path, absorbed))
    }

    /// The partials of all shards.
    fn partials(&self, count: usize) -> Vec<PathBuf> {
        (1..=count).map(|index| self.absorb(index, count).unwrap().0).collect()
    }

    fn bytes(&self, fit: &FitResult) -> Vec<u8> {
        let path = self.path("model.nomaly");
        fit.detector.save(&path).unwrap();
        std::fs::read(path).unwrap()
    }

    /// Divides the fit into each of `counts` shards, and compares.
    #[track_caller]
    fn check(&self, counts: &[usize]) -> FitResult {
        let serial = self.serial();
        let expected = self.bytes(&serial);
        for &count in counts {
            let mut partials = self.partials(count);
            for _ in 0..count.min(2) {
                let merged = merge(&partials, MergeOptions::default(), &Silent).unwrap();
                assert!(self.bytes(&merged.fit) == expected, "{} in {count} shards", self.method);
                assert_eq!(merged.fit.skipped, serial.skipped);
                assert_eq!(merged.fit.held_out, serial.held_out);
                assert_eq!(merged.fit.notes, serial.notes);
                assert!(merged.ids.iter().eq(self.samples.iter().map(|sample| &sample.id)));
                partials.reverse();
            }
        }
        serial
    }
}

/// Methods whose fits can be divided.
fn divisible() -> impl Iterator<Item = &'static str> {
    METHODS.iter().filter(|entry| !entry.trains && !entry.classes).map(|entry| entry.name)
}

fn reason(result: Result<impl Sized, DetectorError>) -> String {
    match result {
        Ok(_) => panic!("it was taken"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn shards_in_any_order_make_the_model_of_one_process() {
    for method in divisible() {
        Case::new(method, quick(method), good(24)).check(&[1, 3, 4]);
    }
}

#[test]
fn a_merged_model_can_be_updated() {
    let case = Case::new("padim", settings(), good(21));
    let partials = case.partials(2);
    let merged = merge(&partials, MergeOptions { updatable: true }, &Silent).unwrap();
    let options = FitOptions { updatable: true, ..FitOptions::default() };
    let serial = case.detector().fit("stripes", &case.samples, &options, &Silent).unwrap();
    assert!(case.bytes(&merged.fit) == case.bytes(&serial));
    let mut classes = Case::new("open-set", settings(), good(40));
    classes.samples.iter_mut().enumerate().for_each(|(at, sample)| sample.kind = ["a", "b"][at % 2].to_owned());
    let refused = merge(&classes.partials(2), MergeOptions { updatable: true }, &Silent).map(drop).unwrap_err();
    assert!(matches!(refused, DetectorError::Method(MethodError::NotExtendable { .. })), "{refused}");
}

#[test]
fn classes_are_divided_too() {
    let mut samples = good(40);
    samples.iter_mut().enumerate().for_each(|(at, sample)| sample.kind = ["a", "b"][at % 2].to_owned());
    let fit = Case::new("open-set", settings(), samples).check(&[3]);
    assert_eq!(fit.detector.classes().unwrap().calibrations().len(), 2);
}

#[test]
fn views_sizes_and_regions_are_divided_too() {
    let folder = tempfile::tempdir().unwrap();
    let region = folder.path().join("region.png");
    image::GrayImage::from_fn(16, 16, |x, _| image::Luma([if x < 8 { 255 } else { 0 }])).save(&region).unwrap();
    for method in ["mvg", "padim", "patchcore"] {
        Case::new(method, settings().with("tiles", "2x2").with("flips", "horizontal"), good(12)).check(&[3]);
        Case::new(method, Assignments::new().with("sizes", "64,96").with("aspect", "keep"), good(20)).check(&[3]);
    }
    let settings = settings().with("roi", region.display()).with("median", 3);
    let case = Case::new("padim", settings, good(12));
    case.check(&[2]);
}

#[test]
fn images_that_cannot_be_read_are_left_out_in_the_same_way() {
    let mut samples = good(20);
    samples.insert(3, missing("lost"));
    samples.insert(11, missing("lost-too"));
    let mut case = Case::new("padim", settings(), samples);
    let fit = case.check(&[1, 4]);
    assert_eq!((fit.skipped.len(), fit.detector.info().training.images), (2, 20));
    case.options.changes = Changes(vec![Change::Gain(0.8), Change::Jpeg(60)]);
    let fit = case.check(&[4]);
    assert_eq!((fit.skipped.len(), fit.detector.info().training.images), (2, 20));
    let (_, absorbed) = case.absorb(1, 4).unwrap();
    assert_eq!((absorbed.images, absorbed.skipped.len()), (4, 1));
    case.options.stream = StreamOptions { strict: true, ..StreamOptions::default() };
    let refused = case.absorb(1, 4).map(drop).unwrap_err();
    assert!(matches!(refused, DetectorError::Method(MethodError::BadImage { .. })), "{refused}");
}

#[test]
fn groups_are_those_of_all_images() {
    // Every third image is there twice, in another shard.
    let mut samples = good(24);
    samples
        .extend(good(24).into_iter().step_by(3).map(|sample| Sample { id: format!("{}-again", sample.id), ..sample }));
    let fit = Case::new("mvg", settings(), samples).check(&[4]);
    assert_eq!(fit.detector.info().training.groups.count, 24);

    let mut samples = good(24);
    samples.iter_mut().enumerate().for_each(|(at, sample)| sample.id = format!("part{}/{at}", at % 12));
    let mut case = Case::new("dn2", settings(), samples);
    for (by, count) in [("folder", 12), ("part([0-9])", 10), ("none", 24)] {
        case.options.group_by = by.parse().unwrap();
        let fit = case.check(&[3]);
        assert_eq!(fit.detector.info().training.groups.count, count, "{by}");
    }
    case.options.group_by = "prat".parse().unwrap();
    assert!(reason(case.absorb(1, 3)).contains("does not match"));
}

#[test]
fn times_make_groups() {
    let folder = tempfile::tempdir().unwrap();
    let mut samples = good(8);
    for (at, sample) in samples.iter_mut().enumerate() {
        let path = folder.path().join(format!("{at}.png"));
        sample.source.load(&Default::default()).unwrap().save(&path).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(1_000_000 + 10_000 * (at as u64 / 2));
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        sample.source = nomaly_data::ImageSource::File(path);
    }
    let mut case = Case::new("dn2", settings(), samples);
    case.options.group_by = GroupBy::Gap(2.0);
    assert_eq!(case.check(&[3]).detector.info().training.groups.count, 4);
}

#[test]
fn there_may_be_more_shards_than_images() {
    let mut case = Case::new("dn2", settings(), good(5));
    case.options.rule = DecisionRule::MaxFpr(0.4);
    case.check(&[7]);
}

#[test]
fn threads_and_batches_do_not_change_a_partial() {
    let bytes = |threads: usize, batch: usize| {
        let mut case = Case::new("padim", settings().with("flips", "horizontal"), good(10));
        case.options.stream.batch = batch;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (path, _) = pool.install(|| case.absorb(1, 2)).unwrap();
        std::fs::read(path).unwrap()
    };
    let one = bytes(1, 8);
    assert!(one == bytes(2, 8) && one == bytes(2, 3));
}

/// Asks to stop after some images.
struct Stop(std::sync::atomic::AtomicU64);

impl Progress for Stop {
    fn start(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, amount: u64) {
        self.0.fetch_add(amount, std::sync::atomic::Ordering::Relaxed);
    }
    fn finish(&self) {}
    fn cancelled(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed) >= 8
    }
}

#[test]
fn a_process_that_is_stopped_leaves_nothing() {
    let case = Case::new("dn2", settings(), good(24));
    let path = case.path("a.partial");
    let absorb = |progress: &dyn Progress| {
        case.detector().absorb("stripes", &case.samples, Shard::new(1, 1).unwrap(), &case.options, &path, progress)
    };
    assert_eq!(absorb(&Stop(0.into())).map(drop).unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(std::fs::read_dir(case.folder.path()).unwrap().count(), 0);
    absorb(&Silent).unwrap();
    let whole = std::fs::read(&path).unwrap();
    absorb(&Silent).unwrap();
    assert!(whole == std::fs::read(&path).unwrap());
    let stopped = merge(&[&path], MergeOptions::default(), &Stop(8.into())).map(drop).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Cancelled);
}

#[test]
fn methods_that_train_cannot_be_divided() {
    for method in ["geotrans", "cutpaste"] {
        let refused = Case::new(method, quick(method), good(8)).absorb(1, 2).map(drop).unwrap_err();
        assert!(matches!(&refused, DetectorError::Method(MethodError::NotSplittable { .. })), "{refused}");
        assert!(refused.to_string().contains(method) && refused.to_string().contains("trains a network"), "{refused}");
    }
}

#[test]
fn shards_that_are_missing_or_there_twice_are_named() {
    let case = Case::new("dn2", settings(), good(8));
    let paths = case.partials(4);
    let message = reason(merge(&paths[..3], MergeOptions::default(), &Silent));
    assert!(message.contains("shard 4/4 is missing") && message.contains("1-4.partial"), "{message}");
    let message = reason(merge(&paths[2..3], MergeOptions::default(), &Silent));
    assert!(message.contains("shards 1/4, 2/4, 4/4 are missing"), "{message}");
    let twin = case.path("twin.partial");
    std::fs::copy(&paths[1], &twin).unwrap();
    let message = reason(merge(&[&paths[1], &twin], MergeOptions::default(), &Silent));
    assert!(message.contains("twin.partial: is shard 2/4") && message.contains("2-4.partial is"), "{message}");
    let other = case.absorb(1, 3).unwrap().0;
    let message = reason(merge(&[&paths[1], &other], MergeOptions::default(), &Silent));
    assert!(message.contains("is one of 3 shards") && message.contains("one of 4"), "{message}");
    assert!(reason(merge(&[] as &[&Path], MergeOptions::default(), &Silent)).contains("no partials"));
}

#[test]
fn partials_of_different_fits_are_told_apart() {
    let base = || Case::new("dn2", settings().with("k", 2), good(8));
    let case = base();
    let (first, _) = case.absorb(1, 2).unwrap();
    let check = |other: &Case, expected: &str| {
        let (second, _) = other.absorb(2, 2).unwrap();
        let message = reason(merge(&[&first, &second], MergeOptions::default(), &Silent));
        assert!(message.contains("2-2.partial: is of another fit than") && message.contains(expected), "{message}");
    };
    check(&Case { method: "mvg", settings: settings(), ..base() }, "method (mvg, not dn2)");
    check(&Case { settings: settings().with("k", 3), ..base() }, "setting k (3, not 2)");
    check(&Case { settings: settings().with("k", 2).with("flips", "horizontal"), ..base() }, "setting flips");
    check(&Case { samples: good(9), ..base() }, "number of images (9, not 8)");
    let mut samples = good(8);
    samples.swap(0, 7);
    check(&Case { samples, ..base() }, "names, kinds or order of the images");
    let with = |change: &dyn Fn(&mut FitOptions)| {
        let mut case = base();
        change(&mut case.options);
        case
    };
    check(&with(&|options| options.seed = 3), "seed (3, not 0)");
    check(&with(&|options| options.rule = DecisionRule::ThreeSigma), "decision rule");
    check(&with(&|options| options.group_by = GroupBy::None), "groups (none, not auto)");
    check(&with(&|options| options.changes = Changes(vec![Change::Jpeg(50)])), "changed copies");
}

/// The bytes of a partial with a valid checksum.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let content = bytes.len() - 32;
    let digest = sha256(&bytes[..content]);
    bytes[content..].copy_from_slice(&digest);
    bytes
}

#[test]
fn damaged_and_hostile_partials_are_refused() {
    let case = Case::new("mvg", settings(), good(8));
    let (path, _) = case.absorb(1, 1).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let hostile = case.path("hostile.partial");
    let check = |bytes: &[u8], expected: &str| {
        std::fs::write(&hostile, bytes).unwrap();
        let refused = merge(&[&hostile], MergeOptions::default(), &Silent).map(drop).unwrap_err();
        let message = refused.to_string();
        assert!(matches!(refused, DetectorError::Partial { .. }), "{message}");
        assert!(message.contains("hostile.partial") && message.contains(expected), "{expected}: {message}");
    };
    check(b"", "cut short");
    check(&[7; 400], "not a partial");
    for length in [20, 100, whole.len() / 2, whole.len() - 1] {
        check(&whole[..length], if length == 20 { "cut short" } else { "checksum" });
    }
    for at in [30, 2000, whole.len() / 2, whole.len() - 60, whole.len() - 5] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        check(&bytes, "checksum");
    }
    let mut bytes = whole.clone();
    bytes[15] = FORMAT_VERSION as u8 + 1;
    check(&sealed(bytes), "format version 2");
    // Lengths that point beyond the file.
    for at in [19, whole.len() - 40] {
        for length in [u64::MAX, whole.len() as u64, 1 << 40] {
            let mut bytes = whole.clone();
            bytes[at..at + 8].copy_from_slice(&length.to_le_bytes());
            check(&sealed(bytes), "damaged");
        }
    }
    // Weights in a shard that is not the first.
    let (second, _) = case.absorb(2, 2).unwrap();
    let mut bytes = std::fs::read(second).unwrap();
    let (from, to) = (b"\"weight_bytes\":0", b"\"weight_bytes\":8");
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    check(&sealed(bytes), "only the first shard");
    // More values than images.
    let list = u64::from_le_bytes(whole[whole.len() - 40..whole.len() - 32].try_into().unwrap()) as usize;
    let mut bytes = whole.clone();
    let end = whole.len() - 40 - list;
    bytes.splice(end..end, [0; 4]);
    check(&sealed(bytes), "bytes of values");
    // Values of the header, each replaced by one of the same length.
    let header = String::from_utf8_lossy(&whole[27..27 + 4000]).into_owned();
    for (from, to) in
        [("\"images\":8", "\"images\":9"), ("\"shard\":[1,1]", "\"shard\":[0,1]"), ("\"seed\":0", "\"sead\":0")]
    {
        let at = 27 + header.find(from).unwrap();
        let mut bytes = whole.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        check(&sealed(bytes), "damaged");
    }
    check(&std::fs::read(&path).unwrap()[..0], "cut short");
    let refused = reason(merge(&[case.folder.path()], MergeOptions::default(), &Silent));
    assert!(refused.contains("no regular file"), "{refused}");
    let absent = reason(merge(&[&case.path("absent")], MergeOptions::default(), &Silent));
    assert!(absent.contains("absent: cannot be read"), "{absent}");
}
