//! A report folder: curves as SVG, numbers as JSON; and tables in plain text.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tern_fl::host::folder::FolderLock;
use tern_fl::server::plot::{Panel, draw};

pub use tern_fl::server::plot::Series;

/// The file of a report that says which demo's it is.
const MARK: &str = ".tern-demo";

/// A folder that results are written to.
pub struct Report {
    folder: PathBuf,
    /// Of a report that is a command's own.
    _lock: Option<FolderLock>,
}

/// Writes a file by way of another beside it: it is there whole, or as it was.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_added_extension("partial");
    fs::write(&partial, bytes)
        .and_then(|()| fs::rename(&partial, path))
        .with_context(|| format!("{}", path.display()))
}

impl Report {
    /// Makes the folder where it doesn't exist.
    pub fn create(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
        Ok(Self { folder, _lock: None })
    }

    /// In the next free `runs/<demo>-<number>`.
    pub fn next(demo: &str) -> Result<Self> {
        fs::create_dir_all("runs").context("runs")?;
        for number in 1u32.. {
            let folder = PathBuf::from(format!("runs/{demo}-{number}"));
            match fs::create_dir(&folder) {
                Ok(()) => return Self::of(demo, &folder),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| folder.display().to_string()),
            }
        }
        bail!("runs/ is full")
    }

    /// In a folder that is new or empty, or has a report of this demo, which is replaced. It is
    /// this report's until that is dropped.
    pub fn of(demo: &str, folder: &Path) -> Result<Self> {
        let named = || format!("{}", folder.display());
        let mut report = Self::create(folder)?;
        let mark = report.path(MARK);
        let expected = format!("expected a new folder, or a report of {demo}");
        if mark.exists() {
            let whose = fs::read_to_string(&mark).with_context(named)?;
            ensure!(whose.trim() == demo, "{}: a report of {}, {expected}", named(), whose.trim());
        } else {
            let empty = fs::read_dir(folder).with_context(named)?.next().is_none();
            ensure!(empty, "{}: has files that are no report, {expected}", named());
            fs::write(&mark, format!("{demo}\n")).with_context(named)?;
        }
        report._lock = Some(FolderLock::take(folder)?);
        Ok(report)
    }

    /// The path of a file in the folder.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// Writes numbers as JSON, at once: a process that ends in the middle leaves the file before.
    /// Returns the path.
    pub fn json(&self, file: &str, value: &impl Serialize) -> Result<PathBuf> {
        let path = self.path(file);
        let text = serde_json::to_string_pretty(value)?;
        replace(&path, (text + "\n").as_bytes())?;
        Ok(path)
    }

    /// Draws lines over a common x axis as SVG; returns the path.
    pub fn plot(
        &self,
        file: &str,
        title: &str,
        axes: (&str, &str),
        series: &[Series<'_>],
    ) -> Result<PathBuf> {
        let path = self.path(file);
        draw(&path, &[Panel { title, axes, series: series.to_vec() }])?;
        Ok(path)
    }
}

/// Mean and sample standard deviation, which is 0 for less than two values.
pub fn spread(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}

/// Mean and, of several values, standard deviation, with so many digits.
pub fn mean_and_spread(values: &[f64], digits: usize) -> String {
    let (mean, deviation) = spread(values);
    match values.len() {
        0 | 1 => format!("{mean:.digits$}"),
        _ => format!("{mean:.digits$} ± {deviation:.digits$}"),
    }
}

/// A table in plain text: the first column to the left, the others to the right.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column headings.
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self { rows: vec![headings.map(str::to_owned).into()] }
    }

    /// Adds a row; cells past the headings are left out, missing ones stay empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows[0].len();
        let cell = |row: &[String], at: usize| row.get(at).cloned().unwrap_or_default();
        let width = |at| self.rows.iter().map(|row| cell(row, at).chars().count()).max();
        let widths: Vec<_> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (at, width) in widths.iter().enumerate() {
                let text = cell(row, at);
                let gap = if at == 0 { "" } else { "  " };
                line += gap;
                line +=
                    &if at == 0 { format!("{text:<width$}") } else { format!("{text:>width$}") };
            }
            writeln!(f, "{}", line.trim_end())?;
            if number == 0 {
                let total: usize = widths.iter().sum();
                writeln!(f, "{}", "-".repeat(total + 2 * columns.saturating_sub(1)))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_value_has_no_spread() {
        assert_eq!(mean_and_spread(&[81.25], 1), "81.2");
        assert_eq!(mean_and_spread(&[1.0, 3.0], 2), "2.00 ± 1.41");
    }

    #[test]
    fn tables_are_aligned() {
        let mut table = Table::new(["user", "top-1", "saved"]);
        table.row(["abraham".into(), "55.1 %".into(), "7 %".into()]);
        table.row(["zoë".into(), "9.0 %".into()]);
        let expected = "\
user      top-1  saved
----------------------
abraham  55.1 %    7 %
zoë       9.0 %
";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn a_plot_names_its_series_and_leaves_out_what_is_not_finite() {
        let folder = tempfile::tempdir().unwrap();
        let report = Report::create(folder.path().join("new/report")).unwrap();
        let series = [
            Series { name: "public", points: &[(0.0, 4.0), (1.0, f64::NAN), (2.0, 3.0)] },
            Series { name: "customized", points: &[] },
        ];
        let path = report.plot("loss.svg", "Loss & more", ("step", "loss"), &series).unwrap();
        let svg = fs::read_to_string(path).unwrap();
        for text in ["<svg", "Loss &amp; more", "public", "customized", "step", "</svg>"] {
            assert!(svg.contains(text), "{text} is missing");
        }
        assert!(!svg.contains("NaN"));
        let empty = report.plot("empty.svg", "Nothing", ("x", "y"), &[]).unwrap();
        assert!(fs::read_to_string(empty).unwrap().contains("Nothing"));
    }

    #[test]
    fn spread_is_that_of_a_sample() {
        let (mean, deviation) = spread(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        assert!((mean - 5.0).abs() < 1e-12 && (deviation - (32.0f64 / 7.0).sqrt()).abs() < 1e-12);
        assert_eq!([spread(&[3.0]), spread(&[])], [(3.0, 0.0), (0.0, 0.0)]);
    }

    #[test]
    fn numbers_are_json_and_errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let report = Report::create(folder.path()).unwrap();
        let path = report.json("numbers.json", &[1.5, 2.0]).unwrap();
        let numbers: Vec<f64> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        assert_eq!(numbers, [1.5, 2.0]);
        assert!(report.json("no/such.json", &0).unwrap_err().to_string().contains("such.json"));
        let error = report.plot("no/such.svg", "", ("", ""), &[]).unwrap_err();
        assert!(error.to_string().contains("such.svg"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no part of a file is left");
    }

    #[test]
    fn a_report_takes_no_folder_of_something_else() {
        let folder = tempfile::tempdir().unwrap();
        let mine = folder.path().join("mine");
        Report::of("keyboard", &mine).unwrap().json("results.json", &1).unwrap();
        let report = Report::of("keyboard", &mine).unwrap();
        let twice = format!("{:#}", Report::of("keyboard", &mine).err().unwrap());
        assert!(twice.contains("in use by"), "{twice}");
        drop(report);
        let error = |folder| Report::of("recommender", folder).err().unwrap().to_string();
        assert!(error(&mine).contains("a report of keyboard, expected"), "{}", error(&mine));
        assert!(error(folder.path()).contains("has files that are no report"));
        assert!(mine.join("results.json").exists());
    }
}
