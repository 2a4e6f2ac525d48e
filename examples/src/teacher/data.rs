//! Private samples for the teachers, public ones without labels for the student, and held-out
//! ones that measure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tern_fl::methods::teach::{Part, Samples, usable};
use tern_fl::simulate::files::{BadLine, Rows, Table, digits_by};
use tern_fl::simulate::{Partition, by_value, partition};

use super::options::{Bundled, Options};
use crate::text::{bundled, bundled_digits};

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
    /// Who collected each of these lines, as far as they say it, if that decides which teacher
    /// gets them.
    pub collected_by: Option<Vec<Option<Origin>>>,
    /// Devices, lines and images that are left out, and why.
    pub refused: Vec<String>,
    /// What the student has; its labels are for measuring.
    pub public: Set,
    /// What measures.
    pub test: Set,
}

/// Where a line comes from.
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
    /// All of them, those of devices that are left out, too. What answers cost and how much noise
    /// they get goes by this number, which no private record changes that says whose it is.
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
            let files = [bundled_digits("mnist8-train")?, bundled_digits("mnist8-test")?];
            images("MNIST 8×8".into(), &files)
        }
        Bundled::Adult => {
            // The weight of a row in the census says nothing of the row.
            let columns = ("income-per-year", &["fnlwgt"][..]);
            table("Adult".into(), &bundled("adult.csv.gz")?, columns, by, options.seed)
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
/// scaled by comes from the others, the classes from the public ones.
fn images(name: String, [train, test]: &[[PathBuf; 2]; 2]) -> Result<Problem> {
    let (other, one) = digits_by(&test[0], &test[1], None)?;
    let (private, _) = digits_by(&train[0], &train[1], Some(one))?;
    if private.width != other.width {
        let (a, b) = (private.width, other.width);
        bail!("{}: {b} pixels an image, {} has {a}", test[0].display(), train[0].display());
    }
    let half = other.labels.len() / 2;
    ensure!(half > 0, "{}: too few images", test[0].display());
    let several = |labels: &[u32], path: &Path| {
        let classes: BTreeSet<u32> = labels.iter().copied().collect();
        let (path, count, all) = (path.display(), classes.len(), labels.len());
        ensure!(count >= 2, "{path}: {count} classes in {all} labels, expected two or more");
        Ok(classes)
    };
    several(&private.labels, &train[1])?;
    let classes = several(&other.labels[..half], &test[1])?;
    let mut refused = Vec::new();
    let mut known = |set: &Rows, path: &Path, image: usize| {
        let label = set.labels[image];
        if !classes.contains(&label) {
            let (path, number) = (path.display(), image + 1);
            let expected = "expected the label of a public image";
            refused.push(format!(
                "An image is left out. {path}: image {number} is {label}, {expected}"
            ));
        }
        classes.contains(&label)
    };
    let all = 0..private.labels.len();
    let dealt: Vec<_> = all.map(|i| known(&private, &train[1], i).then_some(i)).collect();
    let test_images = (half..other.labels.len()).filter(|i| known(&other, &test[1], *i));
    let path = test[1].display();
    let test = Set::of(&other, test_images);
    let expected = "expected some with a label of the first half";
    ensure!(!test.labels.is_empty(), "{path}: no image is left to measure, {expected}");
    Ok(Problem {
        name,
        width: private.width,
        classes: classes.last().map_or(0, |last| *last as usize + 1),
        public: Set::of(&other, 0..half),
        test,
        private: Set::of(&private, dealt.iter().flatten().copied()),
        dealt: numbered(&dealt),
        collected_by: None,
        refused,
    })
}

/// The place of each row among those that are there.
fn numbered(rows: &[Option<usize>]) -> Vec<Option<usize>> {
    let mut number = 0..;
    rows.iter().map(|row| row.and_then(|_| number.next())).collect()
}

/// 70 % of a table's rows are private, 15 % public and 15 % measure, drawn by the seed. Features
/// are scaled by the public ones, and have their classes: a private row changes its own alone.
fn table(
    name: String,
    path: &Path,
    (label, without): (&str, &[&str]),
    by: Option<&str>,
    seed: u32,
) -> Result<Problem> {
    let of_file = || format!("{}", path.display());
    let (table, mut bad) = Table::open_some(path)?;
    table.place(label).with_context(of_file)?;
    let place = by.map(|by| table.place(by)).transpose().with_context(of_file)?;
    let by = by.zip(place);
    let lines = lines(&table, &bad, by).with_context(of_file)?;
    let count = lines.iter().filter(|line| line.row.is_some()).count();
    let why = LeftOut::of(&bad, path, by).why();
    ensure!(count >= 20, "{}: {count} rows are too few{why}", path.display());
    // How lines are dealt out depends on their number alone.
    let parts = partition(&vec![0; lines.len()], 20, Partition::Iid, seed)?;
    let deal = |parts: &[Vec<usize>]| -> Vec<&Line> {
        parts.iter().flatten().map(|line| &lines[*line]).collect()
    };
    let (private, public, test) = (deal(&parts[..14]), deal(&parts[14..17]), deal(&parts[17..]));
    let fit: Vec<usize> = public.iter().filter_map(|line| line.row).collect();
    let without: Vec<&str> = without.iter().copied().chain(by.map(|(by, _)| by)).collect();
    let schema = table.schema(label, &without, &fit).with_context(of_file)?;
    let (rows, unfit) = table.read_by(&schema).with_context(of_file)?;
    bad.extend(unfit);
    bad.sort_unstable_by_key(|bad| bad.line);
    let left_out = LeftOut::of(&bad, path, by);
    let why = left_out.why();
    let classes = rows.classes.len();
    ensure!(classes >= 2, "{}: one class in {label} of public lines{why}", path.display());
    let sound = |line: &&Line| line.row.filter(|_| !left_out.lines.contains(&line.number));
    let rows_of = |lines: &[&Line]| Set::of(&rows, lines.iter().filter_map(sound));
    let (public, test) = (rows_of(&public), rows_of(&test));
    ensure!(!test.labels.is_empty(), "{}: no line is left to measure{why}", path.display());
    // A device that is left out has no teacher; its public lines are no secret, and if they
    // were left out, a private line would change what all are scaled by.
    let takes_part =
        |line: &Line| line.device.as_ref().is_none_or(|device| !left_out.devices.contains(device));
    let dealt: Vec<Option<usize>> =
        private.iter().map(|line| sound(line).filter(|_| takes_part(line))).collect();
    let origin = |line: &&Line| {
        let at = format!("{}:{}", path.display(), line.number);
        line.device.clone().map(|device| Origin { device, at })
    };
    Ok(Problem {
        name,
        width: rows.width,
        classes,
        collected_by: by.map(|_| private.iter().map(origin).collect()),
        private: Set::of(&rows, dealt.iter().flatten().copied()),
        dealt: numbered(&dealt),
        public,
        test,
        refused: left_out.reasons,
    })
}

/// A line of a table.
struct Line {
    number: usize,
    /// Its row, unless it is none.
    row: Option<usize>,
    /// Who collected it, if a column says so.
    device: Option<String>,
}

/// The lines of a table in their order, those that are no rows among them.
fn lines(table: &Table, bad: &[BadLine], by: Option<(&str, usize)>) -> Result<Vec<Line>> {
    let devices = by.map(|(by, _)| table.column(by)).transpose()?;
    let sound = table.lines()?.into_iter().enumerate().map(|(row, number)| Line {
        number,
        row: Some(row),
        device: devices.as_ref().map(|devices| devices[row].trim().to_owned()),
    });
    let bad = bad.iter().map(|bad| Line {
        number: bad.line,
        row: None,
        device: by.and_then(|(_, place)| bad.says(place)).map(str::to_owned),
    });
    let mut lines: Vec<Line> = sound.chain(bad).collect();
    lines.sort_unstable_by_key(|line| line.number);
    Ok(lines)
}

/// What of a table is left out.
#[derive(Default)]
struct LeftOut {
    /// The lines that can't be read.
    lines: BTreeSet<usize>,
    /// The devices that collected them, if a column says so.
    devices: BTreeSet<String>,
    /// The devices, or lines that don't say theirs, and why.
    reasons: Vec<String>,
}

impl LeftOut {
    fn of(bad: &[BadLine], path: &Path, by: Option<(&str, usize)>) -> Self {
        let mut left_out = LeftOut::default();
        for bad in bad {
            let BadLine { line, reason, .. } = bad;
            left_out.lines.insert(*line);
            let who = match by.and_then(|(by, place)| Some((by, bad.says(place)?))) {
                Some((_, device)) if !left_out.devices.insert(device.to_owned()) => continue,
                Some((by, device)) => format!("{by} {device} does not take part"),
                None => "A line is left out".into(),
            };
            left_out.reasons.push(format!("{who}. {}:{line}: {reason}", path.display()));
        }
        left_out
    }

    /// The reasons, for an error's end.
    fn why(&self) -> String {
        self.reasons.iter().map(|why| format!("; {why}")).collect()
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
        let parts: Vec<Vec<usize>> = match &self.collected_by {
            Some(origins) => {
                let said = origins.iter().enumerate();
                let said = said.filter_map(|(line, o)| Some((line, &o.as_ref()?.device)));
                let (lines, devices): (Vec<usize>, Vec<&String>) = said.unzip();
                let parts = by_value(&devices).into_iter();
                parts.map(|part| part.iter().map(|at| lines[*at]).collect()).collect()
            }
            None => partition(&vec![0; self.dealt.len()], teachers, Partition::Iid, seed)
                .with_context(|| self.name.clone())?,
        };
        let called = |(number, lines): (usize, &Vec<usize>)| {
            let first = lines.first().zip(self.collected_by.as_ref());
            match first.and_then(|(line, origins)| origins[*line].as_ref()) {
                Some(Origin { device, at }) => format!("{device} ({at})"),
                None => format!("part {number}"),
            }
        };
        let names: Vec<String> = parts.iter().enumerate().map(called).collect();
        let rows = |lines: Vec<usize>| lines.iter().filter_map(|l| self.dealt[*l]).collect();
        let parts = parts.into_iter().map(rows).collect();
        let (taught, left_out) = usable(&self.private.labels, parts);
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
mod tests;
