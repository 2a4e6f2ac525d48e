//! A few rows of a batch through all time steps, compiled for each instruction set.

use super::{Sizes, VECTORS};
use crate::cpu::vmath::{sigmoid, tanh};

/// Instruction sets that the walk is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isa {
    #[cfg(target_arch = "x86_64")]
    #[cfg_attr(not(test), allow(dead_code, reason = "slower than Avx2 as it is compiled now"))]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Base,
}

impl Isa {
    /// The one that this processor walks fastest with: AVX2 before AVX-512, whose form of the
    /// micro-kernel the compiler turns into scalar loads, a fifth of the speed.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx2")
                && std::arch::is_x86_feature_detected!("fma")
            {
                return Isa::Avx2;
            }
        }
        Isa::Base
    }

    /// Every one that this processor has.
    #[cfg(test)]
    pub fn available() -> Vec<Self> {
        let mut all = vec![Isa::Base];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend([Self::detect()].into_iter().filter(|isa| *isa != Isa::Base));
            if std::arch::is_x86_feature_detected!("avx512f") {
                all.push(Isa::Avx512);
            }
        }
        all
    }

    /// Lanes of a vector.
    pub fn lanes(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => 16,
            _ => 8,
        }
    }

    /// Rows whose sums fit the registers.
    pub fn rows(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => 5,
            _ => 6,
        }
    }
}

/// Slices a step, of a few rows, and the layer's packed weights. `hs` and `cs` have one slot
/// more than there are steps.
pub(super) struct ForwardTask<'a> {
    pub sizes: Sizes,
    pub weights: &'a [f32],
    pub bias: &'a [f32],
    pub hs: Vec<&'a mut [f32]>,
    pub cs: Vec<&'a mut [f32]>,
    pub y: Vec<&'a mut [f32]>,
    pub gates: Vec<&'a mut [f32]>,
}

/// As [`ForwardTask`]; `dy` is empty if there is no gradient of the outputs.
pub(super) struct BackwardTask<'a> {
    pub sizes: Sizes,
    pub weights: &'a [f32],
    pub gates: Vec<&'a [f32]>,
    pub cs: Vec<&'a [f32]>,
    pub dy: Vec<&'a [f32]>,
    pub dh_last: Option<&'a [f32]>,
    pub dc_last: Option<&'a [f32]>,
    pub dgates: Vec<&'a mut [f32]>,
    pub dc: &'a mut [f32],
}

type Vector<const L: usize> = [f32; L];
type Row<const L: usize> = [Vector<L>; VECTORS];

#[inline(always)]
fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    // Without the instruction `mul_add` is a call.
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Σ_k x[k][r] · panel[k] for each row r. `V` vectors of the panel at a time: their sums for all
/// rows, the vectors and a factor fit the registers.
#[inline(always)]
fn multiply<const L: usize, const R: usize, const V: usize, const FMA: bool>(
    panel: &[Row<L>],
    x: &[[f32; R]],
) -> [Row<L>; R] {
    let mut all = [[[0.0; L]; VECTORS]; R];
    for part in 0..VECTORS / V {
        let mut sums = [[[0.0; L]; V]; R];
        for (weights, x) in panel.iter().zip(x) {
            let weights = &weights.as_chunks::<V>().0[part];
            for r in 0..R {
                for v in 0..V {
                    for l in 0..L {
                        sums[r][v][l] = multiply_add::<FMA>(weights[v][l], x[r], sums[r][v][l]);
                    }
                }
            }
        }
        for (all, sums) in all.iter_mut().zip(sums) {
            all.as_chunks_mut::<V>().0[part] = sums;
        }
    }
    all
}

/// The first `n` elements, then zeros.
#[inline(always)]
fn load<const L: usize>(from: &[f32], n: usize) -> Vector<L> {
    if let Some(whole) = from.first_chunk::<L>().filter(|_| n == L) {
        return *whole;
    }
    let mut vector = [0.0; L];
    vector[..n].copy_from_slice(&from[..n]);
    vector
}

