//! Small images, folders of them, and helpers to run the program.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use assert_cmd::Command;
use image::{GrayImage, Luma, Rgb, RgbImage};
use serde_json::Value;

/// The program, as Cargo built it for the tests.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_nomaly");
/// Input of the network in the tests, in pixels: small, so that they are quick.
pub(crate) const INPUT_SIZE: &str = "input_size=64";
/// Training images of [`parts`]: enough for the default false-alarm rate.
pub(crate) const TRAIN: usize = 24;
/// Test images of each kind of [`parts`].
pub(crate) const TEST: usize = 4;

/// The result of a run of the program.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// The standard output of a run that must have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.status, 0, "{}", self.stderr);
        self.stdout
    }

    /// The error line of a run that must have failed with status 2, without output and without a panic.
    #[track_caller]
    pub(crate) fn error(self) -> String {
        assert_eq!(self.status, 2, "{}{}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        assert!(self.stderr.contains("error: "), "{}", self.stderr);
        self.stderr
    }

    /// The standard output of a run that must have succeeded, as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }
}

/// Runs the program with an empty cache folder.
pub(crate) fn nomaly<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Run {
    nomaly_at(&folder("home"), args)
}

/// Runs the program with the cache folder `home`.
pub(crate) fn nomaly_at<A: AsRef<OsStr>>(home: &Path, args: impl IntoIterator<Item = A>) -> Run {
    let output = Command::new(PROGRAM)
        .args(args)
        .env("NOMALY_HOME", home)
        .env_remove("NO_COLOR")
        .env_remove("CLICOLOR_FORCE")
        .timeout(Duration::from_secs(120))
        .output()
        .unwrap();
    Run {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Arguments of mixed kinds.
#[macro_export]
macro_rules! args {
    ($($arg:expr),* $(,)?) => { [$(std::ffi::OsStr::new(&$arg).to_owned()),*] };
}

/// An empty folder of this name below the build's own scratch space.
pub(crate) fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nomaly-cli").join(name);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// As [`folder`], but always empty.
pub(crate) fn fresh_folder(name: &str) -> PathBuf {
    std::fs::remove_dir_all(folder(name)).unwrap();
    folder(name)
}

/// Where the spot of a defective part is.
pub(crate) fn in_spot(x: u32, y: u32) -> bool {
    (16..34).contains(&x) && (12..30).contains(&y)
}

/// A striped part of 48 × 48 pixels with noise that depends on `seed`, and a dark spot where it is defective.
pub(crate) fn part(seed: u32, defective: bool) -> RgbImage {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    RgbImage::from_fn(48, 48, |x, y| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (state >> 24) as u8 / 8;
        let stripe = if (x + y / 3) % 8 < 4 { 150 } else { 90 };
        let spot = defective && in_spot(x, y);
        let value = if spot { noise } else { stripe + noise };
        Rgb([value, value, value / 2 + 40])
    })
}

/// A data set in MVTec layout, created once.
pub(crate) fn parts() -> &'static Path {
    static PARTS: OnceLock<PathBuf> = OnceLock::new();
    PARTS.get_or_init(|| {
        let root = fresh_folder("parts");
        let groups = [("train/good", 0, TRAIN, false), ("test/good", 100, TEST, false), ("test/spot", 200, TEST, true)];
        for (group, first_seed, count, defective) in groups {
            let folder = root.join(group);
            std::fs::create_dir_all(&folder).unwrap();
            for index in 0..count {
                let image = part(first_seed + index as u32, defective);
                image.save(folder.join(format!("{index:03}.png"))).unwrap();
            }
        }
        // Where the spots are.
        let masks = root.join("ground_truth/spot");
        std::fs::create_dir_all(&masks).unwrap();
        let mask = GrayImage::from_fn(48, 48, |x, y| Luma([if in_spot(x, y) { 255 } else { 0 }]));
        for index in 0..TEST {
            mask.save(masks.join(format!("{index:03}_mask.png"))).unwrap();
        }
        root
    })
}

/// A model fitted on [`parts`], created once.
pub(crate) fn model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let path = fresh_folder("model").join("parts.nomaly");
        nomaly(args!["fit", parts(), "-o", path, "--method", "mvg", "--set", INPUT_SIZE]).ok();
        path
    })
}
