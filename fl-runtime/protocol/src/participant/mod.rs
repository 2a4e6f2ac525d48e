//! A client of a run as a state machine without I/O.
//!
//! Whoever drives it asks the server for an instruction, hands it in, does the actions it gets
//! in order, and hands in what came of each. A client may be stopped at any moment and go on from
//! what it saved last: an update that was encoded is sent again as it is, and one whose fate the
//! server has not told yet is neither forgotten nor counted.
//!
//! ```
//! use tern_engine::{Device, nn::ModelSpec};
//! use tern_protocol::metrics::Metrics;
//! use tern_protocol::participant::{Action, Input, Participant, SavedState};
//! use tern_protocol::wire::{self, instruction::What};
//! use tern_protocol::{Digest, RunId, RunPlan, identity::Identity, layout::ModelKind};
//! use tern_protocol::{trainer::Trained, update::Codec};
//!
//! # fn main() -> tern_protocol::Result<()> {
//! let plan = RunPlan::new("lines", ModelKind::Layers(ModelSpec::mlp(2, &[], 1)), 1);
//! let (key, task) = (Identity::generate()?, plan.task(RunId::draw()?)?);
//! let kept = SavedState::default();
//! let mut client = Participant::new(key.signing_key(), task, &Device::cpu(), kept)?;
//!
//! // The server wants an update of a model that isn't here yet.
//! let bytes = Codec::full(&[0.0; 128]);
//! let digest = Digest::of(&bytes);
//! let model = Some(wire::Model { digest: digest.0.to_vec(), ..Default::default() });
//! let what = Some(What::Train(wire::Train { model, ..Default::default() }));
//! let asked = wire::Instruction { round: 1, attempt: 1, what, ..Default::default() };
//! assert_eq!(client.handle(Input::Instruction(asked))?, [Action::Fetch(digest)]);
//! let actions = client.handle(Input::Fetched { digest, bytes })?;
//! assert!(matches!(actions[..], [Action::Train(_)]));
//! let trained = Trained::new(vec![0.0; 128], 10, Metrics::new());
//! assert_eq!(client.handle(Input::Trained(trained))?, [Action::Save, Action::Upload]);
//! # Ok(())
//! # }
//! ```

mod ended;
mod required;
mod saved;
mod secure;
mod settle;
mod sums;
mod upload;

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use tern_engine::Device;

pub use required::RequiredSecurity;
pub use saved::{Pending, SMALL_BODY, SavedState};
pub use secure::Entropy;
pub use sums::KnownSum;

use crate::metrics::{self, Metrics};
use crate::plan::Task;
use crate::trainer::{Job, Trained, training_seed};
use crate::update::{Codec, Format, Kind, add_difference};
use crate::wire::{self, instruction::What, message::Body};
use crate::{ClientId, Digest, Error, Layout, Masking, Result, TaskSpec, Turn};
use secure::Secure;

/// What happened to a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The server said what to do.
    Instruction(wire::Instruction),
    /// A model or difference arrived.
    Fetched {
        /// What was asked for.
        digest: Digest,
        /// What came.
        bytes: Vec<u8>,
    },
    /// A [`Action::Train`] is done.
    Trained(Trained),
    /// A [`Action::Evaluate`] is done.
    Evaluated {
        /// Samples it was evaluated on.
        samples: u32,
        /// What was measured.
        metrics: Metrics,
    },
    /// A message or upload was taken.
    Delivered,
    /// A message or upload was refused: stable name of the reason.
    Refused(String),
    /// An action could not be done: the network, the trainer. The client asks again.
    Failed(String),
}

/// What a client wants to happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Get a body by its digest.
    Fetch(Digest),
    /// Train.
    Train(Job),
    /// Evaluate a model.
    Evaluate(Job),
    /// Store [`Participant::kept`], before the next action.
    Save,
    /// Send a message.
    Send(wire::Message),
    /// Upload [`SavedState::pending`].
    Upload,
    /// Nothing now: ask for the next instruction.
    Wait,
    /// The run is over; this is its best model.
    Stop(Digest),
}

/// What a fetched model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Train,
    Evaluate,
}

/// A model on its way.
#[derive(Clone, Debug, PartialEq)]
struct Fetching {
    purpose: Purpose,
    turn: Turn,
    model: Digest,
    /// What is being fetched: the model, or its difference to the one before.
    body: Digest,
}

/// What an update is to be like.
#[derive(Clone, Debug, PartialEq)]
struct Assignment {
    turn: Turn,
    /// Ternary scales that the server sets; empty for own ones.
    scales: Vec<f32>,
    /// The most samples that a client counts for, as the server says; 0 if it doesn't.
    max_samples: u32,
}

