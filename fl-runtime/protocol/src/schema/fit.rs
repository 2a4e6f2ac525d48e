//! Schemas that are fitted on rows as they come.

use std::collections::BTreeSet;

use super::{
    Column, ColumnKind, Label, MAX_CATEGORIES, MAX_CLASSES, Schema, VERSION, canonical, category,
    finite, is_missing, not_a_number, number, place, plain_number,
};
use crate::{Error, Result};

/// The first look at a table: which of its columns are numbers. [`Fit`] is the second one. Each
/// takes a row at a time, and memory in proportion to the schema.
///
/// ```
/// use tern_protocol::schema::Kinds;
///
/// # fn main() -> tern_protocol::Result<()> {
/// let names = ["age", "class"].map(String::from);
/// let rows = [["1", "no"], ["3", "yes"]].map(|row| row.map(String::from));
/// let mut kinds = Kinds::new(&names, "class", &[])?;
/// rows.iter().for_each(|row| kinds.see(row));
/// let mut fit = kinds.fit()?;
/// rows.iter().try_for_each(|row| fit.see(row))?;
/// assert_eq!(fit.finish()?.label.classes, ["no", "yes"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Kinds<'a> {
    names: &'a [String],
    label: usize,
    columns: Vec<Counted>,
    rows: u64,
}

/// Values of a column that aren't missing.
#[derive(Clone, Debug)]
struct Counted {
    at: usize,
    known: u64,
    numbers: u64,
}

impl<'a> Kinds<'a> {
    /// Of a table whose columns have these names: all but the label and those in `without` are
    /// features.
    ///
    /// # Errors
    /// [`Error::Value`] for a column that isn't there.
    pub fn new(names: &'a [String], label: &str, without: &[&str]) -> Result<Self> {
        let label = place(names, label)?;
        let mut left_out = vec![label];
        for name in without {
            left_out.push(place(names, name)?);
        }
        let kept = (0..names.len()).filter(|at| !left_out.contains(at));
        let columns = kept.map(|at| Counted { at, known: 0, numbers: 0 }).collect();
        Ok(Kinds { names, label, columns, rows: 0 })
    }

    /// Looks at a row, a value for each column of the table.
    pub fn see(&mut self, row: &[String]) {
        self.rows += 1;
        for Counted { at, known, numbers } in &mut self.columns {
            let value = &row[*at];
            if !is_missing(value) {
                *known += 1;
                *numbers += u64::from(number(value).is_some());
            }
        }
    }

    /// What the same rows are fitted by.
    ///
    /// # Errors
    /// [`Error::Value`] if there was no row.
    pub fn fit(self) -> Result<Fit<'a>> {
        if self.rows == 0 {
            return Err(Error::value("rows of the table", 0, "at least one"));
        }
        let values = |counted: Counted| match 2 * counted.numbers > counted.known {
            true => (counted.at, Values::Numbers(Moments::default())),
            false => (counted.at, Values::Categories(BTreeSet::new())),
        };
        let label = LabelFit::new(&self.names[self.label]);
        let columns = self.columns.into_iter().map(values).collect();
        Ok(Fit { names: self.names, at: self.label, label, columns, sound: 0, refused: None })
    }
}

/// The second look at a table: scaling, categories and classes.
#[derive(Clone, Debug)]
pub struct Fit<'a> {
    names: &'a [String],
    at: usize,
    label: LabelFit<'a>,
    columns: Vec<(usize, Values)>,
    sound: u64,
    /// What was wrong with the first row that nothing was fitted on.
    refused: Option<String>,
}

#[derive(Clone, Debug)]
enum Values {
    Numbers(Moments),
    Categories(BTreeSet<String>),
}

