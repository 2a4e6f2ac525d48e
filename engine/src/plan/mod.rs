//! A recorded model, ready to be replayed.

mod access;
#[cfg(feature = "blocking")]
mod blocking;
mod find;
mod losses;
mod passes;
mod windows;

use std::collections::BTreeMap;

use tern_shaders::Element;
use tern_shaders::kernels::state::RING_CHANNELS;
use tern_shaders::state::{self, StateRecord};

use crate::device::{Buffer, Call, Data, Program, Sequence, Slot, Timing};
use crate::graph::{Graph, GraphId, Info, Operand, Recorded, Storage};
use crate::memory::{self, Blocks, Memory};
use crate::{Arena, Choice, Error, Flat, Interrupt, Result};
pub use find::NotFinite;
pub use losses::Losses;
pub use passes::Activations;
use windows::{Windows, windows};

/// Steps whose logs are kept on the device before they are read.
pub(crate) const RING_STEPS: usize = 256;
/// Words of a replica's ring.
const RING: usize = RING_STEPS * RING_CHANNELS;

/// A fixed sequence of kernel calls over the models of an arena. Nothing is allocated before
/// the first use, and nothing after it.
pub struct Plan {
    id: GraphId,
    arena: Arena,
    tensors: Vec<Info>,
    calls: Vec<Recorded>,
    windows: Windows,
    /// Calls before this one are the forward pass.
    boundary: usize,
    blocks: Blocks,
    tile: usize,
    /// The state record each replica starts from.
    records: Vec<StateRecord>,
    /// Those that the plan was made with.
    start: Vec<StateRecord>,
    /// Whether the plan ends with `state/advance`, so that the ring fills.
    advances: bool,
    interrupt: Interrupt,
    ready: Option<Ready>,
}

struct Ready {
    chunks: Vec<Chunk>,
    step: Program,
    forward: Option<Program>,
    backward: Option<Program>,
    /// Sets of activation memory: one for all chunks, one a worker of the device, or, once passes
    /// have run apart, one a chunk.
    blocks: Vec<Vec<Buffer>>,
}

/// Replicas that are computed side by side, and what is theirs alone.
struct Chunk {
    tile: usize,
    /// First replica within the tile.
    within: usize,
    replicas: usize,
    persistent: BTreeMap<usize, Buffer>,
    state: Buffer,
    ring: Buffer,
}

impl Plan {
    pub(crate) fn new(
        mut graph: Graph,
        boundary: usize,
        records: Vec<StateRecord>,
        advances: bool,
    ) -> Result<Self> {
        graph.check()?;
        let Graph { id, arena, tensors, mut calls, .. } = graph;
        let limit = arena.device().profile().max_binding;
        let mut tile = arena.tile();
        for info in tensors.iter().filter(|i| !matches!(i.storage, Storage::Shared(_))) {
            let needed = 4 * memory::words(info, 1) as u64;
            if needed > limit {
                let what = format!("tensor {} {:?}", info.label, info.shape);
                return Err(Error::OutOfMemory { what, needed, available: limit });
            }
            let fitting = limit / (4 * info.len().max(1) as u64);
            tile = tile.min(usize::try_from(fitting).unwrap_or(usize::MAX));
        }
        let words = usize::try_from(limit / 4).unwrap_or(usize::MAX);
        let windows = windows(arena.parameters(), words, &mut calls)?;
        let blocks = memory::assign(&tensors, &calls, tile);
        Ok(Plan {
            id,
            arena,
            tensors,
            calls,
            windows,
            boundary,
            blocks,
            tile,
            start: records.clone(),
            records,
            advances,
            interrupt: Interrupt::new(),
            ready: None,
        })
    }

    /// The arena whose models the plan computes.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Dispatches a step records, all replicas of a tile together.
    pub fn dispatches(&self) -> usize {
        self.calls.len()
    }

