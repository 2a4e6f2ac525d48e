// After a training step: its loss goes to the ring, then the record moves on to the next step.
// One invocation a replica. Shapes: state [R, 64], loss, extra [R], ring [R, capacity, 4].
struct Params {
    batch: u32,
    stream: u32,
    capacity: u32,
    kind: u32,
    base_rate: f32,
    warmup: u32,
    total: u32,
    log_gamma: f32,
    period: u32,
    floor: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> state: array<u32>;
@group(0) @binding(2) var<storage, read> loss: array<f32>;
@group(0) @binding(3) var<storage, read> extra: array<f32>;
@group(0) @binding(4) var<storage, read_write> ring: array<f32>;

// cos x for x in [0, π/2]: drivers may return cos with an error of 5e-4.
fn cos_quarter(x: f32) -> f32 {
    let s = x * x;
    return 1.0 - s / 2.0 * (1.0 - s / 12.0 * (1.0 - s / 30.0 * (1.0 - s / 56.0
        * (1.0 - s / 90.0 * (1.0 - s / 132.0)))));
}

fn rate(step: u32) -> f32 {
    if step < p.warmup {
        return p.base_rate * (f32(step) + 1.0) / f32(p.warmup);
    }
    let t = step - p.warmup;
    let span = max(p.total, p.warmup + 1u) - p.warmup;
    let progress = min(f32(t) / f32(span), 1.0);
    switch p.kind {
        case 1u: {
            let half = cos_quarter(progress * 1.5707963268);
            return p.floor + (p.base_rate - p.floor) * half * half;
        }
        case 2u: { return p.base_rate * exp(f32(t / max(p.period, 1u)) * p.log_gamma); }
        case 3u: { return p.base_rate * exp(f32(t) * p.log_gamma); }
        case 4u: { return p.base_rate + (p.floor - p.base_rate) * progress; }
        default: { return p.base_rate; }
    }
}

@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) group: vec3<u32>) {
    let r = group.z;
    let record = r * STATE_WORDS;
    if state[record + STATE_ACTIVE] == 0u {
        return;
    }
    let step = state[record + STATE_STEP];
    let rows = state[record + STATE_ROWS];
    let slot = (r * p.capacity + step % p.capacity) * 4u;
    ring[slot] = loss[r];
    ring[slot + 1u] = f32(rows);
    ring[slot + 2u] = bitcast<f32>(state[record + STATE_RATE]);
    ring[slot + 3u] = extra[r];

    let count = state[record + STATE_COUNT];
    var cursor = state[record + STATE_CURSOR] + select(p.batch, 1u, p.stream != 0u);
    if cursor >= count {
        cursor = 0u;
        state[record + STATE_EPOCH] += 1u;
    }
    state[record + STATE_CURSOR] = cursor;
    state[record + STATE_ROWS] = select(min(p.batch, count - cursor), p.batch, p.stream != 0u);
    state[record + STATE_STEP] = step + 1u;
    state[record + STATE_ACTIVE] = select(0u, 1u, step + 1u < state[record + STATE_LIMIT]);
    let scale = bitcast<f32>(state[record + STATE_SCALE]);
    state[record + STATE_RATE] = bitcast<u32>(scale * rate(step + 1u));
}
