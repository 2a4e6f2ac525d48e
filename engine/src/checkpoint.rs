//! Models and checkpoints as safetensors files.
//!
//! A *model* is one replica's parameters under PyTorch's names and shapes: a file saved from a
//! `torch.nn` module with the same names loads as it is, and ours loads there. A *checkpoint*
//! holds everything a training plan needs to go on with the same numbers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, View};
use tern_shaders::state::{self, StateRecord};

use crate::{Data, Error, Parameters, Plan, Result};

/// What errors call a file that has no path.
pub(crate) const IN_MEMORY: &str = "model in memory";

/// A tensor on its way to a file.
struct Saved {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Saved {
    fn new(shape: &[usize], data: &Data) -> Self {
        let (dtype, bytes) = match data {
            Data::F32(x) => (Dtype::F32, x.iter().flat_map(|x| x.to_le_bytes()).collect()),
            Data::U32(x) => (Dtype::U32, x.iter().flat_map(|x| x.to_le_bytes()).collect()),
        };
        Saved { dtype, shape: shape.to_vec(), bytes }
    }
}

impl View for Saved {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

fn serialize(
    path: &Path,
    tensors: Vec<(String, Saved)>,
    metadata: HashMap<String, String>,
) -> Result<Vec<u8>> {
    safetensors::serialize(tensors, Some(metadata)).map_err(|e| Error::file(path, e))
}

/// Writes a file whole or not at all: a crash leaves the old one.
fn write(path: &Path, bytes: Vec<u8>) -> Result<()> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, bytes).map_err(|e| Error::file(&partial, e))?;
    std::fs::rename(&partial, path).map_err(|e| Error::file(path, e))
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::file(path, e))
}

pub(crate) fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    if bytes.is_empty() {
        return Err(Error::file(path, "is empty, expected a safetensors file"));
    }
    SafeTensors::deserialize(bytes)
        .map_err(|e| Error::file(path, format!("is no complete safetensors file: {e}")))
}

fn metadata(path: &Path, bytes: &[u8]) -> Result<HashMap<String, String>> {
    let (_, header) = SafeTensors::read_metadata(bytes)
        .map_err(|e| Error::file(path, format!("is no complete safetensors file: {e}")))?;
    Ok(header.metadata().clone().unwrap_or_default())
}

/// Saves one replica's parameters, `flat` as [`Arena::read`](crate::Arena::read) gives it.
///
/// # Errors
/// [`Error::File`] if the file can't be written; [`Error::Shape`] if `flat` has another length
/// than the layout.
pub fn save_model(path: &Path, parameters: &Parameters, flat: &[f32]) -> Result<()> {
    write(path, model(path, parameters, flat)?)
}

/// The bytes of the file that [`save_model`] writes, for who keeps files elsewhere.
///
/// # Errors
/// [`Error::Shape`] if `flat` has another length than the layout.
pub fn serialize_model(parameters: &Parameters, flat: &[f32]) -> Result<Vec<u8>> {
    model(Path::new(IN_MEMORY), parameters, flat)
}

fn model(path: &Path, parameters: &Parameters, flat: &[f32]) -> Result<Vec<u8>> {
    check_length(parameters, flat.len())?;
    let tensors = parameters
        .iter()
        .map(|p| {
            let values = Data::F32(flat[p.offset..][..p.len()].to_vec());
            (p.name.to_string(), Saved::new(&p.shape, &values))
        })
        .collect();
    serialize(path, tensors, HashMap::from([("format".into(), "pt".into())]))
}

pub(crate) fn check_length(parameters: &Parameters, words: usize) -> Result<()> {
    if words == parameters.words() {
        return Ok(());
    }
    let what = format!("{words} values for a layout of {}", parameters.words());
    Err(Error::shape("model", what))
}

/// 1 had state records without [`state::SCALE`]: zero, which no rate outlives.
const VERSION: &str = "2";

/// The layout as one line, to tell whether a checkpoint is of the same model.
fn layout(parameters: &Parameters) -> String {
    parameters.iter().map(|p| format!("{} {:?};", p.name, p.shape)).collect()
}

