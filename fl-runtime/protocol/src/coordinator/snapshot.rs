//! The state between rounds, as bytes.

use std::collections::BTreeMap;

use prost::Message as _;

use super::ended::Ends;
use super::event::{client, digest};
use super::gather::Gather;
use super::known::Known;
use super::{Best, Coordinator, Exclusion, Phase};
use crate::{Digest, Error, Millis, Refusal, Result, RunId, RunPlan, Turn, wire};

/// How far a run is, by a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The open attempt, or the last one.
    pub turn: Turn,
    /// The best model, once the run is over: what its clients are told.
    pub over: Option<Digest>,
}

impl Standing {
    /// Of a snapshot; of something else all is zero.
    pub fn of(snapshot: &[u8]) -> Self {
        let wire::Snapshot { round, attempt, finished, head, best, ended, .. } =
            wire::Snapshot::decode(snapshot).unwrap_or_default();
        let best = best.map(|best| best.model).or_else(|| head.map(|head| head.public));
        let told = ended.map(|ended| ended.model).or(best).filter(|_| finished);
        let over = told.and_then(|model| Digest::from_slice(&model));
        Standing { turn: Turn::new(round, attempt), over }
    }
}

impl Coordinator {
    /// The state, at the end of a round: all but the plan. Within a round the events since then
    /// are needed, too.
    pub fn snapshot(&self) -> Vec<u8> {
        let counted = self.counted.iter().map(|(client, turn)| wire::Counted {
            client: client.0.to_vec(),
            turn: Some((*turn).into()),
        });
        let best = self.best.map(|best| wire::Best {
            model: best.model.0.to_vec(),
            round: best.round,
            score: best.score,
        });
        let excluded = self.excluded.iter().map(|(client, exclusion)| wire::Excluded {
            client: client.0.to_vec(),
            turn: Some(exclusion.turn.into()),
            reason: exclusion.reason.clone(),
        });
        let snapshot = wire::Snapshot {
            now: self.now.0,
            round: self.turn.round,
            attempt: self.turn.attempt,
            head: Some((&self.head).into()),
            best,
            counted: counted.collect(),
            finished: self.finished(),
            base: self.base.map_or(Vec::new(), |base| base.0.to_vec()),
            excluded: excluded.collect(),
            sums: self.known.sums_to_wire(),
            told: self.known.told_to_wire(),
            ends: self.ends.to_wire(),
            ended: self.ends.is.map(Into::into),
        };
        snapshot.encode_to_vec()
    }

    /// Back from a snapshot. A run that was over goes on if the plan has more rounds than were made
    /// and it didn't end for want of a better model.
    ///
    /// # Errors
    /// [`Error::Refused`] for bytes that are no snapshot; as [`Coordinator::new`].
    pub fn restore(plan: RunPlan, run: RunId, bytes: &[u8]) -> Result<Self> {
        let malformed = || Error::Refused(Refusal::Malformed("snapshot"));
        let snapshot = wire::Snapshot::decode(bytes).map_err(|_| malformed())?;
        let head = snapshot.head.ok_or_else(malformed)?.try_into()?;
        let mut coordinator = Coordinator::new(plan, run, head)?;
        coordinator.now = Millis(snapshot.now);
        coordinator.turn = Turn::new(snapshot.round, snapshot.attempt);
        let best = snapshot.best.map(|best| {
            Ok::<_, Refusal>(Best {
                model: digest(&best.model)?,
                round: best.round,
                score: best.score,
            })
        });
        coordinator.best = best.transpose()?;
        let counted = snapshot.counted.into_iter().map(|counted| {
            let turn = counted.turn.ok_or(Refusal::Malformed("snapshot"))?;
            Ok((client(&counted.client)?, turn.into()))
        });
        coordinator.counted = counted.collect::<Result<BTreeMap<_, _>, Refusal>>()?;
        let excluded = snapshot.excluded.into_iter().map(|excluded| {
            let turn = excluded.turn.ok_or(Refusal::Malformed("snapshot"))?.into();
            Ok((client(&excluded.client)?, Exclusion { turn, reason: excluded.reason }))
        });
        coordinator.excluded = excluded.collect::<Result<BTreeMap<_, _>, Refusal>>()?;
        coordinator.known = Known::from_wire(&snapshot.sums, &snapshot.told)?;
        coordinator.ends = Ends::from_wire(&snapshot.ends, snapshot.ended.as_ref())?;
        if !snapshot.base.is_empty() {
            coordinator.base = Some(digest(&snapshot.base)?);
        }
        coordinator.phase = Phase::Gather(Gather);
        match snapshot.finished {
            // Its clients were told of an end of which this server has no model to go on from.
            true if coordinator.ends.is.is_some() => coordinator.phase = Phase::Finished,
            true => coordinator.proceed(true),
            false => {}
        }
        Ok(coordinator)
    }
}
