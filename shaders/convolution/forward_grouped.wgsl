// 2-D convolution of channels in groups: y[b, o] = bias[o] + Σ_{c, i, j} weight[o, c, i, j] · x[b, first + c]
// at row oh · stride + i · dilation − padding and column ow · stride + j · dilation − padding, the first
// channel being that of the filter's group. An invocation computes 4 output pixels of a filter. Shapes: x
// [R, batch, channels, height, width], parameters [R, parameter_stride] with weight
// [filters, channels / groups, kernel_h, kernel_w] and bias [filters], y [R, batch, filters, out_h, out_w].
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> parameters: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = group.y * 65535u + group.x;
    let o = tile % p.filters;
    let at = pixels(tile / p.filters * GROUP * 4u + local, p.out_h, p.out_w);
    let inside = at.image < vec4<u32>(p.batch);

    let taps = p.kernel_h * p.kernel_w;
    let depth = p.channels / p.groups;
    let row = depth * taps;
    let channel = o / (p.filters / p.groups) * depth;
    let weight = group.z * p.parameter_stride + p.weight_offset + o * row;
    let plane = ((group.z * p.batch + at.image) * p.channels + channel) * p.height;
    var sum = vec4<f32>(0.0);
    for (var i = 0u; i < p.kernel_h; i++) {
        // Rows and columns before the first wrap around and are past the last, too.
        let ih = at.row * p.stride_h + i * p.dilation_h - p.padding_h;
        let row_inside = inside & (ih < vec4<u32>(p.height));
        for (var j = 0u; j < p.kernel_w; j++) {
            let iw = at.column * p.stride_w + j * p.dilation_w - p.padding_w;
            let valid = row_inside & (iw < vec4<u32>(p.width));
            // Pixels in the padding read x[0] and take 0.
            var source = select(vec4<u32>(0u), (plane + ih) * p.width + iw, valid);
            let step = select(vec4<u32>(0u), vec4<u32>(p.height * p.width), valid);
            for (var k = i * p.kernel_w + j; k < row; k += taps) {
                let read = vec4<f32>(x[source.x], x[source.y], x[source.z], x[source.w]);
                sum += parameters[weight + k] * select(vec4<f32>(0.0), read, valid);
                source += step;
            }
        }
    }
    let bias_at = group.z * p.parameter_stride + p.bias_offset + o;
    sum += select(0.0, parameters[select(0u, bias_at, p.bias != 0u)], p.bias != 0u);
    let to = (((group.z * p.batch + at.image) * p.filters + o) * p.out_h + at.row) * p.out_w + at.column;
    if inside.x { y[to.x] = sum.x; }
    if inside.y { y[to.y] = sum.y; }
    if inside.z { y[to.z] = sum.z; }
    if inside.w { y[to.w] = sum.w; }
}
