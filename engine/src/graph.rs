//! Recording a model: ops push forward dispatches and, on the tape, their backward.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tern_shaders::{AnyKernel, Element, Kernel};

use crate::backward::Backward;
use crate::device::{self, Buffer, Data, Profile};
use crate::ops::half::{LastPacked, Precision};
use crate::{Arena, Error, Flat, Param, Result};

/// A handle to a tensor of a graph; its shape is per replica. Another graph, or a plan of another,
/// refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tensor(pub(crate) usize, pub(crate) GraphId);

/// Tells the graphs of a process apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GraphId(u64);

impl GraphId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        GraphId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What an argument of a kernel is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// A tensor, `[R, ...]`.
    Tensor(Tensor),
    /// A flat vector of the arena, `[R, P]`; [`Flat::Reference`] too.
    Flat(Flat),
    /// The state records, `[R, 64]` words.
    State,
    /// The ring of what each step logs, `[R, capacity, 4]`.
    Ring,
}

impl From<Tensor> for Operand {
    fn from(tensor: Tensor) -> Self {
        Operand::Tensor(tensor)
    }
}

/// Where a tensor's values live.
#[derive(Clone)]
pub(crate) enum Storage {
    /// In memory that tensors with other lifetimes share; gone after the step.
    Transient,
    /// In a buffer of its own: inputs, outputs, state carried from step to step.
    Persistent,
    /// In a buffer of its own, filled once.
    Constant(f32),
    /// In a buffer of its own, filled once, the same for each replica.
    Values(Arc<Data>),
    /// In a buffer that all replicas read: data sets.
    Shared(Buffer),
}

#[derive(Clone)]
pub(crate) struct Info {
    pub label: String,
    pub shape: Vec<usize>,
    pub element: Element,
    pub storage: Storage,
    /// The tensor whose memory it is; itself unless it is a reshaped view.
    pub root: usize,
    /// Of words: all are below it or [`IGNORE`](crate::IGNORE), as far as is known.
    pub words_below: Option<usize>,
    /// Of words: an op needs them below it or [`IGNORE`](crate::IGNORE).
    pub limit: Option<usize>,
}

/// The number of elements of a shape, if it can be counted.
fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size))
}

impl Info {
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A dispatch as recorded: not bound to memory yet.
#[derive(Clone)]
pub(crate) struct Recorded {
    pub kernel: &'static AnyKernel,
    pub label: String,
    pub params: Vec<u32>,
    pub args: Vec<Operand>,
    /// Items of each replica that the kernel takes as replicas of their own; 1 but for tensors whose
    /// leading axes are such items.
    pub items: usize,
}

type BackwardFn = Box<dyn FnOnce(&mut Backward<'_>) -> Result<()>>;

pub(crate) struct Entry {
    pub inputs: Vec<Tensor>,
    pub weights: Vec<usize>,
    pub outputs: Vec<Tensor>,
    pub backward: BackwardFn,
}

/// How a graph takes batches; becomes part of the state records.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Feed {
    pub batch: usize,
    pub stream: bool,
    /// By replica, repeated if there are more replicas.
    pub parts: Vec<Range<usize>>,
}

/// A part of a batch that is being recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub number: usize,
    pub of: usize,
    /// Whether it took its samples.
    pub fed: bool,
}

/// A model being recorded for the device of an arena. Exists at build time only: it becomes
/// a [`Plan`](crate::Plan).
pub struct Graph {
    pub(crate) id: GraphId,
    pub(crate) arena: Arena,
    pub(crate) tensors: Vec<Info>,
    pub(crate) calls: Vec<Recorded>,
    pub(crate) tape: Vec<Entry>,
    pub(crate) feed: Option<Feed>,
    /// The part of a batch that is recorded, where batches go in parts.
    pub(crate) part: Option<Part>,
    /// By loss, what it is a mean over; none of a sum.
    pub(crate) means: BTreeMap<usize, Option<(Tensor, usize)>>,
    /// Calls that are made once more in the backward pass, by the scopes that asked for it.
    pub(crate) segments: Vec<Range<usize>>,
    /// Whether such a scope is being recorded.
    pub(crate) in_segment: bool,
    /// What the products of linear layers multiply.
    pub(crate) precision: Precision,
    /// The layers' input that was rounded last.
    pub(crate) packed: Option<LastPacked>,
    /// Calls of the forward pass, where it was ended before the recording.
    forward: Option<usize>,
    profile: Profile,
    scope: String,
    random_ops: u32,
    /// The first thing recorded that can't be computed: no plan comes of the graph.
    fault: Option<Error>,
    /// What a tensor of another graph looks like.
    foreign: Info,
}

