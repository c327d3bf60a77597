//! `nomaly list`: the contents of the registries.

use std::io::Write;

use nomaly::backbones::tap_infos;
use nomaly::backbones::{BACKBONES, BackboneEntry};
use nomaly::calibration::FEW_GROUPS;
use nomaly::methods::{Cost, METHODS, MethodEntry, Published};
use nomaly::metrics::{Better, METRICS, MetricEntry};
use nomaly::params::InputParams;
use nomaly::registry::Entry;
use nomaly::scorers::{SCORERS, ScorerEntry};
use nomaly::settings::{Setting, SettingsTable as Settings};
use nomaly::transforms::{TRANSFORMS, TransformEntry};
use serde_json::{Value, json};

use super::{Status, data};
use crate::args::{DEFAULT_METHOD, Format, ListArgs, ListKind};
use crate::output::style::{FAINT, HEADING};
use crate::output::{Align, Table, print_json, stdout};

pub(crate) fn run(args: &ListArgs) -> anyhow::Result<Status> {
    match (args.kind, args.format) {
        (ListKind::Datasets, format) => return data::list(format),
        (ListKind::Methods, Format::Table) => methods()?,
        (ListKind::Methods, Format::Json) => print_json(&METHODS.iter().map(method_json).collect::<Vec<_>>())?,
        (ListKind::Backbones, Format::Table) => backbones()?,
        (ListKind::Backbones, Format::Json) => print_json(&BACKBONES.iter().map(backbone_json).collect::<Vec<_>>())?,
        (ListKind::Scorers, Format::Table) => scorers()?,
        (ListKind::Scorers, Format::Json) => print_json(&SCORERS.iter().map(scorer_json).collect::<Vec<_>>())?,
        (ListKind::Transforms, Format::Table) => transforms()?,
        (ListKind::Transforms, Format::Json) => print_json(&TRANSFORMS.iter().map(transform_json).collect::<Vec<_>>())?,
        (ListKind::Metrics, Format::Table) => metrics()?,
        (ListKind::Metrics, Format::Json) => print_json(&METRICS.iter().map(metric_json).collect::<Vec<_>>())?,
    }
    Ok(Status::Done)
}

fn methods() -> anyhow::Result<()> {
    let mut out = stdout();
    writeln!(
        out,
        "{HEADING}{DEFAULT_METHOD}{HEADING:#} (the default)  patchcore at two sizes, the images' aspect ratio kept; \
         at one size below {FEW_GROUPS} groups of good images (--group-by folder)"
    )?;
    writeln!(out, "    --time-budget SECONDS lets it choose what fits in that time on this machine")?;
    writeln!(out)?;
    for entry in METHODS.iter() {
        writeln!(out, "{HEADING}{}{HEADING:#}  {}", entry.name, entry.summary)?;
        writeln!(out, "    {FAINT}{}{FAINT:#}", entry.paper)?;
        let maps = if entry.maps { "gives anomaly maps" } else { "scores whole images" };
        writeln!(out, "    {maps}; needs at least {} images", entry.min_images)?;
        let Cost { fit, predict, memory } = entry.cost;
        writeln!(out, "    cost to fit: {fit}; to score: {predict}; memory: {memory}")?;
        for published in entry.published {
            writeln!(out, "    published: {} on {}", published_figures(published), published.on)?;
        }
        settings(&mut out, &(entry.table)())?;
        writeln!(out)?;
    }
    writeln!(out, "{HEADING}with every method{HEADING:#}")?;
    settings(&mut out, &Settings::of::<InputParams>())?;
    Ok(())
}

/// The figures of a paper in words.
fn published_figures(published: &Published) -> String {
    [(Some(published.image_auroc), "image AUROC"), (published.pixel_auroc, "pixel AUROC"), (published.aupro, "AUPRO")]
        .into_iter()
        .filter_map(|(value, name)| Some(format!("{:.1} % {name}", value?)))
        .collect::<Vec<_>>()
        .join(", ")
}

fn settings(out: &mut impl Write, table: &Settings) -> std::io::Result<()> {
    for setting in table {
        let Setting { name, default, values, summary, .. } = setting;
        writeln!(out, "    --set {HEADING}{name}{HEADING:#}=…  {summary}: {values} [default: {default}]")?;
    }
    Ok(())
}

fn settings_json(table: &Settings) -> Vec<Value> {
    table
        .iter()
        .map(|setting| {
            json!({
                "name": setting.name,
                "default": setting.default,
                "values": setting.values,
                "summary": setting.summary,
                "schema": setting.schema,
            })
        })
        .collect()
}

