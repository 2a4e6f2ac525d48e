//! A simulated database and store as one process of a fleet has them: calls get lost before or after
//! they had their effect, take long while others go on, and end with their process.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tern_protocol::coordinator::{Coordinator, RoundRecord, Upload};
use tern_protocol::{ClientId, Digest, Error, Millis, Result, RunId, Turn, wire};
use tern_server::blobs::Partial;
use tern_server::federation::Counted;
use tern_server::journal::{CommittedRound, CountedUpload, RoundRow};
use tern_server::storage::{Bodies, Ledger};

use super::state::{Run, State};
use super::world::World;
use crate::objects::{model, sum, update};
use crate::parts::Finished;
use crate::requests::{Answer, Asked};
use crate::shared::Shared;

/// What a process calls; of one of its lives.
#[derive(Clone)]
pub struct Sim {
    pub world: Arc<World>,
    /// `None` for who judges: nothing happens to its calls.
    pub process: Option<usize>,
}

fn lost(what: &str) -> Error {
    Error::journal("simulated".as_ref(), format!("the connection broke {what}"))
}

impl Sim {
    /// One transaction, or one request to the store.
    pub fn call<T>(&self, act: impl FnOnce(&mut State) -> T) -> Result<T> {
        let Some(process) = self.process else { return Ok(act(&mut self.world.state())) };
        if self.world.is_ended(process) {
            return Err(lost("with the process"));
        }
        let weather = self.world.weather();
        if self.world.chance(weather.hangs) {
            self.world.note("hangs");
            self.world.pass(if self.world.chance(500) { 3_500 } else { 400 });
        }
        let ends = self.world.chance(weather.ends);
        let (before, after) = (self.world.chance(weather.lost), self.world.chance(weather.lost));
        if ends && self.world.chance(500) || before {
            if ends {
                self.world.end(process);
            }
            self.world.note("lost before");
            return Err(lost("before"));
        }
        let done = act(&mut self.world.state());
        if ends {
            self.world.end(process);
        }
        if ends || after {
            self.world.note("lost after");
            return Err(lost("after"));
        }
        Ok(done)
    }

    fn ask<T>(&self, act: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        self.call(act)?.inspect_err(|error| {
            if crate::lease::is_over(error) {
                self.world.note("fenced");
            }
        })
    }

    fn run<T>(&self, value: impl FnOnce(&Run) -> T) -> Result<Option<T>> {
        self.call(|state| state.run.as_ref().map(value))
    }

    /// Reads an object. The store lies now and then.
    fn get(&self, place: &str, lies: bool) -> Result<Option<Vec<u8>>> {
        let found = self.call(|state| state.get(place))?;
        match lies && self.process.is_some() && self.world.chance(self.world.weather().lies) {
            true => Ok(found.map(|mut bytes| {
                bytes[0] ^= 1;
                bytes
            })),
            false => Ok(found),
        }
    }

    /// An update's body, as gateways write it.
    pub fn put_update(&self, turn: Turn, body: &[u8]) -> Result<()> {
        let place = update(turn, &Digest::of(body)).to_string();
        self.call(|state| state.put(place, body))
    }

    /// A part's sum, as aggregators write it.
    pub fn put_sum(&self, name: &str, bytes: &[u8]) -> Result<Digest> {
        self.call(|state| state.put(sum(name).to_string(), bytes)).map(|()| Digest::of(bytes))
    }
}

impl Shared for Sim {
    fn now(&self) -> Millis {
        Millis(self.world.state().now)
    }

    fn heard_since(&self, moment: f64) -> Result<(Vec<(ClientId, u32)>, f64)> {
        self.call(|state| state.heard_since(moment))
    }

    fn asked(&self) -> Result<Vec<(i64, ClientId, Asked)>> {
        self.call(|state| state.asked())
    }

    fn answer(&self, epoch: i64, answers: &[(i64, Answer)]) -> Result<()> {
        self.ask(|state| state.answer(epoch, answers))
    }

