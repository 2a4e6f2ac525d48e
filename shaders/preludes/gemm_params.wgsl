// What the matrix products share: parameters, bias and result.
struct Params {
    m: u32,
    n: u32,
    k: u32,
    a_offset: u32,
    a_stride: u32,
    a_row: u32,
    b_offset: u32,
    b_stride: u32,
    b_row: u32,
    c_offset: u32,
    c_stride: u32,
    c_row: u32,
    bias_offset: u32,
    bias_stride: u32,
    has_bias: u32,
    activation: u32,
    accumulate: u32,
    splits: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> c: array<f32>;
