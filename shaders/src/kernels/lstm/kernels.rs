//! The GPU side: every kernel of the family with its variants.
//!
//! The `coupled` variants compute the CIFG cell: the number of gates is a constant in WGSL,
//! so that a gate's sums stay in registers.

use super::{
    Backward, Forward, State, StateBackward, gate_count, sequence_backward, sequence_forward,
    state_backward, state_load, state_store, step_backward, step_forward,
};
use crate::{AnyKernel, Variant, kernel, linear_grid};

/// Whether rows of the hidden size can be read four elements at a time; parameters start at
/// multiples of 64 words.
fn wide(hidden: u32) -> bool {
    hidden.is_multiple_of(4)
}

/// Whether a large row tile pays off; a small one wastes less of a small batch.
fn many(batch: u32) -> bool {
    batch > 4
}

/// Whether one workgroup can walk the sequence: an invocation a unit.
fn walks(hidden: u32) -> bool {
    hidden <= 256
}

/// Iterations of the loops over steps and, in each, over a row of weights.
fn walk(steps: u32, row: u32) -> u64 {
    u64::from(steps) * (u64::from(row) + 2)
}

/// Iterations of the longest sum of a step, over all gates; the other variants take fewer.
fn over_gates(hidden: u32) -> u64 {
    4 * u64::from(hidden)
}

/// Workgroups where a workgroup computes `units` units in the variant's `ROWS` rows.
fn tiles(hidden: u32, units: u32, batch: u32, v: &Variant) -> [u32; 2] {
    [hidden.div_ceil(units), batch.div_ceil(v.constant("ROWS"))]
}

