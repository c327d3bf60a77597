//! `cargo xtask bench repro`: a published experiment from its configuration, with the published figures beside ours.
//!
//! An experiment is a list of runs of `nomaly eval --one-vs-all`. Each keeps a log in the output folder, so that an
//! interrupted experiment resumes with the unfinished class.

mod figure;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use nomaly_store::{create_folder, write_atomic};
use serde::Deserialize;
use serde_json::Value;

use crate::build::{DeviceArgs, target_folder};
use crate::workspace_root;
use figure::{Curve, roc_figure};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The experiment: the name of a file in benches/repro, without its ending
    #[arg(value_name = "NAME")]
    name: String,
    /// The folder for the report, the figure and the logs [default: target/repro/NAME]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Only this run of the experiment
    #[arg(long, value_name = "RUN")]
    only: Option<String>,
    /// Another data set in place of that of the experiment: a folder with the same classes
    #[arg(long, value_name = "DATA")]
    dataset: Option<String>,
    /// Only these classes
    #[arg(long, value_name = "NAMES")]
    classes: Option<String>,
    /// At most this many training images a class
    #[arg(long, value_name = "N")]
    max_train: Option<usize>,
    /// At most this many test images
    #[arg(long, value_name = "N")]
    max_test: Option<usize>,
    /// Passes over the training examples
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Seeds a class
    #[arg(long, value_name = "N")]
    seeds: Option<usize>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// A file of benches/repro.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Experiment {
    title: String,
    source: String,
    runs: Vec<Run>,
}

/// One line of the report.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    name: String,
    dataset: String,
    method: String,
    #[serde(default)]
    settings: Vec<String>,
    #[serde(default)]
    classes: Vec<String>,
    epochs: Option<usize>,
    max_train: Option<usize>,
    max_test: Option<usize>,
    seeds: Option<usize>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut experiment = read(&args.name)?;
    if let Some(only) = &args.only {
        let all: Vec<String> = experiment.runs.iter().map(|run| format!("`{}`", run.name)).collect();
        experiment.runs.retain(|run| folder_name(&run.name) == folder_name(only));
        if experiment.runs.is_empty() {
            bail!("`{}` has no run `{only}`; it has {}", args.name, all.join(", "));
        }
    }
    let output = args.output.clone().unwrap_or_else(|| target_folder().join("repro").join(&args.name));
    create_folder(&output)?;
    args.device.build("nomaly-cli", &[])?;
    let nomaly = target_folder().join("release/nomaly");
    let mut tables = Vec::new();
    for run in &experiment.runs {
        println!("{}: {} on {}", experiment.title, run.name, run.dataset);
        // Each run has its own page and log.
        let folder = output.join(folder_name(&run.name));
        tables.push(evaluate(&nomaly, run, args, &folder).with_context(|| format!("run `{}`", run.name))?);
    }
    let figures: Vec<(String, String)> = figures(&experiment, &tables);
    for (file, svg) in &figures {
        write_atomic(&output.join(file), svg.as_bytes())?;
    }
    let json = serde_json::json!({ "title": experiment.title, "source": experiment.source, "runs": tables });
    write_atomic(&output.join("report.json"), &serde_json::to_vec_pretty(&json)?)?;
    let page = report(&experiment, &tables, &figures)?;
    write_atomic(&output.join("report.md"), page.as_bytes())?;
    println!("{page}\nwrote report.md, report.json and {} figures into {}", figures.len(), output.display());
    Ok(())
}

/// The experiment of that name.
fn read(name: &str) -> anyhow::Result<Experiment> {
    let folder = workspace_root().join("benches/repro");
    let path = folder.join(format!("{name}.toml"));
    let Ok(text) = std::fs::read_to_string(&path) else {
        let known: Vec<String> = std::fs::read_dir(&folder)
            .with_context(|| format!("cannot read {}", folder.display()))?
            .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
            .collect();
        bail!("there is no experiment `{name}`; there are {}", known.join(", "));
    };
    toml::from_str(&text).with_context(|| format!("cannot read {}", path.display()))
}

/// Runs one line of an experiment and returns the table that it prints.
fn evaluate(nomaly: &Path, run: &Run, args: &Args, output: &Path) -> anyhow::Result<Value> {
    let mut command = Command::new(nomaly);
    command.arg("eval").arg(args.dataset.as_ref().unwrap_or(&run.dataset));
    command.args(["--one-vs-all", "--format", "json", "--method", &run.method]).arg("--report").arg(output);
    command.args(["--device", args.device.name()]);
    for setting in &run.settings {
        command.args(["--set", setting]);
    }
    let classes = args.classes.clone().or_else(|| (!run.classes.is_empty()).then(|| run.classes.join(",")));
    if let Some(classes) = classes {
        command.args(["--classes", &classes]);
    }
    for (flag, value) in [
        ("--epochs", args.epochs.or(run.epochs)),
        ("--max-train", args.max_train.or(run.max_train)),
        ("--max-test", args.max_test.or(run.max_test)),
        ("--seeds", args.seeds.or(run.seeds)),
    ] {
        if let Some(value) = value {
            command.arg(flag).arg(value.to_string());
        }
    }
    let done =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start {}", nomaly.display()))?;
    if !done.status.success() {
        bail!("`nomaly eval` ended with {}", done.status);
    }
    Ok(serde_json::from_slice(&done.stdout)?)
}

