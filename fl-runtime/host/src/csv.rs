//! Comma-separated values.
//!
//! ```
//! use std::collections::BTreeSet;
//! use tern_host::csv::{Header, records};
//!
//! let text = "name,says\nann,\"well, yes\"\nbob,\"no\n";
//! let lines = records(text, &BTreeSet::new());
//! assert_eq!(lines.len(), 3);
//! let ann = lines[1].as_ref().unwrap();
//! assert_eq!((ann.line, ann.fields[1].as_str()), (2, "well, yes"));
//! // A quote that isn't closed costs its line alone.
//! let bob = lines[2].as_ref().unwrap_err();
//! assert_eq!((bob.line, bob.says(0)), (3, Some("bob")));
//!
//! let header = Header::read(&mut lines.into_iter()).unwrap();
//! assert_eq!(header.place("says"), Some(1));
//! ```

use std::collections::{BTreeMap, BTreeSet};

/// A line of comma-separated values; a value in quotes may go on over further lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The number of the line on which it starts, from 1.
    pub line: usize,
    /// Its values, without quotes.
    pub fields: Vec<String>,
}

/// A line that can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
    /// What it has.
    pub fields: Vec<String>,
}

impl BadLine {
    /// What a field says, if it still says something: it is there, not empty and UTF-8.
    pub fn says(&self, field: usize) -> Option<&str> {
        let said = self.fields.get(field)?.trim();
        (!said.is_empty() && !said.contains(char::REPLACEMENT_CHARACTER)).then_some(said)
    }
}

/// The names of a table's columns, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    line: usize,
    names: Vec<String>,
}

impl Header {
    /// Reads the first record as names, without the spaces around them.
    ///
    /// # Errors
    /// [`BadLine`] for a table without a record, a first one that can't be read, and a name that
    /// two columns have: either could be meant.
    pub fn read(
        records: &mut impl Iterator<Item = Result<Record, BadLine>>,
    ) -> Result<Self, BadLine> {
        let reason = "empty, expected a line that names the columns".into();
        let empty = BadLine { line: 1, reason, fields: Vec::new() };
        let Record { line, fields } = records.next().unwrap_or(Err(empty))?;
        let names: Vec<String> = fields.iter().map(|name| name.trim().to_owned()).collect();
        let mut places = BTreeMap::new();
        for (second, name) in (1..).zip(&names) {
            if let Some(first) = places.insert(name, second) {
                let reason = format!(
                    "columns {first} and {second} are both named `{name}`, expected a name of \
                     its own for each"
                );
                return Err(BadLine { line, reason, fields });
            }
        }
        Ok(Header { line, names })
    }

    /// The number of the line on which it starts, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The place of a column, from 0.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|column| column == name)
    }

    /// A record that has a value for each column.
    ///
    /// # Errors
    /// [`BadLine`] for another number of values.
    pub fn fits(&self, Record { line, fields }: Record) -> Result<Record, BadLine> {
        match (fields.len(), self.names.len()) {
            (values, columns) if values == columns => Ok(Record { line, fields }),
            (values, columns) => {
                let reason = format!("{values} values, expected {columns}");
                Err(BadLine { line, reason, fields })
            }
        }
    }
}

/// Splits comma-separated values (RFC 4180); blank lines are left out. A line that isn't UTF-8
/// (their numbers, from 1, are in `not_utf8`) is bad, and so is one where a quote opens that isn't
/// closed before a comma or a line's end. Reading goes on with the next.
pub fn records(text: &str, not_utf8: &BTreeSet<usize>) -> Vec<Result<Record, BadLine>> {
    let (mut rest, mut line) = (text, 1);
    let mut records = Vec::new();
    while !rest.is_empty() {
        let (fields, bytes, open) = record(rest);
        let lines = |bytes: usize| rest[..bytes].matches('\n').count();
        let next = line + lines(bytes);
        // The text's last line may have no end.
        let last = next - usize::from(rest[..bytes].ends_with('\n'));
        let undecoded = not_utf8.range(line..=last).next();
        let wrong = match open {
            Some(quote) => Some((line + lines(quote), "a quote that isn't closed")),
            None => undecoded.map(|line| (*line, "not UTF-8")),
        };
        match wrong {
            Some((line, reason)) => {
                records.push(Err(BadLine { line, reason: reason.into(), fields }));
            }
            None if matches!(fields.as_slice(), [only] if only.trim().is_empty()) => {}
            None => records.push(Ok(Record { line, fields })),
        }
        (rest, line) = (&rest[bytes..], next);
    }
    records
}

