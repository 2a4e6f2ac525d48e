//! Long short-term memory: the recurrent part of one layer, forward and backward.
//!
//! Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000; weights, gate
//! order (i f g o) and the two biases as in `torch.nn.LSTM`:
//!
//! ```text
//! i = σ(pre_i + (W_hh h + b_hh)_i)    f = σ(…_f)    g = tanh(…_g)    o = σ(…_o)
//! c' = f ⊙ c + i ⊙ g                  h' = o ⊙ tanh(c')
//! ```
//!
//! The coupled variant (CIFG; Greff et al., "LSTM: A Search Space Odyssey", 2017) has
//! f = 1 − i and three gates in the order i g o.
//!
//! `pre = x·W_ihᵀ + b_ih` of all time steps is one matrix product of the matmul family;
//! the kernels here overwrite it with the activated gates, which the backward pass reads and
//! leaves as they are, so that it can run again on the same activations. `W_hh` `[G·H, H]`
//! and `b_hh` `[G·H]` lie in the flat parameter buffer (G = 4, coupled 3).
//!
//! Sequences are time-major. `hs` and `cs` `[R, T+1, B, H]` hold the initial state in slot 0
//! and the state after step t in slot t + 1.
//!
//! ```
//! use tern_shaders::kernels::lstm::{Forward, sequence_forward};
//! // One unit, one row, two steps; W_hh is zero, so that each step sees its input alone.
//! let p = Forward { steps: 2, batch: 1, hidden: 1, b_offset: 4, stride: 8, ..Default::default() };
//! let (weights, mut hs, mut cs) = ([0.0f64; 8], [0.0; 3], [0.0; 3]);
//! // i, f, g, o before activation: all open, the second step closed for what is new.
//! let mut gates = [30.0, 30.0, 30.0, 30.0, -30.0, 30.0, 30.0, 30.0];
//! let mut y = [0.0; 2];
//! sequence_forward(&p, 1, &weights, &mut hs, &mut cs, &mut gates, &mut y);
//! // The cell takes 1 in and keeps it.
//! assert!(cs.iter().zip([0.0, 1.0, 1.0]).all(|(c, expected)| (c - expected).abs() < 1e-9));
//! assert!(y.iter().all(|y| (y - 1f64.tanh()).abs() < 1e-9));
//! ```

mod kernels;

pub use kernels::{
    KERNELS, SEQUENCE_BACKWARD, SEQUENCE_FORWARD, STATE_BACKWARD, STATE_LOAD, STATE_STORE,
    STEP_BACKWARD, STEP_FORWARD,
};

use crate::{Real, params, sigmoid};

params!(
    /// Parameters of [`STEP_FORWARD`] and, which ignores `t`, of [`SEQUENCE_FORWARD`].
    Forward {
        /// The time step to compute.
        t: u32,
        /// Time steps T.
        steps: u32,
        /// Rows B.
        batch: u32,
        /// Hidden size H.
        hidden: u32,
        /// 1: coupled input and forget gates, G = 3.
        cifg: u32,
        /// First word of `W_hh` in a replica's parameters.
        w_offset: u32,
        /// First word of `b_hh`.
        b_offset: u32,
        /// Words of a replica's parameters.
        stride: u32,
    }
);

params!(
    /// Parameters of [`STEP_BACKWARD`] and, which ignores `t`, of [`SEQUENCE_BACKWARD`].
    Backward {
        /// The time step to compute; steps run from T − 1 down to 0.
        t: u32,
        /// Time steps T.
        steps: u32,
        /// Rows B.
        batch: u32,
        /// Hidden size H.
        hidden: u32,
        /// 1: coupled input and forget gates, G = 3.
        cifg: u32,
        /// First word of `W_hh` in a replica's parameters.
        w_offset: u32,
        /// Words of a replica's parameters.
        stride: u32,
        /// 1 if `dy` is an upstream gradient; 0: zero, and `dy` is not read.
        has_dy: u32,
        /// The same of `dh_last`.
        has_dh: u32,
        /// The same of `dc_last`.
        has_dc: u32,
    }
);

params!(
    /// Parameters of [`STATE_LOAD`] and [`STATE_STORE`].
    State {
        /// Elements of a state: B·H.
        n: u32,
        /// Time steps T.
        steps: u32,
        /// 1: load zeros, and the inputs are not read. Ignored by the store.
        zero: u32,
    }
);

params!(
    /// Parameters of [`STATE_BACKWARD`].
    StateBackward {
        /// Time steps T.
        steps: u32,
        /// Rows B.
        batch: u32,
        /// Hidden size H.
        hidden: u32,
        /// 1: coupled input and forget gates, G = 3.
        cifg: u32,
        /// First word of `W_hh` in a replica's parameters.
        w_offset: u32,
        /// Words of a replica's parameters.
        stride: u32,
        /// 1 adds to `dh0`, 0 overwrites it.
        accumulate_h: u32,
        /// 1 adds to `dc0`, 0 overwrites it.
        accumulate_c: u32,
    }
);

