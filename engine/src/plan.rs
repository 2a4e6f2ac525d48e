//! A recorded model, ready to be replayed.

use std::collections::BTreeMap;

use tern_shaders::cpu::state::RING_CHANNELS;
use tern_shaders::{Access, Element, state};

use crate::device::{Buffer, Call, Data, Program, Slot, Timing};
use crate::graph::{Graph, Home, Info, Operand, Recorded, Tensor};
use crate::memory::{self, Blocks, Memory};
use crate::{Arena, Error, Flat, Result};

/// Steps whose logs are kept on the device before they are read.
pub(crate) const RING_STEPS: usize = 256;
/// Words of a replica's ring.
const RING: usize = RING_STEPS * RING_CHANNELS;

/// A fixed sequence of kernel calls over the models of an arena. Nothing is allocated before
/// the first use, and nothing after it.
pub struct Plan {
    arena: Arena,
    tensors: Vec<Info>,
    calls: Vec<Recorded>,
    /// Calls before this one are the forward pass.
    boundary: usize,
    blocks: Blocks,
    tile: usize,
    /// The state record each replica starts from.
    records: Vec<[u32; state::WORDS]>,
    /// Whether the plan ends with `state/advance`, so that the ring fills.
    advances: bool,
    ready: Option<Ready>,
}

struct Ready {
    chunks: Vec<Chunk>,
    step: Program,
    forward: Option<Program>,
    backward: Option<Program>,
    blocks: Vec<Buffer>,
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

/// Losses of the steps of a [`Plan::run`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Losses {
    /// Loss by replica, then by step.
    pub by_replica: Vec<Vec<f32>>,
    /// Rows of each step's batch, by replica.
    pub rows: Vec<Vec<f32>>,
}

impl Losses {
    /// Loss of the last step, averaged over replicas; `None` if the plan has no loss.
    pub fn last(&self) -> Option<f32> {
        let last: Option<Vec<f32>> = self.by_replica.iter().map(|l| l.last().copied()).collect();
        last.filter(|l| !l.is_empty()).map(|l| l.iter().sum::<f32>() / l.len() as f32)
    }

    /// Mean over all steps and replicas, weighted by the rows of the batches; `None` if
    /// there are none.
    pub fn mean(&self) -> Option<f32> {
        let (losses, rows) = (self.by_replica.iter().flatten(), self.rows.iter().flatten());
        let pairs = losses.zip(rows).map(|(l, r)| (f64::from(*l) * f64::from(*r), f64::from(*r)));
        let (sum, weight) = pairs.fold((0.0, 0.0), |(s, w), (l, r)| (s + l, w + r));
        (weight > 0.0).then(|| (sum / weight) as f32)
    }
}

impl Plan {
    pub(crate) fn new(
        graph: Graph,
        boundary: usize,
        records: Vec<[u32; state::WORDS]>,
        advances: bool,
    ) -> Result<Self> {
        let Graph { arena, tensors, calls, .. } = graph;
        let limit = arena.device().profile().max_binding;
        let mut tile = arena.tile();
        for info in tensors.iter().filter(|i| !matches!(i.home, Home::Shared(_))) {
            let needed = 4 * memory::words(info, 1) as u64;
            if needed > limit {
                let what = format!("tensor {} {:?}", info.label, info.shape);
                return Err(Error::OutOfMemory { what, needed, available: limit });
            }
            let fitting = limit / (4 * info.len().max(1) as u64);
            tile = tile.min(usize::try_from(fitting).unwrap_or(usize::MAX));
        }
        let blocks = memory::assign(&tensors, &calls, tile);
        Ok(Plan { arena, tensors, calls, boundary, blocks, tile, records, advances, ready: None })
    }

    /// The arena whose models the plan computes.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Dispatches a step records, all replicas of a tile together.
    pub fn dispatches(&self) -> usize {
        self.calls.len()
    }

