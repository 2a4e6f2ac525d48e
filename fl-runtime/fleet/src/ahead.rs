//! Bodies that are fetched before they are asked for: a store's answer takes as long as it takes to
//! add a small body up, and so does the way there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use tern_protocol::{ClientId, Turn};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

type Fetched = object_store::Result<Bytes>;

/// Bytes of bodies that lie in memory at a time, about.
const HELD: u64 = 16 << 20;
/// Bodies that are fetched at a time, at most.
const MOST: u64 = 16;

/// Bodies in the order in which they will be asked for.
#[derive(Default)]
pub(crate) struct Ahead {
    coming: VecDeque<(Path, JoinHandle<Fetched>)>,
    later: VecDeque<Path>,
    /// The one that was asked for last: some are read twice.
    last: Option<(Path, Bytes)>,
    /// Those of an attempt that lie with their members, all at once.
    small: Option<(Turn, BTreeMap<ClientId, Bytes>)>,
}

impl Ahead {
    /// Begins to fetch these bodies of about so many bytes each, beside the small ones of an attempt
    /// that are there. Large ones are not: whoever asks for one reads it as it comes.
    pub fn begin(
        &mut self,
        store: &Arc<dyn ObjectStore>,
        handle: &Handle,
        small: (Turn, BTreeMap<ClientId, Bytes>),
        bodies: Vec<Path>,
        bytes: u64,
    ) {
        let (coming, later, small) = (VecDeque::new(), bodies.into(), Some(small));
        *self = Ahead { coming, later, last: None, small };
        for _ in 0..(HELD / bytes.max(1)).min(MOST) {
            self.fetch(store, handle);
        }
    }

    /// A small body, if it is there.
    pub fn small(&self, turn: Turn, client: &ClientId) -> Option<Bytes> {
        let (_, bodies) = self.small.as_ref().filter(|(of, _)| *of == turn)?;
        bodies.get(client).cloned()
    }

    fn fetch(&mut self, store: &Arc<dyn ObjectStore>, handle: &Handle) {
        if let Some(path) = self.later.pop_front() {
            let (store, of) = (store.clone(), path.clone());
            let fetching = handle.spawn(async move { store.get(&of).await?.bytes().await });
            self.coming.push_back((path, fetching));
        }
    }

    /// A body, if it was begun to be fetched, by a thread that may wait.
    pub fn take(
        &mut self,
        store: &Arc<dyn ObjectStore>,
        handle: &Handle,
        path: &Path,
    ) -> Option<Fetched> {
        if let Some((last, bytes)) = &self.last
            && last == path
        {
            return Some(Ok(bytes.clone()));
        }
        if self.coming.front().is_none_or(|(next, _)| next != path) {
            return None;
        }
        let (path, fetching) = self.coming.pop_front()?;
        self.fetch(store, handle);
        // What didn't end is asked for anew.
        let fetched = handle.block_on(fetching).ok()?;
        if let Ok(bytes) = &fetched {
            self.last = Some((path, bytes.clone()));
        }
        Some(fetched)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.coming.iter().for_each(|(_, fetching)| fetching.abort());
    }
}