impl Graph {
    /// An empty graph on an arena.
    pub fn new(arena: &Arena) -> Self {
        let foreign = Info {
            label: "a tensor of another graph".into(),
            shape: vec![1],
            element: Element::F32,
            storage: Storage::Transient,
            root: usize::MAX,
            words_below: None,
            limit: None,
        };
        Graph {
            id: GraphId::next(),
            arena: arena.clone(),
            tensors: Vec::new(),
            calls: Vec::new(),
            tape: Vec::new(),
            feed: None,
            part: None,
            means: BTreeMap::new(),
            segments: Vec::new(),
            in_segment: false,
            precision: Precision::Single,
            packed: None,
            forward: None,
            profile: arena.device().profile(),
            scope: String::new(),
            random_ops: 0,
            fault: None,
            foreign,
        }
    }

    /// What is known of a tensor.
    pub(crate) fn info(&self, tensor: Tensor) -> &Info {
        match tensor.1 == self.id {
            true => &self.tensors[tensor.0],
            false => &self.foreign,
        }
    }

    /// No plan comes of a graph that records tensors of another.
    fn claim(&mut self, tensors: &[Tensor]) {
        if let Err(fault) = self.own(tensors) {
            self.blame(fault);
        }
    }

    fn blame(&mut self, fault: Error) {
        self.fault.get_or_insert(fault);
    }

    /// Refuses tensors of other graphs.
    pub(crate) fn own(&self, tensors: &[Tensor]) -> Result<()> {
        match tensors.iter().all(|tensor| tensor.1 == self.id) {
            true => Ok(()),
            false => Err(Error::value("tensor", &self.foreign.label, "one of the graph's")),
        }
    }

    /// Refuses a parameter that isn't where the arena has it: another model's.
    fn of_arena(&self, weight: &Param) -> Result<()> {
        let same = |p: &Param| {
            (&p.name, &p.shape, p.offset) == (&weight.name, &weight.shape, weight.offset)
        };
        match self.arena.parameters().iter().nth(weight.index) {
            Some(known) if same(known) => Ok(()),
            known => {
                let say = |p: &Param| format!("{} {:?} at {}", p.name, p.shape, p.offset);
                let expected = known.map_or("none of this number".into(), say);
                let expected = format!("the arena's: {expected}");
                Err(Error::value("parameter", say(weight), expected))
            }
        }
    }

