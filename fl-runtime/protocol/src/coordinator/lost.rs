//! An upload that was taken, and whose body the storage has damaged since.

use super::{Coordinator, Effect, Phase};
use crate::{ClientId, Refusal, Turn};

impl Coordinator {
    /// While updates come in, the client is asked for the same one again. Later on it is left out;
    /// if too few are left, or masks of others hang on it, the attempt fails, and the whole round
    /// once shares were asked for.
    pub(super) fn lost(&mut self, client: ClientId, turn: Turn) -> Result<Vec<Effect>, Refusal> {
        self.check_turn(turn)?;
        if !self.accepted().any(|(other, _)| *other == client) {
            return Err(Refusal::NotSelected(client));
        }
        let minimum = self.plan.cohort.minimum as usize;
        match &mut self.phase {
            Phase::Collect(collect) => {
                collect.lost(&client)?;
                return Ok(Vec::new());
            }
            Phase::Combine(combine) if combine.unmasking.is_none() => {
                combine.uploads.remove(&client);
                if combine.uploads.len() >= minimum {
                    return Ok(vec![Effect::Aggregate]);
                }
            }
            _ => {}
        }
        let reason = format!("the stored update of client {client} is damaged");
        Ok(match &self.phase {
            Phase::Unmask(_) => self.abandon(reason),
            Phase::Combine(combine) if combine.unmasking.is_some() => self.abandon(reason),
            _ => self.failed(reason),
        })
    }
}
