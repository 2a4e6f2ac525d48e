//! Whether an LSTM is a dispatch a sequence or a dispatch a time step, measured.

use tern_shaders::Element;
use tern_shaders::kernels::lstm::{SEQUENCE_FORWARD, STEP_FORWARD, gate_count};
use web_time::Instant;

use super::{Choice, Source, cell, round};
use crate::device::Backend;
use crate::ops::lstm::{LstmOptions, LstmWeights};
use crate::{Arena, Device, Graph, Init, Kind, Parameters, Plan, Result, Trainable};

/// The class of a recurrence: a choice of a sequence kernel for it is one dispatch a sequence,
/// a choice of a step kernel one a step.
fn class([steps, batch, hidden]: [u32; 3], cifg: bool) -> String {
    format!("walk of {} steps, {}", round(steps), cell(batch, hidden, cifg.into()))
}

impl Device {
    /// Whether one dispatch walks a sequence of `[steps, batch, hidden]`, if that was measured.
    pub(crate) fn walks_lstm(&self, sizes: [u32; 3], cifg: bool) -> Option<bool> {
        let Backend::Gpu(gpu) = &*self.0 else { return None };
        let (class, tuned) = (class(sizes, cifg), gpu.tuned());
        let chosen = |kernel: &'static str| tuned.get(kernel, &class).is_some();
        if chosen(SEQUENCE_FORWARD.name) {
            return Some(true);
        }
        chosen(STEP_FORWARD.name).then_some(false)
    }

    /// Measures whether an LSTM layer of `[steps, batch, hidden]` is faster as one dispatch a
    /// sequence or as one a time step, for graphs recorded from now on; `None` where there is
    /// no choice: on the CPU, on software devices (whose workgroup memory is slow), or where
    /// one invocation can't walk so far.
    ///
    /// # Errors
    /// Device errors.
    pub async fn tune_lstm_async(&self, sizes: [u32; 3], cifg: bool) -> Result<Option<Choice>> {
        let Backend::Gpu(gpu) = &*self.0 else { return Ok(None) };
        if self.profile().kind == Kind::Software {
            return Ok(None);
        }
        let choice = self.faster_walk(sizes, cifg).await?;
        if let Some(choice) = &choice {
            gpu.tuned().insert(choice.clone());
            gpu.tuned().save();
        }
        Ok(choice)
    }

    /// [`Device::tune_lstm_async`], waiting.
    ///
    /// # Errors
    /// As [`Device::tune_lstm_async`].
    #[cfg(feature = "blocking")]
    pub fn tune_lstm(&self, sizes: [u32; 3], cifg: bool) -> Result<Option<Choice>> {
        self.wait(self.tune_lstm_async(sizes, cifg))
    }

    pub(super) async fn faster_walk(&self, sizes: [u32; 3], cifg: bool) -> Result<Option<Choice>> {
        let mut whole = self.layer(sizes, cifg, true)?;
        let mut steps = self.layer(sizes, cifg, false)?;
        if whole.dispatches() == steps.dispatches() {
            return Ok(None);
        }
        let [whole, steps] = [seconds(&mut whole).await?, seconds(&mut steps).await?];
        let (kernel, seconds) = match whole < steps {
            true => (&SEQUENCE_FORWARD, [whole, steps]),
            false => (&STEP_FORWARD, [steps, whole]),
        };
        Ok(kernel.variants.first().map(|variant| Choice {
            kernel: kernel.name,
            class: class(sizes, cifg),
            variant: variant.name,
            source: Source::Measured,
            seconds: Some(seconds),
        }))
    }

    /// A layer with its backward pass.
    fn layer(&self, sizes: [u32; 3], cifg: bool, whole: bool) -> Result<Plan> {
        let [steps, batch, hidden] = sizes.map(|n| n as usize);
        let rows = gate_count(cifg.into()) * hidden;
        let init = Init::Uniform(1.0 / (hidden as f32).sqrt());
        let mut parameters = Parameters::new();
        let weights = LstmWeights {
            w_ih: parameters.add("w_ih", &[rows, hidden], init)?,
            w_hh: parameters.add("w_hh", &[rows, hidden], init)?,
            b_ih: parameters.add("b_ih", &[rows], init)?,
            b_hh: parameters.add("b_hh", &[rows], init)?,
            w_hr: None,
        };
        let arena = Arena::new(self, &parameters, &[1])?;
        let mut graph = Graph::new(&arena);
        let x = graph.input("x", &[steps, batch, hidden], Element::F32);
        let options = LstmOptions { cifg, ..Default::default() };
        let y = graph.lstm_walking(x, &[weights], &options, whole)?.y;
        let dy = graph.input("dy", &[steps, batch, hidden], Element::F32);
        Ok(graph.gradients(&[(y, dy)], &Trainable::All, &[])?.0)
    }
}

/// Median of seven runs, after two that warm up.
async fn seconds(plan: &mut Plan) -> Result<f64> {
    let mut times = Vec::new();
    for run in 0..9 {
        let start = Instant::now();
        plan.run_async(1).await?;
        if run > 1 {
            times.push(start.elapsed().as_secs_f64());
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
