//! Tabs take part in a run: to the same bits as clients of this process, and through their ends.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tern_client::{Client, Options};
use tern_engine::nn::ModelSpec;
use tern_engine::{Device, Isa, RowData};
use tern_protocol::identity::Identity;
use tern_protocol::layout::ModelKind;
use tern_protocol::plan::{Encoding, Secure, Selection};
use tern_protocol::trainer::{EngineTrainer, LocalData};
use tern_protocol::{Digest, RunPlan, hex};
use tern_server::local;

use crate::chromium::{Browser, Tab};
use crate::{
    FUSED, RUN, Serving, UNFUSED, possible, serve, tab_with, tab_with_module, with_browser,
};

/// Features and classes of a sample.
const WIDTH: usize = 8;
const CLASSES: usize = 3;
/// How long a run may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Ternary updates of so many clients, in sums alone if `secure`.
fn plan(clients: u32, secure: bool) -> RunPlan {
    let model = ModelKind::Layers(ModelSpec::mlp(WIDTH, &[16], CLASSES));
    let mut plan = RunPlan::new("tabs", model, 4);
    (plan.cohort.size, plan.cohort.minimum) = (clients, clients);
    plan.cohort.deadline_ms = PATIENCE.as_millis() as u64;
    plan.training.batch = 16;
    plan.training.epochs = 2;
    plan.updates.uplink = Encoding::Ternary;
    if secure {
        plan.secure = Some(Secure::default());
        // Its sums are of codes, without weights.
        plan.cohort.selection = Selection::BySamples;
    }
    plan
}

/// A client's samples: points around three centers, others for each number.
fn samples(number: usize) -> (Vec<f32>, Vec<u32>) {
    let at = |i: usize| (i * 7919 + number * 104_729) % 1009;
    let labels: Vec<u32> = (0..60 + 10 * number).map(|i| (at(i) % CLASSES) as u32).collect();
    let feature = |i: usize, j: usize| {
        let noise = at(i * WIDTH + j) as f32 / 1009.0 - 0.5;
        noise + if j % CLASSES == labels[i] as usize { 0.75 } else { 0.0 }
    };
    let features = (0..labels.len()).flat_map(|i| (0..WIDTH).map(move |j| (i, j)));
    (features.map(|(i, j)| feature(i, j)).collect(), labels)
}

fn identity(number: usize) -> Identity {
    Identity::from_secret(&[number as u8 + 1; 32])
}

fn trainer(number: usize) -> EngineTrainer {
    let (device, (features, labels)) = (Device::cpu(), samples(number));
    let rows = RowData::upload(&device, &features, WIDTH, &labels, CLASSES).unwrap();
    EngineTrainer::new(&device, LocalData::Rows(rows))
}

/// The best model of the run with all its clients in this process, by vectors of four lanes
/// without fused operations, as the browser's build without them computes.
fn expected(plan: &RunPlan) -> Digest {
    Isa::Base.pin().unwrap();
    let mut clients: Vec<local::Client<EngineTrainer>> = (0..plan.cohort.size as usize)
        .map(|number| local::Client { identity: identity(number), trainer: trainer(number) })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let options = local::Options::new(&Device::cpu(), folder.path()).run(RUN);
    let outcome = local::run(plan, None, &mut clients, options, |_, _| {}).unwrap();
    digest(&outcome.best)
}

fn digest(model: &[f32]) -> Digest {
    Digest::of(&tern_protocol::update::Codec::full(model))
}

/// Stores a client's key in a tab as an earlier visit would have.
fn store_key(tab: &Tab<'_>, number: usize) {
    let key = json!(identity(number).signing_key().as_bytes());
    tab.evaluate(&format!(
        "new Promise((resolve, reject) => {{ const opening = indexedDB.open('tern', 1); \
         opening.onupgradeneeded = () => opening.result.createObjectStore('files'); \
         opening.onerror = () => reject(opening.error); \
         opening.onsuccess = () => {{ const writing = opening.result.transaction('files', \
         'readwrite'); writing.objectStore('files').put(new Uint8Array({key}), \
         ['client {number}', 'client.key']); writing.oncomplete = () => {{ \
         opening.result.close(); resolve(); }}; }}; }})"
    ))
    .unwrap();
}

/// Has a tab take part; what it does is in its `events`, and how it ended in `outcome`.
fn begin(tab: &Tab<'_>, serving: &Serving, number: usize) {
    let (features, labels) = samples(number);
    let options = json!({ "server": serving.url, "folder": format!("client {number}") });
    tab.evaluate(&format!(
        "(async () => {{ globalThis.events = []; globalThis.outcome = null; \
         const device = await tern.Device.open('cpu'); \
         const samples = await tern.Samples.rows(device, new Float32Array({}), {WIDTH}, \
         new Uint32Array({}), {CLASSES}); \
         const client = await tern.Client.open({options}, event => events.push(event)); \
         client.run(device, samples).then(end => {{ outcome = {{ finished: end.finished, \
         bytes: end.model.length }}; }}, error => {{ outcome = {{ error: error.message }}; }}); \
         return client.id; }})()",
        json!(features),
        json!(labels)
    ))
    .map(|id| assert_eq!(id, identity(number).client().to_string()))
    .unwrap();
}

/// Waits until an expression of a tab that takes part holds, and gives it.
fn wait_for(tab: &Tab<'_>, expression: &str) -> Value {
    tab.wait_for(expression, PATIENCE, "events")
}

