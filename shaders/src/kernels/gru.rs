//! Gated recurrent units: the recurrent part of one layer, forward and backward.
//!
//! Cho et al. 2014; weights, gate order (r z n) and the two biases as in `torch.nn.GRU`, whose reset
//! gate applies to the product and its bias:
//!
//! ```text
//! r = σ(pre_r + (W_hh h + b_hh)_r)    z = σ(pre_z + (…)_z)    q = (W_hh h + b_hh)_n
//! n = tanh(pre_n + r ⊙ q)             h' = n + z ⊙ (h − n)
//! ```
//!
//! `pre = x·W_ihᵀ + b_ih` of all time steps is one matrix product of the matmul family; the kernels
//! here overwrite it with the activated gates, which the backward pass reads with q and leaves as they
//! are. `W_hh` `[3·H, H]` and `b_hh` `[3·H]` lie in the flat parameter buffer.
//!
//! Sequences are time-major. `hs` `[R, T+1, B, H]` holds the initial state in slot 0 and the state after
//! step t in slot t + 1.
//!
//! ```
//! use tern_shaders::kernels::gru::{Forward, sequence_forward};
//! // One unit, one row, two steps; W_hh is zero, so that each step sees its input alone.
//! let p = Forward { steps: 2, batch: 1, hidden: 1, b_offset: 3, stride: 6, ..Default::default() };
//! let (weights, mut hs) = ([0.0f64; 6], [0.0; 3]);
//! // r, z, n before activation: the first step takes in what is new, the second keeps what was.
//! let mut gates = [0.0, -30.0, 30.0, 0.0, 30.0, -30.0];
//! let (mut recurrent, mut y) = ([0.0; 2], [0.0; 2]);
//! sequence_forward(&p, 1, &weights, &mut hs, &mut gates, &mut recurrent, &mut y);
//! assert!(y.iter().all(|y| (y - 1.0).abs() < 1e-9));
//! ```

use crate::{AnyKernel, Real, kernel, params, sigmoid};

/// Gates of a cell: r, z and n.
pub const GATES: usize = 3;

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
        /// First word of `W_hh` in a replica's parameters.
        w_offset: u32,
        /// Words of a replica's parameters.
        stride: u32,
        /// 1 if `dy` is an upstream gradient; 0: zero, and `dy` is not read.
        has_dy: u32,
    }
);