    /// Tile, first replica within it and number of replicas of each chunk.
    fn places(&self) -> Vec<(usize, usize, usize)> {
        let mut places = Vec::new();
        for tile in 0..self.arena.tiles() {
            let in_tile = self.arena.tile_replicas(tile);
            for within in (0..in_tile).step_by(self.tile) {
                places.push((tile, within, self.tile.min(in_tile - within)));
            }
        }
        places
    }

    /// Chunks computed at once.
    fn workers(&self) -> usize {
        self.arena.device().workers().unwrap_or(1).min(self.places().len())
    }

    /// Bytes that the dispatches of a step bind for a full tile, each binding of each dispatch
    /// counted: what a step would move if every kernel read and wrote all it is given once.
    pub fn bytes_bound(&self) -> u64 {
        let words = |arg: &Operand| match arg {
            Operand::Tensor(tensor) => {
                let info = &self.tensors[self.tensors[tensor.0].root];
                match &info.storage {
                    Storage::Shared(buffer) => buffer.words,
                    _ => memory::words(info, self.tile),
                }
            }
            Operand::Flat(_) => self.tile * self.arena.parameters().words(),
            Operand::State => self.tile * state::WORDS,
            Operand::Ring => self.tile * RING,
        };
        let bound = |at: usize, call: &Recorded| -> u64 {
            let args = call.args.iter().enumerate();
            let of = |(i, arg)| self.windows.get(&(at, i)).map_or_else(|| words(arg), |w| w.len());
            args.map(|arg| 4 * of(arg) as u64).sum()
        };
        self.calls.iter().enumerate().map(|(at, call)| bound(at, call)).sum()
    }

    /// What the plan takes, the arena included. Nothing is allocated for it.
    pub fn memory(&self) -> Memory {
        let replicas = self.arena.replicas();
        let flat = 4 * (replicas * self.arena.parameters().words()) as u64;
        let uses =
            |flat: Flat| self.calls.iter().any(|call| call.args.contains(&Operand::Flat(flat)));
        let bytes = |flats: &[Flat]| flats.iter().filter(|f| uses(**f)).count() as u64 * flat;
        let tensor_bytes = |wanted: fn(&Storage) -> bool, replicas: usize| -> u64 {
            let own = self.tensors.iter().enumerate();
            own.filter(|(i, info)| info.root == *i && wanted(&info.storage))
                .map(|(_, info)| 4 * memory::words(info, replicas) as u64)
                .sum()
        };
        let lives = memory::lifetimes(&self.tensors, &self.calls);
        let workers = self.workers() as u64;
        let blocks: Vec<u64> = self.blocks.sizes.iter().map(|b| 4 * b.1 as u64).collect();
        // Of a model that is larger than a binding the largest part that a call binds.
        let whole = self.tile * self.arena.parameters().words();
        let flat_words = self.windows.values().map(|window| window.len()).max().unwrap_or(whole);
        let tile_flat = 4 * flat_words as u64;
        Memory {
            parameters: flat,
            gradients: bytes(&[Flat::Gradients]),
            optimizer: bytes(&Flat::CARRIED),
            activations: workers * blocks.iter().sum::<u64>(),
            activations_unshared: lives
                .keys()
                .map(|root| workers * 4 * memory::words(&self.tensors[*root], self.tile) as u64)
                .sum(),
            persistent: tensor_bytes(
                |storage| !matches!(storage, Storage::Transient | Storage::Shared(_)),
                replicas,
            ),
            shared: tensor_bytes(|storage| matches!(storage, Storage::Shared(_)), 1),
            control: 4 * (replicas * (state::WORDS + RING) + self.calls.len() * 64) as u64,
            replicas,
            tile: self.tile,
            largest_binding: blocks.into_iter().chain([tile_flat]).max().unwrap_or(0),
        }
    }

