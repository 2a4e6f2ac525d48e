//! What nothing refers to any more: rows and objects that are older than a stated time.

use std::collections::BTreeSet;
use std::sync::Arc;

use sqlx_core::query::query;
use sqlx_core::query_as::query_as;
use tern_protocol::{Digest, Result, Turn, hex};

use crate::error::database;
use crate::lease::fenced;
use crate::objects::Orphan;
use crate::{Database, Objects};

/// Sweeps in the background, under an epoch: all but what the run goes on from, the open attempt's,
/// and, where updates stay after their round, those that were counted.
pub(crate) fn begin(
    of: &Database,
    objects: &Arc<Objects>,
    epoch: i64,
    kept: Vec<Digest>,
    open: Turn,
    keeps_uploads: bool,
) {
    let (of, objects) = (of.clone(), objects.clone());
    of.handle().clone().spawn(async move {
        match sweep(&of, &objects, epoch, &kept, open, keeps_uploads).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "objects that nothing referred to"),
            Err(error) => tracing::warn!(%error, "sweeping"),
        }
    });
}

async fn sweep(
    of: &Database,
    objects: &Objects,
    epoch: i64,
    kept: &[Digest],
    open: Turn,
    keeps_uploads: bool,
) -> Result<usize> {
    of.sweep_rows(keeps_uploads).await?;
    let counted = match keeps_uploads {
        true => of.counted_updates().await?,
        false => BTreeSet::new(),
    };
    let now = tern_host::clock::now().0;
    let keep = |orphan: &Orphan<'_>| stays(orphan, kept, open, &counted);
    let orphans = objects.orphans(now, of.options().keep(), keep).await?;
    // Who doesn't lead any more may have missed what others refer to by now.
    drop(fenced(of, epoch).await?);
    objects.remove(&orphans).await.map(|()| orphans.len())
}

/// Whether an object stays however old it is, where these models are kept, this attempt is open, and
/// these updates stay after their rounds.
pub(crate) fn stays(
    orphan: &Orphan<'_>,
    kept: &[Digest],
    open: Turn,
    counted: &BTreeSet<(Turn, String)>,
) -> bool {
    match orphan {
        Orphan::Model(digest) => kept.contains(digest),
        Orphan::Update(turn, name) => {
            *turn >= open || counted.contains(&(*turn, (*name).to_owned()))
        }
        Orphan::Sum(turn) => *turn >= open,
    }
}

impl Database {
    /// Removes rows of attempts that ended, of requests that nobody waits for, of nonces that are too
    /// old to be taken, and of who was not heard of.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn sweep_rows(&self, keeps_uploads: bool) -> Result<()> {
        let attempts = match keeps_uploads {
            // Members of those that were committed have small updates.
            true => {
                "DELETE FROM attempt WHERE ended < now() - $1 * interval '1 second'
                 AND state <> 'committed'"
            }
            false => "DELETE FROM attempt WHERE ended < now() - $1 * interval '1 second'",
        };
        for statement in [
            attempts,
            "DELETE FROM request WHERE asked < now() - $1 * interval '1 second'",
            "DELETE FROM nonce WHERE seen < now() - $1 * interval '1 second'",
            "DELETE FROM presence WHERE seen < now() - $1 * interval '1 second'",
            "DELETE FROM role WHERE seen < now() - $1 * interval '1 second'",
        ] {
            query(statement)
                .bind(self.options().keep_seconds)
                .execute(&self.pool)
                .await
                .map_err(database)?;
        }
        Ok(())
    }

    async fn counted_updates(&self) -> Result<BTreeSet<(Turn, String)>> {
        let found: Vec<(i64, i64, Vec<u8>)> = query_as(
            "SELECT round.round, round.attempt, counted.digest
             FROM round JOIN counted ON counted.round = round.round",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(database)?;
        let place = |(round, attempt, digest): (i64, i64, Vec<u8>)| {
            (Turn::new(round as u32, attempt as u32), hex::encode(&digest))
        };
        Ok(found.into_iter().map(place).collect())
    }
}
