//! NumPy arrays, versions 1 to 3 of the format.
//!
//! The header is the text of a Python dictionary with exactly the keys `descr`, `fortran_order` and `shape`; it is
//! parsed and never evaluated. Objects (pickles), structures and complex numbers are refused.
//!
//! Reference: *A simple file format for NumPy arrays* (NEP 1), and `numpy/lib/format.py`.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::columns::{Columns, Role};
use super::{Builder, ReadOptions, Table};
use crate::DataError;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// The longest header; those of numeric arrays are about a hundred bytes long.
const MAX_HEADER: usize = 1 << 16;

/// The contents of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Header {
    kind: u8,
    /// Bytes of a number.
    size: usize,
    big_endian: bool,
    fortran_order: bool,
    shape: Vec<usize>,
}

/// Why a header is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    Damaged(String),
    /// A sound file with something that is not read here.
    Unsupported(String),
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Damaged(reason)
    }
}

pub(super) fn read(path: &Path, options: &ReadOptions) -> Result<Table, DataError> {
    let file = File::open(path).map_err(|error| DataError::io(path, error))?;
    let length = file.metadata().map_err(|error| DataError::io(path, error))?.len();
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let (header, start) = header(&mut reader).map_err(|fault| match fault {
        Fault::Damaged(reason) => DataError::damaged(path, reason),
        Fault::Unsupported(reason) => DataError::table(path, reason),
    })?;
    let [rows, columns] = header.shape[..] else {
        return Err(DataError::table(
            path,
            format!("the array has {} axes, and a table has two: rows and columns", header.shape.len()),
        ));
    };
    let expected = rows.checked_mul(columns).and_then(|cells| cells.checked_mul(header.size));
    let found = length.saturating_sub(start);
    if expected.and_then(|bytes| u64::try_from(bytes).ok()) != Some(found) {
        let reason = format!("{found} bytes of numbers, and {rows} x {columns} numbers of {} bytes", header.size);
        return Err(DataError::damaged(path, reason));
    }
    if found == 0 {
        // An axis of length 0 lets the other one have any length.
        return Err(DataError::Empty { path: path.to_owned(), wanted: "rows".to_owned() });
    }
    let mut builder = Builder::new(path, Columns::new(path, columns, None, options)?);
    builder.check_size(rows)?;
    builder.rows = rows;
    fill(&mut builder, &header, rows, columns, &mut reader).map_err(|error| DataError::io(path, error))?;
    builder.finish()
}

/// Reads the header; also returns the offset of the numbers.
fn header(reader: &mut impl Read) -> Result<(Header, u64), Fault> {
    let mut take = |count: usize| -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; count];
        reader.read_exact(&mut bytes).map_err(|_| "it ends within its header".to_owned())?;
        Ok(bytes)
    };
    let start = take(8)?;
    if &start[..6] != MAGIC {
        return Err(Fault::Damaged("it does not begin as a NumPy file does".to_owned()));
    }
    let (prefix, size) = match start[6] {
        1 => {
            let bytes = take(2)?;
            (10, usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
        }
        2 | 3 => {
            let bytes = take(4)?;
            (12, u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
        }
        other => return Err(Fault::Unsupported(format!("version {other} of the format is not known"))),
    };
    if size > MAX_HEADER {
        return Err(Fault::Damaged(format!("its header has {size} bytes")));
    }
    let text = String::from_utf8(take(size)?).map_err(|_| "its header is not text".to_owned())?;
    Ok((parse(&text)?, (prefix + size) as u64))
}

/// Reads the dictionary of a header.
fn parse(text: &str) -> Result<Header, Fault> {
    let wrong = || format!("its header cannot be read: {}", text.trim_end().chars().take(120).collect::<String>());
    let mut rest = text.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or_else(wrong)?.trim();
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    while !rest.is_empty() {
        let (key, value) = rest.split_once(':').ok_or_else(wrong)?;
        let value = value.trim_start();
        let end = match value.as_bytes().first() {
            Some(b'(') => value.find(')').ok_or_else(wrong)? + 1,
            Some(b'\'') => value[1..].find('\'').ok_or_else(wrong)? + 2,
            // The list of the fields of a structure.
            Some(b'[') => {
                return Err(Fault::Unsupported("its rows are structures: save a plain array of numbers".to_owned()));
            }
            _ => value.find(',').unwrap_or(value.len()),
        };
        let (value, after) = value.split_at(end);
        let slot = match key.trim().trim_matches('\'') {
            "descr" => &mut descr,
            "fortran_order" => &mut fortran_order,
            "shape" => &mut shape,
            _ => return Err(wrong().into()),
        };
        if slot.replace(value.trim()).is_some() {
            return Err(wrong().into());
        }
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if after.is_empty() => after,
            None => return Err(wrong().into()),
        };
    }
    let (Some(descr), Some(order), Some(shape)) = (descr, fortran_order, shape) else { return Err(wrong().into()) };
    let fortran_order = match order {
        "True" => true,
        "False" => false,
        _ => return Err(wrong().into()),
    };
    let shape = shape.strip_prefix('(').and_then(|shape| shape.strip_suffix(')')).ok_or_else(wrong)?;
    let axes = shape.split(',').map(str::trim).filter(|axis| !axis.is_empty());
    let shape = axes.map(|axis| axis.parse().map_err(|_| wrong())).collect::<Result<Vec<usize>, String>>()?;
    let descr = descr.trim_matches('\'');
    let known = ["f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"];
    let (order, kind) = descr.split_at_checked(1).ok_or_else(wrong)?;
    if !["<", ">", "|", "="].contains(&order) || !known.contains(&kind) {
        let reason = format!("its numbers are of type `{descr}`; f4, f8, integers and booleans can be read");
        return Err(Fault::Unsupported(reason));
    }
    let bytes = kind.as_bytes();
    Ok(Header { kind: bytes[0], size: usize::from(bytes[1] - b'0'), big_endian: order == ">", fortran_order, shape })
}

