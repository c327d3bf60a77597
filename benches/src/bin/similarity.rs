//! Times the similarity kernels on raw files, for the scripts in `benches/compare`.
//!
//! ```console
//! $ similarity neighbours --bank FILE --queries FILE --dim N [--k N] [--threads N] [--rounds N] [--out FILE]
//! $ similarity inverted --bank FILE --queries FILE --dim N [--k N] [--probes N,N] [--cells N] [--threads N]
//!     [--rounds N]
//! $ similarity coreset --rows FILE --dim N --count N [--start N] [--project N] [--threads N] [--rounds N] [--out FILE]
//! ```
//!
//! Files are f32 in native byte order. Prints one JSON object with the seconds of each round; `--out` receives the
//! indices as u32. `inverted` compares the inverted file with the exact search of the same rows: the seconds of
//! building it, and for each number of probes the recall of the exact neighbours and the mean excess of the distances.
//! `--project` times a sparse random projection to this many dimensions, and selects on its result.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use std::time::Instant;

use nomaly_kernels::Isa;
use nomaly_kernels::coreset::{KCentreGreedy, Projection, RandomProjection, Start};
use nomaly_kernels::neighbours::{Bank, InvertedIndex, InvertedOptions, Metric, recall};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().ok_or("a command is missing: neighbours, inverted or coreset")?;
    let options = Options::read(arguments)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.number("threads", 0)?).build()?;
    pool.install(|| match command.as_str() {
        "neighbours" => neighbours(&options),
        "inverted" => inverted(&options),
        "coreset" => coreset(&options),
        other => Err(format!("unknown command \"{other}\"").into()),
    })
}

/// `--name value` pairs.
struct Options(HashMap<String, String>);

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = HashMap::new();
        while let Some(name) = arguments.next() {
            let name = name.strip_prefix("--").ok_or_else(|| format!("expected an option, got \"{name}\""))?.to_owned();
            let value = arguments.next().ok_or_else(|| format!("--{name} has no value"))?;
            options.insert(name, value);
        }
        Ok(Self(options))
    }

    fn number(&self, name: &str, default: usize) -> Result<usize, Failure> {
        match self.0.get(name) {
            Some(value) => value.parse().map_err(|error| format!("--{name} {value}: {error}").into()),
            None => Ok(default),
        }
    }

    fn required(&self, name: &str) -> Result<&str, Failure> {
        self.0.get(name).map(String::as_str).ok_or_else(|| format!("--{name} is missing").into())
    }

    /// The f32 values of a file.
    fn floats(&self, name: &str) -> Result<Vec<f32>, Failure> {
        let path = self.required(name)?;
        let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
        let (values, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(format!("{path}: {} bytes are not a whole number of f32", bytes.len()).into());
        }
        Ok(values.iter().map(|value| f32::from_ne_bytes(*value)).collect())
    }

    /// Writes the indices to the file of `--out`, if given.
    fn write(&self, indices: &[u32]) -> Result<(), Failure> {
        if let Some(path) = self.0.get("out") {
            let bytes: Vec<u8> = indices.iter().flat_map(|index| index.to_ne_bytes()).collect();
            std::fs::write(path, bytes).map_err(|error| format!("{path}: {error}"))?;
        }
        Ok(())
    }
}

/// Runs `work` several times; returns its last result and the seconds of each run.
fn timed<T>(rounds: usize, mut work: impl FnMut() -> T) -> (T, Vec<f64>) {
    let mut run = || {
        let began = Instant::now();
        (work(), began.elapsed().as_secs_f64())
    };
    let (mut result, seconds) = run();
    let mut all = vec![seconds];
    for _ in 1..rounds {
        let (last, seconds) = run();
        result = last;
        all.push(seconds);
    }
    (result, all)
}

fn neighbours(options: &Options) -> Result<(), Failure> {
    let (bank, queries) = (options.floats("bank")?, options.floats("queries")?);
    let (dim, k) = (options.number("dim", 0)?, options.number("k", 9)?);
    let bank = Bank::new(bank, dim, Metric::SquaredL2, Isa::best()?)?;
    let (found, seconds) = timed(options.number("rounds", 1)?, || bank.top_k(&queries, k));
    options.write(&found?.indices)?;
    println!("{{\"seconds\": {seconds:?}}}");
    Ok(())
}

fn inverted(options: &Options) -> Result<(), Failure> {
    let (rows, queries) = (options.floats("bank")?, options.floats("queries")?);
    let (dim, k, rounds) = (options.number("dim", 0)?, options.number("k", 1)?, options.number("rounds", 1)?);
    let cells = Some(options.number("cells", 0)?).filter(|cells| *cells > 0);
    let isa = Isa::best()?;
    let bank = Bank::new(&*rows, dim, Metric::SquaredL2, isa)?;
    let (exact, exact_seconds) = timed(rounds, || bank.top_k(&queries, k));
    let exact = exact?;
    let build = || InvertedIndex::build(rows.clone(), dim, Metric::SquaredL2, InvertedOptions { cells, seed: 0 }, isa);
    let (index, build_seconds) = timed(1, build);
    let index = index?;
    let mut lines = Vec::new();
    for probes in options.0.get("probes").map_or("1,2,4,8,16,32", String::as_str).split(',') {
        let probes = probes.parse().map_err(|error| format!("--probes {probes}: {error}"))?;
        let (found, seconds) = timed(rounds, || index.top_k(&queries, k, probes));
        let found = found?;
        // Of the distances themselves, not of their squares.
        let excess = exact.distances.iter().zip(&found.distances).filter(|(exact, _)| **exact > 0.0);
        let excess: Vec<f64> = excess.map(|(exact, found)| f64::from(found / exact).sqrt() - 1.0).collect();
        let excess = excess.iter().sum::<f64>() / excess.len().max(1) as f64;
        let recall = recall(&exact, &found);
        lines.push(format!(
            "{{\"probes\": {probes}, \"recall\": {recall:.4}, \"mean_excess\": {excess:.5}, \"seconds\": {seconds:?}}}"
        ));
    }
    let (cells, lines) = (index.cells(), lines.join(", "));
    println!(
        "{{\"cells\": {cells}, \"exact_seconds\": {exact_seconds:?}, \"build_seconds\": {build_seconds:?}, \"found\": [{lines}]}}"
    );
    Ok(())
}

fn coreset(options: &Options) -> Result<(), Failure> {
    let (mut rows, mut dim) = (options.floats("rows")?, options.number("dim", 0)?);
    let (count, start, components) =
        (options.number("count", 0)?, options.number("start", 0)?, options.number("project", 0)?);
    let (isa, rounds) = (Isa::best()?, options.number("rounds", 1)?);
    let mut projection_seconds = Vec::new();
    if components > 0 {
        let projection = RandomProjection::new(Projection::Sparse { density: None }, dim, components, 0, isa)?;
        let (projected, seconds) = timed(rounds, || projection.apply(&rows));
        (rows, dim, projection_seconds) = (projected?, components, seconds);
    }
    let greedy = KCentreGreedy { start: Start::Index(start) };
    let (found, seconds) = timed(rounds, || greedy.select(&rows, dim, count, isa));
    let found = found?;
    options.write(&found.indices)?;
    let radius = found.radii.last().copied().unwrap_or_default();
    println!("{{\"seconds\": {seconds:?}, \"projection_seconds\": {projection_seconds:?}, \"radius\": {radius:?}}}");
    Ok(())
}
