//! What a client takes from the machine: files, threads, the time, a stack of HTTP and TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Response;
use tern_engine::{Interrupt, Parameters, save_model};
use tern_host::files::Durability;
use tern_host::folder::FolderLock;
use tern_host::key_file;
use tern_host::store::ClientStore;
use tern_host::tls::{self, Stranger};
use tern_protocol::identity::Identity;
use tern_protocol::metrics::Metrics;
use tern_protocol::participant::SavedState;
use tern_protocol::trainer::{Job, Trained, Trainer};
use tern_protocol::{Error, Result, RunId, TaskSpec};
use tokio::task::spawn_blocking;
pub(crate) use tokio::time::{Instant, sleep};

use crate::CallError;
use crate::http::network;
use crate::work::Work;

/// A client's folder, which is nobody else's.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: FolderLock,
}

impl Folder {
    /// Opens or makes it, with its key; a new key where there is none.
    pub fn open(path: &Path) -> Result<(Self, Identity)> {
        std::fs::create_dir_all(path).map_err(|e| Error::file(path, e))?;
        let lock = FolderLock::take(path)?;
        let key = path.join("client.key");
        let identity = key_file::load_or_create(&key).map_err(|e| Error::file(&key, e))?;
        Ok((Folder { path: path.into(), _lock: lock }, identity))
    }

    /// What is kept of a run.
    pub async fn store(&self, run: &RunId) -> Result<Store> {
        Ok(Store(ClientStore::open(&self.path, run, Durability::Power)?))
    }

    /// Writes a model, and says where.
    pub async fn save_model(
        &self,
        name: &str,
        parameters: &Parameters,
        flat: &[f32],
    ) -> Result<PathBuf> {
        let path = self.path.join(name);
        save_model(&path, parameters, flat)?;
        Ok(path)
    }
}

/// What a client keeps of a run.
pub(crate) struct Store(ClientStore);

impl Store {
    pub fn load(&self) -> Result<SavedState> {
        self.0.load()
    }

    pub async fn save(&mut self, kept: &SavedState) -> Result<()> {
        self.0.save(kept)
    }
}

/// A trainer that works on a blocking thread of the event loop; none once it has panicked.
pub(crate) struct OffLoop<T>(Option<T>);

impl<T> OffLoop<T> {
    pub fn new(trainer: T) -> Self {
        OffLoop(Some(trainer))
    }
}

impl<T: Trainer + Send + 'static> OffLoop<T> {
    async fn run<R: Send + 'static>(
        &mut self,
        task: &TaskSpec,
        run: impl FnOnce(&mut T, &TaskSpec) -> R + Send + 'static,
    ) -> Result<R> {
        let lost = || Error::trainer("it panicked before");
        let mut trainer = self.0.take().ok_or_else(lost)?;
        let task = task.clone();
        let ran = spawn_blocking(move || {
            let result = run(&mut trainer, &task);
            (trainer, result)
        });
        let (trainer, result) = ran.await.map_err(Error::trainer)?;
        self.0 = Some(trainer);
        Ok(result)
    }
}

impl<T: Trainer + Send + 'static> Work for OffLoop<T> {
    fn samples(&self) -> u32 {
        self.0.as_ref().map_or(0, Trainer::samples)
    }

    fn interrupt(&self) -> Option<Interrupt> {
        self.0.as_ref().and_then(Trainer::interrupt)
    }

    async fn train(&mut self, task: &TaskSpec, job: Job) -> Result<Result<Trained>> {
        self.run(task, move |trainer, task| trainer.train(task, &job)).await
    }

    async fn evaluate(
        &mut self,
        task: &TaskSpec,
        model: Arc<Vec<f32>>,
    ) -> Result<Result<(u32, Metrics)>> {
        self.run(task, move |trainer, task| trainer.evaluate(task, &model)).await
    }
}

/// What speaks HTTP, trusting the authorities in a PEM file or those of the system.
pub(crate) fn http(server: &str, authority: Option<&Path>) -> Result<reqwest::Client, CallError> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(15))
        // Below the server's, so that no request goes out on a connection being closed.
        .pool_idle_timeout(Duration::from_secs(5))
        .redirect(reqwest::redirect::Policy::none())
        .http1_only();
    tls::install_provider();
    if let Some(path) = authority {
        builder = builder.tls_backend_preconfigured(tls::client(path)?);
    }
    builder.build().map_err(|e| network(server, &e.without_url()))
}

/// A call to `base` without an answer: whether it is the network's fault, or of what is at its end.
pub(crate) fn unreached(base: &str, target: &str, error: reqwest::Error) -> CallError {
    let error = error.without_url();
    let lost = network(target, &error);
    // TLS's bytes, read as HTTP.
    let is_tls =
        base.starts_with("http://") && lost.to_string().ends_with("invalid HTTP version parsed");
    let (reason, expected) = match Stranger::of(&error) {
        Some(Stranger::Certificate) => {
            (lost.to_string(), "a certificate for this name from an authority that is trusted")
        }
        Some(Stranger::Plain) => ("which speaks no TLS".into(), "http:// in its address"),
        None if is_tls => ("which speaks TLS".into(), "https:// in its address"),
        None => return lost,
    };
    CallError::Stranger { server: base.into(), reason, expected }
}

/// The body of an answer; `None` if it is longer than `most`.
pub(crate) async fn body(mut answer: Response, most: usize) -> reqwest::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if bytes.len() + chunk.len() > most {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}
