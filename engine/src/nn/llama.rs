//! Llama's configurations as Hugging Face writes them.

use serde::Deserialize;

use super::{DecoderConfig, Input, LayerSpec, ModelSpec};
use crate::{Error, Result};

/// What counts of a `config.json`; the rest is about other programs.
#[derive(Deserialize)]
struct Config {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    #[serde(default = "silu")]
    hidden_act: String,
    #[serde(default = "epsilon")]
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<serde_json::Value>,
    rope_parameters: Option<Rope>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
}

/// Where newer files have what the rotary embedding is made by.
#[derive(Deserialize)]
struct Rope {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
}

fn silu() -> String {
    "silu".into()
}

fn epsilon() -> f64 {
    1e-6
}

impl ModelSpec {
    /// A transformer decoder of Llama's shape, under the names of Llama's weights: embedding
    /// `model.embed_tokens`, blocks `model.layers.0`, … and `model.norm`, and the logits of the next
    /// token, by a matrix `lm_head` of its own or, `tied`, the embedding's.
    pub fn decoder(vocabulary: usize, dimension: usize, config: DecoderConfig, tied: bool) -> Self {
        ModelSpec {
            input: Input::Tokens { vocabulary },
            layers: vec![
                ("model.embed_tokens".into(), LayerSpec::Embedding { dimension }),
                ("model".into(), LayerSpec::Decoder(config)),
                ("lm_head".into(), LayerSpec::LanguageModelHead { tied }),
            ],
        }
    }

    /// The model of a Llama's `config.json`: SmolLM2's, say. Its weights load by
    /// [`load_weights`](crate::load_weights) from the `model.safetensors` beside it.
    ///
    /// ```
    /// use tern_engine::nn::ModelSpec;
    ///
    /// # fn main() -> tern_engine::Result<()> {
    /// // What SmolLM2-135M's says of its shape.
    /// let spec = ModelSpec::llama(r#"{
    ///     "model_type": "llama", "vocab_size": 49152, "hidden_size": 576,
    ///     "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    ///     "num_key_value_heads": 3, "rms_norm_eps": 1e-05, "rope_theta": 100000,
    ///     "tie_word_embeddings": true
    /// }"#)?;
    /// assert_eq!(spec.build()?.0.count(), 134_515_008);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] for a text that is no such configuration, or one of another architecture:
    /// another activation, biases, a scaled rotary embedding.
    pub fn llama(config: &str) -> Result<Self> {
        let config: Config = serde_json::from_str(config)
            .map_err(|e| Error::value("config.json", e, "the configuration of a Llama"))?;
        let refused = |name: &str, value: String, expected: &str| {
            Err(Error::value(format!("{name} of config.json"), value, expected))
        };
        if config.model_type != "llama" {
            return refused("model_type", config.model_type, "llama");
        }
        if config.hidden_act != "silu" {
            return refused("hidden_act", config.hidden_act, "silu");
        }
        for (name, bias) in
            [("attention_bias", config.attention_bias), ("mlp_bias", config.mlp_bias)]
        {
            if bias {
                return refused(name, bias.to_string(), "false");
            }
        }
        if let Some(scaling) = config.rope_scaling {
            return refused("rope_scaling", scaling.to_string(), "null");
        }
        let rope = config.rope_parameters;
        if let Some(kind) = rope.as_ref().and_then(|rope| rope.rope_type.as_ref())
            && kind != "default"
        {
            return refused("rope_type", kind.clone(), "default");
        }
        let theta = rope.and_then(|rope| rope.rope_theta).or(config.rope_theta);
        let heads = config.num_attention_heads;
        let head = config.head_dim.or_else(|| config.hidden_size.checked_div(heads));
        let decoder = DecoderConfig::new(
            config.num_hidden_layers,
            heads,
            head.unwrap_or(0),
            config.intermediate_size,
        )
        .key_value_heads(config.num_key_value_heads.unwrap_or(heads))
        .base(theta.unwrap_or(10_000.0))
        .epsilon(config.rms_norm_eps as f32);
        let tied = config.tie_word_embeddings;
        Ok(Self::decoder(config.vocab_size, config.hidden_size, decoder, tied))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"{"model_type":"llama","vocab_size":11,"hidden_size":12,
        "intermediate_size":20,"num_hidden_layers":2,"num_attention_heads":3,"hidden_act":"silu",
        "rope_scaling":null,"max_position_embeddings":2048"#;

    #[test]
    fn a_configuration_gives_llamas_names_and_shapes() {
        let spec = ModelSpec::llama(&format!("{SMALL}}}")).unwrap();
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<ModelSpec>(&json).unwrap(), spec);
        let (parameters, _) = spec.build().unwrap();
        let named: Vec<_> =
            parameters.iter().map(|p| format!("{} {:?}", p.name, p.shape)).collect();
        let block = |i: usize| {
            [
                format!("model.layers.{i}.input_layernorm.weight [12]"),
                format!("model.layers.{i}.self_attn.q_proj.weight [12, 12]"),
                format!("model.layers.{i}.self_attn.k_proj.weight [12, 12]"),
                format!("model.layers.{i}.self_attn.v_proj.weight [12, 12]"),
                format!("model.layers.{i}.self_attn.o_proj.weight [12, 12]"),
                format!("model.layers.{i}.post_attention_layernorm.weight [12]"),
                format!("model.layers.{i}.mlp.gate_proj.weight [20, 12]"),
                format!("model.layers.{i}.mlp.up_proj.weight [20, 12]"),
                format!("model.layers.{i}.mlp.down_proj.weight [12, 20]"),
            ]
        };
        let mut expected = vec!["model.embed_tokens.weight [11, 12]".to_owned()];
        expected.extend((0..2).flat_map(block));
        expected.extend(["model.norm.weight [12]".into(), "lm_head.weight [11, 12]".into()]);
        assert_eq!(named, expected);
        let tied = ModelSpec::llama(&format!("{SMALL},\"tie_word_embeddings\":true}}")).unwrap();
        assert_eq!(tied.build().unwrap().0.len(), expected.len() - 1);
    }

    #[test]
    fn other_architectures_are_refused_by_name() {
        for (more, expected) in [
            (r#","attention_bias":true"#, "attention_bias of config.json is true, expected false"),
            (r#","rope_parameters":{"rope_type":"llama3"}"#, "rope_type of config.json is llama3"),
            (r#","num_key_value_heads":2"#, "is 2, expected a divisor of 3"),
            (r#","head_dim":6"#, "is 6, expected a multiple of four"),
        ] {
            let built = ModelSpec::llama(&format!("{SMALL}{more}}}")).and_then(|spec| spec.build());
            let error = built.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = ModelSpec::llama("{}").unwrap_err().to_string();
        assert!(error.contains("missing field `model_type`"), "{error}");
        let scaled = SMALL.replace("null", r#"{"factor":2}"#);
        assert!(ModelSpec::llama(&format!("{scaled}}}")).is_err());
    }
}
