//! What adds up parts of a closed attempt. A part is claimed for a lease, which is kept while it is
//! worked at; its sum counts if the claim still is one when it is done.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tern_protocol::{Result, RunId};
use tern_server::federation::Folding;
use tokio::sync::watch;

use crate::parts::{Claim, Folded};
use crate::traces::Span;
use crate::wakes::{Wakes, heard};
use crate::{Database, Objects};

/// Adds up parts until `stop` is true; what it is at then it gives back.
///
/// # Errors
/// Of the options; it waits where the database or the store fail.
pub async fn run(database: &Database, spool: &Path, mut stop: watch::Receiver<bool>) -> Result<()> {
    let objects = Objects::open(database, spool)?;
    let mut parts = Wakes::listen(database).parts;
    let role = database.serve("aggregator");
    let mut work = Aggregator { database: database.clone(), objects, folding: BTreeMap::new() };
    let (mut folded, began) = (0u64, Instant::now());
    while !*stop.borrow() {
        let done = tokio::select! {
            done = work.one() => done,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match done {
            Ok(true) => folded += 1,
            Ok(false) => {
                role.say(format!("{folded} parts in {:.0} s", began.elapsed().as_secs_f64()));
                tokio::select! {
                    () = heard(&mut parts, Duration::from_millis(500)) => {}
                    _ = stop.wait_for(|stop| *stop) => break,
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a part is not added up, trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
    Ok(())
}

struct Aggregator {
    database: Database,
    objects: Arc<Objects>,
    /// By the plan's text: a plan may get more rounds.
    folding: BTreeMap<Vec<u8>, Arc<Folding>>,
}

impl Aggregator {
    /// Adds up a part, if there is one.
    async fn one(&mut self) -> Result<bool> {
        let Some(claim) = self.database.claim().await? else { return Ok(false) };
        let kept = self.fold(&claim).await;
        if kept.is_err()
            && let Err(error) = self.database.give_back(&claim).await
        {
            tracing::debug!(%error, "giving a part back");
        }
        kept.map(|()| true)
    }

    async fn fold(&mut self, claim: &Claim) -> Result<()> {
        let (run, folding) = self.folding().await?;
        let mut span = Span::begin(run, claim.turn, "part");
        span.set("tern.part", claim.number);
        span.set("tern.updates", claim.updates.len() as i64);
        let (objects, of) = (self.objects.clone(), claim.clone());
        let folding = tokio::task::spawn_blocking(move || {
            let updates: Vec<_> =
                of.updates.iter().map(|(client, update)| (*client, update.digest)).collect();
            objects.expect(of.turn, &updates, folding.format().bytes())?;
            Ok::<_, tern_protocol::Error>(match folding.fold(&*objects, of.turn, &of.updates)? {
                Ok(sum) => Folded::Sum(objects.put_sum(&of.name(), sum.to_bytes())?),
                Err(lost) => Folded::Lost(lost),
            })
        });
        tokio::pin!(folding);
        let pause = self.database.options().lease() / 4;
        let folded = loop {
            tokio::select! {
                folded = &mut folding => break folded.map_err(panicked)??,
                () = tokio::time::sleep(pause) => {
                    // What comes of it where it is none is found at the end.
                    if let Err(error) = self.database.keep_claim(claim).await {
                        tracing::warn!(%error, "keeping a part");
                    }
                }
            }
        };
        if !self.database.finish_part(claim, &folded).await? {
            tracing::warn!(turn = %claim.turn, part = claim.number, "went to another meanwhile");
            let (objects, name) = (self.objects.clone(), claim.name());
            let removed = tokio::task::spawn_blocking(move || objects.remove_sum(&name));
            removed.await.map_err(panicked)?;
        }
        Ok(())
    }

    async fn folding(&mut self) -> Result<(RunId, Arc<Folding>)> {
        let found = self.database.run().await?;
        let (run, plan) = found.ok_or_else(|| crate::error::unreadable("the plan of a part"))?;
        let text = serde_json::to_vec(&plan).unwrap_or_default();
        if let Some(folding) = self.folding.get(&text) {
            return Ok((run, folding.clone()));
        }
        let folding = Arc::new(Folding::new(&plan)?);
        self.folding = BTreeMap::from([(text, folding.clone())]);
        Ok((run, folding))
    }
}

fn panicked(error: tokio::task::JoinError) -> tern_protocol::Error {
    tern_protocol::Error::value("adding up a part", error, "no panic")
}
