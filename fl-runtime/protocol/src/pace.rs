//! How fast a client goes on: what a server says with each answer, so that a client that keeps to
//! it is never refused for coming too often.
//!
//! ```
//! use std::time::Duration;
//! use tern_protocol::pace::{PIECE, Pace, WAIT};
//!
//! let pace = Pace { wait: Duration::from_millis(50), piece: 1 << 20 };
//! let headers = pace.headers();
//! assert_eq!(headers, [(WAIT, 50), (PIECE, 1 << 20)]);
//!
//! let read = Pace::parse(|name| headers.iter().find(|h| h.0 == name).map(|h| h.1.to_string()));
//! assert_eq!(read, Some(pace));
//! ```

use std::time::Duration;

/// Header with the milliseconds until the next request is due, decimal.
pub const WAIT: &str = "tern-wait";
/// Header with the most bytes that the next piece of an upload should have, decimal.
pub const PIECE: &str = "tern-piece";

/// What a server says of the next request of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Time to let pass before it.
    pub wait: Duration,
    /// Bytes of a piece of an upload.
    pub piece: usize,
}

impl Pace {
    /// The headers of an answer. Waits are rounded up, so that nobody comes too early.
    pub fn headers(&self) -> [(&'static str, u64); 2] {
        let millis = (self.wait.as_secs_f64() * 1e3).ceil() as u64;
        [(WAIT, millis), (PIECE, self.piece as u64)]
    }

    /// What an answer's headers say, by a function that finds one; `None` where one is missing or
    /// is no number.
    pub fn parse(get: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let wait = Duration::from_millis(get(WAIT)?.parse().ok()?);
        Some(Pace { wait, piece: get(PIECE)?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_never_told_too_short() {
        let of = |micros| Pace { wait: Duration::from_micros(micros), piece: 1 }.headers()[0].1;
        assert_eq!([0, 1, 1_000, 1_001].map(of), [0, 1, 1, 2]);
        let pace = Pace { wait: Duration::from_millis(30), piece: 1 << 20 };
        let said = pace.headers();
        let find = |name: &str| said.iter().find(|h| h.0 == name).map(|h| h.1.to_string());
        assert_eq!(Pace::parse(find), Some(pace));
        assert_eq!(Pace::parse(|_| Some("x".into())), None);
        assert_eq!(Pace::parse(|name| (name == WAIT).then(|| "5".into())), None);
    }
}
