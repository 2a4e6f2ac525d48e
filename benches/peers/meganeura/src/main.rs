//! Times in meganeura what `tern-benches step` times in Tern: the same sizes, the loss read in every
//! step. Prints one JSON object. Arguments are parts of the names to time; without one, all are but
//! those that take minutes.

use std::time::{Duration, Instant};

use meganeura::models::smollm2::{SmolLM2Config, build_training_graph};
use meganeura::{Graph, Session, SessionConfig};

/// Median seconds of a training step by SGD: two to warm up, then three at least.
fn step_seconds(session: &mut Session) -> f64 {
    session.set_learning_rate(0.01);
    let mut run = || {
        let start = Instant::now();
        session.step();
        session.wait();
        // It waits for everything before.
        assert!(session.read_loss().is_finite(), "the loss isn't finite");
        start.elapsed().as_secs_f64()
    };
    run();
    run();
    let (begin, mut seconds) = (Instant::now(), Vec::new());
    while seconds.len() < 3 || (seconds.len() < 200 && begin.elapsed() < Duration::from_secs(10)) {
        seconds.push(run());
    }
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// A session with small parameters that differ.
fn session(graph: &Graph) -> Session {
    let mut session = meganeura::build(graph, SessionConfig::from_env()).0;
    for (name, buffer) in session.plan().param_buffers.clone() {
        let n = session.plan().buffers[buffer.0 as usize] / 4;
        let values: Vec<f32> = (0..n).map(|i| 0.05 * (0.37 * i as f32).sin()).collect();
        session.set_parameter(&name, &values);
    }
    session
}

fn tokens(n: usize, below: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 7919) % below) as u32).collect()
}

/// Targets as meganeura takes them.
fn one_hot(n: usize, classes: usize) -> Vec<f32> {
    let mut rows = vec![0.0; n * classes];
    for (row, class) in tokens(n, classes).into_iter().enumerate() {
        rows[row * classes + class as usize] = 1.0;
    }
    rows
}

fn smollm2() -> Session {
    let (config, steps) = (SmolLM2Config::smollm2_135m(), 128);
    let mut session = session(&build_training_graph(&config, steps));
    session.set_input_u32("token_ids", &tokens(steps, config.vocab_size));
    session.set_input("labels", &one_hot(steps, config.vocab_size));
    session
}

fn perceptron() -> Session {
    let (batch, sizes) = (64, [784, 256, 128, 10]);
    let mut graph = Graph::new();
    let mut x = graph.input("x", &[batch, sizes[0]]);
    for (layer, width) in sizes.windows(2).enumerate() {
        let weight = graph.parameter(&format!("weight{layer}"), width);
        let bias = graph.parameter(&format!("bias{layer}"), &width[1..]);
        let product = graph.matmul(x, weight);
        x = graph.bias_add(product, bias);
        if layer + 2 < sizes.len() {
            x = graph.relu(x);
        }
    }
    let labels = graph.input("labels", &[batch, sizes[3]]);
    let loss = graph.cross_entropy_loss(x, labels);
    graph.set_outputs(vec![loss]);
    let mut session = session(&graph);
    let noise: Vec<f32> = (0..batch * sizes[0]).map(|i| (1.7 * i as f32).sin()).collect();
    session.set_input("x", &noise);
    session.set_input("labels", &one_hot(batch, sizes[3]));
    session
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let (mut seconds, mut device) = (serde_json::Map::new(), None);
    let mut row = |name: &str, large: bool, make: fn() -> Session| {
        let is_named = wanted.iter().any(|part| name.contains(part.as_str()));
        if is_named || (wanted.is_empty() && !large) {
            let mut session = make();
            let time = step_seconds(&mut session);
            eprintln!("meganeura: {name} {:.1} ms", 1e3 * time);
            seconds.insert(name.into(), time.into());
            let found = session.device_information();
            device = Some((found.device_name.clone(), found.is_software_emulated));
        }
    };
    row("mlp", false, perceptron);
    row("smollm2-135m", true, smollm2);
    let Some((name, software)) = device else {
        return;
    };
    let found = serde_json::json!({
        "peer": format!("meganeura 0.3, {name}"),
        "software": software,
        "gpu": !software,
        "seconds": seconds,
    });
    println!("{found}");
}
