//! The server of a run as a state machine without I/O.
//!
//! It is a pure function of its events: whoever drives it stores each event that it takes before
//! anything else happens, and has the same state again by handling the stored events once more.
//! Time only moves by events, and never back.
//!
//! A round goes through phases, a file each: `gather` waits for clients, `collect` hands out
//! the task and takes updates, `combine` waits for the new model, `evaluate` has clients try
//! it. Where aggregation is secure, `advertise`, `share` and `check` come before `collect`,
//! `confirm` and `unmask` after it. Too few answers start another attempt at the round; once
//! shares were asked for, the round is abandoned instead. Who is found to have broken the protocol
//! of secure aggregation is asked for nothing any more.
//!
//! ```
//! use tern_engine::nn::ModelSpec;
//! use tern_protocol::coordinator::{Candidate, Coordinator, Effect, Event, Head, Upload};
//! use tern_protocol::layout::ModelKind;
//! use tern_protocol::{ClientId, Digest, Millis, RunId, RunPlan, Salt, metrics::Metrics};
//!
//! # fn main() -> tern_protocol::Result<()> {
//! let mut plan = RunPlan::new("one client", ModelKind::Layers(ModelSpec::mlp(2, &[], 1)), 1);
//! plan.cohort.size = 1;
//! let first = Head::initial(Digest::of(b"the first model"), Vec::new());
//! let mut server = Coordinator::new(plan, RunId([5; 16]), first)?;
//!
//! let client = ClientId([1; 32]);
//! let online = vec![Candidate { client, samples: 5 }];
//! server.handle(Millis(1), Event::Start { online, salt: Salt::draw()? })?;
//! let (digest, metrics) = (Digest::of(b"an update"), Metrics::new());
//! let upload = Upload { digest, bytes: 9, samples: 5, metrics, included: Vec::new() };
//! let uploaded = Event::Uploaded { client, turn: server.turn(), upload };
//! let effects = server.handle(Millis(2), uploaded)?;
//! assert_eq!(effects, [Effect::Add { client, weight: 5 }, Effect::Aggregate]);
//! // The driver adds it up and makes the new model.
//! let second = Head::initial(Digest::of(b"the second model"), Vec::new());
//! server.handle(Millis(3), Event::Aggregated(second))?;
//! assert!(server.finished());
//! # Ok(())
//! # }
//! ```

mod advertise;
mod check;
mod collect;
mod combine;
mod confirm;
mod draw;
mod ended;
mod evaluate;
mod event;
mod fail;
mod gather;
mod known;
mod lost;
mod secure;
mod share;
mod snapshot;
mod unmask;

use std::collections::BTreeMap;

pub use draw::{Draw, number};
pub(crate) use event::digest;
pub use event::{
    Candidate, Effect, Event, Exclusion, FailedAttempt, Head, RoundRecord, Score, Upload,
};
pub use snapshot::Standing;

use crate::masking::Masking;
use crate::plan::Task;
use crate::wire::{self, instruction::What};
use crate::{ClientId, Digest, Millis, Refusal, Result, RunId, RunPlan, Turn};
use advertise::Advertise;
use check::Check;
use collect::{Collect, again};
use combine::Combine;
pub use combine::Unmasking;
use confirm::Confirm;
use ended::Ends;
use evaluate::Evaluate;
use gather::Gather;
use known::Known;
use share::Share;
use unmask::Unmask;

/// The best model so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    /// As clients have it.
    pub model: Digest,
    /// Its round.
    pub round: u32,
    /// Its score.
    pub score: f64,
}

/// What a round is doing.
#[derive(Clone, Debug)]
enum Phase {
    Gather(Gather),
    Advertise(Advertise),
    Share(Share),
    Check(Check),
    Collect(Collect),
    Confirm(Confirm),
    Unmask(Unmask),
    Combine(Combine),
    Evaluate(Evaluate),
    Finished,
}

impl Phase {
    fn name(&self) -> &'static str {
        match self {
            Phase::Gather(_) => "gather",
            Phase::Advertise(_) => "advertise",
            Phase::Share(_) => "share",
            Phase::Check(_) => "check",
            Phase::Confirm(_) => "confirm",
            Phase::Unmask(_) => "unmask",
            Phase::Collect(_) => "collect",
            Phase::Combine(_) => "combine",
            Phase::Evaluate(_) => "evaluate",
            Phase::Finished => "finished",
        }
    }
}

/// How far a member of the cohort is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Has not answered yet.
    Asked,
    /// Won't take part.
    Declined,
    /// Its answer is in.
    Answered,
}

