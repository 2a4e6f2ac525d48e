// Max pooling: y = the largest pixel of each window, index = its place in the plane; the first
// of equals. Shapes: x [R, planes, height, width], y, index [R, planes, out_h, out_w].
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
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read_write> index: array<u32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let n = p.planes * p.out_h * p.out_w;
    let at = linear_index(group, local);
    if at >= n {
        return;
    }
    let top = at / p.out_w % p.out_h * p.stride_h;
    let left = at % p.out_w * p.stride_w;
    let plane = (group.z * p.planes + at / (p.out_h * p.out_w)) * p.height * p.width;
    // Padding is less than a window, so each window has a first pixel inside.
    var place = max(top, p.padding_h) - p.padding_h;
    place = place * p.width + max(left, p.padding_w) - p.padding_w;
    var best = x[plane + place];
    for (var i = 0u; i < p.kernel_h; i++) {
        // Rows and columns before the first wrap around and are past the last, too.
        let row = top + i - p.padding_h;
        for (var j = 0u; j < p.kernel_w; j++) {
            let column = left + j - p.padding_w;
            if row < p.height && column < p.width {
                let value = x[plane + row * p.width + column];
                // The first NaN counts as the largest.
                if value > best || (value != value && best == best) {
                    best = value;
                    place = row * p.width + column;
                }
            }
        }
    }
    y[group.z * n + at] = best;
    index[group.z * n + at] = place;
}
