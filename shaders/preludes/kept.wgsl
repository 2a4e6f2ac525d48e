// Whether dropout keeps element i of a replica; needs random, state, and the dropout
// kernels' parameters and state buffer.
fn kept(replica: u32, i: u32) -> bool {
    let record = replica * STATE_WORDS;
    let key = vec4<u32>(i, state[record + STATE_STEP], p.operation, state[record + STATE_SEED]);
    return pcg4d(key).x >= p.threshold;
}