    /// What was recorded that can't be computed.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.fault.take().map_or(Ok(()), Err)
    }

    /// What the device is and allows.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Words from one replica's flat vector to the next.
    pub fn parameter_stride(&self) -> usize {
        self.arena.parameters().words()
    }

    /// A tensor's shape, replicas not counted.
    pub fn shape(&self, tensor: Tensor) -> &[usize] {
        &self.info(tensor).shape
    }

    /// A tensor's number of elements, replicas not counted.
    pub fn len(&self, tensor: Tensor) -> usize {
        self.info(tensor).len()
    }

    /// A tensor's element type.
    pub fn element(&self, tensor: Tensor) -> Element {
        self.info(tensor).element
    }

    fn register(
        &mut self,
        label: &str,
        shape: &[usize],
        element: Element,
        storage: Storage,
    ) -> Tensor {
        let root = self.tensors.len();
        let label = format!("{}{label}", self.scope);
        let fits = elements(shape).is_some_and(|n| n > 0 && u32::try_from(n).is_ok());
        if !fits {
            // Kernels count in words of 32 bits.
            let expected = format!("1 to {} elements", u32::MAX);
            self.blame(Error::value(format!("shape of {label}"), format!("{shape:?}"), expected));
        }
        let shape = if fits { shape.to_vec() } else { vec![1] };
        let (words_below, limit) = (None, None);
        self.tensors.push(Info { label, shape, element, storage, root, words_below, limit });
        Tensor(root, self.id)
    }

    /// A tensor that lives within a step. Its memory is shared with tensors of other
    /// lifetimes: nothing may read it before it's written.
    pub fn tensor(&mut self, label: &str, shape: &[usize], element: Element) -> Tensor {
        self.register(label, shape, element, Storage::Transient)
    }

    /// A tensor that is written from outside by [`Plan::write`](crate::Plan::write), or that
    /// carries values from step to step. Zero at first.
    pub fn input(&mut self, label: &str, shape: &[usize], element: Element) -> Tensor {
        self.register(label, shape, element, Storage::Persistent)
    }

    /// A tensor with one value everywhere.
    pub fn constant(&mut self, value: f32, shape: &[usize]) -> Tensor {
        self.register("constant", shape, Element::F32, Storage::Constant(value))
    }

    /// A tensor of given values, the same for each replica.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there are as many as the shape has elements.
    pub fn values(&mut self, label: &str, shape: &[usize], values: Data) -> Result<Tensor> {
        if elements(shape) != Some(values.len()) {
            let what = format!("{} elements for {label} {shape:?}", values.len());
            return Err(Error::shape("values", what));
        }
        let words_below = match &values {
            Data::U32(words) => Some(crate::dataset::past(words)),
            Data::F32(_) => None,
        };
        let (element, storage) = (values.element(), Storage::Values(Arc::new(values)));
        let tensor = self.register(label, shape, element, storage);
        self.tensors[tensor.0].words_below = words_below;
        Ok(tensor)
    }

    /// A buffer that all replicas read.
    pub(crate) fn shared(&mut self, label: &str, buffer: &Buffer) -> Tensor {
        if !self.arena.device().owns(buffer) {
            let device = self.arena.device().name();
            self.blame(Error::value(format!("device of the {label}"), "another", device));
        }
        self.register(label, &[buffer.words], buffer.element, Storage::Shared(buffer.clone()))
    }

    /// Keeps a tensor's values after the step, to be read by
    /// [`Plan::read`](crate::Plan::read) or used by another plan.
    pub fn keep(&mut self, tensor: Tensor) -> Tensor {
        let root = self.root(tensor);
        match self.tensors.get_mut(root) {
            Some(info) if matches!(info.storage, Storage::Transient) => {
                info.storage = Storage::Persistent
            }
            Some(_) => {}
            None => self.claim(&[tensor]),
        }
        tensor
    }

    /// The same values under another shape.
    ///
    /// # Errors
    /// [`Error::Shape`] if the number of elements differs.
    pub fn reshape(&mut self, tensor: Tensor, shape: &[usize]) -> Result<Tensor> {
        self.own(&[tensor])?;
        let info = self.info(tensor);
        if elements(shape) != Some(info.len()) {
            return Err(Error::shape("reshape", format!("{:?} to {shape:?}", info.shape)));
        }
        let view = Info { shape: shape.to_vec(), ..info.clone() };
        self.tensors.push(view);
        Ok(Tensor(self.tensors.len() - 1, self.id))
    }

    /// Puts a name before the labels of what `record` records.
    pub fn scoped<T>(&mut self, name: &str, record: impl FnOnce(&mut Self) -> T) -> T {
        let outer = self.scope.len();
        self.scope.push_str(name);
        self.scope.push('.');
        let result = record(self);
        self.scope.truncate(outer);
        result
    }

    /// A number for an op that draws random numbers, so that no two share a stream.
    pub fn random_op(&mut self) -> u32 {
        self.random_ops += 1;
        self.random_ops
    }

    /// Records a kernel call. `params` is the kernel's parameter struct.
    ///
    /// Of a model that is larger than a binding, a call binds the part of a flat vector in which its
    /// parameters are. Where that is, say the kernel's `u32` fields: that of an argument's name and
    /// `_offset`, or else `offset` and all that end in `_offset` and have no other argument's name. They
    /// count from the part's begin then.
    pub fn dispatch<P: bytemuck::Pod>(
        &mut self,
        kernel: &'static Kernel<P>,
        params: &P,
        args: &[Operand],
    ) {
        self.dispatch_items(kernel, params, args, 1);
    }

    /// [`Graph::dispatch`] of a kernel that takes each of so many items of its arguments, tensors all
    /// of them, for a replica: what lies there one after the other is computed side by side.
    pub(crate) fn dispatch_items<P: bytemuck::Pod>(
        &mut self,
        kernel: &'static Kernel<P>,
        params: &P,
        args: &[Operand],
        items: usize,
    ) {
        for arg in args {
            if let Operand::Tensor(tensor) = arg {
                self.claim(&[*tensor]);
            }
        }
        self.calls.push(Recorded {
            kernel: kernel.any(),
            label: format!("{}{}", self.scope, kernel.name),
            params: device::words(params),
            args: args.to_vec(),
            items,
        });
    }

    /// Puts an op on the tape: `backward` runs if a gradient of one of the outputs is known
    /// and one of the inputs or weights wants one.
    pub fn on_backward(
        &mut self,
        inputs: &[Tensor],
        weights: &[&Param],
        outputs: &[Tensor],
        backward: impl FnOnce(&mut Backward<'_>) -> Result<()> + 'static,
    ) {
        self.claim(inputs);
        self.claim(outputs);
        for weight in weights {
            if let Err(fault) = self.of_arena(weight) {
                self.blame(fault);
            }
        }
        self.tape.push(Entry {
            inputs: inputs.to_vec(),
            weights: weights.iter().map(|w| w.index).collect(),
            outputs: outputs.to_vec(),
            backward: Box::new(backward),
        });
    }

    /// Ends the forward pass here. What is recorded from now on belongs to
    /// [`Plan::backward`](crate::Plan::backward): a loss, say, whose targets are known only after
    /// a prediction was made.
    pub fn end_forward(&mut self) {
        self.forward = Some(self.calls.len());
    }

    /// Calls of the forward pass.
    pub(crate) fn boundary(&self) -> usize {
        self.forward.unwrap_or(self.calls.len())
    }

    pub(crate) fn root(&self, tensor: Tensor) -> usize {
        self.info(tensor).root
    }
}
