//! What a client asks of a run before it takes part.

use serde::{Deserialize, Serialize};

use tern_secagg::{Assumptions, HONEST, Parameters};

use super::Participant;
use crate::plan::Secure;
use crate::{Aborted, Error, Result, TaskSpec, weights};

/// The least secure aggregation that a client takes part with. Without it a server could ask for
/// updates in the clear, or sum up those of two clients.
///
/// A client that is told nothing takes part in runs without secure aggregation, too; what it asks
/// of those with it is [`RequiredSecurity::default`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequiredSecurity {
    /// Fewest clients of a sum beside those that may work with the server: survivors less the
    /// corrupt, however many take part in the session.
    pub clients: u32,
    /// Least share of them that may work with a curious server.
    pub corrupt: f64,
    /// A vector must be revealed with probability below 2^-this.
    pub security: u32,
    /// Largest part of a weighted sum that one client's samples may be, of what is left when the
    /// corrupt share tells theirs. Any client that isn't told otherwise asks for 0.8.
    pub share: f64,
    /// Most samples that the run may let a client count for: where one has very many, the others'
    /// updates come to nothing.
    pub max_samples: u32,
    /// Largest magnitude that the run's fixed point may reach to: the larger, the coarser.
    pub limit: f32,
    /// Fewest clients, beside those that the run takes to be corrupt, by which the sets of two sums
    /// of different models differ if they do; 0 for any, since a small run goes on when one of its
    /// clients stays away. Of one model a client helps to sum one set only.
    pub difference: u32,
}

impl Default for RequiredSecurity {
    /// Sums of three clients beside a tenth that is corrupt, which is one at least: where nobody is
    /// assumed to be, a server needs but one client of its own.
    fn default() -> Self {
        RequiredSecurity {
            clients: HONEST,
            corrupt: 0.1,
            security: 40,
            share: weights::MAX_SHARE,
            max_samples: 1 << 20,
            limit: 16.0,
            difference: 0,
        }
    }
}

impl RequiredSecurity {
    /// What a run promises, if it aggregates securely: for programs whose clients are their own.
    pub fn promised(task: &TaskSpec) -> Option<Self> {
        let Secure { honest, corrupt, security, limit, .. } = *task.secure.as_ref()?;
        let (max_samples, share) = (task.updates.max_samples, 1.0);
        let required = Self::of(honest);
        Some(RequiredSecurity { corrupt, security, share, max_samples, limit, ..required })
    }

    /// So many clients of a sum, and otherwise what a client asks that is told nothing.
    pub fn of(clients: u32) -> Self {
        RequiredSecurity { clients, ..Self::default() }
    }

    /// Whether a run's task promises as much, in its largest sessions. Each session's roster tells
    /// what it is of itself.
    ///
    /// # Errors
    /// [`Error::Value`] with what is too little.
    pub fn check(&self, task: &TaskSpec) -> Result<()> {
        let Some(secure) = &task.secure else {
            return Err(Error::value("secure aggregation of the run", "none", "some"));
        };
        let at_least = |name: &str, given: f64, least: f64| match given >= least {
            true => Ok(()),
            false => Err(Error::value(name, given, format!("{least} or more"))),
        };
        at_least("secure.corrupt of the run", secure.corrupt, self.corrupt)?;
        at_least("secure.security of the run", secure.security.into(), self.security.into())?;
        let at_most = |name: &str, given: f64, most: f64| match given <= most {
            true => Ok(()),
            false => Err(Error::value(name, given, format!("{most} or less"))),
        };
        at_most("secure.limit of the run", secure.limit.into(), self.limit.into())?;
        let (given, most) = (task.updates.max_samples, self.max_samples);
        at_most("updates.max_samples of the run", given.into(), most.into())?;
        self.check_session(task.cohort as usize, &secure.assumptions()).map_err(Error::from)
    }

    /// Whether sums of a session with so many members are of enough clients.
    pub(super) fn check_session(
        &self,
        members: usize,
        assumed: &Assumptions,
    ) -> Result<(), Aborted> {
        let parameters = Parameters::choose(members, assumed).map_err(tern_secagg::Abort::from)?;
        let honest = parameters.survivors.saturating_sub(assumed.corrupt_of(members));
        let least = self.clients as usize;
        match honest >= least {
            true => Ok(()),
            false => Err(Aborted::Few { members, honest, least }),
        }
    }
}

impl Participant {
    /// Takes part only with secure aggregation of this kind, which may be less than
    /// [`RequiredSecurity::default`].
    ///
    /// # Errors
    /// [`Error::Value`] if the task promises less, or the share is no share.
    pub fn requiring(mut self, required: RequiredSecurity) -> Result<Self> {
        if !(0.0..=1.0).contains(&required.share) {
            return Err(Error::value("required_security.share", required.share, "0 to 1"));
        }
        required.check(&self.task)?;
        if let Some(secure) = &mut self.secure {
            secure.required = required;
        }
        Ok(self)
    }
}
