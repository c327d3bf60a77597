// Fits a model on images of good parts, and writes a model file.
//
// `cargo run --release -p nomaly --example fit -- FOLDER part.nomaly`; without arguments on embedded images.

use std::ffi::OsString;
use std::path::PathBuf;

use nomaly::params::{InputParams, PadimParams};
use nomaly::settings::Auto;
use nomaly::{DetectorError, Fit, data};

fn main() -> Result<(), DetectorError> {
    run(std::env::args_os().skip(1))
}

fn run(mut args: impl Iterator<Item = OsString>) -> Result<(), DetectorError> {
    let (fit, path) = match (args.next(), args.next()) {
        // The method, its settings and the sizes depend on the images.
        (Some(folder), Some(path)) => (Fit::of(folder), PathBuf::from(path)),
        _ => {
            let input = InputParams { input_size: Auto::Value(96), ..InputParams::default() };
            let params = PadimParams { features: Auto::Value(40), ..PadimParams::default() };
            let path = std::env::temp_dir().join("nomaly-example.nomaly");
            (Fit::of_dataset(data::demo("brick", 0)?).method(&params).input(&input), path)
        }
    };
    let fit = fit.max_fpr(0.05).seed(0).run()?;
    for note in &fit.notes {
        println!("{note}");
    }
    for bad in &fit.skipped {
        println!("could not be used: {}", bad.message);
    }
    fit.save(&path)?;
    println!("{}: threshold {:?}", path.display(), fit.detector.calibration().threshold());
    Ok(())
}
