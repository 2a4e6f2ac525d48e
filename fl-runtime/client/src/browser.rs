//! What a client takes from a browser: its storage and locks, timers, requests.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use js_sys::{Array, Function, Uint8Array};
use reqwest::Response;
use tern_engine::{Interrupt, Parameters, serialize_model};
use tern_host::store::{ClientStore, Files};
use tern_protocol::identity::Identity;
use tern_protocol::metrics::Metrics;
use tern_protocol::participant::SavedState;
use tern_protocol::trainer::{EngineTrainer, Job, Trained, Trainer};
use tern_protocol::{Error, Result, RunId, TaskSpec};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
pub(crate) use web_time::Instant;

use crate::CallError;
use crate::http::network;
use crate::work::Work;

#[wasm_bindgen(module = "/src/browser.js")]
extern "C" {
    #[wasm_bindgen(catch)]
    async fn lock(folder: &str) -> std::result::Result<JsValue, JsValue>;
    #[wasm_bindgen(catch)]
    async fn load(folder: &str) -> std::result::Result<JsValue, JsValue>;
    #[wasm_bindgen(catch)]
    async fn store(
        folder: &str,
        written: &Array,
        removed: &Array,
    ) -> std::result::Result<JsValue, JsValue>;
    #[wasm_bindgen(catch, js_name = forget)]
    async fn remove(folder: &str) -> std::result::Result<JsValue, JsValue>;
    #[wasm_bindgen(js_name = sleep)]
    async fn pause(milliseconds: f64);
}

/// Gives way for a while.
pub(crate) async fn sleep(duration: Duration) {
    pause(duration.as_secs_f64() * 1e3).await;
}

/// A failure in words.
fn said(path: &Path, error: JsValue) -> Error {
    let text = error.dyn_ref::<js_sys::Error>().map(|error| String::from(error.message()));
    Error::file(path, text.unwrap_or_else(|| format!("{error:?}")))
}

/// Bytes of the origin's storage, by name, beneath a folder's name. They are here, too; what
/// changes goes there at once, all of it or nothing.
#[derive(Clone, Debug)]
struct Stored {
    folder: PathBuf,
    files: Rc<RefCell<BTreeMap<String, Vec<u8>>>>,
    /// What has been written and removed since the last flush.
    changed: Rc<RefCell<BTreeMap<String, Option<Vec<u8>>>>>,
}

impl Stored {
    fn name(folder: &Path) -> String {
        folder.display().to_string()
    }

    async fn open(folder: &Path) -> Result<Self> {
        let all = load(&Self::name(folder)).await.map_err(|e| said(folder, e))?;
        let mut files = BTreeMap::new();
        for pair in Array::from(&all).iter() {
            let pair = Array::from(&pair);
            let name = pair.get(0).as_string().unwrap_or_default();
            files.insert(name, Uint8Array::new(&pair.get(1)).to_vec());
        }
        Ok(Stored { folder: folder.into(), files: Rc::new(files.into()), changed: Rc::default() })
    }

    async fn flush(&self) -> Result<()> {
        let (written, removed) = (Array::new(), Array::new());
        let changed = self.changed.take();
        for (name, bytes) in &changed {
            match bytes {
                Some(bytes) => {
                    let bytes = Uint8Array::from(bytes.as_slice());
                    written.push(&Array::of2(&name.into(), &bytes));
                }
                None => {
                    removed.push(&name.into());
                }
            }
        }
        let stored = store(&Self::name(&self.folder), &written, &removed).await;
        stored.map_err(|error| {
            // Once more with what changes next.
            self.changed.replace(changed);
            said(&self.folder, error)
        })?;
        Ok(())
    }
}

impl Files for Stored {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.files.borrow().get(name).cloned())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.files.borrow_mut().insert(name.into(), bytes.into());
        self.changed.borrow_mut().insert(name.into(), Some(bytes.into()));
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>> {
        Ok(self.files.borrow().keys().cloned().collect())
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.files.borrow_mut().remove(name);
        self.changed.borrow_mut().insert(name.into(), None);
        Ok(())
    }
}

/// A client's folder, which is this tab's alone.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    files: Stored,
    _taken: Taken,
}

