//! Opening a journal: one that was there is opened as it was left, or not at all.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tern_protocol::{Error, Result, RunId};

use super::chain::Position;
use super::check::{self, Contents, Damage};
use super::head::{FILE as HEAD_FILE, Found};
use super::{FILE, named};

/// Whether there is a database. One that was there is not made anew.
pub(super) fn present(path: &Path, found: Found) -> Result<bool> {
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |data| data.len());
    if length(path) > 0 {
        return match header(path)? {
            None => Ok(true),
            Some(damage) => Err(damaged(path, &damage)),
        };
    }
    let state = if path.exists() { "empty" } else { "missing" };
    let known = match found {
        Found::Whole(head) => {
            let (run, round, sequence) = (head.run, head.round, head.sequence);
            format!(
                "the {sequence} writes of run {run}, with round {round}, that {HEAD_FILE} knows"
            )
        }
        Found::Damaged => format!("the writes that a damaged {HEAD_FILE} knows"),
        Found::Missing if length(&path.with_file_name(format!("{FILE}-wal"))) > 0 => {
            "the one that its -wal goes with".into()
        }
        Found::Missing => return Ok(false),
    };
    Err(damaged(path, &Damage::new(FILE, state, known)))
}

/// What is wrong with the first bytes, which say how SQLite treats the file.
pub(super) fn header(path: &Path) -> Result<Option<Damage>> {
    let mut bytes = [0; 20];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    let damage = |found: String, expected: &str| Some(Damage::new(FILE, found, expected));
    Ok(match read {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            damage("less than 20 bytes".into(), "a database")
        }
        Err(error) => return Err(Error::file(path, error)),
        Ok(()) if bytes[..16] != *b"SQLite format 3\0" => {
            damage("another beginning".into(), "that of a SQLite database")
        }
        Ok(()) if bytes[18..] != [2, 2] => {
            damage(format!("formats {:?}", &bytes[18..]), "2 and 2, with a write-ahead log")
        }
        Ok(()) => None,
    })
}

/// Opens the database so that nothing of it is changed when it is closed.
pub(super) fn connect(path: &Path, create: bool) -> Result<Connection> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
    let connection = Connection::open_with_flags(path, flags).map_err(named(path))?;
    let kept = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    kept.map_err(named(path))?;
    Ok(connection)
}

/// Follows the chain of a journal that was there, and holds its end against the head.
pub(super) fn checked(
    connection: &Connection,
    path: &Path,
    found: Found,
) -> Result<Option<(RunId, Position)>> {
    let contents = check::read(connection, path, false);
    let damage = contents.damage.first().cloned().or_else(|| compare(&contents, found));
    match damage {
        Some(damage) => Err(damaged(path, &damage)),
        None => {
            let run = contents.meta.get("run").and_then(|run| RunId::from_slice(run));
            Ok(run.zip(contents.position))
        }
    }
}

/// How the end of a whole chain and the head differ, if they do by more than the one write
/// between which a process may have ended.
pub(crate) fn compare(contents: &Contents, found: Found) -> Option<Damage> {
    let ends = |sequence: u64, round: u32| format!("write {sequence}, with round {round}");
    let Some(at) = &contents.position else {
        let Found::Whole(head) = found else { return None };
        return Some(Damage::new(FILE, "no run", ends(head.sequence, head.round)));
    };
    let run = contents.meta.get("run").and_then(|run| RunId::from_slice(run));
    let here = ends(at.sequence, at.round);
    match found {
        // It is made after the first write.
        Found::Missing if at.sequence <= 1 => None,
        Found::Missing => Some(Damage::new(HEAD_FILE, "missing", here)),
        Found::Damaged => Some(Damage::new(HEAD_FILE, "no whole record", here)),
        Found::Whole(head) if Some(head.run) != run => {
            let expected = run.map_or_else(String::new, |run| format!("run {run}"));
            Some(Damage::new(HEAD_FILE, format!("run {}", head.run), expected))
        }
        Found::Whole(head) => {
            let same = (head.sequence, head.chain) == (at.sequence, at.chain);
            let behind = (head.sequence + 1, head.chain) == (at.sequence, at.before);
            let known = ends(head.sequence, head.round);
            let damage = match head.sequence > at.sequence {
                true => {
                    Damage::new(FILE, format!("ends at {here}"), format!("{known}, by {HEAD_FILE}"))
                }
                false => Damage::new(HEAD_FILE, format!("{known}, of another history"), here),
            };
            (!same && !behind).then_some(damage)
        }
    }
}

pub(super) fn damaged(path: &Path, damage: &Damage) -> Error {
    let what = "nothing was changed; `tern repair` says what can be had back";
    Error::journal(path, format!("{damage}: {what}"))
}
