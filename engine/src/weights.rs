//! A model's weights from a safetensors file, whole or in part, under its names or others.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};

use crate::checkpoint::{IN_MEMORY, check_length, parse, read};
use crate::parameters::Param;
use crate::{Error, Parameters, Result};

/// How the tensors of a file are matched with the parameters of a model: strictly and by their
/// names, if nothing else is said.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    renames: Vec<(String, String)>,
    partial: bool,
}

impl LoadOptions {
    /// Every parameter must be in the file by its name, and nothing else.
    pub fn new() -> Self {
        LoadOptions::default()
    }

    /// A tensor whose name starts with `from` is looked for as `to` and the rest of its name. Of
    /// several such prefixes the longest counts, once.
    pub fn rename(mut self, from: &str, to: &str) -> Self {
        self.renames.push((from.into(), to.into()));
        self
    }

    /// Without a prefix that a program put before all names: `module.` of PyTorch's data
    /// parallel wrappers, `_orig_mod.` of its compiler.
    pub fn strip(self, prefix: &str) -> Self {
        self.rename(prefix, "")
    }

    /// Whether all that is missing or unexpected is an error (`true` if not said), or left as it
    /// is and listed.
    pub fn strict(mut self, strict: bool) -> Self {
        self.partial = !strict;
        self
    }

    fn name(&self, found: &str) -> String {
        let fitting = self.renames.iter().filter(|(from, _)| found.starts_with(from.as_str()));
        match fitting.max_by_key(|(from, _)| from.len()) {
            Some((from, to)) => format!("{to}{}", &found[from.len()..]),
            None => found.to_owned(),
        }
    }
}

/// What [`load_weights`] left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Parameters of the model that the file doesn't have, in the model's order.
    pub missing: Vec<String>,
    /// Tensors that the model doesn't have, by their names in the file.
    pub unexpected: Vec<String>,
}

/// Loads the weights of a file into a flat vector, each as f32, f16, bf16 or f64. What is not in
/// the file stays as it is.
///
/// ```
/// use std::path::Path;
/// use tern_engine::nn::ModelSpec;
/// use tern_engine::{LoadOptions, load_weights, save_model};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = &folder.path().join("compiled.safetensors");
/// # let mut wrapped = ModelSpec::mlp(3, &[4], 2);
/// # wrapped.layers.iter_mut().for_each(|(name, _)| *name = format!("_orig_mod.{name}"));
/// # let parameters = wrapped.build()?.0;
/// # save_model(path, &parameters, &parameters.initial(1))?;
/// let (parameters, _) = ModelSpec::mlp(3, &[4], 2).build()?;
/// let mut flat = parameters.initial(7);
/// load_weights(path, &parameters, &mut flat, &LoadOptions::new().strip("_orig_mod."))?;
///
/// // The first layer alone, of a model that goes on in another way.
/// let (parameters, _) = ModelSpec::mlp(3, &[4, 4], 5).build()?;
/// let mut flat = parameters.initial(7);
/// let options = LoadOptions::new().rename("_orig_mod.0.", "0.").strict(false);
/// let report = load_weights(path, &parameters, &mut flat, &options)?;
/// assert_eq!(report.missing, ["1.weight", "1.bias", "2.weight", "2.bias"]);
/// assert_eq!(report.unexpected, ["_orig_mod.1.bias", "_orig_mod.1.weight"]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::File`] for a tensor of another shape or type, or with a number that isn't finite, for
/// two tensors under one name, and, strictly, for all that is missing or unexpected; `flat` is
/// unchanged then. [`Error::Shape`] if `flat` has another length than the layout.
pub fn load_weights(
    path: &Path,
    parameters: &Parameters,
    flat: &mut [f32],
    options: &LoadOptions,
) -> Result<LoadReport> {
    check_length(parameters, flat.len())?;
    take(path, &read(path)?, parameters, flat, options)
}

