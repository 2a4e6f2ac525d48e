//! Bodies in an object store: models under their digests, updates under their attempt and digest,
//! sums of parts. Whatever is read is hashed, so that nothing hangs on what the store says of it, and
//! nothing is ever written twice with two contents.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    ClientOptions, ObjectStore, ObjectStoreExt as _, PutPayload, RetryConfig, WriteMultipart,
};
use tern_host::files::{Durability, Faults};
use tern_host::tls;
use tern_protocol::{ClientId, Digest, Error, Result, Turn};
use tern_server::blobs::{Blobs, Partial};
use tern_server::storage::Bodies;
use tokio::runtime::Handle;

use crate::Database;
use crate::ahead::Ahead;
use crate::members::SMALL;

/// Bytes that are put at once; longer bodies go in parts of as many.
const PART: usize = 8 << 20;

/// A run's bodies. What comes in, and models that clients fetch, lie in a folder of this process
/// meanwhile.
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    spool: Blobs,
    handle: Handle,
    address: String,
    ahead: Mutex<Ahead>,
    /// Held by who fetches a model: a gateway's clients all ask for it at once. The last one that
    /// couldn't be had, when, and why: so it is for those who waited for it meanwhile.
    fetching: Mutex<Option<(Digest, Instant, String)>>,
    /// What has small updates.
    database: Option<Database>,
}

impl Objects {
    /// Opens the store of a fleet; `spool` is a folder of this process alone.
    ///
    /// # Errors
    /// [`Error::Value`] for an address that is none; [`Error::File`] for the folder.
    pub fn open(database: &Database, spool: &std::path::Path) -> Result<Arc<Self>> {
        let options = database.options();
        let address = &options.objects;
        let wrong = |error: object_store::Error| {
            Error::value("fleet.objects", address, format!("an object store: {error}"))
        };
        let store: Arc<dyn ObjectStore> = match address.strip_prefix("s3://") {
            Some(place) => {
                let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
                tls::install_provider();
                let plain = options.endpoint.as_deref().is_some_and(|at| at.starts_with("http://"));
                let retries = RetryConfig {
                    max_retries: 8,
                    retry_timeout: Duration::from_secs(60),
                    ..RetryConfig::default()
                };
                let mut builder = AmazonS3Builder::from_env()
                    .with_bucket_name(bucket)
                    .with_retry(retries)
                    .with_client_options(ClientOptions::new().with_allow_http(plain));
                if let Some(endpoint) = &options.endpoint {
                    builder = builder.with_endpoint(endpoint);
                }
                let store = builder.build().map_err(wrong)?;
                Arc::new(PrefixStore::new(store, prefix))
            }
            None => {
                let folder = address.strip_prefix("file://").unwrap_or(address);
                std::fs::create_dir_all(folder).map_err(|e| Error::file(folder.as_ref(), e))?;
                let local = LocalFileSystem::new_with_prefix(folder).map_err(wrong)?;
                Arc::new(local)
            }
        };
        Self::over(store, address, spool, Some(database.clone()))
    }

    /// Over a store, with the small updates that a database has.
    pub(crate) fn over(
        store: Arc<dyn ObjectStore>,
        address: &str,
        spool: &std::path::Path,
        database: Option<Database>,
    ) -> Result<Arc<Self>> {
        let spool = Blobs::open(spool, Durability::None, u64::MAX, Faults::default())?;
        // Nobody knows whether those of an earlier process are whole.
        spool.sweep_models(&[])?;
        let (handle, address) = (Handle::current(), address.into());
        let (ahead, fetching) = (Mutex::default(), Mutex::default());
        Ok(Arc::new(Objects { store, spool, handle, address, ahead, fetching, database }))
    }

    fn file(&self, path: &Path) -> PathBuf {
        PathBuf::from(format!("{}/{path}", self.address.trim_end_matches('/')))
    }

    fn failed(&self, path: &Path, error: object_store::Error) -> Error {
        Error::file(&self.file(path), error)
    }

    fn put_at(&self, path: &Path, bytes: Bytes) -> Result<()> {
        let put = self.store.put(path, PutPayload::from_bytes(bytes));
        self.handle.block_on(put).map_err(|error| self.failed(path, error))?;
        Ok(())
    }

