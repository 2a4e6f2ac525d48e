// Input gradient of the 2-D convolution: dx[b, c] (+)= Σ_{o, i, j} weight[o, c, i, j] · dy[b, o]
// at the output pixel that saw this one through tap (i, j), if there is one. An invocation
// computes 8 channels of 4 input pixels. Shapes: dy [R, batch, filters, out_h, out_w],
// parameters [R, parameter_stride] with weight [filters, channels, kernel_h, kernel_w], dx
// [R, batch, channels, height, width].
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read> parameters: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

// Writes one channel of the four pixels.
fn store(r: u32, channel: u32, first: u32, sum: vec4<f32>) {
    if channel >= p.channels {
        return;
    }
    let bias_at = r * p.parameter_stride + p.bias_offset + channel;
    let value = sum + select(0.0, parameters[select(0u, bias_at, p.bias != 0u)], p.bias != 0u);
    let plane = p.height * p.width;
    for (var k = 0u; k < 4u; k++) {
        let at = first + GROUP * k;
        if at < p.batch * plane {
            let image = r * p.batch + at / plane;
            let to = (image * p.channels + channel) * plane + at % plane;
            dx[to] = select(0.0, dx[to], p.accumulate != 0u) + value[k];
        }
    }
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tiles = (p.channels + 7u) / 8u;
    let tile = group.y * 65535u + group.x;
    let c = tile % tiles * 8u;
    let first = tile / tiles * GROUP * 4u + local;
    let at = pixels(first, p.height, p.width);
    let inside = at.image < vec4<u32>(p.batch);

    let taps = p.kernel_h * p.kernel_w;
    let row = p.channels * taps;
    let weight = group.z * p.parameter_stride + p.weight_offset;
    // Planes past the last channel repeat it; their sums are not stored.
    let w = weight + min(c + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(p.channels - 1u)) * taps;
    let v = weight + min(c + vec4<u32>(4u, 5u, 6u, 7u), vec4<u32>(p.channels - 1u)) * taps;
    var s0 = vec4<f32>(0.0);
    var s1 = s0;
    var s2 = s0;
    var s3 = s0;
    var s4 = s0;
    var s5 = s0;
    var s6 = s0;
    var s7 = s0;
    for (var i = 0u; i < p.kernel_h; i++) {
        let oh = seen_by(at.row, i * p.dilation_h, p.padding_h, p.stride_h, p.out_h);
        for (var j = 0u; j < p.kernel_w; j++) {
            let ow = seen_by(at.column, j * p.dilation_w, p.padding_w, p.stride_w, p.out_w);
            let valid = inside & oh.valid & ow.valid;
            let image = group.z * p.batch + at.image;
            let pixel = (image * p.filters * p.out_h + oh.at) * p.out_w + ow.at;
            // Pixels that no output saw read dy[0] and take 0.
            var source = select(vec4<u32>(0u), pixel, valid);
            let step = select(vec4<u32>(0u), vec4<u32>(p.out_h * p.out_w), valid);
            let tap = i * p.kernel_w + j;
            for (var k = tap; k < tap + p.filters * row; k += row) {
                let read = vec4<f32>(dy[source.x], dy[source.y], dy[source.z], dy[source.w]);
                let a = select(vec4<f32>(0.0), read, valid);
                source += step;
                s0 += parameters[w.x + k] * a;
                s1 += parameters[w.y + k] * a;
                s2 += parameters[w.z + k] * a;
                s3 += parameters[w.w + k] * a;
                s4 += parameters[v.x + k] * a;
                s5 += parameters[v.y + k] * a;
                s6 += parameters[v.z + k] * a;
                s7 += parameters[v.w + k] * a;
            }
        }
    }
    store(group.z, c, first, s0);
    store(group.z, c + 1u, first, s1);
    store(group.z, c + 2u, first, s2);
    store(group.z, c + 3u, first, s3);
    store(group.z, c + 4u, first, s4);
    store(group.z, c + 5u, first, s5);
    store(group.z, c + 6u, first, s6);
    store(group.z, c + 7u, first, s7);
}
