//! `nomaly eval --one-vs-all`: each class of a data set in turn as the normal one.

use std::io::{self, Write};
use std::path::PathBuf;

use nomaly::Label;
use nomaly::PredictOptions;
use nomaly::data::with_option;
use nomaly::devices::Executor;
use nomaly::evaluation::evaluate;
use nomaly::evaluation::protocol::{Log, Mean, Protocol, ProtocolTable as Figures, Run};
use nomaly::methods::Checkpoint;
use nomaly::registry::UnknownName;
use nomaly::store::{create_folder, home, write_atomic};

use super::evaluation_data::{limit, open};
use super::{Status, fit_detector, recipe, settings_of};
use crate::args::{EvalArgs, Format};
use crate::console::Console;
use crate::failure::Failure;
use crate::output::style::{FAINT, HEADING};
use crate::output::{Align, Table, counted, print_json, seconds, stdout};
use crate::progress::{Bars, Unit};
use nomaly::AUTO;

/// The option of a data set that names its normal class.
const NORMAL: &str = "normal";

pub(super) fn run(args: &EvalArgs, executor: &Executor, console: &Console) -> anyhow::Result<Status> {
    if args.method.method == AUTO {
        let hint = "name one with --method; `nomaly list methods` shows them";
        return Err(Failure::new("--one-vs-all compares one method on all classes, and none is named", hint).into());
    }
    let all = classes(&args.data)?;
    let chosen = choose(&all, &args.one_vs_all.classes)?;
    let protocol = Protocol {
        dataset: args.data.clone(),
        method: args.method.method.clone(),
        backbone: args.method.backbone.clone(),
        settings: settings_of(&args.method)?,
        max_train: args.max_train.map(Into::into),
        max_test: args.max_test.map(Into::into),
    };
    let folder: PathBuf = match &args.report {
        Some(folder) => folder.clone(),
        None => home()?.join("protocols"),
    };
    create_folder(&folder)?;
    let mut log = Log::open(&folder, protocol.clone())?;
    console.detail(format_args!("runs are kept in {}", log.path().display()));

    let seeds = args.method.seed..args.method.seed.saturating_add(args.one_vs_all.seeds.get() as u64);
    let mut runs = Vec::new();
    let total = chosen.len() * args.one_vs_all.seeds.get();
    for class in &chosen {
        for seed in seeds.clone() {
            let run = match log.find(class, seed) {
                Some(run) => run.clone(),
                None => {
                    let (run, checkpoint) = run_class(args, class, seed, executor, console)?;
                    log.push(run.clone())?;
                    if let Some(checkpoint) = checkpoint {
                        checkpoint.remove();
                    }
                    run
                }
            };
            runs.push(run);
            let run = &runs[runs.len() - 1];
            console.note(format_args!(
                "{} of {total}: {class}, seed {seed}: AUROC {:.2} %{}",
                runs.len(),
                100.0 * run.auroc,
                run.fit_s.map_or_else(String::new, |fit_s| format!(", fit {}", seconds(fit_s))),
            ));
        }
    }

    let figures = Figures::new(protocol, &runs, &all)?;
    match args.format {
        Format::Json => print_json(&figures)?,
        Format::Table => print(&mut stdout(), &figures)?,
    }
    if let Some(folder) = &args.report {
        let path = folder.join("one-vs-all.md");
        write_atomic(&path, markdown(&figures).as_bytes())?;
        console.note(format_args!("wrote {}", path.display()));
    }
    Ok(Status::Done)
}

/// Runs one class with one seed; also returns the checkpoint of the training, which is needed until the run is in the
/// log.
fn run_class(
    args: &EvalArgs,
    class: &str,
    seed: u64,
    executor: &Executor,
    console: &Console,
) -> anyhow::Result<(Run, Option<Checkpoint>)> {
    let mut dataset = open(&with_option(&args.data, NORMAL, class), &[Label::Normal, Label::Anomalous])?;
    limit(&mut dataset, args, seed);
    let mut recipe = recipe(&args.method, args.rule.rule(None)?, args.reading.options(None), executor)?;
    recipe.options.seed = seed;
    let (fit, fit_s) = fit_detector(&recipe, &dataset, console)?;
    let options = PredictOptions { rule: None, stream: args.reading.options(None) };
    let bars = Bars::new(console, Unit::Images);
    let evaluated = evaluate(&fit.detector, &dataset, Some(fit_s), &options, &bars, |_| {}).map_err(|error| {
        let hint = "the same command goes on with the class that was interrupted";
        Failure::if_cancelled(error, "the protocol was interrupted", hint)
    })?;
    Ok((Run::new(class, &evaluated)?, fit.checkpoint))
}

