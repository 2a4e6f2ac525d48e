//! What the processes of a fleet share, as a leader sees it beside its ledger: a seam for tests that
//! put a simulated database and store in its place.

use std::sync::Arc;

use bytes::Bytes;
use tern_protocol::coordinator::Upload;
use tern_protocol::{ClientId, Digest, Millis, Result, Turn, wire};
use tern_server::federation::Counted;

use crate::parts::Finished;
use crate::requests::{Answer, Asked};
use crate::{Database, Objects, sweep};

/// Tables of a run, and sums of parts. All that writes is under an epoch, and fails once that is
/// over; errors are the storage's.
pub(crate) trait Shared {
    /// The database's time.
    fn now(&self) -> Millis;

    /// Who was heard of after a moment, and the moment from which to ask next, both in seconds.
    fn heard_since(&self, moment: f64) -> Result<(Vec<(ClientId, u32)>, f64)>;

    /// Requests without an answer, oldest first.
    fn asked(&self) -> Result<Vec<(i64, ClientId, Asked)>>;

    /// Answers requests.
    fn answer(&self, epoch: i64, answers: &[(i64, Answer)]) -> Result<()>;

    /// The last write.
    fn sequence(&self) -> Result<i64>;

    /// What is in an attempt of a client.
    fn member(&self, turn: Turn, client: &ClientId) -> Result<Option<wire::Finish>>;

    /// Whether an attempt was closed, and how many updates are in it.
    fn attempt(&self, turn: Turn) -> Result<Option<(bool, usize)>>;

    /// Closes an attempt.
    fn close(&self, epoch: i64, turn: Turn) -> Result<()>;

    /// All updates in an attempt, in order of their clients' keys.
    fn members(&self, turn: Turn) -> Result<Vec<(ClientId, Upload)>>;

    /// Deals updates to parts.
    fn deal(&self, epoch: i64, turn: Turn, updates: &[(ClientId, Counted)]) -> Result<()>;

    /// The parts of an attempt once all of them are done.
    fn finished(&self, turn: Turn) -> Result<Option<Vec<Finished>>>;

    /// Has a part added up anew.
    fn reopen(&self, epoch: i64, turn: Turn, number: i64) -> Result<()>;

    /// The sum of a part; `None` for one that is gone or damaged.
    fn read_sum(&self, name: &str, digest: &Digest) -> Result<Option<Bytes>>;

    /// Milliseconds between sweeps.
    fn sweeps_every(&self) -> u64 {
        60_000
    }

    /// Begins to remove what nothing refers to any more.
    fn sweep(&self, epoch: i64, kept: Vec<Digest>, open: Turn, keeps_uploads: bool);
}

/// A real database, and a real store. Its calls wait: it is for threads that may.
pub(crate) struct Live {
    pub database: Database,
    pub objects: Arc<Objects>,
}

impl Shared for Live {
    fn now(&self) -> Millis {
        self.database.now()
    }

    fn heard_since(&self, moment: f64) -> Result<(Vec<(ClientId, u32)>, f64)> {
        self.database.wait(self.database.heard_since(moment))
    }

    fn asked(&self) -> Result<Vec<(i64, ClientId, Asked)>> {
        self.database.wait(self.database.asked())
    }

    fn answer(&self, epoch: i64, answers: &[(i64, Answer)]) -> Result<()> {
        self.database.wait(self.database.answer(epoch, answers))
    }

    fn sequence(&self) -> Result<i64> {
        self.database.wait(self.database.sequence())
    }

    fn member(&self, turn: Turn, client: &ClientId) -> Result<Option<wire::Finish>> {
        self.database.wait(self.database.member(turn, client))
    }

    fn attempt(&self, turn: Turn) -> Result<Option<(bool, usize)>> {
        self.database.wait(self.database.attempt(turn))
    }

    fn close(&self, epoch: i64, turn: Turn) -> Result<()> {
        self.database.wait(self.database.close(epoch, turn))
    }

    fn members(&self, turn: Turn) -> Result<Vec<(ClientId, Upload)>> {
        self.database.wait(self.database.members(turn))
    }

    fn deal(&self, epoch: i64, turn: Turn, updates: &[(ClientId, Counted)]) -> Result<()> {
        self.database.wait(self.database.deal(epoch, turn, updates))
    }

    fn finished(&self, turn: Turn) -> Result<Option<Vec<Finished>>> {
        self.database.wait(self.database.finished(turn))
    }

    fn reopen(&self, epoch: i64, turn: Turn, number: i64) -> Result<()> {
        self.database.wait(self.database.reopen(epoch, turn, number))
    }

    fn read_sum(&self, name: &str, digest: &Digest) -> Result<Option<Bytes>> {
        self.objects.read_sum(name, digest)
    }

    fn sweep(&self, epoch: i64, kept: Vec<Digest>, open: Turn, keeps_uploads: bool) {
        sweep::begin(&self.database, &self.objects, epoch, kept, open, keeps_uploads);
    }
}
