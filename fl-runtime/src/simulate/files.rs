//! Data sets from files: text by speaker, tables, digits. Plain or gzip.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// What one speaker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speech {
    /// The speaker, or the file without its extension.
    pub name: String,
    /// The lines, each with its end.
    pub text: String,
}

/// A file's bytes, unpacked if they are gzip.
///
/// # Errors
/// [`Error::File`].
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(|error| Error::file(path, error))?;
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    let mut unpacked = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes.as_slice())
        .read_to_end(&mut unpacked)
        .map_err(|error| Error::file(path, error))?;
    Ok(unpacked)
}

fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|error| Error::file(path, error))
}

/// Files, and the files of folders, in the order of their names.
fn listed(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let failed = |error| Error::file(path, error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.path().is_file() && !entry.file_name().to_string_lossy().starts_with('.') {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Text by speaker. In a file whose first line with text starts with `@`, each such line names
/// who speaks from there on; any other file is one speaker, named after it. Who occurs twice is
/// one speaker. Blank lines are left out.
///
/// # Errors
/// [`Error::File`] for files that can't be read or hold no text.
pub fn speeches(paths: &[PathBuf]) -> Result<Vec<Speech>> {
    let mut speeches: Vec<Speech> = Vec::new();
    let mut places = std::collections::BTreeMap::new();
    for path in paths {
        for file in listed(path)? {
            let text = read_text(&file)?;
            let mut lines = text.lines().filter(|line| !line.trim().is_empty()).peekable();
            let tagged = lines.peek().is_some_and(|line| line.starts_with('@'));
            let stem = file.file_name().unwrap_or_default().to_string_lossy();
            let mut name = stem.split('.').next().unwrap_or_default().to_owned();
            for line in lines {
                if let Some(tag) = line.strip_prefix('@').filter(|_| tagged) {
                    name = tag.trim().to_owned();
                    continue;
                }
                let at = *places.entry(name.clone()).or_insert_with(|| {
                    speeches.push(Speech { name: name.clone(), text: String::new() });
                    speeches.len() - 1
                });
                speeches[at].text.push_str(line.trim_end());
                speeches[at].text.push('\n');
            }
        }
    }
    if speeches.is_empty() {
        let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(Error::File { path: names.join(", "), reason: "no text".into() });
    }
    Ok(speeches)
}

/// Texts as numbers of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alphabet {
    characters: Vec<char>,
}

impl Alphabet {
    /// The characters of these texts, in their order; what comes later and isn't among them is
    /// one more.
    pub fn of<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let characters: std::collections::BTreeSet<char> = texts.flat_map(str::chars).collect();
        Alphabet { characters: characters.into_iter().collect() }
    }

    /// Different tokens.
    pub fn vocabulary(&self) -> usize {
        self.characters.len() + 1
    }

    /// A text as tokens.
    pub fn tokens(&self, text: &str) -> Vec<u32> {
        let token = |c| self.characters.binary_search(&c).map_or(self.characters.len(), |at| at);
        text.chars().map(|c| token(c) as u32).collect()
    }
}

/// Rows of numbers with a class each.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// Features, `[rows, width]`.
    pub features: Vec<f32>,
    /// Numbers a row.
    pub width: usize,
    /// Classes, `[rows]`.
    pub labels: Vec<u32>,
    /// Names of the classes.
    pub classes: Vec<String>,
}

/// Images and labels in IDX files, the largest value of a pixel as 1.
///
/// # Errors
/// [`Error::File`] for another format or numbers of images and labels that differ.
pub fn digits(images: &Path, labels: &Path) -> Result<Rows> {
    Ok(digits_by(images, labels, None)?.0)
}

