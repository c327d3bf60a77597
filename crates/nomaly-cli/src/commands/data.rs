//! `nomaly data`: named data sets, listed and fetched.

use std::io::Write;

use nomaly::data::{Availability, DATASETS, DatasetEntry};
use nomaly::registry::Entry;
use nomaly::settings::Setting;
use serde_json::{Value, json};

use super::Status;
use crate::args::{DataCommand, Format};
use crate::console::Console;
use crate::output::style::{FAINT, HEADING};
use crate::output::{print_json, stdout};
use crate::progress::{Bars, Unit};

pub(crate) fn run(command: &DataCommand, console: &Console) -> anyhow::Result<Status> {
    match command {
        DataCommand::List { format } => list(*format),
        DataCommand::Get { name } => get(name, console),
    }
}

/// Prints every named data set with its terms, its options and its availability.
pub(crate) fn list(format: Format) -> anyhow::Result<Status> {
    if format == Format::Json {
        let entries = DATASETS.iter().map(as_json).collect::<anyhow::Result<Vec<Value>>>()?;
        print_json(&entries)?;
        return Ok(Status::Done);
    }
    let mut out = stdout();
    for entry in DATASETS.iter() {
        let here = state_name(&entry.state()?);
        writeln!(out, "{HEADING}{}{HEADING:#}  {}", entry.name(), entry.summary())?;
        writeln!(out, "    {FAINT}{here}; licence: {}{FAINT:#}", entry.licence()?)?;
        for option in &entry.options() {
            let Setting { name, values, summary, .. } = option;
            let default =
                if option.needed { " (needed)".to_owned() } else { format!(" [default: {}]", option.default) };
            writeln!(out, "    {name}=…  {summary}: {values}{default}")?;
        }
    }
    Ok(Status::Done)
}

fn state_name(state: &Availability) -> &'static str {
    match state {
        Availability::BuiltIn => "built in",
        Availability::Ready(_) => "fetched",
        Availability::Missing => "not fetched",
    }
}

fn as_json(entry: &DatasetEntry) -> anyhow::Result<Value> {
    let manifest = entry.manifest()?;
    let state = entry.state()?;
    let folder = match &state {
        Availability::Ready(path) => Some(path),
        Availability::BuiltIn | Availability::Missing => None,
    };
    let options: Vec<Value> = entry
        .options()
        .iter()
        .map(|option| {
            json!({
                "name": option.name,
                "values": option.values,
                "summary": option.summary,
                "choices": option.choices(),
                "default": (!option.needed).then_some(&option.default),
                "schema": option.schema,
            })
        })
        .collect();
    Ok(json!({
        "name": entry.name(),
        "summary": entry.summary(),
        "homepage": manifest.as_ref().map(|manifest| &manifest.homepage),
        "licence": entry.licence()?,
        "citation": manifest.as_ref().map(|manifest| &manifest.citation),
        "options": options,
        "state": state_name(&state),
        "folder": folder,
    }))
}

fn get(name: &str, console: &Console) -> anyhow::Result<Status> {
    if let Ok(entry) = DATASETS.get(name) {
        match entry.manifest()? {
            Some(manifest) => {
                console.note(format_args!("{name}: licence {}", manifest.licence));
                console.note(manifest.notice.trim());
            }
            None => {
                console.note(format_args!("{name} is built in: there is nothing to fetch"));
                return Ok(Status::Done);
            }
        }
    }
    let folder = nomaly::data::get(name, &Bars::new(console, Unit::Bytes))?;
    console.note(format_args!("{name} is in {}", folder.display()));
    Ok(Status::Done)
}
