//! Opening a run, where it is kept.

use std::any::Any;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tern_host::folder::FolderLock;
use tern_protocol::{Error, Result, RunPlan};

use super::aggregation::Context;
use super::damage::Damage;
use super::failures::Failures;
use super::presence::Presence;
use super::start::{check_initial, check_kept, check_run, check_unused, load, start};
use super::{Clock, Federation, Options};
use crate::blobs::Blobs;
use crate::journal::Journal;
use crate::storage::{Bodies, Ledger};

impl Federation {
    /// Opens the run in a folder, or starts it from the flat vector `initial`. A plan with more
    /// rounds than before goes on where the run was, or was over.
    ///
    /// # Errors
    /// [`Error::Value`] for a plan that makes no sense or differs from the one that the run was
    /// started with in more than that, naming the field; [`Error::File`], for a folder that is in use, too;
    /// [`Error::Journal`]. A journal or a model that is damaged or missing is named, and nothing is
    /// changed then: `tern repair` says what can be had back.
    pub fn open(folder: &Path, plan: &RunPlan, initial: &[f32], options: Options) -> Result<Self> {
        let layout = plan.check()?;
        std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
        let lock = FolderLock::take(folder)?;
        let (durability, faults) = (options.durability, || options.faults.clone());
        let journal = Journal::open(folder, durability, faults())?;
        let blobs = Blobs::open(folder, durability, options.max_bytes, faults())?;
        if !journal.started() {
            check_initial(&layout, initial)?;
            check_unused(&blobs, initial)?;
        }
        let (ledger, bodies) = (Box::new(journal), Arc::new(blobs));
        Federation::with(ledger, bodies, Box::new(lock), plan, initial, options)
    }

    /// Opens the run that is kept elsewhere, or starts it; `guard` is kept for as long as it is open.
    ///
    /// # Errors
    /// As [`Federation::open`].
    pub fn with(
        mut ledger: Box<dyn Ledger>,
        bodies: Arc<dyn Bodies>,
        guard: Box<dyn Any + Send>,
        plan: &RunPlan,
        initial: &[f32],
        options: Options,
    ) -> Result<Self> {
        let layout = plan.check()?;
        let (run, first) = match ledger.value("run")? {
            Some(run) => (check_run(&mut *ledger, plan, &run)?, false),
            None => (start(&mut *ledger, &*bodies, plan, &layout, initial, &options)?, true),
        };
        let coordinator = load(&*ledger, plan, run)?;
        let strategy = plan.strategy.build(options.strategy.as_ref())?;
        let context = Arc::new(Context::new(plan, &layout, strategy, &options, bodies.clone())?);
        check_kept(&context, &coordinator, initial)?;
        let clock = Clock::new(coordinator.now());
        let mut clients = ledger.clients()?;
        clients.retain(|client| options.keeps(client));
        let used = ledger.tokens()?;
        let presence = Presence::new(clients, options.presence_ms);
        tracing::info!(
            run = %run, new = first, turn = %coordinator.turn(), phase = coordinator.phase(), "open"
        );
        let mut federation = Federation {
            task: plan.task(run)?.into(),
            plan: plan.clone(),
            layout,
            options,
            ledger,
            bodies,
            coordinator,
            ahead: false,
            context,
            total: None,
            working: false,
            presence,
            used,
            clock,
            gathering: None,
            told: None,
            version: 1,
            refusals: BTreeMap::new(),
            failed: Failures::default(),
            damage: Damage::default(),
            uploaded: 0,
            _guard: guard,
        };
        federation.recount()?;
        federation.look_for_best();
        federation.sweep()?;
        Ok(federation)
    }
}
