//! Measuring variants: every candidate is checked against the CPU before it is timed.

use std::collections::BTreeMap;
use std::time::Duration;

use tern_shaders::kernels::lstm::{self, gate_count};
use tern_shaders::kernels::matmul;
use tern_shaders::{AnyKernel, Variant};

use super::{Choice, Source, class, left_row, right_row};
use crate::device::{Backend, Call, words};
use crate::ops::{Case, noise};
use crate::{Data, Device, Kind, Result};

/// Time for a candidate, after the runs that warm it up.
const BUDGET: Duration = Duration::from_millis(60);

/// How much faster than the untuned one a variant must be: less is noise.
const GAIN: f64 = 0.95;

impl Device {
    /// The choices of variants in force on this device: shipped, cached, or measured.
    pub fn choices(&self) -> Vec<Choice> {
        match &*self.0 {
            Backend::Gpu(gpu) => gpu.tuned().all(),
            _ => Vec::new(),
        }
    }

    /// Measures the variants for each class of sizes among the calls that has no choice yet,
    /// or for all of them with `again`, and keeps the choices.
    pub(crate) async fn tune_calls(&self, calls: &[Call], again: bool) -> Result<Vec<Choice>> {
        let Backend::Gpu(gpu) = &*self.0 else { return Ok(Vec::new()) };
        let mut classes: BTreeMap<(&'static str, String), &Call> = BTreeMap::new();
        for call in calls {
            if let Some(class) = class(call.kernel, &call.params) {
                classes.entry((call.kernel.name, class)).or_insert(call);
            }
        }
        if !again {
            classes.retain(|(kernel, class), _| gpu.tuned().get(kernel, class).is_none());
        }
        let mut choices = Vec::new();
        for ((_, class), call) in classes {
            let Some(case) = case(call.kernel, &call.params) else { continue };
            let untuned = gpu.variant(call)?;
            if let Some(choice) = self.fastest(&case, class, untuned).await? {
                gpu.tuned().insert(choice.clone());
                choices.push(choice);
            }
        }
        if !choices.is_empty() {
            gpu.tuned().save();
        }
        Ok(choices)
    }

    /// The fastest of the variants that compute the case right; `None` if there is no choice.
    async fn fastest(
        &self,
        case: &Case,
        class: String,
        untuned: &'static Variant,
    ) -> Result<Option<Choice>> {
        let Backend::Gpu(gpu) = &*self.0 else { return Ok(None) };
        let software = self.profile().kind == Kind::Software;
        let params = bytemuck::cast_slice(&case.params);
        let candidate = |v: &&Variant| {
            gpu.takes(v, params) && gpu.offers(v) && !(software && v.workgroup_memory)
        };
        let candidates: Vec<&Variant> = case.kernel.variants.iter().filter(candidate).collect();
        if candidates.len() < 2 {
            return Ok(None);
        }
        let expected = case.expected_of_cpu_async().await?;
        let mut best: Option<(&'static str, f64)> = None;
        let mut before = f64::INFINITY;
        // The untuned one first, which the others have to beat.
        let others = candidates.into_iter().filter(|v| v.name != untuned.name);
        for variant in [untuned].into_iter().chain(others) {
            let case = case.clone().variant(variant.name);
            if let Err(e) = case.check_against_async(self, &expected).await {
                log::warn!("{} ({}) is left out: {e}", case.kernel.name, variant.name);
                continue;
            }
            let seconds = case.time_async(self, BUDGET).await?.median;
            if variant.name == untuned.name {
                before = seconds;
            }
            let limit = best.map_or(f64::INFINITY, |(name, seconds)| {
                if name == untuned.name { GAIN * seconds } else { seconds }
            });
            if seconds < limit {
                best = Some((variant.name, seconds));
            }
        }
        let source = Source::Measured;
        let kernel = case.kernel.name;
        Ok(best.map(|(variant, seconds)| {
            let seconds = before.is_finite().then_some([seconds, before]);
            Choice { kernel, class, variant, source, seconds }
        }))
    }
}

/// A case of a call's sizes and alignment with one replica and operands of its own.
pub(super) fn case(kernel: &'static AnyKernel, params: &[u32]) -> Option<Case> {
    let bytes: &[u8] = bytemuck::cast_slice(params);
    let case = match kernel.name {
        "lstm/step_forward" => forward(kernel, bytemuck::try_from_bytes(bytes).ok()?),
        "lstm/step_backward" => backward(kernel, bytemuck::try_from_bytes(bytes).ok()?),
        _ => product(kernel, bytemuck::try_from_bytes(bytes).ok()?),
    };
    // The CPU and the variants each sum in an order of their own.
    Some(case.tolerance(2e-4))
}

fn product(kernel: &'static AnyKernel, call: &matmul::Gemm) -> Case {
    // Alignment is what offsets and strides matter for.
    let p = matmul::Gemm {
        a_offset: call.a_offset % 4,
        a_stride: call.a_stride % 4,
        b_offset: call.b_offset % 4,
        b_stride: call.b_stride % 4,
        c_offset: 0,
        c_stride: 0,
        bias_offset: 0,
        bias_stride: 0,
        ..*call
    };
    let (left, right) = (left_row(kernel, &p), right_row(kernel, &p));
    let a = p.a_offset + (p.m * p.k / left.max(1)) * p.a_row;
    let b = p.b_offset + (p.n * p.k / right.max(1)) * p.b_row;
    let operand = |elements: u32, key: u32| match kernel.bindings[0].element {
        // Packed halves, each below 1: sign and exponent bits that make no infinity.
        tern_shaders::Element::U32 => {
            match crate::ops::codes(elements as usize / 2, 1 << 30, key) {
                Data::U32(words) => Data::U32(words.into_iter().map(|w| w & 0xbbff_bbff).collect()),
                floats => floats,
            }
        }
        tern_shaders::Element::F32 => noise(elements as usize, 1.0, key),
    };
    let floats = |n: u32, key: u32| noise(n as usize, 1.0, key);
    let buffers =
        vec![operand(a, 1), operand(b, 2), floats(p.n, 3), floats(p.splits * p.m * p.c_row, 4)];
    let label = format!("{} × {} × {}", p.m, p.n, p.k);
    Case::of_words(kernel, label, words(&p), 1, buffers)
}

/// Words of weights and biases, and where the biases start.
fn weights(hidden: usize, width: usize) -> (u32, u32) {
    let bias = (width * hidden).next_multiple_of(64);
    (bias as u32, (bias + width) as u32)
}

fn recurrent(words: u32, hidden: u32) -> Data {
    noise(words as usize, 1.0 / (hidden as f32).sqrt(), 1)
}

fn forward(kernel: &'static AnyKernel, call: &lstm::Forward) -> Case {
    let (batch, hidden) = (call.batch as usize, call.hidden as usize);
    let width = gate_count(call.cifg) * hidden;
    let (b_offset, stride) = weights(hidden, width);
    let p = lstm::Forward { t: 0, steps: 1, w_offset: 0, b_offset, stride, ..*call };
    let state = batch * hidden;
    let mut buffers = vec![recurrent(stride, call.hidden)];
    let lengths = [2 * state, 2 * state, batch * width, state];
    buffers.extend(lengths.iter().enumerate().map(|(i, n)| noise(*n, 1.0, i as u32 + 2)));
    let label = format!("batch {batch}, hidden {hidden}");
    Case::of_words(kernel, label, words(&p), 1, buffers)
}

fn backward(kernel: &'static AnyKernel, call: &lstm::Backward) -> Case {
    let (batch, hidden) = (call.batch as usize, call.hidden as usize);
    let width = gate_count(call.cifg) * hidden;
    let (_, stride) = weights(hidden, width);
    // Of two steps, the first has the product with the weights.
    let p = lstm::Backward { t: 0, steps: 2, w_offset: 0, stride, ..*call };
    let state = batch * hidden;
    let gates = 2 * batch * width;
    let lengths = [gates, 3 * state, 2 * state, state, state, gates, state];
    let mut buffers = vec![recurrent(stride, call.hidden)];
    buffers.extend(lengths.iter().enumerate().map(|(i, n)| noise(*n, 1.0, i as u32 + 2)));
    let label = format!("batch {batch}, hidden {hidden}");
    Case::of_words(kernel, label, words(&p), 1, buffers)
}
