//! The system's clock.
//!
//! ```
//! use tern_host::clock::now;
//!
//! let began = now();
//! // 2020 began so many milliseconds after 1970.
//! assert!(began.0 > 1_577_836_800_000);
//! // Moments are compared without underflow.
//! assert_eq!(began.since(began.after(500)), 0);
//! ```

use tern_protocol::Millis;
use web_time::{SystemTime, UNIX_EPOCH};

/// The time.
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Millis(since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}
