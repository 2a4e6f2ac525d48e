//! Reading the whole journal, and following its chain.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message as _;
use rusqlite::Connection;
use tern_protocol::coordinator::Standing;
use tern_protocol::{ClientId, Digest, wire};

use super::chain::{Base, NONE, Position, Registration, meta};
use super::rounds::{RoundRow, UPLOADS, counted_upload, round_row};
use super::{TABLES, VERSION};

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {found}, expected {expected}")]
pub struct Damage {
    /// The file, the table, the row.
    pub place: String,
    /// What is there.
    pub found: String,
    /// What should be.
    pub expected: String,
}

impl Damage {
    pub(crate) fn new(
        place: impl Into<String>,
        found: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Damage { place: place.into(), found: found.to_string(), expected: expected.into() }
    }
}

/// What a journal holds, as far as it can be read and is whole.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub meta: BTreeMap<String, Vec<u8>>,
    /// In the order in which they were registered.
    pub clients: Vec<Registration>,
    pub rounds: Vec<RoundRow>,
    /// Of the open round.
    pub events: Vec<Vec<u8>>,
    /// The number of the write by which the state between attempts was stored, if that is the one
    /// that follows on all of these.
    pub base: Option<u64>,
    /// The largest number of a write that is in it.
    pub last: u64,
    /// Where the chain ends; `None` if there is damage, or no run yet.
    pub(super) position: Option<Position>,
    pub damage: Vec<Damage>,
}

/// Reads all tables in one transaction. Rounds and events are kept if `keep` says so.
pub(crate) fn read(connection: &Connection, path: &Path, keep: bool) -> Contents {
    let mut contents = Contents::default();
    let name = path.file_name().unwrap_or_default().display().to_string();
    let reading = connection.execute_batch("BEGIN");
    let whole = reading.and_then(|()| structure(connection));
    match whole {
        Ok(None) => {}
        Ok(Some((found, expected))) => {
            contents.damage.push(Damage::new(&name, found, expected));
        }
        Err(error) => contents.damage.push(Damage::new(&name, error, "a database")),
    }
    Reader { connection, name, keep, into: &mut contents }.all();
    // A transaction that only read has nothing to lose.
    let _ = connection.execute_batch("ROLLBACK");
    contents
}

/// What SQLite says of the file, and whether its tables are the journal's: what is there, and what
/// should be.
fn structure(connection: &Connection) -> rusqlite::Result<Option<(String, String)>> {
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version != VERSION {
        return Ok(Some((format!("version {version}"), format!("version {VERSION}"))));
    }
    let mut tables = connection.prepare("SELECT sql FROM sqlite_schema ORDER BY rowid")?;
    let tables = tables.query_map([], |row| row.get::<_, Option<String>>(0))?;
    let tables: Vec<_> = tables.collect::<rusqlite::Result<_>>()?;
    let expected = TABLES.split(';').map(str::trim).filter(|text| !text.is_empty());
    if !tables.iter().map(|text| text.as_deref().unwrap_or_default()).eq(expected) {
        return Ok(Some(("other tables".into(), "those of a journal".into())));
    }
    let said: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok((said != "ok").then(|| (said, "a database that SQLite finds whole".into())))
}

/// A client, with the number of the write that registered it.
struct Registered {
    number: u64,
    clients: Digest,
}

struct Reader<'a> {
    connection: &'a Connection,
    name: String,
    keep: bool,
    into: &'a mut Contents,
}

