//! Rows of the GRU: the char-LSTM's sizes, batch 10, 256 hidden units.

use tern_shaders::kernels::gru::{
    Backward, Forward, GATES, SEQUENCE_BACKWARD, SEQUENCE_FORWARD, STEP_BACKWARD, STEP_FORWARD,
};

use super::Size;
use super::network::recurrent;
use super::recipe::{Recipe, case};

/// Rows of this family.
pub fn rows(size: Size) -> Vec<Recipe> {
    let (batch, hidden, gates) = (10, 256, GATES * 256);
    let long = size.pick(4, 80);
    let stride = (gates * hidden + gates) as u32;
    let mut cases = Vec::new();
    // Of two steps, the first has all there is to compute, forward and backward.
    for (steps, of, forward, backward) in
        [(1, 2, &STEP_FORWARD, &STEP_BACKWARD), (long, long, &SEQUENCE_FORWARD, &SEQUENCE_BACKWARD)]
    {
        let label = format!("{steps} of {of} steps, batch {batch}, hidden {hidden}");
        let flops = (2 * steps * batch * hidden * gates) as u64;
        let steps = of;
        let (states, outputs, all_gates) =
            ((steps + 1) * batch * hidden, steps * batch * hidden, steps * batch * gates);
        let p = Forward {
            steps: steps as u32,
            batch: batch as u32,
            hidden: hidden as u32,
            b_offset: (gates * hidden) as u32,
            stride,
            ..Forward::default()
        };
        let weights = stride as usize;
        let lengths = [weights, states, all_gates, outputs, outputs];
        cases.push(case(forward, &label, &p, recurrent(forward, &lengths)).flops(flops));
        let p = Backward {
            t: 0,
            steps: steps as u32,
            batch: batch as u32,
            hidden: hidden as u32,
            stride,
            has_dy: 1,
            ..Backward::default()
        };
        let state = batch * hidden;
        let lengths = [weights, all_gates, outputs, states, outputs, all_gates, all_gates, state];
        cases.push(case(backward, &label, &p, recurrent(backward, &lengths)).flops(flops));
    }
    cases
}
