//! The model that is adapted, and how text becomes its tokens.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use tern_engine::nn::{DecoderConfig, Input, LORA, LayerSpec, LoraConfig, Model, ModelSpec};
use tern_engine::{LoadOptions, Parameters, load_weights};
use tern_fl::layout::{ModelKind, TensorSpec};
use tern_fl::tokens::{Alphabet, Tokens};

use super::byte_pairs::BytePairs;

/// What SmolLM2-135M's `config.json` says of its shape.
const SMOLLM2: &str = r#"{
    "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
    "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
    "rms_norm_eps": 1e-05, "rope_theta": 100000, "tie_word_embeddings": true
}"#;

/// How text becomes tokens.
#[derive(Clone, Debug)]
pub enum Tokenizer {
    /// By characters or bytes.
    Characters(Tokens),
    /// By those of a published model.
    BytePairs(BytePairs),
}

impl Tokenizer {
    /// A text as tokens.
    ///
    /// # Errors
    /// For a byte that the vocabulary lacks.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match self {
            Tokenizer::Characters(tokens) => Ok(tokens.encode(text)),
            Tokenizer::BytePairs(pairs) => pairs.encode(text),
        }
    }
}

/// A model with adapters.
pub struct Base {
    /// Its layers.
    pub spec: ModelSpec,
    /// Its parameters; those of the adapters come last.
    pub parameters: Parameters,
    /// Ready to be recorded.
    pub model: Model,
    /// How text becomes its tokens.
    pub tokenizer: Tokenizer,
    /// Weights that it starts from, a flat vector.
    pub weights: Vec<f32>,
}

impl Base {
    fn new(spec: ModelSpec, rank: usize, tokenizer: Tokenizer, seed: u32) -> Result<Self> {
        let spec = adapted(spec, rank);
        let (parameters, model) = spec.build()?;
        let weights = parameters.initial(seed);
        Ok(Base { spec, parameters, model, tokenizer, weights })
    }

    /// Two blocks of 128, which read the characters of these texts.
    pub fn small<'a>(
        texts: impl IntoIterator<Item = &'a str>,
        rank: usize,
        seed: u32,
    ) -> Result<Self> {
        let alphabet = Alphabet::of(texts);
        let config = DecoderConfig::new(2, 4, 32, 256).key_value_heads(2);
        let spec = ModelSpec::decoder(alphabet.tokens(), 128, config, true);
        Base::new(spec, rank, Tokenizer::Characters(Tokens::Alphabet(alphabet)), seed)
    }

    /// SmolLM2-135M's shape, which reads bytes: of its vocabulary the first 256 tokens.
    pub fn smollm2(rank: usize, seed: u32) -> Result<Self> {
        let spec = ModelSpec::llama(SMOLLM2)?;
        Base::new(spec, rank, Tokenizer::Characters(Tokens::Bytes), seed)
    }

    /// What a folder has.
    ///
    /// # Errors
    /// For a file that is missing, or says something else than expected.
    pub fn load(folder: &Path, rank: usize, seed: u32) -> Result<Self> {
        let path = folder.join("config.json");
        let name = || path.display().to_string();
        let config = std::fs::read_to_string(&path).with_context(name)?;
        let spec = ModelSpec::llama(&config).with_context(name)?;
        let pairs = BytePairs::load(&folder.join("tokenizer.json"))?;
        let (path, vocabulary) = (folder.join("model.safetensors"), vocabulary(&spec));
        ensure!(
            pairs.tokens() <= vocabulary,
            "{}: {} tokens, expected at most the {vocabulary} of config.json",
            folder.join("tokenizer.json").display(),
            pairs.tokens()
        );
        let mut base = Base::new(spec, rank, Tokenizer::BytePairs(pairs), seed)?;
        let options = LoadOptions::new().strict(false);
        let report = load_weights(&path, &base.parameters, &mut base.weights, &options)?;
        let missing = report.missing.iter().find(|name| !name.starts_with(LORA));
        if let Some(name) = missing {
            anyhow::bail!("{}: no {name}, expected all that config.json says", path.display());
        }
        if let Some(name) = report.unexpected.first() {
            anyhow::bail!("{}: {name}, which config.json says nothing of", path.display());
        }
        Ok(base)
    }

    /// Tokens that it can read.
    pub fn vocabulary(&self) -> usize {
        vocabulary(&self.spec)
    }
}

/// The parameters of SmolLM2-135M's shape with adapters.
pub fn smollm2_parameters(rank: usize) -> Result<Parameters> {
    Ok(adapted(ModelSpec::llama(SMOLLM2)?, rank).build()?.0)
}

/// Numbers of the adapters, or of all other weights.
pub fn count(parameters: &Parameters, adapters: bool) -> usize {
    let some = parameters.iter().filter(|p| p.name.starts_with(LORA) == adapters);
    some.map(|p| p.len()).sum()
}

/// The adapters as what a federation trains, and the word of the flat vector where they begin.
pub fn adapters(parameters: &Parameters) -> (ModelKind, usize) {
    let adapters = || parameters.iter().filter(|p| p.name.starts_with(LORA));
    let tensors =
        adapters().map(|p| TensorSpec { name: p.name.to_string(), shape: p.shape.clone() });
    let first = adapters().map(|p| p.offset).min().unwrap_or(parameters.words());
    (ModelKind::Tensors(tensors.collect()), first)
}

/// The model with adapters of a rank.
fn adapted(mut spec: ModelSpec, rank: usize) -> ModelSpec {
    for (_, layer) in &mut spec.layers {
        if let LayerSpec::Decoder(config) = layer {
            *config = config.lora(LoraConfig::new(rank));
        }
    }
    spec
}

fn vocabulary(spec: &ModelSpec) -> usize {
    match spec.input {
        Input::Tokens { vocabulary } => vocabulary,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_are_the_end_of_the_flat_vector() {
        let base = Base::small(["some text"], 8, 1).unwrap();
        let (kind, first) = adapters(&base.parameters);
        let layout = tern_fl::Layout::of(&kind).unwrap();
        assert_eq!(layout.elements(), base.parameters.words() - first);
        // Queries and values of two blocks, A and B each.
        assert_eq!(layout.tensors(), 8);
    }

    #[test]
    fn smollm2_is_as_large_as_published() {
        let parameters = smollm2_parameters(8).unwrap();
        assert_eq!(count(&parameters, false), 134_515_008);
        // 30 blocks: queries 576 to 576, values 576 to 192.
        assert_eq!(count(&parameters, true), 30 * 8 * (576 + 576 + 576 + 192));
    }

    #[test]
    fn files_that_do_not_fit_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let message = || format!("{:#}", Base::load(folder.path(), 8, 1).err().unwrap());
        assert!(message().contains("config.json"), "{}", message());
        let config = SMOLLM2.replace("49152", "300").replace("576", "36").replace("30,", "1,");
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        assert!(message().contains("tokenizer.json"), "{}", message());
    }
}
