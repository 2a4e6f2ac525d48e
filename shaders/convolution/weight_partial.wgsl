// Weight and bias gradient of the 2-D convolution, first half: split s of the sum over
// q = (image, output pixel), of dy[o, q] · x[k, q] for each tap k = (c, i, j), and of dy[o, q]
// for the bias, which is one more column whose x is 1. An invocation computes 8 filters of 4
// columns. Shapes: x [R, batch, channels, height, width], dy [R, batch, filters, out_h, out_w],
// partial [R, splits, filters, columns], columns = channels · kernel_h · kernel_w + bias.
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> partial: array<f32>;

// Writes one filter of the four columns.
fn store(row: u32, filter_index: u32, column: u32, columns: u32, sum: vec4<f32>) {
    if filter_index >= p.filters {
        return;
    }
    for (var k = 0u; k < 4u; k++) {
        if column + k < columns {
            partial[(row * p.filters + filter_index) * columns + column + k] = sum[k];
        }
    }
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let taps = p.kernel_h * p.kernel_w;
    let columns = p.channels * taps + p.bias;
    let wide = (columns + 3u) / 4u;
    let high = (p.filters + 7u) / 8u;
    let tile = linear_index(group, local);
    let split = tile / (wide * high);
    if split >= p.splits {
        return;
    }
    let column = tile % wide * 4u;
    let o = tile / wide % high * 8u;
    let k = column + vec4<u32>(0u, 1u, 2u, 3u);
    let is_tap = k < vec4<u32>(p.channels * taps);
    let tap = select(vec4<u32>(0u), k, is_tap);
    let c = tap / taps;
    let i = tap % taps / p.kernel_w * p.dilation_h;
    let j = tap % p.kernel_w * p.dilation_w;

    let plane = p.out_h * p.out_w;
    let total = p.batch * plane;
    let share = (total + p.splits - 1u) / p.splits;
    // Rows past the last filter repeat it; their sums are not stored.
    let u = min(o + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(p.filters - 1u)) * plane;
    let v = min(o + vec4<u32>(4u, 5u, 6u, 7u), vec4<u32>(p.filters - 1u)) * plane;
    var s0 = vec4<f32>(0.0);
    var s1 = s0;
    var s2 = s0;
    var s3 = s0;
    var s4 = s0;
    var s5 = s0;
    var s6 = s0;
    var s7 = s0;
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
        let other = select(vec4<f32>(1.0), vec4<f32>(0.0), is_tap);
        let a = select(other, vec4<f32>(x[at.x], x[at.y], x[at.z], x[at.w]), valid);
        let d = image * p.filters * plane + oh * p.out_w + ow;
        s0 += dy[d + u.x] * a;
        s1 += dy[d + u.y] * a;
        s2 += dy[d + u.z] * a;
        s3 += dy[d + u.w] * a;
        s4 += dy[d + v.x] * a;
        s5 += dy[d + v.y] * a;
        s6 += dy[d + v.z] * a;
        s7 += dy[d + v.w] * a;
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
    let row = group.z * p.splits + split;
    store(row, o, column, columns, s0);
    store(row, o + 1u, column, columns, s1);
    store(row, o + 2u, column, columns, s2);
    store(row, o + 3u, column, columns, s3);
    store(row, o + 4u, column, columns, s4);
    store(row, o + 5u, column, columns, s5);
    store(row, o + 6u, column, columns, s6);
    store(row, o + 7u, column, columns, s7);
}
