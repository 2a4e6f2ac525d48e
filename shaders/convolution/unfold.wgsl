// What each tap of a filter sees, some images at a time: columns[c, i, j, b, oh, ow] = x[b, c] at row
// oh · stride + i · dilation − padding and column ow · stride + j · dilation − padding, 0 in the padding. An
// invocation writes all taps of a channel for 4 output pixels. Shapes: x [R, batch, channels, height, width],
// columns [R, channels, kernel_h, kernel_w, images, out_h, out_w], or with the last three axes before the
// others.
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> columns: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = group.y * 65535u + group.x;
    let channel = tile % p.channels;
    let pixel = tile / p.channels * GROUP * 4u + local;
    let at = pixels(pixel, p.out_h, p.out_w);
    let inside = at.image < vec4<u32>(p.images);
    let n = p.images * p.out_h * p.out_w;
    let plane = ((group.z * p.batch + p.first + at.image) * p.channels + channel) * p.height;
    let taps = p.kernel_h * p.kernel_w;
    // From tap to tap, and from pixel to pixel.
    let along = select(vec2<u32>(n, 1u), vec2<u32>(1u, p.channels * taps), p.by_pixel != 0u);
    var to = group.z * p.channels * taps * n + channel * taps * along.x + pixel * along.y;
    for (var i = 0u; i < p.kernel_h; i++) {
        // Rows and columns before the first wrap around and are past the last, too.
        let ih = at.row * p.stride_h + i * p.dilation_h - p.padding_h;
        let row_inside = inside & (ih < vec4<u32>(p.height));
        for (var j = 0u; j < p.kernel_w; j++) {
            let iw = at.column * p.stride_w + j * p.dilation_w - p.padding_w;
            let valid = row_inside & (iw < vec4<u32>(p.width));
            // Pixels in the padding read x[0] and are 0.
            let source = select(vec4<u32>(0u), (plane + ih) * p.width + iw, valid);
            let read = vec4<f32>(x[source.x], x[source.y], x[source.z], x[source.w]);
            let seen = select(vec4<f32>(0.0), read, valid);
            if inside.x { columns[to] = seen.x; }
            if inside.y { columns[to + GROUP * along.y] = seen.y; }
            if inside.z { columns[to + 2u * GROUP * along.y] = seen.z; }
            if inside.w { columns[to + 3u * GROUP * along.y] = seen.w; }
            to += along.x;
        }
    }
}