    /// What the plan takes, the arena included. Nothing is allocated for it.
    pub fn memory(&self) -> Memory {
        let replicas = self.arena.replicas();
        let flat = 4 * (replicas * self.arena.parameters().words()) as u64;
        let uses =
            |flat: Flat| self.calls.iter().any(|call| call.args.contains(&Operand::Flat(flat)));
        let bytes = |flats: &[Flat]| flats.iter().filter(|f| uses(**f)).count() as u64 * flat;
        let tensor_bytes = |wanted: fn(&Home) -> bool, replicas: usize| -> u64 {
            let own = self.tensors.iter().enumerate();
            own.filter(|(i, info)| info.root == *i && wanted(&info.home))
                .map(|(_, info)| 4 * memory::words(info, replicas) as u64)
                .sum()
        };
        let lives = memory::lifetimes(&self.tensors, &self.calls);
        let blocks: Vec<u64> = self.blocks.sizes.iter().map(|b| 4 * b.1 as u64).collect();
        let tile_flat = 4 * (self.tile * self.arena.parameters().words()) as u64;
        Memory {
            parameters: flat,
            gradients: bytes(&[Flat::Gradients]),
            optimizer: bytes(&[Flat::Moment1, Flat::Moment2, Flat::Reference]),
            activations: blocks.iter().sum(),
            activations_unshared: lives
                .keys()
                .map(|root| 4 * memory::words(&self.tensors[*root], self.tile) as u64)
                .sum(),
            persistent: tensor_bytes(
                |home| matches!(home, Home::Persistent | Home::Constant(_)),
                replicas,
            ),
            shared: tensor_bytes(|home| matches!(home, Home::Shared(_)), 1),
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
        let device = self.arena.device().clone();
        let mut blocks = Vec::new();
        for (i, (element, words)) in self.blocks.sizes.iter().enumerate() {
            blocks.push(device.allocate(&format!("activations {i}"), *words, *element).await?);
        }
        let mut chunks = Vec::new();
        let mut first = 0;
        for tile in 0..self.arena.tiles() {
            let in_tile = self.arena.tile_replicas(tile);
            for within in (0..in_tile).step_by(self.tile) {
                let replicas = self.tile.min(in_tile - within);
                chunks.push(self.chunk(tile, within, replicas, first).await?);
                first += replicas;
            }
        }
        let step = self.bind(&blocks, &chunks, 0..self.calls.len()).await?;
        self.ready = Some(Ready { chunks, step, forward: None, backward: None, blocks });
        Ok(())
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
            match info.home {
                Home::Persistent => {
                    persistent.insert(i, device.allocate(&info.label, words, info.element).await?);
                }
                Home::Constant(value) => {
                    let data = Data::F32(vec![value; words]);
                    persistent.insert(i, device.upload(&info.label, &data).await?);
                }
                Home::Transient | Home::Shared(_) => {}
            }
        }
        let records: Vec<u32> = self.records[first..first + replicas].concat();
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
        chunks: &[Chunk],
        range: std::ops::Range<usize>,
    ) -> Result<Program> {
        let mut calls = Vec::new();
        for chunk in chunks {
            for recorded in &self.calls[range.clone()] {
                let mut slots = Vec::with_capacity(recorded.args.len());
                for arg in &recorded.args {
                    slots.push(self.slot(blocks, chunk, *arg).await?);
                }
                calls.push(Call {
                    kernel: recorded.kernel,
                    label: recorded.label.clone(),
                    params: recorded.params.clone(),
                    slots,
                    replicas: chunk.replicas,
                });
            }
        }
        self.arena.device().compile(calls).await
    }

