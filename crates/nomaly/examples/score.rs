// Scores images one after another, as in a camera loop.
//
// `cargo run --release -p nomaly --example score -- part.nomaly IMAGE...`; without arguments on embedded images.

use std::ffi::OsString;

use nomaly::params::{InputParams, PadimParams};
use nomaly::settings::Auto;
use nomaly::{Fit, FittedDetector, Limits, SessionOptions, Verdict, data};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    run(std::env::args_os().skip(1).collect())
}

pub(crate) fn run(args: Vec<OsString>) -> Result<(), Box<dyn std::error::Error>> {
    if let Some((model, images)) = args.split_first() {
        let mut session = FittedDetector::load(model.as_ref())?.session(SessionOptions::default())?;
        for path in images {
            match session.score_bytes(&std::fs::read(path)?) {
                Ok(verdict) => print(&path.to_string_lossy(), &verdict),
                Err(error) => eprintln!("{}: {error}", path.to_string_lossy()),
            }
        }
        return Ok(());
    }
    let images = data::demo("brick", 0)?;
    let test: Vec<_> = images.test.iter().step_by(12).cloned().collect();
    let input = InputParams { input_size: Auto::Value(96), ..InputParams::default() };
    let params = PadimParams { features: Auto::Value(40), ..PadimParams::default() };
    let fit = Fit::of_dataset(images).method(&params).input(&input).run()?;
    let mut session = fit.detector.session(SessionOptions::default())?;
    for sample in &test {
        print(&sample.id, &session.score(&sample.source.load(&Limits::default())?)?);
    }
    Ok(())
}

fn print(name: &str, verdict: &Verdict) {
    let regions = verdict.regions.as_ref().map_or(0, Vec::len);
    let decision = match verdict.anomalous {
        Some(true) => "anomalous",
        Some(false) => "normal",
        None => "undecided",
    };
    println!("{decision:9} {:8.3}  p = {:.3}  {regions} regions  {name}", verdict.score, verdict.p_value);
}
