//! Who is in an attempt: decided by one transaction, whichever gateway an update came to.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message as _;
use sqlx_core::query::query;
use sqlx_core::query_as::query_as;
use sqlx_core::query_scalar::query_scalar;
use tern_protocol::coordinator::Upload;
use tern_protocol::participant::SMALL_BODY;
use tern_protocol::{ClientId, Digest, Result, Turn, wire};

use crate::Database;
use crate::error::{bytes, database, unreadable};
use crate::lease::fenced;

/// Bytes of bodies that lie with their members instead of in the object store, at most.
pub(crate) const SMALL: u64 = SMALL_BODY as u64;

/// An update that came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    /// Whose.
    pub client: ClientId,
    /// SHA-256 of its body.
    pub digest: Digest,
    /// Bytes of its body.
    pub bytes: u64,
    /// What its client announced.
    pub finish: wire::Finish,
    /// A small body; others are in the object store.
    pub body: Option<Vec<u8>>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the attempt.
    Counted,
    /// The same one was.
    Repeated,
    /// Another of its client was.
    Conflict,
    /// The attempt takes no more.
    Closed,
}

impl Outcome {
    /// As traces have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Outcome::Counted => "counted",
            Outcome::Repeated => "repeated",
            Outcome::Conflict => "conflict",
            Outcome::Closed => "closed",
        }
    }
}

fn numbers(turn: Turn) -> (i64, i64) {
    (i64::from(turn.round), i64::from(turn.attempt))
}

impl Database {
    /// Takes updates into an attempt: all of a batch are decided by one transaction. Those that are
    /// in it stay in it, whatever becomes of this process.
    ///
    /// # Errors
    /// The database's. Some may be in it then: whoever asks again is told so.
    pub async fn accept(&self, turn: Turn, batch: &[Taken]) -> Result<Vec<Outcome>> {
        let (round, attempt) = numbers(turn);
        let mut transaction = self.pool.begin().await.map_err(database)?;
        // Whoever closes the attempt waits for this transaction, and it for who closes.
        let state: Option<String> =
            query_scalar("SELECT state FROM attempt WHERE round = $1 AND attempt = $2 FOR SHARE")
                .bind(round)
                .bind(attempt)
                .fetch_optional(&mut *transaction)
                .await
                .map_err(database)?;
        // By their keys: two batches never wait for each other in a circle.
        let mut sorted: Vec<&Taken> = batch.iter().collect();
        sorted.sort_by_key(|taken| taken.client);
        let mut inserted = BTreeSet::new();
        if state.as_deref() == Some("collect") {
            let new: Vec<Vec<u8>> = query_scalar(
                "INSERT INTO member (round, attempt, client, digest, bytes, finish, body)
                 SELECT $1, $2, * FROM unnest($3::bytea[], $4::bytea[], $5::bigint[], $6::bytea[],
                    $7::bytea[])
                 ON CONFLICT DO NOTHING RETURNING client",
            )
            .bind(round)
            .bind(attempt)
            .bind(sorted.iter().map(|taken| taken.client.0.to_vec()).collect::<Vec<_>>())
            .bind(sorted.iter().map(|taken| taken.digest.0.to_vec()).collect::<Vec<_>>())
            .bind(sorted.iter().map(|taken| taken.bytes as i64).collect::<Vec<_>>())
            .bind(sorted.iter().map(|taken| taken.finish.encode_to_vec()).collect::<Vec<_>>())
            .bind(sorted.iter().map(|taken| taken.body.as_deref()).collect::<Vec<_>>())
            .fetch_all(&mut *transaction)
            .await
            .map_err(database)?;
            inserted.extend(new);
        }
        let mut there = BTreeMap::new();
        // One of a client that is twice in the batch may be the other one.
        if inserted.len() < batch.len() {
            // One look into the index for each. By `client = ANY($3)` a table without statistics is
            // read from end to end: its planner takes an attempt to have few members.
            let found: Vec<(Vec<u8>, Vec<u8>)> = query_as(
                "SELECT found.client, found.finish FROM unnest($3::bytea[]) AS asked (client)
                 CROSS JOIN LATERAL (SELECT client, finish FROM member
                    WHERE round = $1 AND attempt = $2 AND client = asked.client LIMIT 1) AS found",
            )
            .bind(round)
            .bind(attempt)
            .bind(sorted.iter().map(|taken| taken.client.0.to_vec()).collect::<Vec<_>>())
            .fetch_all(&mut *transaction)
            .await
            .map_err(database)?;
            there.extend(found);
        }
        transaction.commit().await.map_err(database)?;
        let outcome = |taken: &Taken| {
            let key = &taken.client.0[..];
            match there.get(key) {
                Some(finish) if *finish != taken.finish.encode_to_vec() => Outcome::Conflict,
                _ if inserted.remove(key) => Outcome::Counted,
                Some(_) => Outcome::Repeated,
                None => Outcome::Closed,
            }
        };
        Ok(batch.iter().map(outcome).collect())
    }

