//! A look at a run, for those who watch.

use std::collections::BTreeMap;

use tern_protocol::coordinator::{Coordinator, Progress};
use tern_protocol::{ClientId, Millis, RunId};

use super::{Failed, Federation};

/// What a run is doing, for those who watch.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Status {
    /// Name of the run.
    pub name: String,
    /// The run.
    pub run: RunId,
    /// The open round.
    pub round: u32,
    /// The attempt at it.
    pub attempt: u32,
    /// Rounds of the plan.
    pub rounds: u32,
    /// Name of the phase.
    pub phase: &'static str,
    /// Milliseconds until the phase ends, if it ends by itself.
    pub remaining: Option<u64>,
    /// The cohort, with how far each member is in this phase.
    pub cohort: Vec<(ClientId, Progress)>,
    /// Clients heard of lately.
    pub online: usize,
    /// Clients registered.
    pub enrolled: usize,
    /// Clients that a round asks for.
    pub asked: u32,
    /// Bytes of updates received since the process started.
    pub uploaded: u64,
    /// Bytes of all bodies on disk.
    pub stored: u64,
    /// Refused messages by reason, since the process started.
    pub refusals: BTreeMap<&'static str, u64>,
    /// The last attempts that failed, since the process started.
    pub failed: Vec<Failed>,
    /// Clients that broke the protocol of secure aggregation and are asked for nothing any more,
    /// and how.
    pub excluded: BTreeMap<ClientId, String>,
    /// Round and score of the best model.
    pub best: Option<(u32, f64)>,
    /// Whether the run is over.
    pub finished: bool,
    /// Rises with every change.
    pub version: u64,
}

impl Status {
    /// What a coordinator of a run is doing; of what it doesn't know there is nothing.
    pub fn of(coordinator: &Coordinator, run: RunId, now: Millis) -> Self {
        let plan = coordinator.plan();
        let excluded = coordinator.excluded().iter();
        Status {
            name: plan.name.clone(),
            run,
            round: coordinator.turn().round,
            attempt: coordinator.turn().attempt,
            rounds: plan.rounds,
            phase: coordinator.phase(),
            remaining: coordinator.deadline().map(|deadline| deadline.since(now)),
            cohort: coordinator.cohort(),
            online: 0,
            enrolled: 0,
            asked: plan.cohort.asked(),
            uploaded: 0,
            stored: 0,
            refusals: BTreeMap::new(),
            failed: Vec::new(),
            excluded: excluded.map(|(client, how)| (*client, how.reason.clone())).collect(),
            best: coordinator.best().map(|best| (best.round, best.score)),
            finished: coordinator.finished(),
            version: 0,
        }
    }
}

impl Federation {
    /// What the run is doing.
    pub fn status(&self) -> Status {
        let now = self.clock.now();
        Status {
            online: self.presence.online(now).len(),
            enrolled: self.presence.enrolled().len(),
            uploaded: self.uploaded,
            stored: self.bodies.used(),
            refusals: self.refusals.clone(),
            failed: self.failed.last(),
            version: self.version,
            ..Status::of(&self.coordinator, self.task.run, now)
        }
    }
}
