//! Signed calls to a server.

use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message;
use reqwest::header::{ACCEPT, CONTENT_RANGE, HeaderMap, RANGE, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use thiserror::Error;

use tern_host::clock;
#[cfg(not(target_family = "wasm"))]
use tern_host::tls::TlsError;
use tern_protocol::auth::{self, Audience};
use tern_protocol::identity::Identity;
use tern_protocol::pace::Pace;
use tern_protocol::{Digest, Millis, RunId, StartId, wire};

use crate::platform::{self, Instant, sleep};

/// Why a call failed.
#[derive(Debug, Error)]
pub enum CallError {
    /// The server wasn't reached, or its answer didn't arrive: try again later.
    #[error("{target}: {reason}")]
    Network {
        /// What was called.
        target: String,
        /// Why.
        reason: String,
    },
    /// The server is busy or restarting: try again later.
    #[error("{target}: {status}, {reason}")]
    Busy {
        /// What was called.
        target: String,
        /// Status of the answer.
        status: u16,
        /// What the server says.
        reason: String,
        /// How long it asks to wait.
        wait: Option<Duration>,
    },
    /// What answers is no server for this client, and won't be.
    #[error("{server}: {reason}, expected {expected}")]
    Stranger {
        /// The server's address.
        server: String,
        /// What is wrong with it.
        reason: String,
        /// What was expected.
        expected: &'static str,
    },
    /// The server refused, and would again.
    #[error("{target}: refused, {name}: {reason}")]
    Refused {
        /// What was called.
        target: String,
        /// Stable name of the reason.
        name: String,
        /// The reason in words.
        reason: String,
    },
    /// The answer is none.
    #[error("{target}: the answer is not {expected}")]
    Answer {
        /// What was called.
        target: String,
        /// What was expected.
        expected: &'static str,
    },
    /// The certificate authorities can't be used.
    #[cfg(not(target_family = "wasm"))]
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A request can't be signed.
    #[error("no random numbers from the system: {0}")]
    Random(#[from] getrandom::Error),
}

impl CallError {
    /// How long the server asks to wait at least; `None` if trying again is no use.
    pub fn retry(&self) -> Option<Duration> {
        match self {
            // What is no answer of Tern's comes from something in between, which may go away.
            CallError::Network { .. } | CallError::Answer { .. } => Some(Duration::ZERO),
            CallError::Busy { wait, .. } => Some(wait.unwrap_or_default()),
            _ => None,
        }
    }

    /// A blob that isn't what was expected.
    pub(crate) fn blob(digest: Digest, expected: &'static str) -> Self {
        CallError::Answer { target: format!("/v1/blob/{digest}"), expected }
    }

    /// What was refused for what the server has now: later it may be taken. 409 stands for any
    /// such status.
    pub(crate) fn for_now(self) -> Self {
        match self {
            CallError::Refused { target, name, reason } => CallError::Busy {
                target,
                status: 409,
                reason: format!("{name}, {reason}"),
                wait: None,
            },
            other => other,
        }
    }

    /// Name of the server's reason, if it refused.
    pub fn name(&self) -> Option<&str> {
        match self {
            CallError::Refused { name, .. } => Some(name),
            _ => None,
        }
    }
}

/// Where clients register.
const ENROLL: &str = "/v1/enroll";
/// Time for a call beyond what the server may wait on purpose.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most bytes of an answer, and of a piece.
const MAX_ANSWER: usize = 4 << 20;
/// Bytes of a piece of an upload to a server that has not said how much it takes.
const PIECE: usize = 256 << 10;

/// A server as a client sees it.
#[derive(Debug)]
pub struct Http {
    client: reqwest::Client,
    base: String,
    /// What the server is called in `base`, and the run that it said to have.
    host: String,
    run: Mutex<Option<RunId>>,
    /// Its start, once it said so.
    start: Mutex<Option<StartId>>,
    identity: Identity,
    /// Milliseconds that the server's clock is ahead of this one.
    ahead: AtomicI64,
    /// What the server said of its pace: when the next request is due, and a piece's bytes.
    due: Mutex<Instant>,
    piece: AtomicUsize,
}

/// A part of a blob.
#[derive(Debug)]
pub struct Part {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Bytes of the whole.
    pub total: u64,
}

impl Http {
    /// For a server at `https://host:port`, trusting the authorities in a PEM file or, without
    /// one, those of the system.
    ///
    /// # Errors
    /// [`CallError::Tls`]; [`CallError::Network`] if there can be no client;
    /// [`CallError::Stranger`] for what is no address.
    pub fn new(
        server: &str,
        authority: Option<&Path>,
        identity: Identity,
    ) -> Result<Self, CallError> {
        let client = platform::http(server, authority)?;
        let base = server.trim_end_matches('/').to_owned();
        let Some(host) = host(&base) else {
            let (reason, expected) = ("which is no address".into(), "https://host:port");
            return Err(CallError::Stranger { server: base, reason, expected });
        };
        Ok(Http {
            client,
            base,
            host,
            run: Mutex::default(),
            start: Mutex::default(),
            identity,
            ahead: AtomicI64::new(0),
            due: Mutex::new(Instant::now()),
            piece: AtomicUsize::new(PIECE),
        })
    }

    /// Who signs.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Bytes that a piece of an upload should have now.
    pub fn piece(&self) -> usize {
        self.piece.load(Ordering::Relaxed)
    }

    /// Posts a message and reads the answer. `wait` is what the server may wait on purpose.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call<A: Message + Default>(
        &self,
        target: &str,
        message: &impl Message,
        wait: Duration,
    ) -> Result<A, CallError> {
        self.post(target, message.encode_to_vec(), wait).await
    }

    /// Posts bytes and reads the answer.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn post<A: Message + Default>(
        &self,
        target: &str,
        body: Vec<u8>,
        wait: Duration,
    ) -> Result<A, CallError> {
        let answer = self.send(target, body, HeaderMap::new(), wait).await?;
        let bytes = read(target, answer, MAX_ANSWER).await?;
        let unreadable = CallError::Answer { target: target.into(), expected: "of the protocol" };
        A::decode(bytes.as_slice()).map_err(|_| unreadable)
    }

    /// Registers at the server, with a token if it asks for one.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn enroll(&self, token: &str) -> Result<(), CallError> {
        let enroll = wire::Enroll { token: token.into() };
        let wire::Ack { .. } = self.call(ENROLL, &enroll, Duration::ZERO).await?;
        Ok(())
    }

    /// Asks a service of the server's host program, as an enrolled client.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn service(&self, name: &str, request: Vec<u8>) -> Result<Vec<u8>, CallError> {
        let target = format!("/v1/service/{name}");
        let answer = self.send(&target, request, HeaderMap::new(), Duration::ZERO).await?;
        read(&target, answer, MAX_ANSWER).await
    }

    /// Reads a part of a blob from an offset, 4 MiB at most; the server says how much it gives at a
    /// time.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn part(&self, digest: Digest, offset: u64) -> Result<Part, CallError> {
        let target = format!("/v1/blob/{digest}");
        let mut headers = HeaderMap::new();
        let last = offset.saturating_add(MAX_ANSWER as u64 - 1);
        if let Ok(range) = format!("bytes={offset}-{last}").parse() {
            headers.insert(RANGE, range);
        }
        let answer = self.send(&target, Vec::new(), headers, Duration::ZERO).await?;
        let expected = || CallError::blob(digest, "a part of a blob");
        // bytes first-last/total
        let range = answer.headers().get(CONTENT_RANGE).and_then(|r| r.to_str().ok());
        let (place, total) =
            range.and_then(|r| r.strip_prefix("bytes ")?.split_once('/')).ok_or_else(expected)?;
        let total = total.parse().map_err(|_| expected())?;
        if place.split_once('-').and_then(|(first, _)| first.parse().ok()) != Some(offset) {
            return Err(expected());
        }
        let bytes = read(&target, answer, MAX_ANSWER).await?;
        match bytes.is_empty() || bytes.len() as u64 > total - offset.min(total) {
            true => Err(expected()),
            false => Ok(Part { bytes, total }),
        }
    }

    fn due(&self) -> Instant {
        *self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the server says of the next request, within reason.
    fn keep_pace(&self, headers: &HeaderMap) {
        let Some(Pace { wait, piece }) = Pace::parse(|name| text(headers, name)) else { return };
        self.piece.store(piece.clamp(1, MAX_ANSWER), Ordering::Relaxed);
        let due = Instant::now() + wait.min(PATIENCE);
        *self.due.lock().unwrap_or_else(PoisonError::into_inner) = due;
    }

    fn run(&self) -> MutexGuard<'_, Option<RunId>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self) -> MutexGuard<'_, Option<StartId>> {
        self.start.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom a request is signed for. Who enrolls doesn't know the run yet, and learns it so.
    fn audience(&self, target: &str) -> Audience {
        let run = if target == ENROLL { None } else { *self.run() };
        Audience { host: self.host.clone(), run, start: *self.start() }
    }

    async fn refusal(&self, target: &str, answer: Response) -> CallError {
        let status = answer.status();
        let wait = number(answer.headers(), RETRY_AFTER.as_str()).map(Duration::from_secs);
        let said = match read(target, answer, 1 << 16).await {
            Ok(bytes) => wire::Refused::decode(bytes.as_slice()).unwrap_or_default(),
            Err(error) => return error,
        };
        let (target, wire::Refused { name, reason }) = (target.to_owned(), said);
        let temporary = status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            // A connection that broke off, a nonce that was taken already, a clock that was set, a
            // server that was started again.
            || matches!(name.as_str(), "cut" | "replayed" | "stale" | "start");
        if name.is_empty() && !temporary {
            let reason = format!("which answers {target} with {status}");
            let expected = "the address of a tern server";
            return CallError::Stranger { server: self.base.clone(), reason, expected };
        }
        match temporary {
            true => CallError::Busy { target, status: status.as_u16(), reason, wait },
            false => CallError::Refused { target, name, reason },
        }
    }

    async fn send(
        &self,
        target: &str,
        body: Vec<u8>,
        headers: HeaderMap,
        wait: Duration,
    ) -> Result<Response, CallError> {
        // Twice at most: the first answer may tell that the clock is off, or of the server's start.
        let mut again = true;
        loop {
            sleep(self.due().saturating_duration_since(Instant::now())).await;
            let now = clock::now().0.saturating_add_signed(self.ahead.load(Ordering::Relaxed));
            let request = ("POST", target, body.as_slice());
            let signed = self.identity.sign_request(self.audience(target), request, Millis(now))?;
            let mut builder = self
                .client
                .post(format!("{}{target}", self.base))
                .headers(headers.clone())
                .header(ACCEPT, "application/x-protobuf")
                .timeout(wait + PATIENCE)
                .body(body.clone());
            for (name, value) in signed.headers() {
                builder = builder.header(name, value);
            }
            let answer =
                builder.send().await.map_err(|e| platform::unreached(&self.base, target, e))?;
            if answer.status().is_success() {
                self.keep_pace(answer.headers());
                if target == ENROLL {
                    *self.run() = text(answer.headers(), auth::RUN).and_then(|r| r.parse().ok());
                }
                return Ok(answer);
            }
            let server_time = number(answer.headers(), auth::TIME);
            let start = text(answer.headers(), auth::START).and_then(|start| start.parse().ok());
            let error = self.refusal(target, answer).await;
            match server_time {
                Some(time) if again => {
                    let ahead =
                        i64::try_from(time).unwrap_or(0).saturating_sub_unsigned(clock::now().0);
                    self.ahead.store(ahead, Ordering::Relaxed);
                    if start.is_some() {
                        *self.start() = start;
                    }
                    tracing::debug!(ahead, ?start, "took the server's time and start");
                    again = false;
                }
                _ => return Err(error),
            }
        }
    }
}

/// The host of an address, with its port unless it is the scheme's.
fn host(base: &str) -> Option<String> {
    let url = reqwest::Url::parse(base).ok()?;
    let host = url.host_str()?;
    Some(url.port().map_or(host.to_owned(), |port| format!("{host}:{port}")))
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name)?.parse().ok()
}

