//! The flat vectors of R models on a device: parameters, gradients, optimizer moments.

use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tern_shaders::Element;

use crate::device::{Buffer, Data, Slot};
use crate::{Device, Error, Parameters, Result};

/// One of the flat vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Flat {
    /// The parameters.
    Parameters,
    /// Their gradients.
    Gradients,
    /// First moment: momentum.
    Moment1,
    /// Second moment: Adam's mean of squares.
    Moment2,
    /// The largest second moment so far: AMSGrad's.
    LargestMoment2,
    /// The vector FedProx pulls to.
    Reference,
    /// Moving average of the parameters.
    Average,
}

impl Flat {
    const ALL: [Flat; 7] = [
        Flat::Parameters,
        Flat::Gradients,
        Flat::Moment1,
        Flat::Moment2,
        Flat::LargestMoment2,
        Flat::Reference,
        Flat::Average,
    ];

    /// What plans carry from step to step beside the parameters: moments, FedProx's reference, and
    /// the average.
    pub(crate) const CARRIED: [Flat; 5] =
        [Flat::Moment1, Flat::Moment2, Flat::LargestMoment2, Flat::Reference, Flat::Average];
}

/// R models that share a layout. Plans are recorded on an arena; several plans (train,
/// evaluate, predict) can share one. Cheap to clone; clones are the same models.
///
/// Replicas live in tiles of as many as the device's binding limit allows, of one where a model is larger;
/// on the CPU, where threads take whole replicas, of one, too. Memory is taken on first use, the
/// optimizer's only if a plan needs it.
#[derive(Clone)]
pub struct Arena(Arc<Inner>);

struct Inner {
    device: Device,
    parameters: Parameters,
    replicas: usize,
    tile: usize,
    seeds: Vec<u32>,
    tiles: Mutex<Vec<Tile>>,
}

#[derive(Default)]
struct Tile {
    buffers: [Option<Buffer>; Flat::ALL.len()],
}

impl Arena {
    /// R models on a device, each started from its own seed.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if one model is more than the device's buffers hold, or a parameter than
    /// its bindings; [`Error::Value`] without a seed or a parameter.
    pub fn new(device: &Device, parameters: &Parameters, seeds: &[u32]) -> Result<Self> {
        Self::with_tile(device, parameters, seeds, usize::MAX)
    }

    /// As [`Arena::new`] with no more than `max_tile` replicas a tile. Results don't depend
    /// on it.
    ///
    /// # Errors
    /// As [`Arena::new`].
    pub fn with_tile(
        device: &Device,
        parameters: &Parameters,
        seeds: &[u32],
        max_tile: usize,
    ) -> Result<Self> {
        if parameters.is_empty() || seeds.is_empty() || max_tile == 0 {
            let given = format!("{} parameters, {} seeds", parameters.len(), seeds.len());
            return Err(Error::value("arena", given, "at least one of each"));
        }
        let bytes = |words: usize| 4 * words as u64;
        let profile = device.profile();
        let needed = bytes(parameters.words());
        let fitting = (profile.max_binding / needed).min(seeds.len() as u64) as usize;
        // Of a larger model plans bind parts, in which parameters are whole.
        let largest = parameters.iter().max_by_key(|p| p.padded());
        let largest = largest.map_or((0, ""), |p| (bytes(p.padded()), &*p.name));
        for (what, needed, available) in [
            ("one model".to_owned(), needed, profile.max_buffer),
            (format!("parameter {}", largest.1), largest.0, profile.max_binding),
        ] {
            if needed > available {
                return Err(Error::OutOfMemory { what, needed, available });
            }
        }
        let fitting = fitting.max(1);
        let tile = if device.workers().is_some() { 1 } else { fitting.min(max_tile) };
        let tiles = seeds.len().div_ceil(tile);
        Ok(Arena(Arc::new(Inner {
            device: device.clone(),
            parameters: parameters.clone(),
            replicas: seeds.len(),
            tile,
            seeds: seeds.to_vec(),
            tiles: Mutex::new((0..tiles).map(|_| Tile::default()).collect()),
        })))
    }

    /// The device the models are on.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// The layout.
    pub fn parameters(&self) -> &Parameters {
        &self.0.parameters
    }

    /// Number of models.
    pub fn replicas(&self) -> usize {
        self.0.replicas
    }

    /// Models in one tile.
    pub fn tile(&self) -> usize {
        self.0.tile
    }

    /// Models in tile number `tile`: the last may be short.
    pub fn tile_replicas(&self, tile: usize) -> usize {
        self.0.tile.min(self.0.replicas.saturating_sub(tile * self.0.tile))
    }

