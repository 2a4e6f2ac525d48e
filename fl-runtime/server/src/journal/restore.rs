//! Writing a journal anew, from what is left of one.

use std::path::Path;

use tern_host::files::Durability;
use tern_protocol::{Digest, Error, Result, RunId};

use super::chain::{Position, Registration};
use super::rounds::{RoundRow, insert_round};
use super::{Contents, FILE, Journal, JournalHead, head, insert_client, set, set_base};

/// A run between two attempts, to go on from.
#[derive(Clone, Debug)]
pub(crate) struct Restored {
    pub run: RunId,
    pub plan: Vec<u8>,
    /// The first model.
    pub initial: Digest,
    pub clients: Vec<Registration>,
    pub rounds: Vec<RoundRow>,
    pub snapshot: Vec<u8>,
}

impl Contents {
    /// Writes that are in a whole journal.
    pub(crate) fn sequence(&self) -> Option<u64> {
        self.position.map(|at| at.sequence)
    }

    /// Whether it is whole and holds a run.
    pub(crate) fn started(&self) -> bool {
        self.position.is_some()
    }

    fn head(&self) -> Option<JournalHead> {
        let run = self.meta.get("run").and_then(|run| RunId::from_slice(run))?;
        self.position.map(|at| JournalHead::of(run, &at))
    }
}

impl Journal {
    /// Writes the head of a whole journal anew.
    pub(crate) fn write_head(folder: &Path) -> Result<()> {
        let (contents, _) = Journal::contents(folder)?;
        let known = contents.head();
        let known =
            known.ok_or_else(|| Error::journal(&folder.join(FILE), "holds no whole run"))?;
        head::HeadFile::new(folder, Durability::Power).write(&known)
    }

    /// Writes all of a run at once, into a journal that holds none.
    pub(crate) fn restore(&mut self, restored: &Restored) -> Result<()> {
        let Restored { run, plan, initial, clients, rounds, snapshot } = restored;
        if self.started() {
            return Err(Error::journal(&self.path, "holds a run already"));
        }
        let mut at = Position::first(*initial);
        let mut clients_at = Vec::with_capacity(clients.len());
        for registration in clients {
            at = at.client(registration);
            clients_at.push(at);
        }
        let mut rounds_at = Vec::with_capacity(rounds.len());
        for row in rounds {
            at = at.round(row, row.head()?.model);
            rounds_at.push(at);
        }
        let next = at.base(&run.0, &initial.0, snapshot);
        let values = [("run", &run.0[..]), ("plan", plan), ("initial", &initial.0)];
        self.write(*run, next, |transaction| {
            values.iter().try_for_each(|(name, value)| set(transaction, name, value))?;
            for (registration, at) in clients.iter().zip(&clients_at) {
                insert_client(transaction, registration, at)?;
            }
            for (row, at) in rounds.iter().zip(&rounds_at) {
                insert_round(transaction, row, &at.rounds)?;
            }
            set_base(transaction, &next, snapshot)
        })?;
        self.checkpoint();
        Ok(())
    }
}
