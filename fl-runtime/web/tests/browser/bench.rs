//! The bench suite on the browser's devices.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::json;
use tern_benches::report::{Check, Outcome, Report, Row};

use crate::{COMPUTING, FUSED, serve_page, tab_with, tab_with_module, with_browser};

/// Kernels with a case that a browser computes otherwise, and what its message says.
const EXCEPTIONS: &[(&str, &str)] = &[];

#[test]
fn every_kernel_is_right_on_every_device() {
    let Some((serving, browser)) = with_browser(serve_page) else { return };
    for (device, build) in COMPUTING {
        let tab = tab_with(&browser, &serving, build);
        let began = Instant::now();
        let said = tab
            .evaluate(&format!(
                "tern.Device.open({device:?}).then(device => tern.bench(device, {{ parts: ['checks'] }}, null))"
            ))
            .unwrap();
        // As the suite's own command reads it.
        let report: Report = serde_json::from_value(said).unwrap();
        let adapter = &report.devices[0].adapter;
        eprintln!("{adapter:?}, {build}, in {:.1} s", began.elapsed().as_secs_f64());
        if let Ok(folder) = std::env::var("TERN_BROWSER_REPORTS") {
            let fused = if build == FUSED { "" } else { "-unfused" };
            let path = std::path::Path::new(&folder).join(format!("{device}{fused}.json"));
            report.write(&path).unwrap();
        }
        let checks = report.devices[0].checks.iter();
        let by_kernel: BTreeMap<&str, &Check> =
            checks.map(|check| (check.kernel.as_str(), check)).collect();
        let mut faults = Vec::new();
        for kernel in tern_shaders::kernels() {
            let Some(check) = by_kernel.get(kernel.name) else {
                faults.push(format!("{}: not checked", kernel.name));
                continue;
            };
            // All its variants may need what the device lacks: numbers of 16 bits, say.
            let portable = kernel.variants.iter().any(|variant| variant.features.is_empty());
            if check.cases == 0 && (device == "cpu" || portable) {
                faults.push(format!("{}: no case", kernel.name));
            }
            let excepted = |fault: &str| {
                EXCEPTIONS.iter().any(|(name, said)| *name == kernel.name && fault.contains(said))
            };
            faults.extend(check.faults.iter().filter(|fault| !excepted(fault)).cloned());
        }
        assert!(
            faults.is_empty(),
            "{device}, {build}, {} faults:\n{}",
            faults.len(),
            faults.join("\n")
        );
        tab.close();
    }
}

/// On a GPU that no thread can wait for.
#[test]
fn kernels_and_training_steps_are_timed_on_a_gpu() {
    let Some((serving, browser)) = with_browser(serve_page) else { return };
    let tab = tab_with_module(&browser, &serving);
    tab.evaluate("tern.Device.open('software').then(device => { globalThis.device = device; })")
        .unwrap();
    let bench = |part: &str, filter: &str| -> Report {
        let options = json!({ "parts": [part], "filter": filter, "quick": true });
        let said = tab.evaluate(&format!("tern.bench(device, {options}, null)")).unwrap();
        serde_json::from_value(said).unwrap()
    };
    let report = bench("kernels", "matmul/nn");
    let device = &report.devices[0];
    let roofline = device.roofline.as_ref().unwrap();
    assert!(roofline.bandwidth.is_some() && roofline.single.is_some(), "{roofline:?}");
    let timed = |row: &Row| matches!(row.outcome, Outcome::Timed(_));
    assert!(device.kernels.iter().all(timed) && !device.kernels.is_empty(), "{report:?}");
    let report = bench("training", "mlp");
    let [training] = &report.devices[0].training[..] else { panic!("{report:?}") };
    assert!(training.step.median > 0.0 && training.losses[1].is_finite(), "{training:?}");
}
