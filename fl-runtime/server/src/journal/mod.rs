//! The server's memory in SQLite: plan, clients, events of the open round, committed rounds.
//!
//! All that is written is in one chain of digests, whose end is known in a second file, too: a row
//! that is damaged, writes that are lost and a database that is gone are named when the journal is
//! opened, and nothing is written then. A committed round is in the database itself, not only in
//! its write-ahead log.
//!
//! ```
//! use tern_host::files::{Durability, Faults};
//! use tern_protocol::{ClientId, Digest, Millis, RunId, coordinator::Event};
//! use tern_server::journal::Journal;
//!
//! # fn main() -> tern_protocol::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! let open = || Journal::open(folder.path(), Durability::Process, Faults::default());
//! let mut journal = open()?;
//! assert!(!journal.started());
//! journal.start(&RunId([7; 16]), b"{}", &Digest::of(b"a model"), b"the first state")?;
//! journal.enroll(Millis(1), &ClientId([1; 32]), None)?;
//! journal.append(&Event::Tick.to_wire(2))?;
//!
//! // What was written is there after a restart.
//! drop(journal);
//! let journal = open()?;
//! assert_eq!(journal.clients()?, [ClientId([1; 32])]);
//! assert_eq!(journal.events()?, [Event::Tick.to_wire(2)]);
//!
//! // Without its database the run is not begun anew.
//! drop(journal);
//! std::fs::remove_file(folder.path().join("journal.sqlite")).unwrap();
//! let error = open().err().unwrap().to_string();
//! assert!(error.contains("journal.sqlite: missing"), "{error}");
//! # Ok(())
//! # }
//! ```

mod chain;
mod check;
mod head;
mod open;
mod restore;
mod rounds;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use prost::Message as _;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use tern_protocol::coordinator::RoundRecord;
use tern_protocol::{ClientId, Digest, Error, Millis, Result, RunId, wire};

use tern_host::files::{Durability, Faults};

pub(crate) use chain::Registration;
use chain::{Base, Position};
pub(crate) use check::Contents;
pub use check::Damage;
pub(crate) use head::FILE as HEAD_FILE;
pub use head::{Found, Head as JournalHead};
pub(crate) use open::compare;
use open::{checked, connect, damaged, header, present};
pub(crate) use restore::Restored;
pub use rounds::{CommittedRound, CountedUpload, RoundRow};

/// The database in a run's folder.
pub(crate) const FILE: &str = "journal.sqlite";
/// Raised when the tables change.
const VERSION: u32 = 2;

