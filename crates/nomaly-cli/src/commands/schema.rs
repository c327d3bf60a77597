//! `nomaly schema`: JSON Schemas of output records and of settings.

use nomaly::methods::METHODS;
use nomaly::params::InputParams;
use nomaly::registry::{Entry, UnknownName};
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

/// The settings of a method with those of its input, or of a scorer.
fn settings(name: &str) -> anyhow::Result<Value> {
    if let Ok(entry) = METHODS.get(name) {
        let input = SettingsTable::with_defaults::<InputParams>(&(entry.input)());
        let mut schema = SettingsTable::joined([&(entry.table)(), &input]).schema(name);
        // The settings of the scorer named by `scorer` also belong to the method.
        if entry.more.is_some() {
            schema["additionalProperties"] = true.into();
            schema["x-more"] = "the settings of the scorer".into();
        }
        return Ok(schema);
    }
    match SCORERS.get(name) {
        Ok(entry) => Ok(entry.schema()),
        Err(_) => {
            let known = METHODS.iter().map(Entry::name).chain(SCORERS.iter().map(Entry::name));
            Err(UnknownName::new("method or scorer", name, known).into())
        }
    }
}
