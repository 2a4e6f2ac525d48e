//! Draining the tape: which gradients are wanted, where they go, and who writes first.

use std::collections::{HashMap, HashSet};
use std::ops::{Deref, DerefMut};

use tern_shaders::Element;
use tern_shaders::kernels::pointwise::{SCALE, Scale};

use crate::graph::{Entry, Graph, Storage, Tensor};
use crate::recompute::recompute;
use crate::{Error, Operand, Param, Result};

/// What an op's backward closure sees: the graph, and the gradients known so far.
pub struct Backward<'g> {
    graph: &'g mut Graph,
    /// Gradient of each root tensor that has one.
    gradients: HashMap<usize, Tensor>,
    /// Roots whose gradient is the caller's own tensor: nothing may be added to it.
    given: HashSet<usize>,
    wanted: Vec<bool>,
    trained: Vec<bool>,
    weight_written: Vec<bool>,
}

impl Deref for Backward<'_> {
    type Target = Graph;
    fn deref(&self) -> &Graph {
        self.graph
    }
}

impl DerefMut for Backward<'_> {
    fn deref_mut(&mut self) -> &mut Graph {
        self.graph
    }
}

/// What the backward pass left.
pub(crate) struct Drained {
    /// By parameter: whether a gradient was written.
    pub written: Vec<bool>,
    /// Gradients of the tensors asked for.
    pub gradients: HashMap<usize, Tensor>,
}

/// Records the backward pass for the parameters marked in `trained` and the tensors in
/// `sources`. `seeds` are outputs with their gradients; those of one output are added up. Gradients of
/// parameters that are in `written` are added to.
pub(crate) fn drain(
    graph: &mut Graph,
    seeds: &[(Tensor, Tensor)],
    (trained, written): (Vec<bool>, Vec<bool>),
    sources: &[Tensor],
) -> Result<Drained> {
    graph.check()?;
    let ends = seeds.iter().flat_map(|(output, gradient)| [*output, *gradient]);
    graph.own(&ends.chain(sources.iter().copied()).collect::<Vec<_>>())?;
    let tape = std::mem::take(&mut graph.tape);
    // It counts calls, before which others may be put.
    graph.packed = None;
    let begin = graph.calls.len();
    let wanted = wanted(graph, &tape, &trained, sources);
    let weight_written = written;
    let (gradients, given) = (HashMap::new(), HashSet::new());
    let mut backward = Backward { graph, gradients, given, wanted, trained, weight_written };
    for (output, gradient) in seeds {
        let (shape, given) = (backward.shape(*output).to_vec(), backward.shape(*gradient));
        if backward.len(*output) != backward.len(*gradient)
            || backward.element(*gradient) != Element::F32
        {
            let what = format!(
                "gradient {given:?} of {:?} for an output {shape:?}",
                backward.element(*gradient)
            );
            return Err(Error::shape("backward", what));
        }
        // Its elements are the output's in their order; ops go by the shape in which they computed
        // it.
        let root = backward.root(*output);
        let own = backward.graph.tensors[root].shape.clone();
        let gradient = match given == own {
            true => *gradient,
            false => backward.reshape(*gradient, &own)?,
        };
        match backward.gradients.get(&root) {
            None => {
                backward.given.insert(root);
                backward.gradients.insert(root, gradient);
            }
            Some(_) => {
                let sum = backward.owned(root)?;
                backward.add_into(gradient, sum);
            }
        }
    }
    for entry in tape.into_iter().rev() {
        let known = |t: &Tensor| backward.gradients.contains_key(&backward.graph.root(*t));
        let wanted = entry.inputs.iter().any(|t| backward.wants(*t))
            || entry.weights.iter().any(|w| backward.trained[*w]);
        if wanted && entry.outputs.iter().any(known) {
            for input in &entry.inputs {
                let root = backward.root(*input);
                if backward.wants(*input) && backward.given.contains(&root) {
                    backward.owned(root)?;
                }
            }
            (entry.backward)(&mut backward)?;
        }
    }
    let Backward { weight_written: written, gradients, graph, .. } = backward;
    graph.check()?;
    recompute(graph, begin);
    Ok(Drained { written, gradients })
}

