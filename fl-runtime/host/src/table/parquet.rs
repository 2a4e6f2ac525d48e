//! Parquet files, a row at a time, as the texts that comma-separated values would have.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use tern_protocol::{Error, Result};

use super::source::Source;
use crate::csv::{BadLine, Header, Line, Record};

/// The names of a file's columns, and those whose values can't be read, with what they are.
pub(super) fn header(path: &Path) -> Result<(Header, Vec<(String, String)>)> {
    let reader = open(path)?;
    let columns = reader.metadata().file_metadata().schema().get_fields();
    let names = columns.iter().map(|column| column.name().to_owned()).collect();
    let record = Record { line: 1, fields: names };
    let header = Header::read(Some(Ok(record))).map_err(|bad| Error::file(path, bad.reason))?;
    let unreadable: Vec<(String, String)> = columns
        .iter()
        .zip(header.names())
        .filter_map(|(column, name)| Some((name.clone(), unreadable(column)?)))
        .collect();
    match unreadable.len() == columns.len() {
        true => Err(Error::file(path, "no column of numbers, text, or true and false")),
        false => Ok((header, unreadable)),
    }
}

fn open(path: &Path) -> Result<SerializedFileReader<File>> {
    let file = File::open(path).map_err(|error| Error::file(path, error))?;
    SerializedFileReader::new(file).map_err(|error| damaged(path, &error))
}

fn damaged(path: &Path, error: &ParquetError) -> Error {
    Error::file(path, format!("no Parquet that can be read: {error}"))
}

/// What a column is, unless it is numbers, text, or true and false.
fn unreadable(column: &Type) -> Option<String> {
    let info = column.get_basic_info();
    if !column.is_primitive() || info.has_repetition() && info.repetition() == Repetition::REPEATED
    {
        return Some("nested".into());
    }
    let (physical, converted) = (column.get_physical_type(), info.converted_type());
    let readable = match (physical, info.logical_type_ref()) {
        (Physical::BOOLEAN | Physical::FLOAT | Physical::DOUBLE, None) => true,
        (Physical::INT32 | Physical::INT64, Some(LogicalType::Integer { .. })) => true,
        (Physical::INT32 | Physical::INT64, None) => matches!(
            converted,
            ConvertedType::NONE
                | ConvertedType::INT_8
                | ConvertedType::INT_16
                | ConvertedType::INT_32
                | ConvertedType::INT_64
                | ConvertedType::UINT_8
                | ConvertedType::UINT_16
                | ConvertedType::UINT_32
                | ConvertedType::UINT_64
        ),
        (Physical::BYTE_ARRAY, Some(LogicalType::String | LogicalType::Enum)) => true,
        (Physical::BYTE_ARRAY, None) => {
            matches!(converted, ConvertedType::UTF8 | ConvertedType::ENUM)
        }
        (Physical::FIXED_LEN_BYTE_ARRAY, Some(LogicalType::Float16)) => true,
        _ => false,
    };
    (!readable).then(|| match (info.logical_type_ref(), converted) {
        (Some(logical), _) => format!("{logical:?}"),
        (None, ConvertedType::NONE) => physical.to_string(),
        (None, converted) => converted.to_string(),
    })
}

/// The rows of a file; columns that can't be read are empty in them.
pub(super) struct Rows {
    path: std::path::PathBuf,
    rows: RowIter<'static>,
    /// The place of each column that is read, and the number of all.
    places: Vec<usize>,
    columns: usize,
    read: usize,
}

impl Rows {
    pub(super) fn open(file: &Source) -> Result<Self> {
        let failed = |error: ParquetError| damaged(&file.path, &error);
        let reader = open(&file.path)?;
        let root = reader.metadata().file_metadata().schema();
        let columns = root.get_fields();
        let is_read = |at: &usize| unreadable(&columns[*at]).is_none();
        let places: Vec<usize> = (0..columns.len()).filter(is_read).collect();
        // Nothing else is decoded: of what can't be read, the library doesn't take all either.
        let read = places.iter().map(|at| Arc::clone(&columns[*at])).collect();
        let columns = columns.len();
        let builder = Type::group_type_builder(root.name()).with_fields(read);
        let projection = builder.build().map_err(failed)?;
        let rows = RowIter::from_file_into(Box::new(reader));
        let rows = rows.project(Some(projection)).map_err(failed)?;
        Ok(Rows { path: file.path.clone(), rows, places, columns, read: 0 })
    }

    /// The next one, `None` at the end. Rows are numbered from 1.
    pub(super) fn read(&mut self) -> Result<Option<Line>> {
        let Some(row) = self.rows.next() else { return Ok(None) };
        self.read += 1;
        let row: Row = row.map_err(|error| {
            Error::file(&self.path, format!("row {}: no Parquet: {error}", self.read))
        })?;
        let mut fields = vec![String::new(); self.columns];
        for (at, (_, value)) in self.places.iter().zip(row.get_column_iter()) {
            match text(value) {
                Some(text) => fields[*at] = text,
                None => {
                    let reason = "not UTF-8".into();
                    return Ok(Some(Err(BadLine { line: self.read, reason, fields })));
                }
            }
        }
        Ok(Some(Ok(Record { line: self.read, fields })))
    }
}

/// A value as it would be written among comma-separated ones, nothing for one that is missing;
/// `None` for one that isn't UTF-8.
fn text(value: &Field) -> Option<String> {
    Some(match value {
        Field::Bool(value) => value.to_string(),
        Field::Byte(value) => value.to_string(),
        Field::Short(value) => value.to_string(),
        Field::Int(value) => value.to_string(),
        Field::Long(value) => value.to_string(),
        Field::UByte(value) => value.to_string(),
        Field::UShort(value) => value.to_string(),
        Field::UInt(value) => value.to_string(),
        Field::ULong(value) => value.to_string(),
        Field::Float16(value) => value.to_f32().to_string(),
        Field::Float(value) => value.to_string(),
        Field::Double(value) => value.to_string(),
        Field::Str(value) => value.clone(),
        Field::Bytes(value) => std::str::from_utf8(value.data()).ok()?.to_owned(),
        _ => String::new(),
    })
}
