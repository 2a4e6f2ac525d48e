//! One layer: its shapes, its forward calls and its backward calls.

use tern_shaders::Element;
use tern_shaders::kernels::lstm::{
    Backward as BackwardParams, Forward, SEQUENCE_BACKWARD, SEQUENCE_FORWARD, STATE_BACKWARD,
    STATE_LOAD, STATE_STORE, STEP_BACKWARD, STEP_FORWARD, State, StateBackward, gate_count,
};

use super::LstmWeights;
use super::projection::Projection;
use crate::ops::recurrent::Sizes;
use crate::{Backward, Flat, Graph, Operand, Result, Tensor};

/// One layer's sizes and tensors, as its backward pass needs them.
#[derive(Clone)]
pub(super) struct Layer {
    pub weights: LstmWeights,
    sizes: Sizes,
    cifg: bool,
    /// Whether one dispatch walks the sequence.
    whole: bool,
    x: Tensor,
    /// h and c of the units before the first step.
    initial: Option<(Tensor, Tensor)>,
    projection: Option<Projection>,
    /// Sums of the input products at first, then the activated gates.
    gates: Tensor,
    hs: Tensor,
    cs: Tensor,
    pub y: Tensor,
    pub h: Tensor,
    pub c: Tensor,
}

impl Layer {
    /// Checks the shapes and makes the tensors.
    pub fn new(
        graph: &mut Graph,
        x: Tensor,
        weights: &LstmWeights,
        initial: Option<(Tensor, Tensor)>,
        cifg: bool,
        whole: bool,
    ) -> Result<Self> {
        let of = (weights.all(), gate_count(cifg.into()));
        let sizes = Sizes::of(graph, "lstm", x, of, weights.w_hr.as_ref())?;
        let Sizes { steps, batch, hidden, state, .. } = sizes;
        if let Some((h, c)) = initial {
            sizes.check_state(graph, "lstm", h, state)?;
            sizes.check_state(graph, "lstm", c, hidden)?;
        }
        let (projection, initial) = match &weights.w_hr {
            Some(w_hr) => {
                let h = initial.map(|(h, _)| h);
                // What the units put out before is projected already.
                let initial = initial.map(|(_, c)| (graph.constant(0.0, &[batch, hidden]), c));
                (Some(Projection::new(graph, sizes, w_hr, h)), initial)
            }
            None => (None, initial),
        };
        let mut make = |label: &str, shape: &[usize]| graph.tensor(label, shape, Element::F32);
        let mut layer = Layer {
            weights: weights.clone(),
            sizes,
            cifg,
            whole,
            x,
            initial,
            projection,
            gates: make("gates", &[steps, batch, sizes.width()]),
            hs: make("hidden states", &[steps + 1, batch, hidden]),
            cs: make("cell states", &[steps + 1, batch, hidden]),
            y: make("outputs", &[steps, batch, hidden]),
            h: make("last hidden state", &[batch, hidden]),
            c: make("last cell state", &[batch, hidden]),
        };
        layer.whole = whole && graph.computes(&SEQUENCE_FORWARD, &layer.forward_params(graph));
        Ok(layer)
    }

    /// Where the kernels read the recurrent weights and biases: the operand, the two offsets, and from
    /// replica to replica.
    fn recurrent(&self, graph: &Graph) -> (Operand, [u32; 2], u32) {
        match &self.projection {
            Some(projection) => projection.recurrent(),
            None => (
                Operand::Flat(Flat::Parameters),
                [&self.weights.w_hh, &self.weights.b_hh].map(|param| param.offset as u32),
                graph.parameter_stride() as u32,
            ),
        }
    }

    fn forward_params(&self, graph: &Graph) -> Forward {
        let (_, [w_offset, b_offset], stride) = self.recurrent(graph);
        Forward {
            t: 0,
            steps: self.sizes.steps as u32,
            batch: self.sizes.batch as u32,
            hidden: self.sizes.hidden as u32,
            cifg: self.cifg.into(),
            w_offset,
            b_offset,
            stride,
        }
    }

