//! Text with separators (RFC 4180).

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder};

use super::columns::{Columns, Role};
use super::{Builder, ReadOptions, Table};
use crate::DataError;

/// Bytes at the start of a file that are searched for the separator.
const SNIFFED: u64 = 1 << 16;
const SEPARATORS: [u8; 3] = *b",;\t";
/// Markers of a missing cell, besides the empty text.
const MISSING: [&str; 6] = ["NA", "N/A", "NULL", "null", "None", "?"];

/// Reads the table, one record at a time.
pub(super) fn read(path: &Path, options: &ReadOptions) -> Result<Table, DataError> {
    let mut file = File::open(path).map_err(|error| DataError::io(path, error))?;
    let delimiter = separator(&mut file).map_err(|error| DataError::io(path, error))?;
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .trim(csv::Trim::All)
        .from_reader(BufReader::with_capacity(1 << 18, file));
    let mut record = ByteRecord::new();
    if !next(path, &mut reader, &mut record)? {
        return Err(DataError::Empty { path: path.to_owned(), wanted: "rows".to_owned() });
    }
    let first: Vec<String> = (0..record.len()).map(|column| text(path, &record, column)).collect::<Result<_, _>>()?;
    // A header line has a field that the options name, or one that is neither a number nor missing; labels and
    // identifiers do not count, because they may be text in any row.
    let columns = Columns::new(path, first.len(), Some(&first), options);
    let asked = |field: &String| {
        let roles = options.label.iter().chain(&options.id).chain(&options.group).chain(&options.ignore);
        number(field).is_none() && roles.into_iter().any(|name| name == field)
    };
    let named = first.iter().any(asked)
        || first.iter().enumerate().any(|(column, field)| {
            let of_rows = |columns: &Columns| columns.roles[column] == Role::Feature;
            number(field).is_none() && columns.as_ref().map_or(true, of_rows)
        });
    let mut builder = if named {
        Builder::new(path, columns?)
    } else {
        let mut builder = Builder::new(path, Columns::new(path, first.len(), None, options)?);
        push(&mut builder, &record)?;
        builder
    };
    while next(path, &mut reader, &mut record)? {
        push(&mut builder, &record)?;
    }
    builder.finish()
}

/// The most frequent separator in the first line, outside quotes. Rewinds the file.
fn separator(file: &mut File) -> std::io::Result<u8> {
    let mut start = Vec::new();
    file.by_ref().take(SNIFFED).read_to_end(&mut start)?;
    file.rewind()?;
    let mut counts = [0usize; SEPARATORS.len()];
    let mut quoted = false;
    for byte in start {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' if !quoted => break,
            _ if quoted => {}
            byte => {
                let known = SEPARATORS.iter().zip(&mut counts).filter(|(separator, _)| **separator == byte);
                known.for_each(|(_, count)| *count += 1);
            }
        }
    }
    // Ties go to the first.
    let best = (0..SEPARATORS.len()).rev().max_by_key(|&at| counts[at]).unwrap_or(0);
    Ok(SEPARATORS[best])
}

fn next<R: Read>(path: &Path, reader: &mut csv::Reader<R>, record: &mut ByteRecord) -> Result<bool, DataError> {
    reader.read_byte_record(record).map_err(|error| {
        let line = error.position().map_or(0, csv::Position::line);
        match error.into_kind() {
            csv::ErrorKind::Io(error) => DataError::io(path, error),
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                DataError::table(path, format!("line {line} has {len} fields, and the first line has {expected_len}"))
            }
            other => DataError::table(path, format!("line {line}: {other:?}")),
        }
    })
}

fn text(path: &Path, record: &ByteRecord, column: usize) -> Result<String, DataError> {
    let line = record.position().map_or(0, csv::Position::line);
    let bytes = &record[column];
    let text = std::str::from_utf8(bytes)
        .map_err(|_| DataError::table(path, format!("line {line}, column {}: not UTF-8", column + 1)))?;
    Ok(text.to_owned())
}

/// The number of a field, NaN for a missing one, `None` for text.
fn number(field: &str) -> Option<f32> {
    if field.is_empty() || MISSING.contains(&field) { Some(f32::NAN) } else { field.parse().ok() }
}

fn push(builder: &mut Builder<'_>, record: &ByteRecord) -> Result<(), DataError> {
    for column in 0..record.len() {
        match builder.columns.roles[column] {
            Role::Ignored => {}
            Role::Label => builder.labels.push(text(builder.path, record, column)?),
            Role::Id => builder.ids.push(text(builder.path, record, column)?),
            Role::Group => builder.groups.push(text(builder.path, record, column)?),
            Role::Feature => {
                let found = std::str::from_utf8(&record[column]).ok().and_then(number);
                builder.cells.push(found.ok_or_else(|| not_a_number(builder, record, column))?);
            }
        }
    }
    builder.rows += 1;
    builder.check_size(builder.rows)
}

fn not_a_number(builder: &Builder<'_>, record: &ByteRecord, column: usize) -> DataError {
    let feature = builder.columns.features.iter().position(|&place| place == column);
    let name = match (&builder.columns.names, feature) {
        (Some(names), Some(feature)) => names[feature].clone(),
        _ => (column + 1).to_string(),
    };
    let line = record.position().map_or(0, csv::Position::line);
    let text: String = String::from_utf8_lossy(&record[column]).chars().take(40).collect();
    if number(&text.replacen(',', ".", 1)).is_some() {
        let reason = format!("line {line}, column `{name}`: `{text}` has a decimal comma; write it with a point");
        return DataError::table(builder.path, reason);
    }
    DataError::Cell { path: builder.path.to_owned(), line, column: name, text }
}
