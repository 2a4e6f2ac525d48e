//! The journal of a run in PostgreSQL: what a leader writes, under its lease's epoch.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use prost::Message as _;
use sqlx_core::query::query;
use sqlx_core::query_as::query_as;
use sqlx_core::query_scalar::query_scalar;
use sqlx_postgres::PgTransaction;
use tern_protocol::coordinator::{Coordinator, RoundRecord};
use tern_protocol::{ClientId, Digest, Error, Millis, Result, RunId, Turn, wire};
use tern_server::journal::{CommittedRound, CountedUpload, RoundRow};
use tern_server::storage::Ledger;

use crate::Database;
use crate::error::{bytes, database, unreadable};
use crate::lease::fenced;
use crate::wakes::DECIDED;

/// A run's journal, as a leader of an epoch writes it. Anybody may read it.
pub struct PgLedger {
    database: Database,
    epoch: i64,
    /// The write that the events were read up to. A write follows on it or fails: one of which the
    /// leader doesn't know whether it was made is found before another is.
    at: Mutex<i64>,
}

impl PgLedger {
    /// To be written under this epoch.
    pub(crate) fn new(database: &Database, epoch: i64) -> Self {
        PgLedger { database: database.clone(), epoch, at: Mutex::new(-1) }
    }

    /// To be read: what it writes is refused.
    pub fn reading(database: &Database) -> Self {
        PgLedger::new(database, -1)
    }