    pub fn forward(&self, graph: &mut Graph) {
        self.sizes.input_product(graph, self.weights.all(), self.x, self.gates);
        if let Some(projection) = &self.projection {
            projection.forward(graph, &self.weights, self.gates);
        }
        let n = (self.sizes.batch * self.sizes.hidden) as u32;
        let state =
            State { n, steps: self.sizes.steps as u32, zero: self.initial.is_none().into() };
        // Without initial states nothing of the two is read.
        let (h, c) = self.initial.unwrap_or((self.gates, self.gates));
        let args = [h.into(), c.into(), self.hs.into(), self.cs.into()];
        graph.dispatch(&STATE_LOAD, &state, &args);
        let (weights, ..) = self.recurrent(graph);
        let args = [weights, self.hs.into(), self.cs.into(), self.gates.into(), self.y.into()];
        let params = self.forward_params(graph);
        if self.whole {
            graph.dispatch(&SEQUENCE_FORWARD, &params, &args);
        } else {
            for t in 0..params.steps {
                graph.dispatch(&STEP_FORWARD, &Forward { t, ..params }, &args);
            }
        }
        let args = [self.hs.into(), self.cs.into(), self.h.into(), self.c.into()];
        graph.dispatch(&STATE_STORE, &state, &args);
    }

    pub fn backward(&self, b: &mut Backward<'_>) {
        let upstream = [self.y, self.h, self.c].map(|t| b.gradient(t));
        let dgates = b.tensor(
            "d gates",
            &[self.sizes.steps, self.sizes.batch, self.sizes.width()],
            Element::F32,
        );
        let carried =
            b.tensor("d cell state", &[self.sizes.batch, self.sizes.hidden], Element::F32);
        let [has_dy, has_dh, has_dc] = upstream.map(|d| u32::from(d.is_some()));
        // An absent gradient is not read; its binding still needs a buffer that isn't written.
        let [dy, dh, dc] = upstream.map(|d| d.unwrap_or(self.gates).into());
        let (weights, [w_offset, _], stride) = self.recurrent(b);
        let params = BackwardParams {
            t: 0,
            steps: self.sizes.steps as u32,
            batch: self.sizes.batch as u32,
            hidden: self.sizes.hidden as u32,
            cifg: self.cifg.into(),
            w_offset,
            stride,
            has_dy,
            has_dh,
            has_dc,
        };
        let args =
            [weights, self.gates.into(), self.cs.into(), dy, dh, dc, dgates.into(), carried.into()];
        if self.whole && b.computes(&SEQUENCE_BACKWARD, &params) {
            b.dispatch(&SEQUENCE_BACKWARD, &params, &args);
        } else {
            for t in (0..params.steps).rev() {
                b.dispatch(&STEP_BACKWARD, &BackwardParams { t, ..params }, &args);
            }
        }
        self.state_backward(b, &params, dgates, carried);
        let all = self.weights.all();
        match &self.projection {
            Some(projection) => {
                self.sizes.around_backward(b, all, self.x, [dgates; 2]);
                projection.backward(b, &self.weights, self.hs, dgates);
            }
            None => self.sizes.products_backward(b, all, (self.x, self.hs), [dgates; 2]),
        }
    }

    /// Gradients of the initial state, for whoever wants them.
    fn state_backward(
        &self,
        b: &mut Backward<'_>,
        p: &BackwardParams,
        dgates: Tensor,
        carried: Tensor,
    ) {
        let Some((h, c)) = self.initial else { return };
        let (dh, dc) = (b.target(h), b.target(c));
        if dh.is_none() && dc.is_none() {
            return;
        }
        let mut or_unused = |target: Option<(Tensor, u32)>| {
            let shape = [self.sizes.batch, self.sizes.hidden];
            target.unwrap_or_else(|| (b.tensor("unused", &shape, Element::F32), 0))
        };
        let ((dh, accumulate_h), (dc, accumulate_c)) = (or_unused(dh), or_unused(dc));
        let params = StateBackward {
            steps: p.steps,
            batch: p.batch,
            hidden: p.hidden,
            cifg: p.cifg,
            w_offset: p.w_offset,
            stride: p.stride,
            accumulate_h,
            accumulate_c,
        };
        let (weights, ..) = self.recurrent(b);
        let args = [weights, dgates.into(), carried.into(), dh.into(), dc.into()];
        b.dispatch(&STATE_BACKWARD, &params, &args);
    }
}
