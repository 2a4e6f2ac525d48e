//! What decides: the coordinator under a lease. Others wait for the lease to end.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tern_protocol::wire::message::Body;
use tern_protocol::{ClientId, Digest, Error, Millis, Refusal, Result, RunPlan, Turn};
use tern_server::federation::{self, Federation, Sum};
use tern_server::storage::Bodies;
use tokio::sync::watch;

use crate::lease::{self, Lease};
use crate::parts::{Finished, Folded, list_of};
use crate::requests::{Answer, Asked};
use crate::shared::{Live, Shared};
use crate::traces::Rounds;
use crate::wakes::{Wakes, heard};
use crate::{Database, Objects, PgLedger};

/// Time between looks at the clock and at how many updates are in.
const TICK: Duration = Duration::from_millis(50);
/// Milliseconds between looks for who is there.
const LOOK: u64 = 300;

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
    let objects = Objects::open(database, spool)?;
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
                let wakes = Wakes::listen(&of);
                let shared = Live { database: of, objects };
                Leader::new(shared, federation, lease.epoch()).lead(&lease, wakes, &stop)
            });
            if let Err(error) = lease.release() {
                tracing::warn!(%error, "giving back the lease");
            }
            led
        });
        match led.await {
            Ok(Ok(())) => {}
            // Another model or plan is no better the next time.
            Ok(Err(error @ Error::Value { .. })) if !lease::is_over(&error) => return Err(error),
            Ok(Err(error)) => {
                tracing::error!(%error, "the run is not led, trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => return Err(Error::value("leading", error, "no panic")),
        }
    }
    Ok(())
}

/// A coordinator, and what it shares with other processes.
pub(crate) struct Leader<S> {
    shared: S,
    federation: Federation,
    epoch: i64,
    /// From when on who was heard of is asked for, in seconds of the database's clock.
    heard: f64,
    looked: Millis,
    swept: Millis,
    /// When updates that came in are counted again: it takes a while where they are many.
    counts: Millis,
    /// The updates that were dealt to parts.
    dealt: Option<(Turn, Digest)>,
    traced: Rounds,
}

impl Leader<Live> {
    /// Until it is to stop or the lease is lost.
    fn lead(&mut self, lease: &Lease, wakes: Wakes, stop: &watch::Receiver<bool>) -> Result<()> {
        let (mut asked, mut parts) = (wakes.asked, wakes.parts);
        let mut failed = 0;
        while !*stop.borrow() && !lease.is_lost() {
            match self.step() {
                Ok(()) => failed = 0,
                Err(error) if lease::is_over(&error) => return Err(error),
                Err(error) => {
                    failed += 1;
                    tracing::error!(%error, failed, "the round can't go on now, trying again");
                    std::thread::sleep(TICK * failed.min(20));
                }
            }
            self.shared.database.wait(async {
                tokio::select! {
                    () = heard(&mut asked, TICK) => {}
                    () = heard(&mut parts, TICK) => {}
                }
            });
        }
        Ok(())
    }
}

impl<S: Shared> Leader<S> {
    /// Leads under an epoch.
    pub fn new(shared: S, federation: Federation, epoch: i64) -> Self {
        let now = shared.now();
        let heard = now.0 as f64 / 1e3 - 60.0;
        let (looked, counts) = (Millis(0), Millis(0));
        let traced = Rounds::new(federation.task().run, epoch);
        Leader { shared, federation, epoch, heard, looked, swept: now, counts, dealt: None, traced }
    }

    /// Does what is due.
    ///
    /// # Errors
    /// Those of the database and the store: the next step tries again, unless the epoch is over.
    pub fn step(&mut self) -> Result<()> {
        if self.shared.now().since(self.looked) >= LOOK {
            self.look()?;
        }
        self.answer()?;
        self.trace();
        self.close()?;
        self.federation.advance(self.shared.now())?;
        self.trace();
        self.sum()?;
        self.trace();
        if self.shared.now().since(self.swept) >= self.shared.sweeps_every() {
            self.swept = self.shared.now();
            let coordinator = self.federation.coordinator();
            let (kept, open) = (coordinator.kept(), coordinator.turn());
            self.shared.sweep(self.epoch, kept, open, self.federation.keeps_uploads());
        }
        Ok(())
    }

    fn trace(&mut self) {
        let coordinator = self.federation.coordinator();
        let open = (!coordinator.finished()).then(|| (coordinator.turn(), coordinator.phase()));
        self.traced.look(open);
    }

    /// Who is there, by any gateway.
    fn look(&mut self) -> Result<()> {
        self.looked = self.shared.now();
        let (clients, next) = self.shared.heard_since(self.heard)?;
        let now = self.shared.now();
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
        for (number, client, asked) in self.shared.asked()? {
            let now = self.shared.now();
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
        let sequence = self.shared.sequence()?;
        let answers: Vec<(i64, Answer)> = answers
            .drain(..)
            .map(|(number, found)| (number, Answer::new(&found, sequence)))
            .collect();
        self.shared.answer(self.epoch, &answers)
    }

    fn is_member(&self, turn: Turn, client: &ClientId) -> Result<bool> {
        Ok(self.shared.member(turn, client)?.is_some())
    }

    /// Closes an attempt that is over, and takes what came in.
    fn close(&mut self) -> Result<()> {
        let coordinator = self.federation.coordinator();
        let turn = coordinator.turn();
        if coordinator.awaited().is_none() {
            return Ok(());
        }
        let begun = self.shared.now();
        if begun < self.counts {
            return Ok(());
        }
        let found = self.shared.attempt(turn)?;
        // A tenth of the time at most.
        let took = self.shared.now().since(begun);
        self.counts = self.shared.now().after((9 * took).min(1_000));
        let (closed, taken) = found.unwrap_or_default();
        if closed || self.federation.closes(self.shared.now(), taken) {
            let _span = self.traced.span(turn, "close");
            self.shared.close(self.epoch, turn)?;
            let members = self.shared.members(turn)?;
            self.federation.collected(self.shared.now(), turn, members)?;
        }
        Ok(())
    }

    /// Has the sum made that is awaited, and makes the model from it.
    fn sum(&mut self) -> Result<()> {
        let Some((turn, updates)) = self.federation.summing() else { return Ok(()) };
        let list = list_of(&updates);
        if self.dealt != Some((turn, list)) {
            self.shared.deal(self.epoch, turn, &updates)?;
            self.dealt = Some((turn, list));
        }
        let Some(parts) = self.shared.finished(turn)? else { return Ok(()) };
        let _span = self.traced.span(turn, "commit");
        let Some(sum) = self.add_up(turn, parts)? else { return Ok(()) };
        let Some(work) = self.federation.summed(sum) else { return Ok(()) };
        let done = work.run();
        self.federation.complete(self.shared.now(), done)
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
            let now = self.shared.now();
            return self.federation.lose(now, turn, &lost).map(|()| None);
        }
        let folding = self.federation.folding();
        let (mut sum, mut whole) = (folding.empty(), true);
        for Finished { number, name, folded } in &parts {
            let Folded::Sum(digest) = folded else { continue };
            match self.shared.read_sum(name, digest)? {
                Some(bytes) => sum.merge(&folding.sum_from_bytes(&bytes)?)?,
                None => {
                    tracing::warn!(%turn, part = number, "its sum is damaged: it is made anew");
                    self.shared.reopen(self.epoch, turn, *number)?;
                    whole = false;
                }
            }
        }
        Ok(whole.then_some(sum))
    }
}
