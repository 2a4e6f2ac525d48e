//! A TOML text with its places, so that an error can point at the line and the key.

use std::fmt;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// An error in a configuration: where, which key, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Name of the file.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Character of the line, counted from 1.
    pub column: usize,
    /// Tables and key, joined by points; empty where no key is meant.
    pub key: String,
    /// What is wrong and what was expected.
    pub message: String,
    /// The line itself.
    pub text: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConfigError { file, line, column, key, message, text } = self;
        let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
        writeln!(f, "{file}:{line}:{column}: {key}{message}")?;
        let margin = " ".repeat(line.to_string().len());
        writeln!(f, "{line} | {text}")?;
        write!(f, "{margin} | {}^", " ".repeat(column - 1))
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for crate::Error {
    fn from(error: ConfigError) -> Self {
        crate::Error::Config(Box::new(error))
    }
}

/// A TOML file's name and text.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Name, for messages.
    pub file: &'a str,
    /// The text.
    pub text: &'a str,
}

impl Source<'_> {
    /// Reads a value.
    ///
    /// # Errors
    /// [`ConfigError`] at the place where the text is no TOML, or something else is expected.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(self.text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            let message = match self.choices(&span) {
                Some(keys) if error.message().starts_with("wanted exactly 1 element") => {
                    format!("has the keys {}, expected one of them", keys.join(", "))
                }
                _ => error.message().trim_end().replace('\n', ", "),
            };
            self.error_at(span, message)
        })
    }

    /// The keys of the table that a place is of: where one of several is to be chosen, the
    /// parser's message doesn't name them.
    fn choices(&self, span: &Range<usize>) -> Option<Vec<String>> {
        let table = DeTable::parse(self.text).ok()?;
        table.get_ref().values().find_map(|value| keys_within(value, span))
    }

    /// An error about a key, given as tables and key, `["server", "listen"]` say. A key that
    /// is not in the text is looked for in the table that should have it.
    pub fn error(&self, path: &[&str], message: impl fmt::Display) -> ConfigError {
        let table = DeTable::parse(self.text).ok();
        let span = table.and_then(|table| find(&table, path)).unwrap_or(0..0);
        ConfigError { key: path.join("."), ..self.error_at(span, message.to_string()) }
    }

    fn error_at(&self, span: Range<usize>, message: String) -> ConfigError {
        let at = span.start.min(self.text.len());
        // The end of the text belongs to its last line.
        let at = if at == self.text.len() { self.text.trim_end().len() } else { at };
        let before = self.text.get(..at).unwrap_or("");
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let key = DeTable::parse(self.text).map(|table| key_at(&table, at)).unwrap_or_default();
        ConfigError {
            file: self.file.into(),
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
            key: key.join("."),
            message,
            text: self.text[start..].lines().next().unwrap_or("").into(),
        }
    }
}

/// Place of a key's value, or of the innermost table on the way to it.
fn find(root: &Spanned<DeTable<'_>>, path: &[&str]) -> Option<Range<usize>> {
    let (mut table, mut span) = (root.get_ref(), None);
    for name in path {
        let Some((_, value)) = table.iter().find(|(key, _)| key.get_ref() == name) else { break };
        span = Some(value.span());
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    span
}

/// The keys of the table at exactly this place.
fn keys_within(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<Vec<String>> {
    match value.get_ref() {
        DeValue::Table(table) if value.span() == *span => {
            Some(table.keys().map(|key| key.get_ref().to_string()).collect())
        }
        DeValue::Table(table) => table.values().find_map(|value| keys_within(value, span)),
        DeValue::Array(list) => list.iter().find_map(|value| keys_within(value, span)),
        _ => None,
    }
}

/// Tables and key at a place.
fn key_at(root: &Spanned<DeTable<'_>>, at: usize) -> Vec<String> {
    let within = |span: Range<usize>| span.start <= at && at < span.end.max(span.start + 1);
    let (mut table, mut path) = (root.get_ref(), Vec::new());
    loop {
        // A table's own span is its header; its keys can lie behind it.
        let found = table.iter().find(|(key, value)| {
            let inside = matches!(value.get_ref(), DeValue::Table(inner) if holds(inner, at));
            within(key.span()) || within(value.span()) || inside
        });
        let Some((key, value)) = found else { return path };
        path.push(key.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => return path,
        }
    }
}

fn holds(table: &DeTable<'_>, at: usize) -> bool {
    table.iter().any(|(key, value)| {
        let inside = |span: Range<usize>| span.contains(&at);
        let below = matches!(value.get_ref(), DeValue::Table(inner) if holds(inner, at));
        inside(key.span()) || inside(value.span()) || below
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        name: String,
        inner: Inner,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        count: u8,
        #[serde(default)]
        deep: Option<Deep>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Deep {
        rate: f64,
    }

    fn parse(text: &str) -> Result<Outer, ConfigError> {
        Source { file: "t.toml", text }.parse()
    }

    #[test]
    fn errors_point_at_line_and_key() {
        let good = "name = \"ö\"\n\n[inner]\ncount = 7\n\n[inner.deep]\nrate = 0.5\n";
        let outer = parse(good).unwrap();
        assert_eq!((outer.name.as_str(), outer.inner.count), ("ö", 7));
        assert_eq!(outer.inner.deep.unwrap().rate, 0.5);
        let cases = [
            (good.replace("7", "700"), 4, 9, "inner.count", "u8"),
            (good.replace("7", "\"x\""), 4, 9, "inner.count", "expected u8"),
            (good.replace("count", "cuont"), 4, 1, "inner.cuont", "count"),
            (good.replace("0.5", "[]"), 7, 8, "inner.deep.rate", "f64"),
            (good.replace("count = 7\n", ""), 3, 1, "inner", "count"),
            (good.replace("\"ö\"", "\"ö\" x"), 1, 12, "", "newline"),
        ];
        for (text, line, column, key, expected) in cases {
            let error = parse(&text).unwrap_err();
            let place = (error.line, error.column, error.key.as_str());
            assert_eq!(place, (line, column, key), "{error}\nin\n{text}");
            assert!(error.message.contains(expected), "{error}");
            assert_eq!(error.text, text.lines().nth(line - 1).unwrap());
        }
    }

    #[test]
    fn a_value_out_of_range_is_shown_where_it_stands() {
        let text = "name = \"a\"\n[inner]\ncount = 7\n";
        let source = Source { file: "t.toml", text };
        let error = source.error(&["inner", "count"], "7, expected at most 5");
        let expected = "t.toml:3:9: inner.count: 7, expected at most 5\n\
                        3 | count = 7\n  |         ^";
        assert_eq!(error.to_string(), expected);
        // A default that is out of range together with what was given.
        let error = source.error(&["inner", "deep", "rate"], "0, expected more");
        assert_eq!((error.line, error.key.as_str()), (2, "inner.deep.rate"));
        assert_eq!(source.error(&["other"], "missing").line, 1);
        Source { file: "e.toml", text: "" }.error(&["x"], "y").to_string();
    }
}
