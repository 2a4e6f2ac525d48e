// Weight and bias gradient of the 2-D convolution of channels in groups, first half: split s of the sum over
// q = (image, output pixel), of dy[o, q] · x[k, q] for each tap k = (c, i, j) of the filter's group, and of
// dy[o, q] for the bias, which is one more column whose x is 1. An invocation computes 4 columns of a filter.
// Shapes: x [R, batch, channels, height, width], dy [R, batch, filters, out_h, out_w], partial
// [R, splits, filters, columns], columns = channels / groups · kernel_h · kernel_w + bias.
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> partial: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let taps = p.kernel_h * p.kernel_w;
    let depth = p.channels / p.groups;
    let columns = depth * taps + p.bias;
    let wide = (columns + 3u) / 4u;
    let tile = linear_index(group, local);
    let split = tile / (wide * p.filters);
    if split >= p.splits {
        return;
    }
    let column = tile % wide * 4u;
    let o = tile / wide % p.filters;
    let k = column + vec4<u32>(0u, 1u, 2u, 3u);
    let is_tap = k < vec4<u32>(depth * taps);
    let tap = select(vec4<u32>(0u), k, is_tap);
    let c = o / (p.filters / p.groups) * depth + tap / taps;
    let i = tap % taps / p.kernel_w * p.dilation_h;
    let j = tap % p.kernel_w * p.dilation_w;

    let plane = p.out_h * p.out_w;
    let total = p.batch * plane;
    let share = (total + p.splits - 1u) / p.splits;
    let other = select(vec4<f32>(1.0), vec4<f32>(0.0), is_tap);
    var sum = vec4<f32>(0.0);
    var image = group.z * p.batch + split * share / plane;
    var oh = split * share % plane / p.out_w;
    var ow = split * share % p.out_w;
    for (var q = split * share; q < min(total, (split + 1u) * share); q++) {
        // Rows and columns before the first wrap around and are past the last, too.
        let ih = oh * p.stride_h + i - p.padding_h;
        let iw = ow * p.stride_w + j - p.padding_w;
        let valid = is_tap & (ih < vec4<u32>(p.height)) & (iw < vec4<u32>(p.width));
        let pixel = ((image * p.channels + c) * p.height + ih) * p.width + iw;
        let at = select(vec4<u32>(0u), pixel, valid);
        let a = select(other, vec4<f32>(x[at.x], x[at.y], x[at.z], x[at.w]), valid);
        sum += dy[((image * p.filters + o) * p.out_h + oh) * p.out_w + ow] * a;
        ow += 1u;
        if ow == p.out_w {
            ow = 0u;
            oh += 1u;
        }
        if oh == p.out_h {
            oh = 0u;
            image += 1u;
        }
    }
    let to = ((group.z * p.splits + split) * p.filters + o) * columns + column;
    for (var n = 0u; n < 4u; n++) {
        if column + n < columns {
            partial[to + n] = sum[n];
        }
    }
}