/// The server of a run.
#[derive(Clone, Debug)]
pub struct Coordinator {
    plan: RunPlan,
    run: RunId,
    masking: Option<Masking>,
    /// Digest of what clients are told once.
    task: Digest,
    now: Millis,
    turn: Turn,
    head: Head,
    /// The public model before the last.
    base: Option<Digest>,
    best: Option<Best>,
    counted: BTreeMap<ClientId, Turn>,
    /// Who broke the protocol of secure aggregation.
    excluded: BTreeMap<ClientId, Exclusion>,
    /// Who has no samples to train on and may evaluate the round's model.
    evaluators: Vec<ClientId>,
    /// How the open attempt's cohort was drawn.
    draw: Draw,
    /// What clients may know of sums and attempts.
    known: Known,
    /// What they were told of an end.
    ends: Ends,
    phase: Phase,
}

impl Coordinator {
    /// A run that starts from a model.
    ///
    /// # Errors
    /// [`crate::Error::Value`] for a plan that makes no sense.
    pub fn new(plan: RunPlan, run: RunId, head: Head) -> Result<Self> {
        let masking = plan.masking(&plan.check()?)?;
        let task = Task::from(plan.task(run)?).digest();
        Ok(Coordinator {
            task,
            plan,
            run,
            masking,
            now: Millis(0),
            turn: Turn::new(1, 1),
            head,
            base: None,
            best: None,
            counted: BTreeMap::new(),
            excluded: BTreeMap::new(),
            evaluators: Vec::new(),
            draw: Draw::default(),
            known: Known::default(),
            ends: Ends::default(),
            phase: Phase::Gather(Gather),
        })
    }

    /// Goes on after so many rounds, of which nothing is known but their model.
    pub fn after(mut self, rounds: u32) -> Self {
        if rounds >= self.plan.rounds {
            self.turn = Turn::new(rounds, 1);
            self.phase = Phase::Finished;
        } else {
            self.turn = Turn::new(rounds + 1, 1);
        }
        self
    }

    /// Takes an event.
    ///
    /// # Errors
    /// Why it is not taken; nothing changed then.
    pub fn handle(&mut self, now: Millis, event: Event) -> Result<Vec<Effect>, Refusal> {
        let now = self.now.max(now);
        if matches!(self.phase, Phase::Finished) {
            return Err(Refusal::Finished);
        }
        let effects = match event {
            Event::Start { online, salt } => self.start(now, &online, salt)?,
            Event::Tick => self.tick(now)?,
            Event::Message { client, message } => self.message(now, client, message)?,
            Event::Uploaded { client, turn, upload } => self.uploaded(now, client, turn, upload)?,
            Event::Collected { turn, uploads } => self.collected(now, turn, uploads)?,
            Event::Aggregated(head) => self.aggregated(now, head)?,
            Event::Lost { client, turn } => self.lost(client, turn)?,
        };
        self.now = now;
        Ok(effects)
    }

