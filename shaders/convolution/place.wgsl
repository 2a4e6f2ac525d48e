// y[b, f] = product[f, b] + bias[f], some images at a time: planes that a product computed filter by filter go
// to their images. An invocation moves 4 pixels of a filter. Shapes: product
// [R, filters, images, out_h, out_w], or with the filters last, parameters [R, parameter_stride] with bias [filters], y
// [R, batch, filters, out_h, out_w].
@group(0) @binding(1) var<storage, read> product: array<f32>;
@group(0) @binding(2) var<storage, read> parameters: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = group.y * 65535u + group.x;
    let filter_index = tile % p.filters;
    let pixel = tile / p.filters * GROUP * 4u + local;
    let plane = p.out_h * p.out_w;
    let n = p.images * plane;
    let bias_at = group.z * p.parameter_stride + p.bias_offset + filter_index;
    let bias = select(0.0, parameters[select(0u, bias_at, p.bias != 0u)], p.bias != 0u);
    // From filter to filter, and from pixel to pixel.
    let along = select(vec2<u32>(n, 1u), vec2<u32>(1u, p.filters), p.by_pixel != 0u);
    let row = group.z * p.filters * n + filter_index * along.x;
    for (var k = 0u; k < 4u; k++) {
        let at = pixel + GROUP * k;
        if at < n {
            let image = group.z * p.batch + p.first + at / plane;
            y[(image * p.filters + filter_index) * plane + at % plane] = product[row + at * along.y] + bias;
        }
    }
}
