// Gradient of max pooling: each pixel gathers dy of the windows that it won, so no two
// invocations write the same place. Shapes: dy, index [R, planes, out_h, out_w], dx
// [R, planes, height, width].
struct Params {
    planes: u32,
    height: u32,
    width: u32,
    kernel_h: u32,
    kernel_w: u32,
    stride_h: u32,
    stride_w: u32,
    padding_h: u32,
    padding_w: u32,
    out_h: u32,
    out_w: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read> index: array<u32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let n = p.planes * p.height * p.width;
    let at = linear_index(group, local);
    if at >= n {
        return;
    }
    let row = at / p.width % p.height + p.padding_h;
    let column = at % p.width + p.padding_w;
    let plane = (group.z * p.planes + at / (p.height * p.width)) * p.out_h * p.out_w;
    // The first windows that reach this far down and right.
    let top = (max(row + 1u, p.kernel_h) - p.kernel_h + p.stride_h - 1u) / p.stride_h;
    let left = (max(column + 1u, p.kernel_w) - p.kernel_w + p.stride_w - 1u) / p.stride_w;
    var sum = 0.0;
    for (var oh = top; oh < min(p.out_h, row / p.stride_h + 1u); oh++) {
        for (var ow = left; ow < min(p.out_w, column / p.stride_w + 1u); ow++) {
            let window = plane + oh * p.out_w + ow;
            if index[window] == at % (p.height * p.width) {
                sum += dy[window];
            }
        }
    }
    let to = group.z * n + at;
    dx[to] = select(0.0, dx[to], p.accumulate != 0u) + sum;
}
