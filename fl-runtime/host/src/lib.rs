//! What the federated runtime takes from the machine that it runs on: files that are whole or not
//! there, folders that one process owns, tables, the files of keys and certificates, the time.

pub mod clock;
pub mod csv;
pub mod files;
pub mod folder;
pub mod key_file;
#[cfg(feature = "tls")]
pub mod tls;
