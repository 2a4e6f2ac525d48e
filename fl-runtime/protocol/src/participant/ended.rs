//! What a client was told of the run's end stays true: it takes part in no round up to the last
//! one, and says why ([`crate::coordinator`]). A run that was made longer goes on after it.

use super::{Action, Participant, declined};
use crate::wire::{instruction::What, message::Body};
use crate::{Digest, Ended, Turn};

impl Participant {
    /// The run is over, by what the server says.
    pub(super) fn told_of_end(&mut self, turn: Turn, model: Digest) -> Action {
        let ended = Ended { round: turn.round, model };
        match self.kept.ended {
            Some(known) if known.round >= turn.round => {
                if known != ended {
                    tracing::warn!(%model, known = %known.model, "told of another end than before");
                }
                Action::Stop(known.model)
            }
            _ => {
                self.kept.ended = Some(ended);
                Action::Stop(model)
            }
        }
    }

    /// What there is to say where the server asks for something in a round of a run that is over.
    pub(super) fn over(&self, turn: Turn, what: Option<&What>) -> Option<Action> {
        let ended = self.kept.ended.filter(|ended| turn.round <= ended.round)?;
        if matches!(what, None | Some(What::Wait(_) | What::Finished(_))) {
            return None;
        }
        let Ended { round, model } = ended;
        tracing::warn!(%turn, round, %model, "asked to go on with a run that is over");
        let reason = format!("the run was over after round {round}, with model {model}");
        let mut message = declined(turn, &reason);
        if let Some(Body::Declined(declined)) = &mut message.body {
            declined.ended = Some(ended.into());
        }
        Some(Action::Send(message))
    }
}
