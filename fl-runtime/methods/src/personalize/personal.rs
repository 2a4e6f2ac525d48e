//! Which model a user's device has in use: the public one, or one of its own.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tern_protocol::{Error, Result};

use super::Public;
use super::score::number;

/// A newer public model on a device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Merge {
    /// The newer version.
    pub version: u32,
    /// Mean loss of the model in use on the records held back.
    #[serde(deserialize_with = "number")]
    pub loss_before: f64,
    /// Mean loss of the newer public model on them.
    #[serde(deserialize_with = "number")]
    pub loss_public: f64,
    /// Mean loss of the newer public model with the personal change on them.
    #[serde(deserialize_with = "number")]
    pub loss_merged: f64,
    /// Whether the device has the newer one in use now.
    pub adopted: bool,
}

/// The public model that a device has, and what it made of it.
#[derive(Clone, Debug)]
pub struct Personal {
    public: Arc<Public>,
    /// The customized model, once there is one.
    own: Option<Vec<f32>>,
}

impl Personal {
    /// A device that has downloaded a public model.
    pub fn new(public: &Arc<Public>) -> Self {
        Personal::with(public, None)
    }

    /// A device that has customized it, if it has.
    pub(super) fn with(public: &Arc<Public>, own: Option<Vec<f32>>) -> Self {
        Personal { public: public.clone(), own }
    }

    /// The public model that the one in use comes from.
    pub fn public(&self) -> &Arc<Public> {
        &self.public
    }

    /// Parameters of the model in use: the customized one where one was adopted.
    pub fn weights(&self) -> &[f32] {
        self.own.as_deref().unwrap_or(&self.public.weights)
    }

    /// Whether a customized model was adopted.
    pub fn is_customized(&self) -> bool {
        self.own.is_some()
    }

    /// Adopts a candidate whose loss on records held back is lower than those of the public model
    /// and the model in use, and only that: a loss that is no number is not lower. Returns whether
    /// it did.
    pub fn decide(&mut self, candidate: Vec<f32>, [public, before]: [f64; 2], after: f64) -> bool {
        let adopts = after < before && after < public;
        if adopts {
            self.own = Some(candidate);
        }
        adopts
    }

    /// A newer public model with the personal change: `newer + (own − public)`, by parameter.
    /// Without a customized model it is the newer one.
    ///
    /// # Errors
    /// [`Error::Value`] unless it is newer and has the same layers.
    pub fn merged(&self, newer: &Public) -> Result<Vec<f32>> {
        if newer.version <= self.public.version {
            let expected = format!("above {}", self.public.version);
            return Err(Error::value("version of a newer model", newer.version, expected));
        }
        if newer.model != self.public.model || newer.note != self.public.note {
            let expected = "that of the model in use";
            return Err(Error::value("architecture of a newer model", "another", expected));
        }
        let Some(own) = &self.own else { return Ok(newer.weights.clone()) };
        let changed = newer.weights.iter().zip(own.iter().zip(&self.public.weights));
        Ok(changed.map(|(new, (own, old))| new + (own - old)).collect())
    }

    /// Goes on from a newer public model with `merged`, what [`Personal::merged`] gave, in use,
    /// if its loss on records held back is lower than that of the model in use. A device without
    /// a customized model takes the newer one in any case. Returns whether it did.
    pub fn go_on(
        &mut self,
        newer: &Arc<Public>,
        merged: Vec<f32>,
        before: f64,
        after: f64,
    ) -> bool {
        let adopts = self.own.is_none() || after < before;
        if adopts {
            self.own = self.own.is_some().then_some(merged);
            self.public = newer.clone();
        }
        adopts
    }
}
