//! How a run starts, and how it goes on after a restart.

use tern_protocol::coordinator::{Coordinator, Event, Head};
use tern_protocol::layout::Layout;
use tern_protocol::plan::Encoding;
use tern_protocol::update::Codec;
use tern_protocol::{Error, Millis, Result, RunId, RunPlan};

use super::Options;
use crate::blobs::Blobs;
use crate::journal::Journal;

/// What a run was started with, in the journal.
pub(super) fn start(
    journal: &mut Journal,
    blobs: &Blobs,
    plan: &RunPlan,
    layout: &Layout,
    initial: &[f32],
    options: &Options,
) -> Result<RunId> {
    if initial.len() != layout.elements() {
        let expected = format!("{} values", layout.elements());
        return Err(Error::value("initial model", format!("{} values", initial.len()), expected));
    }
    if let Some(at) = initial.iter().position(|x| !x.is_finite()) {
        let name = format!("element {at} of the initial model");
        return Err(Error::value(name, initial[at], "a finite number"));
    }
    let run = match options.run {
        Some(run) => run,
        None => RunId::draw()?,
    };
    let model = blobs.put_model(&Codec::full(initial))?;
    let scales = match &plan.secure {
        Some(secure) if plan.updates.uplink == Encoding::Ternary => {
            vec![secure.first_scale; layout.tensors()]
        }
        _ => Vec::new(),
    };
    let coordinator = Coordinator::new(plan.clone(), run, Head::initial(model, scales))?;
    let json = serde_json::to_vec(plan).unwrap_or_default();
    journal.set(&[
        ("run", &run.0),
        ("plan", &json),
        ("initial", &model.0),
        ("snapshot", &coordinator.snapshot()),
    ])?;
    Ok(run)
}

/// Whether the run in the journal goes on by this plan, which is the journal's then.
pub(super) fn check_run(journal: &mut Journal, plan: &RunPlan, run: &[u8]) -> Result<RunId> {
    let broken = || Error::value("journal", "incomplete", "the one of a run");
    let json = journal.get("plan")?.ok_or_else(broken)?;
    let started: RunPlan = serde_json::from_slice(&json).map_err(|_| broken())?;
    plan.check_goes_on_from(&started)?;
    let run = RunId::from_slice(run).ok_or_else(broken)?;
    if plan.rounds != started.rounds {
        journal.set(&[("plan", &serde_json::to_vec(plan).unwrap_or_default())])?;
    }
    Ok(run)
}

/// The coordinator as the journal has it.
pub(super) fn load(journal: &Journal, plan: &RunPlan, run: RunId) -> Result<Coordinator> {
    let snapshot = journal.get("snapshot")?.unwrap_or_default();
    let mut coordinator = Coordinator::restore(plan.clone(), run, &snapshot)?;
    for journaled in journal.events()? {
        let now = Millis(journaled.now);
        // The effects are found in the state: what is to be added up and made.
        coordinator.handle(now, Event::from_wire(journaled)?)?;
    }
    Ok(coordinator)
}
