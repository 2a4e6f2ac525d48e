//! Where other processes take updates and add them up: what the federation is told of it.

use tern_protocol::coordinator::{Event, Upload};
use tern_protocol::{ClientId, Millis, Refusal, Result, Turn};

use super::{Aggregation, Counted, Federation, Folding, Sum};

impl Federation {
    /// Whether the deadline of the open phase has passed, by the federation's clock.
    pub(super) fn is_due(&self, now: Millis) -> bool {
        self.coordinator.deadline().is_some_and(|deadline| deadline <= now)
    }

    pub(super) fn collects_elsewhere(&self) -> bool {
        self.options.fleet && self.coordinator.awaited().is_some()
    }

    /// Whether an attempt at which updates come in elsewhere is to be closed there, where `taken`
    /// have come that this federation wasn't told of.
    pub fn closes(&mut self, now: Millis, taken: usize) -> bool {
        let now = self.clock.read(now);
        let enough = self.coordinator.awaited().is_some_and(|awaited| taken >= awaited);
        self.collects_elsewhere() && (enough || self.is_due(now))
    }

    /// All that came in elsewhere in an attempt that was closed there, in order of their clients'
    /// keys. What the coordinator would not take, it isn't told of: of clients that declined.
    ///
    /// # Errors
    /// If it can't be stored; the next call tries again.
    pub fn collected(
        &mut self,
        now: Millis,
        turn: Turn,
        mut uploads: Vec<(ClientId, Upload)>,
    ) -> Result<()> {
        let now = self.clock.read(now);
        uploads.retain(|(client, upload)| {
            let taken = self.coordinator.check_upload(client, turn, Some(upload));
            if let Err(refusal) = taken.as_ref()
                && *refusal != Refusal::Repeated
            {
                tracing::warn!(%client, %turn, %refusal, "an upload that came in is left out");
            }
            taken.is_ok()
        });
        if !uploads.is_empty() {
            self.uploaded += uploads.iter().map(|(_, upload)| upload.bytes).sum::<u64>();
            self.apply(now, Event::Collected { turn, uploads })?;
        }
        if turn == self.coordinator.turn() && self.collects_elsewhere() && self.is_due(now) {
            self.apply(now, Event::Tick)?;
        }
        Ok(())
    }

    /// The updates whose sum is awaited, in order of their clients' keys, and their attempt.
    pub fn summing(&self) -> Option<(Turn, Vec<(ClientId, Counted)>)> {
        let due = self.options.fleet && !self.working && self.coordinator.combining();
        let counted = self.coordinator.accepted().map(|(client, upload)| (*client, upload.into()));
        due.then(|| (self.coordinator.turn(), counted.collect()))
    }

    /// How updates are read and added up.
    pub fn folding(&self) -> &Folding {
        &self.context.folding
    }

    /// Whether updates stay after their round.
    pub fn keeps_uploads(&self) -> bool {
        self.options.keep_uploads
    }

    /// The making of a model from the sum that was awaited, for [`Federation::complete`].
    pub fn summed(&mut self, sum: Sum) -> Option<Aggregation> {
        self.work_from(Some(sum))
    }
}