    async fn slot(&self, blocks: &[Buffer], chunk: &Chunk, operand: Operand) -> Result<Slot> {
        let whole = |buffer: &Buffer, words: usize| Slot { buffer: buffer.clone(), at: 0, words };
        Ok(match operand {
            Operand::Tensor(tensor) => {
                let root = self.tensors[tensor.0].root;
                let info = &self.tensors[root];
                let words = info.len() * chunk.replicas;
                match &info.home {
                    Home::Transient => whole(&blocks[self.blocks.of[&root]], words),
                    Home::Shared(buffer) => whole(buffer, buffer.words),
                    Home::Persistent | Home::Constant(_) => whole(&chunk.persistent[&root], words),
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

    /// Replays the plan: `steps` times for every replica.
    ///
    /// # Errors
    /// As [`Plan::prepare_async`].
    pub async fn run_async(&mut self, steps: usize) -> Result<Losses> {
        self.prepare_async().await?;
        let mut losses = {
            let none = vec![Vec::new(); self.arena.replicas()];
            Losses { by_replica: none.clone(), rows: none }
        };
        let mut before = self.losses_written().await?;
        let mut left = steps;
        while left > 0 {
            let now = left.min(RING_STEPS);
            self.arena.device().replay(&self.ready().step, now).await?;
            before = self.collect(&before, &mut losses).await?;
            left -= now;
        }
        Ok(losses)
    }

    /// Steps each replica has completed.
    async fn losses_written(&self) -> Result<Vec<u32>> {
        if !self.advances {
            return Ok(Vec::new());
        }
        Ok(self.states_async().await?.iter().map(|record| record[state::STEP]).collect())
    }

    /// Appends the steps logged since `before`, and returns the steps completed.
    async fn collect(&self, before: &[u32], losses: &mut Losses) -> Result<Vec<u32>> {
        if !self.advances {
            return Ok(Vec::new());
        }
        let after = self.losses_written().await?;
        let mut replica = 0;
        for chunk in &self.ready().chunks {
            let words = chunk.replicas * RING;
            let Data::F32(ring) = self.arena.device().read(&chunk.ring, 0, words).await? else {
                unreachable!("losses are floats")
            };
            for ring in ring.chunks_exact(RING) {
                let steps = before[replica]..after[replica];
                let slot = |step: u32| step as usize % RING_STEPS * RING_CHANNELS;
                losses.by_replica[replica].extend(steps.clone().map(|s| ring[slot(s)]));
                losses.rows[replica].extend(steps.map(|s| ring[slot(s) + 1]));
                replica += 1;
            }
        }
        Ok(after)
    }

    /// Computes the forward pass alone, leaving activations for [`Plan::backward_async`].
    ///
    /// # Errors
    /// [`Error::Value`] if the replicas take several tiles, whose activations share memory.
    pub async fn forward_async(&mut self) -> Result<()> {
        self.apart("forward").await?;
        if self.ready().forward.is_none() {
            let ready = self.ready();
            let program = self.bind(&ready.blocks, &ready.chunks, 0..self.boundary).await?;
            if let Some(ready) = &mut self.ready {
                ready.forward = Some(program);
            }
        }
        match &self.ready().forward {
            Some(program) => self.arena.device().replay(program, 1).await,
            None => unreachable!("compiled above"),
        }
    }

    /// Computes the backward pass and the update from the activations that
    /// [`Plan::forward_async`] or [`Plan::restore_async`] left.
    ///
    /// # Errors
    /// As [`Plan::forward_async`].
    pub async fn backward_async(&mut self) -> Result<()> {
        self.apart("backward").await?;
        if self.ready().backward.is_none() {
            let ready = self.ready();
            let range = self.boundary..self.calls.len();
            let program = self.bind(&ready.blocks, &ready.chunks, range).await?;
            if let Some(ready) = &mut self.ready {
                ready.backward = Some(program);
            }
        }
        match &self.ready().backward {
            Some(program) => self.arena.device().replay(program, 1).await,
            None => unreachable!("compiled above"),
        }
    }

    async fn apart(&mut self, which: &str) -> Result<()> {
        self.prepare_async().await?;
        let chunks = self.ready().chunks.len();
        if chunks > 1 {
            let name = format!("tiles of a plan whose {which} pass runs apart");
            return Err(Error::value(name, chunks, "1"));
        }
        Ok(())
    }

    /// Blocks whose contents pass from the forward to the backward pass.
    fn crossing(&self) -> Vec<usize> {
        let lives = memory::lifetimes(&self.tensors, &self.calls);
        let crosses = |life: &(usize, usize)| life.0 < self.boundary && life.1 >= self.boundary;
        let mut blocks: Vec<usize> = lives
            .iter()
            .filter(|(_, life)| crosses(life))
            .map(|(root, _)| self.blocks.of[root])
            .collect();
        blocks.sort_unstable();
        blocks.dedup();
        blocks
    }

    /// Copies the activations that the backward pass reads, as the last forward pass left
    /// them, to memory of their own on the device.
    ///
    /// # Errors
    /// As [`Plan::forward_async`].
    pub async fn save_async(&mut self) -> Result<Activations> {
        self.apart("forward").await?;
        let device = self.arena.device().clone();
        let ready = self.ready();
        let mut kept = Vec::new();
        let crossing = self.crossing();
        let blocks = crossing.iter().map(|b| &ready.blocks[*b]);
        let chunk = &ready.chunks[0];
        for from in blocks.chain(chunk.persistent.values()).chain([&chunk.state]) {
            let to = device.allocate("activations", from.words, from.element).await?;
            device.copy(&whole(from), &whole(&to))?;
            kept.push(to);
        }
        Ok(Activations { kept })
    }

    /// Puts saved activations back, so that [`Plan::backward_async`] computes from them.
    ///
    /// # Errors
    /// [`Error::Value`] if they are another plan's.
    pub async fn restore_async(&mut self, activations: &Activations) -> Result<()> {
        self.apart("backward").await?;
        let ready = self.ready();
        let crossing = self.crossing();
        let blocks = crossing.iter().map(|b| &ready.blocks[*b]);
        let chunk = &ready.chunks[0];
        let to: Vec<_> = blocks.chain(chunk.persistent.values()).chain([&chunk.state]).collect();
        let fits = to.len() == activations.kept.len()
            && to.iter().zip(&activations.kept).all(|(a, b)| a.words == b.words);
        if !fits {
            return Err(Error::value("activations", "another plan's", "this plan's"));
        }
        for (from, to) in activations.kept.iter().zip(to) {
            self.arena.device().copy(&whole(from), &whole(to))?;
        }
        Ok(())
    }

    /// The state records of all replicas; see [`tern_shaders::state`].
    ///
    /// # Errors
    /// Device errors.
    pub async fn states_async(&self) -> Result<Vec<[u32; state::WORDS]>> {
        let Some(ready) = &self.ready else { return Ok(self.records.clone()) };
        let mut records = Vec::with_capacity(self.records.len());
        for chunk in &ready.chunks {
            let words = chunk.replicas * state::WORDS;
            let Data::U32(words) = self.arena.device().read(&chunk.state, 0, words).await? else {
                unreachable!("state is words")
            };
            records.extend(words.chunks_exact(state::WORDS).map(|r| {
                let mut record = [0; state::WORDS];
                record.copy_from_slice(r);
                record
            }));
        }
        Ok(records)
    }

    /// Sets the state records of all replicas.
    ///
    /// # Errors
    /// [`Error::Value`] unless there is one a replica; device errors.
    pub fn set_states(&mut self, records: &[[u32; state::WORDS]]) -> Result<()> {
        if records.len() != self.arena.replicas() {
            let expected = self.arena.replicas().to_string();
            return Err(Error::value("number of state records", records.len(), expected));
        }
        self.records = records.to_vec();
        let Some(ready) = &self.ready else { return Ok(()) };
        let mut first = 0;
        for chunk in &ready.chunks {
            let part = self.records[first..first + chunk.replicas].concat();
            self.arena.device().write(&chunk.state, 0, &Data::U32(part))?;
            first += chunk.replicas;
        }
        Ok(())
    }

    /// Starts over: the state records that the plan was made with, and zero in the tensors it
    /// carries from step to step (counters, recurrent state). Parameters stay.
    ///
    /// # Errors
    /// Device errors.
    pub fn rewind(&mut self) -> Result<()> {
        if let Some(ready) = &self.ready {
            for chunk in &ready.chunks {
                for (root, buffer) in &chunk.persistent {
                    let info = &self.tensors[*root];
                    if matches!(info.home, Home::Persistent) && self.writes(*root) {
                        let zeros = match info.element {
                            Element::F32 => Data::F32(vec![0.0; buffer.words]),
                            Element::U32 => Data::U32(vec![0; buffer.words]),
                        };
                        self.arena.device().write(buffer, 0, &zeros)?;
                    }
                }
            }
        }
        self.set_states(&self.records.clone())
    }

    /// Whether a call of the plan writes a tensor.
    fn writes(&self, root: usize) -> bool {
        self.calls.iter().any(|call| {
            call.args.iter().zip(call.kernel.bindings).any(|(arg, binding)| {
                binding.access == Access::ReadWrite
                    && matches!(arg, Operand::Tensor(t) if self.tensors[t.0].root == root)
            })
        })
    }

    /// Flat vectors that training changes, in this plan.
    pub(crate) fn flats(&self) -> Vec<Flat> {
        let uses =
            |flat: &Flat| self.calls.iter().any(|call| call.args.contains(&Operand::Flat(*flat)));
        let moments = [Flat::Moment1, Flat::Moment2, Flat::Reference].into_iter().filter(uses);
        [Flat::Parameters].into_iter().chain(moments).collect()
    }

    /// Tensors that carry values from step to step, by name.
    pub(crate) fn carried(&self) -> Vec<(String, Tensor)> {
        self.tensors
            .iter()
            .enumerate()
            .filter(|(i, info)| {
                info.root == *i && matches!(info.home, Home::Persistent) && self.writes(*i)
            })
            .map(|(i, info)| (format!("tensor.{i}.{}", info.label), Tensor(i)))
            .collect()
    }

    pub(crate) fn element(&self, tensor: Tensor) -> Element {
        self.tensors[tensor.0].element
    }

    pub(crate) fn len(&self, tensor: Tensor) -> usize {
        self.tensors[tensor.0].len()
    }

    /// The root of a tensor that has a buffer of its own.
    fn own(&self, tensor: Tensor) -> Result<usize> {
        let root = self.tensors[tensor.0].root;
        match self.tensors[root].home {
            Home::Persistent => Ok(root),
            _ => Err(Error::value("tensor", &self.tensors[root].label, "an input or a kept one")),
        }
    }

    /// Writes an input for all replicas: `[R, ...]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of elements; [`Error::Value`] for a tensor that is
    /// no input, a wrong element type or a number that isn't finite.
    pub async fn write_async(&mut self, tensor: Tensor, data: &Data) -> Result<()> {
        let root = self.own(tensor)?;
        let info = &self.tensors[root];
        if data.len() != info.len() * self.arena.replicas() {
            let replicas = self.arena.replicas();
            let what = format!(
                "{}: {} elements for {replicas} × {:?}",
                info.label,
                data.len(),
                info.shape
            );
            return Err(Error::shape("write", what));
        }
        if data.element() != info.element {
            let expected = format!("{:?}", info.element);
            return Err(Error::value(&info.label, format!("{:?}", data.element()), expected));
        }
        if let Data::F32(values) = data
            && let Some(at) = values.iter().position(|x| !x.is_finite())
        {
            let name = format!("{} at {at}", info.label);
            return Err(Error::value(name, values[at], "a finite number"));
        }
        let len = info.len();
        self.prepare_async().await?;
        let mut first = 0;
        for chunk in &self.ready().chunks {
            let range = first * len..(first + chunk.replicas) * len;
            let part = match data {
                Data::F32(x) => Data::F32(x[range].to_vec()),
                Data::U32(x) => Data::U32(x[range].to_vec()),
            };
            self.arena.device().write(&chunk.persistent[&root], 0, &part)?;
            first += chunk.replicas;
        }
        Ok(())
    }

    /// Reads an input or a kept tensor for all replicas: `[R, ...]`.
    ///
    /// # Errors
    /// [`Error::Value`] for a tensor that isn't kept; device errors.
    pub async fn read_async(&mut self, tensor: Tensor) -> Result<Data> {
        let root = self.own(tensor)?;
        self.prepare_async().await?;
        let len = self.tensors[root].len();
        let mut floats = Vec::new();
        let mut words = Vec::new();
        for chunk in &self.ready().chunks {
            let buffer = &chunk.persistent[&root];
            match self.arena.device().read(buffer, 0, chunk.replicas * len).await? {
                Data::F32(x) => floats.extend(x),
                Data::U32(x) => words.extend(x),
            }
        }
        Ok(match self.tensors[root].element {
            Element::F32 => Data::F32(floats),
            Element::U32 => Data::U32(words),
        })
    }

    /// The floats of a kept tensor in `f64`, which on the oracle is their full precision.
    ///
    /// # Errors
    /// As [`Plan::read_async`].
    pub async fn read_f64_async(&mut self, tensor: Tensor) -> Result<Vec<f64>> {
        let root = self.own(tensor)?;
        self.prepare_async().await?;
        let len = self.tensors[root].len();
        let mut values = Vec::new();
        for chunk in &self.ready().chunks {
            let buffer = &chunk.persistent[&root];
            values.extend(self.arena.device().read_f64(buffer, 0, chunk.replicas * len).await?);
        }
        Ok(values)
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

fn whole(buffer: &Buffer) -> Slot {
    Slot { buffer: buffer.clone(), at: 0, words: buffer.words }
}

/// Activations of a forward pass, saved by [`Plan::save_async`]. They stay on the device.
pub struct Activations {
    kept: Vec<Buffer>,
}

impl Activations {
    /// Bytes they take.
    pub fn bytes(&self) -> u64 {
        self.kept.iter().map(|b| 4 * b.words as u64).sum()
    }
}

macro_rules! covers {
    ($($(#[$meta:meta])* $name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $inner:ident;)+) => {
        #[cfg(feature = "blocking")]
        impl Plan {
            $($(#[$meta])*
            #[doc = ""]
            #[doc = "# Errors"]
            #[doc = concat!("As [`Plan::", stringify!($inner), "`].")]
            pub fn $name(&mut self, $($arg: $ty),*) -> Result<$out> {
                let device = self.arena.device().clone();
                device.wait(self.$inner($($arg),*))
            })+
        }
    };
}

covers! {
    /// [`Plan::prepare_async`], waiting.
    prepare() -> () = prepare_async;
    /// [`Plan::run_async`], waiting.
    run(steps: usize) -> Losses = run_async;
    /// [`Plan::forward_async`], waiting.
    forward() -> () = forward_async;
    /// [`Plan::backward_async`], waiting.
    backward() -> () = backward_async;
    /// [`Plan::save_async`], waiting.
    save() -> Activations = save_async;
    /// [`Plan::restore_async`], waiting.
    restore(activations: &Activations) -> () = restore_async;
    /// [`Plan::write_async`], waiting.
    write(tensor: Tensor, data: &Data) -> () = write_async;
    /// [`Plan::read_async`], waiting.
    read(tensor: Tensor) -> Data = read_async;
    /// [`Plan::read_f64_async`], waiting.
    read_f64(tensor: Tensor) -> Vec<f64> = read_f64_async;
    /// [`Plan::states_async`], waiting.
    states() -> Vec<[u32; state::WORDS]> = states_async;
    /// [`Plan::profile_async`], waiting.
    profile() -> Vec<Timing> = profile_async;
}
