//! Cached features against the features themselves.

use nomaly_backbones::{OutputLayout, TapRequest};
use nomaly_store::{Progress, Silent};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::features::FeatureSource;
use crate::groups::Groups;
use crate::networks::FitData;
use crate::score::MethodScore;

/// Images of two views with two taps, of 12 and 5 values.
struct Features {
    values: Vec<[Vec<f32>; 2]>,
    taps: [TapRequest; 2],
    /// Images per batch.
    batch: usize,
}

const VIEWS: usize = 2;
const LENGTHS: [usize; 2] = [12, 5];
const SHAPES: [[usize; 3]; 2] = [[3, 2, 2], [5, 1, 1]];

impl Features {
    /// Values of magnitudes from 10⁻⁸ to 10⁷, most of which f16 has not.
    fn new(images: usize, batch: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let mut view = |length| {
            let magnitude = 10f32.powf(random.random_range(-8.0..7.0));
            (0..length).map(|_| magnitude * random.random_range(-1.0..1.0f32)).collect()
        };
        let values = (0..images * VIEWS).map(|_| LENGTHS.map(&mut view)).collect();
        let taps = ["deep", "pooled"].map(|name| TapRequest::new(name, OutputLayout::Nchw));
        Self { values, taps, batch }
    }

    fn collect(&self, limits: &TapLimits) -> Result<TapStore, MethodError> {
        match FitData::collect(&self.taps, self, limits.clone(), &Silent)? {
            FitData::Taps(store) => Ok(store),
            FitData::Pixels(_) => panic!("these are no pixels"),
        }
    }
}

impl FeatureSource for Features {
    fn images(&self) -> usize {
        self.values.len() / VIEWS
    }

    fn views(&self) -> usize {
        VIEWS
    }

    fn held_bytes(&self) -> u64 {
        0
    }

    fn kinds(&self) -> Vec<String> {
        Vec::new()
    }

    fn groups(&self) -> Result<Groups, MethodError> {
        Ok(Groups::singletons(self.images()))
    }

