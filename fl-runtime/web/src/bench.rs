//! The bench suite on a device of the browser.

use anyhow::anyhow;
use serde::Deserialize;
use serde_json::json;
use tern_benches::Watch;
use tern_benches::budget::Budget;
use tern_benches::device::{Request, conclude, measure};
use tern_benches::kernels::Variants;
use tern_benches::report::{Check, Host, Report, SCHEMA};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsError, JsValue};

use crate::device::Device;
use crate::json;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
/** A part of the bench suite: what the device can do at most, all cases of every kernel, kernels
 *  by the clock, training steps by the clock. */
export type BenchPart = "roofline" | "checks" | "kernels" | "training";
/** What to measure. */
export interface BenchOptions {
    /** All if left out. */
    parts?: BenchPart[];
    /** Kernels and models whose name contains this; all if left out. */
    filter?: string;
    /** Smaller sizes and fewer repetitions. */
    quick?: boolean;
}
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
/** What the suite tells while it runs. */
export type BenchEvent =
    | { part: string }
    | { done: number; all: number; what: string }
    | { check: Check };
/** A report of the bench suite of one device; `tern-benches report` reads it. */
export interface Report {
    schema: number;
    quick: boolean;
    devices: {
        adapter: { name: string; kind: string; backend: string };
        roofline: { bandwidth: number | null; single: number | null; half: number | null } | null;
        checks: Check[];
        kernels: { kernel: string; sizes: string; outcome: "timed" | "failed" | "not_run";
                   [key: string]: unknown }[];
        training: { workload: string; step: { median: number }; [key: string]: unknown }[];
    }[];
    [key: string]: unknown;
}
"#;

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Part {
    Roofline,
    Checks,
    Kernels,
    Training,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    parts: Option<Vec<Part>>,
    filter: Option<String>,
    quick: bool,
}

/// Runs the bench suite. `each` is told of what goes on, and ends it by an error that it throws.
/// A check computes a case by every variant that the device has what it needs for.
#[wasm_bindgen(unchecked_return_type = "Report")]
pub async fn bench(
    device: &Device,
    #[wasm_bindgen(unchecked_param_type = "BenchOptions")] options: JsValue,
    #[wasm_bindgen(unchecked_param_type = "((event: BenchEvent) => void) | null")] each: Option<
        js_sys::Function,
    >,
) -> Result<JsValue, JsError> {
    let options: Options = json::read("options", &options)?;
    let wants = |part| options.parts.as_ref().is_none_or(|parts| parts.contains(&part));
    let request = Request {
        // Shares of the roofline need it.
        roofline: wants(Part::Roofline) || wants(Part::Kernels),
        checks: wants(Part::Checks).then_some(Variants::Every),
        kernels: wants(Part::Kernels),
        training: wants(Part::Training),
        budget: Budget { quick: options.quick },
        threads: 1,
        filter: options.filter.as_deref(),
    };
    let time = (js_sys::Date::now() / 1e3) as u64;
    let mut told = Told { each, failed: false };
    let mut measured =
        measure(&device.0, &request, &mut told).await.map_err(|e| JsError::new(&e.to_string()))?;
    if told.failed {
        return Err(JsError::new("what is told of the suite has thrown"));
    }
    conclude(&device.0, &mut measured);
    let (os, arch) = ("browser".into(), "wasm32".into());
    json::write(&Report {
        schema: SCHEMA,
        tool: concat!("tern-web ", env!("CARGO_PKG_VERSION")).into(),
        commit: String::new(),
        time,
        quick: options.quick,
        host: Host { os, arch, cpu: String::new(), cores: 1 },
        devices: vec![measured],
        peers: Vec::new(),
    })
}

/// Whoever is told, and whether they have thrown.
struct Told {
    each: Option<js_sys::Function>,
    failed: bool,
}

impl Told {
    fn tell(&mut self, event: &serde_json::Value) {
        if let Some(each) = &self.each {
            self.failed |= json::tell(each, event).is_none();
        }
    }
}

impl Watch for Told {
    fn part(&mut self, what: &str) {
        self.tell(&json!({ "part": what }));
    }

    fn step(&mut self, done: usize, all: usize, what: &str) {
        self.tell(&json!({ "done": done, "all": all, "what": what }));
    }

    fn checked(&mut self, check: &Check) {
        self.tell(&json!({ "check": check }));
    }

    fn timed(
        &mut self,
        _: &tern_engine::Device,
        _: (&str, &str),
        _: std::time::Duration,
        _: &str,
    ) -> anyhow::Result<()> {
        match self.failed {
            true => Err(anyhow!("what is told of the suite has thrown")),
            false => Ok(()),
        }
    }

    /// WebAssembly's memory, which only grows.
    fn mark(&mut self) -> u64 {
        self.peak()
    }

    fn peak(&mut self) -> u64 {
        core::arch::wasm32::memory_size(0) as u64 * 65_536
    }
}
