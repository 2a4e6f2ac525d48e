//! How a client takes part, and what it tells of that.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tern_protocol::participant::RequiredSecurity;
use tern_protocol::trainer::Trained;
use tern_protocol::{TaskSpec, Turn};

use crate::{Backoff, CallError, Conditions};

/// Something that a client does, for people who watch it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// It takes part in this.
    Enrolled(&'a TaskSpec),
    /// It begins to train.
    Training(Turn),
    /// It has trained.
    Trained(Turn, &'a Trained),
    /// An update is at the server, of so many bytes.
    Uploaded(Turn, usize),
    /// A call failed; it tries again after so long.
    Waiting(&'a CallError, Duration),
}

/// Who is told.
type Watch = Box<dyn Fn(&Event<'_>) + Send + Sync>;

/// How a client takes part.
#[non_exhaustive]
pub struct Options {
    /// The server's address: `https://host:port`.
    pub server: String,
    /// Authorities to trust (PEM) instead of the system's.
    pub authority: Option<PathBuf>,
    /// Folder of the client's key and state.
    pub folder: PathBuf,
    /// Token to enroll with.
    pub token: Option<String>,
    /// The least secure aggregation that it takes part with. If not given, any run without it, and
    /// [`RequiredSecurity::default`] of those with it.
    pub required_security: Option<RequiredSecurity>,
    /// When the device takes part.
    pub conditions: Conditions,
    /// How long to wait after failures.
    pub backoff: Backoff,
    /// Who is told what the client does.
    pub watch: Option<Watch>,
}

impl Options {
    /// For a server, with a folder of the client's own; no token, any run, at any time.
    pub fn new(server: &str, folder: impl Into<PathBuf>) -> Self {
        Options {
            server: server.into(),
            authority: None,
            folder: folder.into(),
            token: None,
            required_security: None,
            conditions: Conditions::default(),
            backoff: Backoff::default(),
            watch: None,
        }
    }

    /// With authorities to trust (PEM), or the system's.
    pub fn authority(mut self, authority: impl Into<Option<PathBuf>>) -> Self {
        self.authority = authority.into();
        self
    }

    /// With a token to enroll with, or without.
    pub fn token(mut self, token: impl Into<Option<String>>) -> Self {
        self.token = token.into();
        self
    }

    /// With the least secure aggregation that it takes part with.
    pub fn required_security(
        mut self,
        required_security: impl Into<Option<RequiredSecurity>>,
    ) -> Self {
        self.required_security = required_security.into();
        self
    }

    /// With conditions of the device.
    pub fn conditions(mut self, conditions: Conditions) -> Self {
        self.conditions = conditions;
        self
    }

    /// With waits after failures.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// With somebody who is told what the client does, on the way.
    pub fn watch(mut self, watch: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.watch = Some(Box::new(watch));
        self
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither its token nor who watches.
        let Options { server, folder, required_security, conditions, .. } = self;
        f.debug_struct("Options")
            .field("server", server)
            .field("folder", folder)
            .field("required_security", required_security)
            .field("conditions", conditions)
            .finish_non_exhaustive()
    }
}
