//! Taking a request in: its address, its size, its body, its signature, in the order of cost.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{ConnectInfo, FromRequest, Request};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use tern_host::clock;
use tern_protocol::auth::{self, AuthError, Credentials};
use tern_protocol::pace::Pace;
use tern_protocol::{ClientId, Refusal, RunId};
use tokio::time::timeout;

use super::limits::{Limits, network};
use super::memory::{Held, WAIT};
use super::places::Visit;
use super::reply::Denied;
use super::{App, ENROLL, UPLOAD};

/// Most bytes of a request of somebody unknown: room for a token.
const MAX_UNKNOWN: usize = 4096;

/// A request that a client signed, whole.
pub(super) struct Signed {
    pub client: ClientId,
    pub body: Bytes,
    /// The query, as it was sent.
    pub query: String,
    pub headers: HeaderMap,
    /// Where it came from, as far as limits go.
    pub address: IpAddr,
    /// The memory its body holds.
    pub held: Held,
}

impl FromRequest<Arc<App>> for Signed {
    type Rejection = Response;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Self::Rejection> {
        let headers = request.headers().clone();
        take(request, app).await.map_err(|denied| app.deny(denied, &headers))
    }
}

async fn take(request: Request, app: &Arc<App>) -> Result<Signed, Denied> {
    let (parts, body) = request.into_parts();
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let credentials = Credentials::parse(header)?;
    let now = app.now();
    app.window.check(&credentials, now)?;
    app.check_host(&credentials.audience.host)?;
    let Limits { piece_bytes, message_bytes, .. } = app.limits;
    let most = match parts.uri.path() {
        ENROLL => message_bytes.min(MAX_UNKNOWN),
        // Who is not enrolled gets no memory. The key may still be somebody else's.
        _ if !app.knows(&credentials.key).await? => {
            return Err(Refusal::Unknown(credentials.key).into());
        }
        UPLOAD => piece_bytes,
        _ => message_bytes,
    };
    if parts.uri.path() != ENROLL {
        app.check_run(credentials.audience.run)?;
    }
    app.window.check_start(&credentials, now)?;
    // Who has used up a client's share has its key; what follows costs more than this look.
    let wait = app.requests.wait(&credentials.key, 1, now);
    if !wait.is_zero() {
        return Err(Denied::busy("rate", wait));
    }
    let address = peer(&parts.extensions).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let (body, held) = read(app, body, &parts.headers, address, most).await?;
    let target = parts.uri.path_and_query().map_or("/", |t| t.as_str()).to_owned();
    let (method, query) = (parts.method.clone(), parts.uri.query().unwrap_or("").to_owned());
    let checked = tokio::task::spawn_blocking(move || {
        let verified = credentials.verify(method.as_str(), &target, &body);
        verified.map(|()| (credentials, body))
    });
    let (credentials, body) = checked.await.map_err(|_| Denied::from(AuthError::Signature))??;
    let now = app.now();
    // Counted only now: nobody else can use up a client's share.
    app.requests.take(credentials.key, 1, now).map_err(|wait| Denied::busy("rate", wait))?;
    app.admit_bytes(credentials.key, body.len())?;
    app.window.admit(&credentials, now)?;
    let client = credentials.key;
    if app.backend.start().is_some() {
        app.with(move |backend| backend.admit(&credentials)).await??;
    }
    if let Some(visit) = parts.extensions.get::<Visit>()
        && app.backend.is_enrolled(&client)
    {
        visit.is_of_enrolled();
    }
    Ok(Signed { client, body, query, headers: parts.headers, address, held })
}

/// Reads a body within its size and its time.
async fn read(
    app: &Arc<App>,
    body: Body,
    headers: &HeaderMap,
    address: IpAddr,
    most: usize,
) -> Result<(Bytes, Held), Denied> {
    let length = headers.get(CONTENT_LENGTH).and_then(|l| l.to_str().ok()?.parse::<usize>().ok());
    if let Some(length) = length.filter(|length| *length > most) {
        return Err(Denied::too_large(length, most));
    }
    // A request without a body needs none; one of unknown length may come to the most.
    let exact = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    let expected = length.or(exact).unwrap_or(most);
    let held = app.memory.hold(address, expected, WAIT).await?;
    let slow = |_| Denied::new(StatusCode::REQUEST_TIMEOUT, "slow", "the body comes too slowly");
    match timeout(app.limits.body_time(expected), to_bytes(body, most)).await.map_err(slow)? {
        Ok(bytes) => Ok((bytes, held)),
        Err(_) if length.is_none() => Err(Denied::too_large("too many", most)),
        Err(error) => {
            let reason = format!("the body ends early: {error}");
            Err(Denied::new(StatusCode::BAD_REQUEST, "cut", reason))
        }
    }
}

