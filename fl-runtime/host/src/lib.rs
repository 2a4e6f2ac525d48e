//! What the federated runtime takes from the machine that it runs on: files that are whole or not
//! there, folders that one process owns, texts and tables, what clients keep, the files of keys and
//! certificates, the time, how many files may be open.
//!
//! ```
//! use tern_host::{clock, folder::FolderLock, key_file};
//! use tern_protocol::auth::Audience;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! // Nobody else's while this process runs.
//! let _lock = FolderLock::take(folder.path())?;
//! let device = key_file::load_or_create(&folder.path().join("device.key"))?;
//! let server = Audience { host: "federation.example".into(), ..Default::default() };
//! let signed = device.sign_request(server, ("POST", "/v1/poll", b""), clock::now())?;
//! assert!(signed.verify("POST", "/v1/poll", b"").is_ok());
//! # Ok(())
//! # }
//! ```

pub mod clock;
pub mod csv;
pub mod descriptors;
pub mod display;
pub mod files;
pub mod folder;
pub mod key_file;
pub mod store;
pub mod table;
pub mod text;
#[cfg(feature = "tls")]
pub mod tls;