    fn tick(&mut self, now: Millis) -> Result<Vec<Effect>, Refusal> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Err(Refusal::NotDue);
        }
        Ok(match &self.phase {
            Phase::Advertise(_) => self.advertised(now),
            Phase::Share(_) => self.shared(now),
            Phase::Check(_) => self.checked(now),
            Phase::Collect(_) => self.close(now),
            Phase::Confirm(_) => self.confirmed(now),
            Phase::Unmask(_) => self.revealed(now),
            Phase::Evaluate(_) => self.evaluated(now),
            Phase::Gather(_) | Phase::Combine(_) | Phase::Finished => Vec::new(),
        })
    }

    fn message(
        &mut self,
        now: Millis,
        client: ClientId,
        message: wire::Message,
    ) -> Result<Vec<Effect>, Refusal> {
        use wire::message::Body;
        self.check_turn(Turn::new(message.round, message.attempt))?;
        match message.body.ok_or(Refusal::Malformed("message"))? {
            Body::Declined(declined) => self.take_refusal(now, client, &declined),
            Body::Evaluated(evaluated) => self.take_evaluation(now, client, evaluated),
            Body::Keys(keys) => self.take_keys(now, client, keys),
            Body::Shares(shares) => self.take_shares(now, client, shares),
            Body::Checked(checked) => self.take_complaints(now, client, checked),
            Body::Confirmation(signed) => self.take_confirmation(now, client, signed),
            Body::Reveal(reveal) => self.take_reveal(now, client, reveal),
        }
    }

    /// What this client should do now. A function of the state alone, so that it may ask again.
    /// Version and remaining time are the driver's to fill in.
    pub fn instruction(&self, client: &ClientId) -> wire::Instruction {
        let what = match &self.phase {
            Phase::Gather(_) | Phase::Combine(_) => None,
            Phase::Advertise(advertise) => advertise.instruction(client),
            Phase::Share(share) => share.instruction(client),
            Phase::Check(check) => check.instruction(client),
            Phase::Collect(collect) => collect.instruction(self, client),
            Phase::Confirm(confirm) => confirm.instruction(client),
            Phase::Unmask(unmask) => unmask.instruction(client),
            Phase::Evaluate(evaluate) => evaluate.instruction(self, client),
            Phase::Finished => {
                let model = self.best_model().0.to_vec();
                Some(What::Finished(wire::Finished { model }))
            }
        };
        wire::Instruction {
            round: self.turn.round,
            attempt: self.turn.attempt,
            counted: self.counted.get(client).map(|turn| (*turn).into()),
            what: Some(what.unwrap_or(What::Wait(wire::Wait {}))),
            ..Default::default()
        }
    }

    /// Whether [`Event::Start`] is awaited.
    pub fn wants_cohort(&self) -> bool {
        matches!(self.phase, Phase::Gather(_))
    }

    /// What [`Event::Aggregated`] is awaited for: the uploads to be combined.
    pub fn combining(&self) -> bool {
        matches!(self.phase, Phase::Combine(_))
    }

    /// When [`Event::Tick`] will be taken.
    pub fn deadline(&self) -> Option<Millis> {
        match &self.phase {
            Phase::Advertise(advertise) => Some(advertise.deadline),
            Phase::Share(share) => Some(share.deadline),
            Phase::Check(check) => Some(check.deadline),
            Phase::Collect(collect) => Some(collect.deadline),
            Phase::Confirm(confirm) => Some(confirm.deadline),
            Phase::Unmask(unmask) => Some(unmask.deadline),
            Phase::Evaluate(evaluate) => Some(evaluate.deadline),
            Phase::Gather(_) | Phase::Combine(_) | Phase::Finished => None,
        }
    }

    /// Uploads taken in the open attempt: what its total is made of.
    pub fn accepted(&self) -> Box<dyn Iterator<Item = (&ClientId, &Upload)> + '_> {
        match &self.phase {
            Phase::Collect(collect) => Box::new(collect.uploads()),
            Phase::Confirm(confirm) => Box::new(confirm.uploads.iter()),
            Phase::Unmask(unmask) => Box::new(unmask.uploads.iter()),
            Phase::Combine(combine) => Box::new(combine.uploads.iter()),
            _ => Box::new(std::iter::empty()),
        }
    }

    /// A client's upload, if it was taken in the open attempt.
    pub fn accepted_of(&self, client: &ClientId) -> Option<&Upload> {
        match &self.phase {
            Phase::Collect(collect) => collect.upload(client),
            Phase::Confirm(confirm) => confirm.uploads.get(client),
            Phase::Unmask(unmask) => unmask.uploads.get(client),
            Phase::Combine(combine) => combine.uploads.get(client),
            _ => None,
        }
    }

    /// The cohort, with how far each member is in this phase.
    pub fn cohort(&self) -> Vec<(ClientId, Progress)> {
        match &self.phase {
            Phase::Advertise(a) => a.members.progress(|client| a.advertised.contains(client)),
            Phase::Share(s) => s.members.progress(|client| s.shared.contains(client)),
            Phase::Check(c) => c.members.progress(|client| c.checked.contains(client)),
            Phase::Collect(collect) => collect.progress(),
            Phase::Confirm(c) => c.members.progress(|client| c.confirmed.contains(client)),
            Phase::Unmask(u) => u.members.progress(|client| u.revealed.contains(client)),
            Phase::Evaluate(evaluate) => evaluate.progress(),
            Phase::Combine(combine) => {
                combine.uploads.keys().map(|client| (*client, Progress::Answered)).collect()
            }
            Phase::Gather(_) | Phase::Finished => Vec::new(),
        }
    }

    /// The most samples that a member of the cohort counts for, once updates may come in.
    pub fn max_samples(&self) -> Option<u32> {
        match &self.phase {
            Phase::Collect(collect) => Some(collect.max_samples),
            _ => None,
        }
    }

    /// Uploads that still close the phase in which they come in; `None` in any other.
    pub fn awaited(&self) -> Option<usize> {
        match &self.phase {
            Phase::Collect(collect) => Some(collect.awaited()),
            _ => None,
        }
    }

    /// Whether an upload of this client would be taken now.
    ///
    /// # Errors
    /// Why not.
    pub fn check_upload(
        &self,
        client: &ClientId,
        turn: Turn,
        upload: Option<&Upload>,
    ) -> Result<(), Refusal> {
        if matches!(self.phase, Phase::Finished) {
            return Err(Refusal::Finished);
        }
        self.check_turn(turn)?;
        match &self.phase {
            Phase::Collect(collect) => collect.check(&self.plan, client, upload),
            Phase::Confirm(_) | Phase::Unmask(_) | Phase::Combine(_) => {
                Err(match (self.accepted_of(client), upload) {
                    (Some(earlier), Some(upload)) => again(earlier, upload),
                    (Some(_), None) => Refusal::Repeated,
                    (None, _) => self.unexpected("upload"),
                })
            }
            _ => Err(self.unexpected("upload")),
        }
    }

    fn check_turn(&self, given: Turn) -> Result<(), Refusal> {
        let open = self.turn;
        match given.cmp(&open) {
            std::cmp::Ordering::Less => Err(Refusal::Late { given, open }),
            std::cmp::Ordering::Greater => Err(Refusal::Early { given, open }),
            std::cmp::Ordering::Equal => Ok(()),
        }
    }

    fn unexpected(&self, message: &'static str) -> Refusal {
        Refusal::Unexpected { message, phase: self.phase.name() }
    }

    fn declined(&mut self, now: Millis, client: ClientId) -> Result<Vec<Effect>, Refusal> {
        match &mut self.phase {
            Phase::Collect(_) => self.without(now, client),
            Phase::Advertise(phase) => {
                phase.members.decline(client, phase.advertised.contains(&client))?;
                Ok(self.advertised(now))
            }
            Phase::Share(phase) => {
                phase.members.decline(client, phase.shared.contains(&client))?;
                Ok(self.shared(now))
            }
            Phase::Check(phase) => {
                phase.members.decline(client, phase.checked.contains(&client))?;
                Ok(self.checked(now))
            }
            Phase::Confirm(phase) => {
                phase.members.decline(client, phase.confirmed.contains(&client))?;
                Ok(self.confirmed(now))
            }
            Phase::Unmask(phase) => {
                phase.members.decline(client, phase.revealed.contains(&client))?;
                Ok(self.revealed(now))
            }
            Phase::Evaluate(_) => self.evaluates_not(now, client),
            _ => Err(self.unexpected("refusal to take part")),
        }
    }

    fn model(&self) -> wire::Model {
        let bytes = |digest: Option<Digest>| digest.map_or(Vec::new(), |d| d.0.to_vec());
        wire::Model {
            digest: self.head.public.0.to_vec(),
            base: bytes(self.head.difference.and(self.base)),
            difference: bytes(self.head.difference),
        }
    }

    /// The plan.
    pub fn plan(&self) -> &RunPlan {
        &self.plan
    }

    /// The open attempt.
    pub fn turn(&self) -> Turn {
        self.turn
    }

    /// The time of the last event.
    pub fn now(&self) -> Millis {
        self.now
    }

    /// Name of the phase.
    pub fn phase(&self) -> &'static str {
        self.phase.name()
    }

    /// Whether the run is over.
    pub fn finished(&self) -> bool {
        matches!(self.phase, Phase::Finished)
    }

    /// What the last committed round left.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The best model so far, if any has a score.
    pub fn best(&self) -> Option<&Best> {
        self.best.as_ref()
    }

    /// The best model so far; the last one if none has a score. After an end that clients were told
    /// of it is the one that they were told.
    pub fn best_model(&self) -> Digest {
        let best = || self.best.as_ref().map_or(self.head.public, |best| best.model);
        self.ends.is.map_or_else(best, |ended| ended.model)
    }

    /// Models that must be kept, each once.
    pub fn kept(&self) -> Vec<Digest> {
        let head = &self.head;
        let mut kept = vec![head.model, head.public, self.best_model()];
        kept.extend(head.difference);
        kept.extend(head.state);
        if let Phase::Evaluate(evaluate) = &self.phase {
            let head = &evaluate.head;
            kept.extend([head.model, head.public]);
            kept.extend(head.difference);
            kept.extend(head.state);
        }
        kept.sort_unstable();
        kept.dedup();
        kept
    }
}

#[cfg(test)]
mod tests;