/// Saves everything that a training plan needs to go on with the same numbers: parameters and
/// optimizer moments of all replicas, state records, carried tensors.
///
/// # Errors
/// [`Error::File`] if the file can't be written; device errors.
pub async fn save_checkpoint_async(path: &Path, plan: &mut Plan) -> Result<()> {
    let arena = plan.arena().clone();
    let mut tensors = Vec::new();
    for flat in plan.flats() {
        for replica in 0..arena.replicas() {
            let values = Data::F32(arena.read_async(flat, replica).await?);
            let shape = [arena.parameters().words()];
            tensors.push((format!("{flat:?}.{replica}"), Saved::new(&shape, &values)));
        }
    }
    let states = plan.states_async().await?;
    let shape = [states.len(), state::WORDS];
    let words = Data::U32(StateRecord::words(&states));
    tensors.push(("state".into(), Saved::new(&shape, &words)));
    for (name, tensor) in plan.carried() {
        let data = plan.read_async(tensor).await?;
        tensors.push((name, Saved::new(&[data.len()], &data)));
    }
    let metadata = HashMap::from([
        ("format".into(), "tern-checkpoint".into()),
        ("version".into(), VERSION.into()),
        ("layout".into(), layout(arena.parameters())),
    ]);
    write(path, serialize(path, tensors, metadata)?)
}

/// Puts a checkpoint back, into a plan recorded from the same graph on any device.
///
/// # Errors
/// [`Error::File`] if the file isn't a checkpoint of this model and plan; nothing is changed
/// then, unless a device error strikes on the way.
pub async fn load_checkpoint_async(path: &Path, plan: &mut Plan) -> Result<()> {
    let bytes = read(path)?;
    let tensors = parse(path, &bytes)?;
    let metadata = metadata(path, &bytes)?;
    let arena = plan.arena().clone();
    let expected = [
        ("format", "tern-checkpoint".into()),
        ("version", VERSION.into()),
        ("layout", layout(arena.parameters())),
    ];
    for (key, expected) in expected {
        let found = metadata.get(key).map_or("missing", String::as_str);
        if found != expected {
            return Err(Error::file(path, format!("{key} is {found}, expected {expected}")));
        }
    }
    let find = |name: &str, words: usize, dtype: Dtype| {
        let tensor = tensors.tensor(name).map_err(|e| Error::file(path, e))?;
        if tensor.dtype() != dtype || tensor.data().len() != 4 * words {
            let found = (tensor.dtype(), tensor.shape().to_vec());
            let what = format!("`{name}` is {found:?}, expected {words} values of {dtype:?}");
            return Err(Error::file(path, what));
        }
        let words = tensor.data().as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b));
        Ok(words.collect::<Vec<u32>>())
    };
    let reals = |words: Vec<u32>| words.into_iter().map(f32::from_bits).collect::<Vec<f32>>();
    // Everything is found before anything is written.
    let mut flats = Vec::new();
    for flat in plan.flats() {
        for replica in 0..arena.replicas() {
            let name = format!("{flat:?}.{replica}");
            let words = find(&name, arena.parameters().words(), Dtype::F32)?;
            flats.push((flat, replica, reals(words)));
        }
    }
    let states = find("state", arena.replicas() * state::WORDS, Dtype::U32)?;
    let mut carried = Vec::new();
    for (name, tensor) in plan.carried() {
        let element = plan.element(tensor);
        let words = plan.len(tensor) * arena.replicas();
        let data = match element {
            crate::Element::F32 => Data::F32(reals(find(&name, words, Dtype::F32)?)),
            crate::Element::U32 => Data::U32(find(&name, words, Dtype::U32)?),
        };
        carried.push((tensor, data));
    }
    for (flat, replica, values) in flats {
        arena.write_async(flat, replica, &values).await?;
    }
    for (tensor, data) in carried {
        plan.write_async(tensor, &data).await?;
    }
    let states = states.as_chunks().0.iter().map(|words| StateRecord::from(*words));
    plan.set_states(&states.collect::<Vec<_>>())
}

/// [`save_checkpoint_async`], waiting.
///
/// # Errors
/// As [`save_checkpoint_async`].
#[cfg(feature = "blocking")]
pub fn save_checkpoint(path: &Path, plan: &mut Plan) -> Result<()> {
    let device = plan.arena().device().clone();
    device.wait(save_checkpoint_async(path, plan))
}

/// [`load_checkpoint_async`], waiting.
///
/// # Errors
/// As [`load_checkpoint_async`].
#[cfg(feature = "blocking")]
pub fn load_checkpoint(path: &Path, plan: &mut Plan) -> Result<()> {
    let device = plan.arena().device().clone();
    device.wait(load_checkpoint_async(path, plan))
}