/// The classes of the data set, in the order of their numbers.
fn classes(data: &str) -> anyhow::Result<Vec<String>> {
    let dataset = nomaly::data::open(&with_option(data, NORMAL, "0"))?;
    if dataset.classes.len() < 2 {
        let hint =
            "data sets of classes are mnist, fashion-mnist, cifar10, cifar100, and folders with one folder a class";
        return Err(Failure::new(format!("{data} has no classes to take in turn"), hint).into());
    }
    Ok(dataset.classes)
}

/// The requested classes, by name or by number, in the order of `all`; all classes if none was requested.
fn choose(all: &[String], wanted: &[String]) -> anyhow::Result<Vec<String>> {
    let mut chosen = vec![wanted.is_empty(); all.len()];
    for name in wanted {
        let number =
            all.iter().position(|class| class == name).or_else(|| name.parse().ok().filter(|n| *n < all.len()));
        match number {
            Some(number) => chosen[number] = true,
            None => return Err(UnknownName::new("class", name, all.iter().map(String::as_str)).into()),
        }
    }
    Ok(all.iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|(class, _)| class.clone()).collect())
}

/// The names of the parts of the score.
fn parts(figures: &Figures) -> Vec<&str> {
    figures.by_part.keys().map(String::as_str).collect()
}

fn cells(figures: &Figures) -> Vec<Vec<String>> {
    let parts = parts(figures);
    let dash = || "–".to_owned();
    let mut rows: Vec<Vec<String>> = figures
        .classes
        .iter()
        .map(|class| {
            let published = class.published.map_or_else(dash, |auroc| format!("{auroc:.1}"));
            let mut row = vec![class.class.clone(), class.runs.to_string(), with_error(class.auroc), published];
            let part = |part: &&str| class.by_part.get(*part).map_or_else(dash, |mean| with_error(*mean));
            row.extend(parts.iter().map(part));
            row
        })
        .collect();
    let published = figures.published.as_ref().map_or_else(dash, |(_, mean)| format!("{mean:.1}"));
    let runs = figures.classes.iter().map(|class| class.runs).sum::<usize>().to_string();
    let mut mean = vec!["mean".to_owned(), runs, in_percent(figures.mean), published];
    mean.extend(parts.iter().map(|part| figures.by_part.get(*part).map_or_else(dash, |auroc| in_percent(*auroc))));
    rows.push(mean);
    rows
}

fn in_percent(auroc: f64) -> String {
    format!("{:.2}", 100.0 * auroc)
}

/// A mean with its standard error, in percent.
fn with_error(Mean { mean, sem }: Mean) -> String {
    sem.map_or_else(|| in_percent(mean), |sem| format!("{} ± {:.2}", in_percent(mean), 100.0 * sem))
}

/// The column headings.
fn heads(figures: &Figures) -> Vec<&str> {
    let mut heads = vec!["normal class", "runs", "AUROC", "published"];
    heads.extend(parts(figures));
    heads
}

/// The protocol in one line.
fn protocol_line(figures: &Figures) -> String {
    let Protocol { max_train, max_test, settings, .. } = &figures.protocol;
    let mut line = vec!["AUROC in percent, mean ± standard error over the seeds".to_owned()];
    line.extend(max_train.map(|max| format!("at most {} a class", counted(max, "training image"))));
    line.extend(max_test.map(|max| format!("at most {}", counted(max, "test image"))));
    line.extend(settings.iter().map(|(key, value)| format!("{key}={value}")));
    line.join("; ")
}

fn print(out: &mut impl Write, figures: &Figures) -> io::Result<()> {
    writeln!(
        out,
        "{HEADING}{}{HEADING:#}: {}, one class against all",
        figures.protocol.dataset, figures.protocol.method
    )?;
    writeln!(out, "{FAINT}{}{FAINT:#}", protocol_line(figures))?;
    if let Some((on, _)) = &figures.published {
        writeln!(out, "{FAINT}published: {on}{FAINT:#}")?;
    }
    writeln!(out)?;
    let heads = heads(figures);
    let columns: Vec<(&str, Align)> =
        heads.iter().enumerate().map(|(at, head)| (*head, if at == 0 { Align::Left } else { Align::Right })).collect();
    let mut table = Table::new(&columns);
    cells(figures).into_iter().for_each(|row| table.cells(row));
    table.print(out)
}

/// The same as a Markdown page.
fn markdown(figures: &Figures) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let heads: Vec<String> = heads(figures).into_iter().map(str::to_owned).collect();
    let rule: Vec<String> =
        heads.iter().enumerate().map(|(at, _)| if at == 0 { "---" } else { "---:" }.to_owned()).collect();
    let mut page = format!(
        "# {} on {}, one class against all\n\n{}.\n",
        figures.protocol.method,
        figures.protocol.dataset,
        protocol_line(figures)
    );
    if let Some((on, _)) = &figures.published {
        page.push_str(&format!("\nPublished: {on}.\n"));
    }
    page.push('\n');
    page.push_str(&line(&heads));
    page.push_str(&line(&rule));
    cells(figures).iter().for_each(|row| page.push_str(&line(row)));
    page
}
