//! Attempts that fail.

use tern_secagg::Failure;

use super::gather::Gather;
use super::{Coordinator, Draw, Effect, FailedAttempt, Phase, Progress};
use crate::ClientId;

impl Coordinator {
    /// Another attempt at the round, since too few answered.
    pub(super) fn repeat(&mut self) -> Vec<Effect> {
        let members = self.cohort();
        let count = |progress| members.iter().filter(|(_, found)| *found == progress).count();
        let reason = format!(
            "{} answered, {} declined and {} were silent, expected at least {} answers",
            count(Progress::Answered),
            count(Progress::Declined),
            count(Progress::Asked),
            self.plan.cohort.minimum,
        );
        self.failed(reason)
    }

    /// Another attempt at the round, since a secure session can't go on.
    pub(super) fn insecure(&mut self, failure: &Failure) -> Vec<Effect> {
        self.failed(format_args!("secure aggregation: {failure}"))
    }

    /// To the next round without a model of this one, since shares were asked for. Whoever revealed
    /// them takes part in no other attempt at it: a server that has a sum and says that it hasn't
    /// could ask for others.
    pub(super) fn abandon(&mut self, reason: impl std::fmt::Display) -> Vec<Effect> {
        self.known.add(self.accepted().map(|(client, _)| *client).collect());
        let out = match self.is_barred() {
            true => {
                ", and without the one of them that is out, the others sum no change of this model"
            }
            false => "",
        };
        let failed = self.fail(format_args!(
            "{reason}; shares were revealed, so that no other attempt can follow: the round is \
             abandoned{out}"
        ));
        self.catch_up(failed.members.len());
        if self.turn.round == failed.turn.round {
            self.proceed(false);
        }
        self.told(failed)
    }

    /// Whether clients whose sum may be known can't come together again, since one of them broke
    /// the protocol. They help to sum no other set of changes of this model; the run goes on if the
    /// others are enough.
    pub fn is_barred(&self) -> bool {
        let out = |client: &ClientId| self.excluded.contains_key(client);
        self.known.sums().iter().any(|members| members.iter().any(out))
    }

    /// Another attempt at the round, or at a later one if clients were further already.
    pub(super) fn failed(&mut self, reason: impl std::fmt::Display) -> Vec<Effect> {
        let failed = self.fail(reason);
        self.catch_up(failed.members.len());
        self.told(failed)
    }

    pub(super) fn told(&self, failed: FailedAttempt) -> Vec<Effect> {
        let mut effects = vec![Effect::Failed(failed)];
        if self.finished() {
            effects.push(Effect::Finished);
        }
        effects
    }

    /// Ends the attempt.
    pub(super) fn fail(&mut self, reason: impl std::fmt::Display) -> FailedAttempt {
        let (turn, phase, reason) = (self.turn, self.phase.name(), reason.to_string());
        tracing::warn!(%turn, phase, reason, "the attempt failed");
        let excluded = self.excluded.iter().filter(|(_, exclusion)| exclusion.turn == turn);
        let excluded = excluded.map(|(client, found)| (*client, found.reason.clone())).collect();
        let failed = FailedAttempt { turn, phase, reason, members: self.cohort(), excluded };
        self.turn.attempt += 1;
        self.draw = Draw::default();
        self.phase = Phase::Gather(Gather);
        failed
    }
}
