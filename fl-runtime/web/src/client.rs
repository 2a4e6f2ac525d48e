//! A client of federated runs in a tab.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_channel::oneshot;
use js_sys::Function;
use serde::Deserialize;
use serde_json::{Value, json};
use tern_client::{Conditions, DeviceState, Event, Options, Outcome};
use tern_protocol::TaskSpec;
use tern_protocol::participant::RequiredSecurity;
use tern_protocol::trainer::EngineTrainer;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsError, JsValue};

use crate::data::Samples;
use crate::device::Device;
use crate::json;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
/** How to take part. */
export interface ClientOptions {
    /** Address of the server: `https://host:port`. */
    server: string;
    /** Name of what is stored of this client in the origin's database; one tab at a time has it. */
    folder: string;
    /** To enroll with, where the server asks for one. */
    token?: string;
    /** The least secure aggregation to take part with: `{}` for the defaults. Any run without it
     *  if left out. */
    requiredSecurity?: Record<string, number>;
}
/** What a run asks for. */
export interface Task {
    run: string;
    name: string;
    model: { layers: ModelSpec } | { tensors: unknown };
    /** Whether the server learns a sum of updates alone. */
    secure: unknown | null;
    tokens?: unknown;
    [key: string]: unknown;
}
/** What a client does, as it does it. */
export type ClientEvent =
    | { event: "enrolled"; run: string; name: string; secure: boolean }
    | { event: "training"; round: number; attempt: number }
    | { event: "trained"; round: number; attempt: number; samples: number;
        metrics: Record<string, number> }
    | { event: "uploaded"; round: number; attempt: number; bytes: number }
    | { event: "waiting"; reason: string; seconds: number };
/** How it ended: the run is over and this is its best model, or it was asked to stop. */
export type Outcome = { finished: true; model: Uint8Array } | { finished: false };
"#;