    fn sequence(&self) -> Result<i64> {
        Ok(self.run(|run| run.sequence)?.unwrap_or(0))
    }

    fn member(&self, turn: Turn, client: &ClientId) -> Result<Option<wire::Finish>> {
        self.call(|state| state.members.get(&(turn, *client)).map(|taken| taken.finish.clone()))
    }

    fn attempt(&self, turn: Turn) -> Result<Option<(bool, usize)>> {
        self.call(|state| state.attempt(turn))
    }

    fn close(&self, epoch: i64, turn: Turn) -> Result<()> {
        self.ask(|state| state.close(epoch, turn))
    }

    fn members(&self, turn: Turn) -> Result<Vec<(ClientId, Upload)>> {
        self.call(|state| state.members(turn))
    }

    fn deal(&self, epoch: i64, turn: Turn, updates: &[(ClientId, Counted)]) -> Result<()> {
        self.ask(|state| state.deal(epoch, turn, updates))
    }

    fn finished(&self, turn: Turn) -> Result<Option<Vec<Finished>>> {
        self.call(|state| state.finished(turn))
    }

    fn reopen(&self, epoch: i64, turn: Turn, number: i64) -> Result<()> {
        self.world.note("sums made anew");
        self.ask(|state| state.reopen(epoch, turn, number))
    }

    fn read_sum(&self, name: &str, digest: &Digest) -> Result<Option<Bytes>> {
        let found = self.get(sum(name).as_ref(), true)?;
        Ok(found.filter(|bytes| Digest::of(bytes) == *digest).map(Bytes::from))
    }

    fn sweeps_every(&self) -> u64 {
        1_000
    }

    fn sweep(&self, epoch: i64, kept: Vec<Digest>, open: Turn, _: bool) {
        // It goes on in the background: what becomes of it is nobody's error.
        let Ok(orphans) = self.call(|state| state.orphans(&kept, open)) else { return };
        let removed = self.ask(|state| state.remove(epoch, &orphans));
        self.world.count("swept", removed.unwrap_or(0));
    }
}

/// The journal as a leader of an epoch writes it.
pub struct SimLedger {
    pub sim: Sim,
    pub epoch: i64,
    pub at: Mutex<i64>,
}

impl SimLedger {
    pub fn new(sim: &Sim, epoch: i64) -> Self {
        SimLedger { sim: sim.clone(), epoch, at: Mutex::new(-1) }
    }

    fn write(&self, write: impl FnOnce(&mut State, (i64, i64)) -> Result<()>) -> Result<()> {
        let mut at = self.at.lock().unwrap();
        self.sim.ask(|state| write(state, (self.epoch, *at)))?;
        *at += 1;
        Ok(())
    }
}

impl Ledger for SimLedger {
    fn value(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.sim.run(|run| match name {
            "run" => run.run.clone(),
            "plan" => run.plan.clone(),
            "initial" => run.initial.0.to_vec(),
            "snapshot" => run.snapshot.clone(),
            other => panic!("{other}"),
        })
    }

    fn start(&mut self, run: &RunId, plan: &[u8], initial: &Digest, snapshot: &[u8]) -> Result<()> {
        let (run, plan, snapshot) = (run.0.to_vec(), plan.to_vec(), snapshot.to_vec());
        let run = Run { run, plan, initial: *initial, snapshot, base: 0, sequence: 0 };
        self.sim.ask(|state| state.start(self.epoch, run))
    }

    fn set_plan(&mut self, _: &[u8]) -> Result<()> {
        panic!("the plan stays")
    }

    fn clients(&self) -> Result<Vec<ClientId>> {
        self.sim.call(|state| state.clients.clone())
    }

    fn tokens(&self) -> Result<BTreeMap<Digest, u32>> {
        Ok(BTreeMap::new())
    }

    fn enroll(&mut self, _: Millis, client: &ClientId, _: Option<&Digest>) -> Result<()> {
        self.sim.ask(|state| state.enroll(self.epoch, *client))
    }