/// Gates of a cell: 4, or 3 with coupled input and forget gates.
pub fn gate_count(cifg: u32) -> usize {
    if cifg != 0 { 3 } else { 4 }
}

/// Positions of g and o among a cell's gates; i is 0, and f, where there is one, is 1.
fn positions(cifg: u32) -> (usize, usize) {
    if cifg != 0 { (1, 2) } else { (2, 3) }
}

/// One time step: activates `gates[t]` in place and writes `cs[t+1]`, `hs[t+1]` and `y[t]`.
///
/// Shapes: `hs`, `cs` `[R, T+1, B, H]`, `gates` `[R, T, B, G·H]`, `y` `[R, T, B, H]`,
/// `weights` the flat parameters `[R, stride]`.
pub fn step_forward<F: Real>(
    p: &Forward,
    replicas: usize,
    weights: &[F],
    hs: &mut [F],
    cs: &mut [F],
    gates: &mut [F],
    y: &mut [F],
) {
    let (t, steps, batch, hidden) =
        (p.t as usize, p.steps as usize, p.batch as usize, p.hidden as usize);
    let width = gate_count(p.cifg) * hidden;
    let (at_g, at_o) = positions(p.cifg);
    for r in 0..replicas {
        let flat = &weights[r * p.stride as usize..];
        let (w, bias) = (&flat[p.w_offset as usize..], &flat[p.b_offset as usize..]);
        for b in 0..batch {
            let before = ((r * (steps + 1) + t) * batch + b) * hidden;
            let after = before + batch * hidden;
            let row = ((r * steps + t) * batch + b) * width;
            for q in 0..width {
                let mut sum = F::zero();
                for k in 0..hidden {
                    sum += w[q * hidden + k] * hs[before + k];
                }
                gates[row + q] += sum + bias[q];
            }
            for j in 0..hidden {
                let i = sigmoid(gates[row + j]);
                let g = gates[row + at_g * hidden + j].tanh();
                let o = sigmoid(gates[row + at_o * hidden + j]);
                let f = if p.cifg != 0 { F::one() - i } else { sigmoid(gates[row + hidden + j]) };
                let c = f * cs[before + j] + i * g;
                let h = o * c.tanh();
                gates[row + j] = i;
                if p.cifg == 0 {
                    gates[row + hidden + j] = f;
                }
                gates[row + at_g * hidden + j] = g;
                gates[row + at_o * hidden + j] = o;
                cs[after + j] = c;
                hs[after + j] = h;
                y[((r * steps + t) * batch + b) * hidden + j] = h;
            }
        }
    }
}

/// All time steps in order. Shapes as in [`step_forward`].
pub fn sequence_forward<F: Real>(
    p: &Forward,
    replicas: usize,
    weights: &[F],
    hs: &mut [F],
    cs: &mut [F],
    gates: &mut [F],
    y: &mut [F],
) {
    for t in 0..p.steps {
        step_forward(&Forward { t, ..*p }, replicas, weights, hs, cs, gates, y);
    }
}