    /// Number of tiles.
    pub fn tiles(&self) -> usize {
        self.0.replicas.div_ceil(self.0.tile)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Tile>> {
        self.0.tiles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tile's flat vector, allocated (and for parameters initialized) if it isn't yet.
    pub(crate) async fn buffer(&self, tile: usize, flat: Flat) -> Result<Buffer> {
        if let Some(buffer) = &self.lock()[tile].buffers[flat as usize] {
            return Ok(buffer.clone());
        }
        let replicas = self.tile_replicas(tile);
        let words = self.0.parameters.words();
        let what = format!("{flat:?} of {replicas} models");
        let buffer = self.0.device.allocate(&what, replicas * words, Element::F32).await?;
        if flat == Flat::Parameters {
            let mut last: Option<(u32, Data)> = None;
            for i in 0..replicas {
                let seed = self.0.seeds[tile * self.0.tile + i];
                let values = match last.take() {
                    Some((s, values)) if s == seed => values,
                    _ => Data::F32(self.0.parameters.initial(seed)),
                };
                self.0.device.write(&buffer, i * words, &values)?;
                last = Some((seed, values));
            }
        }
        self.lock()[tile].buffers[flat as usize] = Some(buffer.clone());
        Ok(buffer)
    }

    /// Where a replica's part of a flat vector is.
    async fn slot(&self, flat: Flat, replica: usize) -> Result<Slot> {
        if replica >= self.0.replicas {
            let expected = format!("below {}", self.0.replicas);
            return Err(Error::value("replica", replica, expected));
        }
        let (tile, i) = (replica / self.0.tile, replica % self.0.tile);
        let words = self.0.parameters.words();
        Ok(Slot { buffer: self.buffer(tile, flat).await?, at: i * words, words })
    }

    /// Reads a replica's flat vector, padding included: [`Parameters::words`] values.
    ///
    /// # Errors
    /// [`Error::Value`] for a replica that isn't there; device errors.
    pub async fn read_async(&self, flat: Flat, replica: usize) -> Result<Vec<f32>> {
        let slot = self.slot(flat, replica).await?;
        self.0.device.read(&slot.buffer, slot.at, slot.words).await?.floats()
    }

    /// Reads a replica's flat vector in `f64`, which on the reference device is its full precision.
    ///
    /// # Errors
    /// As [`Arena::read_async`].
    pub async fn read_f64_async(&self, flat: Flat, replica: usize) -> Result<Vec<f64>> {
        let slot = self.slot(flat, replica).await?;
        self.0.device.read_f64(&slot.buffer, slot.at, slot.words).await
    }

    /// Writes a replica's flat vector.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there are [`Parameters::words`] values; device errors.
    pub async fn write_async(&self, flat: Flat, replica: usize, values: &[f32]) -> Result<()> {
        let slot = self.slot(flat, replica).await?;
        if values.len() != slot.words {
            let what = format!("{} values for {} words", values.len(), slot.words);
            return Err(Error::shape("flat vector", what));
        }
        self.0.device.write(&slot.buffer, slot.at, &Data::F32(values.to_vec()))
    }

    /// Writes a replica's flat vector in `f64`.
    ///
    /// # Errors
    /// As [`Arena::write_async`].
    pub async fn write_f64_async(&self, flat: Flat, replica: usize, values: &[f64]) -> Result<()> {
        let slot = self.slot(flat, replica).await?;
        if values.len() != slot.words {
            let what = format!("{} values for {} words", values.len(), slot.words);
            return Err(Error::shape("flat vector", what));
        }
        self.0.device.write_f64(&slot.buffer, slot.at, values)
    }
}

#[cfg(feature = "blocking")]
impl Arena {
    /// [`Arena::read_async`], waiting.
    ///
    /// # Errors
    /// As [`Arena::read_async`].
    pub fn read(&self, flat: Flat, replica: usize) -> Result<Vec<f32>> {
        self.0.device.wait(self.read_async(flat, replica))
    }

    /// [`Arena::read_f64_async`], waiting.
    ///
    /// # Errors
    /// As [`Arena::read_f64_async`].
    pub fn read_f64(&self, flat: Flat, replica: usize) -> Result<Vec<f64>> {
        self.0.device.wait(self.read_f64_async(flat, replica))
    }

    /// [`Arena::write_async`], waiting.
    ///
    /// # Errors
    /// As [`Arena::write_async`].
    pub fn write(&self, flat: Flat, replica: usize, values: &[f32]) -> Result<()> {
        self.0.device.wait(self.write_async(flat, replica, values))
    }

    /// [`Arena::write_f64_async`], waiting.
    ///
    /// # Errors
    /// As [`Arena::write_f64_async`].
    pub fn write_f64(&self, flat: Flat, replica: usize, values: &[f64]) -> Result<()> {
        self.0.device.wait(self.write_f64_async(flat, replica, values))
    }
}