/// A ROC figure for each score: a curve for each run, of its first class and seed.
fn figures(experiment: &Experiment, tables: &[Value]) -> Vec<(String, String)> {
    let scores: Vec<String> = tables
        .first()
        .and_then(|table| table["runs"][0]["roc"].as_object())
        .map_or_else(Vec::new, |roc| roc.keys().cloned().collect());
    let figure = |score: &String| {
        let curves: Vec<Curve> =
            experiment.runs.iter().zip(tables).filter_map(|(run, table)| curve(run, table, score)).collect();
        let title = format!("{}: {score}", experiment.title);
        (format!("roc-{score}.svg"), roc_figure(&title, &curves))
    };
    // If there are parts, the score is one of them by name.
    scores.iter().filter(|score| scores.len() == 1 || *score != "score").map(figure).collect()
}

fn curve(run: &Run, table: &Value, score: &str) -> Option<Curve> {
    let first = &table["runs"][0];
    let points = first["roc"][score].as_array()?;
    let point = |point: &Value| Some([point[0].as_f64()?, point[1].as_f64()?]);
    let auroc = first["by_part"][score].as_f64().or_else(|| first["auroc"].as_f64())?;
    Some(Curve { name: run.name.clone(), auroc, points: points.iter().filter_map(point).collect() })
}

/// The name of a run as the name of a folder: `with zoom` is `with-zoom`.
fn folder_name(run: &str) -> String {
    run.to_lowercase()
        .split(|sign: char| !sign.is_alphanumeric())
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("-")
}

/// The page: a line for each run, with the mean over its classes of every score.
fn report(experiment: &Experiment, tables: &[Value], figures: &[(String, String)]) -> anyhow::Result<String> {
    let mut page =
        format!("# {}\n\n{}.\n\nAUROC in percent, mean over the classes.\n", experiment.title, experiment.source);
    let mut last_heads = Vec::new();
    for (run, table) in experiment.runs.iter().zip(tables) {
        let parts = table["by_part"].as_object().cloned().unwrap_or_default();
        let heads: Vec<&String> = parts.keys().collect();
        if last_heads.is_empty() || last_heads != heads.iter().map(ToString::to_string).collect::<Vec<_>>() {
            last_heads = heads.iter().map(ToString::to_string).collect();
            let all = ["run", "classes", "images", "AUROC", "published"].map(str::to_owned);
            let all: Vec<String> = all.into_iter().chain(last_heads.clone()).collect();
            writeln!(page, "\n| {} |\n|{}", all.join(" | "), "---|".repeat(all.len()))?;
        }
        let percent = |value: &Value| value.as_f64().map_or("–".to_owned(), |value| format!("{:.2}", 100.0 * value));
        let classes = table["classes"].as_array().map_or(0, Vec::len);
        let first = &table["runs"][0];
        let images = format!("{} + {} / {}", first["n_train"], first["n_test"]["normal"], first["n_test"]["anomalous"]);
        let published = table["published"][1].as_f64().map_or("–".to_owned(), |mean| format!("{mean:.2}"));
        let mut cells = vec![run.name.clone(), classes.to_string(), images, percent(&table["mean"]), published];
        cells.extend(parts.values().map(percent));
        writeln!(page, "| {} |", cells.join(" | "))?;
    }
    page.push_str("\nImages: training + normal / anomalous test images of the first class.\n");
    let mut sources: Vec<&str> = tables.iter().filter_map(|table| table["published"][0].as_str()).collect();
    sources.dedup();
    for source in sources {
        writeln!(page, "Published: {source}.")?;
    }
    for (file, _) in figures {
        writeln!(page, "\n![ROC curves]({file})")?;
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_have_folders() {
        assert_eq!(folder_name("with zoom"), "with-zoom");
        assert_eq!(folder_name("Fashion-MNIST: 72 / all"), "fashion-mnist-72-all");
    }

    #[test]
    fn every_experiment_can_be_read() {
        let folder = workspace_root().join("benches/repro");
        let mut experiments = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let experiment = read(path.file_stem().unwrap().to_str().unwrap()).unwrap();
            let mut folders: Vec<String> = experiment.runs.iter().map(|run| folder_name(&run.name)).collect();
            folders.sort();
            folders.dedup();
            assert_eq!(folders.len(), experiment.runs.len(), "two runs of {} write into one folder", path.display());
            experiments += 1;
        }
        assert!(experiments >= 3);
        let error = read("nothing").err().unwrap().to_string();
        assert!(error.contains("geotrans-extension-mini"), "{error}");
    }
}
