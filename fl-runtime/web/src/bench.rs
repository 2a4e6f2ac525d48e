//! Every kernel's cases on a device of the browser, as a report of the bench suite.

use serde_json::{Value, json};
use tern_engine::Kind;
use tern_engine::ops::{Case, cases};
use tern_shaders::{AnyKernel, Variant};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsError, JsValue};

use crate::device::Device;
use crate::json;

/// Version of the reports' schema, as the bench suite has it.
const SCHEMA: u32 = 2;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
/** All cases of a kernel against the reference in double precision. */
export interface Check {
    kernel: string;
    /** Cases computed, each by every variant that takes it. */
    cases: number;
    /** Largest error, relative to the largest magnitude of a result (at least 1). */
    error: number;
    /** Largest fraction of words that differ. */
    words_differing: number;
    /** What was wrong. */
    faults: string[];
}
/** A report of the bench suite with the checks of one device. */
export interface Report {
    schema: number;
    devices: { adapter: { name: string; kind: string; backend: string }; checks: Check[] }[];
    [key: string]: unknown;
}
"#;

/// Holds the cases of every kernel whose name contains `filter` against the reference, by each
/// variant that the device has what it needs for. `each` is told of every kernel that is done.
#[wasm_bindgen(unchecked_return_type = "Report")]
pub async fn checks(
    device: &Device,
    filter: Option<String>,
    #[wasm_bindgen(unchecked_param_type = "((check: Check) => void) | null")] each: Option<
        js_sys::Function,
    >,
) -> Result<JsValue, JsError> {
    let all = cases();
    let filter = filter.unwrap_or_default();
    let mut checks = Vec::new();
    for kernel in tern_shaders::kernels().filter(|kernel| kernel.name.contains(&filter)) {
        let own = all.iter().filter(|case| case.kernel.name == kernel.name);
        let check = check(&device.0, kernel, own).await;
        if let Some(each) = &each {
            each.call1(&JsValue::NULL, &json::write(&check)?)
                .map_err(|_| JsError::new("what is told of checks has thrown"))?;
        }
        checks.push(check);
    }
    json::write(&report(&device.0, checks))
}

async fn check(
    device: &tern_engine::Device,
    kernel: &AnyKernel,
    own: impl Iterator<Item = &Case>,
) -> Value {
    let (mut count, mut error, mut words_differing) = (0, 0.0f64, 0.0f64);
    let mut faults = Vec::new();
    for case in own {
        let params = bytemuck::cast_slice(&case.params);
        let fits = |variant: &&Variant| device.takes(variant, params);
        let mut variants: Vec<_> =
            kernel.variants.iter().filter(fits).map(|variant| Some(variant.name)).collect();
        if device.profile().kind == Kind::Cpu {
            variants = vec![None];
        }
        if variants.is_empty() {
            continue;
        }
        count += 1;
        let expected = case.expected();
        for variant in variants {
            let case = Case { variant, ..case.clone() };
            match case.check_against_async(device, &expected).await {
                Ok(found) => {
                    error = error.max(found.error);
                    words_differing = words_differing.max(found.words_differing);
                }
                Err(e) => faults.push(format!("{}: {e}", variant.unwrap_or("cpu"))),
            }
        }
    }
    json!({
        "kernel": kernel.name,
        "cases": count,
        "error": error,
        "words_differing": words_differing,
        "faults": faults,
    })
}

fn report(device: &tern_engine::Device, checks: Vec<Value>) -> Value {
    let adapter = device.summary();
    let limit = |bytes: u64| (bytes != u64::MAX).then_some(bytes);
    json!({
        "schema": SCHEMA,
        "tool": concat!("tern-web ", env!("CARGO_PKG_VERSION")),
        "commit": "",
        "time": (js_sys::Date::now() / 1e3) as u64,
        "quick": false,
        "host": { "os": "browser", "arch": "wasm32", "cpu": "", "cores": 1 },
        "devices": [{
            "adapter": {
                "name": adapter.name,
                "kind": format!("{:?}", adapter.kind).to_lowercase(),
                "backend": adapter.backend,
                "driver": adapter.driver,
                "max_binding": limit(adapter.max_binding),
                "max_buffer": limit(adapter.max_buffer),
                "workgroup_memory": adapter.workgroup_memory,
                "invocations": adapter.invocations,
                "subgroups": adapter.subgroups,
                "features": adapter.features,
            },
            "roofline": null,
            "checks": checks,
        }],
    })
}
