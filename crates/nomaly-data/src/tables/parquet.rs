//! Parquet files, as written by pandas, pyarrow and others.
//!
//! Flat columns of numbers and booleans are features; text can be a label or an identifier. The index that pandas
//! stores with the columns is ignored unless requested. Pages may be plain or compressed by Snappy or gzip.
//!
//! Reference: *Apache Parquet format*, <https://parquet.apache.org/docs/file-format/>.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parquet::basic::{Compression, ConvertedType, LogicalType};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::reader::{ChunkReader, FileReader, Length, RowGroupReader};
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::schema::types::ColumnDescriptor;

use super::columns::{Columns, Role};
use super::{Builder, ReadOptions, Table};
use crate::DataError;

/// Values that are decoded at a time, so that memory grows with the contents of the file, not with its claims.
const BATCH: usize = 8192;
/// The most bytes of a decompressed page; writers make pages of about 1 MiB.
const MAX_PAGE: u64 = 1 << 28;

/// Reads the table, one row group at a time.
pub(super) fn read(path: &Path, options: &ReadOptions) -> Result<Table, DataError> {
    let file = File::open(path).map_err(|error| DataError::io(path, error))?;
    // The decoder asserts relations that only damaged files violate.
    catch_unwind(AssertUnwindSafe(|| read_file(path, file, options)))
        .unwrap_or_else(|_| Err(DataError::damaged(path, "it breaks what its format promises")))
}

fn read_file(path: &Path, file: File, options: &ReadOptions) -> Result<Table, DataError> {
    let length = Length::len(&file);
    let refuse = |error: ParquetError| DataError::damaged(path, error.to_string());
    let reader = SerializedFileReader::new(Guarded(file)).map_err(refuse)?;
    let metadata = reader.metadata();
    let schema = metadata.file_metadata().schema_descr();
    let fields = schema.root_schema().get_fields();
    let names: Vec<String> = fields.iter().map(|field| field.name().to_owned()).collect();
    let columns = Columns::new(path, names.len(), Some(&names), &without_index(metadata, &names, options))?;
    // The leaf of each column that is read.
    let mut leaves = vec![None; names.len()];
    for leaf in 0..schema.num_columns() {
        leaves[schema.get_column_root_idx(leaf)] = Some(leaf);
    }
    for (column, field) in fields.iter().enumerate().filter(|(column, _)| columns.roles[*column] != Role::Ignored) {
        let name = field.name();
        let refuse = |what: &str| {
            let reason = format!("column `{name}` {what}; `--ignore {name}` leaves it out");
            DataError::table(path, reason)
        };
        let flat = field.is_primitive() && leaves[column].is_some_and(|leaf| schema.column(leaf).max_rep_level() == 0);
        if !flat {
            return Err(refuse("is nested, and a table has one number a cell"));
        }
        let what = leaves[column].map(|leaf| schema.column(leaf)).and_then(|leaf| not_numeric(&leaf));
        if let (Role::Feature, Some(what)) = (columns.roles[column], what) {
            return Err(refuse(what));
        }
    }
    let mut builder = Builder::new(path, columns);
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(refuse)?;
        let rows = usize::try_from(group.metadata().num_rows())
            .map_err(|_| DataError::damaged(path, "a row group has a negative number of rows"))?;
        builder.check_size(builder.rows.saturating_add(rows))?;
        read_group(&mut builder, &*group, &leaves, rows, length)?;
        builder.rows += rows;
    }
    builder.finish()
}

