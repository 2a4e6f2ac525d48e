// Input gradient of the 2-D convolution of channels in groups: dx[b, c] (+)= Σ_{o, i, j} weight[o, c − first,
// i, j] · dy[b, o] over the filters of the channel's group, at the output pixel that saw this one through tap
// (i, j), if there is one. An invocation computes 4 input pixels of a channel. Shapes: dy
// [R, batch, filters, out_h, out_w], parameters [R, parameter_stride] with weight
// [filters, channels / groups, kernel_h, kernel_w], dx [R, batch, channels, height, width].
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read> parameters: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

fn store(inside: bool, at: u32, sum: f32) {
    if inside {
        dx[at] = select(0.0, dx[at], p.accumulate != 0u) + sum;
    }
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = group.y * 65535u + group.x;
    let c = tile % p.channels;
    let at = pixels(tile / p.channels * GROUP * 4u + local, p.height, p.width);
    let inside = at.image < vec4<u32>(p.batch);

    let taps = p.kernel_h * p.kernel_w;
    let depth = p.channels / p.groups;
    let row = depth * taps;
    let filters = p.filters / p.groups;
    // The first filter of the group.
    let o = c / depth * filters;
    let weight = group.z * p.parameter_stride + p.weight_offset + o * row + c % depth * taps;
    let plane = ((group.z * p.batch + at.image) * p.filters + o) * p.out_h;
    var sum = vec4<f32>(0.0);
    for (var i = 0u; i < p.kernel_h; i++) {
        let oh = seen_by(at.row, i * p.dilation_h, p.padding_h, p.stride_h, p.out_h);
        for (var j = 0u; j < p.kernel_w; j++) {
            let ow = seen_by(at.column, j * p.dilation_w, p.padding_w, p.stride_w, p.out_w);
            let valid = inside & oh.valid & ow.valid;
            // Pixels that no output saw read dy[0] and take 0.
            var source = select(vec4<u32>(0u), (plane + oh.at) * p.out_w + ow.at, valid);
            let step = select(vec4<u32>(0u), vec4<u32>(p.out_h * p.out_w), valid);
            let tap = i * p.kernel_w + j;
            for (var k = tap; k < tap + filters * row; k += row) {
                let read = vec4<f32>(dy[source.x], dy[source.y], dy[source.z], dy[source.w]);
                sum += parameters[weight + k] * select(vec4<f32>(0.0), read, valid);
                source += step;
            }
        }
    }
    let bias_at = group.z * p.parameter_stride + p.bias_offset + c;
    sum += select(0.0, parameters[select(0u, bias_at, p.bias != 0u)], p.bias != 0u);
    let image = (group.z * p.batch + at.image) * p.channels + c;
    let to = (image * p.height + at.row) * p.width + at.column;
    store(inside.x, to.x, sum.x);
    store(inside.y, to.y, sum.y);
    store(inside.z, to.z, sum.z);
    store(inside.w, to.w, sum.w);
}