/// One time step: activates `gates[t]` in place and writes `recurrent[t]`, q, `hs[t+1]` and `y[t]`.
///
/// Shapes: `hs` `[R, T+1, B, H]`, `gates` `[R, T, B, 3·H]`, `recurrent`, `y` `[R, T, B, H]`, `weights`
/// the flat parameters `[R, stride]`.
pub fn step_forward<F: Real>(
    p: &Forward,
    replicas: usize,
    weights: &[F],
    hs: &mut [F],
    gates: &mut [F],
    recurrent: &mut [F],
    y: &mut [F],
) {
    let (t, steps, batch, hidden) =
        (p.t as usize, p.steps as usize, p.batch as usize, p.hidden as usize);
    for r in 0..replicas {
        let flat = &weights[r * p.stride as usize..];
        let (w, bias) = (&flat[p.w_offset as usize..], &flat[p.b_offset as usize..]);
        for b in 0..batch {
            let before = ((r * (steps + 1) + t) * batch + b) * hidden;
            let after = before + batch * hidden;
            let step = (r * steps + t) * batch + b;
            let row = step * GATES * hidden;
            for j in 0..hidden {
                let product = |q: usize| -> F {
                    let mut sum = bias[q * hidden + j];
                    for k in 0..hidden {
                        sum += w[(q * hidden + j) * hidden + k] * hs[before + k];
                    }
                    sum
                };
                let reset = sigmoid(gates[row + j] + product(0));
                let update = sigmoid(gates[row + hidden + j] + product(1));
                let q = product(2);
                let new = (gates[row + 2 * hidden + j] + reset * q).tanh();
                let h = new + update * (hs[before + j] - new);
                gates[row + j] = reset;
                gates[row + hidden + j] = update;
                gates[row + 2 * hidden + j] = new;
                recurrent[step * hidden + j] = q;
                hs[after + j] = h;
                y[step * hidden + j] = h;
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
    gates: &mut [F],
    recurrent: &mut [F],
    y: &mut [F],
) {
    for t in 0..p.steps {
        step_forward(&Forward { t, ..*p }, replicas, weights, hs, gates, recurrent, y);
    }
}

/// One time step backward: from `drecurrent[t+1]` and the carried gradient of the hidden state to
/// `dgates[t]`, the gradient of the gates before activation, `drecurrent[t]`, that of W_hh h + b_hh, and
/// the next carried one.
///
/// ```text
/// dh = carried + drecurrent[t+1]·W_hh + dy[t]
/// dn = dh ⊙ (1 − z) ⊙ (1 − n²)     dz = dh ⊙ (h[t−1] − n) ⊙ z(1 − z)     dr = dn ⊙ q ⊙ r(1 − r)
/// drecurrent = dr, dz, dn ⊙ r      carried ← dh ⊙ z
/// ```
///
/// Before step T − 1 `carried` is the gradient of the last hidden state, after step 0 that of the
/// initial one but for `drecurrent[0]·W_hh`.
///
/// Shapes: `gates`, `dgates`, `drecurrent` `[R, T, B, 3·H]`, `recurrent`, `dy` `[R, T, B, H]`, `hs`
/// `[R, T+1, B, H]`, `carried` `[R, B, H]`.
pub fn step_backward<F: Real>(
    p: &Backward,
    replicas: usize,
    weights: &[F],
    gates: &[F],
    recurrent: &[F],
    hs: &[F],
    dy: &[F],
    dgates: &mut [F],
    drecurrent: &mut [F],
    carried: &mut [F],
) {
    let (t, steps, batch, hidden) =
        (p.t as usize, p.steps as usize, p.batch as usize, p.hidden as usize);
    let (width, one) = (GATES * hidden, F::one());
    for r in 0..replicas {
        let w = &weights[r * p.stride as usize + p.w_offset as usize..];
        for b in 0..batch {
            let state = (r * batch + b) * hidden;
            let before = ((r * (steps + 1) + t) * batch + b) * hidden;
            let step = (r * steps + t) * batch + b;
            let row = step * width;
            for j in 0..hidden {
                let mut dh = carried[state + j];
                if t + 1 < steps {
                    for k in 0..width {
                        dh += drecurrent[row + batch * width + k] * w[k * hidden + j];
                    }
                }
                if p.has_dy != 0 {
                    dh += dy[step * hidden + j];
                }
                let [reset, update, new] = [0, 1, 2].map(|gate| gates[row + gate * hidden + j]);
                let dn = dh * (one - update) * (one - new * new);
                let dz = dh * (hs[before + j] - new) * update * (one - update);
                let dr = dn * recurrent[step * hidden + j] * reset * (one - reset);
                for (gate, (own, through)) in
                    [(dr, dr), (dz, dz), (dn, dn * reset)].iter().enumerate()
                {
                    dgates[row + gate * hidden + j] = *own;
                    drecurrent[row + gate * hidden + j] = *through;
                }
                carried[state + j] = dh * update;
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
    recurrent: &[F],
    hs: &[F],
    dy: &[F],
    dgates: &mut [F],
    drecurrent: &mut [F],
    carried: &mut [F],
) {
    for t in (0..p.steps).rev() {
        let p = Backward { t, ..*p };
        step_backward(&p, replicas, weights, gates, recurrent, hs, dy, dgates, drecurrent, carried);
    }
}

/// Whether rows of the hidden size can be read four elements at a time; parameters start at
/// multiples of 64 words.
fn wide(hidden: u32) -> bool {
    hidden.is_multiple_of(4)
}

/// Whether one workgroup can walk the sequence: an invocation a unit.
fn walks(hidden: u32) -> bool {
    hidden <= 256
}

/// Iterations of the loops over steps and, in each, over a row of weights.
fn walk(steps: u32, row: u32) -> u64 {
    u64::from(steps) * (u64::from(row) + 2)
}

kernel! {
    /// One time step forward.
    STEP_FORWARD = "gru/step_forward", Forward;
    bindings: [
        weights: read f32, hs: write f32, gates: write f32, recurrent: write f32, y: write f32,
    ];
    reference: step_forward;
    variants: [{
        name: "wide",
        source: "gru/step_forward.wgsl",
        preludes: [WIDE4, SQUASH, GRU],
        consts: [ROWS = 4, GROUP = 16],
        fits: |p| wide(p.hidden),
        iterations: |p, _| u64::from(p.hidden / 4),
        grid: |p, v| [p.hidden.div_ceil(4 * v.constant("GROUP")), p.batch.div_ceil(v.constant("ROWS"))],
    }, {
        name: "scalar",
        source: "gru/step_forward.wgsl",
        preludes: [WIDE1, SQUASH, GRU],
        consts: [ROWS = 4, GROUP = 16],
        iterations: |p, _| u64::from(p.hidden),
        grid: |p, v| [p.hidden.div_ceil(v.constant("GROUP")), p.batch.div_ceil(v.constant("ROWS"))],
    }];
}

kernel! {
    /// One time step backward.
    STEP_BACKWARD = "gru/step_backward", Backward;
    bindings: [
        weights: read f32, gates: read f32, recurrent: read f32, hs: read f32, dy: read f32,
        dgates: write f32, drecurrent: write f32, carried: write f32,
    ];
    reference: step_backward;
    variants: [{
        name: "wide",
        source: "gru/step_backward.wgsl",
        preludes: [WIDE4, SQUASH, GRU],
        consts: [ROWS = 4, GROUP = 16],
        fits: |p| wide(p.hidden),
        iterations: |p, _| u64::from(3 * p.hidden / 4),
        grid: |p, v| [p.hidden.div_ceil(4 * v.constant("GROUP")), p.batch.div_ceil(v.constant("ROWS"))],
    }, {
        name: "scalar",
        source: "gru/step_backward.wgsl",
        preludes: [WIDE1, SQUASH, GRU],
        consts: [ROWS = 4, GROUP = 16],
        iterations: |p, _| u64::from(3 * p.hidden),
        grid: |p, v| [p.hidden.div_ceil(v.constant("GROUP")), p.batch.div_ceil(v.constant("ROWS"))],
    }];
}

kernel! {
    /// All time steps forward in one dispatch, where H is small enough for one workgroup.
    SEQUENCE_FORWARD = "gru/sequence_forward", Forward;
    bindings: [
        weights: read f32, hs: write f32, gates: write f32, recurrent: write f32, y: write f32,
    ];
    reference: sequence_forward;
    variants: [{
        name: "wide",
        source: "gru/sequence_forward.wgsl",
        preludes: [WIDE4, SQUASH, GRU],
        consts: [GROUP = 256],
        workgroup_memory: true,
        fits: |p| wide(p.hidden) && walks(p.hidden),
        iterations: |p, _| walk(p.steps, p.hidden / 4),
        grid: |p, _| [p.batch.div_ceil(2), 1],
    }, {
        name: "scalar",
        source: "gru/sequence_forward.wgsl",
        preludes: [WIDE1, SQUASH, GRU],
        consts: [GROUP = 256],
        workgroup_memory: true,
        fits: |p| walks(p.hidden),
        iterations: |p, _| walk(p.steps, p.hidden),
        grid: |p, _| [p.batch.div_ceil(2), 1],
    }];
}

kernel! {
    /// All time steps backward in one dispatch, where H is small enough for one workgroup.
    SEQUENCE_BACKWARD = "gru/sequence_backward", Backward;
    bindings: [
        weights: read f32, gates: read f32, recurrent: read f32, hs: read f32, dy: read f32,
        dgates: write f32, drecurrent: write f32, carried: write f32,
    ];
    reference: sequence_backward;
    variants: [{
        name: "plain",
        source: "gru/sequence_backward.wgsl",
        preludes: [SQUASH, GRU],
        consts: [GROUP = 256],
        workgroup_memory: true,
        fits: |p| walks(p.hidden),
        iterations: |p, _| walk(p.steps, p.hidden),
        grid: |p, _| [p.batch.div_ceil(2), 1],
    }];
}

/// Kernels of this family.
pub static KERNELS: &[&AnyKernel] =
    &[STEP_FORWARD.any(), STEP_BACKWARD.any(), SEQUENCE_FORWARD.any(), SEQUENCE_BACKWARD.any()];

#[cfg(test)]
mod tests;
