//! What the kernels' tests share: every case on every device, and finite differences.

use std::sync::OnceLock;

use tern_shaders::kernels::random::{pcg4d, uniform};
use tern_shaders::{Element, Variant};

use super::Case;
use crate::{
    Arena, Data, Device, DeviceOptions, Flat, Graph, Init, Kind, Parameters, Result, Select,
    Tensor, Trainable,
};

/// Software Vulkan with shader checks: full limits first, then the portable profile. Empty
/// where there is none, unless TERN_TEST_GPU says that there must be.
pub(crate) fn software() -> &'static [(&'static str, Device)] {
    static DEVICES: OnceLock<Vec<(&'static str, Device)>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let required = std::env::var("TERN_TEST_GPU").is_ok_and(|v| v == "1");
        let mut devices = Vec::new();
        for (name, portable) in [("software", false), ("portable", true)] {
            let options = DeviceOptions {
                select: Select::Kind(Kind::Software),
                portable,
                checked: true,
                ..Default::default()
            };
            match pollster::block_on(Device::open(&options)) {
                Ok(device) => devices.push((name, device)),
                Err(e) if required => panic!("TERN_TEST_GPU=1, but {e}"),
                Err(e) => eprintln!("GPU tests skipped: {e}"),
            }
        }
        devices
    })
}

/// Random floats in [−scale, scale), the same for the same key.
pub(crate) fn floats(n: usize, scale: f32, key: u32) -> Vec<f32> {
    (0..n as u32).map(|i| scale * (2.0 * uniform(pcg4d([i, key, 5, 9])[0]) - 1.0)).collect()
}