/// [`digits`] with another value of a pixel as 1, so that no image changes how the others are
/// scaled; and the value that was taken.
///
/// # Errors
/// As [`digits`].
pub fn digits_by(images: &Path, labels: &Path, one: Option<u8>) -> Result<(Rows, u8)> {
    let (shape, pixels) = idx(images)?;
    let (_, labels_read) = idx(labels)?;
    let rows = shape[0];
    if labels_read.len() != rows {
        let reason = format!("{} labels for {rows} images", labels_read.len());
        return Err(Error::file(labels, reason));
    }
    let one = one.or(pixels.iter().copied().max()).unwrap_or(0).max(1);
    let classes = labels_read.iter().copied().max().unwrap_or(0);
    let rows = Rows {
        features: pixels.iter().map(|pixel| f32::from(*pixel) / f32::from(one)).collect(),
        width: shape[1..].iter().product(),
        labels: labels_read.iter().map(|label| u32::from(*label)).collect(),
        classes: (0..=classes).map(|class| class.to_string()).collect(),
    };
    Ok((rows, one))
}

/// Shape and bytes of an IDX file of bytes.
fn idx(path: &Path) -> Result<(Vec<usize>, Vec<u8>)> {
    let bytes = read(path)?;
    let bad = || Error::file(path, "no IDX file of bytes");
    let Some(([0, 0, 8, dimensions], rest)) = bytes.split_first_chunk() else { return Err(bad()) };
    let Some((sizes, data)) = rest.split_at_checked(4 * usize::from(*dimensions)) else {
        return Err(bad());
    };
    let shape: Vec<usize> =
        sizes.as_chunks::<4>().0.iter().map(|size| u32::from_be_bytes(*size) as usize).collect();
    if shape.is_empty() || shape.iter().product::<usize>() != data.len() {
        return Err(bad());
    }
    Ok((shape, data.to_vec()))
}

/// A table of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    /// Where each row starts.
    lines: Vec<usize>,
}

/// A line that is no row of its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
    /// What it has.
    pub fields: Vec<String>,
}

impl Table {
    /// Reads comma-separated values (RFC 4180) whose first line names the columns.
    ///
    /// # Errors
    /// [`Error::File`] for a row with another number of fields, with its line.
    pub fn read(path: &Path) -> Result<Self> {
        let (table, bad) = Self::read_some(path)?;
        match bad.first() {
            Some(BadLine { line, reason, .. }) => {
                Err(Error::file(path, format!("line {line}: {reason}")))
            }
            None => Ok(table),
        }
    }

