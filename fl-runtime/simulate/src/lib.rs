//! Federated rounds on one device: the server's state machine, with clients that are replicas of
//! the model side by side.
//!
//! [`Simulation`] drives the same [`Coordinator`] as a server does, so that the same seed gives
//! the same cohorts, and adds updates up in the same fixed point, so that the same updates give
//! the same bits. A round is broadcast, local steps, difference, clipping, codes and sum, all on
//! the device; what comes back are losses, norms and the scales of ternary codes. Updates of 16
//! bits are rounded on the host; strategies other than plain averaging and ternary models take one
//! vector there and back a round.
//!
//! A cohort of any size runs in groups of as many clients as memory holds. What clients keep
//! between rounds, the residuals of ternary codes and the optimizer's moments where the plan keeps
//! them, stays on the device up to a limit and in files from there on.
//!
//! ```
//! use tern_engine::nn::ModelSpec;
//! use tern_engine::Device;
//! use tern_protocol::layout::ModelKind;
//! use tern_protocol::RunPlan;
//! use tern_simulate::{Options, Population, Simulation};
//!
//! # fn main() -> tern_protocol::Result<()> {
//! let device = Device::cpu();
//! // Thirty points on a line, ten each for three clients; the class is the sign.
//! let x: Vec<f32> = (0..30).map(|i| (i as f32 - 14.5) / 15.0).collect();
//! let labels: Vec<u32> = x.iter().map(|x| u32::from(*x > 0.0)).collect();
//! let parts: Vec<Vec<usize>> = (0..3).map(|c| (c..30).step_by(3).collect()).collect();
//! let clients = Population::rows(&device, (&x, 1), &labels, 2, &parts)?;
//!
//! let mut plan = RunPlan::new("signs", ModelKind::Layers(ModelSpec::mlp(1, &[], 2)), 20);
//! plan.cohort.size = 2;
//! plan.training.learning_rate = 1.0;
//! let mut simulation = Simulation::new(&plan, clients, Options::new(&device))?;
//! let mut losses = Vec::new();
//! while let Some(round) = simulation.round()? {
//!     losses.push(round.training["loss"]);
//! }
//! assert!(losses[19] < 0.5 * losses[0]);
//! # Ok(())
//! # }
//! ```

mod downlink;
mod evaluate;
#[cfg(feature = "files")]
pub mod files;
mod optimizers;
mod options;
mod population;
mod saved;
mod server;
mod slots;
#[cfg(test)]
mod tests;
mod vectors;

pub use downlink::Downlink;
pub use options::Options;
pub use population::Population;
pub use tern_protocol::partition::{Partition, by_value, partition};

use evaluate::{Central, Clients};
use optimizers::Optimizers;
use saved::Store;
use server::Server;
use slots::{Coder, Measured, Slots, Task};
use tern_protocol::coordinator::{Coordinator, Effect, Event, Head, RoundRecord, Upload};
use tern_protocol::metrics::{self, Metrics};
use tern_protocol::participant::{declined, evaluated};
use tern_protocol::trainer::{Recorder, coding_key, training_seed};
use tern_protocol::update::{Format, Kind};
use tern_protocol::{ClientId, Digest, Error, Millis, Result, RunId, RunPlan, Salt, Turn};
use vectors::ClientVectors;

/// Attempts at a round after which a simulation gives up: nobody is late, so that the next one
/// would fail, too.
const ATTEMPTS: u32 = 3;

/// A run whose clients are simulated.
pub struct Simulation {
    run: RunId,
    clients: Population,
    coordinator: Coordinator,
    server: Server,
    slots: Slots,
    central: Option<Central>,
    on_clients: Option<Clients>,
    coder: Option<Coder>,
    residuals: Option<ClientVectors>,
    optimizers: Option<Optimizers>,
    /// Bytes of an update on the wire.
    bytes: u64,
    /// A round is one of these later.
    now: Millis,
    /// Who declined in the last attempt, and why.
    absent: Vec<(ClientId, String)>,
    store: Option<Store>,
}

