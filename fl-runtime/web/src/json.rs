//! Plain values of JavaScript as values of Rust, by way of JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;
use wasm_bindgen::{JsError, JsValue};

/// Reads a value; `what` names it in the error.
pub fn read<T: DeserializeOwned>(what: &str, value: &JsValue) -> Result<T, JsError> {
    let text = js_sys::JSON::stringify(value).ok().and_then(|text| text.as_string());
    let text = text.ok_or_else(|| JsError::new(&format!("{what} is no plain value")))?;
    serde_json::from_str(&text).map_err(|e| JsError::new(&format!("{what}: {e}")))
}

/// Makes a value for JavaScript.
pub fn write(value: &impl Serialize) -> Result<JsValue, JsError> {
    let text = serde_json::to_string(value)?;
    js_sys::JSON::parse(&text).map_err(|_| JsError::new("JSON that can't be read back"))
}

/// Calls a function with a value: what it returns, `None` if it throws.
pub fn tell(function: &js_sys::Function, value: &impl Serialize) -> Option<JsValue> {
    function.call1(&JsValue::NULL, &write(value).ok()?).ok()
}