thread_local! {
    /// Whom clients tell what they do, by a number: functions of JavaScript belong to their thread.
    static WATCHES: RefCell<HashMap<u64, Function>> = RefCell::default();
    static NEXT: Cell<u64> = const { Cell::new(0) };
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClientOptions {
    server: String,
    folder: String,
    token: Option<String>,
    required_security: Option<RequiredSecurity>,
}

fn described(event: &Event<'_>) -> Option<Value> {
    Some(match event {
        Event::Enrolled(task) => json!({
            "event": "enrolled", "run": task.run, "name": task.name, "secure": task.secure.is_some(),
        }),
        Event::Training(turn) => json!({
            "event": "training", "round": turn.round, "attempt": turn.attempt,
        }),
        Event::Trained(turn, trained) => json!({
            "event": "trained", "round": turn.round, "attempt": turn.attempt,
            "samples": trained.samples, "metrics": trained.metrics,
        }),
        Event::Uploaded(turn, bytes) => json!({
            "event": "uploaded", "round": turn.round, "attempt": turn.attempt, "bytes": bytes,
        }),
        Event::Waiting(error, wait) => json!({
            "event": "waiting", "reason": error.to_string(), "seconds": wait.as_secs_f64(),
        }),
        _ => return None,
    })
}

/// A client of a server's run. Its key and all that must survive the tab are in the origin's
/// database; what it trains on stays in the tab.
#[wasm_bindgen]
pub struct Client {
    client: RefCell<Option<tern_client::Client>>,
    id: String,
    folder: PathBuf,
    watch: u64,
    stop: RefCell<Option<oneshot::Sender<()>>>,
    allowed: Arc<AtomicBool>,
}

impl Drop for Client {
    fn drop(&mut self) {
        WATCHES.with_borrow_mut(|watches| watches.remove(&self.watch));
    }
}

#[wasm_bindgen]
impl Client {
    /// Takes a folder for this tab, with its key or a new one. `watch` is told what the client does.
    pub async fn open(
        #[wasm_bindgen(unchecked_param_type = "ClientOptions")] options: JsValue,
        #[wasm_bindgen(unchecked_param_type = "((event: ClientEvent) => void) | null")]
        watch: Option<Function>,
    ) -> Result<Client, JsError> {
        let options: ClientOptions = json::read("options", &options)?;
        let ClientOptions { server, folder, token, required_security } = options;
        let number = NEXT.get();
        NEXT.set(number + 1);
        if let Some(watch) = watch {
            WATCHES.with_borrow_mut(|watches| watches.insert(number, watch));
        }
        let tell = move |event: &Event<'_>| {
            let watch = WATCHES.with_borrow(|watches| watches.get(&number).cloned());
            if let (Some(watch), Some(event)) = (watch, described(event)) {
                // One that throws keeps nobody from going on.
                let _ = json::tell(&watch, &event);
            }
        };
        let allowed = Arc::new(AtomicBool::new(true));
        let may = allowed.clone();
        let state = move || DeviceState {
            idle: may.load(Ordering::Relaxed),
            charging: true,
            unmetered: true,
        };
        let options = Options::new(&server, &folder)
            .token(token)
            .required_security(required_security)
            .conditions(Conditions::of(state).idle())
            .watch(tell);
        let client = tern_client::Client::open(options).await?;
        Ok(Client {
            id: client.identity().client().to_string(),
            client: RefCell::new(Some(client)),
            folder: folder.into(),
            watch: number,
            stop: RefCell::default(),
            allowed,
        })
    }

    /// Who this is: the public key, in hexadecimal digits.
    #[wasm_bindgen(getter)]
    pub fn id(&self) -> String {
        self.id.clone()
    }

    /// Whether it may ask for tasks and start one now, `true` at first; what is under way is
    /// finished. `watch` of `conditions.js` tells of power, network and sight.
    #[wasm_bindgen(getter)]
    pub fn allowed(&self) -> bool {
        self.allowed.load(Ordering::Relaxed)
    }

    /// Sets it.
    #[wasm_bindgen(setter)]
    pub fn set_allowed(&self, allowed: bool) {
        self.allowed.store(allowed, Ordering::Relaxed);
    }

    fn take(&self) -> Result<tern_client::Client, JsError> {
        let taken = || JsError::new("client is at work or has ended, expected a new one");
        self.client.borrow_mut().take().ok_or_else(taken)
    }

    /// Registers, and says what the run asks for. Waits for the server.
    #[wasm_bindgen(unchecked_return_type = "Task")]
    pub async fn task(&self) -> Result<JsValue, JsError> {
        let mut client = self.take()?;
        let task = client.task().await;
        self.client.replace(Some(client));
        json::write(&task?)
    }

    /// Takes part, training and evaluating on these samples, until the run is over or
    /// [`Client::stop`] is called.
    #[wasm_bindgen(unchecked_return_type = "Outcome")]
    pub async fn run(&self, device: &Device, samples: &Samples) -> Result<JsValue, JsError> {
        let client = self.take()?;
        let (stop, stopped) = oneshot::channel();
        self.stop.replace(Some(stop));
        let trainer = EngineTrainer::new(&device.0, samples.0.clone());
        // Updates are encoded where every device encodes them to the same bits.
        let encoder = tern_engine::Device::cpu();
        // Who drops the other end asks, too.
        let asked = async { stopped.await.unwrap_or(()) };
        let outcome = client.run(trainer, &encoder, asked).await?;
        let answer = js_sys::Object::new();
        let set = |name: &str, value: &JsValue| {
            js_sys::Reflect::set(&answer, &name.into(), value).map_err(|_| JsError::new(name))
        };
        let finished = matches!(outcome, Outcome::Finished(_));
        set("finished", &finished.into())?;
        if finished {
            let model = stored(&self.folder, "model").await?.unwrap_or_default();
            set("model", &js_sys::Uint8Array::from(model.as_slice()))?;
        }
        Ok(answer.into())
    }

    /// Ends [`Client::run`] after the step that is being computed.
    pub fn stop(&self) {
        drop(self.stop.take());
    }

    /// A model that a folder has: `"personal"`, as it was after this client's last training, or
    /// `"model"`, the best of a run that is over. Safetensors.
    pub async fn stored(folder: String, name: String) -> Result<Option<Vec<u8>>, JsError> {
        stored(Path::new(&folder), &name).await
    }

    /// Removes all that is stored of a client: its key, models, what is not sent yet. No tab may
    /// have it.
    pub async fn forget(folder: String) -> Result<(), JsError> {
        Ok(tern_client::forget(Path::new(&folder)).await?)
    }
}

async fn stored(folder: &Path, name: &str) -> Result<Option<Vec<u8>>, JsError> {
    Ok(tern_client::stored(folder, &format!("{name}.safetensors")).await?)
}

/// A text as the tokens that a run asks for.
#[wasm_bindgen]
pub fn encode(
    #[wasm_bindgen(unchecked_param_type = "Task")] task: JsValue,
    text: &str,
) -> Result<Vec<u32>, JsError> {
    let task: TaskSpec = json::read("task", &task)?;
    Ok(task.tokens.unwrap_or_default().encode(text))
}