fn method_json(entry: &MethodEntry) -> Value {
    let published: Vec<Value> = entry
        .published
        .iter()
        .map(|published| {
            json!({
                "on": published.on,
                "image_auroc_percent": published.image_auroc,
                "pixel_auroc_percent": published.pixel_auroc,
                "aupro_percent": published.aupro,
            })
        })
        .collect();
    let all = Settings::joined([&(entry.table)(), &Settings::with_defaults(&(entry.input)())]);
    json!({
        "name": entry.name,
        "summary": entry.summary,
        "paper": entry.paper,
        "maps": entry.maps,
        "min_images": entry.min_images,
        "cost": { "fit": entry.cost.fit, "predict": entry.cost.predict, "memory": entry.cost.memory },
        "parameters": settings_json(&all),
        "published": published,
    })
}

fn backbones() -> anyhow::Result<()> {
    let mut table = Table::new(&[
        ("name", Align::Left),
        ("family", Align::Left),
        ("parameters", Align::Right),
        ("input", Align::Right),
        ("licence", Align::Left),
        ("weights", Align::Left),
    ]);
    for entry in BACKBONES.iter() {
        let brought = entry.publisher.map(|publisher| format!("a file of {publisher}"));
        let (licence, origin) = match (entry.weights, &brought) {
            (Some(weights), _) => (weights.licence, weights.origin),
            (None, Some(brought)) => ("–", brought.as_str()),
            (None, None) => ("–", "none published"),
        };
        let embedded = if entry.is_embedded() { "embedded: " } else { "" };
        table.row([
            entry.name.to_owned(),
            entry.family().to_owned(),
            format!("{:.1} M", entry.parameter_count() as f64 / 1e6),
            entry.preprocessing.input_size.to_string(),
            licence.to_owned(),
            format!("{embedded}{origin}"),
        ]);
    }
    Ok(table.print(&mut stdout())?)
}

fn backbone_json(entry: &BackboneEntry) -> Value {
    let taps: Vec<Value> =
        tap_infos(&entry.graph()).map(|tap| json!({ "name": tap.name, "channels": tap.channels })).collect();
    let preprocessing = &entry.preprocessing;
    json!({
        "name": entry.name,
        "summary": entry.summary,
        "family": entry.family(),
        "parameters": entry.parameter_count(),
        "input_size": preprocessing.input_size,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "filter": preprocessing.filter.as_str(),
        "embedded": entry.is_embedded(),
        "weights": entry.weights.map(|weights| json!({ "origin": weights.origin, "licence": weights.licence })),
        "taps": taps,
    })
}

fn scorers() -> anyhow::Result<()> {
    let mut out = stdout();
    for entry in SCORERS.iter() {
        writeln!(out, "{HEADING}{}{HEADING:#}  {}", entry.name, entry.summary)?;
        for setting in &entry.table() {
            let Setting { name, default, values, summary, .. } = setting;
            writeln!(out, "    {name}=…  {summary}: {values} [default: {default}]")?;
        }
    }
    Ok(())
}

fn scorer_json(entry: &ScorerEntry) -> Value {
    json!({ "name": entry.name, "summary": entry.summary, "parameters": settings_json(&entry.table()) })
}

fn transforms() -> anyhow::Result<()> {
    let left = Align::Left;
    let mut table = Table::new(&[("name", left), ("group", left), ("summary", left), ("parameters", left)]);
    for entry in TRANSFORMS.iter() {
        let TransformEntry { name, summary, group, parameters } = entry;
        table.row([(*name).to_owned(), group.to_string(), (*summary).to_owned(), (*parameters).to_owned()]);
    }
    Ok(table.print(&mut stdout())?)
}

fn transform_json(entry: &TransformEntry) -> Value {
    json!({
        "name": entry.name,
        "group": entry.group.to_string(),
        "summary": entry.summary,
        "parameters": entry.parameters,
    })
}

fn metrics() -> anyhow::Result<()> {
    let mut table =
        Table::new(&[("name", Align::Left), ("of", Align::Left), ("better", Align::Left), ("summary", Align::Left)]);
    for entry in METRICS.iter() {
        table.row([
            entry.name().to_owned(),
            entry.level().to_owned(),
            better(entry).to_owned(),
            entry.summary().to_owned(),
        ]);
    }
    Ok(table.print(&mut stdout())?)
}

fn metric_json(entry: &MetricEntry) -> Value {
    json!({ "name": entry.name(), "of": entry.level(), "better": better(entry), "summary": entry.summary() })
}

fn better(entry: &MetricEntry) -> &'static str {
    match entry.better {
        Better::Higher => "higher",
        Better::Lower => "lower",
    }
}
