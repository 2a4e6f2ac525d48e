//! What a simulation is run with.

use std::path::PathBuf;
use std::sync::Arc;

use tern_engine::{Device, Interrupt};
use tern_protocol::trainer::LocalData;
use tern_protocol::{RunId, Strategy};

/// What a simulation is run with, besides the plan.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Where it runs.
    pub device: Device,
    /// Bytes that clients' models may take on the device, side by side.
    pub memory: u64,
    /// Bytes that what clients keep between rounds may take on the device.
    pub state_memory: u64,
    /// Folder for what is beyond that, in files that go with the simulation.
    pub spill: PathBuf,
    /// Samples for central evaluation, after each round.
    pub held_out: Option<LocalData>,
    /// Model to start from, a flat vector; else one drawn by the plan's seed.
    pub initial: Option<Vec<f32>>,
    /// Rounds that `initial` comes from: cohorts and seeds go on from there. What clients and the
    /// strategy kept until then is not known.
    pub done: u32,
    /// A strategy that the plan names.
    pub strategy: Option<Arc<dyn Strategy>>,
    /// The run, part of the key of drawn codes.
    pub run: RunId,
    /// What ends training between two steps.
    pub interrupt: Interrupt,
    /// Folder that [`Simulation::save`](super::Simulation::save) writes to, and that a simulation
    /// goes on from where something was saved: to the same bits as one that was never interrupted.
    /// `initial` and `done` are for one that begins.
    pub folder: Option<PathBuf>,
}

impl Options {
    /// A gigabyte for models, another for what clients keep, the system's temporary folder.
    pub fn new(device: &Device) -> Self {
        Options {
            device: device.clone(),
            memory: 1 << 30,
            state_memory: 1 << 30,
            spill: std::env::temp_dir(),
            held_out: None,
            initial: None,
            done: 0,
            strategy: None,
            run: RunId([0; 16]),
            interrupt: Interrupt::new(),
            folder: None,
        }
    }

    /// With so many bytes for clients' models on the device.
    pub fn memory(mut self, memory: u64) -> Self {
        self.memory = memory;
        self
    }

    /// With so many bytes on the device for what clients keep between rounds.
    pub fn state_memory(mut self, state_memory: u64) -> Self {
        self.state_memory = state_memory;
        self
    }

    /// With a folder for what is beyond that.
    pub fn spill(mut self, spill: impl Into<PathBuf>) -> Self {
        self.spill = spill.into();
        self
    }

    /// With samples for central evaluation, or without.
    pub fn held_out(mut self, held_out: impl Into<Option<LocalData>>) -> Self {
        self.held_out = held_out.into();
        self
    }

    /// With a model to start from, or one that is drawn.
    pub fn initial(mut self, initial: impl Into<Option<Vec<f32>>>) -> Self {
        self.initial = initial.into();
        self
    }

    /// After so many rounds, which `initial` comes from.
    pub fn done(mut self, done: u32) -> Self {
        self.done = done;
        self
    }

    /// With a strategy that the plan names.
    pub fn strategy(mut self, strategy: impl Into<Option<Arc<dyn Strategy>>>) -> Self {
        self.strategy = strategy.into();
        self
    }

    /// With the run, part of the key of drawn codes.
    pub fn run(mut self, run: RunId) -> Self {
        self.run = run;
        self
    }

    /// With a folder to be saved to and to go on from, or without.
    pub fn folder(mut self, folder: impl Into<Option<PathBuf>>) -> Self {
        self.folder = folder.into();
        self
    }

    /// With what ends training between two steps.
    pub fn interrupt(mut self, interrupt: &Interrupt) -> Self {
        self.interrupt = interrupt.clone();
        self
    }
}
