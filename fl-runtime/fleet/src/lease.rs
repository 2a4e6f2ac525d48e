//! Who leads. A lease has an epoch; what is written under it is written in transactions that hold
//! the lease's row, so that a lease which went to another writes nothing any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlx_core::query::query;
use sqlx_core::query_scalar::query_scalar;
use sqlx_postgres::PgTransaction;
use tern_protocol::{Error, Result};

use crate::Database;
use crate::error::database;

/// The leader's lease, renewed in the background while this lives.
pub(crate) struct Lease {
    database: Database,
    epoch: i64,
    lost: Arc<AtomicBool>,
    renewing: tokio::task::JoinHandle<()>,
}

impl Lease {
    /// Takes the lease if nobody has it, under an epoch of its own.
    ///
    /// # Errors
    /// The database's.
    pub async fn take(database: &Database) -> Result<Option<Self>> {
        let epoch = take(database).await?;
        let Some(epoch) = epoch else { return Ok(None) };
        tracing::info!(epoch, "leads");
        let lost = Arc::new(AtomicBool::new(false));
        let renewing = tokio::spawn(renew_on(database.clone(), epoch, lost.clone()));
        Ok(Some(Lease { database: database.clone(), epoch, lost, renewing }))
    }

    /// Its number.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Whether another may have it. What is written then fails in any case; this is to stop early.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Gives it back, so that nobody waits for its end.
    ///
    /// # Errors
    /// The database's; then it ends by itself.
    pub fn release(self) -> Result<()> {
        self.renewing.abort();
        let released = query("UPDATE lease SET until = clock_timestamp() WHERE epoch = $1")
            .bind(self.epoch)
            .execute(&self.database.pool);
        self.database.wait(released).map_err(database)?;
        tracing::info!(epoch = self.epoch, "leads no longer");
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

async fn take(of: &Database) -> Result<Option<i64>> {
    query_scalar(
        "UPDATE lease SET epoch = epoch + 1, holder = $1,
            until = clock_timestamp() + $2 * interval '1 second'
         WHERE until < clock_timestamp() RETURNING epoch",
    )
    .bind(of.name())
    .bind(of.options().lease_seconds)
    .fetch_optional(&of.pool)
    .await
    .map_err(database)
}

async fn renew_on(database: Database, epoch: i64, lost: Arc<AtomicBool>) {
    let lease = database.options().lease();
    let mut renewed = Instant::now();
    while renewed.elapsed() < lease {
        tokio::time::sleep(lease / 4).await;
        let begun = Instant::now();
        // A renewal that hangs is none.
        let left = lease.saturating_sub(renewed.elapsed()).max(Duration::from_millis(1));
        match tokio::time::timeout(left, renew(&database, epoch)).await {
            Ok(Ok(true)) => renewed = begun,
            Ok(Ok(false)) => break,
            Ok(Err(error)) => tracing::warn!(%error, epoch, "renewing the lease"),
            Err(_) => tracing::warn!(epoch, "the lease is not renewed in its time"),
        }
    }
    lost.store(true, Ordering::Relaxed);
    tracing::warn!(epoch, "the lease is lost");
}

async fn renew(of: &Database, epoch: i64) -> Result<bool> {
    let renewed = query(
        "UPDATE lease SET until = clock_timestamp() + $2 * interval '1 second' WHERE epoch = $1",
    )
    .bind(epoch)
    .bind(of.options().lease_seconds)
    .execute(&of.pool)
    .await
    .map_err(database)?;
    Ok(renewed.rows_affected() == 1)
}

/// Begins a transaction under an epoch: it fails if that is over, and nobody takes the lease before
/// it ends.
pub(crate) async fn fenced(of: &Database, epoch: i64) -> Result<PgTransaction<'static>> {
    let mut transaction = of.pool.begin().await.map_err(database)?;
    let current: i64 = query_scalar("SELECT epoch FROM lease FOR SHARE")
        .fetch_one(&mut *transaction)
        .await
        .map_err(database)?;
    check(current, epoch)?;
    Ok(transaction)
}

/// Whether an epoch is the current one.
///
/// # Errors
/// [`Error::Value`], which [`is_over`] tells from others.
pub(crate) fn check(current: i64, epoch: i64) -> Result<()> {
    if current != epoch {
        let expected = format!("{epoch}, under which this process led");
        return Err(Error::value(EPOCH, current, expected));
    }
    Ok(())
}

const EPOCH: &str = "epoch of the lease";

/// Whether an error says that an epoch is over.
pub(crate) fn is_over(error: &Error) -> bool {
    matches!(error, Error::Value { name, .. } if name == EPOCH)
}
