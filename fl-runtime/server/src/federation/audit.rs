//! Checking a run afterwards: every model made anew from the updates that were counted.

use std::path::Path;
use std::sync::Arc;

use tern_host::files::Faults;
use tern_protocol::update::Codec;
use tern_protocol::{Digest, Error, Result, RunPlan, Turn};

use super::Options;
use super::aggregation::Context;
use super::replay::Replay;
use crate::blobs::Blobs;
use crate::journal::{CommittedRound, Journal};
use crate::storage::{Bodies, Ledger};

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
    let context = started(value("plan"), value("initial"), Arc::new(blobs), initial, options)?;
    let mut replay = Replay::new(&context, &journal.rounds, initial)?;
    let mut audits = Vec::new();
    while let Some((round, remade)) = replay.next()? {
        audits.push(Audit {
            round: round.round,
            updates: round.uploads.len(),
            recorded: round.head()?.model,
            made: Digest::of(&remade.model),
        });
    }
    Ok(audits)
}

/// As [`audit`], of a run that is kept elsewhere.
///
/// # Errors
/// As [`audit`].
pub fn audit_of(
    ledger: &dyn Ledger,
    bodies: Arc<dyn Bodies>,
    initial: &[f32],
    options: &Options,
) -> Result<Vec<Audit>> {
    let value = |name| Ok::<_, Error>(ledger.value(name)?.unwrap_or_default());
    let context = started(&value("plan")?, &value("initial")?, bodies, initial, options)?;
    let mut replay = Replay::new(&context, &[], initial)?;
    let audited = |round: CommittedRound| {
        let uploads = ledger.counted(round.round)?;
        let remade = replay.round(Turn::new(round.round, round.attempt), &uploads)?;
        let (recorded, made) = (round.model, Digest::of(&remade.model));
        Ok(Audit { round: round.round, updates: uploads.len(), recorded, made })
    };
    ledger.rounds(0)?.into_iter().map(audited).collect()
}

/// What the models of a run were made with, if it was started from this one.
fn started(
    plan: &[u8],
    recorded: &[u8],
    bodies: Arc<dyn Bodies>,
    initial: &[f32],
    options: &Options,
) -> Result<Context> {
    let plan: RunPlan = serde_json::from_slice(plan)
        .map_err(|error| Error::value("plan in the journal", error, "the plan of a run"))?;
    let layout = plan.check()?;
    let given = Digest::of(&Codec::full(initial));
    if recorded != given.0 {
        return Err(Error::value("initial model", given, "the one that the run started from"));
    }
    let strategy = plan.strategy.build(options.strategy.as_ref())?;
    Context::new(&plan, &layout, strategy, options, bodies)
}
