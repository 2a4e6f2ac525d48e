//! Taking a request in: its address, its size, its body, its signature, in the order of cost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, FromRequest, Request};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::App;
use super::limits::network;
use super::reply::Denied;
use crate::auth::{AuthError, Credentials};
use crate::{ClientId, Millis};

/// A request that a client signed, whole.
pub(super) struct Signed {
    pub client: ClientId,
    pub body: Bytes,
    /// The query, as it was sent.
    pub query: String,
    pub headers: HeaderMap,
    /// The memory its body holds.
    _held: OwnedSemaphorePermit,
}

impl FromRequest<Arc<App>> for Signed {
    type Rejection = axum::response::Response;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Self::Rejection> {
        let headers = request.headers().clone();
        take(request, app).await.map_err(|denied| app.deny(denied, &headers))
    }
}

async fn take(request: Request, app: &Arc<App>) -> Result<Signed, Denied> {
    let (parts, body) = request.into_parts();
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let credentials = Credentials::parse(header)?;
    app.window.check_time(credentials.time, Millis::now())?;
    let most = match parts.uri.path() {
        super::UPLOAD => app.limits.piece_bytes,
        _ => app.limits.message_bytes,
    };
    let (body, held) = read(app, body, &parts.headers, most).await?;
    let target = parts.uri.path_and_query().map_or("/", |t| t.as_str()).to_owned();
    let (method, query) = (parts.method.clone(), parts.uri.query().unwrap_or("").to_owned());
    let checked = tokio::task::spawn_blocking(move || {
        let verified = credentials.verify(method.as_str(), &target, &body);
        verified.map(|()| (credentials, body))
    });
    let (credentials, body) = checked.await.map_err(|_| Denied::from(AuthError::Signature))??;
    let now = Millis::now();
    // Counted only now: nobody else can use up a client's share.
    app.clients.take(credentials.key, now).map_err(|wait| Denied::busy("rate", wait))?;
    app.window.admit(&credentials, now)?;
    Ok(Signed { client: credentials.key, body, query, headers: parts.headers, _held: held })
}

/// Reads a body within its size and its time.
async fn read(
    app: &Arc<App>,
    body: Body,
    headers: &HeaderMap,
    most: usize,
) -> Result<(Bytes, OwnedSemaphorePermit), Denied> {
    let too_large = |bytes: &dyn std::fmt::Display| {
        let reason = format!("the body has {bytes} bytes, expected at most {most}");
        Denied::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", reason)
    };
    let length = headers.get(CONTENT_LENGTH).and_then(|l| l.to_str().ok()?.parse::<usize>().ok());
    if let Some(length) = length.filter(|length| *length > most) {
        return Err(too_large(&length));
    }
    let expected = length.unwrap_or(most);
    let held = app.hold(expected).await?;
    let slow = |_| Denied::new(StatusCode::REQUEST_TIMEOUT, "slow", "the body comes too slowly");
    match timeout(app.limits.body_time(expected), to_bytes(body, most)).await.map_err(slow)? {
        Ok(bytes) => Ok((bytes, held)),
        Err(_) if length.is_none() => Err(too_large(&"too many")),
        Err(error) => {
            let reason = format!("the body ends early: {error}");
            Err(Denied::new(StatusCode::BAD_REQUEST, "cut", reason))
        }
    }
}

impl App {
    /// Reserves memory for a body, waiting a moment where all is taken.
    pub async fn hold(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Denied> {
        let wait = Duration::from_secs(5);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        match timeout(wait, self.held.clone().acquire_many_owned(permits)).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Denied::busy("busy", wait)),
        }
    }

    /// Counts a request of an address.
    pub fn admit_address(&self, request: &Request) -> Result<(), Denied> {
        let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>() else {
            return Ok(());
        };
        self.addresses
            .take(network(peer.ip()), Millis::now())
            .map_err(|wait| Denied::busy("address_rate", wait))
    }
}
