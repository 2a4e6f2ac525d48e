//! Tables of comma-separated values, as features and classes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tern_host::csv::{BadLine, Header};
use tern_protocol::{Error, Result};

use super::{Rows, read_text, records};

/// A table of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    path: PathBuf,
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
        all(table, path, &bad)
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
        Ok((Table { path: path.into(), header, rows, lines }, bad))
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

    /// The rows as features and classes: a column of numbers with mean 0 and deviation 1, a
    /// feature for each value of any other; `label` has the class, and the columns in `without`
    /// are left out. Values are missing where they are empty or `?`. A column is one of numbers
    /// if more than half of its values that aren't missing are; missing ones and those that
    /// aren't finite are 0 there, the mean.
    ///
    /// # Errors
    /// [`Error::Value`] for a column that isn't there or a table without rows, [`Error::File`]
    /// for a line with another value in a column of numbers.
    pub fn rows(&self, label: &str, without: &[&str]) -> Result<Rows> {
        let numbers: Vec<usize> = (0..self.rows.len()).collect();
        let (rows, bad) = self.fitted(label, without, &numbers)?;
        all(rows, &self.path, &bad)
    }

    /// [`Table::rows`] by what the rows `public` say: which columns are numbers, their mean and
    /// deviation, the values of the others, the classes. So no other row changes more than its
    /// own features. Of those, a value that no public row has is none. Also the lines that can't
    /// be read, of all rows: with no number in a column of numbers, or a class that no public row
    /// has. Nothing is fitted on them, and their features and labels mean nothing.
    ///
    /// # Errors
    /// [`Error::Value`] for a column or a row that isn't there, or an empty `public`;
    /// [`Error::File`] if none of these rows can be read.
    pub fn fitted(
        &self,
        label: &str,
        without: &[&str],
        public: &[usize],
    ) -> Result<(Rows, Vec<BadLine>)> {
        let class_of = self.column(label)?;
        let rows = self.rows.len();
        if public.is_empty() {
            return Err(Error::value("rows of the table", 0, "at least one"));
        }
        if let Some(row) = public.iter().find(|row| **row >= rows) {
            return Err(Error::value("row to scale by", row, format!("below {rows}")));
        }
        let mut columns = Vec::new();
        let mut bad: BTreeMap<usize, String> = BTreeMap::new();
        let kept = |name: &&String| *name != label && !without.contains(&name.as_str());
        for name in self.header.names().iter().filter(kept) {
            let values = self.column(name)?;
            let numeric = is_numeric(public.iter().map(|row| values[*row]));
            for (row, value) in values.iter().enumerate().filter(|_| numeric) {
                if number(value).is_none() && !is_missing(value) {
                    let reason = || format!("{name} is `{}`, expected a number", value.trim());
                    bad.entry(row).or_insert_with(reason);
                }
            }
            columns.push((values, numeric));
        }
        let bad_line = |row: usize, reason: &String| BadLine {
            line: self.lines[row],
            reason: reason.clone(),
            fields: self.rows[row].clone(),
        };
        let fit: Vec<usize> = public.iter().copied().filter(|row| !bad.contains_key(row)).collect();
        if let (true, [first, ..]) = (fit.is_empty(), public) {
            return Err(bad_line_error(&self.path, &bad_line(*first, &bad[first])));
        }
        let classes = different(fit.iter().map(|row| &class_of[*row]));
        let mut labels = Vec::with_capacity(rows);
        for (row, class) in class_of.iter().map(|class| class.trim()).enumerate() {
            let known = classes.binary_search(&class);
            if known.is_err() {
                let reason =
                    || format!("{label} is `{class}`, expected a class of a public sample");
                bad.entry(row).or_insert_with(reason);
            }
            labels.push(known.unwrap_or(0) as u32);
        }
        let columns = columns.iter().flat_map(|(values, numeric)| match numeric {
            true => vec![standardized(values, &fit)],
            false => by_category(values, &fit),
        });
        let columns: Vec<Vec<f32>> = columns.collect();
        let rows = Rows {
            features: (0..rows).flat_map(|row| columns.iter().map(move |c| c[row])).collect(),
            width: columns.len(),
            labels,
            classes: classes.into_iter().map(str::to_owned).collect(),
        };
        Ok((rows, bad.iter().map(|(row, reason)| bad_line(*row, reason)).collect()))
    }
}

