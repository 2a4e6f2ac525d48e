//! What the integration tests share.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod fixture;
pub mod models;

use tern_engine::{Device, DeviceOptions, Kind, Select};

/// Opens software Vulkan; `None` where there is none, unless TERN_TEST_GPU=1 says that there
/// must be.
pub fn software(portable: bool) -> Option<Device> {
    let options = DeviceOptions::new(Select::Kind(Kind::Software)).portable(portable).checked(true);
    match pollster::block_on(Device::open(&options)) {
        Ok(device) => Some(device),
        Err(e) if std::env::var("TERN_TEST_GPU").is_ok_and(|v| v == "1") => {
            panic!("TERN_TEST_GPU=1, but {e}")
        }
        Err(e) => {
            eprintln!("GPU part skipped: {e}");
            None
        }
    }
}

/// The devices that compute in `f32`: the CPU, and software Vulkan with full and with
/// portable limits.
pub fn devices() -> Vec<Device> {
    let gpus = [software(false), software(true)];
    [Device::cpu()].into_iter().chain(gpus.into_iter().flatten()).collect()
}

/// Numbers in [−1, 1), the same for the same key.
pub fn floats(n: usize, key: u32) -> Vec<f32> {
    use tern_shaders::kernels::random::{pcg4d, uniform};
    (0..n as u32).map(|i| 2.0 * uniform(pcg4d([i, key, 3, 4])[0]) - 1.0).collect()
}

/// Tokens below `vocabulary`, the same for the same key.
pub fn tokens(n: usize, vocabulary: u32, key: u32) -> Vec<u32> {
    use tern_shaders::kernels::random::pcg4d;
    (0..n as u32).map(|i| pcg4d([i, key, 8, 1])[0] % vocabulary).collect()
}
