//! Checking a run afterwards: every model made anew from the updates that were counted.

use std::path::Path;

use tern_host::files::Faults;
use tern_protocol::strategy::advance;
use tern_protocol::update::{Codec, Format};
use tern_protocol::{Digest, Error, Result, RunPlan, StrategyState, Total, Turn};

use super::Options;
use super::aggregation::{Counted, Stored, Sum, add_update};
use crate::blobs::Blobs;
use crate::journal::Journal;

/// A round, made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    /// The round.
    pub round: u32,
    /// Updates in it.
    pub updates: usize,
    /// SHA-256 of the model that the run recorded.
    pub recorded: Digest,
    /// SHA-256 of the model made anew.
    pub made: Digest,
}

impl Audit {
    /// Whether not a bit differs.
    pub fn holds(&self) -> bool {
        self.recorded == self.made
    }
}

/// Makes the model of every committed round from the initial model and the updates that the run
/// recorded as counted, one update at a time in order of their clients' keys. It needs a run that
/// kept its updates, without secure aggregation.
///
/// # Errors
/// [`Error::Value`] for a run that can't be checked; [`Error::File`] for an update that is missing
/// or has other bytes than recorded.
pub fn audit(folder: &Path, initial: &[f32], options: &Options) -> Result<Vec<Audit>> {
    let (durability, faults) = (options.durability, Faults::default);
    let (journal, _) = Journal::contents(folder)?;
    if let Some(damage) = journal.damage.first() {
        return Err(Error::journal(folder, damage.clone()));
    }
    let blobs = Blobs::open(folder, durability, u64::MAX, faults())?;
    let value = |name| journal.meta.get(name).map_or(&[][..], Vec::as_slice);
    let plan: RunPlan = serde_json::from_slice(value("plan"))
        .map_err(|error| Error::value("plan in the journal", error, "the plan of a run"))?;
    if plan.secure.is_some() {
        let expected = "a run without it: masked updates can't be read one by one";
        return Err(Error::value("secure aggregation", "on", expected));
    }
    let layout = plan.check()?;
    let started = Digest::of(&Codec::full(initial));
    if value("initial") != started.0 {
        return Err(Error::value("initial model", started, "the one that the run started from"));
    }
    let format = Format::new(plan.updates.uplink.into(), &layout, plan.updates.bound);
    let strategy = plan.strategy.build(options.strategy.as_ref())?;
    let (mut model, mut state) = (initial.to_vec(), StrategyState::default());
    let mut audits = Vec::new();
    for round in &journal.rounds {
        let (turn, uploads) = (Turn::new(round.round, round.attempt), &round.uploads);
        let mut total = Sum::Clear(Total::new(layout.elements(), plan.fraction_bits()));
        for upload in uploads {
            let counted = Counted { digest: upload.digest, weight: upload.samples };
            let stored = add_update(&blobs, &format, &mut total, turn, &upload.client, &counted)?;
            if let Stored::Damaged(reason) = stored {
                return Err(Error::file(&blobs.upload_path(turn, &upload.client), reason));
            }
        }
        let Sum::Clear(total) = total else { continue };
        advance(&*strategy, plan.updates.kind, &layout, &mut model, total.mean(), &mut state)?;
        audits.push(Audit {
            round: round.round,
            updates: uploads.len(),
            recorded: round.head()?.model,
            made: Digest::of(&Codec::full(&model)),
        });
    }
    Ok(audits)
}