fn bad_line_error(path: &Path, bad: &BadLine) -> Error {
    Error::file(path, format!("line {}: {}", bad.line, bad.reason))
}

/// What was read, if there is no bad line.
fn all<T>(read: T, path: &Path, bad: &[BadLine]) -> Result<T> {
    match bad.first() {
        Some(line) => Err(bad_line_error(path, line)),
        None => Ok(read),
    }
}

fn number(value: &str) -> Option<f32> {
    value.trim().parse().ok()
}

fn is_missing(value: &str) -> bool {
    matches!(value.trim(), "" | "?")
}

/// Whether more than half of the values that aren't missing are numbers.
fn is_numeric<'a>(values: impl Iterator<Item = &'a str>) -> bool {
    let values: Vec<&str> = values.filter(|value| !is_missing(value)).collect();
    2 * values.iter().filter(|value| number(value).is_some()).count() > values.len()
}

/// A column of numbers, such that those of the rows `fit` have mean 0 and deviation 1.
fn standardized(values: &[&str], fit: &[usize]) -> Vec<f32> {
    let finite = |value: &str| number(value).filter(|x| x.is_finite()).map(f64::from);
    let known: Vec<f64> = fit.iter().filter_map(|row| finite(values[*row])).collect();
    let n = known.len() as f64;
    let mean = known.iter().sum::<f64>() / n;
    let variance = known.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    let deviation = if variance > 0.0 { variance.sqrt() } else { 1.0 };
    let scaled = |value: &&str| {
        let x = finite(value).map(|x| ((x - mean) / deviation) as f32);
        x.filter(|x| x.is_finite()).unwrap_or(0.0)
    };
    values.iter().map(scaled).collect()
}

/// A feature for each value that the rows `fit` have.
fn by_category(values: &[&str], fit: &[usize]) -> Vec<Vec<f32>> {
    let column = |known: &str| {
        values.iter().map(|value| f32::from(u8::from(value.trim() == known))).collect()
    };
    different(fit.iter().map(|row| &values[*row])).into_iter().map(column).collect()
}

