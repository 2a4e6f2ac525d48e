//! Private samples for the teachers, public ones without labels for the student, and held-out
//! ones that measure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tern_fl::simulate::files::{BadLine, Rows, Table, digits_by};
use tern_fl::simulate::{Partition, by_value, partition};
use tern_fl::teach::{Part, Samples, usable};

use super::options::{Bundled, Options};

/// Rows with their classes.
#[derive(Clone, Debug, Default)]
pub struct Set {
    /// `[N, width]`.
    pub features: Vec<f32>,
    /// `[N]`.
    pub labels: Vec<u32>,
}

/// A data set as PATE splits it.
pub struct Problem {
    /// Its name.
    pub name: String,
    /// Features of a row.
    pub width: usize,
    /// Classes.
    pub classes: usize,
    /// The teachers' data.
    pub private: Set,
    /// The lines that were dealt to the private data, and the row of each unless it was left out:
    /// a line that can't be read changes the teacher alone that would have got it.
    pub dealt: Vec<Option<usize>>,
    /// Who collected each row of it and where that is said, if it decides which teacher gets it.
    pub collected_by: Option<Vec<Origin>>,
    /// Devices and lines that are left out, and why.
    pub refused: Vec<String>,
    /// What the student has; its labels are for measuring.
    pub public: Set,
    /// What measures.
    pub test: Set,
}

/// Where a row comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Who collected it.
    pub device: String,
    /// File and line.
    pub at: String,
}

/// The parts that teachers are trained on.
pub struct Parts {
    /// Those with a teacher.
    pub taught: Vec<Part>,
    /// All of them. What answers cost and how much noise they get goes by this number, which no
    /// private record changes.
    pub count: usize,
    /// Those without a teacher, and why.
    pub left_out: Vec<String>,
}

impl Set {
    /// For training.
    pub fn samples(&self, width: usize) -> Samples<'_> {
        Samples { features: &self.features, width, labels: &self.labels }
    }

    fn of(rows: &Rows, chosen: impl Iterator<Item = usize>) -> Self {
        let mut set = Set::default();
        for row in chosen {
            set.features.extend(&rows.features[row * rows.width..][..rows.width]);
            set.labels.push(rows.labels[row]);
        }
        set
    }
}

/// A file of the bundled data.
fn bundled(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

/// What the options ask for.
pub fn load(options: &Options) -> Result<Vec<Problem>> {
    let by = options.by.as_deref();
    if let Some(path) = &options.data {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            ensure!(by.is_none(), "--by is for tables, {} is a folder", path.display());
            return Ok(vec![images(name, &idx_files(path)?)?]);
        }
        let label = options.label.as_deref();
        let label = label.with_context(|| {
            format!("{}: --label has to name the column that has the class", path.display())
        })?;
        return Ok(vec![table(name, path, (label, &[]), by, options.seed)?]);
    }
    ensure!(options.label.is_none(), "--label is for --data");
    let sets = match options.only {
        Some(one) => vec![one],
        None if by.is_some() => vec![Bundled::Adult],
        None => vec![Bundled::Mnist, Bundled::Adult],
    };
    let load = |set: Bundled| match set {
        Bundled::Mnist => {
            ensure!(by.is_none(), "--by is for tables, MNIST is none");
            let file = |part: &str, what: &str| bundled(&format!("mnist8-{part}-{what}-ubyte.gz"));
            let kinds = ["images-idx3", "labels-idx1"];
            let [train, test] = ["train", "test"].map(|part| kinds.map(|what| file(part, what)));
            images("MNIST 8×8".into(), &[train, test])
        }
        Bundled::Adult => {
            // The weight of a row in the census says nothing of the row.
            let columns = ("income-per-year", &["fnlwgt"][..]);
            table("Adult".into(), &bundled("adult.csv.gz"), columns, by, options.seed)
        }
    };
    sets.into_iter().map(load).collect()
}

/// Images and labels to train and to test with, by their names.
fn idx_files(folder: &Path) -> Result<[[PathBuf; 2]; 2]> {
    let mut names = Vec::new();
    let read = std::fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    for entry in read {
        names.push(entry.with_context(|| format!("{}", folder.display()))?.path());
    }
    names.sort();
    let find = |parts: &[&str], what: &str| {
        let fits = |path: &&PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.contains(what) && parts.iter().any(|part| name.contains(part))
        };
        names.iter().find(fits).cloned().with_context(|| {
            format!(
                "{}: no file whose name has {} and {what}",
                folder.display(),
                parts.join(" or ")
            )
        })
    };
    let both =
        |parts: &[&str]| Ok::<_, anyhow::Error>([find(parts, "images")?, find(parts, "labels")?]);
    Ok([both(&["train"])?, both(&["test", "t10k"])?])
}

