// 2-D convolution of one group: y[b, o] = bias[o] + Σ_{c, i, j} weight[o, c, i, j] · x[b, c] at row
// oh · stride + i · dilation − padding and column ow · stride + j · dilation − padding. An invocation
// computes 8 filters of 4 output pixels. Shapes: x [R, batch, channels, height, width], parameters
// [R, parameter_stride] with weight [filters, channels, kernel_h, kernel_w] and bias
// [filters], y [R, batch, filters, out_h, out_w].
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> parameters: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// Writes one filter of the four pixels.
fn store(r: u32, filter_index: u32, first: u32, sum: vec4<f32>) {
    if filter_index >= p.filters {
        return;
    }
    let bias_at = r * p.parameter_stride + p.bias_offset + filter_index;
    let value = sum + select(0.0, parameters[select(0u, bias_at, p.bias != 0u)], p.bias != 0u);
    let plane = p.out_h * p.out_w;
    for (var k = 0u; k < 4u; k++) {
        let at = first + GROUP * k;
        if at < p.batch * plane {
            let image = r * p.batch + at / plane;
            y[(image * p.filters + filter_index) * plane + at % plane] = value[k];
        }
    }
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tiles = (p.filters + 7u) / 8u;
    let tile = group.y * 65535u + group.x;
    let o = tile % tiles * 8u;
    let first = tile / tiles * GROUP * 4u + local;
    let at = pixels(first, p.out_h, p.out_w);
    let inside = at.image < vec4<u32>(p.batch);

    let taps = p.kernel_h * p.kernel_w;
    let row = p.channels * taps;
    let weight = group.z * p.parameter_stride + p.weight_offset;
    // Rows past the last filter repeat it; their sums are not stored.
    let w = weight + min(o + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(p.filters - 1u)) * row;
    let v = weight + min(o + vec4<u32>(4u, 5u, 6u, 7u), vec4<u32>(p.filters - 1u)) * row;
    var s0 = vec4<f32>(0.0);
    var s1 = s0;
    var s2 = s0;
    var s3 = s0;
    var s4 = s0;
    var s5 = s0;
    var s6 = s0;
    var s7 = s0;
    for (var i = 0u; i < p.kernel_h; i++) {
        // Rows and columns before the first wrap around and are past the last, too.
        let ih = at.row * p.stride_h + i * p.dilation_h - p.padding_h;
        let row_inside = inside & (ih < vec4<u32>(p.height));
        for (var j = 0u; j < p.kernel_w; j++) {
            let iw = at.column * p.stride_w + j * p.dilation_w - p.padding_w;
            let valid = row_inside & (iw < vec4<u32>(p.width));
            let image = group.z * p.batch + at.image;
            let pixel = (image * p.channels * p.height + ih) * p.width + iw;
            // Pixels in the padding read x[0] and take 0.
            var source = select(vec4<u32>(0u), pixel, valid);
            let step = select(vec4<u32>(0u), vec4<u32>(p.height * p.width), valid);
            for (var k = i * p.kernel_w + j; k < row; k += taps) {
                let read = vec4<f32>(x[source.x], x[source.y], x[source.z], x[source.w]);
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
    store(group.z, o, first, s0);
    store(group.z, o + 1u, first, s1);
    store(group.z, o + 2u, first, s2);
    store(group.z, o + 3u, first, s3);
    store(group.z, o + 4u, first, s4);
    store(group.z, o + 5u, first, s5);
    store(group.z, o + 6u, first, s6);
    store(group.z, o + 7u, first, s7);
}