async fn read(target: &str, answer: Response, most: usize) -> Result<Vec<u8>, CallError> {
    let body = platform::body(answer, most).await.map_err(|e| network(target, &e.without_url()))?;
    let expected = "within its limit";
    body.ok_or_else(|| CallError::Answer { target: target.into(), expected })
}

/// With the whole chain of causes: what matters, a refused connection say, is at its end.
pub(crate) fn network(target: &str, error: &reqwest::Error) -> CallError {
    let mut reason = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        reason = format!("{reason}: {next}");
        cause = next.source();
    }
    CallError::Network { target: target.into(), reason }
}

#[cfg(test)]
mod tests {
    use tern_engine::nn::ModelSpec;
    use tern_protocol::RunPlan;
    use tern_protocol::layout::ModelKind;
    use tern_server::federation::{self, Federation};
    use tern_server::http::{Board, Options, Server};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_whose_clock_is_off_learns_the_servers_time() {
        let folder = tempfile::tempdir().unwrap();
        let plan = RunPlan::new("test", ModelKind::Layers(ModelSpec::mlp(3, &[], 2)), 1);
        let initial = plan.check().unwrap().parameters().initial(1);
        let options = federation::Options::default();
        let federation = Federation::open(folder.path(), &plan, &initial, options).unwrap();
        let server = Server::new(federation, Board::new(0), Options::default());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(server.serve(listener, std::future::pending()));
        let http = Http::new(&url, None, Identity::from_secret(&[1; 32])).unwrap();
        let hour = 3_600_000;
        for off in [hour, -hour] {
            http.ahead.store(off, Ordering::Relaxed);
            let enroll = wire::Enroll::default();
            let wire::Ack { .. } = http.call("/v1/enroll", &enroll, Duration::ZERO).await.unwrap();
            assert!(http.ahead.load(Ordering::Relaxed).abs() < hour / 2);
        }
        // Nobody listens: that may change.
        serving.abort();
        let lost = Http::new("http://127.0.0.1:1", None, Identity::from_secret(&[1; 32])).unwrap();
        let called: Result<wire::Ack, _> =
            lost.call("/v1/enroll", &wire::Enroll::default(), Duration::ZERO).await;
        let error = called.unwrap_err();
        assert_eq!(error.retry(), Some(Duration::ZERO), "{error}");
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_whose_time_is_never_met_is_tried_later() {
        let stale = || async {
            let refused = wire::Refused { name: "stale".into(), reason: "too late".into() };
            (StatusCode::UNAUTHORIZED, [(auth::TIME, "5")], refused.encode_to_vec())
        };
        let app = axum::Router::new().fallback(stale);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move { axum::serve(listener, app).await });
        let http = Http::new(&url, None, Identity::from_secret(&[1; 32])).unwrap();
        let error = http.enroll("").await.unwrap_err();
        assert_eq!((error.retry(), error.name()), (Some(Duration::ZERO), None), "{error}");
        let served = clock::now().0.saturating_add_signed(http.ahead.load(Ordering::Relaxed));
        assert!(served < 60_000, "took the time it was told: {served}");
        serving.abort();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_answers_as_no_server_of_tern_does_is_a_stranger() {
        let moved = || async { (StatusCode::MOVED_PERMANENTLY, "see elsewhere") };
        let down = || async { (StatusCode::BAD_GATEWAY, "come back later") };
        let app = axum::Router::new()
            .route("/moved/v1/enroll", axum::routing::post(moved))
            .route("/down/v1/enroll", axum::routing::post(down));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, app).await });
        for (path, wait, expected) in [
            ("moved", None, "301 Moved Permanently, expected the address of a tern server"),
            ("nowhere", None, "404 Not Found, expected the address of a tern server"),
            ("down", Some(Duration::ZERO), "502"),
        ] {
            let url = format!("http://{address}/{path}");
            let http = Http::new(&url, None, Identity::from_secret(&[1; 32])).unwrap();
            let error = http.enroll("").await.unwrap_err();
            assert_eq!(error.retry(), wait, "{error}");
            assert!(error.to_string().contains(expected), "{error}");
        }
        serving.abort();
    }
}
