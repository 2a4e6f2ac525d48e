//! Tables as features and classes: comma-separated values, plain or gzip, and Parquet with the
//! feature `parquet`.
//!
//! Files are read as often as they are asked something, a row at a time: memory holds what is made
//! of them.
//!
//! ```
//! use tern_host::table::Table;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("people.csv");
//! std::fs::write(&path, "age,job,class\n1,baker,no\n3,smith,yes\n")?;
//! let table = Table::open(&path)?;
//! let schema = table.schema_of_all("class", &[])?;
//! let rows = table.read_all_by(&schema)?;
//! assert_eq!((rows.width, rows.labels.as_slice()), (3, &[0, 1][..]));
//! assert_eq!(rows.features, [-1.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
//! # Ok(())
//! # }
//! ```

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tern_protocol::schema::{Kinds, Label, LabelFit, Schema};
use tern_protocol::{Error, Result};

use crate::csv::{BadLine, Record};

mod lines;
#[cfg(feature = "parquet")]
mod parquet;
mod source;

pub use lines::Lines;
use source::Source;

/// Rows of numbers with a class each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// Features, `[rows, width]`.
    pub features: Vec<f32>,
    /// Numbers a row.
    pub width: usize,
    /// Classes, `[rows]`.
    pub labels: Vec<u32>,
    /// Names of the classes, where they have some.
    pub classes: Vec<String>,
}

impl Rows {
    /// Some of the rows.
    ///
    /// # Panics
    /// For a row that isn't there.
    pub fn chosen(&self, rows: &[usize]) -> Self {
        let features = |row: &usize| &self.features[row * self.width..][..self.width];
        Rows {
            features: rows.iter().flat_map(features).copied().collect(),
            width: self.width,
            labels: rows.iter().map(|row| self.labels[*row]).collect(),
            classes: self.classes.clone(),
        }
    }
}

/// A table in files, whose columns have the same names in any order.
#[derive(Clone, Debug)]
pub struct Table {
    files: Vec<Source>,
    /// Whether lines that can't be read are left out, and not an error.
    some: bool,
    /// Rows, once they were counted.
    rows: OnceLock<usize>,
}