/// The weights of a file's bytes.
fn take(
    path: &Path,
    bytes: &[u8],
    parameters: &Parameters,
    flat: &mut [f32],
    options: &LoadOptions,
) -> Result<LoadReport> {
    let tensors = parse(path, bytes)?;
    let mut names = tensors.names();
    // How many batches PyTorch's norms have seen, which with a momentum says nothing.
    names.retain(|name| !name.ends_with(".num_batches_tracked"));
    names.sort_unstable();
    let mut by_name = BTreeMap::new();
    for found in names {
        if let Some(other) = by_name.insert(options.name(found), found) {
            let name = options.name(found);
            let what = format!("has `{other}` and `{found}`, expected one for `{name}`");
            return Err(Error::file(path, what));
        }
    }
    let (mut loaded, mut missing) = (Vec::new(), Vec::new());
    for param in parameters.iter() {
        match by_name.remove(&*param.name) {
            Some(found) => {
                let tensor = tensors.tensor(found).map_err(|e| Error::file(path, e))?;
                loaded.push((param, values(path, found, &tensor, param)?));
            }
            None => missing.push(param.name.to_string()),
        }
    }
    let mut unexpected: Vec<String> = by_name.into_values().map(|name| name.to_string()).collect();
    unexpected.sort_unstable();
    let complete = missing.is_empty() && unexpected.is_empty();
    if !complete && !options.partial {
        let what = match (missing.is_empty(), unexpected.is_empty()) {
            (false, true) => format!("has no {}", quoted(&missing)),
            (true, _) => format!("has {}, which the model lacks", quoted(&unexpected)),
            (false, false) => format!(
                "has no {}, but {}, which the model lacks",
                quoted(&missing),
                quoted(&unexpected)
            ),
        };
        return Err(Error::file(path, what));
    }
    for (param, values) in loaded {
        flat[param.offset..][..param.len()].copy_from_slice(&values);
    }
    Ok(LoadReport { missing, unexpected })
}

fn quoted(names: &[String]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

fn values(path: &Path, name: &str, tensor: &TensorView<'_>, param: &Param) -> Result<Vec<f32>> {
    if tensor.shape() != param.shape {
        let (found, expected) = (tensor.shape(), &param.shape);
        return Err(Error::file(path, format!("`{name}` is {found:?}, expected {expected:?}")));
    }
    let values = floats(tensor.dtype(), tensor.data()).ok_or_else(|| {
        let dtype = tensor.dtype();
        Error::file(path, format!("`{name}` holds {dtype:?}, expected f32, f16, bf16 or f64"))
    })?;
    match values.iter().position(|x| !x.is_finite()) {
        Some(at) => {
            let value = values[at];
            Err(Error::file(path, format!("`{name}`[{at}] is {value}, not finite")))
        }
        None => Ok(values),
    }
}

pub(crate) fn floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    fn each<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
    }
    Some(match dtype {
        Dtype::F32 => each(bytes, f32::from_le_bytes),
        Dtype::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
        Dtype::F16 => each(bytes, |b| half::f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => each(bytes, |b| half::bf16::from_le_bytes(b).to_f32()),
        _ => return None,
    })
}

/// Loads parameters into a flat vector. Every parameter must be there with its shape, as
/// f32, f16, bf16 or f64; other tensors in the file are an error, too. [`load_weights`] takes
/// other names, and a part of them.
///
/// # Errors
/// [`Error::File`], naming the tensor, its shape and what was expected, or all tensors that are
/// missing or unexpected.
pub fn load_model(path: &Path, parameters: &Parameters) -> Result<Vec<f32>> {
    let mut flat = vec![0.0; parameters.words()];
    load_weights(path, parameters, &mut flat, &LoadOptions::new())?;
    Ok(flat)
}