/// A client of a run.
pub struct Participant {
    client: ClientId,
    task: Task,
    layout: Layout,
    codec: Codec,
    kept: SavedState,
    /// Samples it has to train on.
    samples: u32,
    /// The last model fetched.
    model: Option<(Digest, Arc<Vec<f32>>)>,
    fetching: Option<Fetching>,
    /// In a run with secure aggregation.
    secure: Option<Secure>,
    /// What is being trained for.
    training: Option<Assignment>,
    /// The attempt being evaluated, until the server has answered.
    evaluating: Option<Turn>,
}

impl Participant {
    /// The client of a key in a run, going on from what it saved. `device` encodes updates.
    ///
    /// # Errors
    /// [`Error::Value`] if the task makes no sense, or doesn't go with the saved state.
    pub fn new(
        key: &SigningKey,
        task: impl Into<Task>,
        device: &Device,
        kept: SavedState,
    ) -> Result<Self> {
        let task = task.into();
        task.training.check()?;
        task.updates.check()?;
        let layout = Layout::of(&task.model)?;
        if layout.digest() != task.layout {
            let (found, expected) = (layout.digest(), task.layout);
            return Err(Error::value("layout of the task's model", found, expected.to_string()));
        }
        let expected = [0, layout.elements()];
        if !expected.contains(&kept.residual.len()) {
            let expected = format!("{} elements", layout.elements());
            return Err(Error::value("saved residual", kept.residual.len(), expected));
        }
        kept.optimizer.check(&task.training, layout.elements())?;
        let masking = task
            .secure
            .as_ref()
            .map(|secure| Masking::new(secure, task.updates.uplink, task.cohort, &layout));
        let digest = task.digest();
        let new = |masking| Secure::new(masking, digest, key.clone());
        Ok(Participant {
            client: ClientId(key.verifying_key().to_bytes()),
            secure: masking.transpose()?.map(new),
            codec: Codec::new(device, &layout)?,
            layout,
            task,
            kept,
            samples: 0,
            model: None,
            fetching: None,
            training: None,
            evaluating: None,
        })
    }

    /// Takes the randomness of secure sessions from elsewhere, for simulations that are to be
    /// replayed. Each seed must be new.
    pub fn with_entropy(mut self, entropy: Entropy) -> Self {
        if let Some(secure) = &mut self.secure {
            secure.entropy = entropy;
        }
        self
    }

    /// Says how many samples the client has to train on, before it is asked for keys of a secure
    /// session: it signs them, and its update counts for so many there.
    pub fn set_samples(&mut self, samples: u32) {
        self.samples = samples;
    }

    /// What must survive the process.
    pub fn kept(&self) -> &SavedState {
        &self.kept
    }

    /// The task.
    pub fn task(&self) -> &TaskSpec {
        &self.task
    }

    /// The client.
    pub fn client(&self) -> &ClientId {
        &self.client
    }

    /// Takes what happened and says what to do next.
    ///
    /// # Errors
    /// If an update can't be encoded; the client may go on with the next instruction.
    pub fn handle(&mut self, input: Input) -> Result<Vec<Action>> {
        Ok(match input {
            Input::Instruction(instruction) => self.instructed(instruction),
            Input::Fetched { digest, bytes } => self.fetched(digest, bytes),
            Input::Trained(trained) => self.trained(trained)?,
            Input::Evaluated { samples, metrics } => match self.evaluating {
                Some(turn) => {
                    let named = &self.task.metrics;
                    vec![Action::Send(evaluated(turn, samples, metrics, named))]
                }
                None => vec![Action::Wait],
            },
            Input::Delivered => {
                self.evaluating = None;
                vec![Action::Wait]
            }
            // What is measured of a model says nothing of the update in it.
            Input::Refused(name) => match self.evaluating.take() {
                Some(turn) => refused_evaluation(turn, &name),
                None => self.refused(&name),
            },
            Input::Failed(reason) => self.failed(&reason),
        })
    }

    fn instructed(&mut self, instruction: wire::Instruction) -> Vec<Action> {
        let turn = Turn::new(instruction.round, instruction.attempt);
        let over = matches!(instruction.what, Some(What::Finished(_)));
        let mut actions = self.settle(turn, instruction.counted.map(Turn::from), over);
        self.fetching = None;
        if let Some(secure) = &mut self.secure {
            secure.forget(turn, instruction.what.as_ref());
        }
        if let Some(refusal) = self.over(turn, instruction.what.as_ref()) {
            actions.push(refusal);
            return actions;
        }
        let next = match instruction.what {
            Some(What::Train(train)) => self.asked_to_train(turn, train),
            Some(
                what @ (What::Advertise(_)
                | What::ShareKeys(_)
                | What::CheckShares(_)
                | What::ConfirmSet(_)
                | What::Unmask(_)),
            ) => {
                actions.extend(self.protocol(turn, what));
                return actions;
            }
            Some(What::Evaluate(_)) if self.secure.is_some() => {
                decline(turn, "what this client measures is told in sums alone")
            }
            Some(What::Evaluate(evaluate)) => self.obtain(Purpose::Evaluate, turn, evaluate.model),
            Some(What::Finished(finished)) => match Digest::from_slice(&finished.model) {
                Some(model) => {
                    let before = self.kept.ended;
                    let stop = self.told_of_end(turn, model);
                    // Once for all that changed.
                    if self.kept.ended != before && actions.is_empty() {
                        actions.push(Action::Save);
                    }
                    stop
                }
                None => Action::Wait,
            },
            Some(What::Wait(_)) | None => Action::Wait,
        };
        actions.push(next);
        actions
    }