impl Table {
    /// A file of comma-separated values whose first line names the columns, or of Parquet if it is
    /// named `.parquet`. A line that can't be read, or has another number of values, is an error
    /// of whatever reads it.
    ///
    /// # Errors
    /// [`Error::File`] for a file that can't be read, without a line of names, or with two columns
    /// of one name, and for Parquet without the feature.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Table { files: vec![Source::open(path)?], some: false, rows: OnceLock::new() })
    }

    /// [`Table::open`] without the lines that can't be read or have another number of values;
    /// these, too.
    ///
    /// # Errors
    /// As there.
    pub fn open_some(path: &Path) -> Result<(Self, Vec<BadLine>)> {
        let table = Table { some: true, ..Self::open(path)? };
        let (mut lines, mut bad) = (table.records(), Vec::new());
        while let Some(line) = lines.read()? {
            bad.extend(line.err());
        }
        Ok((table, bad))
    }

    /// [`Table::open`] of several files.
    ///
    /// # Errors
    /// As there, and for columns that differ between files or no file.
    pub fn open_several(paths: &[PathBuf]) -> Result<Self> {
        let Some((first, others)) = paths.split_first() else {
            return Err(Error::value("files of the table", 0, "at least one"));
        };
        let mut table = Self::open(first)?;
        for path in others {
            let file = Source::open(path)?.like(&table.files[0])?;
            table.files.push(file);
        }
        Ok(table)
    }

    fn first(&self) -> &Source {
        &self.files[0]
    }

    /// The names of the columns.
    pub fn names(&self) -> &[String] {
        self.first().names()
    }

    /// All lines, those that can't be read among them.
    pub fn records(&self) -> Lines<'_> {
        Lines::of(&self.files)
    }

    /// Visits the rows in order, each with its number.
    fn each(
        &self,
        mut visit: impl FnMut(usize, &Record, &Lines<'_>) -> Result<()>,
    ) -> Result<usize> {
        let (mut lines, mut rows) = (self.records(), 0);
        while let Some(line) = lines.read()? {
            match line {
                Ok(record) => {
                    visit(rows, &record, &lines)?;
                    rows += 1;
                }
                Err(_) if self.some => {}
                Err(bad) => return Err(lines.error(bad.line, &bad.reason)),
            }
        }
        let before = *self.rows.get_or_init(|| rows);
        if before != rows {
            let reason = format!("changed while it was read: {rows} rows, {before} before");
            return Err(Error::file(&self.first().path, reason));
        }
        Ok(rows)
    }

    /// Whether it has no row.
    ///
    /// # Errors
    /// [`Error::File`] for a file that can't be read.
    pub fn is_empty(&self) -> Result<bool> {
        let mut lines = self.records();
        while let Some(line) = lines.read()? {
            if line.is_ok() || !self.some {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The line on which each row starts.
    ///
    /// # Errors
    /// [`Error::File`] for a file or a line that can't be read.
    pub fn lines(&self) -> Result<Vec<usize>> {
        let mut found = Vec::new();
        self.each(|_, record, _| {
            found.push(record.line);
            Ok(())
        })?;
        Ok(found)
    }

    /// The place of a column.
    ///
    /// # Errors
    /// [`Error::Value`] if there is no such column, [`Error::File`] if its values can't be read.
    pub fn place(&self, name: &str) -> Result<usize> {
        let names = self.names();
        let place = names
            .iter()
            .position(|column| column == name)
            .ok_or_else(|| Error::value("column", name, format!("one of {}", names.join(", "))))?;
        self.readable(|column| column == name)?;
        Ok(place)
    }

    /// A column's values.
    ///
    /// # Errors
    /// As of [`Table::place`] and [`Table::lines`].
    pub fn column(&self, name: &str) -> Result<Vec<String>> {
        let (at, mut values) = (self.place(name)?, Vec::new());
        self.each(|_, record, _| {
            values.push(record.fields[at].clone());
            Ok(())
        })?;
        Ok(values)
    }

    /// The classes of a column, and that of each row.
    ///
    /// # Errors
    /// As of [`Table::column`], and for a line without a class or too many classes.
    pub fn classes(&self, label: &str) -> Result<(Label, Vec<u32>)> {
        let (at, mut fit) = (self.place(label)?, LabelFit::new(label));
        self.each(|_, record, _| fit.see(&record.fields[at]))?;
        let label = fit.finish();
        let classes = self.classes_of(&label)?;
        Ok((label, classes))
    }

    /// The class of each row, of those that are known.
    ///
    /// # Errors
    /// As of [`Table::column`], and for a line with another class.
    pub fn classes_of(&self, label: &Label) -> Result<Vec<u32>> {
        let (at, reader, mut classes) = (self.place(&label.name)?, label.reader(), Vec::new());
        self.each(|_, record, lines| {
            let class = reader.class(&record.fields[at]);
            classes.push(class.map_err(|reason| lines.error(record.line, &reason))?);
            Ok(())
        })?;
        Ok(classes)
    }

    /// What some rows say of the columns: [`Schema::fit`].
    ///
    /// # Errors
    /// As there, [`Error::Value`] for a row that isn't there, and as of [`Table::lines`].
    pub fn schema(&self, label: &str, without: &[&str], fit: &[usize]) -> Result<Schema> {
        let mut chosen = fit.to_vec();
        chosen.sort_unstable();
        let fits = |row: usize| chosen.binary_search(&row).is_ok();
        let (schema, rows) = self.fitted(label, without, fits)?;
        match chosen.last().filter(|last| **last >= rows) {
            Some(row) => Err(Error::value("row to fit on", row, format!("below {rows}"))),
            None => schema,
        }
    }

    /// What all rows say of the columns.
    ///
    /// # Errors
    /// As of [`Table::schema`].
    pub fn schema_of_all(&self, label: &str, without: &[&str]) -> Result<Schema> {
        self.fitted(label, without, |_| true)?.0
    }

    /// What some rows say of the columns, and the number of all.
    fn fitted(
        &self,
        label: &str,
        without: &[&str],
        fits: impl Fn(usize) -> bool,
    ) -> Result<(Result<Schema>, usize)> {
        let mut kinds = Kinds::new(self.names(), label, without)?;
        self.readable(|name| !without.contains(&name))?;
        let rows = self.each(|row, record, _| {
            if fits(row) {
                kinds.see(&record.fields);
            }
            Ok(())
        })?;
        let mut fit = match kinds.fit() {
            Ok(fit) => fit,
            Err(error) => return Ok((Err(error), rows)),
        };
        self.each(|row, record, _| match fits(row) {
            true => fit.see(&record.fields),
            false => Ok(()),
        })?;
        Ok((fit.finish(), rows))
    }

    /// The rows as features and classes, and the lines that can't be read by the schema, whose
    /// features and labels mean nothing.
    ///
    /// # Errors
    /// [`Error::File`] for a column of the schema that isn't there, and as of [`Table::lines`].
    pub fn read_by(&self, schema: &Schema) -> Result<(Rows, Vec<BadLine>)> {
        let mut bad = Vec::new();
        let rows = self.encoded(schema, |record, _, reason| {
            let Record { line, fields } = record.clone();
            bad.push(BadLine { line, reason, fields });
            Ok(())
        })?;
        Ok((rows, bad))
    }

    /// [`Table::read_by`] of a table whose lines can all be read.
    ///
    /// # Errors
    /// As there, and [`Error::File`] for a line that can't be read.
    pub fn read_all_by(&self, schema: &Schema) -> Result<Rows> {
        self.encoded(schema, |record, lines, reason| Err(lines.error(record.line, &reason)))
    }

    /// Whether all rows can be read by a schema, in memory of a row.
    ///
    /// # Errors
    /// As of [`Table::read_all_by`].
    pub fn check(&self, schema: &Schema) -> Result<()> {
        let reader = schema.reader(self.names()).map_err(|error| self.error(&error))?;
        let mut features = Vec::with_capacity(schema.width());
        self.each(|_, record, lines| {
            features.clear();
            let row = reader.row(&record.fields, &mut features);
            row.map(|_| ()).map_err(|reason| lines.error(record.line, &reason))
        })?;
        Ok(())
    }

    /// The rows; `refuse` is told those that can't be read, and why.
    fn encoded(
        &self,
        schema: &Schema,
        mut refuse: impl FnMut(&Record, &Lines<'_>, String) -> Result<()>,
    ) -> Result<Rows> {
        let reader = schema.reader(self.names()).map_err(|error| self.error(&error))?;
        let label = &schema.label.name;
        self.readable(|name| name == label || schema.columns.iter().any(|c| c.name == name))?;
        let (classes, width) = (schema.label.classes.clone(), schema.width());
        let mut rows = Rows { width, classes, ..Rows::default() };
        self.each(|_, record, lines| {
            let class = reader.row(&record.fields, &mut rows.features);
            rows.labels.push(class.or_else(|reason| refuse(record, lines, reason).map(|()| 0))?);
            Ok(())
        })?;
        Ok(rows)
    }

    /// The features of all rows, `[rows, width]`; the table need not have the class.
    ///
    /// # Errors
    /// As of [`Table::read_all_by`].
    pub fn features_by(&self, schema: &Schema) -> Result<Vec<f32>> {
        let reader = schema.features(self.names()).map_err(|error| self.error(&error))?;
        self.readable(|name| schema.columns.iter().any(|column| column.name == name))?;
        let mut features = Vec::new();
        self.each(|_, record, lines| {
            let row = reader.row(&record.fields, &mut features);
            row.map_err(|reason| lines.error(record.line, &reason))
        })?;
        Ok(features)
    }

    /// The rows as they are, without a schema: finite numbers, and a class that is a whole number
    /// from 0 and has no name.
    ///
    /// # Errors
    /// [`Error::File`] if there is no such column or no other one, and for a line with another
    /// value.
    pub fn plain(&self, label: &str) -> Result<Rows> {
        let names = self.names();
        let Some(at) = names.iter().position(|name| name == label) else {
            let expected = format!("no column `{label}`, expected one of {}", names.join(", "));
            return Err(self.error(&expected));
        };
        if names.len() < 2 {
            return Err(self.error(&"one column, expected features beside the class"));
        }
        self.readable(|_| true)?;
        let mut rows = Rows { width: names.len() - 1, ..Rows::default() };
        self.each(|_, record, lines| {
            let values = record.fields.iter().map(|field| field.trim()).zip(names);
            for (place, (value, name)) in values.enumerate() {
                let wrong = |expected| {
                    lines.error(record.line, &format!("{name} is `{value}`, {expected}"))
                };
                if place == at {
                    // The largest one stands for none.
                    let class = value.parse().ok().filter(|class| *class < u32::MAX);
                    let class =
                        class.ok_or_else(|| wrong("expected a class: a whole number from 0"))?;
                    rows.labels.push(class);
                } else {
                    let number = value.parse().ok().filter(|x: &f32| x.is_finite());
                    rows.features.push(number.ok_or_else(|| wrong("expected a finite number"))?);
                }
            }
            Ok(())
        })?;
        Ok(rows)
    }

    /// What is wrong with its columns.
    fn error(&self, reason: &dyn std::fmt::Display) -> Error {
        Error::file(&self.first().path, reason.to_string())
    }

    /// Whether the values of some columns can be read, in each file.
    fn readable(&self, used: impl Fn(&str) -> bool) -> Result<()> {
        let mut unreadable =
            self.files.iter().flat_map(|file| file.unreadable.iter().map(move |c| (file, c)));
        match unreadable.find(|(_, (name, _))| used(name)) {
            Some((file, (name, what))) => {
                let reason =
                    format!("column `{name}` is {what}, expected numbers, text, or true and false");
                Err(Error::file(&file.path, reason))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
