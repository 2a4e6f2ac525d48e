//! Work on flat vectors outside of training: updates to be coded, masked, summed.

use tern_shaders::{AnyKernel, Element, Kernel};
use zeroize::{Zeroize, Zeroizing};

use crate::device::{self, Buffer, Call, Slot};
use crate::{Arena, Data, Device, Error, Flat, Result};

/// Numbers in the memory of a device. Cheap to clone; clones are the same memory.
#[derive(Clone)]
pub struct Vector {
    device: Device,
    slot: Slot,
}

impl Vector {
    /// `len` zeros.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], device errors.
    pub async fn zeros_async(device: &Device, element: Element, len: usize) -> Result<Self> {
        let buffer = device.allocate("vector", len, element).await?;
        Ok(Vector { device: device.clone(), slot: Slot { buffer, at: 0, words: len } })
    }

    /// A copy of host data.
    ///
    /// # Errors
    /// As [`Vector::zeros_async`].
    pub async fn upload_async(device: &Device, data: &Data) -> Result<Self> {
        let vector = Self::zeros_async(device, data.element(), data.len()).await?;
        device.write(&vector.slot.buffer, 0, data)?;
        Ok(vector)
    }

    /// A flat vector of all models in a tile of an arena: the same memory, no copy.
    ///
    /// # Errors
    /// [`Error::Value`] if there is no such tile; device errors.
    pub async fn of_tile_async(arena: &Arena, tile: usize, flat: Flat) -> Result<Self> {
        if tile >= arena.tiles() {
            return Err(Error::value("tile", tile, format!("below {}", arena.tiles())));
        }
        let words = arena.tile_replicas(tile) * arena.parameters().words();
        let buffer = arena.buffer(tile, flat).await?;
        Ok(Vector { device: arena.device().clone(), slot: Slot { buffer, at: 0, words } })
    }

    /// `len` elements from `at` on, a multiple of 64: the same memory, no copy.
    ///
    /// # Errors
    /// [`Error::Shape`] if they are not within the vector or `at` is no multiple of 64.
    pub fn slice(&self, at: usize, len: usize) -> Result<Self> {
        if !at.is_multiple_of(64) || at + len > self.len() {
            let what = format!("{len} elements from {at} on of {}", self.len());
            return Err(Error::shape("slice", what));
        }
        let slot = Slot { at: self.slot.at + at, words: len, ..self.slot.clone() };
        Ok(Vector { device: self.device.clone(), slot })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.slot.words
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its values.
    ///
    /// # Errors
    /// Device errors.
    pub async fn read_async(&self) -> Result<Data> {
        self.device.read(&self.slot.buffer, self.slot.at, self.slot.words).await
    }

    /// Overwrites its values with another vector's, on the device and at once.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the other has its length and element type, [`Error::Value`] unless
    /// it is other memory of the same device; device errors.
    pub fn copy_from(&self, other: &Vector) -> Result<()> {
        if !std::sync::Arc::ptr_eq(&self.device.0, &other.device.0) {
            return Err(Error::value(
                "device of a vector",
                other.device.name(),
                self.device.name(),
            ));
        }
        let (from, to) = (&other.slot, &self.slot);
        if from.buffer.same(&to.buffer) {
            return Err(Error::value("source of a copy", "the same memory", "other memory"));
        }
        if from.words != to.words || from.buffer.element != to.buffer.element {
            let (element, own) = (from.buffer.element, to.buffer.element);
            let what = format!("{} {element:?} for {} {own:?}", from.words, to.words);
            return Err(Error::shape("copy", what));
        }
        self.device.copy(from, to)
    }

    /// Overwrites its values, at once: before the passes that have not been run yet.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the data has its length and element type; device errors.
    pub fn write(&self, data: &Data) -> Result<()> {
        if data.len() != self.len() || data.element() != self.slot.buffer.element {
            let (element, own) = (data.element(), self.slot.buffer.element);
            let what = format!("{} {element:?} for {} {own:?}", data.len(), self.len());
            return Err(Error::shape("write", what));
        }
        self.device.write(&self.slot.buffer, self.slot.at, data)
    }
}

#[cfg(feature = "blocking")]
impl Vector {
    /// [`Vector::zeros_async`], waiting.
    ///
    /// # Errors
    /// As [`Vector::zeros_async`].
    pub fn zeros(device: &Device, element: Element, len: usize) -> Result<Self> {
        device.wait(Self::zeros_async(device, element, len))
    }

    /// [`Vector::upload_async`], waiting.
    ///
    /// # Errors
    /// As [`Vector::upload_async`].
    pub fn upload(device: &Device, data: &Data) -> Result<Self> {
        device.wait(Self::upload_async(device, data))
    }

    /// [`Vector::of_tile_async`], waiting.
    ///
    /// # Errors
    /// As [`Vector::of_tile_async`].
    pub fn of_tile(arena: &Arena, tile: usize, flat: Flat) -> Result<Self> {
        arena.device().wait(Self::of_tile_async(arena, tile, flat))
    }

