//! The models of committed rounds, made anew from the updates that a run kept.

use tern_protocol::plan::Encoding;
use tern_protocol::strategy::advance;
use tern_protocol::update::Codec;
use tern_protocol::{Error, Refusal, Result, StrategyState, Turn};

use super::aggregation::Context;
use super::fold::{Stored, Sum};
use crate::journal::{CountedUpload, RoundRow};

/// One round after the other, one update at a time in order of their clients' keys.
pub(super) struct Replay<'a> {
    context: &'a Context,
    rounds: std::slice::Iter<'a, RoundRow>,
    model: Vec<f32>,
    /// As clients have it.
    public: Vec<f32>,
    state: StrategyState,
}

/// What a round leaves, as it is stored.
pub(super) struct Remade {
    pub model: Vec<u8>,
    /// All but the model: the one that clients have, the difference to it, the strategy's state.
    pub others: Vec<Vec<u8>>,
}

impl<'a> Replay<'a> {
    /// From the first model, without secure aggregation.
    pub fn new(context: &'a Context, rounds: &'a [RoundRow], initial: &[f32]) -> Result<Self> {
        let plan = &context.plan;
        if plan.secure.is_some() {
            let expected = "a run without it: masked updates can't be read one by one";
            return Err(Error::value("secure aggregation", "on", expected));
        }
        Ok(Replay {
            context,
            rounds: rounds.iter(),
            model: initial.to_vec(),
            public: initial.to_vec(),
            state: StrategyState::default(),
        })
    }

    /// The next round; `None` after the last.
    ///
    /// # Errors
    /// [`Error::File`] for an update that is missing or has other bytes than recorded.
    pub fn next(&mut self) -> Result<Option<(&'a RoundRow, Remade)>> {
        let Some(row) = self.rounds.next() else { return Ok(None) };
        let remade = self.round(Turn::new(row.round, row.attempt), &row.uploads)?;
        Ok(Some((row, remade)))
    }

    /// A round that follows on the last.
    ///
    /// # Errors
    /// As [`Replay::next`].
    pub fn round(&mut self, turn: Turn, uploads: &[CountedUpload]) -> Result<Remade> {
        let Context { plan, layout, strategy, bodies, folding, .. } = self.context;
        let mut total = folding.empty();
        for upload in uploads {
            let client = &upload.client;
            let stored = folding.add(&**bodies, &mut total, turn, client, &upload.into())?;
            if let Stored::Damaged(reason) = stored {
                return Err(Error::file(&bodies.upload_name(turn, client), reason));
            }
        }
        let Sum::Clear(total) = total else { return Err(Refusal::Malformed("sum").into()) };
        let (model, state) = (&mut self.model, &mut self.state);
        advance(&**strategy, plan.updates.kind, layout, model, total.mean(), state)?;
        let mut others = Vec::new();
        if plan.updates.downlink == Encoding::Ternary {
            let (difference, public) =
                self.context.difference(turn.round, &self.model, &self.public)?;
            others.extend([Codec::full(&public), difference]);
            self.public = public;
        }
        if !self.state.vectors.is_empty() {
            others.push(self.state.to_bytes());
        }
        Ok(Remade { model: Codec::full(&self.model), others })
    }
}
