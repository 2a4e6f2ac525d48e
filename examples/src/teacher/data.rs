//! Private samples for the teachers, public ones without labels for the student, and held-out
//! ones that measure.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tern_fl::simulate::files::{Rows, Table, digits};
use tern_fl::simulate::{Partition, by_value, partition};
use tern_fl::teach::{LeftOut, Samples, usable};

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
    /// Who collected each row of it, if that decides which teacher gets it.
    pub collected_by: Option<Vec<String>>,
    /// What the student has; its labels are for measuring.
    pub public: Set,
    /// What measures.
    pub test: Set,
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

/// The training digits are private; the first half of the others is public.
fn images(name: String, [train, test]: &[[PathBuf; 2]; 2]) -> Result<Problem> {
    let private = digits(&train[0], &train[1])?;
    let other = digits(&test[0], &test[1])?;
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
        collected_by: None,
    })
}

/// 70 % of a table's rows are private, 15 % public and 15 % measure, drawn by the seed.
fn table(
    name: String,
    path: &Path,
    (label, without): (&str, &[&str]),
    by: Option<&str>,
    seed: u32,
) -> Result<Problem> {
    let table = Table::read(path)?;
    let of_file = || format!("{}", path.display());
    let rows = table.rows(label, without).with_context(of_file)?;
    let devices = by.map(|column| table.column(column)).transpose().with_context(of_file)?;
    ensure!(rows.labels.len() >= 20, "{}: {} rows are too few", path.display(), rows.labels.len());
    ensure!(rows.classes.len() >= 2, "{}: one class in {label}", path.display());
    let deal = partition(&rows.labels, 20, Partition::Iid, seed)?;
    let private = deal[..14].concat();
    Ok(Problem {
        name,
        width: rows.width,
        classes: rows.classes.len(),
        collected_by: devices
            .map(|devices| private.iter().map(|row| devices[*row].to_string()).collect()),
        private: Set::of(&rows, private.into_iter()),
        public: Set::of(&rows, deal[14..17].concat().into_iter()),
        test: Set::of(&rows, deal[17..].concat().into_iter()),
    })
}

impl Problem {
    /// Its name as part of a file's.
    pub fn short_name(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        self.name.chars().map(plain).collect()
    }

    /// 2.1: the rows of each teacher, at random or by who collected them, and the parts that
    /// teach nothing.
    pub fn parts(&self, teachers: usize, seed: u32) -> Result<(Vec<Vec<usize>>, Vec<LeftOut>)> {
        let labels = &self.private.labels;
        let parts = match &self.collected_by {
            Some(devices) => by_value(devices),
            None => partition(labels, teachers, Partition::Iid, seed)
                .with_context(|| self.name.clone())?,
        };
        let (parts, left_out) = usable(labels, parts);
        ensure!(
            parts.len() >= 2,
            "{}: {} usable parts, teachers are two or more",
            self.name,
            parts.len()
        );
        Ok((parts, left_out))
    }
}
