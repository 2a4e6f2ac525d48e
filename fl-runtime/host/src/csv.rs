//! Comma-separated values (RFC 4180), a line at a time.
//!
//! ```
//! use tern_host::csv::{Header, Reader};
//!
//! # fn main() -> tern_protocol::Result<()> {
//! let text = "name,says\nann,\"well, yes\"\nbob,\"no\n";
//! let mut lines = Reader::new(text.as_bytes());
//! let header = Header::read(lines.read()?).unwrap();
//! assert_eq!(header.place("says"), Some(1));
//! let ann = lines.read()?.unwrap().unwrap();
//! assert_eq!((ann.line, ann.fields[1].as_str()), (2, "well, yes"));
//! // A quote that isn't closed costs its line alone.
//! let bob = lines.read()?.unwrap().unwrap_err();
//! assert_eq!((bob.line, bob.says(0)), (3, Some("bob")));
//! assert!(lines.read()?.is_none());
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use csv_core::{ReadFieldResult, ReaderBuilder, Terminator};
use tern_protocol::{Error, Result};

use crate::text;

/// Most bytes of a line, and of lines that are looked at for the end of a quote.
const LONGEST: usize = 16 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A record, or a line that is none.
pub type Line = std::result::Result<Record, BadLine>;

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
    /// Takes a table's first line as names, without the spaces around them.
    ///
    /// # Errors
    /// [`BadLine`] for a table without a record, a first one that can't be read, and a name that
    /// two columns have: either could be meant.
    pub fn read(first: Option<Line>) -> std::result::Result<Self, BadLine> {
        let reason = "empty, expected a line that names the columns".into();
        let empty = BadLine { line: 1, reason, fields: Vec::new() };
        let Record { line, fields } = first.unwrap_or(Err(empty))?;
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
    pub fn fits(&self, Record { line, fields }: Record) -> Line {
        match (fields.len(), self.names.len()) {
            (values, columns) if values == columns => Ok(Record { line, fields }),
            (values, columns) => {
                let reason = format!("{values} values, expected {columns}");
                Err(BadLine { line, reason, fields })
            }
        }
    }
}

/// Reads values that are separated by commas, in memory of a record. Blank lines are left out, and
/// spaces around a value in quotes. A line that isn't UTF-8 is bad, and so is one where a quote
/// opens that isn't closed before a comma or a line's end; reading goes on with the next.
pub struct Reader {
    input: Box<dyn BufRead + Send>,
    path: PathBuf,
    separator: u8,
    core: csv_core::Reader,
    /// Whole lines, each with its end, and how many of these bytes are done with.
    buffer: Vec<u8>,
    done: usize,
    /// The number of the line that comes next, from 1.
    line: usize,
    /// Values of the record that is read, one after the other, and where each ends. What is behind
    /// the last one is room for more.
    values: Vec<u8>,
    ends: Vec<usize>,
}

