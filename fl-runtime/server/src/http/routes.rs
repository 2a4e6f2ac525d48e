//! What is asked where.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::header::{ACCEPT_RANGES, CONNECTION, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use prost::Message;
use tern_protocol::auth::RUN;
use tern_protocol::participant::SMALL_BODY;
use tern_protocol::{ClientId, Digest, Refusal, Turn, wire};
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout_at;

use super::memory::{WAIT, holding};
use super::origins;
use super::page::{self, PAGE};
use super::places::Visit;
use super::reply::{Denied, message};
use super::service::Offered;
use super::signed::{Pacing, Signed};
use super::{App, ENROLL, UPLOAD, failed};

type Shared = State<Arc<App>>;

/// Name of the refusal of a model that is no longer there.
pub(super) const NO_BLOB: &str = "no_blob";

/// Routes, for the metrics; what is none of them is `other`.
const ROUTES: [&str; 13] = [
    ENROLL,
    "/v1/run",
    "/v1/poll",
    "/v1/message",
    UPLOAD,
    "/v1/finish",
    "/health",
    "/metrics",
    "/status.json",
    "/",
    "/v1/blob/",
    "/v1/service/",
    PAGE,
];

pub(super) fn router(app: Arc<App>) -> Router {
    let mut router = Router::new()
        .route(ENROLL, post(enroll))
        .route("/v1/run", post(run))
        .route("/v1/poll", post(poll))
        .route("/v1/message", post(take))
        .route(UPLOAD, post(upload))
        .route("/v1/finish", post(finish))
        .route("/v1/blob/{digest}", post(blob))
        .route("/v1/service/{name}", post(service))
        .route("/health", get(health));
    if app.dashboard {
        router = router
            .route("/", get(super::dashboard::page))
            .route("/status.json", get(super::dashboard::status))
            .route("/metrics", get(super::dashboard::metrics));
    }
    if app.site.is_some() {
        router = router
            .route("/page", get(page::folder))
            .route(PAGE, get(page::index))
            .route("/page/{*name}", get(page::file));
    }
    router = router
        .method_not_allowed_fallback(other_method)
        .fallback(nothing_here)
        .layer(from_fn_with_state(app.clone(), observe));
    // Outermost: a page of another origin may read refusals, too.
    if !app.origins.is_empty() {
        router = router.layer(origins::allow(&app.origins));
    }
    router.with_state(app)
}