    /// Allocates and compiles everything, which otherwise the first run does.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Kernel`] and [`Error::DeviceLost`] from the device.
    pub async fn prepare_async(&mut self) -> Result<()> {
        if self.ready.is_some() {
            return Ok(());
        }
        if self.arena.device().measures() {
            self.tune_async(false).await?;
        }
        let mut blocks = Vec::new();
        for _ in 0..self.workers() {
            blocks.push(self.block_set().await?);
        }
        let mut chunks = Vec::new();
        let mut first = 0;
        for (tile, within, replicas) in self.places() {
            chunks.push(self.chunk(tile, within, replicas, first).await?);
            first += replicas;
        }
        let mut sequences = Vec::new();
        for chunk in &chunks {
            sequences.push(self.bind(&blocks[0], chunk, 0..self.calls.len()).await?);
        }
        let step = self.arena.device().compile(sequences, &blocks).await?;
        self.ready = Some(Ready { chunks, step, forward: None, backward: None, blocks });
        Ok(())
    }

    /// Memory for the activations of one chunk.
    async fn block_set(&self) -> Result<Vec<Buffer>> {
        let mut blocks = Vec::new();
        for (i, (element, words)) in self.blocks.sizes.iter().enumerate() {
            let what = format!("activations {i}");
            blocks.push(self.arena.device().allocate(&what, *words, *element).await?);
        }
        Ok(blocks)
    }

    /// Measures which variants compute the plan's products and recurrences fastest on this
    /// device, for each class of sizes that has no choice yet, or for all with `again`. The
    /// choices hold for plans prepared from now on and are kept in the user's cache folder.
    /// Nothing to choose on the CPU.
    ///
    /// # Errors
    /// [`Error::Value`] if the plan has been prepared or run; device errors.
    pub async fn tune_async(&mut self, again: bool) -> Result<Vec<Choice>> {
        if self.ready.is_some() {
            return Err(Error::value("plan to tune", "prepared", "one that has not run"));
        }
        let call = |recorded: &Recorded| Call {
            kernel: recorded.kernel,
            label: recorded.label.clone(),
            params: recorded.params.clone(),
            slots: Vec::new(),
            replicas: 1,
            variant: None,
        };
        let calls: Vec<Call> = self.calls.iter().map(call).collect();
        self.arena.device().tune_calls(&calls, again).await
    }

    async fn chunk(
        &self,
        tile: usize,
        within: usize,
        replicas: usize,
        first: usize,
    ) -> Result<Chunk> {
        let device = self.arena.device();
        let mut persistent = BTreeMap::new();
        for (i, info) in self.tensors.iter().enumerate().filter(|(i, info)| info.root == *i) {
            let words = memory::words(info, replicas);
            match info.storage {
                Storage::Persistent => {
                    persistent.insert(i, device.allocate(&info.label, words, info.element).await?);
                }
                Storage::Constant(value) => {
                    let data = Data::F32(vec![value; words]);
                    persistent.insert(i, device.upload(&info.label, &data).await?);
                }
                Storage::Values(ref values) => {
                    let data = values.repeated(replicas, words);
                    persistent.insert(i, device.upload(&info.label, &data).await?);
                }
                Storage::Transient | Storage::Shared(_) => {}
            }
        }
        let records = StateRecord::words(&self.records[first..first + replicas]);
        Ok(Chunk {
            tile,
            within,
            replicas,
            persistent,
            state: device.upload("state", &Data::U32(records)).await?,
            ring: device.allocate("losses", replicas * RING, Element::F32).await?,
        })
    }

    async fn bind(
        &self,
        blocks: &[Buffer],
        chunk: &Chunk,
        range: std::ops::Range<usize>,
    ) -> Result<Sequence> {
        let mut calls = Vec::new();
        for (at, recorded) in range.clone().zip(&self.calls[range]) {
            let mut slots = Vec::with_capacity(recorded.args.len());
            for (i, arg) in recorded.args.iter().enumerate() {
                let mut slot = self.slot(blocks, chunk, *arg).await?;
                if let Some(window) = self.windows.get(&(at, i)) {
                    slot = Slot { at: slot.at + window.start, words: window.len(), ..slot };
                }
                slots.push(slot);
            }
            calls.push(Call {
                kernel: recorded.kernel,
                label: recorded.label.clone(),
                params: recorded.params.clone(),
                slots,
                replicas: chunk.replicas * recorded.items,
                variant: None,
            });
        }
        let records = match self.advances {
            true => Some(self.slot(blocks, chunk, Operand::State).await?),
            false => None,
        };
        Ok(Sequence { calls, records })
    }