const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL, hash BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE clients (
    client BLOB PRIMARY KEY, enrolled INTEGER NOT NULL, token BLOB, number INTEGER NOT NULL,
    hash BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE events (number INTEGER PRIMARY KEY, body BLOB NOT NULL, hash BLOB NOT NULL);
CREATE TABLE rounds (
    round INTEGER PRIMARY KEY, attempt INTEGER NOT NULL, committed INTEGER NOT NULL,
    head BLOB NOT NULL, training TEXT NOT NULL, evaluation TEXT NOT NULL, score REAL,
    draw BLOB NOT NULL, hash BLOB NOT NULL);
CREATE TABLE uploads (
    round INTEGER NOT NULL, client BLOB NOT NULL, digest BLOB NOT NULL, bytes INTEGER NOT NULL,
    samples INTEGER NOT NULL, PRIMARY KEY (round, client)) WITHOUT ROWID;
";

/// The database of a run.
pub struct Journal {
    connection: Connection,
    path: PathBuf,
    faults: Faults,
    /// Where the chain is; nowhere before a run was started.
    at: Option<(RunId, Position)>,
    head: head::HeadFile,
    /// Whether the head's file lacks the last write.
    behind: bool,
}

impl Journal {
    /// Opens or makes the database in a folder, and follows its chain to its end.
    ///
    /// # Errors
    /// [`Error::Journal`], naming what is damaged or missing; nothing was written then.
    pub fn open(folder: &Path, durability: Durability, faults: Faults) -> Result<Self> {
        let path = folder.join(FILE);
        let found = head::read(&folder.join(head::FILE))?;
        let exists = present(&path, found)?;
        let connection = connect(&path, !exists)?;
        let named = named(&path);
        let tables: u32 = connection
            .query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(|error| damaged(&path, &Damage::new(FILE, error, "a database")))?;
        let fresh = tables == 0 && found == Found::Missing;
        let at = match fresh {
            true => None,
            false => checked(&connection, &path, found)?,
        };
        let synchronous = match durability {
            Durability::None => "OFF",
            // With a write-ahead log the operating system has it all when a process ends.
            Durability::Process => "NORMAL",
            Durability::Power => "FULL",
        };
        connection.pragma_update(None, "journal_mode", "WAL").map_err(&named)?;
        connection.pragma_update(None, "synchronous", synchronous).map_err(&named)?;
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
            .map_err(&named)?;
        if fresh {
            let script = format!("BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;");
            connection.execute_batch(&script).map_err(&named)?;
        }
        let head = head::HeadFile::new(folder, durability);
        let mut journal = Journal { connection, path, faults, at, head, behind: false };
        journal.behind = journal.record().is_some_and(|head| found != Found::Whole(head));
        journal.settle()?;
        Ok(journal)
    }

    /// What the journal in a folder holds, whole or not, and its head. Nothing is written, so that
    /// it may be another process'.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Journal`] if there is nothing that can be opened.
    pub(crate) fn contents(folder: &Path) -> Result<(Contents, Found)> {
        let path = folder.join(FILE);
        let found = head::read(&folder.join(head::FILE))?;
        match std::fs::metadata(&path) {
            Ok(data) if data.len() > 0 => {}
            _ => return Ok((Contents::default(), found)),
        }
        let mut contents = check::read(&connect(&path, false)?, &path, true);
        contents.damage.extend(header(&path)?);
        Ok((contents, found))
    }

    /// Whether it holds a run.
    pub fn started(&self) -> bool {
        self.at.is_some()
    }

    /// A value by name: `run`, `plan`, `initial` (the first model's digest), `snapshot`.
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

    /// Starts a run, with its plan and the state before its first round.
    ///
    /// # Errors
    /// [`Error::Journal`], also if there is a run.
    pub fn start(
        &mut self,
        run: &RunId,
        plan: &[u8],
        initial: &Digest,
        snapshot: &[u8],
    ) -> Result<()> {
        if self.started() {
            return Err(Error::journal(&self.path, "holds a run already"));
        }
        let next = Position::first(*initial).base(&run.0, &initial.0, snapshot);
        let values = [("run", &run.0[..]), ("plan", plan), ("initial", &initial.0)];
        self.write(*run, next, |transaction| {
            values.iter().try_for_each(|(name, value)| set(transaction, name, value))?;
            set_base(transaction, &next, snapshot)
        })
    }

    /// Changes the plan, which is no part of the chain: it is given at each start.
    ///
    /// # Errors
    /// [`Error::Journal`]; nothing changed then.
    pub fn set_plan(&mut self, plan: &[u8]) -> Result<()> {
        let (run, at) = self.at()?;
        self.write(run, at, |transaction| set(transaction, "plan", plan))
    }

    fn at(&self) -> Result<(RunId, Position)> {
        self.at.ok_or_else(|| Error::journal(&self.path, "holds no run yet"))
    }

    fn writable(&self) -> Result<()> {
        self.faults.check().map_err(|reason| Error::journal(&self.path, reason))
    }

    /// Writes, all or nothing, and then notes the new end of the chain in the head's file. That one
    /// is never more than a write behind.
    fn write(
        &mut self,
        run: RunId,
        next: Position,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<()> {
        self.settle()?;
        self.writable()?;
        let named = named(&self.path);
        let transaction = self.connection.transaction().map_err(&named)?;
        write(&transaction).map_err(&named)?;
        transaction.commit().map_err(&named)?;
        self.at = Some((run, next));
        self.behind = true;
        // It is written, but nobody is told before its end is known in both places.
        self.settle()
    }

    /// Whether its end is known in both places: what was written then is missed if it is lost.
    pub fn is_settled(&self) -> bool {
        !self.behind
    }

    /// What the head's file should have.
    fn record(&self) -> Option<JournalHead> {
        self.at.map(|(run, at)| JournalHead::of(run, &at))
    }

    fn settle(&mut self) -> Result<()> {
        if let Some(head) = self.record().filter(|_| self.behind) {
            self.writable()?;
            self.head.write(&head)?;
            self.behind = false;
        }
        Ok(())
    }

    /// Appends an event to those of the open round.
    ///
    /// # Errors
    /// [`Error::Journal`]; the event is not in the journal then.
    pub fn append(&mut self, event: &wire::Journaled) -> Result<()> {
        let body = event.encode_to_vec();
        let (run, at) = self.at()?;
        let next = at.event(&body);
        self.write(run, next, |transaction| {
            let query = "INSERT INTO events VALUES (?1, ?2, ?3)";
            let mut insert = transaction.prepare_cached(query)?;
            insert.execute(params![next.sequence as i64, body, next.chain.0]).map(|_| ())
        })
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
        let (run, at) = self.at()?;
        self.rebase(run, at, snapshot, |_| Ok(()))
    }

    /// Ends a round: its record, the state after it, and no open events, all at once. Then the
    /// write-ahead log, which is easily taken for a file to be left behind, is emptied into the
    /// database.
    ///
    /// # Errors
    /// [`Error::Journal`]; nothing changed then.
    pub fn commit(&mut self, now: Millis, record: &RoundRecord, snapshot: &[u8]) -> Result<()> {
        let row = RoundRow::new(now, record);
        let (run, at) = self.at()?;
        let at = at.round(&row, record.head.model);
        self.rebase(run, at, snapshot, |transaction| {
            rounds::insert_round(transaction, &row, &at.rounds)
        })?;
        self.checkpoint();
        Ok(())
    }

    fn rebase(
        &mut self,
        run: RunId,
        at: Position,
        snapshot: &[u8],
        also: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<()> {
        let initial = self.get("initial")?.unwrap_or_default();
        let next = at.base(&run.0, &initial, snapshot);
        self.write(run, next, |transaction| {
            transaction.execute("DELETE FROM events", [])?;
            set_base(transaction, &next, snapshot)?;
            also(transaction)
        })
    }

    fn checkpoint(&self) {
        let done = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = done {
            // All is in the log.
            tracing::warn!(%error, "emptying the journal's log into the database");
        }
    }

    /// Registers a client, by the token with this digest; registering it again changes nothing.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn enroll(&mut self, now: Millis, client: &ClientId, token: Option<&Digest>) -> Result<()> {
        let (run, at) = self.at()?;
        let there = "SELECT EXISTS (SELECT 1 FROM clients WHERE client = ?1)";
        let there = self.connection.query_row(there, [client.0], |row| row.get(0));
        if there.map_err(named(&self.path))? {
            return Ok(());
        }
        let registration =
            Registration { client: *client, enrolled: now.0 as i64, token: token.copied() };
        let next = at.client(&registration);
        self.write(run, next, |transaction| insert_client(transaction, &registration, &next))
    }

    /// Digests of tokens, and how many clients were registered by each.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn tokens(&self) -> Result<BTreeMap<Digest, u32>> {
        let named = named(&self.path);
        let query = "SELECT token, COUNT(*) FROM clients WHERE token NOTNULL GROUP BY token";
        let mut all = self.connection.prepare(query).map_err(&named)?;
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
}

fn set(transaction: &Transaction<'_>, name: &str, value: &[u8]) -> rusqlite::Result<()> {
    let query = "INSERT OR REPLACE INTO meta VALUES (?1, ?2, ?3)";
    let mut insert = transaction.prepare_cached(query)?;
    insert.execute(params![name, value, chain::meta(name, value).0])?;
    Ok(())
}

fn insert_client(
    transaction: &Transaction<'_>,
    Registration { client, enrolled, token }: &Registration,
    at: &Position,
) -> rusqlite::Result<()> {
    let query = "INSERT INTO clients VALUES (?1, ?2, ?3, ?4, ?5)";
    let mut insert = transaction.prepare_cached(query)?;
    let token = token.map(|token| token.0);
    let row = params![client.0, enrolled, token, at.sequence as i64, at.clients.0];
    insert.execute(row).map(|_| ())
}

fn set_base(transaction: &Transaction<'_>, at: &Position, snapshot: &[u8]) -> rusqlite::Result<()> {
    set(transaction, "snapshot", snapshot)?;
    set(transaction, "base", &Base::of(at).to_bytes())
}

fn named(path: &Path) -> impl Fn(rusqlite::Error) -> Error + use<> {
    let path = path.to_path_buf();
    move |error| Error::journal(&path, error)
}

#[cfg(test)]
mod tests;
