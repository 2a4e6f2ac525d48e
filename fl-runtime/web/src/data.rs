//! Samples, on a device.

use tern_engine::{RowData, TextData, TextWindows};
use tern_protocol::trainer::LocalData;
use wasm_bindgen::JsError;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::device::Device;

/// Samples to train on. They are on the device and stay there.
#[wasm_bindgen]
pub struct Samples(pub(crate) LocalData);

#[wasm_bindgen]
impl Samples {
    /// Rows of `width` numbers, each with a class below `classes`.
    pub async fn rows(
        device: &Device,
        features: Vec<f32>,
        width: usize,
        labels: Vec<u32>,
        classes: usize,
    ) -> Result<Samples, JsError> {
        let rows = RowData::upload_async(&device.0, &features, width, &labels, classes).await?;
        Ok(Samples(LocalData::Rows(rows)))
    }

    /// A text of tokens below `vocabulary`, read in windows of `steps`, whose next tokens are to be
    /// predicted.
    pub async fn text(
        device: &Device,
        tokens: Vec<u32>,
        vocabulary: usize,
        steps: usize,
    ) -> Result<Samples, JsError> {
        let windows = TextWindows::new(vocabulary, steps);
        let text = TextData::upload_async(&device.0, &[tokens], windows).await?;
        Ok(Samples(LocalData::Text(text)))
    }

    /// Number of samples: rows, or windows.
    #[wasm_bindgen(getter)]
    pub fn length(&self) -> usize {
        self.0.len()
    }
}
