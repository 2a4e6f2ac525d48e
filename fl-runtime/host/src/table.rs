//! Tables of comma-separated values, as features and classes.
//!
//! ```
//! use tern_host::table::Table;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("people.csv");
//! std::fs::write(&path, "age,job,class\n1,baker,no\n3,smith,yes\n")?;
//! let table = Table::read(&path)?;
//! let schema = table.schema("class", &[], &[0, 1])?;
//! let rows = table.read_all_by(&schema)?;
//! assert_eq!((rows.width, rows.labels.as_slice()), (3, &[0, 1][..]));
//! assert_eq!(rows.features, [-1.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
//! # Ok(())
//! # }
//! ```

use std::path::{Path, PathBuf};

use tern_protocol::schema::{Label, Schema};
use tern_protocol::{Error, Result};

use crate::csv::{BadLine, Header};
use crate::text::{read_text, records};

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

/// A table of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The files, each with its first row.
    files: Vec<(usize, PathBuf)>,
    header: Header,
    rows: Vec<Vec<String>>,
    /// Where each row starts.
    lines: Vec<usize>,
}

impl Table {
    /// Reads comma-separated values whose first line names the columns.
    ///
    /// # Errors
    /// [`Error::File`] as of [`Table::read_some`], and for a line that can't be read or has another
    /// number of fields.
    pub fn read(path: &Path) -> Result<Self> {
        let (table, bad) = Self::read_some(path)?;
        match bad.first() {
            Some(line) => Err(bad_line_error(path, line)),
            None => Ok(table),
        }
    }

    /// [`Table::read`] without the lines that can't be read or have another number of fields;
    /// these, too.
    ///
    /// # Errors
    /// [`Error::File`] for a file that can't be read, without a line of names, or with two columns
    /// of one name.
    pub fn read_some(path: &Path) -> Result<(Self, Vec<BadLine>)> {
        let file = read_text(path)?;
        let mut records = records(&file).into_iter();
        let header = Header::read(&mut records).map_err(|bad| bad_line_error(path, &bad))?;
        let (mut rows, mut lines, mut bad) = (Vec::new(), Vec::new(), Vec::new());
        for record in records {
            match record.and_then(|record| header.fits(record)) {
                Ok(record) => {
                    rows.push(record.fields);
                    lines.push(record.line);
                }
                Err(line) => bad.push(line),
            }
        }
        Ok((Table { files: vec![(0, path.into())], header, rows, lines }, bad))
    }

    /// [`Table::read`] of several files, whose columns have the same names, in any order.
    ///
    /// # Errors
    /// As there, and for columns that differ between files or no file.
    pub fn read_several(paths: &[PathBuf]) -> Result<Self> {
        let Some((first, others)) = paths.split_first() else {
            return Err(Error::value("files of the table", 0, "at least one"));
        };
        let mut table = Self::read(first)?;
        for path in others {
            table.append(Self::read(path)?)?;
        }
        Ok(table)
    }

    fn append(&mut self, other: Table) -> Result<()> {
        let names = self.header.names();
        let places: Option<Vec<usize>> = names.iter().map(|n| other.header.place(n)).collect();
        let Some(places) = places.filter(|places| places.len() == other.header.names().len())
        else {
            let (found, names) = (other.header.names().join(", "), names.join(", "));
            let reason = format!("columns {found}, expected {names}, as in the file before");
            return Err(Error::file(other.path(0), reason));
        };
        let rows = self.rows.len();
        self.files.extend(other.files.into_iter().map(|(first, path)| (rows + first, path)));
        let in_order = |row: Vec<String>| places.iter().map(|at| row[*at].clone()).collect();
        self.rows.extend(other.rows.into_iter().map(in_order));
        self.lines.extend(other.lines);
        Ok(())
    }

    /// The file of a row.
    fn path(&self, row: usize) -> &Path {
        let after = self.files.partition_point(|(first, _)| *first <= row);
        &self.files[after.saturating_sub(1)].1
    }

    /// What is wrong with a row.
    fn error(&self, row: usize, reason: &str) -> Error {
        Error::file(self.path(row), format!("line {}: {reason}", self.lines[row]))
    }

    /// The line on which each row starts.
    pub fn lines(&self) -> &[usize] {
        &self.lines
    }

    /// The place of a column.
    ///
    /// # Errors
    /// [`Error::Value`] if there is no such column.
    pub fn place(&self, name: &str) -> Result<usize> {
        self.header.place(name).ok_or_else(|| {
            Error::value("column", name, format!("one of {}", self.header.names().join(", ")))
        })
    }

