//! Reading MovieLens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::text::read;

/// Ratings to train with: film and rating.
type Rated = Vec<(usize, f32)>;

/// Everybody's ratings.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratings {
    /// Of each user with two ratings or more: those to train with, and the last one, held out.
    pub users: Vec<(Rated, (usize, f32))>,
    /// Films.
    pub films: usize,
}

impl Ratings {
    /// Reads `u.data` (MovieLens 100k) or `ratings.csv` (the later sets) of a folder.
    ///
    /// # Errors
    /// For a folder with neither, a line that can't be read, naming it, and fewer than three
    /// users with two ratings.
    pub fn load(folder: &Path) -> Result<Self> {
        let (path, separator, header) = file(folder)?;
        let text = read(&path)?;
        let mut films: BTreeMap<u64, usize> = BTreeMap::new();
        let mut users: BTreeMap<u64, Vec<(u64, usize, f32)>> = BTreeMap::new();
        let lines = (1..).zip(text.lines()).skip(usize::from(header));
        for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            let [user, film, rating, time] = line_of(line, separator)
                .with_context(|| format!("{}:{number}: `{line}`", path.display()))?;
            let next = films.len();
            let film = *films.entry(film as u64).or_insert(next);
            users.entry(user as u64).or_default().push((time as u64, film, rating as f32));
        }
        let with_last = users.into_values().filter_map(|mut ratings| {
            ratings.sort_by_key(|(time, film, _)| (*time, *film));
            let (_, film, rating) = ratings.pop()?;
            let rest: Rated = ratings.into_iter().map(|(_, film, rating)| (film, rating)).collect();
            (!rest.is_empty()).then_some((rest, (film, rating)))
        });
        let users: Vec<_> = with_last.collect();
        let count = users.len();
        ensure!(
            count >= 3,
            "{}: {count} users with two ratings or more, expected three",
            path.display()
        );
        Ok(Ratings { users, films: films.len() })
    }
}

/// The file, what separates its columns, and whether its first line names them.
fn file(folder: &Path) -> Result<(PathBuf, char, bool)> {
    for (name, separator, header) in [("u.data", '\t', false), ("ratings.csv", ',', true)] {
        let path = folder.join(name);
        if path.exists() {
            return Ok((path, separator, header));
        }
    }
    bail!("{}: neither u.data nor ratings.csv", folder.display())
}

/// User, film, rating, time.
fn line_of(line: &str, separator: char) -> Result<[f64; 4]> {
    let values: Vec<f64> = line
        .split(separator)
        .map(|value| value.trim().parse().ok().filter(|x: &f64| x.is_finite() && *x >= 0.0))
        .collect::<Option<_>>()
        .context("expected numbers from 0")?;
    let count = values.len();
    values.try_into().ok().with_context(|| format!("{count} columns, expected 4"))
}