/// One time step backward: from `dgates[t+1]` and the carried `dc` to `dgates[t]`, the
/// gradient of the gates before activation, and the next `dc`.
///
/// ```text
/// dh = dy[t] + dgates[t+1]·W_hh (last step: + dh_last)     dc += dh ⊙ o ⊙ (1 − tanh² c)
/// di = dc ⊙ g ⊙ i(1 − i)       df = dc ⊙ c[t−1] ⊙ f(1 − f)       dc ← dc ⊙ f
/// dg = dc ⊙ i ⊙ (1 − g²)       do = dh ⊙ tanh c ⊙ o(1 − o)
/// ```
///
/// Coupled: di = dc ⊙ (g − c[t−1]) ⊙ i(1 − i). After step 0 `dc` is the gradient of the
/// initial cell state.
///
/// Shapes: `gates`, `dgates` `[R, T, B, G·H]`, `cs` `[R, T+1, B, H]`, `dy` `[R, T, B, H]`,
/// `dh_last`, `dc_last`, `dc` `[R, B, H]`.
pub fn step_backward<F: Real>(
    p: &Backward,
    replicas: usize,
    weights: &[F],
    gates: &[F],
    cs: &[F],
    dy: &[F],
    dh_last: &[F],
    dc_last: &[F],
    dgates: &mut [F],
    dc: &mut [F],
) {
    let (t, steps, batch, hidden) =
        (p.t as usize, p.steps as usize, p.batch as usize, p.hidden as usize);
    let width = gate_count(p.cifg) * hidden;
    let (at_g, at_o) = positions(p.cifg);
    let one = F::one();
    for r in 0..replicas {
        let w = &weights[r * p.stride as usize + p.w_offset as usize..];
        for b in 0..batch {
            let state = (r * batch + b) * hidden;
            let before = ((r * (steps + 1) + t) * batch + b) * hidden;
            let after = before + batch * hidden;
            let row = ((r * steps + t) * batch + b) * width;
            for j in 0..hidden {
                let mut dh = F::zero();
                let mut dcell = F::zero();
                if t + 1 < steps {
                    let next = row + batch * width;
                    for k in 0..width {
                        dh += dgates[next + k] * w[k * hidden + j];
                    }
                    dcell = dc[state + j];
                } else {
                    if p.has_dh != 0 {
                        dh = dh_last[state + j];
                    }
                    if p.has_dc != 0 {
                        dcell = dc_last[state + j];
                    }
                }
                if p.has_dy != 0 {
                    dh += dy[((r * steps + t) * batch + b) * hidden + j];
                }
                let (i, g) = (gates[row + j], gates[row + at_g * hidden + j]);
                let o = gates[row + at_o * hidden + j];
                let squashed = cs[after + j].tanh();
                dcell += dh * o * (one - squashed * squashed);
                let previous = cs[before + j];
                let f = if p.cifg != 0 { one - i } else { gates[row + hidden + j] };
                if p.cifg != 0 {
                    dgates[row + j] = dcell * (g - previous) * i * (one - i);
                } else {
                    dgates[row + j] = dcell * g * i * (one - i);
                    dgates[row + hidden + j] = dcell * previous * f * (one - f);
                }
                dgates[row + at_g * hidden + j] = dcell * i * (one - g * g);
                dgates[row + at_o * hidden + j] = dh * squashed * o * (one - o);
                dc[state + j] = dcell * f;
            }
        }
    }
}

/// All time steps from the last to the first. Shapes as in [`step_backward`].
pub fn sequence_backward<F: Real>(
    p: &Backward,
    replicas: usize,
    weights: &[F],
    gates: &[F],
    cs: &[F],
    dy: &[F],
    dh_last: &[F],
    dc_last: &[F],
    dgates: &mut [F],
    dc: &mut [F],
) {
    for t in (0..p.steps).rev() {
        let p = Backward { t, ..*p };
        step_backward(&p, replicas, weights, gates, cs, dy, dh_last, dc_last, dgates, dc);
    }
}

/// Puts an initial state, or zeros, into slot 0. Shapes: `h`, `c` `[R, n]`, `hs`, `cs`
/// `[R, T+1, n]`.
pub fn state_load<F: Real>(
    p: &State,
    replicas: usize,
    h: &[F],
    c: &[F],
    hs: &mut [F],
    cs: &mut [F],
) {
    let (n, slots) = (p.n as usize, p.steps as usize + 1);
    for r in 0..replicas {
        for i in 0..n {
            let zero = p.zero != 0;
            hs[r * slots * n + i] = if zero { F::zero() } else { h[r * n + i] };
            cs[r * slots * n + i] = if zero { F::zero() } else { c[r * n + i] };
        }
    }
}

/// Copies the state after the last step out of slot T. Shapes as in [`state_load`].
pub fn state_store<F: Real>(
    p: &State,
    replicas: usize,
    hs: &[F],
    cs: &[F],
    h: &mut [F],
    c: &mut [F],
) {
    let (n, slots) = (p.n as usize, p.steps as usize + 1);
    for r in 0..replicas {
        for i in 0..n {
            h[r * n + i] = hs[(r * slots + slots - 1) * n + i];
            c[r * n + i] = cs[(r * slots + slots - 1) * n + i];
        }
    }
}

/// Gradients of the initial state after the backward step 0:
/// dh0 (+)= dgates\[0\]·W_hh, dc0 (+)= dc. Shapes: `dgates` `[R, T, B, G·H]`, the others
/// `[R, B, H]`.
pub fn state_backward<F: Real>(
    p: &StateBackward,
    replicas: usize,
    weights: &[F],
    dgates: &[F],
    dc: &[F],
    dh0: &mut [F],
    dc0: &mut [F],
) {
    let (steps, batch, hidden) = (p.steps as usize, p.batch as usize, p.hidden as usize);
    let width = gate_count(p.cifg) * hidden;
    for r in 0..replicas {
        let w = &weights[r * p.stride as usize + p.w_offset as usize..];
        for b in 0..batch {
            for j in 0..hidden {
                let at = (r * batch + b) * hidden + j;
                let mut dh = if p.accumulate_h != 0 { dh0[at] } else { F::zero() };
                for k in 0..width {
                    dh += dgates[(r * steps * batch + b) * width + k] * w[k * hidden + j];
                }
                dh0[at] = dh;
                dc0[at] = if p.accumulate_c != 0 { dc0[at] + dc[at] } else { dc[at] };
            }
        }
    }
}

#[cfg(test)]
mod tests;
