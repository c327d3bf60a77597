//! `nomaly weights`: the weights of backbones, listed, fetched and imported.

use std::path::Path;

use nomaly::backbones::cache::{self, Listed, WeightsState};
use nomaly::backbones::weights;
use serde_json::{Value, json};

use super::Status;
use crate::args::{Format, WeightsCommand};
use crate::console::Console;
use crate::output::{Align, Table, print_json, stdout};
use crate::progress::{Bars, Unit};

pub(crate) fn run(command: &WeightsCommand, console: &Console) -> anyhow::Result<Status> {
    match command {
        WeightsCommand::List { format } => list(*format)?,
        WeightsCommand::Get { name } => get(name, console)?,
        WeightsCommand::Import { file, name } => import(file, name.as_deref(), console)?,
    }
    Ok(Status::Done)
}

fn list(format: Format) -> anyhow::Result<()> {
    let listed = cache::list()?;
    if format == Format::Json {
        return print_json(&listed.iter().map(as_json).collect::<Vec<_>>());
    }
    let left = Align::Left;
    let mut table = Table::new(&[("backbone", left), ("state", left), ("licence", left), ("weights", left)]);
    for Listed { manifest, state } in &listed {
        table.row([
            manifest.name.clone(),
            state_name(state).to_owned(),
            manifest.licence.clone(),
            manifest.description.clone(),
        ]);
    }
    Ok(table.print(&mut stdout())?)
}

fn as_json(Listed { manifest, state }: &Listed) -> Value {
    let file = match state {
        WeightsState::Cached(path) => Some(path),
        WeightsState::Embedded | WeightsState::Available => None,
    };
    json!({
        "name": manifest.name,
        "state": state_name(state),
        "file": file,
        "licence": manifest.licence,
        "description": manifest.description,
    })
}

fn state_name(state: &WeightsState) -> &'static str {
    match state {
        WeightsState::Embedded => "embedded",
        WeightsState::Cached(_) => "cached",
        WeightsState::Available => "available",
    }
}

fn get(name: &str, console: &Console) -> anyhow::Result<()> {
    let manifest = weights::manifest(name)?;
    console.note(format_args!("{name}: {}; licence {}", manifest.description, manifest.licence));
    let path = cache::get(name, &Bars::new(console, Unit::Bytes))?;
    console.note(format_args!("{name} is in {}", path.display()));
    Ok(())
}

fn import(file: &Path, name: Option<&str>, console: &Console) -> anyhow::Result<()> {
    let path = cache::import(file, name)?;
    console.note(format_args!("imported {} as {}", file.display(), path.display()));
    Ok(())
}
