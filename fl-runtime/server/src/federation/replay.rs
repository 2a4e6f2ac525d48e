//! The models of committed rounds, made anew from the updates that a run kept.

use tern_protocol::plan::Encoding;
use tern_protocol::strategy::advance;
use tern_protocol::update::{Codec, Format};
use tern_protocol::{Error, Result, StrategyState, Total, Turn};

use super::aggregation::{Context, Counted, Stored, Sum, add_update};
use crate::journal::RoundRow;

/// One round after the other, one update at a time in order of their clients' keys.
pub(super) struct Replay<'a> {
    context: &'a Context,
    format: Format,
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
            format: Format::of_updates(&plan.updates, plan.updates.uplink.into(), &context.layout),
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
        let Context { plan, layout, strategy, blobs, .. } = self.context;
        let turn = Turn::new(row.round, row.attempt);
        let mut total = Sum::Clear(Total::new(layout.elements(), plan.fraction_bits()));
        for upload in &row.uploads {
            let counted = Counted { digest: upload.digest, weight: upload.samples };
            let (format, client) = (&self.format, &upload.client);
            let stored = add_update(blobs, format, &mut total, turn, client, &counted)?;
            if let Stored::Damaged(reason) = stored {
                return Err(Error::file(&blobs.upload_path(turn, client), reason));
            }
        }
        let Sum::Clear(total) = total else { return Ok(None) };
        let (model, state) = (&mut self.model, &mut self.state);
        advance(&**strategy, plan.updates.kind, layout, model, total.mean(), state)?;
        let mut others = Vec::new();
        if plan.updates.downlink == Encoding::Ternary {
            let (difference, public) =
                self.context.difference(row.round, &self.model, &self.public)?;
            others.extend([Codec::full(&public), difference]);
            self.public = public;
        }
        if !self.state.vectors.is_empty() {
            others.push(self.state.to_bytes());
        }
        Ok(Some((row, Remade { model: Codec::full(&self.model), others })))
    }
}
