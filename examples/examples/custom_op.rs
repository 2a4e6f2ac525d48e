//! A kernel of one's own: SiLU, y = x σ(x) (Elfwing et al. 2018), in WGSL with a reference
//! implementation and a gradient, checked and then trained with. Nothing of Tern is changed.
//!
//! `cargo run --release -p tern-examples --example custom_op`

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use anyhow::{Result, ensure};
use tern_engine::nn::{Linear, LinearConfig};
use tern_engine::{
    Arena, Batching, Data, Device, Element, Graph, Optimizer, Parameters, RowData, Tensor,
    Trainable, Training,
};
use tern_shaders::{Real, kernel, linear_grid, params};

params!(
    /// Parameters of both kernels.
    Silu {
        /// Elements a replica.
        n: u32,
        /// 1 where the gradient is added to what is there.
        accumulate: u32,
    }
);

fn silu<F: Real>(_: &Silu, _: usize, x: &[F], y: &mut [F]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y = *x / (F::one() + (-*x).exp()));
}

fn silu_backward<F: Real>(p: &Silu, _: usize, x: &[F], dy: &[F], dx: &mut [F]) {
    for ((dx, dy), x) in dx.iter_mut().zip(dy).zip(x) {
        let s = F::one() / (F::one() + (-*x).exp());
        let before = if p.accumulate == 0 { F::zero() } else { *dx };
        *dx = before + *dy * s * (F::one() + *x * (F::one() - s));
    }
}

kernel! {
    /// y = x σ(x)
    FORWARD = "example/silu", Silu;
    bindings: [x: read f32, y: write f32];
    reference: silu;
    variants: [{
        name: "plain", source: "examples/custom_op/silu.wgsl", preludes: [INDEX],
        consts: [GROUP = 64], grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// dx (+)= dy σ(x) (1 + x (1 − σ(x)))
    BACKWARD = "example/silu_backward", Silu;
    bindings: [x: read f32, dy: read f32, dx: write f32];
    reference: silu_backward;
    variants: [{
        name: "plain", source: "examples/custom_op/silu_backward.wgsl", preludes: [INDEX],
        consts: [GROUP = 64], grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

/// The op: it records its kernel, and what its gradient takes.
fn record(graph: &mut Graph, x: Tensor) -> Tensor {
    let (n, shape) = (graph.len(x) as u32, graph.shape(x).to_vec());
    let y = graph.tensor("silu", &shape, Element::F32);
    graph.dispatch(&FORWARD, &Silu { n, accumulate: 0 }, &[x.into(), y.into()]);
    graph.on_backward(&[x], &[], &[y], move |b| {
        if let (Some(dy), Some((dx, accumulate))) = (b.gradient(y), b.target(x)) {
            b.dispatch(&BACKWARD, &Silu { n, accumulate }, &[x.into(), dy.into(), dx.into()]);
        }
        Ok(())
    });
    y
}

/// Values and gradients of Σ silu(x) + silu(x).
fn values(device: &Device, parameters: &Parameters, x: &[f32]) -> Result<[Vec<f64>; 2]> {
    let mut graph = Graph::new(&Arena::new(device, parameters, &[1])?);
    let input = graph.input("x", &[x.len()], Element::F32);
    let (first, second) = (record(&mut graph, input), record(&mut graph, input));
    let sum = graph.add(first, second).map(|sum| graph.keep(sum))?;
    let seeds = [(sum, graph.constant(1.0, &[x.len()]))];
    let (mut plan, gradients) = graph.gradients(&seeds, &Trainable::All, &[input])?;
    plan.write(input, &Data::F32(x.to_vec()))?;
    plan.run(1)?;
    Ok([plan.read_f64(sum)?, plan.read_f64(gradients[0].unwrap_or(input))?])
}

fn main() -> Result<()> {
    let device = Device::from_env()?;
    let mut parameters = Parameters::new();
    let hidden = Linear::new(&mut parameters, "hidden", LinearConfig::new(2, 32))?;
    let output = Linear::new(&mut parameters, "output", LinearConfig::new(32, 2))?;

    // The device against the reference in double precision, and that against differences.
    let x: Vec<f32> = (-40..40).map(|i| i as f32 / 4.0).collect();
    let [found, slopes] = values(&device, &parameters, &x)?;
    let near = |by: f32| x.iter().map(|x| x + by).collect::<Vec<f32>>();
    let double = |by| values(&Device::reference_f64(), &parameters, &near(by));
    let [[value, slope], [more, _], [less, _]] = [double(0.0)?, double(0.0625)?, double(-0.0625)?];
    for (i, (y, dx)) in found.iter().zip(&slopes).enumerate() {
        let off = (y - value[i]).abs().max((dx - slope[i]).abs());
        let by_differences = (slope[i] - (more[i] - less[i]) / 0.125).abs();
        ensure!(off < 1e-5 && by_differences < 2e-3, "silu({}) is {y}, its slope {dx}", x[i]);
    }
    println!("values and gradients on {} are those in double precision", device.name());

    // Inside or outside of a circle.
    let points: Vec<f32> = (0..800).map(|i| (i * 577 % 401) as f32 / 200.0 - 1.0).collect();
    let labels: Vec<u32> = points.chunks(2).map(|p| u32::from(p[0].hypot(p[1]) < 0.7)).collect();
    let data = RowData::upload(&device, &points, 2, &labels, 2)?;
    let mut graph = Graph::new(&Arena::new(&device, &parameters, &[1])?);
    let (inputs, targets) = graph.row_batch(&data, &Batching::shuffled(40))?;
    let x = hidden.forward(&mut graph, inputs).map(|x| record(&mut graph, x))?;
    let logits = output.forward(&mut graph, x)?;
    let loss = graph.cross_entropy(logits, targets)?;
    let mut training = graph.train(loss, &Training::new(Optimizer::adam(), 0.02))?;
    println!("after 800 steps: loss {:.3}", training.run(800)?.last().unwrap_or(f32::NAN));
    Ok(())
}