    /// What is in an attempt of a client.
    ///
    /// # Errors
    /// The database's.
    pub async fn member(&self, turn: Turn, client: &ClientId) -> Result<Option<wire::Finish>> {
        let (round, attempt) = numbers(turn);
        let found: Option<Vec<u8>> = query_scalar(
            "SELECT finish FROM member WHERE round = $1 AND attempt = $2 AND client = $3",
        )
        .bind(round)
        .bind(attempt)
        .bind(&client.0[..])
        .fetch_optional(&self.pool)
        .await
        .map_err(database)?;
        let finish = |found: Vec<u8>| {
            wire::Finish::decode(&found[..]).map_err(|_| unreadable("a member's update"))
        };
        found.map(finish).transpose()
    }

    /// Small bodies of these clients' updates in an attempt.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn bodies(
        &self,
        turn: Turn,
        clients: &[ClientId],
    ) -> Result<BTreeMap<ClientId, Bytes>> {
        let (round, attempt) = numbers(turn);
        let found: Vec<(Vec<u8>, Vec<u8>)> = query_as(
            // By the index, as where they are accepted.
            "SELECT found.client, found.body FROM unnest($3::bytea[]) AS asked (client)
             CROSS JOIN LATERAL (SELECT client, body FROM member
                WHERE round = $1 AND attempt = $2 AND client = asked.client LIMIT 1) AS found
             WHERE found.body IS NOT NULL",
        )
        .bind(round)
        .bind(attempt)
        .bind(clients.iter().map(|client| client.0.to_vec()).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await
        .map_err(database)?;
        let body = |(key, body): (Vec<u8>, Vec<u8>)| {
            Ok((ClientId(bytes(&key, "a client's key")?), Bytes::from(body)))
        };
        found.into_iter().map(body).collect()
    }

    /// Clients whose updates are in an attempt.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn member_keys(&self, turn: Turn) -> Result<BTreeSet<ClientId>> {
        let (round, attempt) = numbers(turn);
        let found: Vec<Vec<u8>> =
            query_scalar("SELECT client FROM member WHERE round = $1 AND attempt = $2")
                .bind(round)
                .bind(attempt)
                .fetch_all(&self.pool)
                .await
                .map_err(database)?;
        found.iter().map(|key| Ok(ClientId(bytes(key, "a client's key")?))).collect()
    }

    /// Whether an attempt was closed, and how many updates are in it; `None` if updates never came
    /// in at it.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn attempt(&self, turn: Turn) -> Result<Option<(bool, usize)>> {
        let (round, attempt) = numbers(turn);
        let found: Option<(String, i64)> = query_as(
            "SELECT state, (SELECT COUNT(*) FROM member
                WHERE member.round = attempt.round AND member.attempt = attempt.attempt)
             FROM attempt WHERE round = $1 AND attempt = $2",
        )
        .bind(round)
        .bind(attempt)
        .fetch_optional(&self.pool)
        .await
        .map_err(database)?;
        Ok(found.map(|(state, members)| (state != "collect", members as usize)))
    }

    /// Closes an attempt, under an epoch: updates that are being taken are in it or not when this
    /// is done, and no other ever is. Closing it again changes nothing.
    ///
    /// # Errors
    /// If the epoch is over; the database's.
    pub(crate) async fn close(&self, epoch: i64, turn: Turn) -> Result<()> {
        let (round, attempt) = numbers(turn);
        let mut transaction = fenced(self, epoch).await?;
        query(
            "UPDATE attempt SET state = 'closed'
             WHERE round = $1 AND attempt = $2 AND state = 'collect'",
        )
        .bind(round)
        .bind(attempt)
        .execute(&mut *transaction)
        .await
        .map_err(database)?;
        transaction.commit().await.map_err(database)
    }

    /// All updates in an attempt, in order of their clients' keys.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn members(&self, turn: Turn) -> Result<Vec<(ClientId, Upload)>> {
        let (round, attempt) = numbers(turn);
        type Found = (Vec<u8>, Vec<u8>, i64, Vec<u8>);
        let found: Vec<Found> = query_as(
            "SELECT client, digest, bytes, finish FROM member
             WHERE round = $1 AND attempt = $2 ORDER BY client",
        )
        .bind(round)
        .bind(attempt)
        .fetch_all(&self.pool)
        .await
        .map_err(database)?;
        let member = |(client, digest, length, finish): Found| {
            let finish =
                wire::Finish::decode(&finish[..]).map_err(|_| unreadable("a member's update"))?;
            let client = ClientId(bytes(&client, "a client's key")?);
            let digest = Digest(bytes(&digest, "a digest")?);
            Ok((client, Upload::announced(digest, length as u64, finish)))
        };
        found.into_iter().map(member).collect()
    }
}