/// Bounds and counts what comes from an address.
async fn observe(State(app): Shared, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let path = request.uri().path();
    let route = ROUTES.iter().find(|r| match **r {
        "/v1/blob/" | "/v1/service/" | PAGE => path.starts_with(**r),
        route => path == route,
    });
    let route = route.copied().unwrap_or("other");
    let pacing = Pacing::of(&request);
    let visit = request.extensions().get::<Visit>().cloned();
    let mut answer = match app.admit_address(&request) {
        Ok(()) => next.run(request).await,
        Err(denied) => app.deny(denied, request.headers()),
    };
    if let Some(pacing) = pacing {
        pacing.tell(&app, &mut answer);
    }
    let guest_time = Duration::from_secs_f64(app.limits.guest_seconds);
    if visit.is_some_and(|visit| visit.is_over(guest_time)) {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    app.metrics.answered(route, answer.status().as_u16(), started.elapsed().as_secs_f64());
    answer
}

/// A handler's result, answered as the client asked.
fn answered<T>(
    app: &App,
    headers: &HeaderMap,
    result: Result<T, Denied>,
    answer: impl FnOnce(T) -> Response,
) -> Response {
    match result {
        Ok(value) => answer(value),
        Err(denied) => app.deny(denied, headers),
    }
}

fn decode<M: Message + Default>(signed: &Signed, what: &'static str) -> Result<M, Denied> {
    M::decode(signed.body.clone()).map_err(|_| Refusal::Malformed(what).into())
}

async fn enroll(State(app): Shared, signed: Signed) -> Response {
    let result = async {
        let wire::Enroll { token } = decode(&signed, "enroll")?;
        let client = signed.client;
        let token = (!token.is_empty()).then_some(token);
        app.with(move |backend| backend.enroll(client, token.as_deref())).await??;
        tracing::info!(%client, "enrolled");
        Ok(wire::Ack { repeated: false })
    };
    // What the client signs from now on is for this run.
    let run = [(HeaderName::from_static(RUN), app.run.to_string())];
    answered(&app, &signed.headers, result.await, |ack| (run, message(&ack)).into_response())
}

async fn run(State(app): Shared, signed: Signed) -> Response {
    let client = signed.client;
    let result = async {
        known(&app, client).await?;
        Ok(wire::Run { task: app.backend.task().text().to_owned() })
    };
    answered(&app, &signed.headers, result.await, |run| message(&run))
}

async fn known(app: &Arc<App>, client: ClientId) -> Result<(), Denied> {
    match app.knows(&client).await? {
        true => Ok(()),
        false => Err(Refusal::Unknown(client).into()),
    }
}

/// Answers at once when there is something to do, else when that may have changed: what the
/// client is told is compared, so that it isn't woken by what others do.
async fn poll(State(app): Shared, signed: Signed) -> Response {
    let client = signed.client;
    let result = async {
        let wire::Poll { samples, version, wait, process } = decode(&signed, "poll")?;
        let longest = Duration::from_secs_f64(app.limits.poll_seconds);
        let deadline =
            tokio::time::Instant::now() + longest.min(Duration::from_millis(wait.into()));
        // Subscribed before the first look, so that nothing is missed in between.
        let mut changed = app.backend.changes();
        let mut stopping = app.stopping.subscribe();
        app.with(move |backend| backend.check_process(&client, process)).await??;
        loop {
            changed.borrow_and_update();
            let poll = app.with(move |backend| backend.poll(&client, samples));
            let instruction = poll.await??;
            let waits = matches!(instruction.what, None | Some(wire::instruction::What::Wait(_)));
            // Another version, not a later one: they start anew with the process.
            if !waits && instruction.version != version || *stopping.borrow() {
                return Ok(instruction);
            }
            tokio::select! {
                woken = timeout_at(deadline, changed.changed()) => {
                    if woken.is_err() {
                        return Ok(instruction);
                    }
                }
                _ = stopping.changed() => return Ok(instruction),
            }
        }
    };
    answered(&app, &signed.headers, result.await, |instruction| message(&instruction))
}

async fn take(State(app): Shared, signed: Signed) -> Response {
    let client = signed.client;
    let result = async {
        let said: wire::Message = decode(&signed, "message")?;
        app.with(move |backend| backend.message(&client, said)).await?.map_err(Denied::from)
    };
    answered(&app, &signed.headers, result.await, |ack| message(&ack))
}

/// Reads `round`, `attempt` and, where it is given, `offset`.
fn place(query: &str) -> Result<(Turn, Option<u64>), Denied> {
    let malformed = || Denied::from(Refusal::Malformed("query"));
    let (mut round, mut attempt, mut offset) = (None, None, None);
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').ok_or_else(malformed)?;
        match name {
            "round" => round = Some(value.parse().map_err(|_| malformed())?),
            "attempt" => attempt = Some(value.parse().map_err(|_| malformed())?),
            "offset" => offset = Some(value.parse().map_err(|_| malformed())?),
            _ => return Err(malformed()),
        }
    }
    match (round, attempt) {
        (Some(round), Some(attempt)) => Ok((Turn { round, attempt }, offset)),
        _ => Err(malformed()),
    }
}

async fn upload(State(app): Shared, signed: Signed) -> Response {
    let Signed { client, body, query, headers, held, .. } = signed;
    let result = async {
        let (turn, offset) = place(&query)?;
        let alone = app.alone(&client).await;
        let mut incoming = app.with(move |backend| backend.incoming(&client, turn)).await??;
        let Some(first) = offset else { return Ok(incoming.len()) };
        let (_, appended) = keeping((alone, held), move || incoming.append(first, &body)).await?;
        Ok(appended?)
    };
    let received = |offset| message(&wire::Received { offset });
    answered(&app, &headers, result.await, received)
}