    fn at(&self) -> std::sync::MutexGuard<'_, i64> {
        self.at.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Writes, all or nothing; the sequence rises by one.
    fn write<F>(&self, write: F) -> Result<()>
    where
        F: AsyncFnOnce(&mut PgTransaction<'static>, i64) -> Result<()>,
    {
        let mut at = self.at();
        let next = *at + 1;
        let written = self.database.wait(async {
            let mut transaction = fenced(&self.database, self.epoch).await?;
            let moved = query("UPDATE run SET sequence = $1 WHERE sequence = $2")
                .bind(next)
                .bind(*at)
                .execute(&mut *transaction)
                .await
                .map_err(database)?;
            if moved.rows_affected() != 1 {
                let reason = format!("write {next} is not the next one");
                return Err(Error::journal(Path::new("postgres"), reason));
            }
            write(&mut transaction, next).await?;
            self.database.wake_in(&mut transaction, DECIDED).await?;
            transaction.commit().await.map_err(database)
        });
        if written.is_ok() {
            *at = next;
        }
        written
    }

    /// Ends the open attempt: no open events, and the state after it.
    fn rebase<F>(&self, after: &Coordinator, also: F) -> Result<()>
    where
        F: AsyncFnOnce(&mut PgTransaction<'static>) -> Result<()>,
    {
        let snapshot = after.snapshot();
        self.write(async |transaction, next| {
            also(transaction).await?;
            query("DELETE FROM event").execute(&mut **transaction).await.map_err(database)?;
            query("UPDATE run SET snapshot = $1, base = $2")
                .bind(&snapshot)
                .bind(next)
                .execute(&mut **transaction)
                .await
                .map_err(database)?;
            query(
                "UPDATE attempt SET state = 'failed', ended = now()
                 WHERE state IN ('collect', 'closed')",
            )
            .execute(&mut **transaction)
            .await
            .map_err(database)?;
            query("DELETE FROM part").execute(&mut **transaction).await.map_err(database)?;
            Ok(())
        })
    }
}

impl Ledger for PgLedger {
    fn value(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let text = match name {
            "run" => "SELECT run FROM run",
            "plan" => "SELECT plan FROM run",
            "initial" => "SELECT initial FROM run",
            "snapshot" => "SELECT snapshot FROM run",
            _ => return Ok(None),
        };
        let found = query_scalar(text).fetch_optional(&self.database.pool);
        self.database.wait(found).map_err(database)
    }

    fn start(&mut self, run: &RunId, plan: &[u8], initial: &Digest, snapshot: &[u8]) -> Result<()> {
        self.database.wait(async {
            let mut transaction = fenced(&self.database, self.epoch).await?;
            query("INSERT INTO run (run, plan, initial, snapshot, base, sequence) VALUES ($1, $2, $3, $4, 0, 0)")
                .bind(&run.0[..])
                .bind(plan)
                .bind(&initial.0[..])
                .bind(snapshot)
                .execute(&mut *transaction)
                .await
                .map_err(database)?;
            self.database.wake_in(&mut transaction, DECIDED).await?;
            transaction.commit().await.map_err(database)
        })
    }

    fn set_plan(&mut self, plan: &[u8]) -> Result<()> {
        self.database.wait(async {
            let mut transaction = fenced(&self.database, self.epoch).await?;
            query("UPDATE run SET plan = $1")
                .bind(plan)
                .execute(&mut *transaction)
                .await
                .map_err(database)?;
            transaction.commit().await.map_err(database)
        })
    }

    fn clients(&self) -> Result<Vec<ClientId>> {
        let found = query_scalar("SELECT client FROM client").fetch_all(&self.database.pool);
        let found: Vec<Vec<u8>> = self.database.wait(found).map_err(database)?;
        found.iter().map(|key| Ok(ClientId(bytes(key, "a client's key")?))).collect()
    }

    fn tokens(&self) -> Result<BTreeMap<Digest, u32>> {
        let found =
            query_as("SELECT token, COUNT(*) FROM client WHERE token IS NOT NULL GROUP BY token")
                .fetch_all(&self.database.pool);
        let found: Vec<(Vec<u8>, i64)> = self.database.wait(found).map_err(database)?;
        let token = |(token, count): (Vec<u8>, i64)| {
            Ok((Digest(bytes(&token, "a token's digest")?), count as u32))
        };
        found.into_iter().map(token).collect()
    }

    fn enroll(&mut self, now: Millis, client: &ClientId, token: Option<&Digest>) -> Result<()> {
        self.database.wait(async {
            let mut transaction = fenced(&self.database, self.epoch).await?;
            query(
                "INSERT INTO client (client, enrolled, token) VALUES ($1, $2, $3)
                 ON CONFLICT DO NOTHING",
            )
            .bind(&client.0[..])
            .bind(now.0 as i64)
            .bind(token.map(|token| token.0.to_vec()))
            .execute(&mut *transaction)
            .await
            .map_err(database)?;
            transaction.commit().await.map_err(database)
        })
    }

    fn append(&mut self, event: &wire::Journaled, after: &Coordinator) -> Result<()> {
        let (body, epoch, turn) = (event.encode_to_vec(), self.epoch, after.turn());
        let collects = after.awaited().is_some();
        self.write(async |transaction, next| {
            query("INSERT INTO event (sequence, epoch, body) VALUES ($1, $2, $3)")
                .bind(next)
                .bind(epoch)
                .bind(&body)
                .execute(&mut **transaction)
                .await
                .map_err(database)?;
            let attempt = match collects {
                true => query(
                    "INSERT INTO attempt (round, attempt, state) VALUES ($1, $2, 'collect')
                     ON CONFLICT DO NOTHING",
                ),
                false => query(
                    "UPDATE attempt SET state = 'closed'
                     WHERE round = $1 AND attempt = $2 AND state = 'collect'",
                ),
            };
            attempt
                .bind(i64::from(turn.round))
                .bind(i64::from(turn.attempt))
                .execute(&mut **transaction)
                .await
                .map_err(database)?;
            Ok(())
        })
    }

    fn repeat(&mut self, after: &Coordinator) -> Result<()> {
        self.rebase(after, async |_| Ok(()))
    }

    fn commit(&mut self, record: &RoundRecord, after: &Coordinator) -> Result<()> {
        let row = RoundRow::new(after.now(), record);
        self.rebase(after, async |transaction| {
            query(
                "UPDATE attempt SET state = 'committed', ended = now()
                 WHERE round = $1 AND attempt = $2",
            )
            .bind(i64::from(row.round))
            .bind(i64::from(row.attempt))
            .execute(&mut **transaction)
            .await
            .map_err(database)?;
            insert_round(transaction, &row).await
        })
    }

    fn events(&self) -> Result<Vec<wire::Journaled>> {
        let read = async {
            let mut transaction = self.database.pool.begin().await?;
            query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                .execute(&mut *transaction)
                .await?;
            let at: i64 =
                query_scalar("SELECT sequence FROM run").fetch_one(&mut *transaction).await?;
            let events: Vec<Vec<u8>> = query_scalar("SELECT body FROM event ORDER BY sequence")
                .fetch_all(&mut *transaction)
                .await?;
            Ok((at, events))
        };
        let (at, events) = self.database.wait(read).map_err(database)?;
        *self.at() = at;
        let event =
            |body: &Vec<u8>| wire::Journaled::decode(&body[..]).map_err(|_| unreadable("an event"));
        events.iter().map(event).collect()
    }

    fn rounds(&self, after: u32) -> Result<Vec<CommittedRound>> {
        type Found = (i64, i64, i64, Vec<u8>, String, String, Option<f64>, Vec<u8>, i64, i64, i64);
        let found = query_as(
            "SELECT round, attempt, committed, head, training, evaluation, score, draw,
                (SELECT COUNT(*) FROM counted WHERE counted.round = round.round),
                (SELECT COALESCE(SUM(bytes), 0)::bigint FROM counted
                 WHERE counted.round = round.round),
                COALESCE((SELECT bytes FROM sent WHERE sent.round = round.round), 0)
             FROM round WHERE round > $1 ORDER BY round",
        )
        .bind(i64::from(after))
        .fetch_all(&self.database.pool);
        let found: Vec<Found> = self.database.wait(found).map_err(database)?;
        let round = |found: Found| {
            let (round, attempt, committed, head, training, evaluation, score, draw, ..) = found;
            let row = RoundRow {
                round: round as u32,
                attempt: attempt as u32,
                committed,
                head,
                training,
                evaluation,
                score,
                draw,
                uploads: Vec::new(),
            };
            let round = CommittedRound::new(&row, found.8 as u32, found.9 as u64)?;
            Ok(CommittedRound { sent: Some(found.10 as u64), ..round })
        };
        found.into_iter().map(round).collect()
    }

    fn counted(&self, round: u32) -> Result<Vec<CountedUpload>> {
        let found = query_as(
            "SELECT client, digest, bytes, samples FROM counted WHERE round = $1 ORDER BY client",
        )
        .bind(i64::from(round))
        .fetch_all(&self.database.pool);
        let found: Vec<(Vec<u8>, Vec<u8>, i64, i64)> =
            self.database.wait(found).map_err(database)?;
        let upload = |(client, digest, length, samples): (Vec<u8>, Vec<u8>, i64, i64)| {
            Ok(CountedUpload {
                client: ClientId(bytes(&client, "a client's key")?),
                digest: Digest(bytes(&digest, "a digest")?),
                bytes: length as u64,
                samples: samples as u32,
            })
        };
        found.into_iter().map(upload).collect()
    }

    fn turn(&self, round: u32) -> Result<Option<Turn>> {
        let found = query_scalar("SELECT attempt FROM round WHERE round = $1")
            .bind(i64::from(round))
            .fetch_optional(&self.database.pool);
        let found: Option<i64> = self.database.wait(found).map_err(database)?;
        Ok(found.map(|attempt| Turn::new(round, attempt as u32)))
    }
}

async fn insert_round(transaction: &mut PgTransaction<'static>, row: &RoundRow) -> Result<()> {
    query(
        "INSERT INTO round (round, attempt, committed, head, training, evaluation, score, draw)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(i64::from(row.round))
    .bind(i64::from(row.attempt))
    .bind(row.committed)
    .bind(&row.head)
    .bind(&row.training)
    .bind(&row.evaluation)
    .bind(row.score)
    .bind(&row.draw)
    .execute(&mut **transaction)
    .await
    .map_err(database)?;
    let uploads = &row.uploads;
    query(
        "INSERT INTO counted (round, client, digest, bytes, samples)
         SELECT $1, * FROM unnest($2::bytea[], $3::bytea[], $4::bigint[], $5::bigint[])",
    )
    .bind(i64::from(row.round))
    .bind(uploads.iter().map(|upload| upload.client.0.to_vec()).collect::<Vec<_>>())
    .bind(uploads.iter().map(|upload| upload.digest.0.to_vec()).collect::<Vec<_>>())
    .bind(uploads.iter().map(|upload| upload.bytes as i64).collect::<Vec<_>>())
    .bind(uploads.iter().map(|upload| i64::from(upload.samples)).collect::<Vec<_>>())
    .execute(&mut **transaction)
    .await
    .map_err(database)?;
    Ok(())
}
