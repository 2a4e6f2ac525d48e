//! What became of the last update: only one that was counted changes what goes on from round to
//! round, the residual and the optimizer's state.

use super::{Action, Participant};
use crate::Turn;

impl Participant {
    /// `open` is the server's attempt, `counted` the last of this client's updates that is in a
    /// committed model, `over` whether the run is.
    pub(super) fn settle(&mut self, open: Turn, counted: Option<Turn>, over: bool) -> Vec<Action> {
        let Some(pending) = &mut self.kept.pending else { return Vec::new() };
        if counted == Some(pending.turn) {
            self.kept.residual = std::mem::take(&mut pending.residual);
            self.kept.optimizer = std::mem::take(&mut pending.optimizer);
        } else if pending.turn >= open && !over {
            return Vec::new();
        }
        self.kept.pending = None;
        vec![Action::Save]
    }
}