/// The fields of a text's first record, the bytes it takes, and where in it a quote opens that
/// isn't closed; such a record ends with the line of that quote.
fn record(text: &str) -> (Vec<String>, usize, Option<usize>) {
    let (mut rest, mut fields, mut open) = (text, Vec::new(), None);
    loop {
        let inside = rest.trim_start_matches(' ').strip_prefix('"');
        let in_line = |field: &str| open.is_none() || !field.contains('\n');
        let (field, after) = match inside.and_then(quoted).filter(|(field, _)| in_line(field)) {
            Some(found) => found,
            None => {
                if inside.is_some() {
                    open.get_or_insert(text.len() - rest.len());
                }
                plain(inside.unwrap_or(rest))
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None => {
                let after = after.strip_prefix('\n').unwrap_or(after);
                return (fields, text.len() - after.len(), open);
            }
        }
    }
}

/// A field behind its opening quote, and what follows the closing one.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut field, mut rest) = (String::new(), text);
    loop {
        let (part, after) = rest.split_once('"')?;
        field.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => {
                let after = after.trim_start_matches([' ', '\r']);
                let closed = after.is_empty() || after.starts_with([',', '\n']);
                return closed.then_some((field, after));
            }
        }
    }
}

/// A field without quotes, and what follows it.
fn plain(text: &str) -> (String, &str) {
    let (field, after) = text.split_at(text.find([',', '\n']).unwrap_or(text.len()));
    let line_end = !after.starts_with(',');
    let field = field.strip_suffix('\r').filter(|_| line_end).unwrap_or(field);
    (field.to_owned(), after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> Result<Header, BadLine> {
        Header::read(&mut records(text, &BTreeSet::new()).into_iter())
    }

    #[test]
    fn a_header_names_each_column_once() {
        let found = header("\n x ,\"y, z\",\n1,2,3\n").unwrap();
        assert_eq!((found.line(), found.names()), (2, &["x", "y, z", ""].map(String::from)[..]));
        assert_eq!((found.place("y, z"), found.place(" x ")), (Some(1), None));
        for (text, line, reason) in [
            ("", 1, "empty, expected"),
            ("\nx,y, x\n", 2, "columns 1 and 3 are both named `x`, expected"),
            (",y,\n", 1, "columns 1 and 3 are both named ``"),
            ("\"x,y\n1,2\n", 1, "a quote that isn't closed"),
        ] {
            let bad = header(text).unwrap_err();
            assert!(bad.line == line && bad.reason.starts_with(reason), "{text}: {bad:?}");
        }
    }

    #[test]
    fn records_have_a_value_for_each_column() {
        let header = header("x,y\n").unwrap();
        let record = |count| Record { line: 4, fields: vec![String::new(); count] };
        assert_eq!(header.fits(record(2)), Ok(record(2)));
        for count in [1, 3] {
            let bad = header.fits(record(count)).unwrap_err();
            assert_eq!((bad.line, bad.reason), (4, format!("{count} values, expected 2")));
            assert_eq!(bad.fields.len(), count);
        }
    }

    /// What a line says is no more than what is there.
    #[test]
    fn bad_lines_say_what_can_be_read() {
        let fields = ["a ", " ", "\u{fffd}b"].map(String::from).to_vec();
        let bad = BadLine { line: 1, reason: String::new(), fields };
        assert_eq!([0, 1, 2, 3].map(|at| bad.says(at)), [Some("a"), None, None, None]);
    }
}