/// Appends the rows of one group.
fn read_group(
    builder: &mut Builder<'_>,
    group: &dyn RowGroupReader,
    leaves: &[Option<usize>],
    rows: usize,
    length: u64,
) -> Result<(), DataError> {
    let path = builder.path;
    let mut numbers = Vec::with_capacity(builder.columns.features.len());
    for (column, leaf) in leaves.iter().enumerate() {
        let (role, Some(leaf)) = (builder.columns.roles[column], *leaf) else { continue };
        let mut cells = Vec::new();
        let take = |value: Value<'_>| match role {
            Role::Feature => {
                cells.push(value.number()?);
                Ok(())
            }
            Role::Label => value.text().map(|text| builder.labels.push(text)),
            Role::Id => value.text().map(|text| builder.ids.push(text)),
            Role::Group => value.text().map(|text| builder.groups.push(text)),
            Role::Ignored => Ok(()),
        };
        if role == Role::Ignored {
            continue;
        }
        let name = group.metadata().schema_descr().column(leaf).name().to_owned();
        let refuse = |reason: String| DataError::damaged(path, format!("column `{name}`: {reason}"));
        let chunk = group.metadata().column(leaf);
        check_compression(chunk).map_err(|reason| DataError::table(path, format!("column `{name}`: {reason}")))?;
        check_chunk(chunk, length).map_err(refuse)?;
        read_column(group, leaf, rows, take).map_err(refuse)?;
        if role == Role::Feature {
            numbers.push(cells);
        }
    }
    builder.cells.reserve(numbers.len() * rows);
    for row in 0..rows {
        builder.cells.extend(numbers.iter().map(|cells| cells[row]));
    }
    Ok(())
}

/// Checks that a column chunk lies in the file.
fn check_chunk(chunk: &ColumnChunkMetaData, length: u64) -> Result<(), String> {
    let start = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
    let end = start.checked_add(chunk.compressed_size()).and_then(|end| u64::try_from(end).ok());
    if start < 0 || chunk.compressed_size() < 0 || end.is_none_or(|end| end > length) {
        return Err("it lies outside the file".to_owned());
    }
    Ok(())
}

/// Checks that a column chunk can be decompressed.
fn check_compression(chunk: &ColumnChunkMetaData) -> Result<(), String> {
    match chunk.compression() {
        Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::GZIP(_) => Ok(()),
        other => {
            let name = format!("{other:?}");
            let name = name.split('(').next().unwrap_or_default();
            Err(format!("compression {name} is not supported; write the file with Snappy, gzip or without compression"))
        }
    }
}

/// One cell.
enum Value<'a> {
    Missing,
    Number(f64),
    Integer(i128),
    Bool(bool),
    Bytes(&'a [u8]),
}

impl Value<'_> {
    fn number(&self) -> Result<f32, String> {
        Ok(match self {
            Self::Missing => f32::NAN,
            Self::Number(value) => *value as f32,
            Self::Integer(value) => *value as f32,
            Self::Bool(value) => f32::from(u8::from(*value)),
            Self::Bytes(_) => return Err("its cells are not numbers".to_owned()),
        })
    }

    /// The text of a label or an identifier; a missing cell gives empty text, as in CSV.
    fn text(&self) -> Result<String, String> {
        Ok(match self {
            Self::Missing => String::new(),
            Self::Number(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Bool(value) => value.to_string(),
            Self::Bytes(bytes) => String::from_utf8(bytes.to_vec()).map_err(|_| "it is not UTF-8".to_owned())?,
        })
    }
}

fn is_decimal(leaf: &ColumnDescriptor) -> bool {
    leaf.converted_type() == ConvertedType::DECIMAL || matches!(leaf.logical_type_ref(), Some(LogicalType::Decimal(_)))
}

/// Why a column cannot be a feature.
fn not_numeric(leaf: &ColumnDescriptor) -> Option<&'static str> {
    use parquet::basic::Type;
    const TIME: &str = "holds dates or times";
    let of_time = matches!(
        leaf.converted_type(),
        ConvertedType::DATE
            | ConvertedType::TIME_MILLIS
            | ConvertedType::TIME_MICROS
            | ConvertedType::TIMESTAMP_MILLIS
            | ConvertedType::TIMESTAMP_MICROS
            | ConvertedType::INTERVAL
    ) || matches!(
        leaf.logical_type_ref(),
        Some(LogicalType::Date | LogicalType::Time(_) | LogicalType::Timestamp(_))
    );
    match leaf.physical_type() {
        _ if is_decimal(leaf) => None,
        _ if of_time => Some(TIME),
        Type::INT96 => Some(TIME),
        Type::FIXED_LEN_BYTE_ARRAY if matches!(leaf.logical_type_ref(), Some(LogicalType::Float16)) => None,
        Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY => {
            Some("holds text or bytes, not numbers; `--label`, `--id` or `--group` says what it is")
        }
        _ => None,
    }
}

