//! Rows of batch norms: a stage of a ResNet on 8 images.

use tern_engine::Data;
use tern_shaders::Kernel;
use tern_shaders::kernels::normalize::groups::{
    GROUP_BACKWARD, GROUP_BACKWARD_CHANNELS, GROUP_FORWARD, GROUP_MOMENTS, GROUP_SUMS, GroupNorm,
    RUNNING_MOMENTS, RunningMoments,
};
use tern_shaders::schedule::Schedule;
use tern_shaders::state::StateRecord;

use super::Size;
use super::recipe::{Contents, Recipe, case, floats, repeated};

/// Rows of this part of the family.
pub fn rows(size: Size) -> Vec<Recipe> {
    let (samples, channels, side) = (8u32, 64u32, size.pick(16u32, 128));
    let p = GroupNorm::of_batch([samples, channels, side * side], 1e-5);
    let p = p.weights(0, channels, 2 * channels);
    let label = format!("{samples} × {channels} × {side}²");
    let all = |key| floats(p.elements(), key);
    let weights = || floats(2 * channels as usize, 3);
    // Means and variances.
    let moments = || repeated([0.5], 2 * channels as usize);
    let of = |kernel: &'static Kernel<GroupNorm>, buffers: Vec<Contents>| {
        case(kernel, &label, &p, buffers)
    };
    let record = StateRecord::new(1, 0..1, 1, u32::MAX, &Schedule::constant(1e-3));
    let running = RunningMoments {
        channels,
        mean_offset: 0,
        variance_offset: channels,
        stride: 2 * channels,
        momentum: 0.1,
        correction: 1.0,
    };
    let record: Contents = Data::U32(record.to_vec()).into();
    vec![
        of(&GROUP_MOMENTS, vec![all(1), moments()]),
        of(&GROUP_FORWARD, vec![all(1), moments(), weights(), all(2)]),
        of(&GROUP_SUMS, vec![all(1), moments(), weights(), all(2), moments()]),
        of(&GROUP_BACKWARD, vec![all(1), moments(), moments(), weights(), all(2), all(4)]),
        of(&GROUP_BACKWARD_CHANNELS, vec![all(1), moments(), all(2), weights()]),
        case(&RUNNING_MOMENTS, label.as_str(), &running, vec![moments(), record, weights()]),
    ]
}
