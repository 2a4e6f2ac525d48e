//! The state between rounds, as bytes.

use std::collections::BTreeMap;

use prost::Message as _;

use super::event::{client, digest};
use super::gather::Gather;
use super::known::Known;
use super::{Best, Coordinator, Exclusion, Phase};
use crate::{Error, Millis, Refusal, Result, RunId, RunPlan, wire};

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
        coordinator.turn = crate::Turn::new(snapshot.round, snapshot.attempt);
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
        if !snapshot.base.is_empty() {
            coordinator.base = Some(digest(&snapshot.base)?);
        }
        coordinator.phase = Phase::Gather(Gather);
        if snapshot.finished {
            coordinator.proceed(true);
        }
        Ok(coordinator)
    }
}