/// Writes the first `n` elements.
#[inline(always)]
fn store<const L: usize>(to: &mut [f32], n: usize, vector: Vector<L>) {
    match to.first_chunk_mut::<L>() {
        Some(whole) if n == L => *whole = vector,
        _ => to[..n].copy_from_slice(&vector[..n]),
    }
}

#[inline(always)]
fn map<const L: usize>(f: impl Fn(usize) -> f32) -> Vector<L> {
    let mut vector = [0.0; L];
    for l in 0..L {
        vector[l] = f(l);
    }
    vector
}

#[inline(always)]
fn forward_rows<const L: usize, const R: usize, const V: usize, const FMA: bool>(
    task: ForwardTask<'_>,
) {
    let ForwardTask { sizes, weights, bias, mut hs, mut cs, mut y, mut gates } = task;
    let (hidden, width) = (sizes.hidden, sizes.width());
    let panels = weights.as_chunks::<L>().0.as_chunks::<VECTORS>().0;
    let biases = bias.as_chunks::<L>().0.as_chunks::<VECTORS>().0;
    // h of the step before and of this one, unit by unit: what the micro-kernel broadcasts.
    let mut before = vec![[0.0; R]; hidden];
    let mut after = vec![[0.0; R]; hidden];
    for (unit, before) in before.iter_mut().enumerate() {
        for r in 0..R {
            before[r] = hs[0][r * hidden + unit];
        }
    }
    for t in 0..sizes.steps {
        let [old_cells, cells] = &mut cs[t..t + 2] else { return };
        for (p, panel) in panels.chunks_exact(hidden).enumerate() {
            let sums = multiply::<L, R, V, FMA>(panel, &before);
            let first = p * L;
            let n = L.min(hidden - first);
            for r in 0..R {
                let row = &mut gates[t][r * width + first..(r + 1) * width];
                let at = r * hidden + first;
                let mut pre = [[0.0; L]; VECTORS];
                for v in 0..VECTORS {
                    if let Some(gate) = sizes.gate(v) {
                        let x = load::<L>(&row[gate..], n);
                        pre[v] = map(|l| x[l] + (sums[r][v][l] + biases[p][v][l]));
                    }
                }
                let i: Vector<L> = map(|l| sigmoid(pre[0][l]));
                let f: Vector<L> =
                    if sizes.coupled { map(|l| 1.0 - i[l]) } else { map(|l| sigmoid(pre[1][l])) };
                let g: Vector<L> = map(|l| tanh(pre[2][l]));
                let o: Vector<L> = map(|l| sigmoid(pre[3][l]));
                let old = load::<L>(&old_cells[at..], n);
                let c: Vector<L> = map(|l| f[l] * old[l] + i[l] * g[l]);
                let h: Vector<L> = map(|l| o[l] * tanh(c[l]));
                for (v, gate) in [i, f, g, o].into_iter().enumerate() {
                    if let Some(at) = sizes.gate(v) {
                        store(&mut row[at..], n, gate);
                    }
                }
                store(&mut cells[at..], n, c);
                store(&mut hs[t + 1][at..], n, h);
                store(&mut y[t][at..], n, h);
                for (after, h) in after[first..first + n].iter_mut().zip(h) {
                    after[r] = h;
                }
            }
        }
        std::mem::swap(&mut before, &mut after);
    }
}