/// Reads the numbers, a row (or a column, in Fortran order) at a time.
fn fill(
    builder: &mut Builder<'_>,
    header: &Header,
    rows: usize,
    columns: usize,
    reader: &mut impl Read,
) -> std::io::Result<()> {
    let (lines, width) = if header.fortran_order { (columns, rows) } else { (rows, columns) };
    let features = builder.columns.features.len();
    builder.cells = vec![0.0; rows * features];
    // The feature index of each column of the file.
    let mut places = vec![0; columns];
    builder.columns.features.iter().enumerate().for_each(|(place, &column)| places[column] = place);
    let mut bytes = vec![0u8; width * header.size];
    for line in 0..lines {
        reader.read_exact(&mut bytes)?;
        for (at, bytes) in bytes.chunks_exact(header.size).enumerate() {
            let (row, column) = if header.fortran_order { (at, line) } else { (line, at) };
            let value = number(header, bytes);
            match builder.columns.roles[column] {
                Role::Feature => builder.cells[row * features + places[column]] = value as f32,
                Role::Label => builder.labels.push(value.to_string()),
                Role::Id => builder.ids.push(value.to_string()),
                Role::Group => builder.groups.push(value.to_string()),
                Role::Ignored => {}
            }
        }
    }
    Ok(())
}

fn number(header: &Header, bytes: &[u8]) -> f64 {
    let mut little = [0u8; 8];
    little[..bytes.len()].copy_from_slice(bytes);
    if header.big_endian {
        little[..bytes.len()].reverse();
    }
    let word = u64::from_le_bytes(little);
    // Sign-extends short integers by shifting up and back.
    let shift = 64 - 8 * bytes.len() as u32;
    match header.kind {
        b'f' if header.size == 4 => f64::from(f32::from_bits(word as u32)),
        b'f' => f64::from_bits(word),
        b'i' => (((word << shift) as i64) >> shift) as f64,
        b'b' => f64::from(u8::from(word != 0)),
        _ => word as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_strictly() {
        let header = parse("{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }      \n").unwrap();
        assert_eq!((header.kind, header.size, header.shape.as_slice()), (b'f', 8, &[3, 4][..]));
        assert!(parse("{'descr': '>i2', 'fortran_order': True, 'shape': (7,), }").unwrap().big_endian);
        for unsupported in [
            "{'descr': '|O', 'fortran_order': False, 'shape': (3, 4), }",
            "{'descr': '<c8', 'fortran_order': False, 'shape': (3, 4), }",
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }",
        ] {
            assert!(matches!(parse(unsupported), Err(Fault::Unsupported(_))), "{unsupported}");
        }
        for hostile in [
            "",
            "{}",
            "{'descr': '<f8', 'fortran_order': 1, 'shape': (3, 4), }",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (-3, 4), }",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999999, 4), }",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), 'x': 1}",
            "{'descr': '<f8', 'descr': '<f8', 'fortran_order': False, 'shape': (3, 4)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4",
        ] {
            assert!(matches!(parse(hostile), Err(Fault::Damaged(_))), "{hostile}");
        }
    }
}
