//! The public model as files: what a server publishes (1.3) and a client downloads (1.4).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tern_engine::nn::{Input, LayerSpec, Model, ModelSpec};
use tern_engine::{Arena, Device, Flat, Parameters, load_model, save_model};
use tern_fl::methods::personalize::Public;
use tern_fl::tokens::Alphabet;

/// What a client must know of a model besides its parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// Counted up with every model published, so that a client can tell which it has.
    pub version: u32,
    /// From which every device builds the same model.
    pub spec: ModelSpec,
    /// Its tokens.
    pub alphabet: Alphabet,
    /// Characters it was trained on.
    pub characters: usize,
    /// Training steps, or rounds of a federated training.
    pub steps: usize,
}

/// A model ready to be put on a device.
#[derive(Clone, Debug)]
pub struct PublicModel {
    /// Version, architecture and alphabet.
    pub card: Card,
    /// Layout of the parameters.
    pub parameters: Parameters,
    /// Layers to record.
    pub model: Model,
    /// As the runtime publishes it, with the parameters: a flat vector in the layout.
    pub published: Arc<Public>,
}

impl PublicModel {
    /// The model of a card with these parameters.
    pub fn new(card: Card, weights: Vec<f32>) -> Result<Self> {
        let (parameters, model) = card.spec.build()?;
        let (tokens, words) = (card.alphabet.tokens(), parameters.words());
        ensure!(
            card.spec.input == Input::Tokens { vocabulary: tokens },
            "the model reads {:?}, its alphabet has {tokens} tokens",
            card.spec.input
        );
        ensure!(
            matches!(card.spec.layers.last(), Some((_, LayerSpec::Linear { outputs, .. })) if *outputs == tokens),
            "the model does not end in a linear layer with an output for each of {tokens} tokens"
        );
        ensure!(weights.len() == words, "{} values for {words} words", weights.len());
        let (version, spec) = (card.version, card.spec.clone());
        let note = serde_json::to_string(&card.alphabet)?;
        let published = Arc::new(Public { version, model: spec, note, weights });
        Ok(PublicModel { card, parameters, model, published })
    }

    /// The parameters.
    pub fn weights(&self) -> &[f32] {
        &self.published.weights
    }

    /// 1.3: writes `public-v<version>.safetensors`, and its card beside it as JSON. Returns the
    /// path of the former.
    pub fn publish(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join(format!("public-v{}.safetensors", self.card.version));
        save_model(&path, &self.parameters, self.weights())?;
        let card = card_of(&path);
        let json = serde_json::to_string_pretty(&self.card)? + "\n";
        fs::write(&card, json).with_context(|| format!("{}", card.display()))?;
        Ok(path)
    }

    /// Removes what [`PublicModel::publish`] wrote, if it is there.
    pub fn remove(path: &Path) -> Result<()> {
        for file in [path.to_owned(), card_of(path)].iter().filter(|file| file.exists()) {
            fs::remove_file(file).with_context(|| format!("{}", file.display()))?;
        }
        Ok(())
    }

    /// 1.4: loads what [`PublicModel::publish`] wrote.
    pub fn load(path: &Path) -> Result<Self> {
        ensure!(path.exists(), "{}: there is no such model", path.display());
        let beside = card_of(path);
        let json = fs::read_to_string(&beside).with_context(|| {
            format!("{}: the card of the model {}", beside.display(), path.display())
        })?;
        let card: Card =
            serde_json::from_str(&json).with_context(|| format!("{}", beside.display()))?;
        let (parameters, _) = card.spec.build().with_context(|| format!("{}", beside.display()))?;
        let weights = load_model(path, &parameters)?;
        PublicModel::new(card, weights).with_context(|| format!("{}", beside.display()))
    }

    /// Of what was downloaded, or a device has, which doesn't say how it was trained.
    pub fn downloaded(public: Public) -> Result<Self> {
        let alphabet =
            serde_json::from_str(&public.note).context("the alphabet of a public model")?;
        let Public { version, model: spec, weights, .. } = public;
        PublicModel::new(Card { version, spec, alphabet, characters: 0, steps: 0 }, weights)
    }

    /// Room for a model of this layout on a device, the public one at first.
    pub fn arena(&self, device: &Device) -> Result<Arena> {
        let arena = Arena::new(device, &self.parameters, &[0])?;
        arena.write(Flat::Parameters, 0, self.weights())?;
        Ok(arena)
    }

    /// Multiplications and additions to train on one character: forward, and twice that
    /// backward. The embedding is a lookup.
    pub fn training_flops(&self) -> u64 {
        let matrices = self.parameters.iter().filter(|p| p.shape.len() == 2);
        let weights: usize =
            matrices.filter(|p| !p.name.starts_with("embedding")).map(|p| p.len()).sum();
        3 * 2 * weights as u64
    }
}

fn card_of(path: &Path) -> PathBuf {
    path.with_extension("json")
}

/// A model too small to learn much, for tests.
#[cfg(test)]
pub(crate) fn tiny() -> PublicModel {
    let alphabet = Alphabet::covering([], 0);
    let spec = ModelSpec::language_model(alphabet.tokens(), 8, 16, 1);
    let weights = spec.build().unwrap().0.initial(5);
    PublicModel::new(Card { version: 3, spec, alphabet, characters: 0, steps: 0 }, weights).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_model_is_loaded_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let public = tiny();
        let path = public.publish(folder.path()).unwrap();
        assert!(path.ends_with("public-v3.safetensors"));
        let loaded = PublicModel::load(&path).unwrap();
        assert_eq!((&loaded.card, loaded.weights()), (&public.card, public.weights()));
        PublicModel::remove(&path).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        PublicModel::remove(&path).unwrap();
    }

    #[test]
    fn a_model_is_downloaded_as_it_was() {
        let public = tiny();
        let loaded = PublicModel::downloaded((*public.published).clone()).unwrap();
        assert_eq!((&loaded.card, loaded.weights()), (&public.card, public.weights()));
        let other = Public { note: "another".into(), ..(*public.published).clone() };
        assert!(PublicModel::downloaded(other).unwrap_err().to_string().contains("alphabet"));
    }

    #[test]
    fn damaged_publications_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = tiny().publish(folder.path()).unwrap();
        let error = || format!("{:#}", PublicModel::load(&path).unwrap_err());
        let card = fs::read_to_string(card_of(&path)).unwrap();
        fs::write(card_of(&path), card.replace(" !", "!")).unwrap();
        assert!(error().contains("public-v3.json") && error().contains("96 tokens"), "{}", error());
        fs::write(card_of(&path), &card[..40]).unwrap();
        assert!(error().contains("public-v3.json"), "{}", error());
        fs::write(card_of(&path), &card).unwrap();
        fs::write(&path, "").unwrap();
        assert!(error().contains("public-v3.safetensors"), "{}", error());
        fs::remove_file(card_of(&path)).unwrap();
        assert!(error().contains("the card of the model"), "{}", error());
        fs::remove_file(&path).unwrap();
        assert!(error().contains("there is no such model"), "{}", error());
    }
}
