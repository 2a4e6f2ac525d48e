//! Memory of a plan: lifetimes of its tensors, and what it all takes before it is taken.

use std::collections::BTreeMap;

use tern_shaders::Element;

use crate::graph::{Info, Operand, Recorded, Storage};

/// Bytes that the tensors of a plan take, known before anything is allocated. Beside them there are
/// the record of the graph, and on the CPU what each thread packs operands into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The arena's parameters.
    pub parameters: u64,
    /// The arena's gradients, if the plan trains.
    pub gradients: u64,
    /// The arena's optimizer moments, reference and average, as far as the plan uses them.
    pub optimizer: u64,
    /// Tensors that live within a step, after sharing by lifetimes; for one tile.
    pub activations: u64,
    /// The same without sharing.
    pub activations_unshared: u64,
    /// Inputs, outputs, carried state, constants.
    pub persistent: u64,
    /// Data sets and other buffers that the plan reads but doesn't own.
    pub shared: u64,
    /// State records, the ring of losses, parameter structs of the calls.
    pub control: u64,
    /// Replicas in all, and replicas computed side by side.
    pub replicas: usize,
    /// Replicas computed side by side.
    pub tile: usize,
    /// Largest single binding.
    pub largest_binding: u64,
}

impl Memory {
    /// Everything together.
    pub fn total(&self) -> u64 {
        self.parameters
            + self.gradients
            + self.optimizer
            + self.activations
            + self.persistent
            + self.shared
            + self.control
    }
}

/// Words a tensor takes for a number of replicas.
pub(crate) fn words(info: &Info, replicas: usize) -> usize {
    (info.len() * replicas).next_multiple_of(64)
}

/// Assignment of transient tensors to blocks of memory.
#[derive(Default)]
pub(crate) struct Blocks {
    /// Element and words of each block.
    pub sizes: Vec<(Element, usize)>,
    /// Block of each transient root tensor that is used.
    pub of: BTreeMap<usize, usize>,
}

impl Blocks {
    /// Words of all of them.
    fn words(&self) -> usize {
        self.sizes.iter().map(|(_, words)| words).sum()
    }
}

/// First and last call that uses each transient root tensor.
pub(crate) fn lifetimes(tensors: &[Info], calls: &[Recorded]) -> BTreeMap<usize, (usize, usize)> {
    let mut lives: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for (at, call) in calls.iter().enumerate() {
        for arg in &call.args {
            if let Operand::Tensor(tensor) = arg {
                let root = tensors[tensor.0].root;
                if matches!(tensors[root].storage, Storage::Transient) {
                    lives.entry(root).and_modify(|life| life.1 = at).or_insert((at, at));
                }
            }
        }
    }
    lives
}

/// Gives tensors whose lifetimes don't overlap the same block. Of two ways the one that takes less
/// memory: each tensor, as they come, gets the smallest free block that fits, else the largest free one
/// grows; or the largest tensors come first (Pisarchyk and Lee 2020, "Efficient Memory Management for
/// Deep Neural Net Inference", section 5.2).
pub(crate) fn assign(tensors: &[Info], calls: &[Recorded], replicas: usize) -> Blocks {
    let lives = lifetimes(tensors, calls);
    let mut order: Vec<usize> = lives.keys().copied().collect();
    order.sort_by_key(|root| lives[root]);
    let mut by_size = order.clone();
    by_size.sort_by_key(|root| std::cmp::Reverse(words(&tensors[*root], replicas)));
    let first = assign_in(&order, tensors, &lives, replicas);
    let second = assign_in(&by_size, tensors, &lives, replicas);
    if second.words() < first.words() { second } else { first }
}

/// Gives each tensor, in this order, the smallest block that is free while it lives and fits, else the
/// largest that is free, which grows.
fn assign_in(
    order: &[usize],
    tensors: &[Info],
    lives: &BTreeMap<usize, (usize, usize)>,
    replicas: usize,
) -> Blocks {
    let mut blocks = Blocks::default();
    // Lifetimes of each block's tenants, by their first call: none overlap.
    let mut tenants: Vec<BTreeMap<usize, usize>> = Vec::new();
    for root in order {
        let (first, last) = lives[root];
        let element = tensors[*root].element;
        let needed = words(&tensors[*root], replicas);
        let is_free = |tenants: &BTreeMap<usize, usize>| {
            tenants.range(..=last).next_back().is_none_or(|(_, end)| *end < first)
        };
        let free = (0..blocks.sizes.len())
            .filter(|b| blocks.sizes[*b].0 == element && is_free(&tenants[*b]));
        let (fitting, short): (Vec<_>, Vec<_>) = free.partition(|b| blocks.sizes[*b].1 >= needed);
        let block = fitting
            .into_iter()
            .min_by_key(|b| blocks.sizes[*b].1)
            .or_else(|| short.into_iter().max_by_key(|b| blocks.sizes[*b].1));
        let block = block.unwrap_or_else(|| {
            blocks.sizes.push((element, 0));
            tenants.push(BTreeMap::new());
            blocks.sizes.len() - 1
        });
        blocks.sizes[block].1 = blocks.sizes[block].1.max(needed);
        tenants[block].insert(first, last);
        blocks.of.insert(*root, block);
    }
    blocks
}
