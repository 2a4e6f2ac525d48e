//! What a client asks of a run before it takes part.

use serde::{Deserialize, Serialize};

use super::Participant;
use super::secure::Required;
use crate::{Error, Result, TaskSpec, weights};

/// The least secure aggregation that a client takes part with. Without it a server could ask for
/// updates in the clear, or sum up those of two clients.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequiredSecurity {
    /// Fewest clients of a session.
    pub clients: u32,
    /// Least share of them that may work with a curious server.
    #[serde(default)]
    pub corrupt: f64,
    /// A vector must be revealed with probability below 2^-this.
    #[serde(default = "bits")]
    pub security: u32,
    /// Largest part of a weighted sum that one client's samples may be, of what is left when the
    /// corrupt share tells theirs. Any client that isn't told otherwise asks for 0.8.
    #[serde(default = "share")]
    pub share: f64,
    /// Most samples that the run may let a client count for: where one has very many, the others'
    /// updates come to nothing.
    #[serde(default = "max_samples")]
    pub max_samples: u32,
    /// Largest magnitude that the run's fixed point may reach to: the larger, the coarser.
    #[serde(default = "limit")]
    pub limit: f32,
    /// Fewest clients, beside those that the run takes to be corrupt, by which the sets of two sums
    /// of different models differ if they do; 0 for any, since a small run goes on when one of its
    /// clients stays away. Of one model a client helps to sum one set only.
    #[serde(default)]
    pub difference: u32,
}

fn bits() -> u32 {
    40
}

fn share() -> f64 {
    weights::MAX_SHARE
}

fn max_samples() -> u32 {
    1 << 20
}

fn limit() -> f32 {
    16.0
}

impl RequiredSecurity {
    /// So many clients of a session, and otherwise what a configuration has that says no more.
    pub fn of(clients: u32) -> Self {
        RequiredSecurity {
            clients,
            corrupt: 0.0,
            security: bits(),
            share: share(),
            max_samples: max_samples(),
            limit: limit(),
            difference: 0,
        }
    }

    /// Whether a run's task promises as much. Whether a session has as many clients, its roster
    /// tells.
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
        at_least("cohort.size of the run", task.cohort.into(), self.clients.into())?;
        let at_most = |name: &str, given: f64, most: f64| match given <= most {
            true => Ok(()),
            false => Err(Error::value(name, given, format!("{most} or less"))),
        };
        at_most("secure.limit of the run", secure.limit.into(), self.limit.into())?;
        let (given, most) = (task.updates.max_samples, self.max_samples);
        at_most("updates.max_samples of the run", given.into(), most.into())
    }
}

impl Participant {
    /// Takes part only with secure aggregation of this kind.
    ///
    /// # Errors
    /// [`Error::Value`] if the task promises less, or the share is no share.
    pub fn requiring(mut self, required: RequiredSecurity) -> Result<Self> {
        if !(0.0..=1.0).contains(&required.share) {
            return Err(Error::value("required_security.share", required.share, "0 to 1"));
        }
        required.check(&self.task)?;
        if let Some(secure) = &mut self.secure {
            secure.required = Required {
                least: required.clients as usize,
                share: required.share,
                difference: required.difference,
            };
        }
        Ok(self)
    }
}
