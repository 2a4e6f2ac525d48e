//! Measuring models: on data that the server holds, and on the clients' own.

use tern_engine::{Arena, Device, Flat, Interrupt, Plan, Schedule, Tensor, Vector};
use tern_protocol::metrics::Metrics;
use tern_protocol::trainer::{EVALUATION_BATCH, LocalData, Recorder, evaluation_metrics};
use tern_protocol::{Layout, Result, RunPlan};
use tern_shaders::state::StateRecord;

use super::slots::{Slots, Task};

/// Evaluation on data that the server holds.
pub(super) struct Central {
    arena: Arena,
    plan: Plan,
    counts: Tensor,
    samples: usize,
}

impl Central {
    pub fn new(
        device: &Device,
        plan: &RunPlan,
        layout: &Layout,
        recorder: &Recorder,
        data: &LocalData,
    ) -> Result<Self> {
        let arena = Arena::new(device, layout.parameters(), &[plan.seed])?;
        let (plan, counts) = recorder.evaluation(&arena, data)?;
        Ok(Central { arena, plan, counts, samples: data.len() })
    }

    /// Lets it end by an interrupt.
    pub fn set_interrupt(&mut self, interrupt: &Interrupt) {
        self.plan.set_interrupt(interrupt);
    }

    /// `loss`, `accuracy`, `top3`.
    pub fn run(&mut self, model: &Vector) -> Result<Metrics> {
        Vector::of_tile(&self.arena, 0, Flat::Parameters)?.copy_from(model)?;
        self.plan.rewind()?;
        let losses = self.plan.run(self.samples.div_ceil(EVALUATION_BATCH))?;
        let counts = self.plan.read(self.counts)?.words()?;
        Ok(evaluation_metrics(&counts, losses.mean()))
    }
}

/// Evaluation by clients, in the slots that trained.
pub(super) struct Clients {
    plan: Plan,
    counts: Tensor,
    batch: usize,
}

impl Clients {
    pub fn new(slots: &Slots, recorder: &Recorder, data: &LocalData) -> Result<Self> {
        let (plan, counts) = recorder.evaluation(slots.arena(), data)?;
        Ok(Clients { plan, counts, batch: data.len().min(EVALUATION_BATCH) })
    }

    /// Lets it end by an interrupt.
    pub fn set_interrupt(&mut self, interrupt: &Interrupt) {
        self.plan.set_interrupt(interrupt);
    }

    /// What each of `tasks` measures of the model on its part; their steps don't matter.
    pub fn run(&mut self, slots: &Slots, model: &Vector, tasks: &[Task]) -> Result<Vec<Metrics>> {
        slots.broadcast(model, tasks.len())?;
        self.plan.rewind()?;
        let schedule = Schedule::constant(0.0);
        let batch = self.batch;
        let steps = |task: &Task| task.part.len().div_ceil(batch) as u32;
        let records = (0..slots.len()).map(|slot| match tasks.get(slot) {
            Some(task) => {
                let part = task.part.start as u32..task.part.end as u32;
                StateRecord::new(0, part, batch as u32, steps(task), &schedule)
            }
            None => StateRecord::IDLE,
        });
        self.plan.set_states(&records.collect::<Vec<_>>())?;
        // Counts go on in slots that are done, so they are read as each is.
        let mut ends: Vec<u32> = tasks.iter().map(steps).collect();
        ends.sort_unstable();
        ends.dedup();
        let (mut done, mut sums) = (0, vec![(0.0, 0.0); tasks.len()]);
        let mut metrics = vec![Metrics::new(); tasks.len()];
        for end in ends {
            let losses = self.plan.run((end - done) as usize)?;
            done = end;
            let counts = self.plan.read(self.counts)?.words()?;
            for (slot, (loss, rows)) in sums.iter_mut().enumerate() {
                let batches = losses.by_replica[slot].iter().zip(&losses.rows[slot]);
                for (l, r) in batches {
                    *loss += f64::from(*l) * f64::from(*r);
                    *rows += f64::from(*r);
                }
                if steps(&tasks[slot]) == end {
                    let mean = (*rows > 0.0).then(|| (*loss / *rows) as f32);
                    metrics[slot] = evaluation_metrics(&counts[3 * slot..3 * slot + 3], mean);
                }
            }
        }
        Ok(metrics)
    }
}
