//! The effect of a few defective images among the training images, and of countermeasures.
//!
//! ```console
//! $ contamination FOLDER... [--methods mvg,patchcore] [--seeds N] [--first SEED] [--train N] [--input N]
//! ```
//!
//! Each FOLDER is a data set in MVTec layout, or a name such as `demo:texture=gravel`. For each share of 0, 2, 5 and 10
//! %, that share of the training images (60 by default, chosen by the seed) is replaced by defective ones from the test
//! set, which are removed there. Prints, for 5 % of false alarms, the recall of defects and the share of flagged good
//! test images: with the default, without images that are suspicious at 0.001, and by the robust rule; and how many
//! defective and good training images are named.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use nomaly_data::subset::{Choice, choose};
use nomaly_data::{Label, Sample};
use nomaly_detectors::refit::fit_without_suspicious;
use nomaly_detectors::suspicion::{naming_level, suspicious};
use nomaly_detectors::{DecisionRule, Detector, FitOptions, FittedDetector, PredictOptions};
use nomaly_settings::Assignments;
use nomaly_store::Silent;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const SHARES: [f64; 4] = [0.0, 0.02, 0.05, 0.1];
const RATE: f64 = 0.05;
/// The level at which images are left out.
const LEVEL: f64 = 0.001;

fn main() -> Result<(), Failure> {
    let (mut folders, mut methods) = (Vec::new(), vec!["mvg".to_owned(), "patchcore".to_owned()]);
    let (mut seeds, mut first, mut train, mut input) = (10u64, 100u64, 60usize, 96usize);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} has no value"));
        match argument.as_str() {
            "--methods" => methods = value()?.split(',').map(str::to_owned).collect(),
            "--seeds" => seeds = value()?.parse()?,
            "--first" => first = value()?.parse()?,
            "--train" => train = value()?.parse()?,
            "--input" => input = value()?.parse()?,
            folder => folders.push(folder.to_owned()),
        }
    }
    println!(
        "| data | method | defective | recall | false alarms | dropped: recall | false alarms | robust: recall | false alarms \
         | named of defective | good ones named |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for folder in &folders {
        for method in &methods {
            for share in SHARES {
                let mut sum = Sum::default();
                for seed in first..first + seeds {
                    sum.add(&run(folder, method, share, seed, train, input)?);
                }
                let name = folder.rsplit('/').next().unwrap_or(folder);
                println!("| {name} | `{method}` | {:.0} % |{}", 100.0 * share, sum.cells());
            }
        }
    }
    Ok(())
}

/// Recall and false alarms of three decisions, and how many defective and good training images are named, as shares of
/// the defective and as a number.
struct Outcome {
    rates: [[f64; 2]; 3],
    named: Option<f64>,
    wrongly: f64,
}

fn run(folder: &str, method: &str, share: f64, seed: u64, train: usize, input: usize) -> Result<Outcome, Failure> {
    let dataset = nomaly_data::open(folder)?;
    let train = train.min(dataset.train.len());
    let kept = choose(dataset.train.len(), train, Choice::Seeded(seed));
    let mut samples: Vec<Sample> = kept.into_iter().map(|at| dataset.train[at].clone()).collect();
    let (defective, good): (Vec<Sample>, Vec<Sample>) =
        dataset.test.into_iter().partition(|sample| sample.label == Label::Anomalous);
    let count = (share * samples.len() as f64).round() as usize;
    let taken: BTreeSet<usize> = choose(defective.len(), count, Choice::Seeded(seed)).into_iter().collect();
    let places: BTreeSet<usize> = choose(samples.len(), count, Choice::Seeded(seed + 1)).into_iter().collect();
    for (&place, &from) in places.iter().zip(&taken) {
        samples[place] = defective[from].clone();
    }
    let defective: Vec<Sample> =
        defective.into_iter().enumerate().filter(|(at, _)| !taken.contains(at)).map(|(_, sample)| sample).collect();

    let settings = Assignments::new().with("input_size", input);
    let make = || Detector::new(method, "efficientnet-lite0", &settings);
    let options = FitOptions { seed, rule: DecisionRule::MaxFpr(RATE), ..FitOptions::default() };
    let plain = make()?.fit(folder, &samples, &options, &Silent)?;
    let named: BTreeSet<usize> =
        suspicious(&plain.held_out, naming_level(samples.len())).iter().map(|image| image.sample).collect();
    let cleaned = fit_without_suspicious(&make, folder, &samples, &options, LEVEL, &Silent)?;
    let robust = PredictOptions { rule: Some(DecisionRule::RobustTail(RATE)), ..PredictOptions::default() };
    let rates = |detector: &FittedDetector, options: &PredictOptions| -> Result<[f64; 2], Failure> {
        Ok([flagged(detector, &defective, options)?, flagged(detector, &good, options)?])
    };
    let own = PredictOptions::default();
    Ok(Outcome {
        rates: [rates(&plain.detector, &own)?, rates(&cleaned.detector, &own)?, rates(&plain.detector, &robust)?],
        named: (count > 0).then(|| named.intersection(&places).count() as f64 / count as f64),
        wrongly: named.difference(&places).count() as f64,
    })
}

/// The share of flagged samples.
fn flagged(detector: &FittedDetector, samples: &[Sample], options: &PredictOptions) -> Result<f64, Failure> {
    let mut count = 0usize;
    detector.predict(samples, options, &Silent, |outcome| {
        count += usize::from(outcome.result.is_ok_and(|prediction| prediction.anomalous == Some(true)));
        Ok(())
    })?;
    Ok(count as f64 / samples.len() as f64)
}

#[derive(Default)]
struct Sum {
    rates: [[f64; 2]; 3],
    named: f64,
    wrongly: f64,
    runs: f64,
    spoiled: f64,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        let pairs = self.rates.iter_mut().flatten().zip(outcome.rates.iter().flatten());
        pairs.for_each(|(sum, rate)| *sum += rate);
        self.named += outcome.named.unwrap_or(0.0);
        self.spoiled += f64::from(u8::from(outcome.named.is_some()));
        self.wrongly += outcome.wrongly;
        self.runs += 1.0;
    }

    fn cells(&self) -> String {
        let rates: Vec<String> =
            self.rates.iter().flatten().map(|sum| format!("{:.1}", 100.0 * sum / self.runs)).collect();
        let named =
            if self.spoiled > 0.0 { format!("{:.0} %", 100.0 * self.named / self.spoiled) } else { "–".to_owned() };
        format!(" {} | {named} | {:.1} |", rates.join(" | "), self.wrongly / self.runs)
    }
}
