//! The system's clock.

use std::time::{SystemTime, UNIX_EPOCH};

use tern_protocol::Millis;

/// The time.
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Millis(since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}
