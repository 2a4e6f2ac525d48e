//! What happens to a coordinator, and what it wants to happen.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Draw, Progress};
use crate::metrics::Metrics;
use crate::{ClientId, Digest, Refusal, Salt, Turn, wire};

/// A client that could take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub client: ClientId,
    /// Samples it has.
    pub samples: u32,
}

/// A complete, checked upload.
#[derive(Clone, Debug, PartialEq)]
pub struct Upload {
    /// SHA-256 of the body.
    pub digest: Digest,
    /// Bytes of the body.
    pub bytes: u64,
    /// Samples: its weight.
    pub samples: u32,
    /// What training measured; nothing in secure rounds, whose sum has it.
    pub metrics: Metrics,
    /// In secure rounds: [`tern_secagg::Included`](tern_secagg::Included), encoded.
    pub included: Vec<u8>,
}

impl Upload {
    /// A body of so many bytes, of which its client announced the rest.
    pub fn announced(digest: Digest, bytes: u64, finish: wire::Finish) -> Self {
        let wire::Finish { samples, metrics, included, .. } = finish;
        Upload { digest, bytes, samples, metrics, included }
    }
}

/// What a committed round leaves to the next.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// The model, as the server has it.
    pub model: Digest,
    /// The model, as clients have it.
    pub public: Digest,
    /// Ternary difference from the last public model.
    pub difference: Option<Digest>,
    /// The strategy's state.
    pub state: Option<Digest>,
    /// Ternary scales that the server sets; empty if clients choose their own.
    pub scales: Vec<f32>,
    /// Central evaluation.
    pub metrics: Metrics,
    /// In a secure run: means of what clients measured in training, weighted by samples.
    pub training: Metrics,
}

impl Head {
    /// A model from outside of the run.
    pub fn initial(model: Digest, scales: Vec<f32>) -> Self {
        let (metrics, training) = (Metrics::new(), Metrics::new());
        Head { model, public: model, difference: None, state: None, scales, metrics, training }
    }
}

/// What happens to a coordinator.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A cohort is to be selected from those online, in order of their keys.
    Start {
        /// Who is online.
        online: Vec<Candidate>,
        /// What the draw follows from; no client may know it before.
        salt: Salt,
    },
    /// Time passed.
    Tick,
    /// A message of a client.
    Message {
        /// Who sent it.
        client: ClientId,
        /// What.
        message: wire::Message,
    },
    /// A body is complete and checked.
    Uploaded {
        /// Who sent it.
        client: ClientId,
        /// The attempt it is for.
        turn: Turn,
        /// What it is.
        upload: Upload,
    },
    /// Bodies are complete and checked that were taken elsewhere, by servers which decide together
    /// who is in an attempt. One that would not be taken alone is no reason to refuse the others:
    /// the driver leaves it out.
    Collected {
        /// The attempt they are for.
        turn: Turn,
        /// Who sent what, in order of their keys.
        uploads: Vec<(ClientId, Upload)>,
    },
    /// The driver did [`Effect::Aggregate`].
    Aggregated(Head),
    /// The stored body of an upload of the open attempt is gone, or has other bytes than were
    /// taken. Its client is asked again where others are still waited for; else it is left out.
    Lost {
        /// Who sent it.
        client: ClientId,
        /// The attempt it was for.
        turn: Turn,
    },
}

/// How good a model is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Value of the plan's metric.
    pub value: f64,
    /// Whether no earlier model has a better one.
    pub best: bool,
}

/// A committed round, for those who watch and for whoever checks it later.
#[derive(Clone, Debug, PartialEq)]
pub struct RoundRecord {
    /// The round, and the attempt that made it.
    pub turn: Turn,
    /// What it left.
    pub head: Head,
    /// How its cohort was drawn.
    pub draw: Draw,
    /// The uploads in it.
    pub uploads: BTreeMap<ClientId, Upload>,
    /// Mean of the clients' training metrics, weighted by samples.
    pub training: Metrics,
    /// Mean of the clients' evaluation of the new model, weighted by samples.
    pub evaluation: Metrics,
    /// Its score.
    pub score: Option<Score>,
}

/// An attempt at a round that failed, for those who watch.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedAttempt {
    /// The round and the attempt.
    pub turn: Turn,
    /// The phase in which it failed.
    pub phase: &'static str,
    /// Why.
    pub reason: String,
    /// Who was asked in that phase, with how far each member was.
    pub members: Vec<(ClientId, Progress)>,
    /// Who was found in it to have broken the protocol, and how.
    pub excluded: BTreeMap<ClientId, String>,
}

/// Why a client takes no part any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exclusion {
    /// The attempt in which it broke the protocol of secure aggregation.
    pub turn: Turn,
    /// How.
    pub reason: String,
}

/// What a coordinator wants to happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// This upload belongs to the total.
    Add {
        /// Whose.
        client: ClientId,
        /// Its weight.
        weight: u32,
    },
    /// The attempt failed, and another one follows, of the next round if this one is abandoned: the
    /// total starts again from nothing.
    Failed(FailedAttempt),
    /// Make the new model from the total, then send [`Event::Aggregated`].
    Aggregate,
    /// The round is done.
    Committed(Box<RoundRecord>),
    /// So is the run.
    Finished,
}

impl From<Candidate> for wire::Candidate {
    fn from(Candidate { client, samples }: Candidate) -> Self {
        wire::Candidate { client: client.0.to_vec(), samples }
    }
}

impl TryFrom<wire::Candidate> for Candidate {
    type Error = Refusal;

    fn try_from(wire: wire::Candidate) -> Result<Self, Refusal> {
        Ok(Candidate { client: client(&wire.client)?, samples: wire.samples })
    }
}