impl Reader<'_> {
    fn all(&mut self) {
        let values = self.read(Self::values, "meta");
        let clients = self.read(Self::clients, "clients").unwrap_or_default();
        let rounds = self.read(Self::rounds, "rounds").unwrap_or_default();
        let events = self.read(Self::events, "events").unwrap_or_default();
        if self.keep {
            self.into.events = events.iter().map(|(_, body, _)| body.clone()).collect();
        }
        let numbers = clients.iter().map(|c| c.number).chain(events.iter().map(|e| e.0));
        self.into.last = numbers.max().unwrap_or(0);
        if values.is_some() {
            self.follow(&clients, &rounds, &events);
        }
    }

    /// What a table has; damage is noted.
    fn read<T>(
        &mut self,
        table: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
        name: &str,
    ) -> Option<T> {
        table(self).map_err(|error| self.damaged(name, error, "rows that can be read")).ok()
    }

    fn damaged(&mut self, place: &str, found: impl ToString, expected: impl Into<String>) {
        let place = format!("{}, {place}", self.name);
        self.into.damage.push(Damage::new(place, found, expected));
    }

    fn other_bytes(&mut self, place: &str, made: Digest, stored: Digest) {
        self.damaged(place, format!("SHA-256 {made} with what is before it"), stored.to_string());
    }

    fn values(&mut self) -> rusqlite::Result<()> {
        let mut all = self.connection.prepare("SELECT name, value, hash FROM meta")?;
        let mut rows = all.query([])?;
        while let Some(row) = rows.next()? {
            let (name, value, hash): (String, Vec<u8>, _) =
                (row.get(0)?, row.get(1)?, Digest(row.get(2)?));
            match meta(&name, &value) {
                made if made == hash => {
                    self.into.meta.insert(name, value);
                }
                made => self.other_bytes(&format!("meta `{name}`"), made, hash),
            }
        }
        Ok(())
    }

    fn clients(&mut self) -> rusqlite::Result<Vec<Registered>> {
        let query = "SELECT client, enrolled, token, number, hash FROM clients ORDER BY number";
        let mut all = self.connection.prepare(query)?;
        let mut rows = all.query([])?;
        let (mut found, mut before) = (Vec::new(), NONE);
        while let Some(row) = rows.next()? {
            let (client, enrolled) = (ClientId(row.get(0)?), row.get(1)?);
            let token = row.get::<_, Option<_>>(2)?.map(Digest);
            let (number, hash) = (row.get::<_, i64>(3)? as u64, Digest(row.get(4)?));
            let registration = Registration { client, enrolled, token };
            let made = registration.link(&before);
            match made == hash {
                true => self.into.clients.push(registration),
                false => self.other_bytes(&format!("clients row {number}"), made, hash),
            }
            found.push(Registered { number, clients: hash });
            before = hash;
        }
        Ok(found)
    }

    /// The chain of rounds after each of them.
    fn rounds(&mut self) -> rusqlite::Result<Vec<(u32, Digest, Option<Digest>)>> {
        let mut all = self.connection.prepare("SELECT * FROM rounds ORDER BY round")?;
        let mut uploads = self.connection.prepare(UPLOADS)?;
        let mut rows = all.query([])?;
        let (mut links, mut before, mut counted) = (Vec::new(), NONE, 0);
        while let Some(row) = rows.next()? {
            let mut found = round_row(row)?;
            found.uploads = uploads
                .query_map([found.round], counted_upload)?
                .collect::<rusqlite::Result<_>>()?;
            counted += found.uploads.len() as i64;
            let (hash, made) = (Digest(row.get(8)?), found.link(&before));
            let model = wire::Aggregated::decode(&found.head[..]).ok();
            let model = model.and_then(|head| Digest::from_slice(&head.model));
            links.push((found.round, hash, model));
            if made != hash {
                self.other_bytes(&format!("rounds row {}", found.round), made, hash);
            } else if self.keep {
                self.into.rounds.push(found);
            }
            before = hash;
        }
        let all: i64 =
            self.connection.query_row("SELECT COUNT(*) FROM uploads", [], |row| row.get(0))?;
        if all != counted {
            self.damaged("uploads", format!("{all} rows"), format!("{counted}, of these rounds"));
        }
        Ok(links)
    }

    fn events(&mut self) -> rusqlite::Result<Vec<(u64, Vec<u8>, Digest)>> {
        let query = "SELECT number, body, hash FROM events ORDER BY number";
        let mut all = self.connection.prepare(query)?;
        let row = |row: &rusqlite::Row<'_>| {
            Ok((row.get::<_, i64>(0)? as u64, row.get(1)?, Digest(row.get(2)?)))
        };
        all.query_map([], row)?.collect()
    }

    /// From the state between attempts through all writes after it.
    fn follow(
        &mut self,
        clients: &[Registered],
        rounds: &[(u32, Digest, Option<Digest>)],
        events: &[(u64, Vec<u8>, Digest)],
    ) {
        if self.into.meta.is_empty() && clients.is_empty() && rounds.is_empty() && events.is_empty()
        {
            // No run yet.
            return;
        }
        let value = |name| self.into.meta.get(name).cloned();
        let (Some(run), Some(initial), Some(snapshot), Some(_), Some(base)) = (
            value("run"),
            value("initial"),
            value("snapshot"),
            value("plan"),
            value("base").and_then(|bytes| Base::from_bytes(&bytes)),
        ) else {
            return self.damaged("meta", "incomplete", "run, plan, initial, snapshot and base");
        };
        let (before, after): (Vec<_>, Vec<_>) =
            clients.iter().partition(|client| client.number <= base.sequence);
        let (round, model) = match rounds.last() {
            Some((round, _, model)) => (*round, *model),
            None => (0, Digest::from_slice(&initial)),
        };
        let mut at = Position {
            sequence: base.sequence.wrapping_sub(1),
            chain: base.before,
            before: NONE,
            clients: before.last().map_or(NONE, |client| client.clients),
            rounds: rounds.last().map_or(NONE, |(_, hash, _)| *hash),
            round,
            model: model.unwrap_or(NONE),
            standing: Standing::default(),
        }
        .base(&run, &initial, &snapshot);
        if at.chain != base.chain {
            return self.other_bytes("meta `snapshot`", at.chain, base.chain);
        }
        self.into.base = Some(base.sequence);
        let mut after = after.into_iter().peekable();
        for (number, body, hash) in events {
            while let Some(client) = after.next_if(|client| client.number < *number) {
                at = self.enrolled(at, client);
            }
            let next = at.event(body);
            if *number != next.sequence {
                let expected = format!("{}, the next write", next.sequence);
                return self.damaged("events", format!("row {number}"), expected);
            }
            if next.chain != *hash {
                return self.other_bytes(&format!("events row {number}"), next.chain, *hash);
            }
            at = next;
        }
        for client in after {
            at = self.enrolled(at, client);
        }
        self.into.last = self.into.last.max(base.sequence);
        self.into.position = Some(at).filter(|_| self.into.damage.is_empty());
    }

    fn enrolled(&mut self, at: Position, client: &Registered) -> Position {
        let next = Position { clients: client.clients, ..at }.registered();
        if next.sequence != client.number {
            let expected = format!("{}, the next write", next.sequence);
            self.damaged("clients", format!("row {}", client.number), expected);
        }
        next
    }
}
