//! Requests that are signed, and what a server takes of them.

use std::collections::BTreeSet;

use ed25519_dalek::SigningKey;
use tern_fl::auth::{Audience, AuthError, Credentials, NONCE_BYTES, Window};
use tern_fl::server::federation::Clock;
use tern_fl::{ClientId, Millis, RunId, StartId};

use crate::network::Request;

/// How the server is called.
const HOST: &str = "server.example";
/// Milliseconds that a request's time may be off.
const WIDTH: u64 = 10_000;

/// How a client signs, as [`tern_fl::client::Http`] does.
pub struct Signer {
    key: SigningKey,
    run: RunId,
    /// Milliseconds that its clock is ahead of the time, and the server's, as it takes it, of its
    /// clock.
    off: i64,
    ahead: i64,
    start: Option<StartId>,
    /// Whether it was told time and start since it asked for something new.
    told: bool,
}

/// What is signed beside a request's credentials.
fn parts(request: &Request) -> (&'static str, &'static str, Vec<u8>) {
    let path = match request {
        Request::Enroll { .. } => "/v1/enroll",
        Request::Poll { .. } => "/v1/poll",
        Request::Message(_) => "/v1/message",
        Request::Offset(_) => "/v1/offset",
        Request::Append { .. } => "/v1/upload",
        Request::Finish(_) => "/v1/finish",
        Request::Fetch(_) => "/v1/blob",
    };
    ("POST", path, format!("{request:?}").into_bytes())
}

impl Signer {
    pub fn new(key: SigningKey, run: RunId) -> Self {
        // Up to an hour either way.
        let drawn = key.to_bytes().map(i64::from);
        let off = (drawn[0] * 256 + drawn[1]) * 110 - 3_600_000;
        Signer { key, run, off, ahead: 0, start: None, told: false }
    }

    /// Its process ended.
    pub fn forget(&mut self) {
        (self.ahead, self.start, self.told) = (0, None, false);
    }

    pub fn sign(&self, now: u64, number: u64, request: &Request) -> Box<Credentials> {
        let run = (!matches!(request, Request::Enroll { .. })).then_some(self.run);
        let audience = Audience { host: HOST.into(), run, start: self.start };
        let time = self.clock(now).saturating_add_signed(self.ahead);
        let mut nonce = [0; NONCE_BYTES];
        nonce[..8].copy_from_slice(&number.to_le_bytes());
        let (method, path, body) = parts(request);
        let request = (method, path, body.as_slice());
        Box::new(Credentials::sign(&self.key, audience, request, Millis(time), nonce))
    }

    fn clock(&self, now: u64) -> u64 {
        (1_700_000_000_000 + now).saturating_add_signed(self.off)
    }

    /// Takes the server's time and start; whether to sign again at once.
    pub fn learn(&mut self, now: u64, time: u64, start: StartId) -> bool {
        self.ahead = time as i64 - self.clock(now) as i64;
        self.start = Some(start);
        !std::mem::replace(&mut self.told, true)
    }

    /// A request was taken.
    pub fn taken(&mut self) {
        self.told = false;
    }
}

/// What a server lets pass, for as long as its process lives.
pub struct Door {
    run: RunId,
    window: Window,
    clock: Clock,
}

impl Door {
    /// Of a server that starts when the system's clock says `system`, and whose last event was
    /// `last`.
    pub fn new(run: RunId, last: Millis, system: Millis) -> Self {
        let mut clock = Clock::new(last);
        let window = Window::new(WIDTH, clock.read(system));
        Door { run, window, clock }
    }

    /// Judges a request as the server over HTTP does, in its order.
    pub fn judge(
        &mut self,
        credentials: &Credentials,
        request: &Request,
        system: Millis,
    ) -> Result<(), AuthError> {
        let now = self.clock.read(system);
        self.window.check(credentials, now)?;
        let run = (!matches!(request, Request::Enroll { .. })).then_some(self.run);
        let Audience { host, run: of, .. } = &credentials.audience;
        assert_eq!((host.as_str(), *of), (HOST, run), "no client signs for another run");
        self.window.check_start(credentials, now)?;
        let (method, path, body) = parts(request);
        credentials.verify(method, path, &body)?;
        self.window.admit(credentials, now)
    }

    pub fn start(&self) -> StartId {
        self.window.start()
    }

    pub fn time(&mut self, system: Millis) -> Millis {
        self.clock.read(system)
    }
}

/// What others have heard of requests, and what servers took of them.
#[derive(Default)]
pub struct Overheard {
    pub requests: Vec<(usize, u64, Request, Credentials)>,
    taken: BTreeSet<(ClientId, [u8; NONCE_BYTES])>,
}

impl Overheard {
    /// A server took a request, which none did before.
    pub fn taken(&mut self, credentials: &Credentials) {
        let is_new = self.taken.insert((credentials.key, credentials.nonce));
        assert!(is_new, "a request is taken twice: {credentials:?}");
    }
}
