//! How adapters travel.

use anyhow::Result;
use clap::ValueEnum;
use tern_fl::plan::{Encoding, Secure, Selection};
use tern_fl::update::{Format, Kind};
use tern_fl::{Layout, RunPlan};

/// A way to send adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// 32-bit floats
    Full,
    /// 16-bit floats
    Half,
    /// 2-bit codes with a scale a tensor
    Ternary,
    /// Fixed point under masks: the server learns the sum alone
    Secure,
    /// Ternary codes under masks
    SecureTernary,
}

impl Way {
    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Way::Full => "full precision",
            Way::Half => "16 bits",
            Way::Ternary => "ternary",
            Way::Secure => "full precision + secure",
            Way::SecureTernary => "ternary + secure",
        }
    }

    /// The plan with updates that travel so.
    pub fn of(self, plan: &RunPlan) -> RunPlan {
        let mut plan = plan.clone();
        plan.updates.uplink = match self {
            Way::Full | Way::Secure => Encoding::Full,
            Way::Half => Encoding::Half,
            Way::Ternary | Way::SecureTernary => Encoding::Ternary,
        };
        if matches!(self, Way::Secure | Way::SecureTernary) {
            let mut secure = Secure::default();
            // Few clients: a tenth of them are nobody.
            (secure.corrupt, secure.first_scale) = (0.0, FIRST_SCALE);
            plan.secure = Some(secure);
        }
        if self == Way::SecureTernary {
            // Its mean is unweighted.
            plan.cohort.selection = Selection::BySamples;
        }
        plan
    }

    /// Bytes of an update that a client sends by a plan that [`Way::of`] made.
    pub fn bytes(plan: &RunPlan) -> Result<u64> {
        let layout = Layout::of(&plan.model)?;
        let kind = match plan.masking(&layout)? {
            Some(masking) => Kind::Masked(masking.packing),
            None => plan.updates.uplink.into(),
        };
        Ok(Format::of_updates(&plan.updates, kind, &layout).bytes())
    }
}

/// Scale of masked ternary codes before the first mean is known.
const FIRST_SCALE: f32 = 0.004;