async fn finish(State(app): Shared, signed: Signed) -> Response {
    let decoded = decode::<wire::Finish>(&signed, "finish");
    let Signed { client, headers, held, .. } = signed;
    let result = async {
        let said = decoded?;
        let bytes = said.body.len();
        if bytes > SMALL_BODY {
            return Err(Denied::too_large(bytes, SMALL_BODY));
        }
        let (alone, backend) = (app.alone(&client).await, app.backend.clone());
        let (_, ack) = keeping((alone, held), move || backend.finish(&client, said)).await?;
        ack.map_err(Denied::from)
    };
    answered(&app, &headers, result.await, |ack| message(&ack))
}

/// A piece of a blob: at most as much as a piece of an upload and as was asked for, so that memory
/// is bounded on both sides and a download that breaks off goes on where it was.
async fn blob(State(app): Shared, Path(digest): Path<String>, signed: Signed) -> Response {
    let Signed { client, headers: asked, address, held, .. } = signed;
    // Who holds some and waits for more would wait for others that do the same.
    drop(held);
    let result = async {
        let digest: Digest = digest.parse().map_err(|_| Refusal::Malformed("digest"))?;
        let (first, asked_for) = range(&asked)?;
        let gone = || Denied::new(StatusCode::NOT_FOUND, NO_BLOB, "no such model, or no longer");
        let total = app.with(move |backend| backend.length(&client, &digest)).await??;
        let total = total.ok_or_else(gone)?;
        let most = asked_for.min(app.piece(address) as u64);
        let length = total.saturating_sub(first).min(most) as usize;
        if length == 0 {
            let reason = format!("the blob has {total} bytes, asked from {first}");
            return Err(Denied::new(StatusCode::RANGE_NOT_SATISFIABLE, "range", reason));
        }
        app.admit_bytes(client, length)?;
        let held = app.memory.hold(address, length, WAIT).await?;
        let bytes = match app.with(move |backend| backend.piece(&digest, first, length)).await? {
            Ok(bytes) => bytes,
            // Another round may have gone on meanwhile.
            Err(error) => match app.with(move |backend| backend.length(&client, &digest)).await?? {
                Some(_) => return Err(Refusal::Storage(error.to_string()).into()),
                None => return Err(gone()),
            },
        };
        app.board.sent(length as u64);
        let range = format!("bytes {first}-{}/{total}", first + length as u64 - 1);
        let headers = [
            (CONTENT_TYPE, "application/octet-stream".to_owned()),
            (ACCEPT_RANGES, "bytes".to_owned()),
            (CONTENT_RANGE, range),
        ];
        Ok((StatusCode::PARTIAL_CONTENT, headers, holding(bytes, held)).into_response())
    };
    answered(&app, &asked, result.await, |answer| answer)
}

/// An answer of the host program's.
async fn service(State(app): Shared, Path(name): Path<String>, signed: Signed) -> Response {
    let client = signed.client;
    let result = async {
        known(&app, client).await?;
        let unknown = || {
            let offered: Vec<_> = app.services.keys().map(String::as_str).collect();
            let reason = format!("no service {name:?}, expected one of [{}]", offered.join(", "));
            Denied::new(StatusCode::NOT_FOUND, "no_service", reason)
        };
        let Offered { service, turns } = app.services.get(&name).ok_or_else(unknown)?.clone();
        // It is never closed.
        let turn = turns.acquire_owned().await.ok();
        let body = signed.body.clone();
        let (_, answer) = keeping(turn, move || service.answer(&client, &body)).await?;
        Ok(answer?)
    };
    let bytes =
        |answer: Vec<u8>| ([(CONTENT_TYPE, "application/octet-stream")], answer).into_response();
    answered(&app, &signed.headers, result.await, bytes)
}

impl App {
    /// Waits until no other request writes this client's upload.
    async fn alone(&self, client: &ClientId) -> OwnedMutexGuard<()> {
        self.uploads[usize::from(client.0[0]) % self.uploads.len()].clone().lock_owned().await
    }
}

