//! Activation checkpointing: calls of the forward pass that are made once more in the backward pass,
//! so that what they wrote needn't be kept until then.
//!
//! The list of calls says all there is to know: who writes a tensor, who reads it, what is overwritten
//! in between. A tensor that is made again gets another name in the backward pass, and thereby a
//! lifetime and memory of its own.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use tern_shaders::Access;
use tern_shaders::kernels::normalize::groups::RUNNING_MOMENTS;
use tern_shaders::kernels::pointwise::COPY;

use crate::Flat;
use crate::graph::{Graph, Operand, Recorded, Storage, Tensor};

impl Graph {
    /// Records what is computed once more in the backward pass, so that its activations needn't be kept
    /// until then (activation checkpointing; Chen et al. 2016, "Training Deep Nets with Sublinear Memory
    /// Cost"): memory for time, and not a bit of what is computed changes. Tensors that are used outside
    /// of `record` are kept, and so is what can't be computed again, since it was made of state that the
    /// forward pass moves on. Scopes within one another count as the outermost.
    ///
    /// ```
    /// use tern_engine::nn::{Linear, LinearConfig};
    /// use tern_engine::{
    ///     Activation, Arena, Device, Element, Graph, Optimizer, Parameters, Training,
    /// };
    ///
    /// # fn main() -> tern_engine::Result<()> {
    /// let mut parameters = Parameters::new();
    /// let mut layers = Vec::new();
    /// for i in 0..16 {
    ///     let config = LinearConfig::new(32, 32).activation(Activation::Tanh);
    ///     layers.push(Linear::new(&mut parameters, &format!("{i}"), config)?);
    /// }
    /// let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
    /// let activations = |recompute: bool| -> tern_engine::Result<u64> {
    ///     let mut graph = Graph::new(&arena);
    ///     let mut x = graph.input("x", &[64, 32], Element::F32);
    ///     for four in layers.chunks(4) {
    ///         let record = |graph: &mut Graph| {
    ///             four.iter().try_fold(x, |x, layer| layer.forward(graph, x))
    ///         };
    ///         x = if recompute { graph.recomputed(record)? } else { record(&mut graph)? };
    ///     }
    ///     let target = graph.constant(0.5, &[64, 32]);
    ///     let loss = graph.mse(x, target, None)?;
    ///     let plan = graph.train(loss, &Training::new(Optimizer::sgd(), 0.1))?;
    ///     Ok(plan.memory().activations)
    /// };
    /// assert!(activations(true)? < activations(false)? * 2 / 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Where passes run apart, [`Plan::backward`](crate::Plan::backward) computes from the parameters,
    /// inputs and state records that are there then; [`Plan::restore`](crate::Plan::restore) brings back
    /// all but the parameters.
    pub fn recomputed<T>(&mut self, record: impl FnOnce(&mut Self) -> T) -> T {
        if self.in_segment {
            return record(self);
        }
        let first = self.calls.len();
        self.in_segment = true;
        let result = record(self);
        self.in_segment = false;
        self.segments.push(first..self.calls.len());
        result
    }

    /// [`Graph::recomputed`] under a condition.
    pub(crate) fn recomputed_if<T>(
        &mut self,
        recompute: bool,
        record: impl FnOnce(&mut Self) -> T,
    ) -> T {
        if recompute { self.recomputed(record) } else { record(self) }
    }
}

/// Makes the calls of the graph's segments once more in the backward pass, which `begin` is the first
/// call of.
pub(crate) fn recompute(graph: &mut Graph, begin: usize) {
    let mut segments = std::mem::take(&mut graph.segments);
    // What a backward closure records is computed once.
    segments.retain(|calls| calls.end <= begin);
    if segments.is_empty() {
        return;
    }
    // The calls that are put in read what is kept, and write what is new: this stays true.
    let (last, uses) = (LastWrites::of(graph), uses(graph, begin));
    // The last one's gradients come first.
    for calls in segments.into_iter().rev() {
        Segment { graph, calls, begin, last: &last, uses: &uses }.recompute();
    }
}