impl Fit<'_> {
    /// Looks at a row, a value for each column of the table; nothing is fitted on one with a word
    /// in a column of numbers.
    ///
    /// # Errors
    /// [`Error::Value`] for more than [`MAX_CATEGORIES`] values of a column that are no numbers,
    /// or more than [`MAX_CLASSES`] classes.
    pub fn see(&mut self, row: &[String]) -> Result<()> {
        let wrong = self.columns.iter().find_map(|(at, values)| match values {
            Values::Numbers(_) => not_a_number(&self.names[*at], &row[*at]),
            Values::Categories(_) => None,
        });
        if let Some(reason) = wrong {
            self.refused.get_or_insert(reason);
            return Ok(());
        }
        self.sound += 1;
        for (at, values) in &mut self.columns {
            match values {
                Values::Numbers(moments) => {
                    if let Some(x) = finite(&row[*at]) {
                        moments.add(x);
                    }
                }
                Values::Categories(known) => {
                    if !insert(known, &category(&row[*at]), MAX_CATEGORIES) {
                        let what = format!("number of values in column `{}`", self.names[*at]);
                        let value = format!("more than {MAX_CATEGORIES}");
                        let expected = format!(
                            "at most {MAX_CATEGORIES} that are no numbers, or the column left out"
                        );
                        return Err(Error::value(&what, value, expected));
                    }
                }
            }
        }
        self.label.see(&row[self.at])
    }

    /// The schema that the rows say.
    ///
    /// # Errors
    /// [`Error::Value`] if nothing could be fitted on any row.
    pub fn finish(self) -> Result<Schema> {
        if let (0, Some(reason)) = (self.sound, self.refused) {
            return Err(Error::value("rows to fit on", format!("none ({reason})"), "at least one"));
        }
        let columns = self.columns.into_iter().map(|(at, values)| Column {
            name: self.names[at].clone(),
            kind: match values {
                Values::Numbers(moments) => moments.scaling(),
                Values::Categories(known) => {
                    ColumnKind::Category { values: known.into_iter().collect() }
                }
            },
        });
        Ok(Schema { version: VERSION, columns: columns.collect(), label: self.label.finish() })
    }
}

/// The classes of a column, from its values as they come.
#[derive(Clone, Debug)]
pub struct LabelFit<'a> {
    name: &'a str,
    known: BTreeSet<String>,
}

impl<'a> LabelFit<'a> {
    /// Of a column.
    pub fn new(name: &'a str) -> Self {
        LabelFit { name, known: BTreeSet::new() }
    }

    /// Looks at a value; a missing one is no class.
    ///
    /// # Errors
    /// [`Error::Value`] for more than [`MAX_CLASSES`] classes.
    pub fn see(&mut self, value: &str) -> Result<()> {
        if is_missing(value) || insert(&mut self.known, &canonical(value), MAX_CLASSES) {
            return Ok(());
        }
        let what = format!("number of classes in column `{}`", self.name);
        let value = format!("more than {MAX_CLASSES}");
        Err(Error::value(&what, value, format!("at most {MAX_CLASSES}")))
    }

    /// The classes, numbers in the order of their values.
    pub fn finish(self) -> Label {
        let mut classes: Vec<String> = self.known.into_iter().collect();
        let numbers: Option<Vec<f64>> = classes.iter().map(|class| plain_number(class)).collect();
        if numbers.is_some() {
            classes
                .sort_by(|a, b| plain_number(a).partial_cmp(&plain_number(b)).unwrap_or(a.cmp(b)));
        }
        Label { name: self.name.into(), classes }
    }
}

/// Whether a value is in a set of at most so many, now if not before.
fn insert(known: &mut BTreeSet<String>, value: &str, most: usize) -> bool {
    known.contains(value) || known.len() < most && known.insert(value.to_owned())
}

/// Mean and variance of numbers as they come: Welford, "Note on a method for calculating corrected
/// sums of squares and products", Technometrics 4(3), 1962.
#[derive(Clone, Debug, Default)]
struct Moments {
    count: u64,
    mean: f64,
    /// The sum of squared differences from the mean.
    squares: f64,
}

impl Moments {
    fn add(&mut self, x: f64) {
        self.count += 1;
        let before = x - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (x - self.mean);
    }

    fn scaling(&self) -> ColumnKind {
        let variance = self.squares / self.count.max(1) as f64;
        let deviation = if variance > 0.0 { variance.sqrt() } else { 1.0 };
        ColumnKind::Number { mean: self.mean, deviation }
    }
}
