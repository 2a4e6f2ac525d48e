// Shared by the attention kernels: sizes, and the keys that a query attends to.
struct Params {
    queries: u32,
    keys: u32,
    batch: u32,
    heads: u32,
    group: u32,
    size: u32,
    scale: f32,
    first_mode: u32,
    second_mode: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> window: array<vec2<u32>>;

// The first key that a query attends to, and the end of them.
fn window_of(z: u32, sample: u32, query: u32) -> vec2<u32> {
    let row = min(query, p.queries - 1u);
    let keys = window[(z * p.queries + row) * p.batch + sample];
    return vec2<u32>(keys.x, min(keys.y, p.keys));
}

// Rows of queries and of keys, counted over replicas, positions, samples and heads.
fn query_row(z: u32, query: u32, sample: u32, head: u32) -> u32 {
    return ((z * p.queries + query) * p.batch + sample) * p.heads + head;
}

fn key_row(z: u32, key: u32, sample: u32, head: u32) -> u32 {
    return ((z * p.keys + key) * p.batch + sample) * (p.heads / p.group) + head;
}
