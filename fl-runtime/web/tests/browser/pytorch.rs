//! Ten steps from PyTorch's weights, in the browser: the fixtures that every device here is held
//! against (`engine/tests/fixtures/README.md`).

use serde_json::{Value, json};

use crate::chromium::Tab;
use crate::{floats, serve_page, tab_with_module, with_browser};

#[path = "../../../../engine/tests/common/fixture/file.rs"]
mod file;

use file::{Fixture, close};

/// Ten steps of `f32` arithmetic, relative to the largest number and 1.
const TOLERANCE: f64 = 2e-4;
const STEPS: usize = 10;

/// Trains a model step by step, each on a batch of its own, and holds losses and weights.
fn holds(tab: &Tab<'_>, device: &str, name: &str, result: &str, spec: &Value, classes: usize) {
    let [weights, data] = ["weights", "data"].map(|part| Fixture::open(&format!("{name}_{part}")));
    let result = Fixture::open(result);
    let (x, targets) = (data.f32("x"), data.u32("target"));
    let batch = targets.len() / STEPS;
    let options = json!({
        "epochs": 1, "batch": batch, "steps": 1, "learningRate": result.setting("lr"),
        "clipNorm": result.setting("clip"),
        "optimizer": { "sgd": { "momentum": 0.0, "nesterov": false, "weight_decay": 0.0 } },
    });
    let trained = tab.evaluate(&format!(
        "(async () => {{ const device = await tern.Device.open({device:?}); \
         const model = new tern.Model(device, {spec}, 1); \
         await model.load(new Uint8Array({weights})); \
         const [x, targets] = [new Float32Array({x}), new Uint32Array({targets})]; \
         const [rows, width] = [{batch}, x.length / targets.length]; const losses = []; \
         for (let step = 0; step < {STEPS}; step += 1) {{ \
         const part = (all, size) => all.slice(step * size, (step + 1) * size); \
         const samples = await tern.Samples.rows(device, part(x, rows * width), width, \
         part(targets, rows), {classes}); \
         losses.push((await model.fit(samples, {options}, null))[0].loss); }} \
         return [losses, [...await model.save()]]; }})()",
        weights = json!(weights.0),
        x = json!(x),
        targets = json!(targets),
    ));
    let trained = trained.unwrap_or_else(|error| panic!("{name} on {device}: {error}"));
    let wide = |numbers: Vec<f32>| numbers.into_iter().map(f64::from).collect::<Vec<_>>();
    let who = format!("{name} on {device}");
    close(&who, "loss", &wide(floats(&trained[0])), &result.f64("losses"), TOLERANCE);
    let saved = Fixture(serde_json::from_value(trained[1].clone()).unwrap());
    let weights = weights.parse();
    let names = weights.names();
    assert!(!names.is_empty());
    for parameter in names {
        let expected = result.f64(&format!("final.{parameter}"));
        close(&who, parameter, &wide(saved.f32(parameter)), &expected, TOLERANCE);
    }
}

#[test]
fn ten_steps_are_pytorchs() {
    let Some((serving, browser)) = with_browser(serve_page) else { return };
    let linear = |outputs: usize, activation: &str| json!({ "linear": { "outputs": outputs, "activation": activation } });
    let conv = |outputs: usize, kernel: usize, stride: usize| {
        json!({ "conv2d": { "outputs": outputs, "kernel": kernel, "stride": stride, "padding": 1,
                            "activation": "relu" } })
    };
    let pool = |stride: usize| json!({ "max_pool2d": { "kernel": 2, "stride": stride } });
    let features = json!({ "features": { "width": 7 } });
    let image = json!({ "image": { "channels": 2, "height": 11, "width": 7 } });
    let models = [
        (
            ("mlp", "mlp_clipped"),
            json!({ "input": features, "layers": [
                ["norm", "layer_norm"],
                ["linear1", linear(11, "gelu_tanh")],
                ["linear2", linear(3, "identity")],
            ] }),
        ),
        (
            ("rms", "rms_sgd"),
            json!({ "input": features, "layers": [
                ["norm1", "rms_norm"],
                ["linear1", linear(11, "tanh")],
                ["norm2", "rms_norm"],
                ["linear2", linear(3, "identity")],
            ] }),
        ),
        (
            ("cnn", "cnn_sgd"),
            json!({ "input": image, "layers": [
                ["conv1", conv(4, 3, 1)],
                ["pool1", pool(2)],
                ["conv2", conv(5, 2, 2)],
                ["pool2", pool(1)],
                ["flatten", "flatten"],
                ["linear", linear(3, "identity")],
            ] }),
        ),
        (
            ("oblong", "oblong_sgd"),
            json!({ "input": image, "layers": [
                ["conv", { "conv2d": { "outputs": 4, "kernel": [3, 2], "stride": [2, 1],
                                       "padding": [1, 0], "bias": false, "activation": "tanh" } }],
                ["pool", { "average_pool2d": { "kernel": [2, 3], "stride": [1, 2], "padding": 1 } }],
                ["flatten", "flatten"],
                ["linear", linear(3, "identity")],
            ] }),
        ),
    ];
    for device in ["cpu", "software"] {
        let tab = tab_with_module(&browser, &serving);
        for ((name, result), spec) in &models {
            holds(&tab, device, name, result, spec, 3);
        }
        tab.close();
    }
}