    /// The object at a place, whole; `None` if there is none.
    fn get_at(&self, path: &Path) -> Result<Option<Bytes>> {
        let get = async { self.store.get(path).await?.bytes().await };
        match self.handle.block_on(get) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(path, error)),
        }
    }

    /// Whether the model lies in this process' folder, fetched if need be.
    fn fetch(&self, digest: &Digest) -> Result<bool> {
        if self.spool.length(digest)?.is_some() {
            return Ok(true);
        }
        let asked = Instant::now();
        let mut failed = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        if self.spool.length(digest)?.is_some() {
            return Ok(true);
        }
        if let Some((of, at, reason)) = &*failed
            && of == digest
            && *at >= asked
        {
            return Err(Error::file(&self.name(digest), reason.clone()));
        }
        let fetched = self.fetch_anew(digest);
        if let Err(error) = &fetched {
            *failed = Some((*digest, Instant::now(), error.to_string()));
        }
        Ok(fetched?.is_some())
    }

    /// The model as the store has it, which lies in this process' folder then.
    fn fetch_anew(&self, digest: &Digest) -> Result<Option<Bytes>> {
        let path = model(digest);
        let Some(bytes) = self.get_at(&path)? else { return Ok(None) };
        match self.spool.put_model(&bytes)? {
            made if made == *digest => Ok(Some(bytes)),
            made => {
                let reason =
                    format!("{} bytes of SHA-256 {made}, expected that of its name", bytes.len());
                Err(Error::file(&self.file(&path), reason))
            }
        }
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to fetch updates of about so many bytes, which will be asked for in this order.
    pub(crate) fn expect(
        &self,
        turn: Turn,
        updates: &[(ClientId, Digest)],
        bytes: u64,
    ) -> Result<()> {
        let small = match &self.database {
            Some(database) if bytes <= SMALL => {
                let clients: Vec<ClientId> = updates.iter().map(|(client, _)| *client).collect();
                self.handle.block_on(database.bodies(turn, &clients))?
            }
            _ => BTreeMap::new(),
        };
        let other = updates.iter().filter(|(client, _)| !small.contains_key(client));
        let paths = other.map(|(_, digest)| update(turn, digest)).collect();
        self.ahead().begin(&self.store, &self.handle, (turn, small), paths, bytes);
        Ok(())
    }

    /// An update that lies with its member.
    fn small(&self, turn: Turn, client: &ClientId) -> Result<Option<Bytes>> {
        let Some(database) = &self.database else { return Ok(None) };
        Ok(self.handle.block_on(database.bodies(turn, &[*client]))?.remove(client))
    }

    /// Writes the sum of a part.
    pub(crate) fn put_sum(&self, name: &str, bytes: Vec<u8>) -> Result<Digest> {
        let digest = Digest::of(&bytes);
        self.put_at(&sum(name), bytes.into())?;
        Ok(digest)
    }

    /// Reads the sum of a part; `None` for one that is gone or damaged.
    pub(crate) fn read_sum(&self, name: &str, digest: &Digest) -> Result<Option<Bytes>> {
        Ok(self.get_at(&sum(name))?.filter(|bytes| Digest::of(bytes) == *digest))
    }

    /// Removes the sum of a part.
    pub(crate) fn remove_sum(&self, name: &str) {
        let path = sum(name);
        if let Err(error) = self.handle.block_on(self.store.delete(&path)) {
            // It is swept later on.
            tracing::debug!(%error, name, "removing a sum");
        }
    }

    /// Objects that are older than `age` and that `keep` doesn't want.
    pub(crate) async fn orphans(
        &self,
        now: u64,
        age: Duration,
        keep: impl Fn(&Orphan<'_>) -> bool,
    ) -> Result<Vec<Path>> {
        let mut orphans = Vec::new();
        for folder in ["models", "updates", "sums"] {
            let prefix = Path::from(folder);
            let mut all = self.store.list(Some(&prefix));
            while let Some(object) = all.try_next().await.map_err(|e| self.failed(&prefix, e))? {
                let written = object.last_modified.timestamp_millis().max(0) as u64;
                let old = now.saturating_sub(written) > age.as_millis() as u64;
                let Some(orphan) = Orphan::of(object.location.as_ref()) else { continue };
                if old && !keep(&orphan) {
                    orphans.push(object.location);
                }
            }
        }
        Ok(orphans)
    }

    /// Removes objects.
    pub(crate) async fn remove(&self, paths: &[Path]) -> Result<()> {
        for path in paths {
            self.store.delete(path).await.map_err(|error| self.failed(path, error))?;
        }
        Ok(())
    }
}

/// The bytes of an upload that is there.
pub(crate) fn whole(partial: &Partial) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(partial.len() as usize);
    let read = partial.open()?.read_to_end(&mut bytes);
    read.map_err(|error| Error::file(partial.path(), error)).map(|_| bytes)
}

/// An object that may be needed no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Orphan<'a> {
    Model(Digest),
    Update(Turn, &'a str),
    Sum(Turn),
}

impl<'a> Orphan<'a> {
    /// What a place is of.
    pub fn of(place: &'a str) -> Option<Self> {
        let mut parts = place.split('/');
        let folder = parts.next()?;
        let second = parts.next()?;
        if folder == "models" {
            return second.parse().ok().map(Orphan::Model);
        }
        let (round, attempt) = second.split_once('-')?;
        let turn = Turn::new(round.parse().ok()?, attempt.parse().ok()?);
        let last = parts.next()?;
        match folder {
            "updates" => Some(Orphan::Update(turn, last)),
            "sums" => Some(Orphan::Sum(turn)),
            _ => None,
        }
    }
}