impl Reader {
    /// Of a file, unpacked if it is gzip.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Reader { path: path.into(), ..Self::new(text::open(path)?) })
    }

    /// Of what isn't a file.
    pub fn new(input: impl BufRead + Send + 'static) -> Self {
        Reader {
            input: Box::new(input),
            path: PathBuf::new(),
            separator: b',',
            core: core(b','),
            buffer: Vec::new(),
            done: 0,
            line: 1,
            values: vec![0; 1 << 10],
            ends: Vec::new(),
        }
    }

    /// With another byte between values than a comma.
    pub fn separated_by(self, separator: u8) -> Self {
        Reader { separator, core: core(separator), ..self }
    }

    /// The next line with values, `None` at the end.
    ///
    /// # Errors
    /// [`Error::File`] for what can't be read, and for a line of more than 16 MiB.
    pub fn read(&mut self) -> Result<Option<Line>> {
        loop {
            if self.done == self.buffer.len() {
                self.buffer.clear();
                self.done = 0;
                if !self.fill()? {
                    return Ok(None);
                }
            }
            let from = self.done;
            let end = line_end(&self.buffer, from);
            if self.buffer[from..end].trim_ascii().is_empty() {
                self.done = end;
                self.line += 1;
                continue;
            }
            let open = self.split()?;
            let line = self.line;
            let record = &self.buffer[from..self.done];
            self.line += newlines(record);
            let wrong = match (open, std::str::from_utf8(record)) {
                (Some(quote), _) => Some((quote - from, "a quote that isn't closed")),
                (None, Err(error)) => Some((error.valid_up_to(), "not UTF-8")),
                (None, Ok(_)) => None,
            };
            let wrong = wrong.map(|(at, reason)| (line + newlines(&record[..at]), reason));
            let fields = self.fields();
            match wrong {
                Some((line, reason)) => {
                    return Ok(Some(Err(BadLine { line, reason: reason.into(), fields })));
                }
                None if matches!(fields.as_slice(), [only] if only.trim().is_empty()) => {}
                None => return Ok(Some(Ok(Record { line, fields }))),
            }
        }
    }

    fn fields(&self) -> Vec<String> {
        let starts = std::iter::once(&0).chain(&self.ends);
        let value = |(start, end): (&usize, &usize)| &self.values[*start..*end];
        let text = |value| String::from_utf8_lossy(value).into_owned();
        starts.zip(&self.ends).map(value).map(text).collect()
    }

    /// Adds a line to the buffer; whether there is one.
    fn fill(&mut self) -> Result<bool> {
        let before = self.buffer.len();
        let mut line = (&mut self.input).take(LONGEST as u64 + 1);
        let read = line.read_until(b'\n', &mut self.buffer);
        let read = read.map_err(|error| text::failed(&self.path, &error))?;
        if read > LONGEST {
            let line = self.line + newlines(&self.buffer[..before]);
            let reason = format!("line {line}: more than {} MiB", LONGEST >> 20);
            return Err(Error::file(&self.path, reason));
        }
        if (self.line, before) == (1, 0) && self.buffer.starts_with(BYTE_ORDER_MARK) {
            self.buffer.drain(..BYTE_ORDER_MARK.len());
        }
        if read > 0 && !self.buffer.ends_with(b"\n") {
            self.buffer.push(b'\n');
        }
        Ok(read > 0)
    }

    /// Splits a record, and says where in the buffer a quote opens that isn't closed: such a record
    /// ends with the line of that quote.
    fn split(&mut self) -> Result<Option<usize>> {
        let (record, mut open) = (self.done, None);
        self.ends.clear();
        loop {
            let field = self.done;
            let spaces = self.buffer[field..].iter().take_while(|byte| **byte == b' ').count();
            let quote = Some(field + spaces).filter(|at| self.buffer[*at] == b'"');
            self.done = quote.unwrap_or(field);
            // Behind an open quote nothing goes on over further lines.
            let limit = open.map(|open| line_end(&self.buffer, open));
            let last = match (quote, limit) {
                (None, Some(_)) => self.plain(),
                _ => match (self.value(record, limit)?, quote) {
                    (Some(last), _) => last,
                    (None, quote) => {
                        let quote = quote.unwrap_or(field);
                        open.get_or_insert(quote);
                        self.core.reset();
                        self.done = quote + 1;
                        self.plain()
                    }
                },
            };
            if last {
                return Ok(open);
            }
        }
    }

    /// Adds a value; whether it is its record's last. `None` for a quote that isn't closed.
    fn value(&mut self, record: usize, limit: Option<usize>) -> Result<Option<bool>> {
        let from = self.done;
        let mut written = self.ends.last().copied().unwrap_or(0);
        let last = loop {
            let input = &self.buffer[self.done..limit.unwrap_or(self.buffer.len())];
            if input.is_empty() {
                let read = self.buffer.len() - record;
                if limit.is_some() || read > LONGEST || !self.fill()? {
                    return Ok(None);
                }
                continue;
            }
            let room = &mut self.values[written..];
            let (found, read, added) = self.core.read_field(input, room);
            self.done += read;
            written += added;
            match found {
                ReadFieldResult::Field { record_end } => break record_end,
                ReadFieldResult::OutputFull => self.values.resize(2 * self.values.len(), 0),
                ReadFieldResult::InputEmpty | ReadFieldResult::End => {}
            }
        };
        let raw = &self.buffer[from..self.done - 1];
        if raw.starts_with(b"\"") {
            // What stands behind the closing quote was added to the value.
            let behind = raw.iter().rev().take_while(|byte| matches!(**byte, b' ' | b'\r')).count();
            if !is_quoted(&raw[..raw.len() - behind]) {
                return Ok(None);
            }
            written -= behind;
        } else if last && raw.ends_with(b"\r") {
            written -= 1;
        }
        self.ends.push(written);
        Ok(Some(last))
    }

    /// Adds what stands before the next comma or the line's end, whatever it is; whether it is its
    /// record's last.
    fn plain(&mut self) -> bool {
        let rest = &self.buffer[self.done..];
        let is_end = |byte: &u8| matches!(*byte, b'\n') || *byte == self.separator;
        let length = rest.iter().position(is_end).unwrap_or(rest.len());
        let last = rest.get(length).is_none_or(|end| *end == b'\n');
        let value = rest[..length].strip_suffix(b"\r").filter(|_| last);
        let value = value.unwrap_or(&rest[..length]);
        let from = self.ends.last().copied().unwrap_or(0);
        let to = from + value.len();
        if self.values.len() < to {
            self.values.resize(to, 0);
        }
        self.values[from..to].copy_from_slice(value);
        self.ends.push(to);
        self.done += length + usize::from(length < rest.len());
        last
    }
}