/// Different values in their order.
fn different<'a>(values: impl Iterator<Item = &'a &'a str>) -> Vec<&'a str> {
    let known: BTreeSet<&str> = values.map(|v| v.trim()).collect();
    known.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::write;
    use tern_host::csv::Record;

    fn table(text: &str) -> Table {
        Table::read(&write(&tempfile::tempdir().unwrap(), "t.csv", text.as_bytes())).unwrap()
    }

    #[test]
    fn tables_become_features() {
        let folder = tempfile::tempdir().unwrap();
        let text = "age,\"job, or none\",class\r\n1,baker,yes\r\n3,\"a \"\"b\"\"\nc\",no\n\n";
        let table = Table::read(&write(&folder, "t.csv", text.as_bytes())).unwrap();
        assert_eq!(table.column("job, or none").unwrap(), ["baker", "a \"b\"\nc"]);
        let rows = table.rows("class", &[]).unwrap();
        assert_eq!(rows.classes, ["no", "yes"]);
        assert_eq!(rows.labels, [1, 0]);
        assert_eq!(rows.features, [-1.0, 0.0, 1.0, 1.0, 1.0, 0.0]);
        assert_eq!(table.rows("class", &["age"]).unwrap().width, 2);
        assert!(table.rows("height", &[]).unwrap_err().to_string().contains("age, job"));
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

    /// A quote that isn't closed or bytes that aren't UTF-8 cost their line alone.
    #[test]
    fn bad_lines_end_where_they_end() {
        let folder = tempfile::tempdir().unwrap();
        let split = |bytes: &[u8]| {
            let records = records(&read_text(&write(&folder, "t.csv", bytes)).unwrap());
            let said = |fields: &[String]| fields.join("|");
            let records = records.iter().map(|record| match record {
                Ok(Record { line, fields }) => format!("{line} {}", said(fields)),
                Err(BadLine { line, reason, fields }) => {
                    format!("{line} {} ({reason})", said(fields))
                }
            });
            records.collect::<Vec<_>>()
        };
        let open = "(a quote that isn't closed)";
        // To the file's end, to another quote, and on a record's second line.
        assert_eq!(split(b"a,\"b,c\n1,2\n"), [format!("1 a|b|c {open}"), "2 1|2".into()]);
        let expected = [format!("1 a|b|c {open}"), "2 1|2".into(), "3 x, y|3".into()];
        assert_eq!(split(b"a,\"b,\"c\"\n1,2\n\"x, y\",3"), expected);
        let expected = [format!("2 x\ny|b|c {open}"), "3 1|2".into()];
        assert_eq!(split(b"\"x\ny\",\"b,c\n1,2\n"), expected);
        assert_eq!(split(b"\"\n"), [format!("1  {open}")]);
        // A quote inside a value is one; around it there may be spaces.
        assert_eq!(split(b"5\" pipe, \"a, b\" ,\"\"\r\n"), ["1 5\" pipe|a, b|"]);
        let expected = ["1 a|\u{fffd} (not UTF-8)", "2 1|2", "4 x\n\u{fffd}|3 (not UTF-8)"];
        assert_eq!(split(b"a,\xff\n1,2\n\"x\n\xff\",3"), expected);
    }

    /// What a line says is no more than what is there.
    #[test]
    fn bad_lines_say_what_can_be_read() {
        let fields = ["a ", " ", "\u{fffd}b"].map(String::from).to_vec();
        let bad = BadLine { line: 1, reason: String::new(), fields };
        assert_eq!([0, 1, 2, 3].map(|at| bad.says(at)), [Some("a"), None, None, None]);
    }

    /// What some rows say scales all, and no other row changes anything but its own features.
    #[test]
    fn rows_are_scaled_by_some_of_them() {
        let fitted = |third: &str| {
            let text = format!("age,job,class\n1,baker,yes\n3,smith,no\n{third}\n5,baker,no\n");
            table(&text).fitted("class", &[], &[0, 1]).unwrap()
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
        assert!(table.fitted("b", &[], &[1]).unwrap_err().to_string().contains("below 1"));
        assert!(table.fitted("b", &[], &[]).is_err());
    }

    /// A line with a word for a number or a class of its own is bad, and changes no other.
    #[test]
    fn what_the_public_rows_do_not_allow_is_a_bad_line() {
        let text = |third: &str| format!("age,job,class\n1,baker,yes\n3,smith,no\n{third}\n");
        for (third, reason) in [
            ("old,baker,no", "age is `old`, expected a number"),
            ("5,baker,maybe", "class is `maybe`, expected a class of a public sample"),
        ] {
            let table = table(&text(third));
            let (rows, bad) = table.fitted("class", &[], &[0, 1]).unwrap();
            assert_eq!((rows.width, rows.classes), (3, vec!["no".into(), "yes".into()]));
            assert_eq!(rows.features[..6], [-1.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
            let [BadLine { line: 4, reason: said, fields }] = &bad[..] else { panic!("{bad:?}") };
            assert_eq!((said.as_str(), fields.join(",")), (reason, third.to_owned()));
        }
        // Most of a column decides what it is; the others cost their lines, and say nothing.
        let text = "age,job,class\n1,a,x\nold,b,z\n?,a,y\n,a,y\n3,a,x\n";
        let (rows, bad) = table(text).fitted("class", &[], &[0, 1, 2, 3, 4]).unwrap();
        assert_eq!((bad.len(), bad[0].line), (1, 3));
        assert_eq!((rows.width, rows.classes), (2, vec!["x".into(), "y".into()]));
        assert_eq!(rows.features, [-1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0]);
        let error = table(text).rows("class", &[]).unwrap_err().to_string();
        assert!(error.ends_with("t.csv: line 3: age is `old`, expected a number"), "{error}");
        // Half numbers are none.
        let half = table("age,class\n1,x\nold,y\n");
        assert_eq!(half.rows("class", &[]).unwrap().features, [1.0, 0.0, 0.0, 1.0]);
        // Where each row is bad by another column, nothing is left to fit on.
        let none = table("a,b,c,class\no,1,2,x\n1,o,2,y\n1,2,o,x\n");
        let error = none.rows("class", &[]).unwrap_err().to_string();
        assert!(error.contains("line 2: a is `o`"), "{error}");
    }
}
