// Measures a method on labeled images.
//
// `cargo run --release -p nomaly --example evaluate -- FOLDER`; a folder in MVTec layout, or the embedded images.

use nomaly::evaluation::evaluate;
use nomaly::params::MvgParams;
use nomaly::store::Silent;
use nomaly::{Fit, PredictOptions, data};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    run(std::env::args().nth(1))
}

fn run(folder: Option<String>) -> Result<(), Box<dyn std::error::Error>> {
    let dataset = match folder {
        Some(folder) => data::open(&folder)?,
        None => data::demo("gravel", 0)?,
    };
    let fit = Fit::of_dataset(dataset.clone()).method(&MvgParams::default()).run()?;
    let evaluated = evaluate(&fit.detector, &dataset, None, &PredictOptions::default(), &Silent, |_| ())?;
    let figures = evaluated.figures;
    if let Some(image) = figures.image {
        println!("image AUROC {:.3}, average precision {:.3}", image.auroc, image.ap);
    }
    println!("false alarms {:?}, found {:?}", figures.threshold.fpr, figures.threshold.tpr);
    for (kind, ranking) in &figures.by_kind {
        println!("  {kind}: AUROC {:.3}", ranking.auroc);
    }
    Ok(())
}
