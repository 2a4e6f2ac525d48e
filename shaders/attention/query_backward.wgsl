// dq (+)= scale · Σ over keys of w (dy · v - Σ dy · y) k, w = e^(score - log Σ e^score). Shapes: q,
// dy, dq [R, T, B, H, D], k, v [R, S, B, H / group, D], window [R, T, B, 2], sums
// [R, T, B, H, 2].
@group(0) @binding(5) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> sums: array<vec2<f32>>;
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<f32>>;

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
    let start = key_row(group.z, 0u, sample, head / p.group) * quads;
    let stream = Stream(start, p.batch * (p.heads / p.group) * quads, p.keys, quads);
    var row = array<vec4<f32>, PART>();
    var upstream = array<vec4<f32>, PART>();
    var gradient = array<vec4<f32>, PART>();
    for (var i = 0u; i < PART; i++) {
        let c = i * LANES + lane;
        if c < quads {
            row[i] = q[own * quads + c];
            upstream[i] = dy[own * quads + c];
        }
    }
    let mine = window_of(group.z, sample, query);
    let all = span(group.z, sample, begin, query);
    let row_sums = sums[own];
    for (var key = all.x; key < all.y; key += TILE) {
        bring(local, stream, key);
        var part = array<vec2<f32>, TILE>();
        for (var j = 0u; j < TILE; j++) {
            var pair = vec2<f32>();
            for (var i = 0u; i < PART; i++) { // unrolled
                pair.x += dot(row[i], first_quad(stream, lane, key, j, i));
                pair.y += dot(upstream[i], second_quad(stream, lane, key, j, i));
            }
            part[j] = pair;
        }
        let products = totals(local, part);
        for (var j = 0u; j < TILE; j++) {
            let counts = key + j >= mine.x && key + j < mine.y;
            let power = select(0.0, products[j].x * p.scale - row_sums.x, counts);
            let slope = exp(power) * (products[j].y - row_sums.y) * p.scale;
            let d = select(0.0, slope, counts);
            for (var i = 0u; i < PART; i++) { // unrolled
                gradient[i] += d * first_quad(stream, lane, key, j, i);
            }
        }
    }
    if begin + row_of(local) >= p.queries {
        return;
    }
    for (var i = 0u; i < PART; i++) {
        let c = i * LANES + lane;
        if c < quads {
            let at = own * quads + c;
            var d = gradient[i];
            if p.first_mode == 1u {
                d += dq[at];
            }
            dq[at] = d;
        }
    }
}