/// The training digits are private; the first half of the others is public, and what all are
/// scaled by comes from these.
fn images(name: String, [train, test]: &[[PathBuf; 2]; 2]) -> Result<Problem> {
    let (other, one) = digits_by(&test[0], &test[1], None)?;
    let (private, _) = digits_by(&train[0], &train[1], Some(one))?;
    if private.width != other.width {
        let (a, b) = (private.width, other.width);
        bail!("{}: {b} pixels an image, {} has {a}", test[0].display(), train[0].display());
    }
    let half = other.labels.len() / 2;
    ensure!(half > 0, "{}: too few images", test[0].display());
    Ok(Problem {
        name,
        width: private.width,
        classes: private.classes.len().max(other.classes.len()),
        public: Set::of(&other, 0..half),
        test: Set::of(&other, half..other.labels.len()),
        private: Set::of(&private, 0..private.labels.len()),
        dealt: (0..private.labels.len()).map(Some).collect(),
        collected_by: None,
        refused: Vec::new(),
    })
}

/// 70 % of a table's rows are private, 15 % public and 15 % measure, drawn by the seed. Features
/// are scaled by the public ones: a private row changes its own alone.
fn table(
    name: String,
    path: &Path,
    (label, without): (&str, &[&str]),
    by: Option<&str>,
    seed: u32,
) -> Result<Problem> {
    let of_file = || format!("{}", path.display());
    let Lines { table, rows: lines, refused } = Lines::read(path, by).with_context(of_file)?;
    let labels = table.column(label).with_context(of_file)?;
    let why: String = refused.iter().map(|why| format!("; {why}")).collect();
    let rows = || lines.iter().flatten();
    let count = rows().count();
    ensure!(count >= 20, "{}: {count} rows are too few{why}", path.display());
    let classes = rows().map(|row| labels[*row].trim()).collect::<BTreeSet<_>>().len();
    ensure!(classes >= 2, "{}: one class in {label}{why}", path.display());
    // How lines are dealt out depends on their number alone.
    let dealt = partition(&vec![0; lines.len()], 20, Partition::Iid, seed)?;
    let deal = |parts: &[Vec<usize>]| -> Vec<Option<usize>> {
        parts.iter().flatten().map(|line| lines[*line]).collect()
    };
    let (private, public, test) = (deal(&dealt[..14]), deal(&dealt[14..17]), deal(&dealt[17..]));
    let [public, test] = [public, test].map(|some| some.into_iter().flatten().collect::<Vec<_>>());
    let without: Vec<&str> = without.iter().copied().chain(by).collect();
    let rows = table.fitted(label, &without, &public).with_context(of_file)?;
    let devices = by.map(|by| table.column(by)).transpose().with_context(of_file)?;
    let origin = |devices: &Vec<&str>, row: usize| Origin {
        device: devices[row].trim().to_owned(),
        at: format!("{}:{}", path.display(), table.lines()[row]),
    };
    let mut number = 0..;
    Ok(Problem {
        name,
        width: rows.width,
        classes: rows.classes.len(),
        collected_by: devices
            .map(|devices| private.iter().flatten().map(|row| origin(&devices, *row)).collect()),
        private: Set::of(&rows, private.iter().flatten().copied()),
        dealt: private.iter().map(|line| line.and_then(|_| number.next())).collect(),
        public: Set::of(&rows, public.into_iter()),
        test: Set::of(&rows, test.into_iter()),
        refused,
    })
}

/// A table of which some lines can't be read.
struct Lines {
    table: Table,
    /// Its lines, and the row of each unless that is left out.
    rows: Vec<Option<usize>>,
    /// Devices and lines that are left out, and why.
    refused: Vec<String>,
}

