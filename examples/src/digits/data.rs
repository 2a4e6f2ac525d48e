//! Digits of two kinds, and further domains made of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tern_fl::data::{Rows, Table};
use tern_fl::simulate::files::digits;

use super::options::{CLASSES, Options, SIDE, Scale};
use crate::text::bundled_digits;

/// Numbers of an image.
const PIXELS: usize = SIDE * SIDE;

/// Images with their classes, pixels from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Images {
    /// `[N, 64]`.
    pub pixels: Vec<f32>,
    /// `[N]`.
    pub labels: Vec<u32>,
}

/// One transfer: who teaches whom.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Its name.
    pub name: String,
    /// The sources, by name.
    pub sources: Vec<(String, Images)>,
    /// What the target trains on; the labels are for the ceiling alone.
    pub target: Images,
    /// What it is measured on.
    pub test: Images,
}

/// Numbers that look random: SplitMix64.
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u32) -> Self {
        Random(u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f32 {
        (self.word() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Below `n`.
    fn below(&mut self, n: usize) -> usize {
        (self.word() % n as u64) as usize
    }

    /// 0 to `n` in an order of its own.
    fn order(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

impl Images {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    fn pick(&self, which: &[usize]) -> Self {
        let pixels = which.iter().flat_map(|i| &self.pixels[i * PIXELS..(i + 1) * PIXELS]);
        let labels = which.iter().map(|i| self.labels[*i]);
        Images { pixels: pixels.copied().collect(), labels: labels.collect() }
    }

    /// Some of them, at most `count`, and the others.
    fn split(&self, count: usize, random: &mut Random) -> (Self, Self) {
        let order = random.order(self.len());
        let (some, others) = order.split_at(count.min(order.len()));
        (self.pick(some), self.pick(others))
    }

    /// Turned by an angle around the middle, between pixels by bilinear interpolation.
    fn rotated(&self, degrees: f32) -> Self {
        let (sine, cosine) = degrees.to_radians().sin_cos();
        let middle = (SIDE as f32 - 1.0) / 2.0;
        let turn = |image: &[f32]| -> Vec<f32> {
            let at = |row: i32, column: i32| {
                let inside = (0..SIDE as i32).contains(&row) && (0..SIDE as i32).contains(&column);
                if inside { image[row as usize * SIDE + column as usize] } else { 0.0 }
            };
            let pixel = |i: usize| {
                let (y, x) = ((i / SIDE) as f32 - middle, (i % SIDE) as f32 - middle);
                let (y, x) = (cosine * y - sine * x + middle, sine * y + cosine * x + middle);
                let (row, column) = (y.floor(), x.floor());
                let (down, right) = (y - row, x - column);
                let (r, c) = (row as i32, column as i32);
                (1.0 - down) * ((1.0 - right) * at(r, c) + right * at(r, c + 1))
                    + down * ((1.0 - right) * at(r + 1, c) + right * at(r + 1, c + 1))
            };
            (0..PIXELS).map(pixel).collect()
        };
        let pixels = self.pixels.chunks(PIXELS).flat_map(turn).collect();
        Images { pixels, labels: self.labels.clone() }
    }

    /// With uniform noise of ±`most`.
    fn noisy(&self, most: f32, random: &mut Random) -> Self {
        let mut noise = |x: &f32| (x + most * (2.0 * random.uniform() - 1.0)).clamp(0.0, 1.0);
        let pixels = self.pixels.iter().map(&mut noise).collect();
        Images { pixels, labels: self.labels.clone() }
    }
}

/// The digits that come with the demos: MNIST's, for training and test, and optdigits'.
fn bundled() -> Result<[Images; 3]> {
    let read = |name: &str| -> Result<Images> {
        let [images, labels] = bundled_digits(name)?;
        let rows = digits(&images, &labels)?;
        Ok(Images { pixels: rows.features, labels: rows.labels })
    };
    Ok([read("mnist8-train")?, read("mnist8-test")?, read("optdigits")?])
}

/// The transfers of a run by seed.
pub struct Digits {
    sets: Sets,
    /// Sources that can't take part, by name, and why.
    pub refused: Vec<(String, String)>,
}

enum Sets {
    Bundled([Images; 3]),
    Own { sources: Vec<(String, Images)>, target: Images },
}

impl Digits {
    /// Reads the digits that come with the demo, or the user's own.
    pub fn load(options: &Options) -> Result<Self> {
        let (sets, refused) = match &options.data {
            Some(folder) => own(folder)?,
            None => (Sets::Bundled(bundled()?), Vec::new()),
        };
        Ok(Digits { sets, refused })
    }

    /// Who teaches whom.
    ///
    /// # Errors
    /// For a target of which digits of one class alone are drawn to train on: no ceiling could be
    /// trained on them.
    pub fn transfers(&self, scale: &Scale, seed: u32) -> Result<Vec<Transfer>> {
        let mut random = Random::new(seed);
        let mut half = |all: &Images| all.split(2 * all.len() / 3, &mut random);
        let mut all = Vec::new();
        match &self.sets {
            Sets::Own { sources, target } => {
                let (target, test) = half(target);
                let several = target.labels.windows(2).any(|pair| pair[0] != pair[1]);
                let count = target.len();
                ensure!(
                    several,
                    "target.csv: of the {count} rows to train on that seed {seed} draws all have \
                     one class, expected two or more"
                );
                let name = "own digits".to_string();
                all.push(Transfer { name, sources: sources.clone(), target, test });
            }
            Sets::Bundled([train, test, optdigits]) => {
                let (some, rest) = half(optdigits);
                let (mnist, _) = train.split(scale.digits, &mut random);
                let (tested, _) = test.split(scale.tested, &mut random);
                let one = |name: &str, set: &Images| vec![(name.to_string(), set.clone())];
                all.push(Transfer {
                    name: "optdigits to MNIST".into(),
                    sources: one("optdigits", optdigits),
                    target: mnist.clone(),
                    test: tested,
                });
                all.push(Transfer {
                    name: "MNIST to optdigits".into(),
                    sources: one("MNIST", &mnist),
                    target: some,
                    test: rest,
                });
            }
        }
        if matches!(self.sets, Sets::Bundled(_)) {
            let three: Vec<_> = all.iter().map(|t| t.with_copies(&mut random)).collect();
            all.extend(three);
        }
        Ok(all)
    }
}

impl Transfer {
    /// The same with two further sources: turned and noisy copies of the first.
    fn with_copies(&self, random: &mut Random) -> Self {
        let mut more = self.clone();
        if let Some((name, first)) = self.sources.first() {
            more.sources.push((format!("{name}, turned"), first.rotated(15.0)));
            more.sources.push((format!("{name}, noisy"), first.noisy(0.3, random)));
        }
        more.name = format!("{}, {} sources", self.name, more.sources.len());
        more
    }
}

/// `target.csv` and `source-*.csv` of a folder, and the sources that can't be used.
fn own(folder: &Path) -> Result<(Sets, Vec<(String, String)>)> {
    let target = read(&folder.join("target.csv"))?;
    let listed = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let (mut sources, mut refused) = (Vec::new(), Vec::new());
    for file in files {
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(name) = name.strip_prefix("source-").and_then(|n| n.strip_suffix(".csv")) else {
            continue;
        };
        // One that can't be read doesn't stop the others.
        match read(&file) {
            Ok(images) => sources.push((name.to_string(), images)),
            Err(error) => refused.push((name.to_string(), format!("{error:#}"))),
        }
    }
    let (at, reasons) = (folder.display(), refused.iter().map(|r| format!("; {}", r.1)));
    let reasons: String = reasons.collect();
    ensure!(!sources.is_empty(), "{at}: no file source-<name>.csv that can be used{reasons}");
    Ok((Sets::Own { sources, target }, refused))
}

fn read(file: &Path) -> Result<Images> {
    let table = Table::open(file)?;
    let at = file.display();
    let Rows { features, width, labels, .. } = table.plain("label")?;
    ensure!(width == PIXELS, "{at}:1: {width} columns beside `label`, expected {PIXELS}");
    let lines = table.lines()?;
    let line = |row: usize| lines[row];
    if let Some(row) = labels.iter().position(|label| *label as usize >= CLASSES) {
        bail!("{at}:{}: label {}, expected 0 to 9", line(row), labels[row]);
    }
    let Some(first) = labels.first() else { bail!("{at}: no rows to learn from") };
    if labels.iter().all(|label| label == first) {
        bail!("{at}:{}: one class only, {first}, expected two or more", line(0));
    }
    if let Some(place) = features.iter().position(|x| !(0.0..=16.0).contains(x)) {
        let (row, pixel) = (place / PIXELS, features[place]);
        bail!("{at}:{}: pixel {pixel}, expected 0 to 16", line(row));
    }
    let pixels = features.iter().map(|x| x / 16.0).collect();
    Ok(Images { pixels, labels })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_keep_the_classes_and_change_the_pixels() {
        let [.., digits] = bundled().unwrap();
        let (some, rest) = digits.split(100, &mut Random::new(1));
        assert_eq!((some.len(), rest.len()), (100, 1697));
        assert_eq!(some.rotated(0.0), some);
        let quarter = some.rotated(90.0).rotated(-90.0);
        assert!(quarter.pixels.iter().zip(&some.pixels).all(|(a, b)| (a - b).abs() < 1e-4));
        for copy in [some.rotated(15.0), some.noisy(0.3, &mut Random::new(2))] {
            assert_eq!(copy.labels, some.labels);
            assert!(copy.pixels != some.pixels);
            assert!(copy.pixels.iter().all(|x| (0.0..=1.0).contains(x)));
        }
    }

    #[test]
    fn errors_name_file_and_line_and_one_bad_source_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let load = || own(folder.path()).err().map(|error| format!("{error:#}"));
        assert!(load().unwrap().contains("target.csv"));
        let header: Vec<String> = (0..PIXELS).map(|i| format!("p{i}")).collect();
        let header = format!("{},label\n", header.join(","));
        let line = |label: &str| format!("{}{label}\n", "1,".repeat(PIXELS));
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
        write("target.csv", &format!("{header}{}\n{}", line("1"), line("10"))).unwrap();
        assert!(load().unwrap().contains("target.csv:4: label 10"));
        let bright = line("0").replacen('1', "17", 1);
        write("target.csv", &format!("{header}{}{bright}", line("1"))).unwrap();
        assert!(load().unwrap().contains("target.csv:3: pixel 17, expected 0 to 16"));
        write("target.csv", &format!("{header}{}", line("1"))).unwrap();
        assert!(load().unwrap().contains("target.csv:2: one class only, 1"));
        write("target.csv", "a,label\n1,0\n").unwrap();
        assert!(load().unwrap().contains("target.csv:1: 1 columns"));
        let good = format!("{header}{}{}", line("1"), line("2"));
        write("target.csv", &good).unwrap();
        assert!(load().unwrap().contains("source-<name>.csv"));
        let bad = [
            ("bad", "a,label\n1\n".to_string(), "source-bad.csv: line 2: 1 values"),
            ("narrow", "a,label\n1,0\n1,1\n".to_string(), "source-narrow.csv:1: 1 columns"),
            ("none", header.clone(), "source-none.csv: no rows"),
            ("one", format!("{header}{}", line("3")), "source-one.csv:2: one class only"),
        ];
        for (name, text, _) in &bad {
            write(&format!("source-{name}.csv"), text).unwrap();
        }
        assert!(load().unwrap().contains("source-bad.csv: line 2"));
        write("source-good.csv", &good).unwrap();
        let (Sets::Own { sources, .. }, refused) = own(folder.path()).unwrap() else {
            panic!("bundled")
        };
        assert_eq!(sources.iter().map(|s| s.0.as_str()).collect::<Vec<_>>(), ["good"]);
        assert_eq!(refused.len(), bad.len());
        for ((name, reason), (expected, _, said)) in refused.iter().zip(&bad) {
            assert!(name == expected && reason.contains(said), "{name}: {reason}");
        }
    }
}
