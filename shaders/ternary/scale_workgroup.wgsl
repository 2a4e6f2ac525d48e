// Scales and thresholds from the partial sums of `ternary/moments`, one workgroup a tensor.
// Shapes: partials [R, tensors, lanes, 4], lengths [tensors],
// thresholds, scales [R, tensors].
struct Params {
    tensors: u32,
    lanes: u32,
    kind: u32,
    factor: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> partials: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> lengths: array<u32>;
@group(0) @binding(3) var<storage, read_write> thresholds: array<f32>;
@group(0) @binding(4) var<storage, read_write> scales: array<f32>;

var<workgroup> totals: array<vec4<f32>, GROUP>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tensor = group.x;
    let row = group.z * p.tensors + tensor;
    var total = vec4<f32>(0.0);
    for (var lane = local; lane < p.lanes; lane += GROUP) {
        total = merge(total, partials[row * p.lanes + lane]);
    }
    totals[local] = total;
    for (var half = GROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half {
            totals[local] = merge(totals[local], totals[local + half]);
        }
    }
    if local == 0u {
        write_scale(row, lengths[tensor], totals[0]);
    }
}