pub(crate) fn model(digest: &Digest) -> Path {
    Path::from(format!("models/{digest}"))
}

pub(crate) fn update(turn: Turn, digest: &Digest) -> Path {
    Path::from(format!("updates/{}-{}/{digest}", turn.round, turn.attempt))
}

pub(crate) fn sum(name: &str) -> Path {
    Path::from(format!("sums/{name}"))
}

/// A body that comes piece by piece, read by a thread that may wait.
struct Streamed<'a> {
    pieces: BoxStream<'static, object_store::Result<Bytes>>,
    piece: Bytes,
    handle: &'a Handle,
}

impl Read for Streamed<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while self.piece.is_empty() {
            match self.handle.block_on(self.pieces.next()) {
                Some(piece) => self.piece = piece.map_err(std::io::Error::other)?,
                None => return Ok(0),
            }
        }
        let count = into.len().min(self.piece.len());
        into[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

impl Bodies for Objects {
    fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = self.spool.put_model(bytes)?;
        // Also where it is there: what is written again isn't swept as old.
        self.put_at(&model(&digest), Bytes::copy_from_slice(bytes))?;
        Ok(digest)
    }

    fn read(&self, digest: &Digest) -> Result<Vec<u8>> {
        if let Ok(bytes) = self.spool.read_model(digest) {
            return Ok(bytes);
        }
        match self.fetch_anew(digest)? {
            Some(bytes) => Ok(bytes.into()),
            None => Err(Error::file(&self.name(digest), std::io::Error::from(ErrorKind::NotFound))),
        }
    }

    fn length(&self, digest: &Digest) -> Result<Option<u64>> {
        match self.fetch(digest)? {
            true => self.spool.length(digest),
            false => Ok(None),
        }
    }

    fn piece(&self, digest: &Digest, first: u64, length: usize) -> Result<Vec<u8>> {
        self.spool.piece(digest, first, length)
    }

    fn name(&self, digest: &Digest) -> PathBuf {
        self.file(&model(digest))
    }

    fn upload_name(&self, turn: Turn, client: &ClientId) -> PathBuf {
        let (round, attempt) = (turn.round, turn.attempt);
        self.file(&Path::from(format!("updates/{round}-{attempt}, of {client}")))
    }

    fn upload(
        &self,
        turn: Turn,
        client: &ClientId,
        digest: &Digest,
    ) -> Result<Option<Box<dyn Read + '_>>> {
        if let Some(bytes) = self.ahead().small(turn, client) {
            return Ok(Some(Box::new(bytes.reader())));
        }
        let path = update(turn, digest);
        let fetched = self.ahead().take(&self.store, &self.handle, &path);
        let body = match fetched {
            Some(fetched) => fetched.map(|bytes| Box::new(bytes.reader()) as Box<dyn Read>),
            None => self.handle.block_on(self.store.get(&path)).map(|found| {
                let (pieces, piece) = (found.into_stream(), Bytes::new());
                Box::new(Streamed { pieces, piece, handle: &self.handle }) as Box<dyn Read>
            }),
        };
        match body {
            Ok(body) => Ok(Some(body)),
            Err(object_store::Error::NotFound { .. }) => {
                let small = self.small(turn, client)?;
                Ok(small.map(|bytes| Box::new(bytes.reader()) as Box<dyn Read>))
            }
            Err(error) => Err(self.failed(&path, error)),
        }
    }

    fn partial(&self, turn: Turn, client: &ClientId) -> Result<Partial> {
        self.spool.partial(turn, client)
    }

    fn accept(&self, partial: &Partial, turn: Turn, _: &ClientId, digest: &Digest) -> Result<()> {
        let path = update(turn, digest);
        if partial.len() <= PART as u64 {
            return self.put_at(&path, whole(partial)?.into());
        }
        let mut file = partial.open()?;
        let unread = |error| Error::file(partial.path(), error);
        let failed = |error| self.failed(&path, error);
        let begun = self.handle.block_on(self.store.put_multipart(&path)).map_err(failed)?;
        let mut upload = WriteMultipart::new_with_chunk_size(begun, PART);
        let mut chunk = vec![0; 1 << 20];
        loop {
            match file.read(&mut chunk).map_err(unread)? {
                0 => break,
                count => {
                    self.handle.block_on(upload.wait_for_capacity(2)).map_err(failed)?;
                    // It begins tasks of its own.
                    let _here = self.handle.enter();
                    upload.write(&chunk[..count]);
                }
            }
        }
        self.handle.block_on(upload.finish()).map_err(failed)?;
        Ok(())
    }

    /// Of this process' folder alone; objects are swept by the leader, once they are old.
    fn sweep(&self, kept: &[Digest], open: Turn, _: &dyn Fn(Turn) -> bool) -> Result<()> {
        self.spool.sweep(kept, open, &|_| false)
    }

    fn used(&self) -> u64 {
        self.spool.used()
    }
}
