//! Fits a scorer on the rows of one file, scores those of another, and prints one JSON object: seconds, memory, scores.
//!
//! ```console
//! $ cargo run --release -p nomaly-scorers --example time_scorer -- SCORER train.f32 test.f32 DIM [NAME=VALUE]...
//! ```
//!
//! The files hold `f32` numbers, little-endian, row by row. `benches/compare/scorers.py` runs it beside other programs;
//! `NOMALY_SCORES=FILE` makes it write the scores of the test rows there, as `f64`.

use std::error::Error;
use std::time::Instant;

use ndarray::{Array2, Axis};
use nomaly_scorers::SCORERS;
use nomaly_settings::Assignments;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [name, train, test, dim, settings @ ..] = args.as_slice() else {
        return Err("usage: time_scorer SCORER train.f32 test.f32 DIM [NAME=VALUE]...".into());
    };
    let dim = dim.parse()?;
    let (train, test) = (read(train, dim)?, read(test, dim)?);
    let given = Assignments::parse(settings)?;
    let entry = SCORERS.get(name)?;
    // One-time work of the process (starting threads, detecting the processor) should not count; the other programs are
    // warmed up too. Some settings do not fit a few rows; then there is no warm-up.
    let few = train.slice_axis(Axis(0), (..train.nrows().min(300)).into());
    let _warmed_up = entry.fit(&given, few).and_then(|scorer| scorer.score(few));
    let began = Instant::now();
    let scorer = entry.fit(&given, train.view())?;
    let fit_s = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let scores = scorer.score(test.view())?;
    let score_s = began.elapsed().as_secs_f64();
    if let Some(path) = std::env::var_os("NOMALY_SCORES") {
        std::fs::write(path, scores.iter().flat_map(|score| score.to_le_bytes()).collect::<Vec<u8>>())?;
    }
    let rss = peak_rss_mib().map_or("null".to_owned(), |mib| mib.to_string());
    println!(r#"{{"fit_s":{fit_s},"score_s":{score_s},"peak_rss_mib":{rss}}}"#);
    Ok(())
}

fn read(path: &str, dim: usize) -> Result<Array2<f32>, Box<dyn Error>> {
    let bytes = std::fs::read(path)?;
    let values: Vec<f32> =
        bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect();
    Ok(Array2::from_shape_vec((values.len() / dim, dim), values)?)
}

/// The peak memory of this process, if the system reports it.
fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}