/// Runs what may wait for the disk off the event loop, and gives back what it keeps meanwhile. A
/// request may be dropped at any moment, but what it has begun goes on: until that is done it is
/// kept.
async fn keeping<K: Send + 'static, T: Send + 'static>(
    kept: K,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<(K, T), Denied> {
    let ran = tokio::task::spawn_blocking(move || {
        let done = run();
        (kept, done)
    });
    ran.await.map_err(failed)
}

/// The offset of `Range: bytes=N-` or `bytes=N-M`, and how many bytes are asked for at most.
fn range(headers: &HeaderMap) -> Result<(u64, u64), Denied> {
    let Some(range) = headers.get(RANGE) else { return Ok((0, u64::MAX)) };
    let asked_for = range.to_str().ok().and_then(|r| {
        let (first, last) = r.strip_prefix("bytes=")?.split_once('-')?;
        let first = first.parse::<u64>().ok()?;
        match last {
            "" => Some((first, u64::MAX)),
            last => Some((first, last.parse::<u64>().ok()?.checked_sub(first)?.saturating_add(1))),
        }
    });
    asked_for.ok_or_else(|| Refusal::Malformed("range").into())
}

/// Whether the server works: it can look at its federation, which has what it needs to go on.
async fn health(State(app): Shared) -> Response {
    let trouble = app.with(|backend| backend.trouble()).await;
    let healthy = trouble.and_then(|trouble| match trouble {
        None => Ok(()),
        Some(reason) => Err(Denied::new(StatusCode::SERVICE_UNAVAILABLE, "unhealthy", reason)),
    });
    answered(&app, &HeaderMap::new(), healthy, |()| "ok\n".into_response())
}

async fn nothing_here(State(app): Shared, request: Request) -> Response {
    let denied = Denied::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here");
    app.deny(denied, request.headers())
}

async fn other_method(State(app): Shared, request: Request) -> Response {
    let reason = format!("{} is not answered here", request.method());
    let denied = Denied::new(StatusCode::METHOD_NOT_ALLOWED, "method", reason);
    app.deny(denied, request.headers())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_or_refused() {
        let read = |query| place(query).map_err(|d| d.name);
        assert_eq!(read("round=1&attempt=2&offset=3"), Ok((Turn::new(1, 2), Some(3))));
        assert_eq!(read("attempt=2&round=1"), Ok((Turn::new(1, 2), None)));
        for query in ["", "round=1", "round=1&attempt=x", "round=1&attempt=1&size=3", "round=-1"] {
            assert_eq!(read(query), Err("malformed"), "{query}");
        }
    }

    #[tokio::test]
    async fn an_upload_stays_alone_after_its_request_is_dropped() {
        let place = Arc::new(tokio::sync::Mutex::new(()));
        let alone = place.clone().lock_owned().await;
        let (begun, begins) = std::sync::mpsc::channel();
        let (end, ends) = std::sync::mpsc::channel();
        let request = tokio::spawn(keeping(alone, move || {
            begun.send(()).unwrap();
            ends.recv().unwrap();
        }));
        tokio::task::spawn_blocking(move || begins.recv().unwrap()).await.unwrap();
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled());
        assert!(place.try_lock().is_err(), "it still writes");
        end.send(()).unwrap();
        drop(place.lock().await);
    }

    #[test]
    fn ranges_are_read_or_refused() {
        let read = |text: &str| {
            let headers = HeaderMap::from_iter([(RANGE, text.parse().unwrap())]);
            range(&headers).map_err(|d| d.name)
        };
        assert_eq!(range(&HeaderMap::new()).unwrap(), (0, u64::MAX));
        assert_eq!((read("bytes=7-"), read("bytes=4-9")), (Ok((7, u64::MAX)), Ok((4, 6))));
        for text in ["bytes=-7", "bytes=7", "bytes=7-x", "lines=7-", "bytes=1-2,4-5", "bytes=7-6"] {
            assert_eq!(read(text), Err("malformed"), "{text}");
        }
    }
}