#[inline(always)]
fn backward_rows<const L: usize, const R: usize, const V: usize, const FMA: bool>(
    task: BackwardTask<'_>,
) {
    let BackwardTask { sizes, weights, gates, cs, dy, dh_last, dc_last, mut dgates, dc } = task;
    let (hidden, width) = (sizes.hidden, sizes.width());
    let panels = weights.as_chunks::<L>().0.as_chunks::<VECTORS>().0;
    // Gate gradients of the step after and of this one: what the micro-kernel broadcasts.
    let mut after = vec![[0.0; R]; width];
    let mut here = vec![[0.0; R]; width];
    match dc_last {
        Some(last) => dc.copy_from_slice(last),
        None => dc.fill(0.0),
    }
    for t in (0..sizes.steps).rev() {
        let last = t + 1 == sizes.steps;
        for (p, panel) in panels.chunks_exact(width).enumerate() {
            let mut sums = [[[0.0; L]; VECTORS]; R];
            if !last {
                sums = multiply::<L, R, V, FMA>(panel, &after);
            }
            for v in 0..VECTORS {
                let first = (p * VECTORS + v) * L;
                if first >= hidden {
                    break;
                }
                let n = L.min(hidden - first);
                for r in 0..R {
                    let at = r * hidden + first;
                    let mut dh = sums[r][v];
                    let above = dh_last.filter(|_| last);
                    for upstream in [above, dy.get(t).copied()].into_iter().flatten() {
                        let upstream = load::<L>(&upstream[at..], n);
                        dh = map(|l| dh[l] + upstream[l]);
                    }
                    let row = &gates[t][r * width + first..(r + 1) * width];
                    let gate = |v: usize| match sizes.gate(v) {
                        Some(at) => load::<L>(&row[at..], n),
                        None => [0.0; L],
                    };
                    let (i, g, o) = (gate(0), gate(2), gate(3));
                    let f = if sizes.coupled { map(|l| 1.0 - i[l]) } else { gate(1) };
                    let old = load::<L>(&cs[t][at..], n);
                    let c = load::<L>(&cs[t + 1][at..], n);
                    let squashed: Vector<L> = map(|l| tanh(c[l]));
                    let carried = load::<L>(&dc[at..], n);
                    let d: Vector<L> =
                        map(|l| carried[l] + dh[l] * o[l] * (1.0 - squashed[l] * squashed[l]));
                    let other: Vector<L> = if sizes.coupled { map(|l| g[l] - old[l]) } else { g };
                    let gradients: Row<L> = [
                        map(|l| d[l] * other[l] * i[l] * (1.0 - i[l])),
                        map(|l| d[l] * old[l] * f[l] * (1.0 - f[l])),
                        map(|l| d[l] * i[l] * (1.0 - g[l] * g[l])),
                        map(|l| dh[l] * squashed[l] * o[l] * (1.0 - o[l])),
                    ];
                    store::<L>(&mut dc[at..], n, map(|l| d[l] * f[l]));
                    let row = &mut dgates[t][r * width..(r + 1) * width];
                    for (v, gradient) in gradients.into_iter().enumerate() {
                        if let Some(gate) = sizes.gate(v) {
                            store(&mut row[gate + first..], n, gradient);
                            let here = &mut here[gate + first..gate + first + n];
                            for (here, gradient) in here.iter_mut().zip(gradient) {
                                here[r] = gradient;
                            }
                        }
                    }
                }
            }
        }
        std::mem::swap(&mut here, &mut after);
    }
}

/// Compiles a walk for each instruction set and each number of rows that a task may have.
macro_rules! compiled {
    ($name:ident, $walk:ident, $task:ident, $rows:expr) => {
        pub(super) fn $name(isa: Isa, task: $task<'_>) {
            #[inline(always)]
            fn body<const L: usize, const V: usize, const FMA: bool>(task: $task<'_>) {
                match $rows(&task) {
                    // Sums enough to hide how long each addition takes.
                    1 => $walk::<L, 1, VECTORS, FMA>(task),
                    2 => $walk::<L, 2, VECTORS, FMA>(task),
                    3 => $walk::<L, 3, V, FMA>(task),
                    4 => $walk::<L, 4, V, FMA>(task),
                    5 => $walk::<L, 5, V, FMA>(task),
                    6 if L == 8 => $walk::<L, 6, V, FMA>(task),
                    rows => unreachable!("a task of {rows} rows"),
                }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f")]
            fn avx512(task: $task<'_>) {
                body::<16, 4, true>(task);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2(task: $task<'_>) {
                body::<8, 2, true>(task);
            }
            match isa {
                // SAFETY: an `Isa` is only made where the processor has its features.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => unsafe { avx512(task) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => unsafe { avx2(task) },
                Isa::Base => body::<8, 2, { cfg!(target_arch = "aarch64") }>(task),
            }
        }
    };
}
compiled!(forward, forward_rows, ForwardTask, |task: &ForwardTask<'_>| {
    task.hs[0].len() / task.sizes.hidden
});
compiled!(backward, backward_rows, BackwardTask, |task: &BackwardTask<'_>| {
    task.dc.len() / task.sizes.hidden
});