/// Decodes the cells of a column chunk in order.
fn read_column(
    group: &dyn RowGroupReader,
    leaf: usize,
    rows: usize,
    mut take: impl FnMut(Value<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let column = group.metadata().schema_descr().column(leaf);
    let pages = group.get_column_page_reader(leaf).map_err(|error| error.to_string())?;
    let optional = column.max_def_level() > 0;
    let unsigned = match column.logical_type_ref() {
        Some(LogicalType::Integer(integer)) => !integer.is_signed,
        _ => {
            use ConvertedType as C;
            matches!(column.converted_type(), C::UINT_8 | C::UINT_16 | C::UINT_32 | C::UINT_64)
        }
    };
    let scale = is_decimal(&column).then(|| 10f64.powi(column.type_scale()));
    let half = matches!(column.logical_type_ref(), Some(LogicalType::Float16));
    let integer = |value: i128| match scale {
        Some(scale) => Value::Number(value as f64 / scale),
        None => Value::Integer(value),
    };
    match get_column_reader(column, pages) {
        ColumnReader::BoolColumnReader(reader) => {
            walk(reader, rows, optional, |value| take(value.map_or(Value::Missing, |value| Value::Bool(*value))))
        }
        ColumnReader::Int32ColumnReader(reader) => walk(reader, rows, optional, |value| {
            let wide = |value: i32| if unsigned { i128::from(value as u32) } else { i128::from(value) };
            take(value.map_or(Value::Missing, |value| integer(wide(*value))))
        }),
        ColumnReader::Int64ColumnReader(reader) => walk(reader, rows, optional, |value| {
            let wide = |value: i64| if unsigned { i128::from(value as u64) } else { i128::from(value) };
            take(value.map_or(Value::Missing, |value| integer(wide(*value))))
        }),
        ColumnReader::FloatColumnReader(reader) => walk(reader, rows, optional, |value| {
            take(value.map_or(Value::Missing, |value| Value::Number(f64::from(*value))))
        }),
        ColumnReader::DoubleColumnReader(reader) => {
            walk(reader, rows, optional, |value| take(value.map_or(Value::Missing, |value| Value::Number(*value))))
        }
        ColumnReader::Int96ColumnReader(_) => Err("times of 96 bits cannot be read".to_owned()),
        ColumnReader::ByteArrayColumnReader(reader) => {
            walk(reader, rows, optional, |value| take(of_bytes(value.map(ByteArray::data), scale, half)?))
        }
        ColumnReader::FixedLenByteArrayColumnReader(reader) => {
            walk(reader, rows, optional, |value| take(of_bytes(value.map(|value| value.data()), scale, half)?))
        }
    }
}

/// Interprets bytes: a decimal number (big-endian, in units of `1 / scale`), a half-precision number, or text.
fn of_bytes(bytes: Option<&[u8]>, scale: Option<f64>, half: bool) -> Result<Value<'_>, String> {
    let Some(bytes) = bytes else { return Ok(Value::Missing) };
    if let Some(scale) = scale {
        if bytes.is_empty() || bytes.len() > 16 {
            return Err(format!("decimal numbers of {} bytes cannot be read", bytes.len()));
        }
        let sign = if bytes[0] & 0x80 == 0 { 0i128 } else { -1 };
        let unscaled = bytes.iter().fold(sign, |value, byte| (value << 8) | i128::from(*byte));
        return Ok(Value::Number(unscaled as f64 / scale));
    }
    match bytes {
        [low, high] if half => Ok(Value::Number(half::f16::from_le_bytes([*low, *high]).to_f64())),
        bytes => Ok(Value::Bytes(bytes)),
    }
}