/// Runs every case on the `Cpu` device, and on software Vulkan with each variant that fits.
/// Every failure is listed.
pub(crate) fn run_cases(cases: &[Case]) {
    let mut faults = Vec::new();
    let mut check = |device: &Device, name: &str, case: &Case| {
        if let Err(e) = case.check(device) {
            faults.push(format!("{name}: {e}"));
        }
    };
    for case in cases {
        check(&Device::reference(), "reference f32", case);
        check(&Device::cpu(), "cpu", case);
    }
    for (name, device) in software() {
        for case in cases {
            let params = bytemuck::cast_slice(&case.params);
            let fits = |v: &&Variant| device.takes(v, params);
            for variant in case.kernel.variants.iter().filter(fits) {
                let case = case.clone().variant(variant.name);
                check(device, &format!("{name}, {}", variant.name), &case);
            }
        }
    }
    assert!(!cases.is_empty());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Holds the gradients of an op against central differences, in `f64` by the references. The op
/// sits behind inputs of the given shapes; its output meets random upstream gradients, so
/// no coefficient is one.
pub(crate) fn gradient_check(
    shapes: &[&[usize]],
    record: impl Fn(&mut Graph, &[Tensor]) -> Result<Tensor>,
) {
    gradient_check_with(&Parameters::new(), shapes, record);
}

/// As [`gradient_check`], for an op with parameters too.
pub(crate) fn gradient_check_with(
    parameters: &Parameters,
    shapes: &[&[usize]],
    record: impl Fn(&mut Graph, &[Tensor]) -> Result<Tensor>,
) {
    let mut parameters = parameters.clone();
    if parameters.is_empty() {
        parameters.add("unused", &[1], Init::Zeros).unwrap();
    }
    let arena = Arena::new(&Device::reference_f64(), &parameters, &[11]).unwrap();
    let mut graph = Graph::new(&arena);
    let inputs: Vec<Tensor> =
        shapes.iter().map(|shape| graph.input("x", shape, Element::F32)).collect();
    let output = record(&mut graph, &inputs).unwrap();
    graph.keep(output);
    let shape = graph.shape(output).to_vec();
    let seed = graph.input("dy", &shape, Element::F32);
    let upstream: Vec<f64> =
        floats(graph.len(output), 2.0, 77).into_iter().map(f64::from).collect();
    let lens: Vec<usize> = inputs.iter().map(|x| graph.len(*x)).collect();
    let (mut plan, gradients) =
        graph.gradients(&[(output, seed)], &Trainable::All, &inputs).unwrap();
    let write = |plan: &mut crate::Plan, tensor, values: &[f64]| {
        plan.write(tensor, &Data::F32(values.iter().map(|x| *x as f32).collect())).unwrap();
    };
    write(&mut plan, seed, &upstream);
    // Exact in f32, so that a difference of two of them is exact too.
    let step = 1.0 / 1024.0;
    let mut values: Vec<Vec<f64>> = lens
        .iter()
        .enumerate()
        .map(|(i, n)| {
            let raw = floats(*n, 1.0, i as u32);
            raw.into_iter().map(|x| f64::from((x * 4096.0).round() / 4096.0)).collect()
        })
        .collect();
    for (input, values) in inputs.iter().zip(&values) {
        write(&mut plan, *input, values);
    }
    plan.run(1).unwrap();
    let analytic: Vec<Option<Vec<f64>>> =
        gradients.iter().map(|g| g.map(|g| plan.read_f64(g).unwrap())).collect();
    let weight_gradients = arena.read_f64(Flat::Gradients, 0).unwrap();
    let value = |plan: &mut crate::Plan| -> f64 {
        plan.run(1).unwrap();
        plan.read_f64(output).unwrap().iter().zip(&upstream).map(|(y, d)| y * d).sum()
    };
    let compare = |what: String, analytic: f64, numeric: f64| {
        let error = (analytic - numeric).abs() / (1.0 + analytic.abs().max(numeric.abs()));
        assert!(error < 2e-5, "{what}: gradient {analytic}, difference quotient {numeric}");
    };
    let sampled = |n: usize| (0..n).step_by(n.div_ceil(60).max(1));
    for (i, input) in inputs.iter().enumerate() {
        let Some(analytic) = &analytic[i] else { continue };
        for at in sampled(lens[i]) {
            let x = values[i][at];
            let mut difference = 0.0;
            // Five-point stencil: the error is of fourth order in the step.
            for (k, weight) in [(-2.0, 1.0), (-1.0, -8.0), (1.0, 8.0), (2.0, -1.0)] {
                values[i][at] = x + k * step;
                write(&mut plan, *input, &values[i]);
                difference += weight * value(&mut plan);
            }
            values[i][at] = x;
            compare(format!("input {i}[{at}]"), analytic[at], difference / (12.0 * step));
        }
        write(&mut plan, *input, &values[i]);
    }
    let mut flat = arena.read_f64(Flat::Parameters, 0).unwrap();
    for param in parameters.iter().filter(|p| *p.name != *"unused") {
        for at in sampled(param.len()).map(|at| param.offset + at) {
            let w = flat[at];
            let mut difference = 0.0;
            for (k, weight) in [(-2.0, 1.0), (-1.0, -8.0), (1.0, 8.0), (2.0, -1.0)] {
                flat[at] = w + k * step;
                arena.write_f64(Flat::Parameters, 0, &flat).unwrap();
                difference += weight * value(&mut plan);
            }
            flat[at] = w;
            let what = format!("{}[{}]", param.name, at - param.offset);
            compare(what, weight_gradients[at], difference / (12.0 * step));
        }
        arena.write_f64(Flat::Parameters, 0, &flat).unwrap();
    }
}

/// 64 words (a shared buffer's length is a multiple of that) as a tensor, for tests of ops
/// that take tokens or classes.
pub(crate) fn constant_words(graph: &mut Graph, words: Vec<u32>) -> Tensor {
    assert_eq!(words.len(), 64);
    let device = graph.arena.device().clone();
    let buffer = pollster::block_on(device.upload("words", &Data::U32(words))).unwrap();
    graph.shared("words", &buffer)
}

/// Holds outputs and gradients of recurrent layers on every device, a dispatch a sequence and one a
/// step, against the reference.
pub(crate) fn walks_agree(run: impl Fn(&Device, bool) -> (Vec<f64>, Vec<f64>)) {
    let (y, gradients) = run(&Device::reference_f64(), true);
    let mut runs =
        vec![("cpu", run(&Device::cpu(), true)), ("steps", run(&Device::reference(), false))];
    for (name, device) in software() {
        runs.push((name, run(device, true)));
        runs.push((name, run(device, false)));
    }
    for (name, found) in runs {
        for (found, expected) in [(found.0, &y), (found.1, &gradients)] {
            assert_eq!(found.len(), expected.len());
            for (a, b) in found.iter().zip(expected) {
                assert!((a - b).abs() < 1e-5, "{name}: {a} {b}");
            }
        }
    }
}
