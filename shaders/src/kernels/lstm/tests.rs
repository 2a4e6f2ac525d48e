use super::*;
use crate::kernels::random::{pcg4d, uniform};

/// A layer with its buffers in the kernels' shapes.
#[derive(Clone)]
struct Layer {
    forward: Forward,
    replicas: usize,
    weights: Vec<f64>,
    hs: Vec<f64>,
    cs: Vec<f64>,
    pre: Vec<f64>,
}

/// Numbers in [-1, 1).
fn random(n: usize, stream: u32) -> Vec<f64> {
    (0..n).map(|i| f64::from(uniform(pcg4d([i as u32, stream, 0, 0])[0])) * 2.0 - 1.0).collect()
}

fn layer(cifg: u32, replicas: usize, steps: usize, batch: usize, hidden: usize) -> Layer {
    let width = gate_count(cifg) * hidden;
    let (w_offset, b_offset) = (64, 64 + (width * hidden).next_multiple_of(64));
    let stride = b_offset + width.next_multiple_of(64);
    Layer {
        forward: Forward {
            t: 0,
            steps: steps as u32,
            batch: batch as u32,
            hidden: hidden as u32,
            cifg,
            w_offset,
            b_offset: b_offset as u32,
            stride: stride as u32,
        },
        replicas,
        weights: random(replicas * stride, 1),
        hs: random(replicas * (steps + 1) * batch * hidden, 2),
        cs: random(replicas * (steps + 1) * batch * hidden, 3),
        pre: random(replicas * steps * batch * width, 4),
    }
}

/// What a forward run leaves: activated gates, hidden states, cell states, outputs.
struct Ran {
    gates: Vec<f64>,
    hs: Vec<f64>,
    cs: Vec<f64>,
    y: Vec<f64>,
}

impl Layer {
    fn state(&self) -> usize {
        (self.forward.batch * self.forward.hidden) as usize
    }

    fn run(&self) -> Ran {
        let (mut gates, mut hs, mut cs) = (self.pre.clone(), self.hs.clone(), self.cs.clone());
        let mut y = vec![0.0; self.replicas * self.forward.steps as usize * self.state()];
        let (p, w) = (&self.forward, &self.weights);
        sequence_forward(p, self.replicas, w, &mut hs, &mut cs, &mut gates, &mut y);
        Ran { gates, hs, cs, y }
    }

    /// Sum of outputs and final states, each weighted with its upstream gradient.
    fn objective(&self, dy: &[f64], dh: &[f64], dc: &[f64]) -> f64 {
        let ran = self.run();
        let n = self.state();
        let steps = self.forward.steps as usize;
        let mut sum: f64 = ran.y.iter().zip(dy).map(|(y, d)| y * d).sum();
        for r in 0..self.replicas {
            for i in 0..n {
                let last = (r * (steps + 1) + steps) * n + i;
                sum += ran.hs[last] * dh[r * n + i] + ran.cs[last] * dc[r * n + i];
            }
        }
        sum
    }
}

#[test]
fn one_unit_follows_the_equations() {
    // H = B = T = 1 by hand: W_hh = 1, 2, 3, 4, biases 0.1 a gate, h = 0.5, c = -0.25.
    let mut one = layer(0, 1, 1, 1, 1);
    let (w, b) = (one.forward.w_offset as usize, one.forward.b_offset as usize);
    for q in 0..4 {
        one.weights[w + q] = q as f64 + 1.0;
        one.weights[b + q] = 0.1;
    }
    one.hs[0] = 0.5;
    one.cs[0] = -0.25;
    one.pre.copy_from_slice(&[0.2, -0.3, 0.4, -0.5]);
    let s = |x: f64| 1.0 / (1.0 + (-x).exp());
    let (i, f, g, o) = (s(0.8), s(0.8), 2.0f64.tanh(), s(1.6));
    let c = f * -0.25 + i * g;
    let ran = one.run();
    for (got, want) in ran.gates.iter().zip([i, f, g, o]) {
        assert!((got - want).abs() < 1e-7, "{got} {want}");
    }
    assert!((ran.cs[1] - c).abs() < 1e-7);
    assert!((ran.y[0] - o * c.tanh()).abs() < 1e-7);
    assert_eq!(ran.y[0], ran.hs[1]);
}

#[test]
fn coupling_is_an_ordinary_cell_whose_forget_gate_is_the_complement() {
    // f = σ(-pre_i) = 1 − i: an ordinary cell with the input gate's row negated.
    let coupled = layer(1, 1, 3, 2, 3);
    let mut full = layer(0, 1, 3, 2, 3);
    full.hs.clone_from(&coupled.hs);
    full.cs.clone_from(&coupled.cs);
    let (hidden, from) = (3, [(0, 1.0), (0, -1.0), (1, 1.0), (2, 1.0)]);
    for (q, (source, sign)) in from.into_iter().enumerate() {
        for x in 0..hidden * hidden {
            full.weights[full.forward.w_offset as usize + q * hidden * hidden + x] = sign
                * coupled.weights[coupled.forward.w_offset as usize + source * hidden * hidden + x];
        }
        for j in 0..hidden {
            full.weights[full.forward.b_offset as usize + q * hidden + j] =
                sign * coupled.weights[coupled.forward.b_offset as usize + source * hidden + j];
            for row in 0..6 {
                full.pre[(row * 4 + q) * hidden + j] =
                    sign * coupled.pre[(row * 3 + source) * hidden + j];
            }
        }
    }
    for (a, b) in coupled.run().y.iter().zip(full.run().y) {
        assert!((a - b).abs() < 1e-12, "{a} {b}");
    }
}

