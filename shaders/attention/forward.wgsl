// y = softmax(scale · q kᵀ) v over the keys in each query's window, by an online softmax; keeps
// log Σ e^score. Shapes: q, y [R, T, B, H, D], k, v [R, S, B, H / group, D], window
// [R, T, B, 2], log_sum [R, T, B, H].
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> log_sum: array<f32>;

fn first(at: u32) -> vec4<f32> {
    return k[at];
}

fn second(at: u32) -> vec4<f32> {
    return v[at];
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let blocks = (p.queries + ROWS - 1u) / ROWS;
    let number = group.y * 65535u + group.x;
    if number >= blocks * p.batch * p.heads {
        return;
    }
    let head = number / blocks % p.heads;
    let sample = number / blocks / p.heads;
    let begin = number % blocks * ROWS;
    let lane = lane_of(local);
    // Rows past the end compute the last one again, and write nothing.
    let query = min(begin + row_of(local), p.queries - 1u);
    let own = query_row(group.z, query, sample, head);
    let quads = p.size / 4u;
    let keys_heads = p.heads / p.group;
    let start = key_row(group.z, 0u, sample, head / p.group) * quads;
    let stream = Stream(start, p.batch * keys_heads * quads, p.keys, quads);
    var row = array<vec4<f32>, PART>();
    var sums = array<vec4<f32>, PART>();
    for (var i = 0u; i < PART; i++) {
        let c = i * LANES + lane;
        if c < quads {
            row[i] = q[own * quads + c];
        }
    }
    let mine = window_of(group.z, sample, query);
    let all = span(group.z, sample, begin, query);
    // Smaller than any score, and finite: some devices have no infinity.
    var top = -1e30;
    var sum = 0.0;
    for (var key = all.x; key < all.y; key += TILE) {
        bring(local, stream, key);
        var part = array<vec2<f32>, TILE>();
        for (var j = 0u; j < TILE; j++) {
            var pair = vec2<f32>();
            for (var i = 0u; i < PART; i++) { // unrolled
                pair.x += dot(row[i], first_quad(stream, lane, key, j, i));
            }
            part[j] = pair;
        }
        var scores = totals(local, part);
        let before = top;
        for (var j = 0u; j < TILE; j++) {
            let score = scores[j].x * p.scale;
            let counts = key + j >= mine.x && key + j < mine.y;
            // A NaN stays.
            top = select(top, score, counts && (score > top || score != score));
            scores[j] = vec2<f32>(score, select(0.0, 1.0, counts));
        }
        let fade = exp(before - top);
        sum *= fade;
        for (var i = 0u; i < PART; i++) { // unrolled
            sums[i] *= fade;
        }
        for (var j = 0u; j < TILE; j++) {
            let counts = scores[j].y > 0.0;
            let weight = select(0.0, exp(select(0.0, scores[j].x - top, counts)), counts);
            sum += weight;
            for (var i = 0u; i < PART; i++) { // unrolled
                sums[i] += weight * second_quad(stream, lane, key, j, i);
            }
        }
    }
    if begin + row_of(local) >= p.queries {
        return;
    }
    // Without a key there is nothing to attend to: zero.
    let nothing = sum == 0.0;
    let inverse = select(1.0 / select(sum, 1.0, nothing), 0.0, nothing);
    for (var i = 0u; i < PART; i++) {
        let c = i * LANES + lane;
        if c < quads {
            y[own * quads + c] = sums[i] * inverse;
        }
    }
    if lane == 0u {
        log_sum[own] = select(top + log(select(sum, 1.0, nothing)), 0.0, nothing);
    }
}
