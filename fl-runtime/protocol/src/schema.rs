//! What the columns of a table mean: which are features, how they are scaled, what the classes are.
//!
//! ```
//! use tern_protocol::schema::Schema;
//!
//! # fn main() -> tern_protocol::Result<()> {
//! let names = ["age", "job", "class"].map(String::from);
//! let sample = [["1", "baker", "no"], ["3", "smith", "yes"]].map(|row| row.map(String::from));
//! let rows: Vec<&[String]> = sample.iter().map(|row| &row[..]).collect();
//! let schema = Schema::fit(&names, &rows, "class", &[])?;
//! // Ages have mean 0 and deviation 1; each job is a feature.
//! assert_eq!((schema.width(), schema.label.classes.len()), (3, 2));
//!
//! // Columns are found by their names.
//! let reader = schema.reader(&["class", "job", "age"].map(String::from))?;
//! let mut features = Vec::new();
//! let class = reader.row(&["yes", "baker", "5"].map(String::from), &mut features);
//! assert_eq!((class, features), (Ok(1), vec![3.0, 1.0, 0.0]));
//! # Ok(())
//! # }
//! ```

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

mod fit;

pub use fit::{Fit, Kinds, LabelFit};

/// The version of schemas that this program reads.
pub const VERSION: u32 = 1;

/// Most different values of a column that become a feature each. A column with more of them says
/// which row is which, and features in its square would be needed.
pub const MAX_CATEGORIES: usize = 1000;

/// Most classes of a label: what has more of them is a number or says which row is which.
pub const MAX_CLASSES: usize = 1 << 16;

/// The category of values that are missing.
const MISSING: &str = "?";

/// How the values of a table become features and classes. All clients of a run are told it: what it
/// is fitted on shows in its means, categories and classes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// Version of the schema.
    pub version: u32,
    /// The columns that become features, in the order of these.
    pub columns: Vec<Column>,
    /// The column with the class.
    pub label: Label,
}

/// A column that becomes features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What its values are.
    pub kind: ColumnKind,
}

/// What the values of a column are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ColumnKind {
    /// Numbers: one feature, the value less the mean, by the deviation. One that is missing or not
    /// finite is 0, the mean.
    Number {
        /// What is taken off.
        mean: f64,
        /// What the rest is divided by.
        deviation: f64,
    },
    /// Categories: a feature for each, 1 for the value's and 0 for the others. A value that is none
    /// of them has 0 for all.
    Category {
        /// The values, `?` for missing ones.
        values: Vec<String>,
    },
}

/// The column with the class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// Its name.
    pub name: String,
    /// The classes, by their numbers. Numbers are in the order of their values, and whichever way
    /// one is written it is one class.
    pub classes: Vec<String>,
}

impl Label {
    /// Reads the column's values.
    pub fn reader(&self) -> LabelReader<'_> {
        let numbered = self.classes.iter().map(String::as_str).zip(0..);
        LabelReader { label: self, numbers: numbered.collect() }
    }
}

/// The numbers of classes by their values.
#[derive(Clone, Debug)]
pub struct LabelReader<'a> {
    label: &'a Label,
    numbers: BTreeMap<&'a str, u32>,
}

impl LabelReader<'_> {
    /// The number of a class.
    ///
    /// # Errors
    /// What is wrong with a value that is missing or none of the classes.
    pub fn class(&self, value: &str) -> std::result::Result<u32, String> {
        let Label { name, classes } = self.label;
        if is_missing(value) {
            return Err(format!("{name} is missing, expected a class"));
        }
        self.numbers.get(&*canonical(value)).copied().ok_or_else(|| {
            let some = classes.iter().take(10).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if classes.len() > 10 { ", …" } else { "" };
            format!("{name} is `{}`, expected one of {some}{more}", value.trim())
        })
    }
}