/// [`load_model`] from the bytes of a file.
///
/// ```
/// use tern_engine::nn::ModelSpec;
/// use tern_engine::{deserialize_model, serialize_model};
///
/// # fn main() -> tern_engine::Result<()> {
/// let (parameters, _) = ModelSpec::mlp(3, &[4], 2).build()?;
/// let file = serialize_model(&parameters, &parameters.initial(1))?;
/// assert_eq!(deserialize_model(&file, &parameters)?, parameters.initial(1));
/// assert!(deserialize_model(&file[1..], &parameters).is_err());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As of [`load_model`].
pub fn deserialize_model(bytes: &[u8], parameters: &Parameters) -> Result<Vec<f32>> {
    let mut flat = vec![0.0; parameters.words()];
    take(Path::new(IN_MEMORY), bytes, parameters, &mut flat, &LoadOptions::new())?;
    Ok(flat)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::ModelSpec;
    use crate::save_model;

    /// A file of a model whose names begin with `prefix`, and its weights.
    fn file(folder: &Path, prefix: &str, hidden: &[usize]) -> (std::path::PathBuf, Vec<f32>) {
        let mut spec = ModelSpec::mlp(3, hidden, 2);
        spec.layers.iter_mut().for_each(|(name, _)| *name = format!("{prefix}{name}"));
        let (parameters, _) = spec.build().unwrap();
        let (path, flat) = (folder.join("model.safetensors"), parameters.initial(1));
        save_model(&path, &parameters, &flat).unwrap();
        (path, flat)
    }

    #[test]
    fn names_of_wrapped_models_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let (parameters, _) = ModelSpec::mlp(3, &[4], 2).build().unwrap();
        for prefix in ["", "module.", "_orig_mod.", "model.", "_orig_mod.module."] {
            let (path, expected) = file(folder.path(), prefix, &[4]);
            // The longest prefix counts, whatever the order.
            let options = LoadOptions::new().strip("_orig_mod.module.").strip("_orig_mod.");
            let options = options.strip("module.").strip("model.");
            let mut flat = vec![0.0; parameters.words()];
            let report = load_weights(&path, &parameters, &mut flat, &options).unwrap();
            assert_eq!((report, flat), (LoadReport::default(), expected), "{prefix}");
            assert_eq!(load_model(&path, &parameters).is_ok(), prefix.is_empty());
        }
    }

    #[test]
    fn a_part_leaves_the_rest_as_it_is_and_says_which() {
        let folder = tempfile::tempdir().unwrap();
        let (path, saved) = file(folder.path(), "", &[4]);
        let (parameters, _) = ModelSpec::mlp(3, &[4, 4], 5).build().unwrap();
        let before = parameters.initial(9);
        let mut flat = before.clone();
        // The first layer is the same; the second would fit under no name.
        let options = LoadOptions::new().rename("1.", "head.").strict(false);
        let report = load_weights(&path, &parameters, &mut flat, &options).unwrap();
        assert_eq!(report.missing, ["1.weight", "1.bias", "2.weight", "2.bias"]);
        assert_eq!(report.unexpected, ["1.bias", "1.weight"]);
        let first = parameters.get("1.weight").unwrap().offset;
        assert_eq!((&flat[..first], &flat[first..]), (&saved[..first], &before[first..]));
        // Strictly, all of it is named and nothing changes.
        let mut flat = before.clone();
        let error = load_weights(&path, &parameters, &mut flat, &options.strict(true));
        let expected = "has no `1.weight`, `1.bias`, `2.weight`, `2.bias`, but `1.bias`, `1.weight`, \
                        which the model lacks";
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        // A shape is an error in any case, and so are two tensors for one parameter.
        let loose = LoadOptions::new().strict(false);
        let error = load_weights(&path, &parameters, &mut flat, &loose).unwrap_err().to_string();
        assert!(error.contains("`1.weight` is [2, 4], expected [4, 4]"), "{error}");
        let twice = loose.rename("1.", "0.");
        let error = load_weights(&path, &parameters, &mut flat, &twice).unwrap_err().to_string();
        assert!(error.contains("`0.bias` and `1.bias`, expected one for `0.bias`"), "{error}");
        assert_eq!(flat, before);
        assert!(load_weights(&path, &parameters, &mut [0.0], &LoadOptions::new()).is_err());
    }
}