impl Lines {
    /// Leaves out the lines that can't be read, and with them those of the same device where a
    /// column says who collected them.
    fn read(path: &Path, by: Option<&str>) -> Result<Self> {
        let (table, bad) = Table::read_some(path)?;
        let place = by.map(|by| table.place(by)).transpose()?;
        let (mut without, mut refused) = (BTreeSet::new(), Vec::new());
        for BadLine { line, reason, fields } in &bad {
            let at = format!("{}:{line}: {reason}", path.display());
            let device = place.and_then(|place| fields.get(place)).map(|device| device.trim());
            match (by, device.filter(|device| !device.is_empty())) {
                (Some(_), Some(device)) if without.contains(device) => (),
                (Some(by), Some(device)) => {
                    refused.push(format!("{by} {device} does not take part. {at}"));
                    without.insert(device.to_owned());
                }
                _ => refused.push(format!("A line is left out. {at}")),
            }
        }
        let devices = by.map(|by| table.column(by)).transpose()?;
        let stays = |row: usize| {
            devices.as_ref().is_none_or(|devices| !without.contains(devices[row].trim()))
        };
        let sound = table.lines().iter().enumerate();
        let sound = sound.map(|(row, line)| (*line, stays(row).then_some(row)));
        let mut rows: Vec<_> = sound.chain(bad.iter().map(|bad| (bad.line, None))).collect();
        rows.sort_unstable_by_key(|(line, _)| *line);
        let rows = rows.into_iter().map(|(_, row)| row).collect();
        Ok(Lines { table, rows, refused })
    }
}

impl Problem {
    /// Its name as part of a file's.
    pub fn short_name(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        self.name.chars().map(plain).collect()
    }

    /// 2.1: the rows of each teacher, at random or by who collected them, and the parts that
    /// teach nothing.
    pub fn parts(&self, teachers: usize, seed: u32) -> Result<Parts> {
        let labels = &self.private.labels;
        let parts = match &self.collected_by {
            Some(origins) => {
                by_value(&origins.iter().map(|origin| &origin.device).collect::<Vec<_>>())
            }
            None => {
                let lines = vec![0; self.dealt.len()];
                let parts = partition(&lines, teachers, Partition::Iid, seed)
                    .with_context(|| self.name.clone())?;
                let rows = |part: Vec<usize>| part.iter().filter_map(|l| self.dealt[*l]).collect();
                parts.into_iter().map(rows).collect()
            }
        };
        let called = |number: usize, first: Option<&usize>| match (&self.collected_by, first) {
            (Some(origins), Some(row)) => {
                let Origin { device, at } = &origins[*row];
                format!("{device} ({at})")
            }
            _ => format!("part {number}"),
        };
        let names: Vec<String> =
            parts.iter().enumerate().map(|(at, rows)| called(at, rows.first())).collect();
        let (taught, left_out) = usable(labels, parts);
        let left_out = left_out.iter().map(|l| format!("{}: {}", names[l.part], l.reason));
        let left_out: Vec<String> = left_out.collect();
        let why: String = self.refused.iter().chain(&left_out).map(|w| format!("; {w}")).collect();
        ensure!(
            taught.len() >= 2,
            "{}: {} usable parts, teachers are two or more{why}",
            self.name,
            taught.len()
        );
        Ok(Parts { taught, count: names.len(), left_out })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_cannot_be_read_changes_its_own_teacher_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.csv");
        let line = |i: usize| format!("{i},{}\n", ["no", "yes"][i % 2]);
        let mut lines: Vec<String> = (0..200).map(line).collect();
        let load = |lines: &[String]| {
            std::fs::write(&path, format!("x,class\n{}", lines.concat())).unwrap();
            table("own".into(), &path, ("class", &[]), None, 1).unwrap()
        };
        let values = |problem: &Problem| {
            let parts = problem.parts(10, 1).unwrap();
            assert_eq!((parts.count, parts.taught.len()), (10, 10));
            let of = |part: &Part| -> Vec<u32> {
                part.rows.iter().map(|row| problem.private.features[*row].to_bits()).collect()
            };
            parts.taught.iter().map(of).collect::<Vec<_>>()
        };
        let whole = load(&lines);
        let before = values(&whole);
        let mut private = 0;
        for bad in 0..40 {
            let good = std::mem::replace(&mut lines[bad], "cut off\n".into());
            let now = load(&lines);
            lines[bad] = good;
            assert!(now.refused[0].contains(&format!("own.csv:{}: 1 fields", bad + 2)));
            if now.private.labels.len() < whole.private.labels.len() {
                private += 1;
                let other = before.iter().zip(values(&now)).filter(|(a, b)| *a != b);
                assert_eq!(other.count(), 1, "line {bad}");
            }
        }
        assert!((20..=36).contains(&private), "{private} of 40");
    }
}