impl Schema {
    /// The schema that rows of a table say: all columns but the label and those in `without` are
    /// features. Values are missing where they are empty or `?`. A column is one of numbers if more
    /// than half of its values that aren't missing are; nothing is fitted on a row with another
    /// value there.
    ///
    /// Rows that aren't in memory are looked at by [`Kinds`] and [`Fit`].
    ///
    /// # Errors
    /// [`Error::Value`] for a column that isn't there, no rows, none that can be fitted on, and a
    /// column with more than [`MAX_CATEGORIES`] values that are no numbers or [`MAX_CLASSES`]
    /// classes.
    pub fn fit(
        names: &[String],
        rows: &[&[String]],
        label: &str,
        without: &[&str],
    ) -> Result<Self> {
        let mut kinds = Kinds::new(names, label, without)?;
        rows.iter().for_each(|row| kinds.see(row));
        let mut fit = kinds.fit()?;
        rows.iter().try_for_each(|row| fit.see(row))?;
        fit.finish()
    }

    /// Whether it makes sense, wherever it comes from.
    ///
    /// # Errors
    /// [`Error::Value`] for another version, a name, category or class that is there twice, a
    /// scaling that is none, and a schema without features or classes. Its name is the key in a
    /// plan.
    pub fn check(&self) -> Result<()> {
        if self.version != VERSION {
            return Err(Error::value("schema.version", self.version, VERSION.to_string()));
        }
        let wrong =
            |value: String, expected: &str| Err(Error::value("schema.columns", value, expected));
        let names = self.columns.iter().map(|column| &column.name).chain([&self.label.name]);
        if let Some(name) = twice(names) {
            return wrong(format!("`{name}` twice"), "a name of its own for each, and the label");
        }
        for Column { name, kind } in &self.columns {
            match kind {
                ColumnKind::Number { mean, deviation } => {
                    if !(mean.is_finite() && deviation.is_finite() && *deviation > 0.0) {
                        let value = format!("`{name}` with mean {mean} and deviation {deviation}");
                        return wrong(value, "finite ones, and a deviation above 0");
                    }
                }
                ColumnKind::Category { values } => {
                    if let Some(value) = twice(values) {
                        return wrong(format!("`{name}` with `{value}` twice"), "each value once");
                    }
                    if values.len() > MAX_CATEGORIES {
                        let value = format!("`{name}` with {} values", values.len());
                        return wrong(value, &format!("at most {MAX_CATEGORIES}"));
                    }
                }
            }
        }
        if self.width() == 0 {
            return wrong("no feature".into(), "at least one");
        }
        let classes = &self.label.classes;
        match twice(classes) {
            Some(class) => {
                let value = format!("`{class}` twice");
                Err(Error::value("schema.label.classes", value, "each class once"))
            }
            None if classes.is_empty() => {
                Err(Error::value("schema.label.classes", "empty", "at least one"))
            }
            None if classes.len() > MAX_CLASSES => {
                let expected = format!("at most {MAX_CLASSES} classes");
                Err(Error::value("schema.label.classes", classes.len(), expected))
            }
            None => Ok(()),
        }
    }

    /// Features of a row.
    pub fn width(&self) -> usize {
        self.columns.iter().map(|column| column.kind.width()).sum()
    }

    /// Reads tables whose columns have these names, in any order; what isn't in the schema is left
    /// out.
    ///
    /// # Errors
    /// [`Error::Value`] for a column that isn't there.
    pub fn reader(&self, names: &[String]) -> Result<Reader<'_>> {
        let (features, at) = (self.features(names)?, place(names, &self.label.name)?);
        Ok(Reader { features, at, label: self.label.reader() })
    }

    /// Reads the features alone, of tables that need not have the class.
    ///
    /// # Errors
    /// [`Error::Value`] for a column that isn't there.
    pub fn features(&self, names: &[String]) -> Result<Features<'_>> {
        let columns = self.columns.iter().map(|column| {
            let values = match &column.kind {
                ColumnKind::Number { .. } => BTreeMap::new(),
                ColumnKind::Category { values } => {
                    values.iter().map(String::as_str).zip(0..).collect()
                }
            };
            Ok((place(names, &column.name)?, column, values))
        });
        Ok(Features { columns: columns.collect::<Result<_>>()? })
    }
}

