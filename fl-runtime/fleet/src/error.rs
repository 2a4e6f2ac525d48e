//! Errors of the database and the store, as the runtime's.

use std::path::Path;

use tern_protocol::{Error, Refusal, Result};

/// Of the database.
pub(crate) fn database(error: sqlx_core::Error) -> Error {
    Error::journal(Path::new("postgres"), error)
}

/// What the database has that a fleet of this version doesn't write.
pub(crate) fn unreadable(what: &str) -> Error {
    Error::journal(Path::new("postgres"), format!("{what} can't be read"))
}

/// Of a client's request, which may be sent again.
pub(crate) fn stored(error: Error) -> Refusal {
    Refusal::Storage(error.to_string())
}

/// A digest or key of a row.
pub(crate) fn bytes<const N: usize>(bytes: &[u8], what: &str) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| unreadable(what))
}