#[test]
fn gradients_match_finite_differences() {
    for cifg in [0, 1] {
        let base = layer(cifg, 2, 3, 2, 3);
        let n = base.state();
        let p = base.forward;
        let width = gate_count(cifg) * 3;
        let dy = random(2 * 3 * n, 5);
        let (dh, dc) = (random(2 * n, 6), random(2 * n, 7));
        let ran = base.run();
        let mut dgates = vec![f64::NAN; base.pre.len()];
        let mut carried = vec![f64::NAN; 2 * n];
        let backward = Backward {
            t: 0,
            steps: p.steps,
            batch: p.batch,
            hidden: p.hidden,
            cifg,
            w_offset: p.w_offset,
            stride: p.stride,
            has_dy: 1,
            has_dh: 1,
            has_dc: 1,
        };
        sequence_backward(
            &backward,
            2,
            &base.weights,
            &ran.gates,
            &ran.cs,
            &dy,
            &dh,
            &dc,
            &mut dgates,
            &mut carried,
        );
        let (mut dh0, mut dc0) = (vec![1.0; 2 * n], vec![f64::NAN; 2 * n]);
        let state = StateBackward {
            steps: p.steps,
            batch: p.batch,
            hidden: p.hidden,
            cifg,
            w_offset: p.w_offset,
            stride: p.stride,
            accumulate_h: 1,
            accumulate_c: 0,
        };
        state_backward(&state, 2, &base.weights, &dgates, &carried, &mut dh0, &mut dc0);

        let slope = |change: &dyn Fn(&mut Layer, f64)| {
            let at = |x: f64| {
                let mut moved = base.clone();
                change(&mut moved, x);
                moved.objective(&dy, &dh, &dc)
            };
            (at(1e-5) - at(-1e-5)) / 2e-5
        };
        let close = |a: f64, b: f64, what: &str| assert!((a - b).abs() < 1e-8, "{what}: {a} {b}");
        for at in 0..base.pre.len() {
            close(dgates[at], slope(&|l, x| l.pre[at] += x), "gates");
        }
        for r in 0..2 {
            for i in 0..n {
                let slot = r * 4 * n + i;
                close(dh0[r * n + i] - 1.0, slope(&|l, x| l.hs[slot] += x), "h0");
                close(dc0[r * n + i], slope(&|l, x| l.cs[slot] += x), "c0");
            }
            // dW_hh = Σ_t dgates[t]ᵀ·h[t], the product that the engine records.
            for (q, k) in [(0, 0), (1, 2), (width - 1, 1)] {
                let sum: f64 = (0..6)
                    .map(|row| dgates[(r * 6 + row) * width + q] * ran.hs[(r * 8 + row) * 3 + k])
                    .sum();
                let at = r * p.stride as usize + p.w_offset as usize + q * 3 + k;
                close(sum, slope(&|l, x| l.weights[at] += x), "W_hh");
            }
        }
    }
}

#[test]
fn absent_gradients_count_as_zero() {
    let base = layer(0, 1, 2, 1, 2);
    let ran = base.run();
    let run = |has: u32, given: f64| {
        let p = Backward {
            t: 0,
            steps: 2,
            batch: 1,
            hidden: 2,
            cifg: 0,
            w_offset: base.forward.w_offset,
            stride: base.forward.stride,
            has_dy: has,
            has_dh: has,
            has_dc: has,
        };
        let (mut dgates, mut dc) = (vec![f64::NAN; 16], vec![f64::NAN; 2]);
        let (dy, last) = ([given; 4], [given; 2]);
        sequence_backward(
            &p,
            1,
            &base.weights,
            &ran.gates,
            &ran.cs,
            &dy,
            &last,
            &last,
            &mut dgates,
            &mut dc,
        );
        (dgates, dc)
    };
    assert_eq!(run(0, f64::NAN), run(1, 0.0));
    assert_ne!(run(1, 1.0), run(1, 0.0));
}

#[test]
fn states_are_loaded_and_stored() {
    let p = State { n: 2, steps: 2, zero: 0 };
    let (h, c) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]);
    let (mut hs, mut cs) = ([9.0; 12], [9.0; 12]);
    state_load(&p, 2, &h, &c, &mut hs, &mut cs);
    assert_eq!(hs, [1.0, 2.0, 9.0, 9.0, 9.0, 9.0, 3.0, 4.0, 9.0, 9.0, 9.0, 9.0]);
    assert_eq!(cs, [5.0, 6.0, 9.0, 9.0, 9.0, 9.0, 7.0, 8.0, 9.0, 9.0, 9.0, 9.0]);
    let numbers: [f64; 12] = std::array::from_fn(|i| i as f64);
    let (mut h, mut c) = ([0.0; 4], [0.0; 4]);
    state_store(&p, 2, &numbers, &cs, &mut h, &mut c);
    assert_eq!((h, c), ([4.0, 5.0, 10.0, 11.0], [9.0; 4]));
    state_load(&State { zero: 1, ..p }, 2, &h, &c, &mut hs, &mut cs);
    assert_eq!((hs[0], cs[7], hs[2]), (0.0, 0.0, 9.0));
}
