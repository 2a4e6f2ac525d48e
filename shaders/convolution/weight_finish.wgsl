// Weight and bias gradient of the 2-D convolution, second half: the sum over the splits goes to
// the gradient vector. Shapes: partial [R, splits, filters, columns] with columns = channels ·
// kernel_h · kernel_w + bias, gradients [R, parameter_stride].
struct Params {
    batch: u32,
    channels: u32,
    height: u32,
    width: u32,
    filters: u32,
    kernel_h: u32,
    kernel_w: u32,
    stride_h: u32,
    stride_w: u32,
    padding_h: u32,
    padding_w: u32,
    out_h: u32,
    out_w: u32,
    weight_offset: u32,
    bias_offset: u32,
    bias: u32,
    parameter_stride: u32,
    splits: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> partial: array<f32>;
@group(0) @binding(2) var<storage, read_write> gradients: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let taps = p.channels * p.kernel_h * p.kernel_w;
    let columns = taps + p.bias;
    let at = linear_index(group, local);
    if at >= p.filters * columns {
        return;
    }
    var sum = 0.0;
    for (var s = 0u; s < p.splits; s++) {
        sum += partial[(group.z * p.splits + s) * p.filters * columns + at];
    }
    let o = at / columns;
    let k = at % columns;
    let to = group.z * p.parameter_stride
        + select(p.bias_offset + o, p.weight_offset + o * taps + k, k < taps);
    gradients[to] = select(0.0, gradients[to], p.accumulate != 0u) + sum;
}