/// Line ends are those of lines: a carriage return alone is a character.
fn core(separator: u8) -> csv_core::Reader {
    ReaderBuilder::new().delimiter(separator).terminator(Terminator::Any(b'\n')).build()
}

/// Whether a value ends with its closing quote, and has quotes in pairs between.
fn is_quoted(value: &[u8]) -> bool {
    let inside = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    let pairs = |inside: &[u8]| {
        let runs = inside.split(|byte| *byte != b'"');
        runs.into_iter().all(|run| run.len().is_multiple_of(2))
    };
    inside.is_some_and(pairs)
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// Where the line ends that goes on at a place.
fn line_end(buffer: &[u8], at: usize) -> usize {
    let length = buffer[at..].iter().position(|byte| *byte == b'\n');
    length.map_or(buffer.len(), |length| at + length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &'static str) -> std::result::Result<Header, BadLine> {
        Header::read(Reader::new(text.as_bytes()).read().unwrap())
    }

    /// Line and values of each record, and what is wrong with it.
    fn split(bytes: &[u8]) -> Vec<String> {
        let mut reader = Reader::new(std::io::Cursor::new(bytes.to_vec()));
        let lines = std::iter::from_fn(|| reader.read().unwrap());
        let said = lines.map(|line| match line {
            Ok(Record { line, fields }) => format!("{line} {}", fields.join("|")),
            Err(BadLine { line, reason, fields }) => {
                format!("{line} {} ({reason})", fields.join("|"))
            }
        });
        said.collect()
    }

    /// A quote that isn't closed or bytes that aren't UTF-8 cost their line alone.
    #[test]
    fn bad_lines_end_where_they_end() {
        let open = "(a quote that isn't closed)";
        // To the file's end, to another quote, and on a record's second line.
        assert_eq!(split(b"a,\"b,c\n1,2\n"), [format!("1 a|b|c {open}"), "2 1|2".into()]);
        let expected = [format!("1 a|b|c {open}"), "2 1|2".into(), "3 x, y|3".into()];
        assert_eq!(split(b"a,\"b,\"c\"\n1,2\n\"x, y\",3"), expected);
        let expected = [format!("2 x\ny|b|c {open}"), "3 1|2".into()];
        assert_eq!(split(b"\"x\ny\",\"b,c\n1,2\n"), expected);
        assert_eq!(split(b"\"\n"), [format!("1  {open}")]);
        assert_eq!(split(b"a,\"\n\"b,\n"), [format!("1 a| {open}"), format!("2 b| {open}")]);
        // What follows it in its line is still read by the rules, and blank lines are none.
        assert_eq!(
            split(b"\"a,\"b, c\",\"d\n\n\"\"\n1"),
            [format!("1 a|b, c|d {open}"), "4 1".into()]
        );
        // A quote inside a value is one; around it there may be spaces.
        assert_eq!(split(b"5\" pipe, \"a, b\" ,\"\"\r\n"), ["1 5\" pipe|a, b|"]);
        assert_eq!(split(b"\"a\"\"\", \"\"\"\"\n"), ["1 a\"|\""]);
        let expected = ["1 a|\u{fffd} (not UTF-8)", "2 1|2", "4 x\n\u{fffd}|3 (not UTF-8)"];
        assert_eq!(split(b"a,\xff\n1,2\n\"x\n\xff\",3"), expected);
        // A mark belongs to the start of the file alone, a carriage return to a line's end.
        assert_eq!(split(b"\xef\xbb\xbf\"a\",b\rc\r\n"), ["1 a|b\rc"]);
    }

    /// However long values, records and files are.
    #[test]
    fn what_is_read_is_what_was_written() {
        let value = |i: usize| match i % 4 {
            0 => "long ".repeat(i),
            1 => format!("{i}, \"{i}\"\n\n"),
            2 => String::new(),
            _ => format!("plain {i}"),
        };
        let rows: Vec<Vec<String>> =
            (0..400).map(|row| (0..9).map(|at| value(row * 7 + at)).collect()).collect();
        let quoted = |value: &String| format!("\"{}\"", value.replace('"', "\"\""));
        let lines = rows.iter().map(|row| row.iter().map(quoted).collect::<Vec<_>>().join(","));
        let text: String = lines.map(|line| line + "\r\n").collect();
        let whole = text.len();
        let mut reader = Reader::new(std::io::Cursor::new(text.into_bytes()));
        for row in &rows {
            assert_eq!(&reader.read().unwrap().unwrap().unwrap().fields, row);
        }
        assert!(reader.read().unwrap().is_none());
        let held = reader.buffer.capacity() + reader.values.capacity();
        assert!(held < whole / 20, "{held} bytes held of {whole}");
    }

    /// A quote that never closes is looked for in so many bytes, and a line has no more.
    #[test]
    fn records_are_no_longer_than_what_is_held_in_memory() {
        let rows = format!("\"a\n{}", "1234567\n".repeat(3 * LONGEST / 8));
        let mut reader = Reader::new(std::io::Cursor::new(rows));
        assert_eq!(reader.read().unwrap().unwrap().unwrap_err().line, 1);
        for line in 2..5 {
            assert_eq!(reader.read().unwrap().unwrap().unwrap().line, line);
        }
        assert!(reader.buffer.len() < 2 * LONGEST);
        let endless = std::io::BufReader::new(std::io::repeat(b'7'));
        let error = Reader::new(endless).read().unwrap_err().to_string();
        assert!(error.contains("line 1: more than 16 MiB"), "{error}");
    }

    #[test]
    fn values_may_be_separated_by_something_else() {
        let mut reader = Reader::new(&b"a,b\t\"c\td\"\n\"e\tf\n"[..]).separated_by(b'\t');
        assert_eq!(reader.read().unwrap().unwrap().unwrap().fields, ["a,b", "c\td"]);
        assert_eq!(reader.read().unwrap().unwrap().unwrap_err().fields, ["e", "f"]);
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