    /// A column's values.
    ///
    /// # Errors
    /// [`Error::Value`] if there is no such column.
    pub fn column(&self, name: &str) -> Result<Vec<&str>> {
        let at = self.place(name)?;
        Ok(self.rows.iter().map(|row| row[at].as_str()).collect())
    }

    /// The classes of a column, and that of each row.
    ///
    /// # Errors
    /// [`Error::Value`] if there is no such column, [`Error::File`] for a line without a class.
    pub fn classes(&self, label: &str) -> Result<(Label, Vec<u32>)> {
        let label = Label::fit(label, self.column(label)?.into_iter());
        let classes = self.classes_of(&label)?;
        Ok((label, classes))
    }

    /// The class of each row, of those that are known.
    ///
    /// # Errors
    /// [`Error::Value`] if there is no such column, [`Error::File`] for a line with another class.
    pub fn classes_of(&self, label: &Label) -> Result<Vec<u32>> {
        let (values, reader) = (self.column(&label.name)?, label.reader());
        let class = |(row, value): (usize, &&str)| {
            reader.class(value).map_err(|reason| self.error(row, &reason))
        };
        values.iter().enumerate().map(class).collect()
    }

    /// What some rows say of the columns: [`Schema::fit`].
    ///
    /// # Errors
    /// As there, and [`Error::Value`] for a row that isn't there.
    pub fn schema(&self, label: &str, without: &[&str], fit: &[usize]) -> Result<Schema> {
        let rows = fit.iter().map(|row| match self.rows.get(*row) {
            Some(fields) => Ok(fields.as_slice()),
            None => Err(Error::value("row to fit on", row, format!("below {}", self.rows.len()))),
        });
        let rows = rows.collect::<Result<Vec<_>>>()?;
        Schema::fit(self.header.names(), &rows, label, without)
    }

    /// The rows as features and classes, and the lines that can't be read, whose features and
    /// labels mean nothing.
    ///
    /// # Errors
    /// [`Error::File`] for a column of the schema that isn't there.
    pub fn read_by(&self, schema: &Schema) -> Result<(Rows, Vec<BadLine>)> {
        let (rows, bad) = self.encoded(schema)?;
        let bad = bad.into_iter().map(|(row, reason)| BadLine {
            line: self.lines[row],
            reason,
            fields: self.rows[row].clone(),
        });
        Ok((rows, bad.collect()))
    }

    /// [`Table::read_by`] of a table whose lines can all be read.
    ///
    /// # Errors
    /// As there, and [`Error::File`] for a line that can't be read.
    pub fn read_all_by(&self, schema: &Schema) -> Result<Rows> {
        let (rows, bad) = self.encoded(schema)?;
        match bad.first() {
            Some((row, reason)) => Err(self.error(*row, reason)),
            None => Ok(rows),
        }
    }

    /// The features of all rows, `[rows, width]`; the table need not have the class.
    ///
    /// # Errors
    /// [`Error::File`] for a column of the schema that isn't there, and for a line that can't be
    /// read.
    pub fn features_by(&self, schema: &Schema) -> Result<Vec<f32>> {
        let reader = schema.features(self.header.names());
        let reader = reader.map_err(|error| Error::file(self.path(0), error.to_string()))?;
        let mut features = Vec::with_capacity(self.rows.len() * schema.width());
        for (row, fields) in self.rows.iter().enumerate() {
            reader.row(fields, &mut features).map_err(|reason| self.error(row, &reason))?;
        }
        Ok(features)
    }

    /// The rows, and what is wrong with those that can't be read.
    fn encoded(&self, schema: &Schema) -> Result<(Rows, Vec<(usize, String)>)> {
        let reader = schema.reader(self.header.names());
        let reader = reader.map_err(|error| Error::file(self.path(0), error.to_string()))?;
        let (mut labels, mut bad) = (Vec::with_capacity(self.rows.len()), Vec::new());
        let width = schema.width();
        let mut features = Vec::with_capacity(self.rows.len() * width);
        for (row, fields) in self.rows.iter().enumerate() {
            labels.push(reader.row(fields, &mut features).unwrap_or_else(|reason| {
                bad.push((row, reason));
                0
            }));
        }
        let classes = schema.label.classes.clone();
        Ok((Rows { features, width, labels, classes }, bad))
    }

