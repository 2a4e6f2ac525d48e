//! Stored bodies that are no longer what they were: what becomes of them, and who is told.

use tern_protocol::coordinator::Event;
use tern_protocol::{ClientId, Digest, Error, Millis, Result, Turn};

use super::Federation;
use super::fold::Stored;

/// Milliseconds from a look at a damaged model to the next one.
const AGAIN: u64 = 5_000;

/// What keeps a run from going on, and which models were looked at.
#[derive(Debug, Default)]
pub(super) struct Damage {
    reason: Option<String>,
    /// The attempt whose models are whole.
    whole: Option<Turn>,
    /// When to look at those again that are not.
    again: Millis,
}

impl Damage {
    pub fn found(&mut self, error: &Error) {
        self.reason = Some(error.to_string());
    }

    pub fn mended(&mut self) {
        self.reason = None;
    }
}

impl Federation {
    /// What keeps the run from going on: a model or the journal that can't be read or written.
    pub fn trouble(&self) -> Option<&str> {
        self.damage.reason.as_deref()
    }

    /// Adds an update that was taken to the total. An unknown total is added up as a whole once it
    /// is needed.
    pub(super) fn add(&mut self, client: &ClientId) {
        let Some(mut total) = self.total.take() else { return };
        let Some(upload) = self.coordinator.accepted_of(client) else { return };
        let (turn, counted) = (self.coordinator.turn(), upload.into());
        match self.context.folding.add(&*self.bodies, &mut total, turn, client, &counted) {
            Ok(Stored::Whole) => self.total = Some(total),
            Ok(Stored::Damaged(reason)) => {
                tracing::warn!(%client, reason, "a stored update is damaged");
                let now = self.coordinator.now();
                if let Err(error) = self.lose(now, turn, &[*client]) {
                    // It is found again before a model is made.
                    tracing::warn!(%error, %client, "noting that an update is damaged");
                }
            }
            Err(error) => tracing::warn!(%error, %client, "adding an update"),
        }
    }

    /// Adds up what came in before a restart, while a damaged update can still be asked for again.
    pub(super) fn recount(&mut self) -> Result<()> {
        if self.coordinator.phase() != "collect" || self.options.fleet {
            return Ok(());
        }
        let folding = &self.context.folding;
        let (mut total, mut lost, turn) = (folding.empty(), Vec::new(), self.coordinator.turn());
        for (client, upload) in self.coordinator.accepted() {
            let counted = upload.into();
            let added = folding.add(&*self.bodies, &mut total, turn, client, &counted)?;
            if let Stored::Damaged(reason) = added {
                tracing::warn!(%client, reason, "a stored update is damaged, and asked for again");
                lost.push(*client);
            }
        }
        self.total = Some(total);
        match lost.is_empty() {
            true => Ok(()),
            false => self.lose(self.coordinator.now(), self.coordinator.turn(), &lost),
        }
    }

    /// The stored updates of these clients are damaged: they are asked again, or left out.
    ///
    /// # Errors
    /// If that can't be stored.
    pub fn lose(&mut self, now: Millis, turn: Turn, clients: &[ClientId]) -> Result<()> {
        self.total = None;
        for client in clients {
            // Without one of them the attempt may have failed already.
            if turn == self.coordinator.turn() {
                self.apply(now, Event::Lost { client: *client, turn })?;
            }
        }
        Ok(())
    }

    /// Whether the model is there that clients of a run that is over are sent to.
    pub(super) fn look_for_best(&mut self) {
        let best = self.coordinator.best_model();
        if self.coordinator.finished()
            && let Err(error) = self.context.body(&best)
        {
            tracing::error!(%error, "the best model of the run isn't here");
            self.damage.found(&error);
        }
    }

    /// Whether all that the open attempt needs of models is as it was stored: looked at once,
    /// before clients are sent after it.
    pub(super) fn models_are_whole(&mut self, now: Millis) -> bool {
        let turn = self.coordinator.turn();
        if self.damage.whole == Some(turn) {
            return true;
        }
        if self.damage.reason.is_some() && now < self.damage.again {
            return false;
        }
        let kept = self.coordinator.kept();
        let whole = |digest: &Digest| self.context.body(digest).map(|_| ());
        match kept.iter().try_for_each(whole) {
            Ok(()) => {
                self.damage.mended();
                self.damage.whole = Some(turn);
            }
            Err(error) => {
                tracing::error!(%error, "the round can't start");
                self.damage.found(&error);
                self.damage.again = now.after(AGAIN);
            }
        }
        self.damage.whole == Some(turn)
    }
}
