//! How a run starts, and how it goes on after a restart.

use tern_protocol::coordinator::{Coordinator, Event, Head};
use tern_protocol::layout::Layout;
use tern_protocol::plan::Encoding;
use tern_protocol::update::Codec;
use tern_protocol::{Digest, Error, Millis, Result, RunId, RunPlan};

use super::Options;
use super::aggregation::{COPIES, Context};
use crate::blobs::Blobs;
use crate::journal;
use crate::storage::{Bodies, Ledger};

/// What a run was started with, in the journal.
pub(super) fn start(
    ledger: &mut dyn Ledger,
    bodies: &dyn Bodies,
    plan: &RunPlan,
    layout: &Layout,
    initial: &[f32],
    options: &Options,
) -> Result<RunId> {
    check_initial(layout, initial)?;
    let run = match options.run {
        Some(run) => run,
        None => RunId::draw()?,
    };
    let model = bodies.put(&Codec::full(initial))?;
    let scales = first_scales(plan, layout);
    let coordinator = Coordinator::new(plan.clone(), run, Head::initial(model, scales))?;
    let json = serde_json::to_vec(plan).unwrap_or_default();
    ledger.start(&run, &json, &model, &coordinator.snapshot())?;
    Ok(run)
}

/// Whether a run may start from a model.
pub(super) fn check_initial(layout: &Layout, initial: &[f32]) -> Result<()> {
    if initial.len() != layout.elements() {
        let expected = format!("{} values", layout.elements());
        return Err(Error::value("initial model", format!("{} values", initial.len()), expected));
    }
    if let Some(at) = initial.iter().position(|x| !x.is_finite()) {
        let name = format!("element {at} of the initial model");
        return Err(Error::value(name, initial[at], "a finite number"));
    }
    Ok(())
}

/// Scales of the first round, where the server sets them.
pub(super) fn first_scales(plan: &RunPlan, layout: &Layout) -> Vec<f32> {
    match &plan.secure {
        Some(secure) if plan.updates.uplink == Encoding::Ternary => {
            vec![secure.first_scale; layout.tensors()]
        }
        _ => Vec::new(),
    }
}

/// Whether a folder without a journal never held a run: a start that broke off left the initial
/// model at most.
pub(super) fn check_unused(blobs: &Blobs, initial: &[f32]) -> Result<()> {
    let (folder, initial) = (blobs.folder(), Digest::of(&Codec::full(initial)));
    let held = |path: std::path::PathBuf| {
        let found = format!("is of a run, and {} has none", journal::FILE);
        let expected = "expected a folder that never held one; `tern repair` says what is there";
        Err(Error::file(&path, format!("{found}, {expected}")))
    };
    for name in COPIES.map(|name| folder.join(name)) {
        if name.exists() {
            return held(name);
        }
    }
    for name in ["models", "uploads"].map(|name| folder.join(name)) {
        for entry in std::fs::read_dir(&name).map_err(|e| Error::file(&name, e))? {
            let path = entry.map_err(|e| Error::file(&name, e))?.path();
            if !path.ends_with(initial.to_string()) {
                return held(path);
            }
        }
    }
    Ok(())
}

/// Whether all models and states that the run goes on from are whole. The first model is repaired
/// by the one that is given.
pub(super) fn check_kept(
    context: &Context,
    coordinator: &Coordinator,
    initial: &[f32],
) -> Result<()> {
    let first = Codec::full(initial);
    for digest in coordinator.kept() {
        let Err(damage) = context.body(&digest) else { continue };
        if coordinator.told_end().is_some_and(|ended| ended.model == digest) {
            // Nothing goes on from it, and a client that has it may bring it back.
            continue;
        }
        if Digest::of(&first) != digest {
            let what = match &damage {
                Error::File { reason, .. } => reason.to_string(),
                other => other.to_string(),
            };
            let turn = coordinator.turn();
            let hint = "no file was removed; `tern repair` says what can be had back";
            let reason = format!("{what}, expected a whole body, for {turn}: {hint}");
            return Err(Error::file(&context.bodies.name(&digest), reason));
        }
        tracing::warn!(%damage, "repaired by the initial model");
        context.bodies.put(&first)?;
    }
    Ok(())
}

/// Whether the run in the journal goes on by this plan, which is the journal's then.
pub(super) fn check_run(ledger: &mut dyn Ledger, plan: &RunPlan, run: &[u8]) -> Result<RunId> {
    let broken = || Error::value("journal", "incomplete", "the one of a run");
    let json = ledger.value("plan")?.ok_or_else(broken)?;
    let started: RunPlan = serde_json::from_slice(&json).map_err(|_| broken())?;
    plan.check_goes_on_from(&started)?;
    let run = RunId::from_slice(run).ok_or_else(broken)?;
    if plan.rounds != started.rounds {
        ledger.set_plan(&serde_json::to_vec(plan).unwrap_or_default())?;
    }
    Ok(run)
}

/// The coordinator as the journal has it.
pub(super) fn load(ledger: &dyn Ledger, plan: &RunPlan, run: RunId) -> Result<Coordinator> {
    let snapshot = ledger.value("snapshot")?.unwrap_or_default();
    let mut coordinator = Coordinator::restore(plan.clone(), run, &snapshot)?;
    for journaled in ledger.events()? {
        let now = Millis(journaled.now);
        // The effects are found in the state: what is to be added up and made.
        coordinator.handle(now, Event::from_wire(journaled)?)?;
    }
    Ok(coordinator)
}
