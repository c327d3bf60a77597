//! `nomaly schema`: JSON Schemas of output records and of settings.

use nomaly::AUTO;
use nomaly::methods::METHODS;
use nomaly::params::InputParams;
use nomaly::registry::{Entry, UnknownName};
use nomaly::rows::RowParams;
use nomaly::scorers::SCORERS;
use nomaly::settings::SettingsTable;
use nomaly::wire::Record;
use serde_json::Value;

use super::Status;
use crate::args::{SchemaArgs, SchemaKind};
use crate::failure::Failure;
use crate::output::print_json;

pub(crate) fn run(args: &SchemaArgs) -> anyhow::Result<Status> {
    let record = match args.what {
        SchemaKind::Score => Record::Score,
        SchemaKind::Eval => Record::Eval,
        SchemaKind::Inspect => Record::Inspect,
        SchemaKind::Settings => {
            print_json(&settings(args.name.as_deref().unwrap_or_default())?)?;
            return Ok(Status::Done);
        }
    };
    if let Some(name) = &args.name {
        let message = format!("the records of {} have one schema, and `{name}` was given", record.name());
        return Err(Failure::new(message, "only `settings` takes a name").into());
    }
    print_json(&record.schema())?;
    Ok(Status::Done)
}

/// The name of the settings of models of rows.
const ROWS: &str = "rows";

/// The settings of a method with those of its input, of a scorer, or of models of rows.
fn settings(name: &str) -> anyhow::Result<Value> {
    if name == AUTO {
        let hint = "`nomaly schema settings patchcore` shows those of its first choice";
        return Err(Failure::new("`auto` has no settings of its own: it takes those of what it chooses", hint).into());
    }
    if name == ROWS {
        let mut schema = SettingsTable::of::<RowParams>().schema(name);
        allow_settings_of_scorer(&mut schema);
        return Ok(schema);
    }
    if let Ok(entry) = METHODS.get(name) {
        let input = SettingsTable::with_defaults::<InputParams>(&(entry.input)());
        let mut schema = SettingsTable::joined([&(entry.table)(), &input]).schema(name);
        if entry.more.is_some() {
            allow_settings_of_scorer(&mut schema);
        }
        return Ok(schema);
    }
    match SCORERS.get(name) {
        Ok(entry) => Ok(entry.schema()),
        Err(_) => {
            let known = METHODS.iter().map(Entry::name).chain(SCORERS.iter().map(Entry::name)).chain([ROWS]);
            Err(UnknownName::new("method or scorer", name, known).into())
        }
    }
}

/// The settings of the scorer named by `scorer` are settings too.
fn allow_settings_of_scorer(schema: &mut Value) {
    schema["additionalProperties"] = true.into();
    schema["x-more"] = "the settings of the scorer".into();
}
