// A workgroup for ROWS rows of one head, LANES invocations a row: each has the quads (four
// numbers) lane, lane + LANES, ... of its row. Rows of the other side pass by through workgroup
// memory, TILE at a time. The same functions as attention_single, so that one kernel text serves
// both; the text defines `first`, `second` and `window_of`.
const WIDTH: u32 = LANES * PART;
var<workgroup> first_tile: array<vec4<f32>, TILE * WIDTH>;
var<workgroup> second_tile: array<vec4<f32>, TILE * WIDTH>;
var<workgroup> parts: array<vec2<f32>, GROUP * TILE>;

// Rows that pass by: quad of the first one, quads from row to row, number of rows, quads of one.
struct Stream {
    start: u32,
    step: u32,
    rows: u32,
    quads: u32,
}

fn row_of(local: u32) -> u32 {
    return local / LANES;
}

fn lane_of(local: u32) -> u32 {
    return local % LANES;
}

// The rows that the workgroup has.
fn own_rows(begin: u32, own: u32) -> vec2<u32> {
    return vec2<u32>(begin, begin + ROWS);
}

// The keys of all rows from `begin` on that the workgroup has.
fn span(z: u32, sample: u32, begin: u32, own: u32) -> vec2<u32> {
    var all = window_of(z, sample, begin);
    for (var r = 1u; r < ROWS; r++) {
        let window = window_of(z, sample, begin + r);
        all = vec2<u32>(min(all.x, window.x), max(all.y, window.y));
    }
    return all;
}

// Rows from `row` on are brought in, zeros past the last one.
fn bring(local: u32, stream: Stream, row: u32) {
    // The tiles may still be read.
    workgroupBarrier();
    for (var i = local; i < TILE * WIDTH; i += GROUP) {
        let place = row + i / WIDTH;
        let quad = i % WIDTH;
        var a = vec4<f32>();
        var b = vec4<f32>();
        if place < stream.rows && quad < stream.quads {
            let at = stream.start + place * stream.step + quad;
            a = first(at);
            b = second(at);
        }
        first_tile[i] = a;
        second_tile[i] = b;
    }
    workgroupBarrier();
}

fn first_quad(stream: Stream, lane: u32, row: u32, j: u32, i: u32) -> vec4<f32> {
    return first_tile[j * WIDTH + i * LANES + lane];
}

fn second_quad(stream: Stream, lane: u32, row: u32, j: u32, i: u32) -> vec4<f32> {
    return second_tile[j * WIDTH + i * LANES + lane];
}

// Sums over the lanes of a row.
fn totals(local: u32, mine: array<vec2<f32>, TILE>) -> array<vec2<f32>, TILE> {
    for (var j = 0u; j < TILE; j++) {
        parts[local * TILE + j] = mine[j];
    }
    workgroupBarrier();
    var all = array<vec2<f32>, TILE>();
    for (var l = 0u; l < LANES; l++) {
        for (var j = 0u; j < TILE; j++) {
            all[j] += parts[(local / LANES * LANES + l) * TILE + j];
        }
    }
    return all;
}