impl From<Turn> for wire::Turn {
    fn from(turn: Turn) -> Self {
        wire::Turn { round: turn.round, attempt: turn.attempt }
    }
}

impl From<wire::Turn> for Turn {
    fn from(turn: wire::Turn) -> Self {
        Turn::new(turn.round, turn.attempt)
    }
}

/// A digest on the wire, where no bytes stand for none.
fn optional(bytes: &[u8]) -> Result<Option<Digest>, Refusal> {
    if bytes.is_empty() { Ok(None) } else { digest(bytes).map(Some) }
}

pub(crate) fn digest(bytes: &[u8]) -> Result<Digest, Refusal> {
    Digest::from_slice(bytes).ok_or(Refusal::Malformed("digest"))
}

pub(crate) fn client(bytes: &[u8]) -> Result<ClientId, Refusal> {
    ClientId::from_slice(bytes).ok_or(Refusal::Malformed("client key"))
}

impl From<&Head> for wire::Aggregated {
    fn from(head: &Head) -> Self {
        let bytes = |digest: Option<Digest>| digest.map_or(Vec::new(), |d| d.0.to_vec());
        wire::Aggregated {
            model: head.model.0.to_vec(),
            public: head.public.0.to_vec(),
            difference: bytes(head.difference),
            state: bytes(head.state),
            scales: head.scales.clone(),
            metrics: head.metrics.clone(),
            training: head.training.clone(),
        }
    }
}

impl TryFrom<wire::Aggregated> for Head {
    type Error = Refusal;

    fn try_from(wire: wire::Aggregated) -> Result<Self, Refusal> {
        Ok(Head {
            model: digest(&wire.model)?,
            public: digest(&wire.public)?,
            difference: optional(&wire.difference)?,
            state: optional(&wire.state)?,
            scales: wire.scales,
            metrics: wire.metrics,
            training: wire.training,
        })
    }
}

fn uploaded_to_wire(client: &ClientId, turn: Turn, upload: &Upload) -> wire::Uploaded {
    wire::Uploaded {
        client: client.0.to_vec(),
        finish: Some(wire::Finish {
            round: turn.round,
            attempt: turn.attempt,
            digest: upload.digest.0.to_vec(),
            samples: upload.samples,
            metrics: upload.metrics.clone(),
            included: upload.included.clone(),
            body: Vec::new(),
        }),
        bytes: upload.bytes,
    }
}

fn uploaded_from_wire(uploaded: wire::Uploaded) -> Result<(ClientId, Turn, Upload), Refusal> {
    let finish = uploaded.finish.ok_or(Refusal::Malformed("upload"))?;
    let turn = Turn::new(finish.round, finish.attempt);
    let upload = Upload::announced(digest(&finish.digest)?, uploaded.bytes, finish);
    Ok((client(&uploaded.client)?, turn, upload))
}

impl Event {
    /// As the journal has it.
    pub fn to_wire(&self, now: u64) -> wire::Journaled {
        use wire::journaled::Event as Wire;
        let event = match self {
            Event::Start { online, salt } => {
                let online = online.iter().map(|candidate| (*candidate).into());
                Wire::Start(wire::Start { online: online.collect(), salt: salt.0.to_vec() })
            }
            Event::Tick => Wire::Tick(wire::Tick {}),
            Event::Message { client, message } => {
                let message = Some(message.clone());
                Wire::Sent(wire::Sent { client: client.0.to_vec(), message })
            }
            Event::Uploaded { client, turn, upload } => {
                Wire::Uploaded(uploaded_to_wire(client, *turn, upload))
            }
            Event::Collected { turn, uploads } => Wire::Collected(wire::Collected {
                turn: Some((*turn).into()),
                uploads: uploads.iter().map(|(c, u)| uploaded_to_wire(c, *turn, u)).collect(),
            }),
            Event::Aggregated(head) => Wire::Aggregated(head.into()),
            Event::Lost { client, turn } => {
                Wire::Lost(wire::Lost { client: client.0.to_vec(), turn: Some((*turn).into()) })
            }
        };
        wire::Journaled { now, event: Some(event) }
    }

    /// Back from the journal.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] for what no journal holds.
    pub fn from_wire(wire: wire::Journaled) -> Result<Self, Refusal> {
        use wire::journaled::Event as Wire;
        Ok(match wire.event.ok_or(Refusal::Malformed("event"))? {
            Wire::Start(start) => {
                let online = start.online.into_iter().map(Candidate::try_from);
                let salt = Salt::from_slice(&start.salt).ok_or(Refusal::Malformed("salt"))?;
                Event::Start { online: online.collect::<Result<_, Refusal>>()?, salt }
            }
            Wire::Tick(_) => Event::Tick,
            Wire::Sent(sent) => Event::Message {
                client: client(&sent.client)?,
                message: sent.message.ok_or(Refusal::Malformed("message"))?,
            },
            Wire::Uploaded(uploaded) => {
                let (client, turn, upload) = uploaded_from_wire(uploaded)?;
                Event::Uploaded { client, turn, upload }
            }
            Wire::Collected(collected) => {
                let turn = collected.turn.ok_or(Refusal::Malformed("uploads"))?.into();
                let upload = |wire| match uploaded_from_wire(wire)? {
                    (client, its, upload) if its == turn => Ok((client, upload)),
                    _ => Err(Refusal::Malformed("uploads")),
                };
                let uploads = collected.uploads.into_iter().map(upload);
                Event::Collected { turn, uploads: uploads.collect::<Result<_, Refusal>>()? }
            }
            Wire::Aggregated(aggregated) => Event::Aggregated(aggregated.try_into()?),
            Wire::Lost(lost) => Event::Lost {
                client: client(&lost.client)?,
                turn: lost.turn.ok_or(Refusal::Malformed("lost upload"))?.into(),
            },
        })
    }
}