/// Which tensors lie between a trained parameter (or a source) and the outputs.
fn wanted(graph: &Graph, tape: &[Entry], trained: &[bool], sources: &[Tensor]) -> Vec<bool> {
    let mut wanted = vec![false; graph.tensors.len()];
    for source in sources {
        wanted[graph.root(*source)] = true;
    }
    for entry in tape {
        if entry.weights.iter().any(|w| trained[*w])
            || entry.inputs.iter().any(|t| wanted[graph.root(*t)])
        {
            for output in &entry.outputs {
                wanted[graph.root(*output)] = true;
            }
        }
    }
    wanted
}

impl Backward<'_> {
    fn wants(&self, x: Tensor) -> bool {
        // Tensors made during the backward pass itself are past the end: nobody's inputs.
        self.wanted.get(self.graph.root(x)).copied().unwrap_or(false)
    }

    /// The gradient of an output, if it has one, in the output's layout.
    pub fn gradient(&self, y: Tensor) -> Option<Tensor> {
        self.gradients.get(&self.graph.root(y)).copied()
    }

    /// Whether the gradient of an output is the constant one, so that it needs no
    /// multiplication.
    pub fn is_one(&self, y: Tensor) -> bool {
        let is = |g: Tensor| matches!(self.graph.info(g).storage, Storage::Constant(1.0));
        self.gradient(y).is_some_and(is)
    }

    /// Where the gradient of an input goes, and the kernel's `accumulate` flag: 0 for the
    /// first to write it, 1 after. `None` if nobody wants it.
    pub fn target(&mut self, x: Tensor) -> Option<(Tensor, u32)> {
        if !self.wants(x) {
            return None;
        }
        let (gradient, flag) = match self.gradient(x) {
            Some(gradient) => (gradient, 1),
            None => {
                // In the form in which an op computed it, whose backward goes by that.
                let root = self.graph.root(x);
                let (label, shape) = {
                    let own = &self.graph.tensors[root];
                    (format!("d {}", own.label), own.shape.clone())
                };
                let gradient = self.tensor(&label, &shape, Element::F32);
                self.gradients.insert(root, gradient);
                (gradient, 0)
            }
        };
        let shape = self.shape(x).to_vec();
        if self.shape(gradient) == shape {
            return Some((gradient, flag));
        }
        self.reshape(gradient, &shape).ok().map(|view| (view, flag))
    }

    /// The gradient of a root tensor that has one, in memory of its own: a copy, if it is the
    /// caller's.
    fn owned(&mut self, root: usize) -> Result<Tensor> {
        let gradient = self.gradients[&root];
        if !self.given.remove(&root) {
            return Ok(gradient);
        }
        let shape = self.shape(gradient).to_vec();
        let own = self.tensor("gradient given", &shape, Element::F32);
        self.graph.copy_into(gradient, own)?;
        self.gradients.insert(root, own);
        Ok(own)
    }

    fn add_into(&mut self, x: Tensor, sum: Tensor) {
        let params = Scale { n: self.len(x) as u32, factor: 1.0, accumulate: 1 };
        self.dispatch(&SCALE, &params, &[x.into(), sum.into()]);
    }

    /// The `accumulate` flag for a parameter's gradient, which goes to
    /// [`Backward::GRADIENTS`] at the parameter's offset. `None` if it isn't trained.
    pub fn weight_target(&mut self, weight: &Param) -> Option<u32> {
        if !self.trained.get(weight.index).copied().unwrap_or(false) {
            return None;
        }
        Some(u32::from(std::mem::replace(&mut self.weight_written[weight.index], true)))
    }

    /// Where parameters' gradients go.
    pub const GRADIENTS: Operand = Operand::Flat(crate::Flat::Gradients);
}