/// A kernel of one time step. `split`: many small workgroups that split the sum over k, for
/// hardware. `tile` and `scalar`: register tiles of `$wides` Wide elements an invocation, for
/// software devices.
macro_rules! step_kernel {
    (
        $(#[$meta:meta])*
        $id:ident = $name:literal, $params:ty;
        bindings: $bindings:tt;
        reference: $reference:path;
        split: $split:literal, $units:literal units, $lanes:literal lanes;
        tile: $tile:literal, $wides:literal wides;
    ) => {
        kernel! {
            $(#[$meta])*
            $id = $name, $params;
            bindings: $bindings;
            reference: $reference;
            variants: [
            {
                name: "split",
                source: $split,
                preludes: [SQUASH, LSTM],
                consts: [CIFG = 0, ROWS = 8, UNITS = $units, LANES = $lanes],
                workgroup_memory: true,
                fits: |p| p.cifg == 0,
                iterations: |p, _| over_gates(p.hidden),
                grid: |p, v| tiles(p.hidden, v.constant("UNITS"), p.batch, v),
            },
            {
                name: "split_coupled",
                source: $split,
                preludes: [SQUASH, LSTM],
                consts: [CIFG = 1, ROWS = 8, UNITS = $units, LANES = $lanes],
                workgroup_memory: true,
                fits: |p| p.cifg == 1,
                iterations: |p, _| over_gates(p.hidden),
                grid: |p, v| tiles(p.hidden, v.constant("UNITS"), p.batch, v),
            },
            {
                name: "tile10",
                source: $tile,
                preludes: [WIDE4, SQUASH, LSTM],
                consts: [CIFG = 0, ROWS = 10, GROUP = 8],
                software: true,
                fits: |p| p.cifg == 0 && wide(p.hidden) && many(p.batch),
                iterations: |p, _| over_gates(p.hidden),
                grid: |p, v| tiles(p.hidden, 4 * $wides * v.constant("GROUP"), p.batch, v),
            },
            {
                name: "tile10_coupled",
                source: $tile,
                preludes: [WIDE4, SQUASH, LSTM],
                consts: [CIFG = 1, ROWS = 10, GROUP = 8],
                software: true,
                fits: |p| p.cifg == 1 && wide(p.hidden) && many(p.batch),
                iterations: |p, _| over_gates(p.hidden),
                grid: |p, v| tiles(p.hidden, 4 * $wides * v.constant("GROUP"), p.batch, v),
            },
            {
                name: "tile4",
                source: $tile,
                preludes: [WIDE4, SQUASH, LSTM],
                consts: [CIFG = 0, ROWS = 4, GROUP = 8],
                software: true,
                fits: |p| p.cifg == 0 && wide(p.hidden),
                iterations: |p, _| over_gates(p.hidden),
                grid: |p, v| tiles(p.hidden, 4 * $wides * v.constant("GROUP"), p.batch, v),
            },
            {
                name: "tile4_coupled",
                source: $tile,
                preludes: [WIDE4, SQUASH, LSTM],
                consts: [CIFG = 1, ROWS = 4, GROUP = 8],
                software: true,
                fits: |p| p.cifg == 1 && wide(p.hidden),
                iterations: |p, _| over_gates(p.hidden),
                grid: |p, v| tiles(p.hidden, 4 * $wides * v.constant("GROUP"), p.batch, v),
            },
            {
                name: "scalar",
                source: $tile,
                preludes: [WIDE1, SQUASH, LSTM],
                consts: [CIFG = 0, ROWS = 8, GROUP = 8],
                software: true,
                fits: |p| p.cifg == 0,
                iterations: |p, _| over_gates(p.hidden),
                grid: |p, v| tiles(p.hidden, $wides * v.constant("GROUP"), p.batch, v),
            },
            {
                name: "scalar_coupled",
                source: $tile,
                preludes: [WIDE1, SQUASH, LSTM],
                consts: [CIFG = 1, ROWS = 8, GROUP = 8],
                software: true,
                fits: |p| p.cifg == 1,
                iterations: |p, _| over_gates(p.hidden),
                grid: |p, v| tiles(p.hidden, $wides * v.constant("GROUP"), p.batch, v),
            }
            ];
        }
    };
}

step_kernel! {
    /// One time step forward.
    STEP_FORWARD = "lstm/step_forward", Forward;
    bindings: [weights: read f32, hs: write f32, cs: write f32, gates: write f32, y: write f32];
    reference: step_forward;
    split: "lstm/step_forward_split.wgsl", 4 units, 16 lanes;
    tile: "lstm/step_forward.wgsl", 1 wides;
}

step_kernel! {
    /// One time step backward.
    STEP_BACKWARD = "lstm/step_backward", Backward;
    bindings: [
        weights: read f32, gates: read f32, cs: read f32, dy: read f32, dh_last: read f32,
        dc_last: read f32, dgates: write f32, dc: write f32,
    ];
    reference: step_backward;
    split: "lstm/step_backward_split.wgsl", 8 units, 32 lanes;
    tile: "lstm/step_backward.wgsl", 2 wides;
}

kernel! {
    /// All time steps forward in one dispatch, where H is small enough for one workgroup.
    SEQUENCE_FORWARD = "lstm/sequence_forward", Forward;
    bindings: [weights: read f32, hs: write f32, cs: write f32, gates: write f32, y: write f32];
    reference: sequence_forward;
    variants: [{
        name: "wide",
        source: "lstm/sequence_forward.wgsl",
        preludes: [WIDE4, SQUASH, LSTM],
        consts: [CIFG = 0, GROUP = 256],
        workgroup_memory: true,
        fits: |p| p.cifg == 0 && wide(p.hidden) && walks(p.hidden),
        iterations: |p, _| walk(p.steps, p.hidden / 4),
        grid: |p, _| [p.batch.div_ceil(2), 1],
    }, {
        name: "wide_coupled",
        source: "lstm/sequence_forward.wgsl",
        preludes: [WIDE4, SQUASH, LSTM],
        consts: [CIFG = 1, GROUP = 256],
        workgroup_memory: true,
        fits: |p| p.cifg == 1 && wide(p.hidden) && walks(p.hidden),
        iterations: |p, _| walk(p.steps, p.hidden / 4),
        grid: |p, _| [p.batch.div_ceil(2), 1],
    }, {
        name: "scalar",
        source: "lstm/sequence_forward.wgsl",
        preludes: [WIDE1, SQUASH, LSTM],
        consts: [CIFG = 0, GROUP = 256],
        workgroup_memory: true,
        fits: |p| p.cifg == 0 && walks(p.hidden),
        iterations: |p, _| walk(p.steps, p.hidden),
        grid: |p, _| [p.batch.div_ceil(2), 1],
    }, {
        name: "scalar_coupled",
        source: "lstm/sequence_forward.wgsl",
        preludes: [WIDE1, SQUASH, LSTM],
        consts: [CIFG = 1, GROUP = 256],
        workgroup_memory: true,
        fits: |p| p.cifg == 1 && walks(p.hidden),
        iterations: |p, _| walk(p.steps, p.hidden),
        grid: |p, _| [p.batch.div_ceil(2), 1],
    }];
}

kernel! {
    /// All time steps backward in one dispatch, where H is small enough for one workgroup.
    SEQUENCE_BACKWARD = "lstm/sequence_backward", Backward;
    bindings: [
        weights: read f32, gates: read f32, cs: read f32, dy: read f32, dh_last: read f32,
        dc_last: read f32, dgates: write f32, dc: write f32,
    ];
    reference: sequence_backward;
    variants: [{
        name: "plain",
        source: "lstm/sequence_backward.wgsl",
        preludes: [SQUASH, LSTM],
        consts: [CIFG = 0, GROUP = 256],
        workgroup_memory: true,
        fits: |p| p.cifg == 0 && walks(p.hidden),
        iterations: |p, _| walk(p.steps, p.hidden),
        grid: |p, _| [p.batch.div_ceil(2), 1],
    }, {
        name: "plain_coupled",
        source: "lstm/sequence_backward.wgsl",
        preludes: [SQUASH, LSTM],
        consts: [CIFG = 1, GROUP = 256],
        workgroup_memory: true,
        fits: |p| p.cifg == 1 && walks(p.hidden),
        iterations: |p, _| walk(p.steps, p.hidden),
        grid: |p, _| [p.batch.div_ceil(2), 1],
    }];
}

kernel! {
    /// Initial state into slot 0.
    STATE_LOAD = "lstm/state_load", State;
    bindings: [h: read f32, c: read f32, hs: write f32, cs: write f32];
    reference: state_load;
    variants: [{
        name: "plain",
        source: "lstm/state_load.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// Final state out of slot T.
    STATE_STORE = "lstm/state_store", State;
    bindings: [hs: read f32, cs: read f32, h: write f32, c: write f32];
    reference: state_store;
    variants: [{
        name: "plain",
        source: "lstm/state_store.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// Gradients of the initial state.
    STATE_BACKWARD = "lstm/state_backward", StateBackward;
    bindings: [weights: read f32, dgates: read f32, dc: read f32, dh0: write f32, dc0: write f32];
    reference: state_backward;
    variants: [{
        name: "plain",
        source: "lstm/state_backward.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        iterations: |p, _| gate_count(p.cifg) as u64 * u64::from(p.hidden),
        grid: |p, v| linear_grid((p.batch * p.hidden) as usize, v.constant("GROUP")),
    }];
}

/// Kernels of this family.
pub static KERNELS: &[&AnyKernel] = &[
    STEP_FORWARD.any(),
    STEP_BACKWARD.any(),
    SEQUENCE_FORWARD.any(),
    SEQUENCE_BACKWARD.any(),
    STATE_LOAD.any(),
    STATE_STORE.any(),
    STATE_BACKWARD.any(),
];
