//! Reading MovieLens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Serialize;
use tern_fl::simulate::files::{Text, read_text};

/// Ratings to train with: film and rating.
type Rated = Vec<(usize, f32)>;

/// Everybody's ratings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratings {
    /// Of each user with two ratings or more: those to train with, and the last one, held out.
    #[serde(skip)]
    pub users: Vec<(Rated, (usize, f32))>,
    /// Films.
    pub films: usize,
    /// Users with a line that can't be read, and why.
    pub refused: Vec<(String, String)>,
    /// Lines of nobody's, and why.
    pub left_out: Vec<String>,
    /// Users with one rating, of which none would be left to train on.
    pub single: usize,
}

impl Ratings {
    /// Reads `u.data` (MovieLens 100k) or `ratings.csv` (the later sets) of a folder. A user with
    /// a line that can't be read is left out, or the line alone if it doesn't say whose it is.
    ///
    /// # Errors
    /// For a folder with neither, and fewer than three users with two ratings, with what was left
    /// out.
    pub fn load(folder: &Path) -> Result<Self> {
        let (path, separator, header) = file(folder)?;
        let Text { text, bad } = read_text(&path)?;
        let mut users: BTreeMap<u64, Vec<(u64, u64, f32)>> = BTreeMap::new();
        let mut refused: BTreeMap<u64, String> = BTreeMap::new();
        let mut left_out = Vec::new();
        let lines = (1..).zip(text.lines()).skip(usize::from(header));
        for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            let values = match bad.contains(&number) {
                true => Err(anyhow!("not UTF-8")),
                false => line_of(line, separator),
            };
            match values {
                Ok((user, film, rating, time)) => {
                    users.entry(user).or_default().push((time, film, rating));
                }
                Err(error) => {
                    let reason = format!("{}:{number}: `{line}`: {error:#}", path.display());
                    match line.split(separator).next().and_then(|user| user.trim().parse().ok()) {
                        Some(user) => {
                            refused.entry(user).or_insert(reason);
                        }
                        None => left_out.push(reason),
                    }
                }
            }
        }
        users.retain(|user, _| !refused.contains_key(user));
        let everybody = users.len();
        let mut films: BTreeMap<u64, usize> = BTreeMap::new();
        let with_last = users.into_values().filter_map(|mut ratings| {
            if ratings.len() < 2 {
                return None;
            }
            ratings.sort_by_key(|(time, film, _)| (*time, *film));
            let rated = ratings.into_iter().map(|(_, film, rating)| {
                let next = films.len();
                (*films.entry(film).or_insert(next), rating)
            });
            let mut rated: Rated = rated.collect();
            let last = rated.pop()?;
            Some((rated, last))
        });
        let users: Vec<_> = with_last.collect();
        let count = users.len();
        let reasons = refused.values().chain(&left_out).map(|why| format!("; {why}"));
        let reasons: String = reasons.collect();
        ensure!(
            count >= 3,
            "{}: {count} users with two ratings or more, expected three{reasons}",
            path.display()
        );
        let refused = refused.into_iter().map(|(user, why)| (user.to_string(), why)).collect();
        let (films, single) = (films.len(), everybody - count);
        Ok(Ratings { users, films, refused, left_out, single })
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
fn line_of(line: &str, separator: char) -> Result<(u64, u64, f32, u64)> {
    let values: Vec<&str> = line.split(separator).map(str::trim).collect();
    let [user, film, rating, time] = values.as_slice() else {
        bail!("{} columns, expected 4", values.len());
    };
    let whole = |name: &str, text: &str| {
        text.parse::<u64>().ok().with_context(|| format!("{name}: expected a whole number from 0"))
    };
    let number = rating.parse().ok().filter(|x: &f32| x.is_finite() && *x >= 0.0);
    let rating = number.context("rating: expected a number from 0")?;
    Ok((whole("user", user)?, whole("film", film)?, rating, whole("time", time)?))
}
