// An invocation for each row of one head, without workgroup memory. The same functions as
// attention_group, so that one kernel text serves both.
struct Stream {
    start: u32,
    step: u32,
    rows: u32,
    quads: u32,
}

fn row_of(local: u32) -> u32 {
    return local;
}

fn lane_of(local: u32) -> u32 {
    return 0u;
}

fn own_rows(begin: u32, own: u32) -> vec2<u32> {
    return vec2<u32>(own, own + 1u);
}

fn span(z: u32, sample: u32, begin: u32, own: u32) -> vec2<u32> {
    return window_of(z, sample, own);
}

fn bring(local: u32, stream: Stream, row: u32) {
}

// Past the last row stands that one, and past the last quad that: neither counts.
fn quad_at(stream: Stream, row: u32, i: u32) -> u32 {
    return stream.start + min(row, stream.rows - 1u) * stream.step + min(i, stream.quads - 1u);
}

fn first_quad(stream: Stream, lane: u32, row: u32, j: u32, i: u32) -> vec4<f32> {
    return first(quad_at(stream, row + j, i));
}

fn second_quad(stream: Stream, lane: u32, row: u32, j: u32, i: u32) -> vec4<f32> {
    return second(quad_at(stream, row + j, i));
}

fn totals(local: u32, mine: array<vec2<f32>, TILE>) -> array<vec2<f32>, TILE> {
    return mine;
}
