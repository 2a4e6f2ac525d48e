// Sums of the columns that saw each pixel, some images at a time: dx[b, c, h, w] (+)= Σ
// columns[c, i, j, b, oh, ow] over what unfold.wgsl copied from there. An invocation sums for 4 pixels of a
// channel. Shapes: columns [R, channels, kernel_h, kernel_w, images, out_h, out_w], or with the last three
// axes before the others, dx [R, batch, channels, height, width].
@group(0) @binding(1) var<storage, read> columns: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;

fn store(inside: bool, at: u32, sum: f32) {
    if inside {
        dx[at] = select(0.0, dx[at], p.accumulate != 0u) + sum;
    }
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = group.y * 65535u + group.x;
    let channel = tile % p.channels;
    let at = pixels(tile / p.channels * GROUP * 4u + local, p.height, p.width);
    let inside = at.image < vec4<u32>(p.images);
    let plane = p.out_h * p.out_w;
    let n = p.images * plane;
    let taps = p.kernel_h * p.kernel_w;
    // From tap to tap, and from pixel to pixel.
    let along = select(vec2<u32>(n, 1u), vec2<u32>(1u, p.channels * taps), p.by_pixel != 0u);
    var tap = group.z * p.channels * taps * n + channel * taps * along.x;
    var sums = vec4<f32>(0.0);
    for (var i = 0u; i < p.kernel_h; i++) {
        let oh = seen_by(at.row, i * p.dilation_h, p.padding_h, p.stride_h, p.out_h);
        for (var j = 0u; j < p.kernel_w; j++) {
            let ow = seen_by(at.column, j * p.dilation_w, p.padding_w, p.stride_w, p.out_w);
            let valid = inside & oh.valid & ow.valid;
            let pixel = at.image * plane + oh.at * p.out_w + ow.at;
            let source = select(vec4<u32>(0u), tap + pixel * along.y, valid);
            let read = vec4<f32>(
                columns[source.x], columns[source.y], columns[source.z], columns[source.w],
            );
            sums += select(vec4<f32>(0.0), read, valid);
            tap += along.x;
        }
    }
    let image = group.z * p.batch + p.first + at.image;
    let to = ((image * p.channels + channel) * p.height + at.row) * p.width + at.column;
    store(inside.x, to.x, sums.x);
    store(inside.y, to.y, sums.y);
    store(inside.z, to.z, sums.z);
    store(inside.w, to.w, sums.w);
}
