//! The server's memory in SQLite: plan, clients, events of the open round, committed rounds.
//!
//! ```
//! use tern_host::files::{Durability, Faults};
//! use tern_protocol::{ClientId, Millis, coordinator::Event};
//! use tern_server::journal::Journal;
//!
//! # fn main() -> tern_protocol::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! let path = folder.path().join("journal.sqlite");
//! let open = || Journal::open(&path, Durability::Process, Faults::default());
//! let mut journal = open()?;
//! journal.enroll(Millis(1), &ClientId([1; 32]), None)?;
//! journal.append(&Event::Tick.to_wire(2))?;
//!
//! // What was written is there after a restart.
//! drop(journal);
//! let journal = open()?;
//! assert_eq!(journal.clients()?, [ClientId([1; 32])]);
//! assert_eq!(journal.events()?, [Event::Tick.to_wire(2)]);
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use prost::Message as _;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use tern_protocol::coordinator::{Draw, RoundRecord};
use tern_protocol::metrics::Metrics;
use tern_protocol::{ClientId, Digest, Error, Millis, Result, Turn, wire};

use tern_host::files::{Durability, Faults};

/// Raised when the tables change.
const VERSION: u32 = 2;

const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE clients (
    client BLOB PRIMARY KEY, enrolled INTEGER NOT NULL, token BLOB) WITHOUT ROWID;
CREATE TABLE events (number INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE rounds (
    round INTEGER PRIMARY KEY, attempt INTEGER NOT NULL, committed INTEGER NOT NULL,
    model BLOB NOT NULL, public BLOB NOT NULL,
    training TEXT NOT NULL, evaluation TEXT NOT NULL, central TEXT NOT NULL, score REAL,
    draw BLOB NOT NULL);
CREATE TABLE uploads (
    round INTEGER NOT NULL, client BLOB NOT NULL, digest BLOB NOT NULL, bytes INTEGER NOT NULL,
    samples INTEGER NOT NULL, PRIMARY KEY (round, client)) WITHOUT ROWID;
";

const ROUNDS: &str = "SELECT *,
        (SELECT COUNT(*) FROM uploads WHERE uploads.round = rounds.round),
        (SELECT IFNULL(SUM(bytes), 0) FROM uploads WHERE uploads.round = rounds.round)
    FROM rounds WHERE round > ?1 ORDER BY round";
const UPLOADS: &str =
    "SELECT client, digest, bytes, samples FROM uploads WHERE round = ?1 ORDER BY client";
const TURN: &str = "SELECT attempt FROM rounds WHERE round = ?1";

/// The database of a run.
pub struct Journal {
    connection: Connection,
    path: PathBuf,
    faults: Faults,
}

/// A committed round.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct CommittedRound {
    /// The round.
    pub round: u32,
    /// The attempt that made it.
    pub attempt: u32,
    /// When.
    pub committed: Millis,
    /// The model, as the server has it.
    pub model: Digest,
    /// The model, as clients have it.
    pub public: Digest,
    /// Clients' training, weighted by samples.
    pub training: Metrics,
    /// Clients' evaluation of the new model, weighted by samples.
    pub evaluation: Metrics,
    /// Central evaluation of the new model.
    pub central: Metrics,
    /// The plan's metric.
    pub score: Option<f64>,
    /// How its cohort was drawn.
    #[serde(skip)]
    pub draw: Draw,
    /// Updates in it.
    pub updates: u32,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// An update that is in a committed round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountedUpload {
    /// Whose.
    pub client: ClientId,
    /// SHA-256 of its body.
    pub digest: Digest,
    /// Bytes of its body.
    pub bytes: u64,
    /// Samples: its weight.
    pub samples: u32,
}

