//! Tables in Parquet that another library wrote (`fixtures/make_tables.py`).

#![cfg(feature = "parquet")]
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use std::path::{Path, PathBuf};

use tern_host::table::Table;
use tern_protocol::schema::{ColumnKind, Schema};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn parquet() -> Table {
    Table::open(&fixture("people.parquet")).unwrap()
}

fn schema(table: &Table) -> Schema {
    let others =
        ["born", "tags"].into_iter().filter(|name| table.names().contains(&(*name).into()));
    table.schema_of_all("class", &others.collect::<Vec<_>>()).unwrap()
}

#[test]
fn rows_are_those_of_the_same_table_as_text() {
    let csv = Table::open(&fixture("people.csv")).unwrap();
    let schema = schema(&csv);
    assert_eq!(schema, self::schema(&parquet()));
    let rows = parquet().read_all_by(&schema).unwrap();
    assert_eq!(rows, csv.read_all_by(&schema).unwrap());
    assert_eq!((rows.labels.len(), rows.width), (12, 13));
    // Nulls are missing values: nothing of a number, a category of their own.
    let (age, row) = (1, &rows.features[4 * rows.width..][..rows.width]);
    assert_eq!(row[age], 0.0);
    let jobs = schema.columns.iter().find(|column| column.name == "job").unwrap();
    let ColumnKind::Category { values } = &jobs.kind else { panic!("{jobs:?}") };
    assert_eq!(values, &["?", "baker", "müller", "smith", "so-called \"poet\", retired"]);
    assert_eq!(parquet().column("job").unwrap(), csv.column("job").unwrap());
    assert_eq!(parquet().lines().unwrap(), (1..=12).collect::<Vec<_>>());
    // Both in one table.
    let names = ["people.csv", "people.csv"].map(fixture);
    assert_eq!(Table::open_several(&names).unwrap().lines().unwrap().len(), 24);
    let names = ["people.parquet", "people.csv"].map(fixture);
    let error = Table::open_several(&names).unwrap_err().to_string();
    assert!(error.contains("people.csv: columns id, age") && error.contains("tags"), "{error}");
}

#[test]
fn files_are_read_however_they_are_compressed() {
    let csv = Table::open(&fixture("people.csv")).unwrap();
    let schema = schema(&csv);
    let rows = csv.read_all_by(&schema).unwrap();
    for name in ["people-lz4.parquet", "people-gzip.parquet", "people-polars.parquet"] {
        let table = Table::open(&fixture(name)).unwrap();
        assert_eq!(self::schema(&table), schema, "{name}");
        assert_eq!(table.read_all_by(&schema).unwrap(), rows, "{name}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let table = parquet();
    for (name, what) in [("tags", "nested"), ("born", "Date")] {
        let error = table.column(name).unwrap_err().to_string();
        let expected = format!("people.parquet: column `{name}` is {what}, expected numbers, text");
        assert!(error.contains(&expected), "{error}");
        let other = if name == "tags" { "born" } else { "tags" };
        assert!(table.schema_of_all("class", &[name]).unwrap_err().to_string().contains(other));
    }
    let error = table.plain("class").unwrap_err().to_string();
    assert!(error.contains("column `born` is Date"), "{error}");

    // Types are those of the schema, whoever wrote the file.
    let mut other = schema(&table);
    let jobs = other.columns.iter_mut().find(|column| column.name == "job").unwrap();
    jobs.kind = ColumnKind::Number { mean: 0.0, deviation: 1.0 };
    let error = table.read_all_by(&other).unwrap_err().to_string();
    assert!(error.ends_with("people.parquet: row 1: job is `baker`, expected a number"), "{error}");
    other.label.name = "kind".into();
    let error = table.read_all_by(&other).unwrap_err().to_string();
    assert!(error.contains("column is kind, expected one of id, age"), "{error}");
}

#[test]
fn damaged_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.parquet");
    let bytes = std::fs::read(fixture("people.parquet")).unwrap();
    for keep in [0, 4, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..keep]).unwrap();
        let error = Table::open(&path).unwrap_err().to_string();
        assert!(error.contains("t.parquet: no Parquet that can be read"), "{error}");
    }
    // Behind the first magic bytes are the pages.
    let mut broken = bytes;
    broken[4..400].fill(0xff);
    std::fs::write(&path, &broken).unwrap();
    let error = Table::open(&path).unwrap().column("age").unwrap_err().to_string();
    assert!(error.contains("t.parquet: "), "{error}");
}
