//! What gateways note in the background. Who was heard of lately, at any of them: what a draw is made
//! from; it may be lost, clients ask again. And how much they sent.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx_core::query::query;
use sqlx_core::query_as::query_as;
use sqlx_core::query_scalar::query_scalar;
use tern_protocol::{ClientId, Result};

use crate::Database;
use crate::error::{bytes, database};

/// Time between writes.
const PAUSE: Duration = Duration::from_millis(300);
/// Seconds for which one that was written before may still become visible.
const OVERLAP: f64 = 5.0;

/// Clients that this gateway heard of, and bytes of models that it sent, written now and then.
#[derive(Default)]
pub(crate) struct Noted {
    clients: Mutex<BTreeMap<ClientId, u32>>,
    sent: AtomicU64,
}

impl Noted {
    /// Writes in the background until this is dropped.
    pub fn new(of: &Database) -> Arc<Self> {
        let noted = Arc::new(Noted::default());
        let (shared, of) = (Arc::downgrade(&noted), of.clone());
        of.handle().clone().spawn(async move {
            while let Some(noted) = shared.upgrade() {
                if let Err(error) = noted.write(&of).await {
                    tracing::warn!(%error, "noting who is there and what was sent");
                }
                drop(noted);
                tokio::time::sleep(PAUSE).await;
            }
        });
        noted
    }

    async fn write(&self, to: &Database) -> Result<()> {
        let clients =
            std::mem::take(&mut *self.clients.lock().unwrap_or_else(PoisonError::into_inner));
        if !clients.is_empty() {
            to.heard(&clients).await?;
        }
        let sent = self.sent.swap(0, Ordering::Relaxed);
        if sent > 0
            && let Err(error) = to.sent(sent).await
        {
            self.sent(sent);
            return Err(error);
        }
        Ok(())
    }

    /// A client is there.
    pub fn heard(&self, client: ClientId, samples: u32) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).insert(client, samples);
    }

    /// A client got a piece of a model.
    pub fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Database {
    async fn heard(&self, clients: &BTreeMap<ClientId, u32>) -> Result<()> {
        query(
            "INSERT INTO presence (client, samples, seen)
             SELECT *, clock_timestamp() FROM unnest($1::bytea[], $2::bigint[])
             ON CONFLICT (client) DO UPDATE
                SET samples = EXCLUDED.samples, seen = EXCLUDED.seen",
        )
        .bind(clients.keys().map(|client| client.0.to_vec()).collect::<Vec<_>>())
        .bind(clients.values().map(|samples| i64::from(*samples)).collect::<Vec<_>>())
        .execute(&self.pool)
        .await
        .map_err(database)?;
        Ok(())
    }

    /// Counts bytes that were sent to the open round: a committed one's count stays as it was told.
    async fn sent(&self, sent: u64) -> Result<()> {
        query(
            "INSERT INTO sent (round, bytes) SELECT COALESCE(MAX(round), 0) + 1, $1 FROM round
             ON CONFLICT (round) DO UPDATE SET bytes = sent.bytes + EXCLUDED.bytes",
        )
        .bind(sent as i64)
        .execute(&self.pool)
        .await
        .map_err(database)?;
        Ok(())
    }

    /// Who was heard of after a moment, in seconds of the database's clock, and the moment from which
    /// to ask next. Some are told twice.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn heard_since(&self, moment: f64) -> Result<(Vec<(ClientId, u32)>, f64)> {
        let now: f64 = query_scalar("SELECT extract(epoch FROM clock_timestamp())::float8")
            .fetch_one(&self.pool)
            .await
            .map_err(database)?;
        let found: Vec<(Vec<u8>, i64)> =
            query_as("SELECT client, samples FROM presence WHERE seen > to_timestamp($1)")
                .bind(moment)
                .fetch_all(&self.pool)
                .await
                .map_err(database)?;
        let client = |(key, samples): (Vec<u8>, i64)| {
            Ok((ClientId(bytes(&key, "a client's key")?), samples as u32))
        };
        let clients = found.into_iter().map(client).collect::<Result<_>>()?;
        Ok((clients, now - OVERLAP))
    }

    /// Clients heard of in the last seconds, and clients registered.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn counts(&self, seconds: f64) -> Result<(usize, usize)> {
        let (online, enrolled): (i64, i64) = query_as(
            "SELECT (SELECT COUNT(*) FROM presence
                WHERE seen > clock_timestamp() - $1 * interval '1 second'),
                (SELECT COUNT(*) FROM client)",
        )
        .bind(seconds)
        .fetch_one(&self.pool)
        .await
        .map_err(database)?;
        Ok((online as usize, enrolled as usize))
    }

    /// Clients that were registered after the one of this number, and the last one's number.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn registered(&self, after: i64) -> Result<(Vec<ClientId>, i64)> {
        let found: Vec<(Vec<u8>, i64)> =
            query_as("SELECT client, number FROM client WHERE number > $1 ORDER BY number")
                .bind(after)
                .fetch_all(&self.pool)
                .await
                .map_err(database)?;
        let last = found.last().map_or(after, |(_, number)| *number);
        let client = |(key, _): &(Vec<u8>, i64)| Ok(ClientId(bytes(key, "a client's key")?));
        Ok((found.iter().map(client).collect::<Result<_>>()?, last))
    }

    /// Whether a client is registered.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn is_registered(&self, client: &ClientId) -> Result<bool> {
        query_scalar("SELECT EXISTS (SELECT 1 FROM client WHERE client = $1)")
            .bind(&client.0[..])
            .fetch_one(&self.pool)
            .await
            .map_err(database)
    }

    /// Takes nonces of keys: of each, whether nobody took it before.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn take_nonces(&self, nonces: &[(ClientId, [u8; 16])]) -> Result<Vec<bool>> {
        let mut sorted = nonces.to_vec();
        sorted.sort_unstable();
        let taken: Vec<(Vec<u8>, Vec<u8>)> = query_as(
            "INSERT INTO nonce (client, nonce) SELECT * FROM unnest($1::bytea[], $2::bytea[])
             ON CONFLICT DO NOTHING RETURNING client, nonce",
        )
        .bind(sorted.iter().map(|(client, _)| client.0.to_vec()).collect::<Vec<_>>())
        .bind(sorted.iter().map(|(_, nonce)| nonce.to_vec()).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await
        .map_err(database)?;
        let mut taken: std::collections::BTreeSet<_> = taken.into_iter().collect();
        // Two alike in a batch: one of them took it.
        let is_new = |(client, nonce): &(ClientId, [u8; 16])| {
            taken.remove(&(client.0.to_vec(), nonce.to_vec()))
        };
        Ok(nonces.iter().map(is_new).collect())
    }
}
