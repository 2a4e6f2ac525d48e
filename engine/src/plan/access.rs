//! Reading and writing what a plan holds: inputs, kept tensors, state records.

use tern_shaders::state::{self, StateRecord};
use tern_shaders::{Access, Element};

use crate::dataset::check_words;
use crate::device::Data;
use crate::graph::{Operand, Storage, Tensor};
use crate::{Error, Flat, Plan, Result};

impl Plan {
    /// The state records of all replicas; see [`tern_shaders::state`].
    ///
    /// # Errors
    /// Device errors.
    pub async fn states_async(&self) -> Result<Vec<StateRecord>> {
        let Some(ready) = &self.ready else { return Ok(self.records.clone()) };
        let mut records = Vec::with_capacity(self.records.len());
        for chunk in &ready.chunks {
            let words = chunk.replicas * state::WORDS;
            let words = self.arena.device().read(&chunk.state, 0, words).await?.words()?;
            records.extend(words.as_chunks().0.iter().map(|words| StateRecord::from(*words)));
        }
        Ok(records)
    }

    /// Sets the state records of all replicas.
    ///
    /// # Errors
    /// [`Error::Value`] unless there is one a replica; device errors.
    pub fn set_states(&mut self, records: &[StateRecord]) -> Result<()> {
        if records.len() != self.arena.replicas() {
            let expected = self.arena.replicas().to_string();
            return Err(Error::value("number of state records", records.len(), expected));
        }
        self.records = records.to_vec();
        let Some(ready) = &self.ready else { return Ok(()) };
        let mut first = 0;
        for chunk in &ready.chunks {
            let part = StateRecord::words(&self.records[first..first + chunk.replicas]);
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
                    if matches!(info.storage, Storage::Persistent) && self.writes(*root) {
                        let zeros = Data::zeros(info.element, buffer.words);
                        self.arena.device().write(buffer, 0, &zeros)?;
                    }
                }
            }
        }
        self.set_states(&self.start.clone())
    }

    /// Whether a call of the plan writes a tensor.
    pub(super) fn writes(&self, root: usize) -> bool {
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
        let moments = Flat::CARRIED.into_iter().filter(uses);
        [Flat::Parameters].into_iter().chain(moments).collect()
    }

    /// Tensors that carry values from step to step, by name.
    pub(crate) fn carried(&self) -> Vec<(String, Tensor)> {
        self.tensors
            .iter()
            .enumerate()
            .filter(|(i, info)| {
                info.root == *i && matches!(info.storage, Storage::Persistent) && self.writes(*i)
            })
            .map(|(i, info)| (format!("tensor.{i}.{}", info.label), Tensor(i, self.id)))
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
        if tensor.1 != self.id {
            return Err(Error::value("tensor", "one of another graph", "one of the plan's"));
        }
        let root = self.tensors[tensor.0].root;
        match self.tensors[root].storage {
            Storage::Persistent => Ok(root),
            _ => Err(Error::value("tensor", &self.tensors[root].label, "an input or a kept one")),
        }
    }

    /// Writes an input for all replicas: `[R, ...]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of elements; [`Error::Value`] for a tensor that is
    /// no input, a wrong element type, a number that isn't finite, or a target or token past the
    /// classes or the vocabulary.
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
        if let (Data::U32(words), Some(limit)) = (data, info.limit) {
            check_words(&format!("{} at", info.label), words, limit)?;
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

    /// The floats of a kept tensor in `f64`, which on the reference device is their full precision.
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
}