/// Which calls use a tensor.
struct Uses {
    first: usize,
    /// The last of the forward pass.
    last: usize,
    /// Whether one of the backward pass writes it.
    written_back: bool,
}

/// The uses of each root tensor, where the backward pass begins at a call.
fn uses(graph: &Graph, begin: usize) -> HashMap<usize, Uses> {
    let mut uses: HashMap<usize, Uses> = HashMap::new();
    for (at, call) in graph.calls.iter().enumerate() {
        for (operand, written) in operands(graph, call) {
            if let Operand::Tensor(Tensor(root, _)) = operand {
                let new = Uses { first: at, last: at, written_back: false };
                let uses = uses.entry(root).or_insert(new);
                match at < begin {
                    true => uses.last = at,
                    false => uses.written_back |= written,
                }
            }
        }
    }
    uses
}

struct Segment<'g> {
    graph: &'g mut Graph,
    calls: Range<usize>,
    begin: usize,
    last: &'g LastWrites,
    uses: &'g HashMap<usize, Uses>,
}

/// The operands of a call, tensors by that which has their memory, and whether it writes them.
pub(crate) fn operands<'a>(
    graph: &'a Graph,
    call: &'a Recorded,
) -> impl Iterator<Item = (Operand, bool)> + 'a {
    let root = |operand: Operand| match operand {
        Operand::Tensor(tensor) => Operand::Tensor(Tensor(graph.root(tensor), tensor.1)),
        other => other,
    };
    let written = call.kernel.bindings.iter().map(|b| b.access == Access::ReadWrite);
    call.args.iter().map(move |arg| root(*arg)).zip(written)
}

/// Where a graph's calls write an operand last.
struct LastWrites {
    by_operand: HashMap<Operand, usize>,
    /// Where running moments, which are parameters, are last moved. No kernel of Tern's reads them in a
    /// forward pass but a copy.
    moments: Option<usize>,
}

impl LastWrites {
    fn of(graph: &Graph) -> Self {
        let mut last = LastWrites { by_operand: HashMap::new(), moments: None };
        for (at, call) in graph.calls.iter().enumerate() {
            for (operand, _) in operands(graph, call).filter(|(_, written)| *written) {
                let moved = operand == Operand::Flat(Flat::Parameters)
                    && std::ptr::eq(call.kernel, RUNNING_MOMENTS.any());
                match moved {
                    true => last.moments = Some(at),
                    false => _ = last.by_operand.insert(operand, at),
                }
            }
        }
        last
    }

    /// Whether an operand that a call reads is as it was when the list of calls ends.
    fn is_as_read(&self, at: usize, call: &Recorded, operand: Operand) -> bool {
        // A kernel from outside may read any parameters.
        let reads_moments = || {
            operand == Operand::Flat(Flat::Parameters)
                && (std::ptr::eq(call.kernel, COPY.any())
                    || !tern_shaders::kernels().any(|kernel| std::ptr::eq(kernel, call.kernel)))
        };
        let moments = self.moments.filter(|_| reads_moments());
        let last = self.by_operand.get(&operand).copied().max(moments);
        last.is_none_or(|last| last < at)
    }
}

