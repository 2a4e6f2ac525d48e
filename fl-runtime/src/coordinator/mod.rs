//! The server of a run as a state machine without I/O.
//!
//! It is a pure function of its events: whoever drives it stores each event that it takes before
//! anything else happens, and has the same state again by handling the stored events once more.
//! Time only moves by events, and never back.
//!
//! A round goes through phases, a file each: [`gather`] waits for clients, [`collect`] hands out
//! the task and takes updates, [`combine`] waits for the new model, [`evaluate`] has clients try
//! it. Too few updates start another attempt at the round.

mod collect;
mod combine;
mod evaluate;
mod event;
mod gather;
mod snapshot;

use std::collections::BTreeMap;

pub use event::{Candidate, Effect, Event, Head, Metrics, RoundRecord, Score, Upload};
pub(crate) use event::{check_metrics, mean_metrics};

use crate::wire::{self, instruction::What};
use crate::{ClientId, Digest, Millis, Refusal, Result, RunPlan, Turn};
use collect::Collect;
use combine::Combine;
use evaluate::Evaluate;
use gather::Gather;

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
#[derive(Clone, Debug, PartialEq)]
enum Phase {
    Gather(Gather),
    Collect(Collect),
    Combine(Combine),
    Evaluate(Evaluate),
    Finished,
}

impl Phase {
    fn name(&self) -> &'static str {
        match self {
            Phase::Gather(_) => "gather",
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
#[derive(Clone, Debug, PartialEq)]
pub struct Coordinator {
    plan: RunPlan,
    now: Millis,
    turn: Turn,
    head: Head,
    /// The public model before the last.
    base: Option<Digest>,
    best: Option<Best>,
    counted: BTreeMap<ClientId, Turn>,
    phase: Phase,
}

impl Coordinator {
    /// A run that starts from a model.
    ///
    /// # Errors
    /// [`crate::Error::Value`] for a plan that makes no sense.
    pub fn new(plan: RunPlan, head: Head) -> Result<Self> {
        plan.check()?;
        Ok(Coordinator {
            plan,
            now: Millis(0),
            turn: Turn::new(1, 1),
            head,
            base: None,
            best: None,
            counted: BTreeMap::new(),
            phase: Phase::Gather(Gather),
        })
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
            Event::Start { online } => self.start(now, &online)?,
            Event::Tick => self.tick(now)?,
            Event::Message { client, message } => self.message(now, client, message)?,
            Event::Uploaded { client, turn, upload } => self.uploaded(now, client, turn, upload)?,
            Event::Aggregated(head) => self.aggregated(now, head)?,
        };
        self.now = now;
        Ok(effects)
    }

    fn tick(&mut self, now: Millis) -> Result<Vec<Effect>, Refusal> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Err(Refusal::NotDue);
        }
        Ok(match &self.phase {
            Phase::Collect(_) => self.close(now),
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
            Body::Declined(_) => self.declined(now, client),
            Body::Evaluated(evaluated) => self.take_evaluation(now, client, evaluated),
            Body::Keys(_) => Err(self.unexpected("keys")),
            Body::Shares(_) => Err(self.unexpected("shares")),
            Body::Confirmation(_) => Err(self.unexpected("confirmation")),
            Body::Reveal(_) => Err(self.unexpected("reveal")),
        }
    }

    /// What this client should do now. A function of the state alone, so that it may ask again.
    /// Version and remaining time are the driver's to fill in.
    pub fn instruction(&self, client: &ClientId) -> wire::Instruction {
        let what = match &self.phase {
            Phase::Gather(_) | Phase::Combine(_) => None,
            Phase::Collect(collect) => collect.instruction(self, client),
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
            Phase::Collect(collect) => Some(collect.deadline),
            Phase::Evaluate(evaluate) => Some(evaluate.deadline),
            Phase::Gather(_) | Phase::Combine(_) | Phase::Finished => None,
        }
    }

    /// Uploads taken in the open attempt: what its total is made of.
    pub fn accepted(&self) -> Box<dyn Iterator<Item = (&ClientId, &Upload)> + '_> {
        match &self.phase {
            Phase::Collect(collect) => Box::new(collect.uploads()),
            Phase::Combine(combine) => Box::new(combine.uploads.iter()),
            Phase::Gather(_) | Phase::Evaluate(_) | Phase::Finished => Box::new(std::iter::empty()),
        }
    }

    /// The cohort, with how far each member is in this phase.
    pub fn cohort(&self) -> Vec<(ClientId, Progress)> {
        match &self.phase {
            Phase::Collect(collect) => collect.progress(),
            Phase::Evaluate(evaluate) => evaluate.progress(),
            Phase::Combine(combine) => {
                combine.uploads.keys().map(|client| (*client, Progress::Answered)).collect()
            }
            Phase::Gather(_) | Phase::Finished => Vec::new(),
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
            Phase::Combine(combine) => combine.check(client, upload),
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

    /// Another attempt at the round.
    fn repeat(&mut self) -> Vec<Effect> {
        self.turn.attempt += 1;
        self.phase = Phase::Gather(Gather);
        vec![Effect::Clear]
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

    /// The best model so far; the last one if none has a score.
    pub fn best_model(&self) -> Digest {
        self.best.as_ref().map_or(self.head.public, |best| best.model)
    }

    /// Models that must be kept.
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
        kept
    }
}

#[cfg(test)]
mod tests;