    fn append(&mut self, event: &wire::Journaled, after: &Coordinator) -> Result<()> {
        let open = after.awaited().is_some().then(|| after.turn());
        self.write(|state, write| state.append(write, event.clone(), open))
    }

    fn repeat(&mut self, after: &Coordinator) -> Result<()> {
        self.sim.world.note("repeated");
        self.write(|state, write| state.rebase(write, after.snapshot(), None))
    }

    fn commit(&mut self, record: &RoundRecord, after: &Coordinator) -> Result<()> {
        let row = RoundRow::new(after.now(), record);
        self.write(|state, write| state.rebase(write, after.snapshot(), Some(row)))
    }

    fn events(&self) -> Result<Vec<wire::Journaled>> {
        let (at, events) = self.sim.call(|state| {
            let events = state.events.iter().map(|(_, event)| event.clone()).collect();
            (state.run.as_ref().map_or(-1, |run| run.sequence), events)
        })?;
        *self.at.lock().unwrap() = at;
        Ok(events)
    }

    fn rounds(&self, after: u32) -> Result<Vec<CommittedRound>> {
        let rows = self.sim.call(|state| state.rounds.clone())?;
        let bytes = |row: &RoundRow| row.uploads.iter().map(|upload| upload.bytes).sum();
        let round = |row: &RoundRow| CommittedRound::new(row, row.uploads.len() as u32, bytes(row));
        rows.iter().filter(|row| row.round > after).map(round).collect()
    }

    fn counted(&self, round: u32) -> Result<Vec<CountedUpload>> {
        let rows = self.sim.call(|state| state.rounds.clone())?;
        let row = rows.into_iter().find(|row| row.round == round);
        Ok(row.map(|row| row.uploads).unwrap_or_default())
    }

    fn turn(&self, round: u32) -> Result<Option<Turn>> {
        let rows = self.sim.call(|state| state.rounds.clone())?;
        let row = rows.iter().find(|row| row.round == round);
        Ok(row.map(|row| Turn::new(row.round, row.attempt)))
    }
}

impl Bodies for Sim {
    fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        self.call(|state| state.put(model(&digest).to_string(), bytes)).map(|()| digest)
    }

    fn read(&self, digest: &Digest) -> Result<Vec<u8>> {
        let found = self.get(model(digest).as_ref(), false)?;
        found.ok_or_else(|| Error::file(&self.name(digest), "is gone"))
    }

    fn length(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.get(model(digest).as_ref(), false)?.map(|bytes| bytes.len() as u64))
    }

    fn piece(&self, digest: &Digest, first: u64, length: usize) -> Result<Vec<u8>> {
        Ok(self.read(digest)?[first as usize..][..length].to_vec())
    }

    fn name(&self, digest: &Digest) -> PathBuf {
        Path::new("simulated").join(model(digest).as_ref())
    }

    fn upload_name(&self, turn: Turn, client: &ClientId) -> PathBuf {
        format!("simulated, {turn}, of {client}").into()
    }

    fn upload(
        &self,
        turn: Turn,
        _: &ClientId,
        digest: &Digest,
    ) -> Result<Option<Box<dyn Read + '_>>> {
        let found = self.get(update(turn, digest).as_ref(), true)?;
        Ok(found.map(|bytes| Box::new(Cursor::new(bytes)) as Box<dyn Read>))
    }

    fn partial(&self, _: Turn, _: &ClientId) -> Result<Partial> {
        panic!("a gateway's, which has a folder")
    }

    fn accept(&self, _: &Partial, _: Turn, _: &ClientId, _: &Digest) -> Result<()> {
        panic!("a gateway's, which has a folder")
    }

    fn sweep(&self, _: &[Digest], _: Turn, _: &dyn Fn(Turn) -> bool) -> Result<()> {
        Ok(())
    }

    fn used(&self) -> u64 {
        0
    }
}
