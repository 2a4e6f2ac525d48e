//! The coordinator as the database has it: a gateway handles the leader's events after it, and so
//! knows what each client should do.

use sqlx_core::query::query;
use sqlx_core::query_as::query_as;
use tern_protocol::coordinator::{Coordinator, Event};
use tern_protocol::{Millis, Result, RunId, RunPlan, wire};

use prost::Message as _;

use crate::Database;
use crate::error::{database, unreadable};

/// A coordinator that follows.
pub(crate) struct Follower {
    plan: RunPlan,
    run: RunId,
    pub coordinator: Coordinator,
    /// The last write that it has.
    pub sequence: i64,
    base: i64,
}

/// What the database has that a follower lacks.
pub(crate) struct News {
    /// The state between attempts, if there is a later one, and its write.
    pub snapshot: Option<(i64, Vec<u8>)>,
    /// Events after the last write that it has.
    pub events: Vec<(i64, Vec<u8>)>,
}

impl Database {
    /// What was decided after write `sequence`, by who has the state between attempts of write
    /// `base`: all as of one moment.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn news(&self, base: i64, sequence: i64) -> Result<News> {
        let read = async {
            let mut transaction = self.pool.begin().await?;
            query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                .execute(&mut *transaction)
                .await?;
            let snapshot: Option<(i64, Vec<u8>)> =
                query_as("SELECT base, snapshot FROM run WHERE base > $1")
                    .bind(base)
                    .fetch_optional(&mut *transaction)
                    .await?;
            let after = snapshot.as_ref().map_or(sequence, |(base, _)| *base);
            let events =
                query_as("SELECT sequence, body FROM event WHERE sequence > $1 ORDER BY sequence")
                    .bind(after)
                    .fetch_all(&mut *transaction)
                    .await?;
            Ok(News { snapshot, events })
        };
        read.await.map_err(database)
    }

    /// The run and its plan, once there is one.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn run(&self) -> Result<Option<(RunId, RunPlan)>> {
        let found: Option<(Vec<u8>, Vec<u8>)> = query_as("SELECT run, plan FROM run")
            .fetch_optional(&self.pool)
            .await
            .map_err(database)?;
        let Some((run, plan)) = found else { return Ok(None) };
        let plan = serde_json::from_slice(&plan).map_err(|_| unreadable("the plan"))?;
        Ok(Some((RunId::from_slice(&run).ok_or_else(|| unreadable("the run"))?, plan)))
    }
}

impl Follower {
    /// Of a run, as it is.
    ///
    /// # Errors
    /// The database's; what is in it that can't be.
    pub async fn begin(of: &Database, run: RunId, plan: &RunPlan) -> Result<Self> {
        Follower::new(run, plan, of.news(-1, -1).await?)
    }

    /// Of a run of which this is all there is.
    ///
    /// # Errors
    /// For what can't be.
    pub fn new(run: RunId, plan: &RunPlan, News { snapshot, events }: News) -> Result<Self> {
        let (base, snapshot) = snapshot.ok_or_else(|| unreadable("the state"))?;
        let coordinator = Coordinator::restore(plan.clone(), run, &snapshot)?;
        let mut follower = Follower { plan: plan.clone(), run, coordinator, sequence: base, base };
        follower.follow(News { snapshot: None, events })?;
        Ok(follower)
    }

    /// What it has.
    pub fn at(&self) -> (i64, i64) {
        (self.base, self.sequence)
    }

    /// Handles what was decided; whether that was anything.
    ///
    /// # Errors
    /// For what can't be: it is as before then.
    pub fn follow(&mut self, news: News) -> Result<bool> {
        let mut changed = false;
        if let Some((base, snapshot)) = news.snapshot {
            self.coordinator = Coordinator::restore(self.plan.clone(), self.run, &snapshot)?;
            (self.base, self.sequence, changed) = (base, base, true);
        }
        for (sequence, body) in news.events {
            let journaled =
                wire::Journaled::decode(&body[..]).map_err(|_| unreadable("an event"))?;
            let now = Millis(journaled.now);
            self.coordinator.handle(now, Event::from_wire(journaled)?)?;
            (self.sequence, changed) = (sequence, true);
        }
        Ok(changed)
    }
}
