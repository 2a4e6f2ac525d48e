//! What a client asks of a run before it takes part.

use serde::{Deserialize, Serialize};

use super::Participant;
use crate::{Error, Result, TaskSpec};

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
}

fn bits() -> u32 {
    40
}

impl RequiredSecurity {
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
        at_least("cohort.size of the run", task.cohort.into(), self.clients.into())
    }
}

impl Participant {
    /// Takes part only with secure aggregation of this kind.
    ///
    /// # Errors
    /// [`Error::Value`] if the task promises less.
    pub fn requiring(mut self, required: RequiredSecurity) -> Result<Self> {
        required.check(&self.task)?;
        if let Some(secure) = &mut self.secure {
            secure.least = required.clients as usize;
        }
        Ok(self)
    }
}