impl ColumnKind {
    fn width(&self) -> usize {
        match self {
            ColumnKind::Number { .. } => 1,
            ColumnKind::Category { values } => values.len(),
        }
    }
}

/// A schema over the columns of a table.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    features: Features<'a>,
    at: usize,
    label: LabelReader<'a>,
}

impl Reader<'_> {
    /// Adds a row's features and returns its class. A row that is refused leaves features, too.
    ///
    /// # Errors
    /// As of [`Features::row`], and a class that is missing or not known.
    pub fn row(
        &self,
        fields: &[String],
        features: &mut Vec<f32>,
    ) -> std::result::Result<u32, String> {
        self.features.row(fields, features)?;
        self.label.class(&fields[self.at])
    }
}

/// The features of a schema over the columns of a table.
#[derive(Clone, Debug)]
pub struct Features<'a> {
    /// Place in the table, and the numbers of categories.
    columns: Vec<(usize, &'a Column, BTreeMap<&'a str, usize>)>,
}

impl Features<'_> {
    /// Adds a row's features. A row that is refused leaves some, too.
    ///
    /// # Errors
    /// What is wrong with the row: a word in a column of numbers.
    pub fn row(
        &self,
        fields: &[String],
        features: &mut Vec<f32>,
    ) -> std::result::Result<(), String> {
        let mut wrong = None;
        for (at, column, values) in &self.columns {
            let value = fields[*at].as_str();
            match &column.kind {
                ColumnKind::Number { mean, deviation } => {
                    let scaled = finite(value).map(|x| ((x - mean) / deviation) as f32);
                    features.push(scaled.filter(|x| x.is_finite()).unwrap_or(0.0));
                    wrong = wrong.or_else(|| not_a_number(&column.name, value));
                }
                ColumnKind::Category { .. } => {
                    let start = features.len();
                    features.resize(start + values.len(), 0.0);
                    if let Some(number) = values.get(&*category(value)) {
                        features[start + number] = 1.0;
                    }
                }
            }
        }
        wrong.map_or(Ok(()), Err)
    }
}

/// The first that was there before.
fn twice<'a>(names: impl IntoIterator<Item = &'a String>) -> Option<&'a String> {
    let mut seen = BTreeSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}

fn place(names: &[String], name: &str) -> Result<usize> {
    let place = names.iter().position(|column| column == name);
    place.ok_or_else(|| Error::value("column", name, format!("one of {}", names.join(", "))))
}

fn number(value: &str) -> Option<f32> {
    value.trim().parse().ok()
}

fn finite(value: &str) -> Option<f64> {
    number(value).filter(|x| x.is_finite()).map(f64::from)
}

/// What is wrong with a value among numbers.
fn not_a_number(name: &str, value: &str) -> Option<String> {
    let wrong = number(value).is_none() && !is_missing(value);
    wrong.then(|| format!("{name} is `{}`, expected a number", value.trim()))
}

fn is_missing(value: &str) -> bool {
    matches!(value.trim(), "" | MISSING)
}

/// A number that is written in more than one way, such as `1` and `1.0`. Zeros in front belong to
/// codes, and of long ones digits would be lost.
fn plain_number(value: &str) -> Option<f64> {
    let digits = value.trim_start_matches(['-', '+']);
    let code = digits.starts_with('0') && digits[1..].starts_with(|c: char| c.is_ascii_digit());
    let number = value.parse::<f64>().ok().filter(|_| !code);
    number.filter(|x| x.abs() < f64::powi(2.0, 53)).map(|x| x + 0.0)
}

/// A value without the spaces around it, a number in the shortest way to write it.
fn canonical(value: &str) -> Cow<'_, str> {
    let value = value.trim();
    plain_number(value).map_or(value.into(), |x| x.to_string().into())
}

fn category(value: &str) -> Cow<'_, str> {
    if is_missing(value) { MISSING.into() } else { canonical(value) }
}

#[cfg(test)]
mod tests;