    fn visit(
        &self,
        _: &dyn Progress,
        visit: &mut (dyn FnMut(&FeatureBatch<'_>) -> Result<(), MethodError> + Send),
    ) -> Result<usize, MethodError> {
        for batch in self.values.chunks(self.batch * VIEWS) {
            let values = [0, 1].map(|tap| batch.iter().flat_map(|view| &view[tap]).copied().collect());
            visit(&FeatureBatch {
                images: batch.len() / VIEWS,
                views: VIEWS,
                input: [8, 8],
                map: [8, 8],
                taps: &self.taps,
                values: &values,
                shapes: &SHAPES,
                region: None,
                median: None,
            })?;
        }
        Ok(self.images())
    }

    fn visit_some(
        &self,
        _: &[usize],
        _: &dyn Progress,
        _: &mut (dyn FnMut(&FeatureBatch<'_>) -> Result<(), MethodError> + Send),
    ) -> Result<(), MethodError> {
        Ok(())
    }

    fn combine(&self, mut views: Vec<MethodScore>) -> Result<MethodScore, MethodError> {
        Ok(views.remove(0))
    }
}

/// Bytes of a view in the store.
const EACH: u64 = 2 * (12 + 5);

fn limits(folder: &Path, memory: u64) -> TapLimits {
    TapLimits { memory, folder: folder.join("cache") }
}

fn read(store: &TapStore, views: &[usize]) -> [Vec<f32>; 2] {
    let mut taps = [vec![9.0; 3], Vec::new()];
    store.read(views, &mut taps).unwrap();
    taps
}

#[test]
fn values_are_off_by_the_rounding_of_f16_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let features = Features::new(40, 3);
    let store = features.collect(&limits(folder.path(), 1 << 20)).unwrap();
    assert_eq!((store.inputs(), store.input_size(), store.shapes()), (80, [8, 8], &SHAPES[..]));
    let mut above = 0;
    for (view, expected) in features.values.iter().enumerate() {
        for (found, expected) in read(&store, &[view]).iter().zip(expected) {
            let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            above += usize::from(largest > f16::MAX.to_f32());
            for (found, expected) in found.iter().zip(expected) {
                // 2⁻¹¹ of the value, or 2⁻³⁹ of the largest.
                let allowed = (expected.abs() * 2f32.powi(-11)).max(largest * 2f32.powi(-39));
                assert!((found - expected).abs() <= allowed, "{found} {expected}");
            }
        }
    }
    assert!(above > 10, "{above} of 160 overflow f16");
}

#[test]
fn extreme_and_equal_values_are_kept() {
    for (values, kept) in [
        ([0.0, -0.0, 0.0], true),
        ([f32::MAX, 1.0, -f32::MAX / 2.0], false),
        ([65504.0, -65520.0, 1e9], true),
        ([1e-30, 2e-30, 0.0], false),
    ] {
        let exponent = exponent_of(&values).unwrap();
        for value in values {
            let stored = f16::from_f32(value * power_of_two(-exponent));
            assert!(stored.is_finite(), "{value}");
            let back = stored.to_f32() * power_of_two(exponent);
            assert!(!kept || (back - value).abs() <= value.abs() * 2f32.powi(-11), "{back} {value}");
        }
    }
    assert_eq!(exponent_of(&[1.0, f32::NAN]), None);
    assert_eq!(exponent_of(&[f32::NEG_INFINITY]), None);
    assert_eq!((exponent_of(&[-16384.0]), exponent_of(&[32768.0]), exponent_of(&[])), (Some(0), Some(1), Some(0)));
}

#[test]
fn the_disk_gives_the_same_bytes_as_memory_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Features::new(9, 9).collect(&limits(folder.path(), 1 << 20)).unwrap();
    assert!(!folder.path().join("cache").exists(), "a folder without need");
    let order = [17, 0, 5, 5, 3, 16, 9];
    let expected = read(&memory, &order);
    for (batch, bytes) in [(1, 0), (2, 5 * EACH), (3, 5 * EACH + EACH - 1), (9, 17 * EACH), (4, 18 * EACH)] {
        let store = Features::new(9, batch).collect(&limits(folder.path(), bytes)).unwrap();
        let [in_memory, on_disk] = store.bytes();
        assert!(in_memory <= bytes, "{in_memory} of {bytes}");
        assert_eq!(in_memory + on_disk, 18 * EACH);
        let found = read(&store, &order);
        let bits = |taps: &[Vec<f32>; 2]| taps.concat().iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&found), bits(&expected), "{bytes}");
        // A view has the same values whichever others are read with it.
        for (place, view) in order.into_iter().enumerate() {
            let alone = read(&store, &[view]);
            assert_eq!(alone[0], expected[0][place * 12..(place + 1) * 12]);
            assert_eq!(alone[1], expected[1][place * 5..(place + 1) * 5]);
        }
        assert_eq!(store.fingerprint(), memory.fingerprint());
        drop(store);
        let left = std::fs::read_dir(folder.path().join("cache")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{left} files are left");
    }
    let mut other = Features::new(9, 9);
    other.values[17][1][4] *= -1.0;
    assert_ne!(other.collect(&limits(folder.path(), 0)).unwrap().fingerprint(), memory.fingerprint());
}

#[test]
fn an_error_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut features = Features::new(4, 1);
    features.values[5][0][7] = f32::INFINITY;
    let error = features.collect(&limits(folder.path(), 0)).unwrap_err();
    let expected = ScorerError::NonFiniteFeature { row: 5, column: 7 }.to_string();
    assert_eq!(error.to_string(), expected);
    assert_eq!(std::fs::read_dir(folder.path().join("cache")).unwrap().count(), 0);
    let store = Features::new(2, 1).collect(&limits(folder.path(), 0)).unwrap();
    for (views, taps) in [(&[4][..], 2), (&[0], 1)] {
        let error = store.read(views, &mut vec![Vec::new(); taps]).unwrap_err();
        assert!(matches!(error, MethodError::Conflict { .. }), "{error}");
    }
}

#[test]
fn a_full_disk_is_named_with_what_it_has_to_take() {
    let full = io::Error::from(io::ErrorKind::StorageFull);
    let error = disk_error(Path::new("/cache"), &full, Some(3 << 20));
    assert_eq!(
        error.to_string(),
        "the disk of /cache is full: the features of the training images take 3 MiB there and do not fit; free it, or \
         keep more of them in memory with a larger `max_memory`"
    );
    assert!(matches!(error, MethodError::Limit { .. }));
    let error = disk_error(Path::new("/cache"), &io::Error::other("a fault"), None);
    assert!(matches!(error, MethodError::File { .. }), "{error}");
}