    /// The rows as they are, without a schema: finite numbers, and a class that is a whole number
    /// from 0 and has no name.
    ///
    /// # Errors
    /// [`Error::File`] if there is no such column or no other one, and for a line with another
    /// value.
    pub fn plain(&self, label: &str) -> Result<Rows> {
        let names = self.header.names();
        let Some(at) = self.header.place(label) else {
            let reason = format!("no column `{label}`, expected one of {}", names.join(", "));
            return Err(Error::file(self.path(0), reason));
        };
        if names.len() < 2 {
            let reason = "one column, expected features beside the class";
            return Err(Error::file(self.path(0), reason));
        }
        let mut rows = Rows { width: names.len() - 1, ..Rows::default() };
        for (row, fields) in self.rows.iter().enumerate() {
            for (i, (value, name)) in fields.iter().map(|field| field.trim()).zip(names).enumerate()
            {
                let wrong = |expected| self.error(row, &format!("{name} is `{value}`, {expected}"));
                if i == at {
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
        }
        Ok(rows)
    }
}

fn bad_line_error(path: &Path, bad: &BadLine) -> Error {
    Error::file(path, format!("line {}: {}", bad.line, bad.reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn table(text: &str) -> Table {
        Table::read(&write(&tempfile::tempdir().unwrap(), "t.csv", text.as_bytes())).unwrap()
    }

    fn rows_of(table: &Table, without: &[&str]) -> Result<Rows> {
        let fit: Vec<usize> = (0..table.lines().len()).collect();
        table.read_all_by(&table.schema("class", without, &fit)?)
    }

    fn fitted(table: &Table, fit: &[usize]) -> (Rows, Vec<BadLine>) {
        table.read_by(&table.schema("class", &[], fit).unwrap()).unwrap()
    }

    #[test]
    fn tables_become_features() {
        let folder = tempfile::tempdir().unwrap();
        let text = "age,\"job, or none\",class\r\n1,baker,yes\r\n3,\"a \"\"b\"\"\nc\",no\n\n";
        let table = Table::read(&write(&folder, "t.csv", text.as_bytes())).unwrap();
        assert_eq!(table.column("job, or none").unwrap(), ["baker", "a \"b\"\nc"]);
        let rows = rows_of(&table, &[]).unwrap();
        assert_eq!(rows.classes, ["no", "yes"]);
        assert_eq!(rows.labels, [1, 0]);
        assert_eq!(rows.features, [-1.0, 0.0, 1.0, 1.0, 1.0, 0.0]);
        assert_eq!(rows_of(&table, &["age"]).unwrap().width, 2);
        let error = table.classes("height").unwrap_err().to_string();
        assert!(error.contains("age, job"), "{error}");
        let path = write(&folder, "bad.csv", b"a,b\n1,2\n\"x\ny\",1\n3\n");
        let error = Table::read(&path).unwrap_err().to_string();
        assert!(error.contains("line 5: 1 values, expected 2"), "{error}");
        let (table, bad) = Table::read_some(&path).unwrap();
        assert_eq!((table.lines(), table.place("b").unwrap()), (&[2, 3][..], 1));
        assert_eq!((bad.len(), bad[0].line, bad[0].fields.as_slice()), (1, 5, &["3".into()][..]));
    }

    #[test]
    fn two_columns_of_one_name_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(&folder, "t.csv", b"x,class,x\n1,a,2\n");
        let error = Table::read(&path).unwrap_err().to_string();
        assert!(error.contains("line 1: columns 1 and 3 are both named `x`"), "{error}");
    }

    /// What some rows say scales all, and no other row changes anything but its own features.
    #[test]
    fn rows_are_scaled_by_some_of_them() {
        let fitted = |third: &str| {
            let text = format!("age,job,class\n1,baker,yes\n3,smith,no\n{third}\n5,baker,no\n");
            fitted(&table(&text), &[0, 1])
        };
        let (known, bad) = fitted("5,smith,no");
        let expected = [-1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 3.0, 0.0, 1.0, 3.0, 1.0, 0.0];
        assert_eq!((known.width, known.features.as_slice()), (3, &expected[..]));
        assert!(bad.is_empty(), "{bad:?}");
        // No number, no job that is known, nothing, a number beyond all others.
        for (third, own) in [
            ("inf,?,no", [0.0, 0.0, 0.0]),
            ("?,miner,no", [0.0, 0.0, 0.0]),
            (",,no", [0.0, 0.0, 0.0]),
            ("1e9,baker,no", [1e9, 1.0, 0.0]),
        ] {
            let (other, bad) = fitted(third);
            assert!(bad.is_empty(), "{bad:?}");
            assert_eq!(other.features[6..9], own, "{third}");
            assert_eq!(other.features[..6], known.features[..6], "{third}");
            assert_eq!(other.features[9..], known.features[9..], "{third}");
        }
        let table = table("a,b\n1,2\n");
        assert!(table.schema("b", &[], &[1]).unwrap_err().to_string().contains("below 1"));
        assert!(table.schema("b", &[], &[]).is_err());
    }

    /// A line with a word for a number or a class of its own is bad, and changes no other.
    #[test]
    fn what_the_public_rows_do_not_allow_is_a_bad_line() {
        let text = |third: &str| format!("age,job,class\n1,baker,yes\n3,smith,no\n{third}\n");
        for (third, reason) in [
            ("old,baker,no", "age is `old`, expected a number"),
            ("5,baker, ", "class is missing, expected a class"),
            ("5,baker,maybe", "class is `maybe`, expected one of no, yes"),
        ] {
            let table = table(&text(third));
            let (rows, bad) = fitted(&table, &[0, 1]);
            assert_eq!((rows.width, rows.classes), (3, vec!["no".into(), "yes".into()]));
            assert_eq!(rows.features[..6], [-1.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
            let [BadLine { line: 4, reason: said, fields }] = &bad[..] else { panic!("{bad:?}") };
            assert_eq!((said.as_str(), fields.join(",")), (reason, third.to_owned()));
        }
        // Most of a column decides what it is; the others cost their lines, and say nothing.
        let text = "age,job,class\n1,a,x\nold,b,z\n?,a,y\n,a,y\n3,a,x\n";
        let (rows, bad) = fitted(&table(text), &[0, 1, 2, 3, 4]);
        assert_eq!((bad.len(), bad[0].line), (1, 3));
        assert_eq!((rows.width, rows.classes), (2, vec!["x".into(), "y".into()]));
        assert_eq!(rows.features, [-1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0]);
        let error = rows_of(&table(text), &[]).unwrap_err().to_string();
        assert!(error.ends_with("t.csv: line 3: age is `old`, expected a number"), "{error}");
        // Half numbers are none.
        let half = table("age,class\n1,x\nold,y\n");
        assert_eq!(rows_of(&half, &[]).unwrap().features, [1.0, 0.0, 0.0, 1.0]);
        // Where each row is bad by another column, nothing is left to fit on.
        let none = table("a,b,c,class\no,1,2,x\n1,o,2,y\n1,2,o,x\n");
        let error = rows_of(&none, &[]).unwrap_err().to_string();
        assert!(error.contains("none (a is `o`, expected a number)"), "{error}");
    }

    #[test]
    fn files_of_a_table_have_the_same_columns_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            write(&folder, "a.csv", b"x,y,class\n1,2,0\n"),
            write(&folder, "b.csv", b"class,x,y\n1,3,4\n0,5,old\n"),
        ];
        let table = Table::read_several(&files).unwrap();
        assert_eq!(table.column("y").unwrap(), ["2", "4", "old"]);
        let error = table.plain("class").unwrap_err().to_string();
        assert!(error.contains("b.csv: line 3: y is `old`, expected a finite"), "{error}");
        for other in [&b"x,class\n1,0\n"[..], b"x,y,z,class\n1,2,3,0\n", b"x,z,class\n1,2,0\n"] {
            write(&folder, "b.csv", other);
            let error = Table::read_several(&files).unwrap_err().to_string();
            assert!(
                error.contains("b.csv: columns x, ") && error.contains("x, y, class"),
                "{error}"
            );
        }
        assert!(Table::read_several(&[]).is_err());
    }

    #[test]
    fn plain_rows_are_finite_numbers_and_whole_classes() {
        let rows = table("x,\"class\",y\n1,0,2.5\n\n-3e1, 2 ,\"4\"\n").plain("class").unwrap();
        assert_eq!((rows.width, rows.labels), (2, vec![0, 2]));
        assert_eq!(rows.features, [1.0, 2.5, -30.0, 4.0]);
        for (text, expected) in [
            ("x,y\n1,2\n", "t.csv: no column `class`, expected one of x, y"),
            ("class\n1\n", "t.csv: one column"),
            ("x,class\n\n\na,2\n", "t.csv: line 4: x is `a`, expected a finite number"),
            ("x,class\nNaN,2\n", "line 2: x is `NaN`"),
            ("x,class\n1,-1\n", "line 2: class is `-1`, expected a class"),
            ("x,class\n1,4294967295\n", "line 2: class is `4294967295`"),
        ] {
            let error = table(text).plain("class").unwrap_err().to_string();
            assert!(error.contains(expected), "{error}, expected {expected}");
        }
    }

    #[test]
    fn every_row_has_a_class() {
        let (label, classes) = table("x,class\n1,1\n2,10\n3,2\n4,1.0\n").classes("class").unwrap();
        assert_eq!((label.classes.join(","), classes), ("1,2,10".into(), vec![0, 2, 1, 0]));
        let error = table("x,class\n1,a\n2,\n").classes("class").unwrap_err().to_string();
        assert!(error.ends_with("t.csv: line 3: class is missing, expected a class"), "{error}");
    }
}