    /// The job if the model is here, else what must be fetched for it.
    fn obtain(&mut self, purpose: Purpose, turn: Turn, model: Option<wire::Model>) -> Action {
        let Some(model) = model else { return Action::Wait };
        let Some(digest) = Digest::from_slice(&model.digest) else { return Action::Wait };
        let here = self.model.as_ref().map(|(digest, _)| *digest);
        if here == Some(digest) {
            return self.begin(purpose, turn);
        }
        let base = Digest::from_slice(&model.base);
        let body = match Digest::from_slice(&model.difference) {
            Some(difference) if base.is_some() && base == here => difference,
            _ => digest,
        };
        self.fetching = Some(Fetching { purpose, turn, model: digest, body });
        Action::Fetch(body)
    }

    fn begin(&mut self, purpose: Purpose, turn: Turn) -> Action {
        let Some((_, model)) = &self.model else { return Action::Wait };
        // The difference of two sums of the same vectors would be a vector.
        let seed = match self.secure {
            Some(_) => self.task.seed.wrapping_add(turn.attempt).wrapping_sub(1),
            None => self.task.seed,
        };
        let seed = training_seed(seed, turn.round, &self.client);
        let optimizer = self.kept.optimizer.clone();
        let job = Job { turn, model: model.clone(), seed, optimizer };
        match purpose {
            Purpose::Train => Action::Train(job),
            Purpose::Evaluate => {
                self.evaluating = Some(turn);
                Action::Evaluate(job)
            }
        }
    }

    fn fetched(&mut self, digest: Digest, bytes: Vec<u8>) -> Vec<Action> {
        let Some(fetching) = self.fetching.take().filter(|fetching| fetching.body == digest) else {
            return vec![Action::Wait];
        };
        let Fetching { purpose, turn, model, body } = fetching;
        let values = match (Digest::of(&bytes) == body, &self.model) {
            (false, _) => None,
            (true, _) if body == model => {
                Format::new(Kind::Full, &self.layout, f32::MAX).decode(&bytes).ok()
            }
            (true, Some((_, base))) => add_difference(&self.layout, base, &bytes).ok(),
            (true, None) => None,
        };
        let right = |values: &Vec<f32>| body == model || Digest::of(&Codec::full(values)) == model;
        match values.filter(right) {
            Some(values) => {
                self.model = Some((model, Arc::new(values)));
                vec![self.begin(purpose, turn)]
            }
            None => {
                tracing::warn!(%body, "what was fetched is not what was announced");
                // The whole model next time, not a difference.
                self.model = None;
                vec![Action::Wait]
            }
        }
    }

    fn failed(&mut self, reason: &str) -> Vec<Action> {
        tracing::warn!(reason, "trying again");
        self.fetching = None;
        self.training = None;
        self.evaluating = None;
        vec![Action::Wait]
    }
}

/// What a client says of a model that it tried: what it measured of what the run names, or why that
/// is nothing.
pub fn evaluated(
    turn: Turn,
    samples: u32,
    mut metrics: Metrics,
    named: &[String],
) -> wire::Message {
    metrics::keep_named(&mut metrics, named);
    match metrics::check(&metrics, named) {
        Ok(()) => message(turn, Body::Evaluated(wire::Evaluated { samples, metrics })),
        Err(refusal) => declined(turn, &refusal.to_string()),
    }
}

/// An evaluation that would be refused again is not made again.
fn refused_evaluation(turn: Turn, name: &str) -> Vec<Action> {
    tracing::info!(name, "evaluation refused");
    match upload::ELSEWHERE.contains(&name) {
        true => vec![Action::Wait],
        false => vec![decline(turn, name)],
    }
}

/// This attempt goes on without this client.
pub fn decline(turn: Turn, reason: &str) -> Action {
    Action::Send(declined(turn, reason))
}

/// What [`decline`] sends.
pub fn declined(turn: Turn, reason: &str) -> wire::Message {
    let reason = reason.chars().take(200).collect();
    message(turn, Body::Declined(wire::Declined { reason, ..Default::default() }))
}

fn message(turn: Turn, body: Body) -> wire::Message {
    wire::Message { round: turn.round, attempt: turn.attempt, body: Some(body) }
}

#[cfg(test)]
mod tests;
