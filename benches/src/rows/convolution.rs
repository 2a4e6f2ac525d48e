//! Rows of convolutions.

use tern_shaders::kernels::convolution::columns::{FOLD, PLACE, UNFOLD};
use tern_shaders::kernels::convolution::{Convolution, FORWARD, INPUT_BACKWARD, WEIGHT_PARTIAL};

use super::recipe::{Recipe, all_floats, case};

/// Rows of these families.
pub fn rows() -> Vec<Recipe> {
    [direct(), depthwise(), columns()].concat()
}

/// Filters of 3 × 3 over images of as many pixels as they give, in groups.
fn same([batch, channels, side, filters]: [u32; 4], groups: u32) -> Option<Convolution> {
    let weights = filters * channels / groups * 9;
    Convolution {
        batch,
        channels,
        height: side,
        width: side,
        filters,
        kernel_h: 3,
        kernel_w: 3,
        stride_h: 1,
        stride_w: 1,
        padding_h: 1,
        padding_w: 1,
        bias: 1,
        bias_offset: weights,
        parameter_stride: weights + filters,
        groups,
        ..Convolution::default()
    }
    .complete()
}

/// Elements of the images, the parameters and the outputs.
fn lengths(p: &Convolution) -> [usize; 3] {
    let x = p.batch * p.channels * p.height * p.width;
    let y = p.batch * p.filters * p.out_h * p.out_w;
    [x, p.parameter_stride, y].map(|n| n as usize)
}

/// A layer in the middle of a small vision model.
fn direct() -> Vec<Recipe> {
    passes([16, 16, 28, 32], 1, "16 × 16 × 28 × 28, 32 of 3 × 3")
}

/// A layer of MobileNet, whose filters see a channel each.
fn depthwise() -> Vec<Recipe> {
    passes([8, 256, 28, 256], 256, "8 × 256 × 28 × 28, 3 × 3 of each channel")
}

/// Forward, and the gradients of the input and, in parts, of the weights.
fn passes(sizes: [u32; 4], groups: u32, label: &str) -> Vec<Recipe> {
    let Some(p) = same(sizes, groups) else { return Vec::new() };
    let [x, parameters, y] = lengths(&p);
    let flops = 2 * y as u64 * u64::from(p.taps());
    let by_images = p.by_images();
    let partial = |p: &Convolution| (p.splits * p.filters * p.columns()) as usize;
    // As GPUs split the weights' gradient, and as the Cpu does.
    let whole = format!("{label}, by images");
    let row = |kernel, label: &str, p: &Convolution, lengths: &[usize]| {
        // Weight gradients sum 12,544 pixels in f32.
        case(kernel, label, p, all_floats(kernel, lengths)).flops(flops).tolerance(2e-4)
    };
    vec![
        row(&FORWARD, label, &p, &[x, parameters, y]),
        row(&INPUT_BACKWARD, label, &Convolution { bias: 0, ..p }, &[y, parameters, x]),
        row(&WEIGHT_PARTIAL, label, &p, &[x, y, partial(&p)]).of_gpus(),
        row(&WEIGHT_PARTIAL, &whole, &by_images, &[x, y, partial(&by_images)]),
    ]
}

/// What is copied around the products that compute a layer of ResNet-18.
fn columns() -> Vec<Recipe> {
    let Some(p) = same([8, 64, 16, 64], 1) else { return Vec::new() };
    let p = p.part(0, p.batch);
    let label = "8 × 64 × 16 × 16, 64 of 3 × 3";
    let [x, parameters, y] = lengths(&p);
    let seen = (p.taps() * p.batch * p.out_h * p.out_w) as usize;
    let row =
        |kernel, lengths: &[usize]| case(kernel, label, &p, all_floats(kernel, lengths)).of_gpus();
    let mut place = row(&PLACE, &[y, parameters, y]);
    // Of the parameters, the biases alone.
    place.bytes = 4 * (2 * y as u64 + u64::from(p.filters));
    vec![row(&UNFOLD, &[x, seen]), row(&FOLD, &[seen, x]), place]
}