    async fn slot(&self, blocks: &[Buffer], chunk: &Chunk, operand: Operand) -> Result<Slot> {
        let whole = |buffer: &Buffer, words: usize| Slot { buffer: buffer.clone(), at: 0, words };
        Ok(match operand {
            Operand::Tensor(tensor) => {
                let root = self.tensors[tensor.0].root;
                let info = &self.tensors[root];
                let words = info.len() * chunk.replicas;
                match &info.storage {
                    Storage::Transient => whole(&blocks[self.blocks.of[&root]], words),
                    Storage::Shared(buffer) => whole(buffer, buffer.words),
                    Storage::Persistent | Storage::Constant(_) | Storage::Values(_) => {
                        whole(&chunk.persistent[&root], words)
                    }
                }
            }
            Operand::Flat(flat) => {
                let words = self.arena.parameters().words();
                let buffer = self.arena.buffer(chunk.tile, flat).await?;
                Slot { buffer, at: chunk.within * words, words: chunk.replicas * words }
            }
            Operand::State => whole(&chunk.state, chunk.replicas * state::WORDS),
            Operand::Ring => whole(&chunk.ring, chunk.replicas * RING),
        })
    }

    fn ready(&self) -> &Ready {
        self.ready.as_ref().expect("prepared before use")
    }

    /// Lets runs end by an interrupt.
    pub fn set_interrupt(&mut self, interrupt: &Interrupt) {
        self.interrupt = interrupt.clone();
    }

    /// Replays the plan: `steps` times for every replica.
    ///
    /// # Errors
    /// As [`Plan::prepare_async`]; [`Error::Interrupted`] once the plan's interrupt is set. No step
    /// is left half made then, but replicas may have made different numbers of them.
    pub async fn run_async(&mut self, steps: usize) -> Result<Losses> {
        self.prepare_async().await?;
        let mut losses = Losses::new(self.arena.replicas());
        let mut before = if self.advances { self.states_async().await? } else { Vec::new() };
        let mut left = steps;
        while left > 0 {
            let now = left.min(RING_STEPS);
            let device = self.arena.device();
            device.replay_until(&self.ready().step, now, &self.interrupt).await?;
            if self.interrupt.is_set() {
                return Err(Error::Interrupted);
            }
            if self.advances {
                before = self.collect(&before, &mut losses).await?;
            }
            left -= now;
        }
        for (replica, record) in before.iter().enumerate() {
            losses.end(replica, record);
        }
        Ok(losses)
    }

    /// Appends the steps logged since `before`, and returns the records as they are now.
    async fn collect(
        &self,
        before: &[StateRecord],
        losses: &mut Losses,
    ) -> Result<Vec<StateRecord>> {
        let after = self.states_async().await?;
        let mut replica = 0;
        for chunk in &self.ready().chunks {
            let words = chunk.replicas * RING;
            let ring = self.arena.device().read(&chunk.ring, 0, words).await?.floats()?;
            for ring in ring.chunks_exact(RING) {
                losses.extend(replica, before[replica].steps()..after[replica].steps(), ring);
                replica += 1;
            }
        }
        Ok(after)
    }

    /// Time of each call of one step, which is computed on the way.
    ///
    /// # Errors
    /// Device errors.
    pub async fn profile_async(&mut self) -> Result<Vec<Timing>> {
        self.prepare_async().await?;
        self.arena.device().profile_program(&self.ready().step).await
    }
}