impl App {
    /// Whether a client is registered, here or by another process.
    pub async fn knows(self: &Arc<Self>, client: &ClientId) -> Result<bool, Denied> {
        if self.backend.is_enrolled(client) {
            return Ok(true);
        }
        let client = *client;
        Ok(self.with(move |backend| backend.looks_up(&client)).await??)
    }

    fn check_host(&self, host: &str) -> Result<(), Denied> {
        if self.hosts.is_own(host) {
            return Ok(());
        }
        let reason = format!("signed for {host}, expected a name of this server");
        Err(Denied::new(StatusCode::MISDIRECTED_REQUEST, "host", reason))
    }

    fn check_run(&self, run: Option<RunId>) -> Result<(), Denied> {
        if run == Some(self.run) {
            return Ok(());
        }
        let signed = run.map_or("no run".into(), |run| format!("run {run}"));
        let reason = format!("signed for {signed}, expected run {}", self.run);
        Err(Denied::new(StatusCode::CONFLICT, "run", reason))
    }

    /// Counts bytes that a client sends or fetches.
    pub fn admit_bytes(&self, client: ClientId, bytes: usize) -> Result<(), Denied> {
        let taken = self.bytes.take(client, bytes, self.now());
        taken.map_err(|wait| Denied::busy("byte_rate", wait))
    }

    /// Bytes that a piece from or to an address may have now: what memory allows, and no more
    /// than a client may send in a second.
    pub fn piece(&self, address: IpAddr) -> usize {
        self.memory.piece(address).min(self.limits.bytes_per_client as usize)
    }

    /// Counts a request of an address.
    pub fn admit_address(&self, request: &Request) -> Result<(), Denied> {
        let Some(address) = peer(request.extensions()) else { return Ok(()) };
        self.addresses
            .take(address, 1, clock::now())
            .map_err(|wait| Denied::busy("address_rate", wait))
    }
}

/// What a request's sender is told of its pace, should it be answered.
pub(super) struct Pacing {
    client: ClientId,
    address: IpAddr,
}

impl Pacing {
    /// Of a request that names a client; `None` for those of people.
    pub fn of(request: &Request) -> Option<Self> {
        let client = request.headers().get(auth::KEY)?.to_str().ok()?.parse().ok()?;
        Some(Pacing { client, address: peer(request.extensions())? })
    }

    /// Adds it to the answer. A refusal is sent before the signature is checked, and says nothing
    /// of a client.
    pub fn tell(self, app: &App, answer: &mut Response) {
        if !answer.status().is_success() {
            return;
        }
        let now = app.now();
        let piece = app.piece(self.address);
        let wait = app.requests.wait(&self.client, 1, now);
        let wait = wait.max(app.bytes.wait(&self.client, piece, now));
        for (name, value) in (Pace { wait, piece }).headers() {
            answer.headers_mut().insert(name, HeaderValue::from(value));
        }
    }
}

/// Where a request came from.
fn peer(extensions: &Extensions) -> Option<IpAddr> {
    let ConnectInfo(peer) = extensions.get::<ConnectInfo<SocketAddr>>()?;
    Some(network(peer.ip()))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use tern_protocol::Millis;
    use tern_protocol::auth::{Audience, Window};

    use super::*;
    use crate::federation::Clock;

    #[test]
    fn a_clock_set_back_refuses_nobody_and_takes_nothing_twice() {
        let mut clock = Clock::new(Millis(0));
        let window = Window::new(100, clock.read(Millis(50_000)));
        let key = SigningKey::from_bytes(&[7; 32]);
        let (host, start) = ("a.example".into(), Some(window.start()));
        let audience = Audience { host, run: None, start };
        let signed = |time, nonce| {
            let (audience, request) = (audience.clone(), ("POST", "/", b"".as_slice()));
            Credentials::sign(&key, audience, request, Millis(time), [nonce; 16])
        };
        let first = signed(50_010, 1);
        window.admit(&first, clock.read(Millis(50_010))).unwrap();
        // By more than all that has passed since the start.
        let now = clock.read(Millis(20_000));
        assert_eq!(window.admit(&first, now), Err(AuthError::Replayed));
        // Who has the right time is told the server's, and then taken.
        let stale = window.admit(&signed(20_000, 2), now);
        let Err(AuthError::Stale { now: told, .. }) = stale else { panic!("{stale:?}") };
        let now = clock.read(Millis(20_030));
        window.admit(&signed(told, 3), now).unwrap();
        // Forward again: what was signed before is too old.
        let now = clock.read(Millis(50_020));
        let stale = window.admit(&first, now);
        let start = window.start();
        assert_eq!(stale, Err(AuthError::Stale { time: 50_010, now: now.0, start }));
    }
}
