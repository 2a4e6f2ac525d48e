//! Reading MovieLens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use serde::Serialize;
use tern_fl::simulate::files::{BadLine, Header, Reader, Record};

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
        let File { path, mut lines, header, columns } = File::open(folder)?;
        let mut users: BTreeMap<u64, Vec<(u64, u64, f32)>> = BTreeMap::new();
        let mut refused: BTreeMap<u64, String> = BTreeMap::new();
        let mut left_out = Vec::new();
        while let Some(line) = lines.read()? {
            let rating = line.and_then(|record| header.fits(record)).and_then(|record| {
                rating(&header, &columns, &record).map_err(|reason| {
                    let Record { line, fields } = record;
                    BadLine { line, reason, fields }
                })
            });
            match rating {
                Ok((user, film, rating, time)) => {
                    users.entry(user).or_default().push((time, film, rating));
                }
                Err(bad) => {
                    let reason = format!("{}:{}: {}", path.display(), bad.line, bad.reason);
                    match bad.says(columns[0]).and_then(|user| user.parse().ok()) {
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

/// A file of ratings, and where in it user, film, rating and time are.
struct File {
    path: PathBuf,
    lines: Reader,
    header: Header,
    columns: [usize; 4],
}

impl File {
    fn open(folder: &Path) -> Result<Self> {
        // The one of MovieLens 100k names no columns.
        let path = folder.join("u.data");
        if path.exists() {
            let lines = Reader::open(&path)?.separated_by(b'\t');
            let names = ["user", "film", "rating", "time"].map(String::from).to_vec();
            let names = Record { line: 0, fields: names };
            let header = Header::read(Some(Ok(names))).map_err(|bad| anyhow!(bad.reason))?;
            return Ok(File { path, lines, header, columns: [0, 1, 2, 3] });
        }
        let path = folder.join("ratings.csv");
        ensure!(path.exists(), "{}: neither u.data nor ratings.csv", folder.display());
        let mut lines = Reader::open(&path)?;
        let at = |bad: BadLine| anyhow!("{}:{}: {}", path.display(), bad.line, bad.reason);
        let header = Header::read(lines.read()?).map_err(at)?;
        let place = |name: &str| {
            let names = || header.names().join(", ");
            header.place(name).with_context(|| {
                format!("{}: no column `{name}`, expected one of {}", path.display(), names())
            })
        };
        let columns = [place("userId")?, place("movieId")?, place("rating")?, place("timestamp")?];
        Ok(File { path, lines, header, columns })
    }
}

/// User, film, rating and time of a line, or what is wrong with it.
fn rating(
    header: &Header,
    columns: &[usize; 4],
    record: &Record,
) -> Result<(u64, u64, f32, u64), String> {
    let value = |column: usize| record.fields[columns[column]].trim();
    let wrong = |column: usize, expected: &str| {
        let name = &header.names()[columns[column]];
        format!("{name} is `{}`, expected {expected}", value(column))
    };
    let whole = |column: usize| {
        let number = value(column).parse::<u64>();
        number.map_err(|_| wrong(column, "a whole number from 0"))
    };
    let number = value(2).parse().ok().filter(|x: &f32| x.is_finite() && *x >= 0.0);
    let rating = number.ok_or_else(|| wrong(2, "a number from 0"))?;
    Ok((whole(0)?, whole(1)?, rating, whole(3)?))
}
