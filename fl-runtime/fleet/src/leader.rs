//! What decides: the coordinator under a lease. Others wait for the lease to end.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tern_protocol::wire::message::Body;
use tern_protocol::{ClientId, Digest, Error, Refusal, Result, RunPlan, Turn};
use tern_server::federation::{self, Federation, Sum};
use tern_server::storage::Bodies;
use tokio::sync::watch;

use crate::lease::Lease;
use crate::parts::{Finished, Folded, list_of};
use crate::requests::{Answer, Asked};
use crate::wakes::{Wakes, heard};
use crate::{Database, Objects, PgLedger};

/// Time between looks at the clock and at how many updates are in.
const TICK: Duration = Duration::from_millis(50);
/// Time between looks for who is there.
const LOOK: Duration = Duration::from_millis(300);
/// Time between sweeps.
const SWEEP: Duration = Duration::from_secs(60);

/// Leads the run in a database, or waits to, until `stop` is true. The run starts from the model
/// `initial` if there is none yet.
///
/// # Errors
/// For a plan or a model that the run can't go on with; where the database or the store fail it
/// tries again.
pub async fn run(
    database: &Database,
    spool: &Path,
    plan: &RunPlan,
    initial: &[f32],
    options: federation::Options,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let objects = Objects::open(database.options(), spool)?;
    let (options, plan) = (options.fleet(true), plan.clone());
    let (database, initial) = (database.clone(), Arc::<[f32]>::from(initial));
    let role = database.serve("leader");
    let (mut waits, wait) = (stop.clone(), database.options().lease() / 4);
    while !*stop.borrow() {
        let lease = match Lease::take(&database).await {
            Ok(lease) => lease,
            Err(error) => {
                tracing::warn!(%error, "asking for the lease");
                None
            }
        };
        let Some(lease) = lease else {
            role.say("waits".into());
            // Its end is the answer.
            let _ = tokio::time::timeout(wait, waits.wait_for(|stop| *stop)).await;
            continue;
        };
        role.say(format!("leads, epoch {}", lease.epoch()));
        let (of, at, objects) = (database.clone(), database.name().to_owned(), objects.clone());
        let (plan, initial, options) = (plan.clone(), initial.clone(), options.clone());
        let stop = stop.clone();
        let led = tokio::task::spawn_blocking(move || {
            let ledger = Box::new(PgLedger::new(&of, lease.epoch()));
            let bodies: Arc<dyn Bodies> = objects.clone();
            let opened = Federation::with(ledger, bodies, Box::new(at), &plan, &initial, options);
            let led = opened.and_then(|federation| {
                let mut leader = Leader::new(of, objects, federation, lease.epoch());
                leader.lead(&lease, &stop)
            });
            if let Err(error) = lease.release() {
                tracing::warn!(%error, "giving back the lease");
            }
            led
        });
        match led.await {
            Ok(Ok(())) => {}
            // Another model or plan is no better the next time.
            Ok(Err(error @ Error::Value { .. })) if !is_fenced(&error) => return Err(error),
            Ok(Err(error)) => {
                tracing::error!(%error, "the run is not led, trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => return Err(Error::value("leading", error, "no panic")),
        }
    }
    Ok(())
}

fn is_fenced(error: &Error) -> bool {
    matches!(error, Error::Value { name, .. } if name == "epoch of the lease")
}

struct Leader {
    database: Database,
    objects: Arc<Objects>,
    federation: Federation,
    epoch: i64,
    /// From when on who was heard of is asked for, in seconds of the database's clock.
    heard: f64,
    looked: Instant,
    swept: Instant,
    /// The updates that were dealt to parts.
    dealt: Option<(Turn, Digest)>,
}

impl Leader {
    fn new(database: Database, objects: Arc<Objects>, federation: Federation, epoch: i64) -> Self {
        let heard = database.now().0 as f64 / 1e3 - 60.0;
        let (looked, swept) = (Instant::now() - LOOK, Instant::now());
        Leader { database, objects, federation, epoch, heard, looked, swept, dealt: None }
    }

    /// Until it is to stop or the lease is lost.
    fn lead(&mut self, lease: &Lease, stop: &watch::Receiver<bool>) -> Result<()> {
        let wakes = Wakes::listen(&self.database);
        let (mut asked, mut parts) = (wakes.asked, wakes.parts);
        let mut failed = 0;
        while !*stop.borrow() && !lease.is_lost() {
            match self.step() {
                Ok(()) => failed = 0,
                Err(error) if is_fenced(&error) => return Err(error),
                Err(error) => {
                    failed += 1;
                    tracing::error!(%error, failed, "the round can't go on now, trying again");
                    std::thread::sleep(TICK * failed.min(20));
                }
            }
            self.database.wait(async {
                tokio::select! {
                    () = heard(&mut asked, TICK) => {}
                    () = heard(&mut parts, TICK) => {}
                }
            });
        }
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        if self.looked.elapsed() >= LOOK {
            self.look()?;
        }
        self.answer()?;
        self.close()?;
        self.federation.advance(self.database.now())?;
        self.sum()?;
        if self.swept.elapsed() >= SWEEP.min(self.database.options().keep()) {
            self.swept = Instant::now();
            let coordinator = self.federation.coordinator();
            let (kept, open) = (coordinator.kept(), coordinator.turn());
            let keeps = self.federation.keeps_uploads();
            crate::sweep::begin(&self.database, &self.objects, kept, open, keeps);
        }
        Ok(())
    }

    /// Who is there, by any gateway.
    fn look(&mut self) -> Result<()> {
        self.looked = Instant::now();
        let (clients, next) = self.database.wait(self.database.heard_since(self.heard))?;
        let now = self.database.now();
        for (client, samples) in clients {
            if self.federation.is_enrolled(&client) {
                self.federation.greet(now, client, samples);
            }
        }
        self.heard = next;
        Ok(())
    }

    /// Answers what was asked, in order.
    fn answer(&mut self) -> Result<()> {
        let mut answers = Vec::new();
        for (number, client, asked) in self.database.wait(self.database.asked())? {
            let now = self.database.now();
            let found = match asked {
                Asked::Enroll(enroll) => {
                    let token = (!enroll.token.is_empty()).then_some(enroll.token.as_str());
                    self.federation.enroll(now, client, token).map(|()| false)
                }
                Asked::Message(message) => {
                    let turn = Turn::new(message.round, message.attempt);
                    match matches!(message.body, Some(Body::Declined(_)))
                        && self.is_member(turn, &client)?
                    {
                        true => Err(Refusal::Conflict("answer")),
                        false => {
                            let taken = self.federation.message(now, &client, message);
                            taken.map(|ack| ack.repeated)
                        }
                    }
                }
            };
            // What can't be stored now is asked again: by this leader or by another.
            if let Err(Refusal::Storage(reason)) = found {
                self.settle(&mut answers)?;
                return Err(Error::Refused(Refusal::Storage(reason)));
            }
            answers.push((number, found));
        }
        self.settle(&mut answers)
    }

    fn settle(&mut self, answers: &mut Vec<(i64, Result<bool, Refusal>)>) -> Result<()> {
        if answers.is_empty() {
            return Ok(());
        }
        let sequence = self.database.wait(self.database.sequence())?;
        let answers: Vec<(i64, Answer)> = answers
            .drain(..)
            .map(|(number, found)| (number, Answer::new(&found, sequence)))
            .collect();
        self.database.wait(self.database.answer(self.epoch, &answers))
    }

    fn is_member(&self, turn: Turn, client: &ClientId) -> Result<bool> {
        Ok(self.database.wait(self.database.member(turn, client))?.is_some())
    }

    /// Closes an attempt that is over, and takes what came in.
    fn close(&mut self) -> Result<()> {
        let turn = self.federation.coordinator().turn();
        if self.federation.coordinator().awaited().is_none() {
            return Ok(());
        }
        let found = self.database.wait(self.database.attempt(turn))?;
        let (closed, taken) = found.unwrap_or_default();
        if closed || self.federation.closes(self.database.now(), taken) {
            self.database.wait(self.database.close(self.epoch, turn))?;
            let members = self.database.wait(self.database.members(turn))?;
            self.federation.collected(self.database.now(), turn, members)?;
        }
        Ok(())
    }

    /// Has the sum made that is awaited, and makes the model from it.
    fn sum(&mut self) -> Result<()> {
        let Some((turn, updates)) = self.federation.summing() else { return Ok(()) };
        let list = list_of(&updates);
        if self.dealt != Some((turn, list)) {
            self.database.wait(self.database.deal(self.epoch, turn, &updates))?;
            self.dealt = Some((turn, list));
        }
        let Some(parts) = self.database.wait(self.database.finished(turn))? else { return Ok(()) };
        let Some(sum) = self.add_up(turn, parts)? else { return Ok(()) };
        let Some(work) = self.federation.summed(sum) else { return Ok(()) };
        let done = work.run();
        self.federation.complete(self.database.now(), done)
    }

    /// The sum of all parts; `None` if there is none yet: updates were damaged, or sums.
    fn add_up(&mut self, turn: Turn, parts: Vec<Finished>) -> Result<Option<Sum>> {
        let mut lost: Vec<ClientId> = Vec::new();
        for part in &parts {
            if let Folded::Lost(clients) = &part.folded {
                lost.extend(clients);
            }
        }
        if !lost.is_empty() {
            let now = self.database.now();
            return self.federation.lose(now, turn, &lost).map(|()| None);
        }
        let folding = self.federation.folding();
        let (mut sum, mut whole) = (folding.empty(), true);
        for Finished { number, name, folded } in &parts {
            let Folded::Sum(digest) = folded else { continue };
            match self.objects.read_sum(name, digest)? {
                Some(bytes) => sum.merge(&folding.sum_from_bytes(&bytes)?)?,
                None => {
                    tracing::warn!(%turn, part = number, "its sum is damaged: it is made anew");
                    self.database.wait(self.database.reopen(self.epoch, turn, *number))?;
                    whole = false;
                }
            }
        }
        Ok(whole.then_some(sum))
    }
}