impl Journal {
    /// Opens or makes the database.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn open(path: &Path, durability: Durability, faults: Faults) -> Result<Self> {
        let named = named(path);
        let connection = Connection::open(path).map_err(&named)?;
        let synchronous = match durability {
            Durability::None => "OFF",
            // With a write-ahead log the operating system has it all when a process ends.
            Durability::Process => "NORMAL",
            Durability::Power => "FULL",
        };
        connection.pragma_update(None, "journal_mode", "WAL").map_err(&named)?;
        connection.pragma_update(None, "synchronous", synchronous).map_err(&named)?;
        let version: u32 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(&named)?;
        match version {
            0 => {
                let script = format!("BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;");
                connection.execute_batch(&script).map_err(&named)?;
            }
            VERSION => {}
            other => {
                let reason = format!("version {other}, expected {VERSION}");
                return Err(Error::journal(path, reason));
            }
        }
        Ok(Journal { connection, path: path.to_path_buf(), faults })
    }

    /// A value by name.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let mut find = self
            .connection
            .prepare_cached("SELECT value FROM meta WHERE name = ?1")
            .map_err(named(&self.path))?;
        find.query_row([name], |row| row.get(0)).optional().map_err(named(&self.path))
    }

    /// Sets values by name, all or none.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn set(&mut self, values: &[(&str, &[u8])]) -> Result<()> {
        self.transaction(|transaction| {
            values.iter().try_for_each(|(name, value)| set(transaction, name, value))
        })
    }

    fn writable(&self) -> Result<()> {
        self.faults.check().map_err(|reason| Error::journal(&self.path, reason))
    }

    fn transaction(
        &mut self,
        run: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<()> {
        self.writable()?;
        let named = named(&self.path);
        let transaction = self.connection.transaction().map_err(&named)?;
        run(&transaction).map_err(&named)?;
        transaction.commit().map_err(&named)
    }

    /// Appends an event to those of the open round.
    ///
    /// # Errors
    /// [`Error::Journal`]; the event is not in the journal then.
    pub fn append(&mut self, event: &wire::Journaled) -> Result<()> {
        self.writable()?;
        let mut insert = self
            .connection
            .prepare_cached("INSERT INTO events (body) VALUES (?1)")
            .map_err(named(&self.path))?;
        insert.execute([event.encode_to_vec()]).map_err(named(&self.path))?;
        Ok(())
    }

    /// Events of the open round, in order.
    ///
    /// # Errors
    /// [`Error::Journal`], also for an event that can't be read.
    pub fn events(&self) -> Result<Vec<wire::Journaled>> {
        let named = named(&self.path);
        let mut all = self
            .connection
            .prepare_cached("SELECT body FROM events ORDER BY number")
            .map_err(&named)?;
        let bodies = all.query_map([], |row| row.get::<_, Vec<u8>>(0)).map_err(&named)?;
        let mut events = Vec::new();
        for body in bodies {
            let body = body.map_err(&named)?;
            let event = wire::Journaled::decode(&body[..]).map_err(|error| {
                Error::journal(&self.path, format!("event {}: {error}", events.len()))
            })?;
            events.push(event);
        }
        Ok(events)
    }

    /// Ends an attempt that failed: the state before the next one and no open events, at once.
    ///
    /// # Errors
    /// [`Error::Journal`]; nothing changed then.
    pub fn repeat(&mut self, snapshot: &[u8]) -> Result<()> {
        self.transaction(|transaction| {
            transaction.execute("DELETE FROM events", [])?;
            set(transaction, "snapshot", snapshot)
        })
    }

    /// Ends a round: its record, the state after it, and no open events, all at once.
    ///
    /// # Errors
    /// [`Error::Journal`]; nothing changed then.
    pub fn commit(&mut self, now: Millis, record: &RoundRecord, snapshot: &[u8]) -> Result<()> {
        let json = |metrics: &Metrics| serde_json::to_string(metrics).unwrap_or_default();
        self.transaction(|transaction| {
            transaction.execute("DELETE FROM events", [])?;
            set(transaction, "snapshot", snapshot)?;
            transaction.execute(
                "INSERT INTO rounds VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                params![
                    record.turn.round,
                    record.turn.attempt,
                    now.0 as i64,
                    record.head.model.0,
                    record.head.public.0,
                    json(&record.training),
                    json(&record.evaluation),
                    json(&record.head.metrics),
                    record.score.map(|score| score.value),
                    record.draw.to_bytes(),
                ],
            )?;
            let mut insert =
                transaction.prepare_cached("INSERT INTO uploads VALUES (?1, ?2, ?3, ?4, ?5)")?;
            for (client, upload) in &record.uploads {
                let round = record.turn.round;
                let bytes = upload.bytes as i64;
                let (client, digest) = (client.0, upload.digest.0);
                insert.execute(params![round, client, digest, bytes, upload.samples])?;
            }
            Ok(())
        })
    }

    /// Registers a client, by the token with this digest; registering it again changes nothing.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn enroll(&mut self, now: Millis, client: &ClientId, token: Option<&Digest>) -> Result<()> {
        self.writable()?;
        let mut insert = self
            .connection
            .prepare_cached("INSERT OR IGNORE INTO clients VALUES (?1, ?2, ?3)")
            .map_err(named(&self.path))?;
        let token = token.map(|token| token.0);
        insert.execute(params![client.0, now.0 as i64, token]).map_err(named(&self.path))?;
        Ok(())
    }

    /// Digests of tokens, and how many clients were registered by each.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn tokens(&self) -> Result<BTreeMap<Digest, u32>> {
        let named = named(&self.path);
        let mut all = self
            .connection
            .prepare("SELECT token, COUNT(*) FROM clients WHERE token NOTNULL GROUP BY token")
            .map_err(&named)?;
        let tokens = all.query_map([], |row| Ok((Digest(row.get(0)?), row.get(1)?)));
        tokens.map_err(&named)?.collect::<rusqlite::Result<_>>().map_err(&named)
    }

    /// Clients that are registered.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn clients(&self) -> Result<Vec<ClientId>> {
        let named = named(&self.path);
        let mut all = self.connection.prepare("SELECT client FROM clients").map_err(&named)?;
        let clients = all.query_map([], |row| row.get(0).map(ClientId)).map_err(&named)?;
        clients.collect::<rusqlite::Result<_>>().map_err(&named)
    }

    /// Committed rounds after round `after`, in order.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn rounds(&self, after: u32) -> Result<Vec<CommittedRound>> {
        let named = named(&self.path);
        let mut all = self.connection.prepare_cached(ROUNDS).map_err(&named)?;
        let metrics = |text: String| serde_json::from_str(&text).unwrap_or_default();
        let rounds = all.query_map([after], |row| {
            Ok(CommittedRound {
                round: row.get(0)?,
                attempt: row.get(1)?,
                committed: Millis(row.get::<_, i64>(2)? as u64),
                model: Digest(row.get(3)?),
                public: Digest(row.get(4)?),
                training: metrics(row.get(5)?),
                evaluation: metrics(row.get(6)?),
                central: metrics(row.get(7)?),
                score: row.get(8)?,
                draw: draw(&row.get::<_, Vec<u8>>(9)?)?,
                updates: row.get(10)?,
                bytes: row.get::<_, i64>(11)? as u64,
            })
        });
        rounds.map_err(&named)?.collect::<rusqlite::Result<_>>().map_err(&named)
    }

    /// Updates in a committed round, in order of their clients' keys.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn uploads(&self, round: u32) -> Result<Vec<CountedUpload>> {
        let named = named(&self.path);
        let mut all = self.connection.prepare_cached(UPLOADS).map_err(&named)?;
        let uploads = all.query_map([round], |row| {
            Ok(CountedUpload {
                client: ClientId(row.get(0)?),
                digest: Digest(row.get(1)?),
                bytes: row.get::<_, i64>(2)? as u64,
                samples: row.get(3)?,
            })
        });
        uploads.map_err(&named)?.collect::<rusqlite::Result<_>>().map_err(&named)
    }

    /// The attempt that made a committed round.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn turn(&self, round: u32) -> Result<Option<Turn>> {
        let mut find = self.connection.prepare_cached(TURN).map_err(named(&self.path))?;
        let attempt = find.query_row([round], |row| row.get(0)).optional();
        Ok(attempt.map_err(named(&self.path))?.map(|attempt| Turn::new(round, attempt)))
    }
}

