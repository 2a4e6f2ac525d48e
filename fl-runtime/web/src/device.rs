//! What trains.

use tern_engine::{DeviceOptions, Select};
use wasm_bindgen::JsError;
use wasm_bindgen::prelude::wasm_bindgen;

/// What models train on: the browser's GPU, or the CPU.
#[wasm_bindgen]
pub struct Device(pub(crate) tern_engine::Device);

#[wasm_bindgen]
impl Device {
    /// Opens a device: `"best"` takes the GPU, or the CPU where the browser has none; `"cpu"` the
    /// CPU; `"gpu"` the GPU; `"software"` a GPU that the browser computes in software, for tests.
    pub async fn open(which: Option<String>) -> Result<Device, JsError> {
        let select = match which.as_deref() {
            None | Some("best") => Select::Best,
            Some(which) => which.parse()?,
        };
        Ok(Device(tern_engine::Device::open(&DeviceOptions::new(select)).await?))
    }

    /// One line that says what it is.
    #[wasm_bindgen(getter)]
    pub fn name(&self) -> String {
        self.0.name()
    }

    /// `"discrete"`, `"integrated"`, `"virtual"` (browsers don't tell these apart), `"cpu"` or
    /// `"software"`.
    #[wasm_bindgen(getter)]
    pub fn kind(&self) -> String {
        format!("{:?}", self.0.profile().kind).to_lowercase()
    }
}