impl Folder {
    /// Opens or makes it, with its key; a new key where there is none.
    pub async fn open(path: &Path) -> Result<(Self, Identity)> {
        let taken = Taken::new(path).await?;
        let files = Stored::open(path).await?;
        let folder = Folder { path: path.into(), files, _taken: taken };
        const KEY: &str = "client.key";
        let identity = match folder.files.read(KEY)? {
            Some(bytes) => {
                let secret = <[u8; 32]>::try_from(bytes.as_slice());
                let secret = secret.map_err(|_| {
                    Error::file(&folder.path.join(KEY), "expected the 32 bytes of a key")
                })?;
                Identity::from_secret(&secret)
            }
            None => {
                let identity = Identity::generate()?;
                folder.files.write(KEY, identity.signing_key().as_bytes())?;
                folder.files.flush().await?;
                identity
            }
        };
        Ok((folder, identity))
    }

    /// What is kept of a run.
    pub async fn store(&self, run: &RunId) -> Result<Store> {
        let files = Stored::open(&self.path.join(run.to_string())).await?;
        Ok(Store { client: ClientStore::of(files.clone()), files })
    }

    /// Writes a model, and says where.
    pub async fn save_model(
        &self,
        name: &str,
        parameters: &Parameters,
        flat: &[f32],
    ) -> Result<PathBuf> {
        self.files.write(name, &serialize_model(parameters, flat)?)?;
        self.files.flush().await?;
        Ok(self.files.path(name))
    }
}

/// The bytes of a file in a client's folder, whoever has the folder.
///
/// # Errors
/// [`Error::File`].
pub async fn stored(folder: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    Stored::open(folder).await?.read(name)
}

/// Removes a client's folder, which no tab may have.
///
/// # Errors
/// [`Error::File`].
pub async fn forget(folder: &Path) -> Result<()> {
    let _taken = Taken::new(folder).await?;
    remove(&folder.display().to_string()).await.map(drop).map_err(|e| said(folder, e))
}

/// A folder that is this tab's alone.
#[derive(Debug)]
struct Taken(Function);

impl Taken {
    async fn new(folder: &Path) -> Result<Self> {
        let release = lock(&Stored::name(folder)).await.map_err(|e| said(folder, e))?;
        let shared = |_| Error::file(folder, "in use by another tab, expected a folder of its own");
        release.dyn_into().map(Taken).map_err(shared)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // It only settles a promise.
        let _ = self.0.call0(&JsValue::NULL);
    }
}

/// What a client keeps of a run.
pub(crate) struct Store {
    client: ClientStore<Stored>,
    files: Stored,
}

impl Store {
    pub fn load(&self) -> Result<SavedState> {
        self.client.load()
    }

    pub async fn save(&mut self, kept: &SavedState) -> Result<()> {
        self.client.save(kept)?;
        self.files.flush().await
    }
}

impl Work for EngineTrainer {
    fn samples(&self) -> u32 {
        Trainer::samples(self)
    }

    fn interrupt(&self) -> Option<Interrupt> {
        Trainer::interrupt(self)
    }

    async fn train(&mut self, task: &TaskSpec, job: Job) -> Result<Result<Trained>> {
        Ok(self.train_async(task, &job).await)
    }

    async fn evaluate(
        &mut self,
        task: &TaskSpec,
        model: Arc<Vec<f32>>,
    ) -> Result<Result<(u32, Metrics)>> {
        Ok(self.evaluate_async(task, &model).await)
    }
}

/// What speaks HTTP; whom it trusts is the browser's business.
pub(crate) fn http(server: &str, authority: Option<&Path>) -> Result<reqwest::Client, CallError> {
    if let Some(path) = authority {
        let reason = format!("with authorities of its own in {}", path.display());
        let expected = "those that the browser trusts";
        return Err(CallError::Stranger { server: server.into(), reason, expected });
    }
    Ok(reqwest::Client::new())
}

/// A call without an answer. Browsers don't tell scripts why.
pub(crate) fn unreached(_: &str, target: &str, error: reqwest::Error) -> CallError {
    network(target, &error.without_url())
}

/// The body of an answer, all at once; `None` if it is longer than `most`.
pub(crate) async fn body(answer: Response, most: usize) -> reqwest::Result<Option<Vec<u8>>> {
    let fits = |length: u64| length <= most as u64;
    if !answer.content_length().is_none_or(fits) {
        return Ok(None);
    }
    let bytes = answer.bytes().await?;
    Ok(fits(bytes.len() as u64).then(|| bytes.into()))
}