/// Passes `rows` values to `take`, `None` for missing ones.
fn walk<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    rows: usize,
    optional: bool,
    mut take: impl FnMut(Option<&T::T>) -> Result<(), String>,
) -> Result<(), String> {
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let mut done = 0;
    while done < rows {
        levels.clear();
        values.clear();
        let asked = if optional { Some(&mut levels) } else { None };
        let (records, found, _) = reader
            .read_records(BATCH.min(rows - done), asked, None, &mut values)
            .map_err(|error: ParquetError| error.to_string())?;
        let expected = if optional { levels.iter().filter(|level| **level > 0).count() } else { records };
        if records == 0 || found != expected || values.len() != found || (optional && levels.len() != records) {
            return Err(format!("it has fewer than {rows} rows"));
        }
        if optional {
            let mut values = values.iter();
            levels.iter().try_for_each(|level| take(if *level > 0 { values.next() } else { None }))?;
        } else {
            values.iter().try_for_each(|value| take(Some(value)))?;
        }
        done += records;
    }
    Ok(())
}

/// The options with pandas' index columns ignored, except those requested by name.
fn without_index(metadata: &ParquetMetaData, names: &[String], options: &ReadOptions) -> ReadOptions {
    let mut options = options.clone();
    let entries = metadata.file_metadata().key_value_metadata().map_or(&[][..], |entries| entries);
    let pandas = entries.iter().find(|entry| entry.key == "pandas").and_then(|entry| entry.value.as_deref());
    let pandas: Option<serde_json::Value> = pandas.and_then(|text| serde_json::from_str(text).ok());
    let index = pandas.as_ref().and_then(|pandas| pandas.get("index_columns")).and_then(serde_json::Value::as_array);
    // A range index is an object in place of a name, and has no column.
    for name in index.into_iter().flatten().filter_map(serde_json::Value::as_str) {
        let asked =
            [&options.label, &options.id, &options.group].into_iter().any(|asked| asked.as_deref() == Some(name));
        if !asked && names.iter().any(|known| known == name) {
            options.ignore.push(name.to_owned());
        }
    }
    options
}

/// A file that rejects page headers with more bytes than [`MAX_PAGE`], which the decoder would allocate before reading
/// the page.
struct Guarded(File);

impl Length for Guarded {
    fn len(&self) -> u64 {
        Length::len(&self.0)
    }
}

impl ChunkReader for Guarded {
    type T = BufReader<File>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let mut file = self.0.try_clone()?;
        file.seek(SeekFrom::Start(start))?;
        let mut begin = Vec::new();
        file.by_ref().take(32).read_to_end(&mut begin)?;
        if page_size(&begin).is_some_and(|size| size > MAX_PAGE) {
            return Err(ParquetError::General(format!("a page has more than {MAX_PAGE} bytes")));
        }
        file.seek(SeekFrom::Start(start))?;
        Ok(BufReader::new(file))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<bytes::Bytes, ParquetError> {
        // Checked against the file's length before any allocation.
        let end = start.checked_add(length as u64).filter(|end| *end <= Length::len(&self.0));
        if end.is_none() {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} lie outside the file")));
        }
        self.0.get_bytes(start, length)
    }
}

/// The uncompressed size in the header of a page: its second field, in Thrift's compact protocol. `None` if the bytes
/// are not a header.
fn page_size(bytes: &[u8]) -> Option<u64> {
    /// The header of an `i32` field with the next id.
    const NEXT_I32: u8 = 0x15;
    let mut rest = bytes;
    let mut field = || {
        let (first, after) = rest.split_first()?;
        let end = after.iter().position(|byte| byte & 0x80 == 0).filter(|end| *first == NEXT_I32 && *end < 9)?;
        rest = &after[end + 1..];
        Some(after[..=end].iter().rev().fold(0u64, |value, byte| (value << 7) | u64::from(byte & 0x7f)))
    };
    field()?;
    // Zigzag: the lowest bit is the sign.
    field().map(|value| value >> 1)
}