impl Simulation {
    /// A run by this plan, which goes on from what its folder has ([`Options::folder`]).
    ///
    /// # Errors
    /// [`Error::Value`] for a plan that makes no sense, that trains no layers, or whose
    /// aggregation is secure (in a simulation there is nobody to hide updates from), and for another
    /// plan or other clients than the folder's run began with, but for more rounds; [`Error::File`]
    /// for a folder that is in use or damaged; the engine's.
    pub fn new(plan: &RunPlan, clients: Population, options: Options) -> Result<Self> {
        let layout = plan.check()?;
        if plan.secure.is_some() {
            let expected = "none: a simulation has nobody to hide updates from";
            return Err(Error::value("secure", "given", expected));
        }
        let recorder = Recorder::new(&plan.model)?;
        let device = &options.device;
        let initial = match options.initial {
            Some(initial) => initial,
            None => layout.parameters().initial(plan.seed),
        };
        let asked = (plan.cohort.asked() as usize).min(clients.len());
        let data = clients.data();
        let mut slots = Slots::new(device, plan, &layout, &recorder, data, asked, options.memory)?;
        slots.set_interrupt(&options.interrupt);
        let mut central = match &options.held_out {
            Some(data) => Some(Central::new(device, plan, &layout, &recorder, data)?),
            None => None,
        };
        let mut on_clients = match plan.evaluation.on_clients {
            true => Some(Clients::new(&slots, &recorder, data)?),
            false => None,
        };
        central.iter_mut().for_each(|central| central.set_interrupt(&options.interrupt));
        on_clients.iter_mut().for_each(|clients| clients.set_interrupt(&options.interrupt));
        let coder = slots.coder()?;
        let moments = match plan.training.keep_optimizer {
            true => plan.training.optimizer.moments().len(),
            false => 0,
        };
        let kinds = moments + usize::from(coder.is_some());
        let bytes = options.state_memory / kinds.max(1) as u64;
        let vectors = || ClientVectors::new(device, layout.elements(), bytes, &options.spill);
        let residuals = coder.as_ref().map(|_| vectors()).transpose()?;
        let moments = (0..moments).map(|_| vectors()).collect::<Result<Vec<_>>>()?;
        let optimizers = (!moments.is_empty()).then(|| Optimizers::new(moments));
        let kind = Kind::from(plan.updates.uplink);
        let mut simulation = Simulation {
            run: options.run,
            coordinator: Coordinator::new(
                plan.clone(),
                options.run,
                Head::initial(model_name(options.done), Vec::new()),
            )?
            .after(options.done),
            server: Server::new(device, plan, &layout, &initial, options.strategy.as_ref())?,
            bytes: Format::new(kind, &layout, plan.updates.bound).bytes(),
            clients,
            slots,
            central,
            on_clients,
            coder,
            residuals,
            optimizers,
            now: Millis(0),
            absent: Vec::new(),
            store: None,
        };
        if let Some(folder) = &options.folder {
            simulation.open(folder)?;
        }
        Ok(simulation)
    }

    /// Clients that train side by side.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Bytes on the device for clients' models, activations and data.
    pub fn bytes(&self) -> u64 {
        self.slots.bytes()
    }

    /// Vectors of clients' state that are in files and not on the device.
    pub fn spilled(&self) -> usize {
        self.residuals.as_ref().map_or(0, ClientVectors::spilled)
            + self.optimizers.as_ref().map_or(0, Optimizers::spilled)
    }

    /// Rounds that are done.
    pub fn rounds(&self) -> u32 {
        self.coordinator.turn().round - u32::from(!self.coordinator.finished())
    }

    /// The server's state machine.
    pub fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// The last model as clients have it, a flat vector.
    ///
    /// # Errors
    /// Device errors.
    pub fn model(&self) -> Result<Vec<f32>> {
        Ok(self.server.public().read()?.floats()?)
    }

    /// The best model so far; the last if none has a score.
    ///
    /// # Errors
    /// Device errors.
    pub fn best_model(&self) -> Result<Vec<f32>> {
        Ok(self.server.best().read()?.floats()?)
    }

