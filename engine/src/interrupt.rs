//! Ending runs before their steps are done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Asks runs of plans to end between two steps. Cheap to clone; clones are the same interrupt.
///
/// ```
/// use tern_engine::nn::{Mode, ModelSpec};
/// use tern_engine::{
///     Arena, Batching, Device, Error, Graph, Interrupt, Optimizer, RowData, Training,
/// };
///
/// # fn main() -> tern_engine::Result<()> {
/// # let device = Device::cpu();
/// # let data = RowData::upload(&device, &[0.0, 1.0], 1, &[0, 1], 2)?;
/// # let (parameters, model) = ModelSpec::mlp(1, &[], 2).build()?;
/// # let arena = Arena::new(&device, &parameters, &[1])?;
/// # let mut graph = Graph::new(&arena);
/// # let (inputs, targets) = graph.row_batch(&data, &Batching::shuffled(2))?;
/// # let logits = model.forward(&mut graph, inputs, Mode::Train)?.output;
/// # let loss = graph.cross_entropy(logits, targets)?;
/// let mut plan = graph.train(loss, &Training::new(Optimizer::sgd(), 0.1))?;
/// let interrupt = Interrupt::new();
/// plan.set_interrupt(&interrupt);
///
/// // A user, a signal, a deadline: from any thread.
/// let asked = interrupt.clone();
/// std::thread::spawn(move || asked.set());
/// assert!(matches!(plan.run(usize::MAX), Err(Error::Interrupted)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// One that nobody has set.
    pub fn new() -> Self {
        Interrupt::default()
    }

    /// Ends runs that are under way, and those to come.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was set.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
