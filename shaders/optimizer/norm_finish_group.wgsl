// norm = scale · √(Σ partial) and clip = min(1, max_norm / (norm + 1e-6)). One workgroup a
// replica. Shapes: partial [R, partial_stride], norm, clip [R].
struct Params {
    count: u32,
    partial_stride: u32,
    max_norm: f32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> partial: array<f32>;
@group(0) @binding(2) var<storage, read_write> norm: array<f32>;
@group(0) @binding(3) var<storage, read_write> clip: array<f32>;

var<workgroup> sums: array<f32, GROUP>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    var sum = 0.0;
    for (var i = local; i < p.count; i += GROUP) {
        sum += partial[group.z * p.partial_stride + i];
    }
    sums[local] = sum;
    for (var half = GROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half {
            sums[local] += sums[local + half];
        }
    }
    if local == 0u {
        let total = p.scale * sqrt(sums[0]);
        norm[group.z] = total;
        let factor = p.max_norm / (total + 1e-6);
        // The factor of a norm that is no number is none either.
        clip[group.z] = select(factor, 1.0, factor > 1.0);
    }
}