    /// Runs a round; `None` once the run is over.
    ///
    /// # Errors
    /// [`Error::TooFew`] if too few updates can be counted, again and again; [`Error::Value`] if
    /// the model is no longer finite; [`Error::File`] if clients' state can't be spilled; the
    /// engine's. If it was interrupted ([`Options::interrupt`]), training or measuring, the models
    /// are those of the round before, and there is no other round.
    pub fn round(&mut self) -> Result<Option<RoundRecord>> {
        while !self.coordinator.finished() {
            let turn = self.coordinator.turn();
            if turn.attempt > ATTEMPTS {
                let needed = self.coordinator.plan().cohort.minimum as usize;
                let absent = std::mem::take(&mut self.absent);
                return Err(Error::TooFew { turn, needed, absent });
            }
            self.now = self.now.after(1);
            let salt = Salt::simulated(self.coordinator.plan().seed, turn);
            let online = self.clients.candidates();
            self.coordinator.handle(self.now, Event::Start { online, salt })?;
            self.server.clear()?;
            self.absent.clear();
            if let Some(record) = self.collect(turn)? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Optimizer steps of a client in a round.
    fn steps(&self, client: usize) -> u32 {
        let training = &self.coordinator.plan().training;
        let epoch = self.clients.part(client).len().div_ceil(training.batch as usize) as u32;
        training.steps.unwrap_or(epoch.saturating_mul(training.epochs))
    }

    fn task(&self, turn: Turn, client: usize) -> Task {
        let seed = self.coordinator.plan().seed;
        Task {
            seed: training_seed(seed, turn.round, &self.clients.id(client)),
            part: self.clients.part(client).clone(),
            steps: self.steps(client),
            done: self.optimizers.as_ref().map_or(0, |kept| kept.steps(client)),
        }
    }

    /// Trains the cohort, group by group, until the round is closed.
    fn collect(&mut self, turn: Turn) -> Result<Option<RoundRecord>> {
        let cohort = self.coordinator.cohort();
        let mut cohort: Vec<usize> =
            cohort.iter().filter_map(|(id, _)| self.clients.find(id)).collect();
        // As if all were equally fast: who has least to do is done first.
        cohort.sort_by_key(|client| (self.steps(*client), *client));
        for group in cohort.chunks(self.slots.len()) {
            // The longest first, so that no thread is left alone with it in the end.
            let group: Vec<usize> = group.iter().rev().copied().collect();
            let tasks: Vec<Task> = group.iter().map(|client| self.task(turn, *client)).collect();
            if let Some(optimizers) = &mut self.optimizers {
                for (slot, client) in group.iter().enumerate() {
                    optimizers.load(*client, &self.slots.moments(slot)?)?;
                }
            }
            let measured = self.slots.train(turn.round, self.server.public(), &tasks)?;
            let mut weights = vec![0; group.len()];
            let mut effects = Vec::new();
            for (slot, client) in group.iter().enumerate().rev() {
                effects = self.answer(turn, slot, *client, &measured[slot])?;
                for effect in &effects {
                    if let Effect::Add { weight, .. } = effect {
                        weights[slot] = *weight;
                    }
                }
                if !effects.iter().all(|effect| matches!(effect, Effect::Add { .. })) {
                    break;
                }
            }
            if weights.iter().any(|weight| *weight > 0) {
                self.slots.add_to(self.server.aggregator(), &weights)?;
            }
            for effect in effects {
                match effect {
                    Effect::Aggregate => return self.aggregate(turn).map(Some),
                    Effect::Failed(_) => {
                        self.residuals.iter_mut().for_each(ClientVectors::abandon);
                        self.optimizers.iter_mut().for_each(Optimizers::abandon);
                        return Ok(None);
                    }
                    Effect::Add { .. } | Effect::Committed(_) | Effect::Finished => {}
                }
            }
        }
        Err(Error::Open(turn))
    }

    /// What the client of a slot sends, and what the server makes of it.
    fn answer(
        &mut self,
        turn: Turn,
        slot: usize,
        client: usize,
        measured: &Measured,
    ) -> Result<Vec<Effect>> {
        let id = self.clients.id(client);
        let most = self.coordinator.max_samples().unwrap_or(u32::MAX);
        let samples = (self.clients.part(client).len() as u32).min(most);
        let loss = measured.loss.map(|loss| ("loss".to_string(), f64::from(loss)));
        let mut metrics: Metrics = loss.into_iter().collect();
        let named = &self.coordinator.plan().evaluation.metrics;
        metrics::keep_named(&mut metrics, named);
        let reason = if !measured.norm.is_finite() {
            Some("the update has a number that isn't finite".to_string())
        } else if let Err(refusal) = metrics::check(&metrics, named) {
            Some(refusal.to_string())
        } else if !self.encode(turn, slot, client, measured.norm)? {
            Some("the update can't be coded".to_string())
        } else {
            None
        };
        if let Some(reason) = reason {
            tracing::warn!(client = %id, %turn, reason, "declines");
            let message = declined(turn, &reason);
            self.absent.push((id, reason));
            let event = Event::Message { client: id, message };
            return Ok(self.coordinator.handle(self.now, event)?);
        }
        let upload = Upload {
            digest: update_name(turn, &id),
            bytes: self.bytes,
            samples,
            metrics,
            included: Vec::new(),
        };
        let effects =
            self.coordinator.handle(self.now, Event::Uploaded { client: id, turn, upload })?;
        if let (Some(residuals), Some(coder)) = (&mut self.residuals, &self.coder) {
            residuals.store(client, &coder.residual)?;
        }
        let steps = self.steps(client);
        if let Some(optimizers) = &mut self.optimizers {
            let steps = optimizers.steps(client).saturating_add(steps);
            optimizers.store(client, steps, &self.slots.moments(slot)?)?;
        }
        Ok(effects)
    }

    /// Makes the update of a slot what the server reads of it; false if the server would not.
    fn encode(&mut self, turn: Turn, slot: usize, client: usize, norm: f32) -> Result<bool> {
        self.slots.round(slot, norm)?;
        let (Some(coder), Some(residuals)) = (&self.coder, &mut self.residuals) else {
            self.slots.limit(slot, f64::from(norm))?;
            return Ok(true);
        };
        residuals.load(client, &coder.residual)?;
        let key = coding_key(&self.run, turn, &self.clients.id(client));
        let Some(norm) = self.slots.code(slot, coder, key)? else { return Ok(false) };
        self.slots.limit(slot, norm)?;
        Ok(true)
    }

    /// The new model, and what is measured of it. If that fails, all is as before the round.
    fn aggregate(&mut self, turn: Turn) -> Result<RoundRecord> {
        if self.central.is_some() || self.on_clients.is_some() {
            self.server.remember()?;
        }
        self.server.aggregate(turn.round)?;
        match self.measure(turn) {
            Ok(record) => {
                self.residuals.iter_mut().for_each(ClientVectors::commit);
                self.optimizers.iter_mut().for_each(Optimizers::commit);
                Ok(record)
            }
            Err(error) => {
                self.residuals.iter_mut().for_each(ClientVectors::abandon);
                self.optimizers.iter_mut().for_each(Optimizers::abandon);
                self.server.take_back()?;
                Err(error)
            }
        }
    }

    /// What the server and clients measure of the new model, and the round as it is committed.
    fn measure(&mut self, turn: Turn) -> Result<RoundRecord> {
        let metrics = match &mut self.central {
            Some(central) => central.run(self.server.public())?,
            None => Metrics::new(),
        };
        let mut head = Head::initial(model_name(turn.round), Vec::new());
        head.metrics = metrics;
        let counted: Vec<usize> =
            self.coordinator.accepted().filter_map(|(id, _)| self.clients.find(id)).collect();
        self.store.iter_mut().for_each(|store| store.changed(&counted));
        let mut effects = self.coordinator.handle(self.now, Event::Aggregated(head))?;
        if effects.is_empty() {
            effects = self.evaluate_on_clients(turn, &counted)?;
        }
        for effect in effects {
            if let Effect::Committed(record) = effect {
                if record.score.is_some_and(|score| score.best) {
                    self.server.keep_best()?;
                }
                return Ok(*record);
            }
        }
        Err(Error::Open(turn))
    }

    fn evaluate_on_clients(&mut self, turn: Turn, counted: &[usize]) -> Result<Vec<Effect>> {
        let mut effects = Vec::new();
        let tasks: Vec<Task> = counted.iter().map(|client| self.task(turn, *client)).collect();
        let Some(on_clients) = &mut self.on_clients else { return Ok(effects) };
        let groups = counted.chunks(self.slots.len()).zip(tasks.chunks(self.slots.len()));
        for (group, tasks) in groups {
            let measured = on_clients.run(&self.slots, self.server.public(), tasks)?;
            for (client, metrics) in group.iter().zip(measured) {
                let samples = self.clients.part(*client).len() as u32;
                let named = &self.coordinator.plan().evaluation.metrics;
                let message = evaluated(turn, samples, metrics, named);
                let event = Event::Message { client: self.clients.id(*client), message };
                effects = self.coordinator.handle(self.now, event)?;
            }
        }
        Ok(effects)
    }
}

/// A model's name: nobody asks for its bytes by it.
fn model_name(round: u32) -> Digest {
    Digest::of(format!("simulated model {round}").as_bytes())
}

/// An update's name, likewise.
fn update_name(turn: Turn, client: &ClientId) -> Digest {
    Digest::of(format!("simulated update {turn} {client}").as_bytes())
}
