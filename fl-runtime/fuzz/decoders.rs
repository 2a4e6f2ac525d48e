//! Every decoder of what comes from outside, on arbitrary bytes: none may panic, and what one
//! takes must come back the same. Shared by the fuzz targets and the test that replays their
//! corpus.

use std::sync::{Arc, LazyLock};

use tern_engine::nn::ModelSpec;
use tern_fl::config::Config;
use tern_fl::host::files::Durability;
use tern_fl::host::store::ClientStore;
use tern_fl::methods::personalize::{Public, Publisher};
use tern_fl::methods::teach::{self, Aggregator, Budget, Labels, Limit, Mechanism, Noise, Voters};
use tern_fl::server::http::Service;
use tern_fl::{ClientId, Result, RunId, RunPlan};

/// Configurations, and the messages about what is wrong with them.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse("fuzz.toml", text) {
        Ok(config) => {
            // A plan that was taken can be run.
            let _ = config.run.as_ref().map(RunPlan::fraction_bits);
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.starts_with("fuzz.toml:") && error.line >= 1 && error.column >= 1);
        }
    }
}

/// Models as a service publishes them.
pub fn models(data: &[u8]) {
    if let Ok(public) = Public::decode(data) {
        let bytes = public.encode().expect("what was decoded");
        let again = Public::decode(&bytes).expect("what was encoded");
        assert_eq!((again.version, again.weights), (public.version, public.weights));
    }
}

/// One model to be downloaded.
static PUBLISHER: LazyLock<Arc<Publisher>> = LazyLock::new(|| {
    let model = ModelSpec::mlp(3, &[4], 2);
    let weights = model.build().expect("a small model").0.initial(1);
    let publisher = Publisher::new();
    let public = Public { version: 3, model, note: "a model".into(), weights };
    publisher.publish(&public).expect("a model");
    publisher
});

/// Teachers that agree on everything.
struct Agreed;

impl Voters for Agreed {
    fn width(&self) -> usize {
        2
    }

    fn votes(&mut self, features: &[f32]) -> Result<Vec<Vec<u32>>> {
        Ok(vec![vec![90, 10]; features.len() / 2])
    }
}

static LABELS: LazyLock<Arc<Labels<Agreed>>> = LazyLock::new(|| {
    let mechanism = Mechanism::Gaussian { sigma: 8.0 };
    let aggregator = Aggregator::new(mechanism, Noise::seeded(1)).expect("a mechanism");
    let budget = Budget::in_memory(Limit { epsilon: 1e6, delta: 1e-3 }).expect("a budget");
    let labels = Labels::new("labels");
    labels.open(teach::Service::new(Agreed, aggregator, budget));
    labels
});

/// Requests of clients to the services beside the rounds.
pub fn services(data: &[u8]) {
    let client = ClientId([1; 32]);
    let _ = PUBLISHER.answer(&client, data);
    if let Ok(answer) = LABELS.answer(&client, data) {
        let answer: teach::Answer = serde_json::from_slice(&answer).expect("an answer");
        assert_eq!(answer.labels.len(), data.len() / 8);
    }
}

/// A client's `state.json`, as it is found at the next start.
pub fn state(data: &[u8]) {
    let (folder, run) = (tempfile::tempdir().expect("a folder"), RunId([7; 16]));
    let store = ClientStore::open(folder.path(), &run, Durability::Process).expect("a store");
    std::fs::write(folder.path().join(run.to_string()).join("state.json"), data).expect("a file");
    if let Ok(kept) = store.load() {
        store.save(&kept).expect("space for it");
    }
}