    /// [`Table::read`] without the lines that have another number of fields; these, too.
    ///
    /// # Errors
    /// [`Error::File`] for a file that can't be read, or without a line of names.
    pub fn read_some(path: &Path) -> Result<(Self, Vec<BadLine>)> {
        let text = read_text(path)?;
        let mut records = records(&text).into_iter();
        let Some((_, header)) = records.next() else {
            return Err(Error::file(path, "no header line"));
        };
        let (sound, bad): (Vec<_>, Vec<_>) =
            records.partition(|(_, fields)| fields.len() == header.len());
        let bad = bad.into_iter().map(|(line, fields)| {
            let reason = format!("{} fields, the header has {}", fields.len(), header.len());
            BadLine { line, reason, fields }
        });
        let bad = bad.collect();
        let (lines, rows) = sound.into_iter().unzip();
        Ok((Table { header, rows, lines }, bad))
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
        let place = self.header.iter().position(|column| column == name);
        place.ok_or_else(|| {
            Error::value("column", name, format!("one of {}", self.header.join(", ")))
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

    /// The rows as features and classes: columns of numbers with mean 0 and deviation 1, a
    /// feature for each value of any other column; `label` has the class, and the columns in
    /// `without` are left out. A number that isn't finite is 0.
    ///
    /// # Errors
    /// [`Error::Value`] for a column that isn't there, or a table without rows.
    pub fn rows(&self, label: &str, without: &[&str]) -> Result<Rows> {
        self.fitted(label, without, &(0..self.rows.len()).collect::<Vec<_>>())
    }

    /// [`Table::rows`] by what the rows `fit` say: which columns are numbers, their mean and
    /// deviation, the values of the others. So no other row changes more than its own features.
    /// Of those, what is no number in a column of numbers is 0, the mean, and a value that `fit`
    /// doesn't have is none. The names of the classes come from all rows: they are no secret.
    ///
    /// # Errors
    /// [`Error::Value`] for a column or a row that isn't there, or an empty `fit`.
    pub fn fitted(&self, label: &str, without: &[&str], fit: &[usize]) -> Result<Rows> {
        let classes_of = self.column(label)?;
        let rows = self.rows.len();
        if fit.is_empty() {
            return Err(Error::value("rows of the table", 0, "at least one"));
        }
        if let Some(row) = fit.iter().find(|row| **row >= rows) {
            return Err(Error::value("row to scale by", row, format!("below {rows}")));
        }
        let mut columns: Vec<Vec<f32>> = Vec::new();
        for name in self.header.iter().filter(|n| *n != label && !without.contains(&n.as_str())) {
            columns.extend(features(&self.column(name)?, fit));
        }
        let classes = different(classes_of.iter());
        let labels =
            classes_of.iter().map(|value| classes.partition_point(|c| *c < value.trim()) as u32);
        let labels = labels.collect();
        Ok(Rows {
            features: (0..rows).flat_map(|row| columns.iter().map(move |c| c[row])).collect(),
            width: columns.len(),
            labels,
            classes: classes.into_iter().map(str::to_owned).collect(),
        })
    }
}

/// The features of a column, as its rows `fit` say.
fn features(values: &[&str], fit: &[usize]) -> Vec<Vec<f32>> {
    let number = |value: &str| value.trim().parse::<f32>().ok();
    match fit.iter().map(|row| number(values[*row])).collect::<Option<Vec<_>>>() {
        Some(known) => {
            let numbers: Vec<_> = values.iter().map(|value| number(value)).collect();
            vec![standardized(&numbers, &known)]
        }
        None => {
            let column = |known: &str| {
                values.iter().map(|value| f32::from(u8::from(value.trim() == known))).collect()
            };
            different(fit.iter().map(|row| &values[*row])).into_iter().map(column).collect()
        }
    }
}

/// Numbers, such that those of `known` have mean 0 and deviation 1.
fn standardized(values: &[Option<f32>], known: &[f32]) -> Vec<f32> {
    let known: Vec<f64> = known.iter().filter(|x| x.is_finite()).map(|x| f64::from(*x)).collect();
    let n = known.len() as f64;
    let mean = known.iter().sum::<f64>() / n;
    let variance = known.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    let deviation = if variance > 0.0 { variance.sqrt() } else { 1.0 };
    let scaled = |x: &Option<f32>| {
        let x = x.map(|x| ((f64::from(x) - mean) / deviation) as f32);
        x.filter(|x| x.is_finite()).unwrap_or(0.0)
    };
    values.iter().map(scaled).collect()
}

/// Different values in their order.
fn different<'a>(values: impl Iterator<Item = &'a &'a str>) -> Vec<&'a str> {
    let known: std::collections::BTreeSet<&str> = values.map(|v| v.trim()).collect();
    known.into_iter().collect()
}

/// Records with the number of the line on which each starts.
fn records(text: &str) -> Vec<(usize, Vec<String>)> {
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut quoted, mut line, mut start) = (false, 1, 1);
    let mut characters = text.strip_prefix('\u{feff}').unwrap_or(text).chars().peekable();
    while let Some(c) = characters.next() {
        line += usize::from(c == '\n');
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                field.push('"');
                characters.next();
            }
            '"' => quoted = !quoted,
            _ if quoted => field.push(c),
            ',' => record.push(std::mem::take(&mut field)),
            '\r' if characters.peek() == Some(&'\n') => {}
            '\n' => {
                record.push(std::mem::take(&mut field));
                records.push((start, std::mem::take(&mut record)));
                start = line;
            }
            _ => field.push(c),
        }
    }
    if !field.is_empty() || !record.is_empty() {
        record.push(field);
        records.push((start, record));
    }
    records.retain(|(_, record)| !matches!(record.as_slice(), [only] if only.is_empty()));
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn speakers_are_gathered_over_files() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder, "a.txt", b"@A\none\n\ntwo\n@B\nthree\n");
        write(&folder, "b.txt", b"@B\nfour\n");
        write(&folder, "c.txt", b"no tag\n@A is a word here\n");
        let found = speeches(&[folder.path().to_path_buf()]).unwrap();
        let pairs: Vec<_> = found.iter().map(|s| (s.name.as_str(), s.text.as_str())).collect();
        let expected =
            [("A", "one\ntwo\n"), ("B", "three\nfour\n"), ("c", "no tag\n@A is a word here\n")];
        assert_eq!(pairs, expected);
        let alphabet = Alphabet::of(["abba", "c"].into_iter());
        assert_eq!((alphabet.vocabulary(), alphabet.tokens("cab?")), (4, vec![2, 0, 1, 3]));
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
        assert!(error.contains("line 5: 1 fields"), "{error}");
        let (table, bad) = Table::read_some(&path).unwrap();
        assert_eq!((table.lines(), table.place("b").unwrap()), (&[2, 3][..], 1));
        assert_eq!((bad.len(), bad[0].line, bad[0].fields.as_slice()), (1, 5, &["3".into()][..]));
    }

    /// What some rows say scales all, and no other row changes anything but its own features.
    #[test]
    fn rows_are_scaled_by_some_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let fitted = |third: &str| {
            let text = format!("age,job,class\n1,baker,yes\n3,smith,no\n{third}\n5,baker,no\n");
            let table = Table::read(&write(&folder, "t.csv", text.as_bytes())).unwrap();
            table.fitted("class", &[], &[0, 1]).unwrap()
        };
        let known = fitted("5,smith,no");
        let expected = [-1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 3.0, 0.0, 1.0, 3.0, 1.0, 0.0];
        assert_eq!((known.width, known.features.as_slice()), (3, &expected[..]));
        // No number, no job that is known, another class, a number beyond all others.
        for (third, own) in [
            ("old,miner,no", [0.0, 0.0, 0.0]),
            ("inf,?,no", [0.0, 0.0, 0.0]),
            ("1e9,baker,no", [1e9, 1.0, 0.0]),
        ] {
            let other = fitted(third);
            assert_eq!(other.features[6..9], own, "{third}");
            assert_eq!(other.features[..6], known.features[..6], "{third}");
            assert_eq!(other.features[9..], known.features[9..], "{third}");
        }
        let table = Table::read(&write(&folder, "t.csv", b"a,b\n1,2\n")).unwrap();
        assert!(table.fitted("b", &[], &[1]).unwrap_err().to_string().contains("below 1"));
        assert!(table.fitted("b", &[], &[]).is_err());
    }

    #[test]
    fn digits_are_scaled() {
        let folder = tempfile::tempdir().unwrap();
        let images = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2][..], &[0, 16, 4, 8]];
        let images = write(&folder, "i", &images.concat());
        let labels = write(&folder, "l", &[0, 0, 8, 1, 0, 0, 0, 2, 3, 0]);
        let rows = digits(&images, &labels).unwrap();
        assert_eq!((rows.width, rows.classes.len()), (2, 4));
        assert_eq!(rows.features, [0.0, 1.0, 0.25, 0.5]);
        assert_eq!(rows.labels, [3, 0]);
        let (rows, one) = digits_by(&images, &labels, Some(32)).unwrap();
        assert_eq!((rows.features[1], one), (0.5, 32));
        let short = write(&folder, "s", &[0, 0, 8, 1, 0, 0, 0, 2, 3]);
        assert!(digits(&images, &short).is_err());
    }
}
