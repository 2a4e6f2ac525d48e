//! Replaying programs: submits of bounded length, and times of single calls.

use std::sync::Mutex;

use futures_channel::oneshot;
use tern_shaders::Element;
use web_time::Instant;

use super::compile::{Program, Step};
use super::{Gpu, lock};
use crate::device::Timing;
use crate::{Error, Interrupt, Result};

/// How many dispatches a submit may hold, learned from what submits took, so that none runs
/// long enough for a watchdog.
pub(super) struct Pace {
    budget: f64,
    seconds_per_call: Mutex<f64>,
}

impl Pace {
    pub fn new(budget: f64) -> Self {
        Pace { budget, seconds_per_call: Mutex::new(1e-3) }
    }

    fn calls(&self) -> usize {
        let rate = *lock(&self.seconds_per_call);
        ((self.budget / rate) as usize).clamp(1, 100_000)
    }

    fn learn(&self, calls: usize, seconds: f64) {
        let mut rate = lock(&self.seconds_per_call);
        let seen = (seconds / calls.max(1) as f64).max(1e-7);
        // Slower at once, faster by and by: one quick submit must not make the next one long.
        *rate = if seen > *rate { seen } else { 0.7 * *rate + 0.3 * seen };
    }
}

/// Two timestamps a pass.
struct Queries {
    set: wgpu::QuerySet,
    count: u32,
}

impl Queries {
    fn writes(&self, pass: usize) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.set,
            beginning_of_pass_write_index: Some(2 * pass as u32),
            end_of_pass_write_index: Some(2 * pass as u32 + 1),
        }
    }
}

impl Gpu {
    fn record(step: &Step, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&step.pipeline);
        pass.set_bind_group(0, &step.group, &[]);
        pass.dispatch_workgroups(step.grid[0], step.grid[1], step.grid[2]);
    }

    fn completion(&self) -> oneshot::Receiver<()> {
        let (done, finished) = oneshot::channel();
        self.queue.on_submitted_work_done(move || {
            let _ = done.send(());
        });
        finished
    }

    pub async fn replay(
        &self,
        program: &Program,
        times: usize,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let n = program.steps.len();
        let (mut next, mut last) = (0, n * times);
        // One submit runs while the next is recorded; more would only add latency.
        let mut running: Option<(oneshot::Receiver<()>, usize)> = None;
        let mut since = Instant::now();
        while next < last {
            if interrupt.is_set() {
                // A step that was begun is made whole.
                last = next.next_multiple_of(n);
            }
            let end = (next + self.pace.calls()).min(last);
            let mut encoder = self.device.create_command_encoder(&Default::default());
            {
                let mut pass = encoder.begin_compute_pass(&Default::default());
                (next..end).for_each(|at| Self::record(&program.steps[at % n], &mut pass));
            }
            self.submit(encoder);
            let submitted = (self.completion(), end - next);
            if let Some((finished, calls)) = running.replace(submitted) {
                since = self.finish(finished, calls, since).await?;
            }
            next = end;
        }
        if let Some((finished, calls)) = running {
            self.finish(finished, calls, since).await?;
        }
        Ok(())
    }

    async fn finish(
        &self,
        finished: oneshot::Receiver<()>,
        calls: usize,
        since: Instant,
    ) -> Result<Instant> {
        let done = finished.await;
        self.fault()?;
        done.map_err(|e| Error::DeviceLost(e.to_string()))?;
        let now = Instant::now();
        self.pace.learn(calls, now.duration_since(since).as_secs_f64());
        Ok(now)
    }

    /// Seconds on the device's own clock that `times` replays take in one submit, which the
    /// caller keeps short; `None` where the device has no such clock.
    pub async fn clocked(&self, program: &Program, times: usize) -> Result<Option<f64>> {
        if !self.features.contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(None);
        }
        let queries = self.queries(1);
        let mut encoder = self.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some("clocked"),
                timestamp_writes: Some(queries.writes(0)),
            });
            for _ in 0..times {
                program.steps.iter().for_each(|step| Self::record(step, &mut pass));
            }
        }
        Ok(self.resolve(queries, encoder).await?.pop())
    }

    fn queries(&self, passes: usize) -> Queries {
        let count = 2 * passes as u32;
        let set = self.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("profile"),
            ty: wgpu::QueryType::Timestamp,
            count,
        });
        Queries { set, count }
    }

    /// Submits, and reads the seconds of each pass.
    async fn resolve(
        &self,
        queries: Queries,
        mut encoder: wgpu::CommandEncoder,
    ) -> Result<Vec<f64>> {
        let words = 2 * queries.count as usize;
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let resolved = self.buffer("profile", words, usage);
        encoder.resolve_query_set(&queries.set, 0..queries.count, &resolved, 0);
        self.submit(encoder);
        let words = self.read(&resolved, 0, words, Element::U32).await?.words()?;
        let period = f64::from(self.queue.get_timestamp_period()) * 1e-9;
        let ticks: &[u64] = &bytemuck::pod_collect_to_vec::<u32, u64>(&words);
        let seconds = |t: &[u64]| t[1].saturating_sub(t[0]) as f64 * period;
        Ok(ticks.chunks_exact(2).map(seconds).collect())
    }

    pub async fn profile_program(&self, program: &Program) -> Result<Vec<Timing>> {
        if !self.features.contains(wgpu::Features::TIMESTAMP_QUERY) {
            return self.profile_by_fence(program).await;
        }
        let mut timings = Vec::with_capacity(program.steps.len());
        // A query set holds 4,096 entries at most; two a step.
        for steps in program.steps.chunks(2_048) {
            let queries = self.queries(steps.len());
            let mut encoder = self.device.create_command_encoder(&Default::default());
            for (i, step) in steps.iter().enumerate() {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: Some(&step.label),
                    timestamp_writes: Some(queries.writes(i)),
                });
                Self::record(step, &mut pass);
            }
            let seconds = self.resolve(queries, encoder).await?;
            timings.extend(steps.iter().zip(seconds).map(|(step, seconds)| Timing {
                kernel: step.kernel.into(),
                label: step.label.clone(),
                seconds,
            }));
        }
        Ok(timings)
    }

    async fn profile_by_fence(&self, program: &Program) -> Result<Vec<Timing>> {
        let mut timings = Vec::with_capacity(program.steps.len());
        for step in &program.steps {
            let start = Instant::now();
            let mut encoder = self.device.create_command_encoder(&Default::default());
            Self::record(step, &mut encoder.begin_compute_pass(&Default::default()));
            self.submit(encoder);
            let done = self.completion().await;
            self.fault()?;
            done.map_err(|e| Error::DeviceLost(e.to_string()))?;
            timings.push(Timing {
                kernel: step.kernel.into(),
                label: step.label.clone(),
                seconds: start.elapsed().as_secs_f64(),
            });
        }
        Ok(timings)
    }
}