    /// [`Vector::read_async`], waiting.
    ///
    /// # Errors
    /// As [`Vector::read_async`].
    pub fn read(&self) -> Result<Data> {
        self.device.wait(self.read_async())
    }
}

/// Memory of a pass alone.
enum Local {
    Filled(Data),
    /// Filled with words that stay nowhere.
    Secret(Zeroizing<Vec<u32>>),
    Scratch(Element, usize),
}

/// What an argument of a kernel is bound to.
#[derive(Clone)]
pub(crate) enum Bound {
    Vector(Slot),
    Local(usize),
}

impl From<&Vector> for Bound {
    fn from(vector: &Vector) -> Self {
        Bound::Vector(vector.slot.clone())
    }
}

struct Pending {
    kernel: &'static AnyKernel,
    params: Vec<u32>,
    replicas: usize,
    args: Vec<Bound>,
}

/// Kernel calls on vectors, recorded by [`TernaryCodec`](crate::ops::ternary::TernaryCodec),
/// [`Masker`](crate::ops::masked::Masker) and [`Aggregator`](crate::ops::aggregate::Aggregator), to be run
/// together, in order.
pub struct Pass {
    device: Device,
    locals: Vec<Local>,
    calls: Vec<Pending>,
}

impl Pass {
    /// Nothing to do yet.
    pub fn new(device: &Device) -> Self {
        Pass { device: device.clone(), locals: Vec::new(), calls: Vec::new() }
    }

    fn local(&mut self, local: Local) -> Bound {
        self.locals.push(local);
        Bound::Local(self.locals.len() - 1)
    }

    /// Memory that holds these values when the pass starts.
    pub(crate) fn constant(&mut self, data: Data) -> Bound {
        self.local(Local::Filled(data))
    }

    /// Likewise, of words that are wiped, here and on the device, once the pass has run.
    pub(crate) fn secret(&mut self, words: &[u32]) -> Bound {
        self.local(Local::Secret(Zeroizing::new(words.to_vec())))
    }

    /// Memory for what one call leaves to a later one.
    pub(crate) fn scratch(&mut self, element: Element, words: usize) -> Bound {
        self.local(Local::Scratch(element, words))
    }

    pub(crate) fn call<P: bytemuck::Pod>(
        &mut self,
        kernel: &'static Kernel<P>,
        params: &P,
        replicas: usize,
        args: &[Bound],
    ) {
        self.calls.push(Pending {
            kernel: kernel.any(),
            params: device::words(params),
            replicas,
            args: args.to_vec(),
        });
    }

    /// Runs the calls.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], device errors.
    pub async fn run_async(self) -> Result<()> {
        let mut locals = Vec::with_capacity(self.locals.len());
        let mut secrets = Vec::new();
        for local in &self.locals {
            let (buffer, words): (Buffer, usize) = match local {
                Local::Filled(data) => (self.device.upload("constant", data).await?, data.len()),
                Local::Secret(words) => {
                    let buffer = self.device.allocate("secret", words.len(), Element::U32).await?;
                    let mut data = Data::U32(words.to_vec());
                    let written = self.device.write(&buffer, 0, &data);
                    if let Data::U32(words) = &mut data {
                        words.zeroize();
                    }
                    written?;
                    secrets.push((buffer.clone(), words.len()));
                    (buffer, words.len())
                }
                Local::Scratch(element, words) => {
                    (self.device.allocate("scratch", *words, *element).await?, *words)
                }
            };
            locals.push(Slot { buffer, at: 0, words });
        }
        let calls = self.calls.into_iter().map(|call| Call {
            kernel: call.kernel,
            label: call.kernel.name.into(),
            params: call.params,
            slots: call
                .args
                .into_iter()
                .map(|arg| match arg {
                    Bound::Vector(slot) => slot,
                    Bound::Local(local) => locals[local].clone(),
                })
                .collect(),
            replicas: call.replicas,
            variant: None,
        });
        let calls: Vec<Call> = calls.collect();
        let program = self.device.compile(vec![calls.into()], &[]).await?;
        let ran = self.device.replay(&program, 1).await;
        for (buffer, words) in secrets {
            self.device.write(&buffer, 0, &Data::U32(vec![0; words]))?;
        }
        ran
    }

    /// [`Pass::run_async`], waiting.
    ///
    /// # Errors
    /// As [`Pass::run_async`].
    #[cfg(feature = "blocking")]
    pub fn run(self) -> Result<()> {
        let device = self.device.clone();
        device.wait(self.run_async())
    }
}

/// How often `part` goes into the length of a vector that holds one for each replica (or
/// client), each of `part` elements.
pub(crate) fn rows(op: &'static str, vector: &Vector, part: usize) -> Result<usize> {
    let rows = vector.len() / part.max(1);
    if rows == 0 || rows * part != vector.len() {
        return Err(Error::shape(op, format!("{} elements in rows of {part}", vector.len())));
    }
    Ok(rows)
}

/// Refuses a vector of another length.
pub(crate) fn expect(op: &'static str, name: &str, vector: &Vector, len: usize) -> Result<()> {
    if vector.len() != len {
        return Err(Error::shape(op, format!("{name} [{}], expected [{len}]", vector.len())));
    }
    Ok(())
}
