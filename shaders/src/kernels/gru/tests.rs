use super::*;
use crate::kernels::random::{pcg4d, uniform};

/// A layer with its buffers in the kernels' shapes.
#[derive(Clone)]
struct Layer {
    forward: Forward,
    replicas: usize,
    weights: Vec<f64>,
    hs: Vec<f64>,
    pre: Vec<f64>,
}

/// Numbers in [-1, 1).
fn random(n: usize, stream: u32) -> Vec<f64> {
    (0..n).map(|i| f64::from(uniform(pcg4d([i as u32, stream, 0, 0])[0])) * 2.0 - 1.0).collect()
}

fn layer(replicas: usize, steps: usize, batch: usize, hidden: usize) -> Layer {
    let width = GATES * hidden;
    let (w_offset, b_offset) = (64, 64 + (width * hidden).next_multiple_of(64));
    let stride = b_offset + width.next_multiple_of(64);
    Layer {
        forward: Forward {
            t: 0,
            steps: steps as u32,
            batch: batch as u32,
            hidden: hidden as u32,
            w_offset,
            b_offset: b_offset as u32,
            stride: stride as u32,
        },
        replicas,
        weights: random(replicas * stride, 1),
        hs: random(replicas * (steps + 1) * batch * hidden, 2),
        pre: random(replicas * steps * batch * width, 3),
    }
}

/// What a forward run leaves.
struct Ran {
    gates: Vec<f64>,
    recurrent: Vec<f64>,
    hs: Vec<f64>,
    y: Vec<f64>,
}

impl Layer {
    fn state(&self) -> usize {
        (self.forward.batch * self.forward.hidden) as usize
    }

    fn run(&self) -> Ran {
        let (mut gates, mut hs) = (self.pre.clone(), self.hs.clone());
        let mut y = vec![0.0; self.replicas * self.forward.steps as usize * self.state()];
        let mut recurrent = y.clone();
        let (p, w) = (&self.forward, &self.weights);
        sequence_forward(p, self.replicas, w, &mut hs, &mut gates, &mut recurrent, &mut y);
        Ran { gates, recurrent, hs, y }
    }

    /// Sum of outputs and final states, each weighted with its upstream gradient.
    fn objective(&self, dy: &[f64], dh: &[f64]) -> f64 {
        let ran = self.run();
        let (n, steps) = (self.state(), self.forward.steps as usize);
        let last = (0..self.replicas).flat_map(|r| {
            let slot = (r * (steps + 1) + steps) * n;
            slot..slot + n
        });
        let outputs: f64 = ran.y.iter().zip(dy).map(|(y, d)| y * d).sum();
        outputs + last.zip(dh).map(|(at, d)| ran.hs[at] * d).sum::<f64>()
    }
}

#[test]
fn one_unit_follows_the_equations() {
    // H = B = T = 1 by hand: W_hh = 1, 2, 3, biases 0.1 a gate, h = 0.5.
    let mut one = layer(1, 1, 1, 1);
    let (w, b) = (one.forward.w_offset as usize, one.forward.b_offset as usize);
    for q in 0..3 {
        one.weights[w + q] = q as f64 + 1.0;
        one.weights[b + q] = 0.1;
    }
    one.hs[0] = 0.5;
    one.pre.copy_from_slice(&[0.2, -0.3, 0.4]);
    let s = |x: f64| 1.0 / (1.0 + (-x).exp());
    // 0.1 as the parameters hold it is a double here.
    let (r, z) = (s(0.2 + 0.5 + 0.1), s(-0.3 + 1.0 + 0.1));
    let n = (0.4 + r * (1.5 + 0.1)).tanh();
    let ran = one.run();
    for (got, want) in ran.gates.iter().zip([r, z, n]) {
        assert!((got - want).abs() < 1e-12, "{got} {want}");
    }
    assert!((ran.recurrent[0] - 1.6).abs() < 1e-12);
    assert!((ran.y[0] - ((1.0 - z) * n + z * 0.5)).abs() < 1e-12);
    assert_eq!(ran.y[0], ran.hs[1]);
}

#[test]
fn gradients_match_finite_differences() {
    let base = layer(2, 3, 2, 3);
    let (n, p) = (base.state(), base.forward);
    let width = GATES * 3;
    let (dy, dh) = (random(2 * 3 * n, 5), random(2 * n, 6));
    let ran = base.run();
    let mut dgates = vec![f64::NAN; base.pre.len()];
    let mut drecurrent = dgates.clone();
    let mut carried = dh.clone();
    let Forward { steps, batch, hidden, w_offset, stride, .. } = p;
    let backward = Backward { t: 0, steps, batch, hidden, w_offset, stride, has_dy: 1 };
    sequence_backward(
        &backward,
        2,
        &base.weights,
        &ran.gates,
        &ran.recurrent,
        &ran.hs,
        &dy,
        &mut dgates,
        &mut drecurrent,
        &mut carried,
    );
    let slope = |change: &dyn Fn(&mut Layer, f64)| {
        let at = |x: f64| {
            let mut moved = base.clone();
            change(&mut moved, x);
            moved.objective(&dy, &dh)
        };
        (at(1e-5) - at(-1e-5)) / 2e-5
    };
    let close = |a: f64, b: f64, what: &str| assert!((a - b).abs() < 1e-8, "{what}: {a} {b}");
    for at in 0..base.pre.len() {
        close(dgates[at], slope(&|l, x| l.pre[at] += x), "gates");
    }
    for r in 0..2 {
        let w = r * p.stride as usize + p.w_offset as usize;
        for i in 0..n {
            // dh0 = carried + drecurrent[0]·W_hh, the product that the engine records.
            let (b, j) = (i / 3, i % 3);
            let row = |k: usize| drecurrent[(r * 6 + b) * width + k];
            let sum: f64 = (0..width).map(|k| row(k) * base.weights[w + k * 3 + j]).sum();
            let slot = r * 4 * n + i;
            close(carried[r * n + i] + sum, slope(&|l, x| l.hs[slot] += x), "h0");
        }
        for q in 0..width {
            // dW_hh = Σ_t drecurrent[t]ᵀ·h[t] and its bias's sum.
            let rows = || (0..6).map(|row| (drecurrent[(r * 6 + row) * width + q], r * 8 + row));
            let sum: f64 = rows().map(|(d, state)| d * ran.hs[state * 3 + 1]).sum();
            close(sum, slope(&|l, x| l.weights[w + q * 3 + 1] += x), "W_hh");
            let bias = r * p.stride as usize + p.b_offset as usize + q;
            close(rows().map(|(d, _)| d).sum(), slope(&|l, x| l.weights[bias] += x), "b_hh");
        }
    }
}
