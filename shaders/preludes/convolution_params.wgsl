// What the kernels of convolutions share: their parameters.
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
    first: u32,
    images: u32,
    by_pixel: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
