// dk (+)= scale · Σ of w (dy · v - Σ dy · y) q and dv (+)= Σ of w dy, over the queries whose windows
// hold the key and the heads of its group; w = e^(score - log Σ e^score). Shapes: q, dy
// [R, T, B, H, D], k, v, dk, dv [R, S, B, H / group, D], window [R, T, B, 2], sums
// [R, T, B, H, 2].
@group(0) @binding(5) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> sums: array<vec2<f32>>;
@group(0) @binding(7) var<storage, read_write> dk: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> dv: array<vec4<f32>>;

fn first(at: u32) -> vec4<f32> {
    return q[at];
}

fn second(at: u32) -> vec4<f32> {
    return dy[at];
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let blocks = (p.keys + ROWS - 1u) / ROWS;
    let heads = p.heads / p.group;
    let number = group.y * 65535u + group.x;
    if number >= blocks * p.batch * heads {
        return;
    }
    let head = number / blocks % heads;
    let sample = number / blocks / heads;
    let begin = number % blocks * ROWS;
    let lane = lane_of(local);
    // Rows past the end compute the last one again, and write nothing.
    let key = min(begin + row_of(local), p.keys - 1u);
    let own = key_row(group.z, key, sample, head);
    let here = own_rows(begin, key);
    let quads = p.size / 4u;
    var row = array<vec4<f32>, PART>();
    var value = array<vec4<f32>, PART>();
    var row_gradient = array<vec4<f32>, PART>();
    var value_gradient = array<vec4<f32>, PART>();
    for (var i = 0u; i < PART; i++) {
        let c = i * LANES + lane;
        if c < quads {
            row[i] = k[own * quads + c];
            value[i] = v[own * quads + c];
        }
    }
    for (var member = 0u; member < p.group; member++) {
        let start = query_row(group.z, 0u, sample, head * p.group + member);
        let step = p.batch * p.heads;
        let stream = Stream(start * quads, step * quads, p.queries, quads);
        for (var query = 0u; query < p.queries; query += TILE) {
            var all = window_of(group.z, sample, query);
            for (var j = 1u; j < TILE; j++) {
                let other = window_of(group.z, sample, query + j);
                all = vec2<u32>(min(all.x, other.x), max(all.y, other.y));
            }
            if all.y <= here.x || all.x >= here.y {
                continue;
            }
            bring(local, stream, query);
            var part = array<vec2<f32>, TILE>();
            for (var j = 0u; j < TILE; j++) {
                var pair = vec2<f32>();
                for (var i = 0u; i < PART; i++) { // unrolled
                    pair.x += dot(row[i], first_quad(stream, lane, query, j, i));
                    pair.y += dot(value[i], second_quad(stream, lane, query, j, i));
                }
                part[j] = pair;
            }
            let products = totals(local, part);
            for (var j = 0u; j < TILE; j++) {
                let place = min(query + j, p.queries - 1u);
                let row_sums = sums[start + place * step];
                let keys = window_of(group.z, sample, query + j);
                let counts = query + j < p.queries && key >= keys.x && key < keys.y;
                let power = select(0.0, products[j].x * p.scale - row_sums.x, counts);
                let weight = select(0.0, exp(power), counts);
                let d = select(0.0, weight * (products[j].y - row_sums.y) * p.scale, counts);
                for (var i = 0u; i < PART; i++) { // unrolled
                    row_gradient[i] += d * first_quad(stream, lane, query, j, i);
                    value_gradient[i] += weight * second_quad(stream, lane, query, j, i);
                }
            }
        }
    }
    if begin + row_of(local) >= p.keys {
        return;
    }
    for (var i = 0u; i < PART; i++) {
        let c = i * LANES + lane;
        let at = own * quads + c;
        if c < quads && p.first_mode < 2u {
            var d = row_gradient[i];
            if p.first_mode == 1u {
                d += dk[at];
            }
            dk[at] = d;
        }
        if c < quads && p.second_mode < 2u {
            var d = value_gradient[i];
            if p.second_mode == 1u {
                d += dv[at];
            }
            dv[at] = d;
        }
    }
}
