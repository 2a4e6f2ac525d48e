//! Memory for bodies under way: so much in all, and so much of it for an address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::limits::Limits;
use super::reply::Denied;

/// Time that a body waits for its memory.
pub(super) const WAIT: Duration = Duration::from_secs(5);

/// Part of the free memory that one piece may take, so that others find some, too.
const SHARE: usize = 4;
/// Bytes that a piece may have even where memory is short: smaller ones cost more requests than
/// they save memory.
const SMALL: usize = 512 << 10;

pub(super) struct Memory {
    piece_bytes: usize,
    all: Arc<Semaphore>,
    per_address: usize,
    /// Of the addresses that hold or wait for some.
    addresses: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
}

/// A body's memory, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    _of_address: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Memory {
    pub fn new(limits: &Limits) -> Self {
        Memory {
            piece_bytes: limits.piece_bytes,
            all: Arc::new(Semaphore::new(limits.held_bytes)),
            per_address: limits.held_bytes_per_address,
            addresses: Mutex::default(),
        }
    }

    /// Reserves memory for a body, waiting a moment where all is taken.
    pub async fn hold(
        &self,
        address: IpAddr,
        bytes: usize,
        wait: Duration,
    ) -> Result<Held, Denied> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let own = self.of(address);
        // The address's first: who has used up his share keeps nothing from others.
        let held = async {
            let of_address = own.acquire_many_owned(permits).await?;
            let of_all = self.all.clone().acquire_many_owned(permits).await?;
            Ok::<_, AcquireError>(Held { _of_address: of_address, _of_all: of_all })
        };
        match timeout(wait, held).await {
            Ok(Ok(held)) => Ok(held),
            _ => Err(Denied::busy("busy", wait)),
        }
    }

    /// Bytes that a piece from or to an address may have now.
    pub fn piece(&self, address: IpAddr) -> usize {
        let free = self.all.available_permits().min(self.of(address).available_permits());
        (free / SHARE).max(SMALL).min(self.piece_bytes)
    }

    /// What an address may hold.
    fn of(&self, address: IpAddr) -> Arc<Semaphore> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = addresses.get(&address).and_then(Weak::upgrade) {
            return own;
        }
        addresses.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(self.per_address));
        addresses.insert(address, Arc::downgrade(&own));
        own
    }
}

/// Bytes that hold their memory until the last of them is written.
pub(super) fn holding(bytes: Vec<u8>, held: Held) -> Bytes {
    struct Holding {
        bytes: Vec<u8>,
        _held: Held,
    }
    impl AsRef<[u8]> for Holding {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    Bytes::from_owner(Holding { bytes, _held: held })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;

    const SHORT: Duration = Duration::from_millis(20);

    fn memory() -> Memory {
        let limits = Limits { held_bytes: 100, held_bytes_per_address: 40, ..Limits::default() };
        Memory::new(&limits)
    }

    fn address(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    #[tokio::test]
    async fn an_address_has_its_share_and_all_have_theirs() {
        let memory = memory();
        let hold = |number, bytes| memory.hold(address(number), bytes, SHORT);
        let first = hold(1, 30).await.unwrap();
        let refused = hold(1, 20).await.unwrap_err();
        assert_eq!((refused.name, refused.wait), ("busy", Some(SHORT)));
        let _second = hold(2, 40).await.unwrap();
        // 30 of all are left, also to an address that has nothing yet.
        assert!(hold(3, 40).await.is_err());
        drop(first);
        let _third = hold(3, 40).await.unwrap();
        // What was refused on the way is given back.
        assert!(hold(1, 40).await.is_err());
        let _fourth = hold(1, 20).await.unwrap();
        assert_eq!(memory.addresses.lock().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn pieces_are_large_where_memory_is_free() {
        let limits = Limits { held_bytes: 64 << 20, piece_bytes: 4 << 20, ..Limits::default() };
        let memory = Memory::new(&limits);
        assert_eq!((limits.held_bytes_per_address, memory.piece(address(1))), (8 << 20, 2 << 20));
        let _held = memory.hold(address(1), 4 << 20, SHORT).await.unwrap();
        assert_eq!(memory.piece(address(1)), 1 << 20);
        let _rest = memory.hold(address(1), 4 << 20, SHORT).await.unwrap();
        assert_eq!([1, 2].map(|n| memory.piece(address(n))), [SMALL, 2 << 20]);
        let small = Memory::new(&Limits { piece_bytes: 4096, ..limits });
        assert_eq!(small.piece(address(1)), 4096);
    }

    #[tokio::test]
    async fn addresses_that_hold_nothing_are_forgotten() {
        let memory = memory();
        for number in 0..50 {
            memory.hold(address(number), 40, SHORT).await.unwrap();
        }
        assert_eq!(memory.addresses.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_download_holds_its_memory_until_it_is_written() {
        let memory = memory();
        let held = memory.hold(address(1), 40, SHORT).await.unwrap();
        let bytes = holding(vec![7; 40], held);
        // What a connection has not written of the answer yet.
        let rest = bytes.slice(39..);
        drop(bytes.into_response());
        assert_eq!((memory.all.available_permits(), &rest[..]), (60, &[7][..]));
        assert!(memory.hold(address(1), 1, SHORT).await.is_err());
        drop(rest);
        assert_eq!(memory.all.available_permits(), 100);
    }
}