impl Segment<'_> {
    fn recompute(mut self) {
        let lost = self.lost();
        let (again, needed) = self.needed(&lost);
        let uses = |call: &Recorded| self.roots(call).any(|(root, _)| needed.contains(&root));
        let backward = self.begin..self.graph.calls.len();
        let Some(at) = backward.clone().find(|at| uses(&self.graph.calls[*at])) else { return };
        let mut names = HashMap::new();
        let mut calls: Vec<Recorded> =
            again.into_iter().map(|call| self.graph.calls[call].clone()).collect();
        for call in &mut calls {
            call.label.push_str(" again");
            self.rename(&mut call.args, &needed, &mut names);
        }
        for later in at..backward.end {
            let mut args = std::mem::take(&mut self.graph.calls[later].args);
            self.rename(&mut args, &needed, &mut names);
            self.graph.calls[later].args = args;
        }
        self.graph.calls.splice(at..at, calls);
    }

    /// The operands of a call that are tensors, by what has their memory.
    fn roots<'a>(&'a self, call: &'a Recorded) -> impl Iterator<Item = (usize, bool)> + 'a {
        operands(self.graph, call).filter_map(|(operand, written)| match operand {
            Operand::Tensor(Tensor(root, _)) => Some((root, written)),
            _ => None,
        })
    }

    /// Tensors that aren't kept: those that are used in the segment, and then in the backward pass at
    /// most, which only reads them, and that can be made again.
    fn lost(&self) -> HashSet<usize> {
        let Range { start, end } = self.calls;
        let calls = &self.graph.calls;
        let is_within = |root: &usize| {
            let Uses { first, last, written_back } = self.uses[root];
            start <= first && last < end && !written_back
        };
        let is_transient =
            |root: &usize| matches!(self.graph.tensors[*root].storage, Storage::Transient);
        let roots =
            calls[start..end].iter().flat_map(|call| self.roots(call)).map(|(root, _)| root);
        let mut lost: HashSet<usize> =
            roots.filter(|root| is_transient(root) && is_within(root)).collect();
        // What a call that can't be repeated writes is kept, and with it perhaps what another one would
        // find overwritten.
        loop {
            let before = lost.len();
            for at in start..end {
                if !self.is_repeatable(at, &lost) {
                    for (root, _) in self.roots(&calls[at]).filter(|(_, written)| *written) {
                        lost.remove(&root);
                    }
                }
            }
            if lost.len() == before {
                return lost;
            }
        }
    }

    /// Whether a call of the segment would write the same in the backward pass, and nothing that is
    /// kept.
    fn is_repeatable(&self, at: usize, lost: &HashSet<usize>) -> bool {
        let call = &self.graph.calls[at];
        operands(self.graph, call).all(|(operand, written)| match operand {
            Operand::Tensor(Tensor(root, _)) if lost.contains(&root) => true,
            _ => !written && self.last.is_as_read(at, call, operand),
        })
    }

    /// The calls of the segment, in order, without which the backward pass lacks some of the lost
    /// tensors, and the tensors that they make.
    fn needed(&self, lost: &HashSet<usize>) -> (Vec<usize>, HashSet<usize>) {
        let calls = &self.graph.calls;
        let backward = calls[self.begin..].iter().flat_map(|call| self.roots(call));
        let mut needed: HashSet<usize> =
            backward.map(|(root, _)| root).filter(|root| lost.contains(root)).collect();
        let mut again = Vec::new();
        for at in self.calls.clone().rev() {
            let call = &calls[at];
            if self.roots(call).any(|(root, written)| written && needed.contains(&root)) {
                needed.extend(self.roots(call).map(|(r, _)| r).filter(|r| lost.contains(r)));
                again.push(at);
            }
        }
        again.reverse();
        (again, needed)
    }

    /// Puts the second making of the tensors in the place of the first.
    fn rename(
        &mut self,
        args: &mut [Operand],
        needed: &HashSet<usize>,
        names: &mut HashMap<usize, usize>,
    ) {
        for arg in args {
            if let Operand::Tensor(Tensor(number, _)) = arg {
                let root = self.graph.tensors[*number].root;
                if needed.contains(&root) {
                    let root = self.second(root, None, names);
                    *number = self.second(*number, Some(root), names);
                }
            }
        }
    }

    /// The tensor that stands for another, which is made anew unless it is known; its own root if none
    /// is given.
    fn second(
        &mut self,
        number: usize,
        root: Option<usize>,
        names: &mut HashMap<usize, usize>,
    ) -> usize {
        let tensors = &mut self.graph.tensors;
        *names.entry(number).or_insert_with(|| {
            let mut info = tensors[number].clone();
            info.root = root.unwrap_or(tensors.len());
            tensors.push(info);
            tensors.len() - 1
        })
    }
}
