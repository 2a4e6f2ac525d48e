//! Plain tables with aligned columns, and numbers as people read them.

use std::fmt;

/// Rows of text under headings; columns of numbers are aligned to the right.
pub struct Table {
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new<T: ToString>(heading: &[T]) -> Self {
        Table { heading: heading.iter().map(T::to_string).collect(), rows: Vec::new() }
    }

    /// Adds a row, one cell a heading.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

fn numeric(cell: &str) -> bool {
    cell.is_empty() || cell.starts_with(|c: char| c.is_ascii_digit() || "+-–".contains(c))
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.heading.len();
        let all = || std::iter::once(&self.heading).chain(&self.rows);
        let width = |c: usize| all().map(|r| r[c].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let right: Vec<bool> = (0..columns)
            .map(|c| self.rows.iter().filter(|r| numeric(&r[c])).count() * 2 > self.rows.len())
            .collect();
        let line = |f: &mut fmt::Formatter<'_>, row: &[String]| -> fmt::Result {
            let mut text = String::new();
            for c in 0..columns {
                let gap = " ".repeat(widths[c] - row[c].chars().count());
                let (before, after) =
                    if right[c] { (gap.as_str(), "") } else { ("", gap.as_str()) };
                text.push_str(&format!("{before}{}{after}  ", row[c]));
            }
            writeln!(f, "{}", text.trim_end())
        };
        line(f, &self.heading)?;
        let rules: Vec<String> = widths.iter().map(|w| "─".repeat(*w)).collect();
        line(f, &rules)?;
        self.rows.iter().try_for_each(|row| line(f, row))
    }
}

/// A time with three digits and a unit.
pub fn seconds(s: f64) -> String {
    match s {
        s if s < 1e-3 => format!("{} µs", digits(s * 1e6)),
        s if s < 1.0 => format!("{} ms", digits(s * 1e3)),
        s => format!("{} s", digits(s)),
    }
}

/// Bytes with three digits and a binary unit.
pub fn bytes(n: u64) -> String {
    let n = n as f64;
    match n {
        n if n < 1024.0 => format!("{n} B"),
        n if n < 1024.0 * 1024.0 => format!("{} KiB", digits(n / 1024.0)),
        n if n < 1024f64.powi(3) => format!("{} MiB", digits(n / 1024f64.powi(2))),
        n => format!("{} GiB", digits(n / 1024f64.powi(3))),
    }
}

/// Three digits.
pub fn digits(x: f64) -> String {
    match x.abs() {
        a if a < 10.0 => format!("{x:.2}"),
        a if a < 100.0 => format!("{x:.1}"),
        _ => format!("{x:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_numbers_have_units() {
        let mut table = Table::new(&["name", "n"]);
        table.row(["a".into(), "5".into()]);
        table.row(["longer".into(), "123".into()]);
        let text = table.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "name      n");
        assert_eq!(lines[2], "a         5");
        assert_eq!(lines[3], "longer  123");
        assert_eq!(seconds(0.0123), "12.3 ms");
        assert_eq!(seconds(4.2e-6), "4.20 µs");
        assert_eq!(bytes(128 << 20), "128 MiB");
    }
}