fn finish(tab: &Tab<'_>) {
    let outcome = wait_for(tab, "outcome");
    assert_eq!(outcome["finished"], true, "{outcome}: {}", tab.evaluate("events").unwrap());
}

/// The best model that the server has kept.
fn best(serving: &Serving, plan: &RunPlan) -> Digest {
    let parameters = plan.check().unwrap();
    let path = serving.folder.path().join("best.safetensors");
    digest(&tern_engine::load_model(&path, parameters.parameters()).unwrap())
}

#[test]
fn tabs_and_clients_here_make_one_model() {
    if !possible() {
        return;
    }
    for (secure, natives) in [(false, 0), (true, 2)] {
        let plan = plan(3 + natives, secure);
        let expected = expected(&plan);
        let serving = serve(&plan);
        let browser = Browser::new();
        let tabs: Vec<Tab<'_>> = (0..3).map(|_| tab_with(&browser, &serving, UNFUSED)).collect();
        for (number, tab) in tabs.iter().enumerate() {
            store_key(tab, number);
            begin(tab, &serving, number);
        }
        let event_loop = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let running: Vec<_> = (3..3 + natives as usize)
            .map(|number| {
                let folder = tempfile::tempdir().unwrap();
                let key = hex::encode(identity(number).signing_key().as_bytes());
                std::fs::write(folder.path().join("client.key"), format!("{key}\n")).unwrap();
                let options = Options::new(&serving.url, folder.path());
                let client = Client::new(options).unwrap();
                event_loop.spawn(async move {
                    let device = Device::cpu();
                    let ran = client.run(trainer(number), &device, std::future::pending());
                    drop(ran.await.unwrap());
                    drop(folder);
                })
            })
            .collect();
        tabs.iter().for_each(finish);
        event_loop.block_on(async {
            for client in running {
                client.await.unwrap();
            }
        });
        let told = tabs[0].evaluate("events").unwrap();
        for what in ["enrolled", "training", "trained", "uploaded"] {
            let events = told.as_array().unwrap();
            assert!(events.iter().any(|event| event["event"] == what), "{told}");
        }
        assert_eq!(told[0]["secure"], secure);
        assert_eq!(best(&serving, &plan), expected, "secure: {secure}");
    }
}

/// They may train to other bits, but read models and differences to the server's.
#[test]
fn tabs_with_fused_operations_take_part() {
    let mut plan = plan(2, false);
    plan.updates.downlink = Encoding::Ternary;
    let Some((serving, browser)) = with_browser(|| serve(&plan)) else { return };
    let tabs = [0, 1].map(|_| tab_with(&browser, &serving, FUSED));
    for (number, tab) in tabs.iter().enumerate() {
        tab.evaluate("performance.setResourceTimingBufferSize(10_000)").unwrap();
        store_key(tab, number);
        begin(tab, &serving, number);
    }
    tabs.iter().for_each(finish);
    for tab in tabs {
        let fetched = tab.evaluate(
            "performance.getEntriesByType('resource') \
             .filter(entry => entry.name.includes('/blob/')).map(entry => entry.encodedBodySize)",
        );
        // The first model whole and the best one, in between what changed: where a difference came
        // to other bits than the server's, the model would be asked for whole.
        assert_eq!(fetched.unwrap(), json!([1280, 96, 96, 96, 1280]));
    }
}

#[test]
fn a_folder_is_one_tabs() {
    let Some((serving, browser)) = with_browser(|| serve(&plan(2, false))) else { return };
    let [first, second] = [0, 1].map(|_| tab_with_module(&browser, &serving));
    let open = |tab: &Tab<'_>| {
        tab.evaluate(&format!(
            "tern.Client.open({}, null).then(client => {{ globalThis.client = client; \
             return client.id; }})",
            json!({ "server": serving.url, "folder": "shared" })
        ))
    };
    let id = open(&first).unwrap();
    let error = open(&second).unwrap_err();
    assert!(error.contains("in use by another tab"), "{error}");
    first.close();
    // The lock goes with its tab, soon.
    let began = Instant::now();
    let again = loop {
        match open(&second) {
            Ok(id) => break id,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
    };
    assert_eq!(again, id, "the key was kept");
    second.evaluate("client.free(); tern.Client.forget('shared')").unwrap();
    assert_ne!(open(&second).unwrap(), id, "the key was forgotten");
}

#[test]
fn a_browser_that_is_killed_in_mid_round_goes_on() {
    if !possible() {
        return;
    }
    let plan = plan(2, false);
    let expected = expected(&plan);
    let serving = serve(&plan);
    let profiles = [0, 1].map(|_| tempfile::tempdir().unwrap());
    let steady = Browser::start(profiles[0].path());
    let tab = tab_with(&steady, &serving, UNFUSED);
    store_key(&tab, 0);
    begin(&tab, &serving, 0);
    // In the middle of a round, again as soon as it is back in another, and then not any more.
    for round in [Some(2), Some(3), None] {
        let mut killed = Browser::start(profiles[1].path());
        let tab = tab_with(&killed, &serving, UNFUSED);
        if round == Some(2) {
            store_key(&tab, 1);
        }
        begin(&tab, &serving, 1);
        match round {
            Some(round) => {
                wait_for(&tab, &format!("events.some(event => event.round >= {round})"));
                killed.kill();
            }
            None => finish(&tab),
        }
    }
    finish(&tab);
    assert_eq!(best(&serving, &plan), expected);
}
