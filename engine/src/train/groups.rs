//! Parameters that train otherwise than the rest.

use super::within;
use crate::Result;

/// Parameters by their names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Names {
    /// Those whose name starts with one of these.
    Prefixes(Vec<String>),
    /// Those whose name ends with one of these.
    Suffixes(Vec<String>),
}

impl Names {
    /// Whether the parameter of this name is among them.
    pub fn cover(&self, name: &str) -> bool {
        match self {
            Names::Prefixes(prefixes) => prefixes.iter().any(|p| name.starts_with(p)),
            Names::Suffixes(suffixes) => suffixes.iter().any(|s| name.ends_with(s)),
        }
    }
}

/// Parameters that train at a part of the learning rate, or by another weight decay.
///
/// ```
/// use tern_engine::{Optimizer, ParameterGroup, Training};
///
/// // The embedding learns at a tenth of the rate, and no bias decays.
/// let training = Training::new(Optimizer::adamw(), 1e-3)
///     .group(ParameterGroup::prefixes(["embedding."]).rate(0.1))
///     .group(ParameterGroup::suffixes([".bias"]).weight_decay(0.0));
/// assert!(training.groups[1].names.cover("output.bias"));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ParameterGroup {
    /// Which parameters it is of.
    pub names: Names,
    /// What the learning rate is multiplied by.
    pub rate: f64,
    /// Weight decay in place of the optimizer's.
    pub weight_decay: Option<f64>,
}

impl ParameterGroup {
    fn new(names: Names) -> Self {
        ParameterGroup { names, rate: 1.0, weight_decay: None }
    }

    /// Of the parameters whose names start with one of these.
    pub fn prefixes<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::new(Names::Prefixes(names.into_iter().map(Into::into).collect()))
    }

    /// Of the parameters whose names end with one of these.
    pub fn suffixes<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::new(Names::Suffixes(names.into_iter().map(Into::into).collect()))
    }

    /// With a factor of the learning rate.
    pub fn rate(mut self, factor: f64) -> Self {
        self.rate = factor;
        self
    }

    /// With a weight decay in place of the optimizer's, or with that.
    pub fn weight_decay(mut self, decay: impl Into<Option<f64>>) -> Self {
        self.weight_decay = decay.into();
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        within("rate of a parameter group", self.rate, 0.0..f64::INFINITY)?;
        let decay = self.weight_decay.unwrap_or(0.0);
        within("weight decay of a parameter group", decay, 0.0..f64::INFINITY)
    }
}