fn set(transaction: &Transaction<'_>, name: &str, value: &[u8]) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?;
    insert.execute(params![name, value])?;
    Ok(())
}

fn draw(bytes: &[u8]) -> rusqlite::Result<Draw> {
    Draw::from_bytes(bytes)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(9, Type::Blob, Box::new(error)))
}

fn named(path: &Path) -> impl Fn(rusqlite::Error) -> Error + use<> {
    let path = path.to_path_buf();
    move |error| Error::journal(&path, error)
}

#[cfg(test)]
mod tests {
    use tern_protocol::coordinator::Event;

    use super::*;

    /// Queries that are made each round find their rows by an index.
    #[test]
    fn no_query_of_a_round_reads_those_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.sqlite");
        let journal = Journal::open(&path, Durability::None, Faults::default()).unwrap();
        for query in [ROUNDS, UPLOADS, TURN] {
            let explain = format!("EXPLAIN QUERY PLAN {query}");
            let mut plan = journal.connection.prepare(&explain).unwrap();
            let steps = plan.query_map([7], |row| row.get::<_, String>(3)).unwrap();
            let steps: Vec<String> = steps.collect::<rusqlite::Result<_>>().unwrap();
            assert!(steps.iter().any(|step| step.starts_with("SEARCH")), "{query}: {steps:?}");
            assert!(!steps.iter().any(|step| step.contains("SCAN rounds")), "{query}: {steps:?}");
            assert!(!steps.iter().any(|step| step.contains("SCAN uploads")), "{query}: {steps:?}");
        }
    }

    #[test]
    fn what_was_written_is_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.sqlite");
        let event = Event::Tick.to_wire(7);
        {
            let mut journal = Journal::open(&path, Durability::Process, Faults::default()).unwrap();
            journal.set(&[("plan", b"{}"), ("run", &[1; 16])]).unwrap();
            journal.append(&event).unwrap();
            let token = Digest([7; 32]);
            journal.enroll(Millis(1), &ClientId([3; 32]), Some(&token)).unwrap();
            journal.enroll(Millis(2), &ClientId([3; 32]), None).unwrap();
        }
        let journal = Journal::open(&path, Durability::Process, Faults::default()).unwrap();
        assert_eq!(journal.get("plan").unwrap().unwrap(), b"{}");
        assert_eq!(journal.get("other").unwrap(), None);
        assert_eq!(journal.events().unwrap(), [event]);
        assert_eq!(journal.clients().unwrap(), [ClientId([3; 32])]);
        assert_eq!(journal.tokens().unwrap(), [(Digest([7; 32]), 1)].into());
        drop(journal);
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 9).unwrap();
        let error =
            Journal::open(&path, Durability::Process, Faults::default()).err().unwrap().to_string();
        assert!(error.contains("version 9"), "{error}");
    }
}
